/* SPDX-License-Identifier: MIT */
/*
 * One migration of the bench's guest between two forked processes, each on its own CPUs and, where
 * wanted, in its own network namespace, over the library's public functions alone.
 *
 * With a warming pass, precopy brings all of memory once, so that the destination's memory is
 * allocated, and then the dirty pages of the plan have to come again. Without, postcopy begins at
 * once: everything is missing and lands in fresh memory.
 */
#ifndef BENCH_MOVE_H
#define BENCH_MOVE_H

#include "bench/kvm_guest.h"

#define PUSH_FULL UINT64_MAX
#define PUSH_OFF  0u /* the least limit there is: one frame, then nothing for hours */

/* A capability (0 or 1) or a parameter, set on both sides where the library has it. */
typedef struct MoveSetting {
    const char *name;
    uint64_t value;
} MoveSetting;
#define MOVE_SETTINGS_MAX 8u

typedef struct MovePlan {
    const FaultlineBlock *source_block; /* filled; the children inherit it */
    const KvmPlan *kvm;                 /* the guest is one of KVM's; NULL: threads */
    Backing backing;
    bool is_postcopy; /* else precopy to its end */
    bool is_warm;
    bool warms_host; /* see bench_warm_host() */
    bool preempt, accounts;
    bool is_unix;
    bool uses_tls;      /* by a key, on all connections */
    const Netns *netns; /* NULL: none */
    const Placement *placement;
    uint64_t push_bytes_per_s; /* or PUSH_FULL, PUSH_OFF */
    DirtyPlan dirty;
    TouchPlan touch;
    uint64_t count_loads; /* at random, of the whole memory at the destination when all is over */
    unsigned limit_s;     /* the whole migration is killed after this */
    MoveSetting settings[MOVE_SETTINGS_MAX];
    unsigned count_settings;
} MovePlan;

/* Whether this library has a capability or parameter of that name, and what it begins with. */
bool move_has_setting(const char *name, uint64_t *ret_preset);

/* Runs it to its end; the board holds what was seen. */
bool move_run(const MovePlan *plan, Board *board, GError **error);

/* ---- Between the files of this folder ---------------------------------------------------------
 */

/* What a child process does: 0 or an exit status; error text goes to ret_error. */
typedef bool (*ForkedBody)(void *context, int link_fd, GError **error);

typedef struct ForkedChild {
    const char *name;
    ForkedBody body;
    void *context;
    const cpu_set_t *cpus;
    const Netns *netns;
    unsigned netns_side;
    char *error; /* shared memory of 600 bytes */
} ForkedChild;

/* Runs two children joined by a socket pair, link_fd, and waits for both. They die with this
 * process, and after limit_s. */
bool forked_pair_run(ForkedChild children[2], unsigned limit_s, GError **error);

/* Host part of the address at which the destination is reached. */
const char *move_host(const Netns *netns);

/* A folder for unix sockets, made once a process. */
char *move_socket_path(void);

#endif
