/* SPDX-License-Identifier: MIT */
/*
 * Where processes and threads run: CPUs and network namespaces. Anything unpinned gives figures
 * with two humps, one a CPU apart and one on the same.
 */
#ifndef BENCH_PLACEMENT_H
#define BENCH_PLACEMENT_H

#include <glib.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/types.h>

typedef struct Placement {
    cpu_set_t source, destination, touch; /* touch: the threads that fault */
    bool shares_cpus;                     /* source and destination have one in common */
} Placement;

/* Lists as of taskset ("0,2-3"); NULL: the source on the first CPU we may use, the destination and
 * its guest on the next. */
bool placement_parse(Placement *placement, const char *source, const char *destination,
                     const char *touch, GError **error);
char *placement_text(const cpu_set_t *cpus);
/* Pins the calling thread, and with it what it starts from now on. */
bool placement_pin(const cpu_set_t *cpus, GError **error);

/* Two namespaces joined by a veth pair; needs root and the ip program. */
typedef struct Netns {
    char *names[2]; /* 0: source, 1: destination */
    char *addresses[2];
} Netns;

Netns *netns_new(GError **error);
void netns_free(Netns *netns);
/* Moves the calling process in, before it has threads. */
bool netns_enter(const Netns *netns, unsigned side, GError **error);

#endif
