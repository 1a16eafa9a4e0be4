/* SPDX-License-Identifier: MIT */
/*
 * The machine: what it is, for the report, and its settings that a backing needs, raised and put
 * back also when the bench is interrupted. Coordinating process.
 */
#ifndef BENCH_HOST_H
#define BENCH_HOST_H

#include "bench/guest.h"

#include <json-glib/json-glib.h>

/* Members of an object: machine, kernel, what of it bears on the figures. */
void host_describe(JsonBuilder *builder);
/* One line of the same for people. */
char *host_summary(void);

/* shmem_enabled for 4k and thp, nr_hugepages for hugetlb (total_bytes: of both sides together).
 * Errors: UNSUPPORTED where that takes root or memory that is not there. */
bool host_prepare_backing(Backing backing, uint64_t total_bytes, GError **error);
/* Also at exit and on SIGINT, SIGTERM, SIGHUP. */
void host_restore(void);

#endif
