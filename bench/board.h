/* SPDX-License-Identifier: MIT */
/*
 * What the two sides of one migration write down, in memory that they share with the coordinating
 * process. Each side writes its own part; the coordinator reads when both have ended.
 */
#ifndef BENCH_BOARD_H
#define BENCH_BOARD_H

#include "engine/faultline.h"

#define BOARD_THREADS_MAX 64u

/* What a thread has used so far, from /proc. */
typedef struct ThreadUse {
    char name[16];
    int id;
    uint64_t cpu_ns, switches; /* voluntary ones: how often it slept */
} ThreadUse;

typedef struct ThreadUses {
    unsigned count;
    ThreadUse threads[BOARD_THREADS_MAX];
} ThreadUses;

/* Of the calling process. */
void thread_uses_read(ThreadUses *uses);
double process_cpu_s(void);
/* Private memory of the process that is resident: the guest's is shared and does not count. */
uint64_t process_anonymous_bytes(void);

/* How a touch got its page. */
typedef enum {
    TOUCH_PRESENT, /* without a fault */
    TOUCH_MAPPED,  /* by a fault that the kernel solved alone */
    TOUCH_WAITED,  /* by a fault that put the thread to sleep: somebody had to bring the page */
} TouchKind;

/* One touch of guest memory. */
typedef struct Touch {
    uint64_t begin_ns, begin_ticks, ticks; /* of CLOCK_MONOTONIC, just before; of the counter */
    uint32_t page;
    TouchKind kind;
} Touch;

typedef struct SideBoard {
    char error[600]; /* "" while all is well */

    /* Wall clock of the engine's events, us; 0: did not happen. */
    int64_t active_us, stop_us, resume_us, postcopy_us, ended_us;
    uint64_t count_passes;

    double cpu_begin_s, cpu_switch_s, cpu_end_s; /* switch: STOP at the source, RESUME there */
    uint64_t anonymous_before_bytes, anonymous_during_bytes;

    FaultlineWalkTrace walks[FAULTLINE_WALK_ROLE_COUNT]; /* in the board's walk_records */
    uint64_t count_slow;    /* KVM guest: slow touches when it was stopped here */
    ThreadUses first, last; /* at the first touch and at the last; count 0: not taken */
    FaultlineInfo at_last;  /* when the last touch was done */
    FaultlineInfo at_end;   /* when the migration was over */
} SideBoard;

typedef struct Board {
    SideBoard source, destination;
    char address[256]; /* where the destination listens, as the source reaches it */

    uint64_t count_wrong; /* touches that read something else than the source had */
    double load_ns;       /* one of the plan's loads, on average */
    uint64_t huge_bytes;  /* of guest memory mapped by 2 MiB meanwhile */
    uint64_t local_ticks; /* KVM guest: of its quickest touch; 0: threads */
    uint64_t touch_ns;    /* from the first touch to the end of the last */
    uint64_t count_touches[BOARD_THREADS_MAX];
    /* set by the coordinator: room for the trace of each role of each side */
    FaultlineWalkRecord *walk_records; /* NULL: not traced */
    uint64_t walk_room;
    uint64_t room;   /* touches a thread */
    Touch touches[]; /* room for each thread, one after the other */
} Board;

/* Zeroed memory that children which are forked later share; munmap() frees it. */
void *bench_shared_memory(size_t bytes, GError **error);

/* Shared with the children that are forked later. */
Board *board_new(unsigned count_threads, uint64_t room, GError **error);
void board_free(Board *board, unsigned count_threads);
/* Walks of pages shall be traced, `room` records a thread. */
bool board_trace(Board *board, uint64_t room, GError **error);
/* Empty traces for one side, in its part of the board. Thread: that side's. */
FaultlineWalkTrace *board_walks(Board *board, bool is_source);
/* Ready for another migration. */
void board_clear(Board *board);

static inline Touch *
board_touches(Board *board, unsigned thread)
{
    return board->touches + thread * board->room;
}

#endif
