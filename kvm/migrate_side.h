/* SPDX-License-Identifier: MIT */
/*
 * One side of an orchestrated migration: a machine behind its QMP socket. A connection that fails
 * is dropped, and made anew by the next question. One thread.
 */
#ifndef KVM_MIGRATE_SIDE_H
#define KVM_MIGRATE_SIDE_H

#include "kvm/qmp_client.h"

#include <stdint.h>

typedef struct MigrateSide {
    const char *name; /* "source", "destination" */
    const char *path; /* of the socket */
    QmpClient *client;
    JsonNode *capabilities; /* as they were when it was opened */
} MigrateSide;

/* What query-migrate and query-status say. Numbers that are not told are -1. */
typedef struct MigrateLook {
    char status[32];    /* of the migration; "none" */
    char run_state[32]; /* of the guest */
    char error[512];
    int64_t total_bytes, remaining_bytes, transferred_bytes, bytes_per_s, dirty_pages_per_s;
    bool will_retry; /* paused, and connects again by itself */
    int64_t pass, zero_pages, normal_pages, expected_downtime_ms, downtime_ms, total_ms,
        missing_pages;
} MigrateLook;

/* Connects and asks for the capabilities. */
bool migrate_side_open(MigrateSide *side, GError **error);
void migrate_side_close(MigrateSide *side);

/* What a command returns. arguments: taken over, may be NULL. Errors name the side; one of the peer
 * is G_IO_ERROR_FAILED. */
JsonNode *migrate_side_ask(MigrateSide *side, const char *command, JsonObject *arguments,
                           GError **error);
bool migrate_side_do(MigrateSide *side, const char *command, JsonObject *arguments, GError **error);

bool migrate_side_look(MigrateSide *side, MigrateLook *ret_look, GError **error);

/* Where it listens for a guest, as a URI (g_free); NULL without an error: nowhere. */
char *migrate_side_listening(MigrateSide *side, GError **error);

bool migrate_side_knows_capability(const MigrateSide *side, const char *name);
bool migrate_side_has_capability(const MigrateSide *side, const char *name);

/* name=value as the arguments of migrate-set-parameters: a switch where ours is one. */
void migrate_side_put_parameter(JsonObject *arguments, const char *name, uint64_t value);

bool migrate_look_is(const MigrateLook *look, const char *status);
bool migrate_look_runs(const MigrateLook *look, const char *run_state);

/* Neither completed, failed nor cancelled, nor paused. */
bool migrate_look_is_under_way(const MigrateLook *look);

#endif
