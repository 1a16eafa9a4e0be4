/* SPDX-License-Identifier: MIT */
/* What one migration is and what is done to it, all of it drawn from its seed. */
#ifndef TESTS_CHAOS_PLAN_H
#define TESTS_CHAOS_PLAN_H

#include "tests/chaos/relay.h"

#include <stdint.h>

/* X(name, text) */
#define FAULT_LIST(X)                                                                              \
    X(NONE, "nothing")                                                                             \
    X(CLOSE, "close")             /* connections end in order */                                   \
    X(RESET, "reset")             /* they are reset */                                             \
    X(TRUNCATE, "truncate")       /* they end in the middle of something */                        \
    X(HANG, "hang")               /* nothing passes, nothing is closed */                          \
    X(DELAY, "delay")             /* nothing passes for a while */                                 \
    X(SPLIT, "split")             /* tiny writes */                                                \
    X(FLIP, "flip a bit")         /* of what passes */                                             \
    X(KILL_SOURCE, "kill source") /* SIGKILL */                                                    \
    X(KILL_DESTINATION, "kill destination")                                                        \
    X(STOP_SOURCE, "stop source") /* SIGSTOP, and SIGCONT after a while */                         \
    X(STOP_DESTINATION, "stop destination")                                                        \
    X(FILL_SOURCE, "fill source's disk") /* where it keeps its record */                           \
    X(FILL_DESTINATION, "fill destination's disk")

typedef enum {
#define FAULT_ENUM(name, text) FAULT_##name,
    FAULT_LIST(FAULT_ENUM)
#undef FAULT_ENUM
        FAULT_COUNT
} Fault;

/* When the strike is armed; from there on it waits for its byte or its time. */
typedef enum {
    MOMENT_CONNECT,    /* before anything was sent */
    MOMENT_PASS,       /* a pass of precopy has begun */
    MOMENT_SWITCHOVER, /* the wish for postcopy was told, or a second pass begun; see arms_early */
    MOMENT_POSTCOPY,   /* the guest runs at the destination */
    MOMENT_RECOVERY, /* it is paused, and about to be taken up again; only for the second strike */
    MOMENT_COUNT
} Moment;

/* One thing that is done. */
typedef struct Blow {
    Fault fault;
    Moment moment;
    bool arms_early;     /* at the wish for the switch-over, else when the guest stands */
    unsigned pace_bytes; /* from the moment on, so that what follows lasts longer; 0: no */
    RelayStrike strike;  /* without its call */
} Blow;

#define BLOWS_MAX 2

typedef struct Plan {
    uint64_t seed;
    bool is_kvm, is_unix;
    unsigned memory_mib, cpus, write_rate;
    bool is_postcopy, preempt;
    bool no_runs, no_words, no_urgent_requests; /* capabilities that are switched off */
    bool checksums;                             /* and on */
    unsigned passes;                            /* before postcopy is wished for; 0: at once */
    unsigned max_mib_per_s, push_mib_per_s;     /* 0: no limit */
    bool arrives_stopped; /* the guest is started only after all memory was compared */
    unsigned queue_bytes; /* of the relay */
    bool is_auto;         /* the sides recover by themselves, else an operator does it */
    bool has_records;     /* --state-dir, on file systems that can be filled if can_fill */
    bool can_fill;
    Blow blows[BLOWS_MAX]; /* the second, if any, in the first recovery */
    unsigned count_blows;
    bool recovers_elsewhere; /* on an address and a transport of another kind */
    bool has_tls;            /* PSK on all connections */
    unsigned addresses;      /* of the destination */
    const char *lost_policy; /* --on-source-lost */
} Plan;

/* What may be drawn. */
typedef struct PlanLimits {
    bool with_kvm, with_threads, with_fills;
    int only; /* a Fault; -1: any */
} PlanLimits;

const char *fault_name(Fault fault);

/* FAULT_COUNT: there is none such. */
Fault fault_of(const char *name);

void plan_draw(Plan *ret_plan, uint64_t seed, const PlanLimits *limits);

/* One line. Free with g_free. */
char *plan_describe(const Plan *plan);

#endif
