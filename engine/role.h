/* SPDX-License-Identifier: MIT */
/*
 * Roles and what runs them.
 *
 * A role is one thread's part of a migration as a step function that never blocks. threads.c runs
 * each role on a thread of its own, with a ring of its own: step until WAIT, sleep on the ring
 * until something happened or wake_ns has come, step again, until DONE. This file and transport.h,
 * uffd.h and guest.h are all that the engine knows of the outside; tests/sim defines the functions
 * below itself and runs all roles of both sides under one seeded scheduler and one clock.
 */
#ifndef ENGINE_ROLE_H
#define ENGINE_ROLE_H

#include "engine/spin.h"
#include "transport/transport.h"

typedef enum {
    STEP_AGAIN, /* something was done, more may be possible */
    STEP_WAIT,  /* nothing to do until the ring wakes or wake_ns comes; spurious steps are harmless
                 */
    STEP_DONE,  /* over; step is not called again */
} StepResult;

/* A role whose work has an order goes through stages: functions called until they name the next. */
typedef enum {
    STAGE_STAY,  /* wait, then call again */
    STAGE_AGAIN, /* something was done; the role's stage says what is next */
    STAGE_DONE,  /* the migration is over, well */
    STAGE_FAILED,
} StageResult;

typedef struct Role {
    /* set before the role runs */
    const char *name; /* at most 15 bytes: it becomes the thread's name */
    StepResult (*step)(void *self);
    void (*close)(void *self); /* after DONE, same thread: frees what is attached to the ring */
    void *self;

    /* set by the runner before any role's first step, and there until all roles have ended: other
     * roles notify it */
    TransportRing *ring;

    /* the role's own: CLOCK_MONOTONIC ns at which a WAIT ends, 0: no limit. Reset before each step.
     */
    uint64_t wake_ns;
    /* the role's own: how long a WAIT may look for news before it sleeps, 0: not at all. Reset
     * before each step. The runner tells in spin whether it was worth it. */
    uint64_t spin_ns;
    Spin spin;
} Role;

typedef struct RoleThreads RoleThreads;

/* Makes a ring and a thread for each role; no role steps before all of them exist. The roles must
 * outlive role_threads_join(). Errors: those of transport_ring_new(), HOST; then no role ran. */
RoleThreads *role_threads_start(Role *const *roles, unsigned count, GError **error);

/* Whether every role is DONE. Thread: any. */
bool role_threads_are_done(const RoleThreads *threads);

/* Waits until every role is DONE (the caller has made them stop, or they end by themselves). Rings
 * are freed here, last, so that roles may notify each other until the end. */
void role_threads_join(RoleThreads *threads);

/* Keeps all CPUs out of deep sleep until released: /dev/cpu_dma_latency at 0, best effort. Returns
 * what to release; -1 where it is not permitted. Source: the kernel's pm_qos_interface document. */
int cpu_latency_hold(void);
void cpu_latency_release(int hold);

/* What the calling thread's work is to the other threads of its CPUs, for as long as it lives: nice
 * can be raised by anybody, and lowered by few. */
typedef enum {
    URGENCY_BULK,   /* moves what nobody waits for */
    URGENCY_URGENT, /* a vCPU waits for each of its steps, which are short */
} ThreadUrgency;

/* Both: time slices of 100 us, so that an urgent one is chosen soon after it wakes, and a bulk one
 * gives way soon (Linux 6.12, else nothing). BULK: raises nice to bulk_nice as well (0: not;
 * THREAD_NICE_AUTO: by the number of CPUs that the thread may use: 10 for one, else 5). Best
 * effort; real-time threads are left alone. Never SCHED_FIFO: what spins there is stopped for half
 * a second. Source: sched_setattr(2), setpriority(2). */
#define THREAD_NICE_AUTO 20u
void thread_set_urgency(ThreadUrgency urgency, uint64_t bulk_nice);

/* Memory that this host has free beyond a reserve of an eighth of all, caches not counted; 0: none,
 * or not known. Source: sysinfo(2). */
uint64_t host_spare_bytes(void);

/* Bytes that nobody can guess. Errors: HOST. Source: getrandom(2). */
bool random_fill(void *bytes, size_t length, GError **error);

/* CLOCK_MONOTONIC in ns; wall clock in us since 1970. */
uint64_t clock_now_ns(void);
int64_t clock_wall_us(void);

/* A descriptor that can be polled: readable after wakeup_signal() until wakeup_clear(). */
int wakeup_open(GError **error);
void wakeup_signal(int fd);
void wakeup_clear(int fd);
void wakeup_close(int fd);

#endif
