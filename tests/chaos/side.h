/* SPDX-License-Identifier: MIT */
/*
 * One `faultline run` of a migration that something happens to: it may end or stand still at any
 * moment, and each wait has a deadline. Nothing here fails a test; errors say which side and why.
 * The thread of the migration, except side_signal(): any.
 */
#ifndef TESTS_CHAOS_SIDE_H
#define TESTS_CHAOS_SIDE_H

#include "tests/pair/qmp.h"

#include <stdint.h>
#include <sys/types.h>

#define SIDE_DEADLINE_S 90

typedef struct Side {
    const char *role; /* "source", "destination"; static */
    char *output, *verdict, *socket;
    pid_t pid;   /* 0: not started, or ended and reaped */
    int process; /* pidfd; -1 */
    int wait_status;
    Qmp *qmp;

    /* The last look. An ended process keeps what it said last. */
    char status[32], run_state[32], integrity[16]; /* the last: verdict over all memory */
    int64_t passes, missing_pages, remaining_bytes;
    bool is_unheard;  /* over, and stays to tell the source */
    char *error_text; /* query-migrate's error-desc, or NULL */
} Side;

void side_init(Side *side, const char *role, const char *directory);

/* The program beside this test. Free with g_free. */
char *side_program(void);

/* Waits for the control socket. arguments: behind `faultline run`, without --qmp, --verdict. */
bool side_start(Side *side, GPtrArray *arguments, GError **error);

/* Where it listens. Free with g_free. */
char *side_listening_at(Side *side, GError **error);

/* false: it ended, or does not answer (then with an error). */
bool side_look(Side *side, GError **error);

/* Whether it still lives; reaps it if not. */
bool side_is_alive(Side *side);

/* A command that must succeed. */
bool side_do(Side *side, const char *command, const char *arguments, GError **error);

/* Waits for its end: *ret_code its exit code. An end by a signal is an error. */
bool side_await_end(Side *side, int *ret_code, GError **error);

/* What the guest says: its checks and, of the guest of threads, passes since it came. false: it
 * found a wrong byte, which is the error, or there is no verdict yet, without an error. */
bool side_verdict(Side *side, uint64_t *ret_checks, uint64_t *ret_passes, GError **error);

void side_signal(Side *side, int signal);

/* Threads with their stacks in the kernel, what it says of itself, and the end of its log. */
void side_show(Side *side);

/* Ends the process if it still lives. */
void side_clear(Side *side);

#endif
