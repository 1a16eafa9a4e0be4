/* SPDX-License-Identifier: MIT */
/*
 * In which order pages are touched. Every pattern but `zipf` and `trace` touches each page once at
 * most; those two come back to pages, and a touch of one that is here takes no fault.
 */
#ifndef BENCH_PATTERN_H
#define BENCH_PATTERN_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* X(name, text) */
#define PATTERN_LIST(X)                                                                            \
    X(RANDOM, "random")                                                                            \
    X(SEQUENTIAL, "sequential")                                                                    \
    X(REVERSE, "reverse")                                                                          \
    X(STRIDE, "stride")                                                                            \
    X(ZIPF, "zipf")                                                                                \
    X(TRACE, "trace")

typedef enum {
#define PATTERN_ENUM(name, text) PATTERN_##name,
    PATTERN_LIST(PATTERN_ENUM)
#undef PATTERN_ENUM
        PATTERN_COUNT
} PatternKind;

extern const char *const pattern_names[PATTERN_COUNT];

typedef struct Pattern {
    PatternKind kind;
    uint64_t count_pages; /* of the memory, in units of its page size */
    uint64_t stride;      /* pages, at least 1 */
    const char *trace;    /* file: one page number a line, decimal or 0x hex, # for comments */
    uint64_t seed;
} Pattern;

/* The touches of one of count_threads threads: of uint32_t, page numbers; together at most
 * count_touches. Trace numbers are taken modulo the number of pages. Errors: the trace cannot be
 * read. */
GArray *pattern_make(const Pattern *pattern, unsigned thread, unsigned count_threads,
                     uint64_t count_touches, GError **error);

#endif
