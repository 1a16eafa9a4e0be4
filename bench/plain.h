/* SPDX-License-Identifier: MIT */
/*
 * The floor of bulk transfer: the same bytes by plain sendmsg() and recv() over the same kind of
 * socket between the same two places.
 */
#ifndef BENCH_PLAIN_H
#define BENCH_PLAIN_H

#include "bench/move.h"

typedef struct PlainPlan {
    const FaultlineBlock *source_block;
    Backing backing;
    bool is_allocated; /* receive into memory that is there; else into fresh memory */
    bool is_unix;
    const Netns *netns;
    const Placement *placement;
    unsigned limit_s;
} PlainPlan;

typedef struct PlainFigures {
    double seconds, source_cpu_s, destination_cpu_s;
} PlainFigures;

bool plain_run(const PlainPlan *plan, PlainFigures *ret_figures, GError **error);

#endif
