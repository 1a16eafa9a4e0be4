/* SPDX-License-Identifier: MIT */
/*
 * Breaks in postcopy and what going on costs: one migration between two forked processes whose
 * connections are broken again and again, each time with a touch that waits through the pause.
 *
 * The memory is sparse: the bitmaps that a recovery exchanges have their true size, but nothing but
 * the pages that are touched has content, and the push is held back, so that the first page after a
 * break is the one that somebody waits for.
 *
 *   by itself    over a unix socket, whose file is moved away while the path is gone, so that
 *                connecting fails at once, and nothing else stands between the two sides.
 *                The path is back when the file is.
 *   by command   the destination was told to recover; the path is back when the source is told to.
 */
#ifndef BENCH_RECOVERY_H
#define BENCH_RECOVERY_H

#include "bench/floor.h"

#define RECOVERY_BREAKS_MAX 64u
#define RECOVERY_FLOOR      100u

typedef struct RecoveryPlan {
    const FaultlineBlock *source_block; /* the children inherit it */
    Backing backing;                    /* at the destination */
    bool is_automatic;
    bool is_unix; /* by command; by itself it always is */
    bool preempt;
    unsigned retry_ms; /* recover-retry */
    unsigned count_breaks;
    unsigned limit_s;
    const Placement *placement;
} RecoveryPlan;

/* In memory that the processes share. ms: count_breaks of each. */
typedef struct RecoveryFigures {
    char errors[2][600];
    double page_ms[RECOVERY_BREAKS_MAX];    /* path back to the end of the touch */
    double attempt_ms[RECOVERY_BREAKS_MAX]; /* of it, from the beginning of the attempt on */
    double floor_us[RECOVERY_FLOOR]; /* a page over a new plain connection, by the same processes */
    /* between the processes */
    char address[256];
    int64_t resume_us, setup_us;
} RecoveryFigures;

/* figures: by bench_shared_memory(). Thread: coordinator. Errors: the migration ended otherwise, or
 * a page read something else than the source had. */
bool recovery_run(const RecoveryPlan *plan, RecoveryFigures *figures, GError **error);

#endif
