/* SPDX-License-Identifier: MIT */
/*
 * Two machines of 16 MiB, gates before their sockets, and `faultline migrate` between them, for
 * tests of an orchestrated migration. Everything fails the test instead of returning an error. One
 * thread.
 */
#ifndef TESTS_PAIR_ORCHESTRA_H
#define TESTS_PAIR_ORCHESTRA_H

#include "tests/pair/gate.h"
#include "tests/pair/scene.h"

#define ORCHESTRA_CHECKS 4096 /* once through 16 MiB */

typedef struct OrchestraKind {
    const char *guest;        /* NULL: threads */
    const char *incoming;     /* of the destination; NULL: defer */
    const char *other_memory; /* of the destination; NULL: the same */
    bool writes_much;
} OrchestraKind;

typedef struct Orchestra {
    Scene *scene;
    Vm *source, *destination;
    Gate *gates[2];   /* of source and destination */
    char *sockets[2]; /* of the gates */
    char *output;     /* path: what the program printed */
    pid_t pid;        /* of the program; 0: not started */
} Orchestra;

Orchestra *orchestra_new(Scene *scene, const OrchestraKind *kind);
void orchestra_free(Orchestra *orchestra);

/* Starts the program with these options (NULL-terminated), with --json. */
void orchestra_start(Orchestra *orchestra, const char *const *options);

/* All it has printed (g_free). */
char *orchestra_said(const Orchestra *orchestra);
void orchestra_wait_for(Orchestra *orchestra, const char *words);

/* Waits for its end: its exit code is that, and it said all of it. */
void orchestra_expect_end(Orchestra *orchestra, int exit_code, const char *words);
/* The same, where `guest` is what it says of where the guest is. */
void orchestra_expect_outcome(Orchestra *orchestra, int exit_code, const char *guest);

/* The guest runs there, and all of its memory is right. */
void orchestra_require_runs(Vm *vm);

/* The guest is at the source, and can be moved to the same destination as if nothing had been. */
void orchestra_require_moves(Orchestra *orchestra);

#endif
