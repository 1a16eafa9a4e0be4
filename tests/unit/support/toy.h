/* SPDX-License-Identifier: MIT */
/*
 * A VMM as small as it gets, for tests of the public API: two blocks of memory, vCPU threads that
 * write and check it, a dirty bitmap, one register a vCPU, and callbacks that fail on demand.
 *
 * The memory is two halves. vCPU i owns every page of the lower half whose number is i modulo the
 * number of vCPUs; its step n stores n at both ends of its next page, after it has looked that the
 * page still holds what it left there. Pages of the upper half hold their own number, each fourth
 * is zero, and every step looks at one. So a lost, old or foreign page is noticed by the vCPU, or
 * by toy_check(), which looks at all.
 *
 * Made and used by the test's own thread; the callbacks run on the engine's.
 */
#ifndef TESTS_UNIT_SUPPORT_TOY_H
#define TESTS_UNIT_SUPPORT_TOY_H

#include "engine/faultline.h"

#include <pthread.h>
#include <stdatomic.h>

#define TOY_VCPUS_MAX  4u
#define TOY_TIMEOUT_MS 60000 /* bounds every wait, so that a hang fails */

typedef enum {
    TOY_MEMFD,
    TOY_PRIVATE, /* anonymous memory */
} ToyMemory;

typedef struct ToyKind {
    const char *name;
    ToyMemory memory;
    uint64_t pages;       /* a power of two */
    unsigned count_vcpus; /* a power of two */
    bool is_tracked;      /* gives no dirty log: the engine tracks writes itself */
    bool has_no_throttle; /* its vCPUs cannot be slowed down */
    unsigned rest_us;     /* a vCPU's sleep after 16 steps; 0: 1000 */
    const char *machine;  /* NULL: "toy-1.0" */
} ToyKind;

/* Callbacks that can be made to fail. */
typedef enum {
    TOY_PAUSE,
    TOY_RESUME,
    TOY_LOG_START,
    TOY_LOG_SYNC,
    TOY_SAVE,
    TOY_LOAD,
    TOY_CALLS,
} ToyCall;

typedef struct Toy Toy;

typedef struct ToyVcpu {
    Toy *toy;
    pthread_t thread;
    unsigned index;
    _Atomic uint64_t step; /* the register */
} ToyVcpu;

struct Toy {
    ToyKind kind;
    Faultline *faultline; /* the test may free it before the toy, and set NULL */
    FaultlineBlock blocks[2];
    _Atomic uint64_t *dirty[2]; /* one bit a page, as guest.h lays it out */
    atomic_bool is_logging;
    _Atomic unsigned fail_at[TOY_CALLS]; /* the how manieth call fails, from 1; 0: none */
    _Atomic unsigned calls[TOY_CALLS];
    _Atomic unsigned throttle_percent, count_throttles; /* in force; calls */
    _Atomic unsigned greatest_percent, pause_percent;   /* ever; when it was paused last */

    ToyVcpu vcpus[TOY_VCPUS_MAX];
    _Atomic pid_t threads[TOY_VCPUS_MAX];
    _Atomic uint64_t wrong_pages;
    atomic_bool go, quit;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count_parked;
};

/* Memory, vCPUs that stand, and a Faultline. */
Toy *toy_new(const ToyKind *kind);
void toy_free(Toy *toy);

/* A Faultline anew around the same memory, which the old one gave up. */
void toy_renew(Toy *toy);

/* What the upper half holds before the guest starts. */
void toy_fill(Toy *toy);

bool toy_is_running(const Toy *toy);
/* Steps of all vCPUs. */
uint64_t toy_steps(const Toy *toy);
/* Fails unless every vCPU goes on. */
void toy_expect_progress(Toy *toy);
/* Fails unless every page is right; the guest must stand. */
void toy_check(Toy *toy);
/* Fails unless the migration comes to this end in time; shows why if not. */
void toy_expect_end(Toy *toy, FaultlineStatus status);
/* Why it failed, as faultline_query() has it. Valid until the next call. */
const char *toy_error(Toy *toy);
/* Bytes of the memory that are allocated in the files behind it. */
uint64_t toy_allocated_bytes(const Toy *toy);

/* ---- Links ------------------------------------------------------------------------------------
 */

typedef enum { TOY_UNIX, TOY_FD, TOY_TCP } ToyLinkKind;

typedef struct ToyLink {
    ToyLinkKind kind;
    char *directory;
    char *incoming, *outgoing; /* outgoing NULL: ask faultline_incoming_address() */
} ToyLink;

void toy_link_open(ToyLink *link, ToyLinkKind kind);
void toy_link_close(ToyLink *link);

#endif
