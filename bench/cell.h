/* SPDX-License-Identifier: MIT */
/*
 * One configuration of the fault latency bench, and what its repeats have brought.
 */
#ifndef BENCH_CELL_H
#define BENCH_CELL_H

#include "bench/floor.h"
#include "bench/samples.h"
#include "bench/stages.h"

#define CELL_ROLES_MAX 16u

/* What the threads of one name used during the touches, over all repeats. */
typedef struct RoleUse {
    char name[16];
    double cpu_us, switches;
} RoleUse;

typedef struct RoleUses {
    unsigned count;
    RoleUse roles[CELL_ROLES_MAX];
} RoleUses;

typedef struct Cell {
    /* set before the first repeat */
    uint64_t push_bytes_per_s;
    unsigned count_threads;
    PatternKind pattern;
    bool uses_tls, has_checksums; /* what is compared with the cell before, or one before that */

    uint64_t host_pages; /* target pages a page that is touched */
    bool has_urgent;

    Stages stages;
    Samples latency_us;      /* touches that waited, from touch to resume */
    FaultlineLatency engine; /* fault read to placed, of the faults that were requested */
    uint64_t count_touches, count_faults, count_mapped, count_wrong; /* faults: that waited */
    uint64_t count_pages; /* different ones touched, of each repeat */
    uint64_t count_requests, requested_pages, pushed_pages;
    uint64_t local_ticks;     /* KVM guest: of its quickest touch */
    double touch_s, waited_s; /* of all threads together */
    double count_threads_s;   /* touch_s times threads, over the repeats */
    RoleUses source, destination;
} Cell;

/* The floor of a run. */
typedef struct FloorFigures {
    Samples sleeping_us, spinning_us, ring_us, local_us; /* ring: as the engine waits */
    bool has_spinning, uses_spinning; /* measured; the one that the engine's setting answers to */
} FloorFigures;

void cell_init(Cell *cell);
void cell_clear(Cell *cell);
/* Takes what a move left on the board. */
void cell_add_repeat(Cell *cell, Board *board);

void floor_figures_init(FloorFigures *floor);
void floor_figures_clear(FloorFigures *floor);
/* plan->spin_ns is for the spinning one. */
bool floor_figures_add_repeat(FloorFigures *floor, const FloorPlan *plan, GError **error);
/* Round trip, plain or by io_uring, and local fault together. */
Quantiles floor_figures_sum(FloorFigures *floor, bool by_ring);

#endif
