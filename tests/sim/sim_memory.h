/* SPDX-License-Identifier: MIT */
/*
 * What the simulated kernel knows of memory, shared by sim_uffd.c (userfaultfd, write tracking, the
 * guest's touches) and sim_memory.c (UffdMemory and UffdRun).
 */
#ifndef TESTS_SIM_SIM_MEMORY_H
#define TESTS_SIM_SIM_MEMORY_H

#include "tests/sim/sim.h"

/* Of a target page. */
enum {
    STORED = 1,     /* memory is allocated: bytes of this or an earlier time */
    RECEIVED = 2,   /* the engine has its present bytes */
    VISIBLE = 4,    /* in the guest mapping */
    REGISTERED = 8, /* a touch that finds it not visible sleeps */
    RELEASED = 16,  /* source: given back */
    COMING = 32,    /* its bytes are received straight to its place, and are not all there */
    ARRIVED = 64,   /* they are; until it is shown it may come again, when the link broke */
};

#define RUN_PAGES  64u
#define FAULTS_MAX 64u
#define UFFD_FD    1000000 /* no descriptor: a name for the rings */

struct Uffd {
    bool alive;
    UffdFault faults[FAULTS_MAX];
    unsigned count;
};

struct UffdMemory {
    bool alive;
    SimSide side;
    unsigned block;
    bool alias, any_registered, finished;
    uint64_t page_bytes, length;
    uint8_t *store;
    const char *error;
};

struct UffdRun {
    bool alive;
    UffdMemory *memory;
    uint64_t offset;
    unsigned count;
    bool is_zero[RUN_PAGES];
    uint8_t bytes[RUN_PAGES * SIM_PAGE];
};

struct UffdTracker {
    bool alive;
    bool added[SIM_BLOCKS_MAX];
    uint64_t dirty[SIM_BLOCKS_MAX];
};

typedef struct SimHost {
    Uffd uffd;
    UffdMemory memories[SIM_SIDES][SIM_BLOCKS_MAX];
    uint8_t pages[SIM_SIDES][SIM_BLOCKS_MAX][SIM_PAGES_MAX];
    UffdRun runs[4];
    UffdTracker tracker;
} SimHost;
extern SimHost host;

/* Whether the call has to fail; then the error is set. */
bool sim_uffd_fails(SimPoint point, GError **error);

#endif
