/* SPDX-License-Identifier: MIT */
/*
 * What an orchestrated migration decides while it runs: how long the guest may stand still by now,
 * and whether it is time for postcopy. Pure: figures in, answers out; any thread.
 */
#ifndef KVM_MIGRATE_POLICY_H
#define KVM_MIGRATE_POLICY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* The downtime that is allowed rises from limit / steps to limit. */
typedef struct MigrateDowntime {
    uint64_t limit_ms;
    unsigned steps;            /* how often it is raised; 0: it is the limit from the beginning */
    uint64_t delay_ms_per_gib; /* of guest memory, before each step */
    uint64_t guest_bytes;
} MigrateDowntime;

/* When the migration has lasted for elapsed_ms. */
uint64_t migrate_downtime_at(const MigrateDowntime *downtime, uint64_t elapsed_ms);

/* From when on it is the limit. */
uint64_t migrate_downtime_full_ms(const MigrateDowntime *downtime);

typedef enum MigratePostcopy {
    MIGRATE_POSTCOPY_NEVER,
    MIGRATE_POSTCOPY_AFTER_PASS, /* value: passes */
    MIGRATE_POSTCOPY_TIMEOUT,    /* value: ms since the start */
    MIGRATE_POSTCOPY_STALL,      /* what remains has not shrunk, by 5% at least, for two passes */
} MigratePostcopy;

typedef struct MigratePolicy {
    MigratePostcopy kind;
    uint64_t value;
} MigratePolicy;

/* What a policy remembers of the passes so far; starts as zeros. */
typedef struct MigrateWatch {
    uint64_t pass, least_bytes;
    unsigned count_stalled;
} MigrateWatch;

/* pass: the one under way, from 1; remaining_bytes: to be sent in it, best told at its beginning.
 * Once true, always true. */
bool migrate_policy_wants_postcopy(const MigratePolicy *policy, MigrateWatch *watch,
                                   uint64_t elapsed_ms, uint64_t pass, uint64_t remaining_bytes);

/* "never", "after-pass=N", "timeout=30s", "stall"; false: text is none of them. */
bool migrate_policy_parse(const char *text, MigratePolicy *ret_policy);

/* "300ms", "30s", "2m", with a fraction: "0.5s"; false: text is no time. */
bool migrate_time_parse(const char *text, uint64_t *ret_ms);

#endif
