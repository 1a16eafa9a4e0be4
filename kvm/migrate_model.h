/* SPDX-License-Identifier: MIT */
/*
 * What a migration would do, from two measurements of how much the guest writes, and from the
 * bandwidth. Pure; any thread. Used by `faultline migrate --dry-run`.
 *
 * The guest is taken as one that writes at random in a working set of S bytes: of it, in a time t,
 *
 *     written(t) = S * (1 - exp(-rate * t / S))
 *
 * bytes are written at least once. Two times t give rate and S. What is left out: that the guest is
 * slowed down by the log of its writes, by --auto-converge, and that it may change its habits.
 */
#ifndef KVM_MIGRATE_MODEL_H
#define KVM_MIGRATE_MODEL_H

#include "kvm/migrate_policy.h"

typedef struct MigrateWrites {
    double working_bytes; /* S */
    double bytes_per_s;   /* rate, at t = 0 */
} MigrateWrites;

/* written1 bytes in s1 seconds, written2 in s2 > s1; of guest_bytes in all. */
MigrateWrites migrate_writes_fit(double s1, double written1, double s2, double written2,
                                 double guest_bytes);

/* Bytes written at least once in so many seconds. */
double migrate_writes_in(const MigrateWrites *writes, double seconds);

typedef struct MigratePlan {
    double guest_bytes, content_bytes; /* of them, what is not zero: all of the first pass */
    MigrateWrites writes;
    double bytes_per_s;          /* of guest memory, in precopy */
    double link_bytes_per_s;     /* in the downtime, which knows no limit */
    double postcopy_bytes_per_s; /* in postcopy */
    MigrateDowntime downtime;
    MigratePolicy policy;
} MigratePlan;

typedef struct MigrateForecast {
    bool completes;    /* false: it goes on for ever, and the rest tells of when that was clear */
    bool postcopy;     /* it would switch to it */
    uint64_t passes;   /* whole ones */
    double seconds;    /* until everything is at the destination */
    double downtime_s; /* the part of memory in it; 0 with postcopy. Where it does not complete:
                        * what would have to be allowed */
    double remaining_bytes; /* sent in the downtime, or in postcopy */
} MigrateForecast;

void migrate_forecast(const MigratePlan *plan, MigrateForecast *ret_forecast);

#endif
