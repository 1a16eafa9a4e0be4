/* SPDX-License-Identifier: MIT */
/*
 * A fault taken apart: the times at which its page passed the steps of its walk, told by the
 * engine's trace, between the touch and its end, told by the thread that touched. All by
 * CLOCK_MONOTONIC of the one machine that both sides run on. Coordinating process.
 */
#ifndef BENCH_STAGES_H
#define BENCH_STAGES_H

#include "bench/board.h"
#include "bench/samples.h"

#include <json-glib/json-glib.h>

/* X(name): from the moment before it, the first from the touch */
#define STAGE_LIST(X)                                                                              \
    X("fault-read")                                                                                \
    X("request-sent")                                                                              \
    X("request-received")                                                                          \
    X("reply-sent")                                                                                \
    X("reply-received")                                                                            \
    X("placed")                                                                                    \
    X("resumed")

#define STAGE_COUNT 7u

extern const char *const stage_names[STAGE_COUNT];

typedef struct Stages {
    Samples us[STAGE_COUNT];
    uint64_t count_whole; /* faults whose page went the whole walk */
    uint64_t count_other; /* those that waited and whose page came otherwise */
    uint64_t count_lost;  /* records that found no room */
} Stages;

void stages_init(Stages *stages);
void stages_clear(Stages *stages);
/* Takes what a move left on the board. host_pages: target pages a page that is touched. Without an
 * urgent channel pages come by the push and a walk is told up to the request and from placing on.
 */
void stages_add_repeat(Stages *stages, Board *board, unsigned count_threads, uint64_t host_pages,
                       bool has_urgent);

/* For the report: a table's head and rows, an object, and columns for gnuplot. */
void stages_print_head(void);
void stages_print(const char *name, Stages *stages);
void stages_write(JsonBuilder *json, Stages *stages);
void stages_add_column_names(GString *text);
void stages_add_columns(GString *text, const char *name, Stages *stages);

#endif
