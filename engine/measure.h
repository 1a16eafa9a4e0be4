/* SPDX-License-Identifier: MIT */
/*
 * How fast the guest writes, without a migration: a chapter of faultline.h, which includes it.
 */
#ifndef ENGINE_MEASURE_H
#define ENGINE_MEASURE_H

#include "faultline.h"

#define FAULTLINE_MEASURE_LEAST_MS    50u
#define FAULTLINE_MEASURE_GREATEST_MS 60000u

typedef enum {
    FAULTLINE_MEASURE_UNSTARTED, /* never asked for, given up for a migration, or it failed */
    FAULTLINE_MEASURE_RUNNING,
    FAULTLINE_MEASURE_DONE,
} FaultlineMeasure;

typedef struct FaultlineDirtyRate {
    FaultlineMeasure state;
    int64_t started_s; /* wall clock, since 1970; 0 before the first */
    uint64_t time_ms;  /* asked for */
    uint64_t pages;    /* DONE: written at least once in took_ns */
    uint64_t took_ns;
    char error[256]; /* why it failed; "" if it did not */
} FaultlineDirtyRate;

/* Counts the pages written in time_ms, by the guest's dirty log or the engine's own write tracking.
 * Returns at once; a thread does it. A migration that begins meanwhile comes first: the measuring
 * is given up. Errors: ARGUMENT for a time out of range; STATE when a migration or another
 * measuring goes on, or the guest is not here; UNSUPPORTED when writes cannot be tracked; HOST. */
bool faultline_measure_dirty_rate(Faultline *faultline, uint64_t time_ms, GError **error);

/* Thread: control. */
void faultline_query_dirty_rate(const Faultline *faultline, FaultlineDirtyRate *ret_rate);

#endif
