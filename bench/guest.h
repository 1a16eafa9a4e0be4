/* SPDX-License-Identifier: MIT */
/*
 * The guest of the bench: memory whose every page says which one it is, and threads that touch it
 * at the destination and time each touch. It never runs at the source: which pages are dirty there
 * is chosen, not caused, so that every migration misses exactly the same pages.
 */
#ifndef BENCH_GUEST_H
#define BENCH_GUEST_H

#include "bench/board.h"
#include "bench/pattern.h"
#include "bench/placement.h"
#include "kvm/machine.h"

/* X(name, text) */
#define BACKING_LIST(X)                                                                            \
    X(SMALL, "4k")                                                                                 \
    X(THP, "thp")                                                                                  \
    X(HUGETLB, "hugetlb")                                                                          \
    X(PRIVATE, "private")

typedef enum {
#define BACKING_ENUM(name, text) BACKING_##name,
    BACKING_LIST(BACKING_ENUM)
#undef BACKING_ENUM
        BACKING_COUNT
} Backing;

extern const char *const backing_names[BACKING_COUNT];

typedef struct TouchPlan {
    unsigned count_threads; /* 0: nobody touches anything */
    uint64_t count_touches; /* of all threads */
    Pattern pattern;
    bool writes;
    uint64_t think_ns;
    uint64_t limit_ns; /* threads stop after this time */
} TouchPlan;

/* Which pages the source has dirty at the switch-over. */
typedef struct DirtyPlan {
    uint64_t count_pages; /* UINT64_MAX: all */
    bool is_scattered;    /* spread evenly; else one run from the beginning */
} DirtyPlan;

typedef struct BenchGuest BenchGuest;

MachineMemory bench_memory_kind(Backing backing);
/* Maps memory of a kind. */
bool bench_map(Backing backing, uint64_t bytes, FaultlineBlock *ret_block, GError **error);
/* Makes this host hand out `bytes` of memory of a kind and takes them back, so that what is
 * allocated next is memory that the hypervisor has given already. Best effort; huge pages are left
 * alone. */
void bench_warm_host(Backing backing, uint64_t bytes);
/* A guest that ran has touched its memory: maps it in this process, best effort (Linux 5.14). */
void bench_map_source(const FaultlineBlock *block);
/* Fills each page with what tells its number. */
void bench_fill(const FaultlineBlock *block);

/* One load a page, pages at random: what a guest's loads cost that find nothing in the TLB. Leaves
 * the mean and how much is mapped by 2 MiB on the board. Thread: any, when the memory is whole. */
void bench_load_at_random(const FaultlineBlock *block, uint64_t count, Board *board);

/* At the source: block is filled and stays the caller's. */
BenchGuest *bench_guest_new_source(const FaultlineBlock *block, const DirtyPlan *dirty);
/* At the destination; threads are made here, on the CPUs named, and wait. finished_fd: written to
 * (eventfd) when the last touch is done. */
BenchGuest *bench_guest_new_destination(const FaultlineBlock *block, const TouchPlan *plan,
                                        const cpu_set_t *cpus, Board *board, int finished_fd,
                                        GError **error);
/* After faultline_free(). */
void bench_guest_free(BenchGuest *guest);

/* opaque is the BenchGuest. */
const FaultlineGuest *bench_guest_calls(void);

#endif
