/* SPDX-License-Identifier: MIT */
/* A move of a guest, described by a struct, and the one body that all such cases share. */
#ifndef TESTS_PAIR_MOVE_H
#define TESTS_PAIR_MOVE_H

#include "tests/pair/scene.h"

typedef enum {
    MOVE_PRECOPY,            /* until it converges */
    MOVE_POSTCOPY_AT_ONCE,   /* before the first pass is through */
    MOVE_POSTCOPY_AFTER_ONE, /* when the second pass begins */
    MOVE_POSTCOPY_IN_THIRD,  /* when the third pass begins */
} MoveWhen;

/* What is 0 or NULL has the value in brackets. */
typedef struct MoveCase {
    MoveWhen when;
    const char *guest;          /* "kvm" ["threads"] */
    const char *backing;        /* "private", "hugetlb" ["memfd"] */
    uint64_t memory_mib;        /* [16] */
    uint64_t working_mib;       /* what the guest keeps writing [all] */
    unsigned cpus;              /* [1] */
    const char *transport;      /* "unix" ["tcp"] */
    const char *dirty;          /* "ring" ["log"] */
    uint64_t write_rate;        /* pages a second and vCPU [full speed] */
    uint64_t push_mib_per_s;    /* max-postcopy-bandwidth [no limit] */
    const char *state_dir;      /* [none is kept] */
    const char *on_source_lost; /* ["stall"] */
    bool preempt, release_ram, blocktime, tls, checksums;
    bool by_command; /* nothing recovers by itself */
    bool stopped;    /* the destination keeps the guest stopped, and all memory is compared */
} MoveCase;

/* "postcopy_after_one_pass_threads_memfd_tcp_preempt"; what differs from the brackets is in it.
 * Free with g_free. */
char *move_case_name(const MoveCase *c);

/* Skips what this host cannot have. */
void move_need(Scene *scene, const MoveCase *c);

/* Starts one side: incoming is a URI to listen at or NULL for a source. */
Vm *move_start(Scene *scene, const MoveCase *c, const char *incoming);

/* A URI of the case's transport that a destination can listen at. Free with g_free. */
char *move_uri(Scene *scene, const MoveCase *c);

/* migrate to uri, and when the case says so, migrate-start-postcopy; does not wait for the end. */
void move_begin(Vm *source, const MoveCase *c, const char *uri);

/* The whole move between new machines, with all checks. */
void move_run(Scene *scene, const MoveCase *c);

#endif
