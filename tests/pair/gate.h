/* SPDX-License-Identifier: MIT */
/*
 * A gate before a machine's QMP socket: passes on what a client says, and at a given command,
 * before the machine gets it, sends a signal to a process. So a test hits a phase of an
 * orchestrated migration exactly. It can also change what the machine answers. Serves one client
 * after another, on a thread of its own.
 */
#ifndef TESTS_PAIR_GATE_H
#define TESTS_PAIR_GATE_H

#include <glib.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct Gate Gate;

/* What happens, once: when `command` passes, and, unless after is NULL, "migrate" has passed that
 * gate (which may be this one) before. *target: who gets the signal; waited for while it is 0. */
typedef struct GatePlan {
    const char *command;
    Gate *after;
    const pid_t *target;
    int signal;
    /* In all that the machine answers: this text is replaced, by one as long. NULL: nothing is. */
    const char *from, *to;
} GatePlan;

/* Listens at path for clients of the machine at target_path. */
Gate *gate_new(const char *path, const char *target_path);

/* While there is no client. */
void gate_plan(Gate *gate, const GatePlan *plan);

/* Whether the signal was sent. */
bool gate_was_hit(Gate *gate);
void gate_free(Gate *gate);

#endif
