/* SPDX-License-Identifier: MIT */
/*
 * Samples of a latency and what is told of them: percentiles over all repeats together, and how far
 * each differs between the repeats. Every sample is kept and sorted; nothing is estimated.
 */
#ifndef BENCH_SAMPLES_H
#define BENCH_SAMPLES_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* X(name in JSON, percent) */
#define QUANTILE_LIST(X)                                                                           \
    X("p50", 50.0) X("p90", 90.0) X("p99", 99.0) X("p99.9", 99.9) X("max", 100.0)
#define QUANTILE_COUNT 5u

extern const char *const quantile_names[QUANTILE_COUNT];

typedef struct Quantiles {
    double value[QUANTILE_COUNT];
} Quantiles;

/* One quantity over the repeats. */
typedef struct Samples {
    GArray *pooled;  /* of double: all samples */
    GArray *repeats; /* of Quantiles: one a repeat that had samples */
    bool is_sorted;
} Samples;

void samples_init(Samples *samples);
void samples_clear(Samples *samples);

/* Takes one repeat's samples; the array is sorted in place. None: nothing happens. */
void samples_add_repeat(Samples *samples, double *values, size_t count);

size_t samples_count(const Samples *samples);
/* Nearest rank: the least sample that `percent` of all are not above. 0 without samples. */
double samples_percentile(Samples *samples, double percent);
Quantiles samples_quantiles(Samples *samples);
/* Least and greatest of each over the repeats. */
void samples_range(const Samples *samples, Quantiles *ret_least, Quantiles *ret_greatest);

/* The same rank in any ascending array. */
double sorted_percentile(const double *values, size_t count, double percent);
void sort_values(double *values, size_t count);

#endif
