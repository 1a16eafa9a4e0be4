/* SPDX-License-Identifier: MIT */
/*
 * The walk of one page, step by step, and the trace of it. A role that is traced appends a record
 * to a buffer of its own at some of the steps; one that is not looks at a pointer and goes on.
 * Neither makes a system call, takes a lock or allocates. faultline_trace_walk() gives the buffers.
 *
 * Steps that lie within some hundred ns of another one of the same thread have a number and a name
 * here and are not recorded.
 *
 * Steps 4 and 8 are gone when the message stands in the frame that leaves next, not when the kernel
 * has it. Step 12 is gone with capability postcopy-blocktime only.
 *
 * Beside that each step is a USDT probe, WALK_PROBE(name of the step, block, page, ...), which
 * anybody may attach to while the process runs (doc/faultline-walk.bt); it is one nop until then.
 * Without <sys/sdt.h>, or with -DFAULTLINE_NO_PROBES, there are none. Source: the note format of
 * SystemTap's user space probes, <sys/sdt.h>.
 */
#ifndef ENGINE_WALK_H
#define ENGINE_WALK_H

#include "engine/faultline.h"
#include "engine/role.h"

#if !defined(FAULTLINE_NO_PROBES) && defined(__has_include)
#if __has_include(<sys/sdt.h>)
#define SDT_USE_VARIADIC 1
#include <sys/sdt.h>
#define WALK_HAS_PROBES 1
#endif
#endif

/* Arguments: block (its index), page, and what doc/faultline-walk.bt says of the step. */
#ifdef WALK_HAS_PROBES
#define WALK_PROBE(name, ...) STAP_PROBEV(faultline, name, __VA_ARGS__)
#else
#define WALK_PROBE(name, ...) ((void)0)
#endif

/* X(number, NAME, "name", SIDE, "role") */
#define WALK_LIST(X)                                                                               \
    X(1, FAULT_READ, "fault-read", DESTINATION, "fault")                                           \
    X(2, FAULT_LOCATE, "fault-locate", DESTINATION, "fault")                                       \
    X(3, FAULT_MARK, "fault-mark", DESTINATION, "fault")                                           \
    X(4, REQUEST_SEND, "request-send", DESTINATION, "fault")                                       \
    X(5, REQUEST_RECEIVE, "request-receive", SOURCE, "request")                                    \
    X(6, PAGE_CLAIM, "page-claim", SOURCE, "request")                                              \
    X(7, PAGE_BORROW, "page-borrow", SOURCE, "request")                                            \
    X(8, REPLY_SEND, "reply-send", SOURCE, "request")                                              \
    X(9, REPLY_RECEIVE, "reply-receive", DESTINATION, "fault")                                     \
    X(10, PAGE_WRITE, "page-write", DESTINATION, "fault")                                          \
    X(11, PAGE_PLACE, "page-place", DESTINATION, "fault")                                          \
    X(12, PAGE_ACCOUNT, "page-account", DESTINATION, "fault")

typedef enum {
#define WALK_ENUM(number, name, text, side, role) WALK_##name = (number),
    WALK_LIST(WALK_ENUM)
#undef WALK_ENUM
        WALK_COUNT
} WalkStep;

/* The time for walk_step_at(); 0 when nobody will look at it. */
static inline uint64_t
walk_now_ns(const FaultlineWalkTrace *trace)
{
    return G_UNLIKELY(trace != NULL) ? clock_now_ns() : 0;
}

/* trace: the calling role's, NULL when it is not traced. */
static inline void
walk_step_at(FaultlineWalkTrace *trace, WalkStep step, unsigned block, uint64_t page,
             uint64_t time_ns)
{
    if (G_LIKELY(trace == NULL))
        return;
    uint64_t at = trace->count;
    if (at == trace->capacity) {
        trace->count_lost++;
        return;
    }
    trace->records[at] = (FaultlineWalkRecord){
        .time_ns = time_ns, .page = page, .block = (uint16_t)block, .step = (uint16_t)step};
    /* Pairs with who reads while the role goes on. */
    __atomic_store_n(&trace->count, at + 1, __ATOMIC_RELEASE);
}

static inline void
walk_step(FaultlineWalkTrace *trace, WalkStep step, unsigned block, uint64_t page)
{
    if (G_UNLIKELY(trace != NULL))
        walk_step_at(trace, step, block, page, clock_now_ns());
}

#endif
