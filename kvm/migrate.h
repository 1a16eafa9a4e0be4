/* SPDX-License-Identifier: MIT */
/*
 * `faultline migrate`: one program drives both sides of a migration, in the five phases that
 * libvirt has too. Everything is done by QMP, and all state is the machines' own, so that the
 * program may go away at any moment and either machine still knows what it may do.
 *
 *   begin     asks both sides: reachable, states, memory, capabilities; the doctor for this host
 *   prepare   sets both sides up; the destination listens
 *   perform   the source migrates; steered by migrate_policy.h
 *   finish    the destination has everything and runs
 *   confirm   the source ends
 *   settle    instead, after a failure: brings it to rest, finds where the guest is, resumes it
 *
 * The guest is the source's until perform hands it over, and the engine alone decides when that is;
 * settle only asks. One thread.
 */
#ifndef KVM_MIGRATE_H
#define KVM_MIGRATE_H

#include "kvm/migrate_options.h"
#include "kvm/migrate_report.h"

/* Beside EXIT_OK, EXIT_FAILED (the guest is at the source) and EXIT_USAGE. */
enum {
    MIGRATE_EXIT_CANCELLED = 3, /* the guest is at the source */
    MIGRATE_EXIT_PAUSED = 4,    /* postcopy is: keep both machines */
    MIGRATE_EXIT_LOST = 5,      /* the guest is, or nobody says where it is */
    MIGRATE_EXIT_UNFINISHED = 6 /* the guest is at the destination, but something failed there */
};

typedef struct Migrate {
    const MigrateOptions *options;
    MigrateReport report;
    MigrateSide source, destination;
    MigrateDowntime downtime; /* of options, for this guest */
    char *uri;                /* where the destination listens */
    bool was_running;         /* the guest, at the source */
    bool has_begun;           /* the source was told to migrate */
    bool is_cancelled;        /* by the user */
    MigrateLook last;         /* at the source, in perform */
} Migrate;

/* Whether Ctrl-C came since the last call. */
bool migrate_take_interrupt(void);

/* Sleeps a little; between two looks. */
void migrate_pause_us(int64_t us);

/* Part of begin: whether both sides have the same memory, as far as they tell; sets
 * migrate->downtime.guest_bytes. */
bool migrate_check_memory(Migrate *migrate, GError **error);

/* The phases; an error says what failed, not yet where the guest is. */
bool migrate_begin(Migrate *migrate, GError **error);
bool migrate_prepare(Migrate *migrate, GError **error);
bool migrate_perform(Migrate *migrate, GError **error);
bool migrate_finish(Migrate *migrate, GError **error);
bool migrate_confirm(Migrate *migrate, GError **error);

/* Brings it to rest after a failure in a phase; prints the outcome. Returns the exit code. */
int migrate_settle(Migrate *migrate, const GError *failure);

/* --dry-run. Returns the exit code. */
int migrate_dry_run(Migrate *migrate);

/* Sets capabilities that differ from `wanted` (RunSetting), and says so where one is not known. */
bool migrate_set_capabilities(MigrateSide *side, const GArray *wanted, GError **error);

/* {"uri": uri} */
JsonObject *migrate_uri_arguments(const char *uri);

/* Makes the destination listen, where it does not yet; sets migrate->uri. */
bool migrate_listen(Migrate *migrate, GError **error);

/* ---- Where the guest is ---------------------------------------------------------------------- */

typedef enum MigrateGuest {
    MIGRATE_GUEST_AT_SOURCE,
    MIGRATE_GUEST_AT_DESTINATION,
    MIGRATE_GUEST_WAITS, /* at the destination, for pages that the source keeps */
    MIGRATE_GUEST_LOST,
    MIGRATE_GUEST_UNKNOWN,
} MigrateGuest;

/* From what both sides say at rest; NULL: it does not answer any more. */
MigrateGuest migrate_locate(const MigrateLook *source, const MigrateLook *destination);

#endif
