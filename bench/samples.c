/* SPDX-License-Identifier: MIT */
/*
 * Sorting and ranks. Coordinating process.
 */
#include "bench/samples.h"

#include <math.h>
#include <stdlib.h>

#define QUANTILE_NAME(name, percent)    name,
#define QUANTILE_PERCENT(name, percent) percent,
const char *const quantile_names[QUANTILE_COUNT] = {QUANTILE_LIST(QUANTILE_NAME)};
static const double percents[QUANTILE_COUNT] = {QUANTILE_LIST(QUANTILE_PERCENT)};

static int
compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

void
sort_values(double *values, size_t count)
{
    qsort(values, count, sizeof values[0], compare);
}

double
sorted_percentile(const double *values, size_t count, double percent)
{
    if (!count)
        return 0.0;
    double rank = ceil(percent / 100.0 * (double)count - 1e-9);
    size_t index = rank < 1.0 ? 0 : (size_t)rank - 1;
    return values[MIN(index, count - 1)];
}

static Quantiles
quantiles_of(const double *values, size_t count)
{
    Quantiles result;
    for (unsigned i = 0; i < QUANTILE_COUNT; i++)
        result.value[i] = sorted_percentile(values, count, percents[i]);
    return result;
}

void
samples_init(Samples *samples)
{
    samples->pooled = g_array_new(FALSE, FALSE, sizeof(double));
    samples->repeats = g_array_new(FALSE, FALSE, sizeof(Quantiles));
    samples->is_sorted = true;
}

void
samples_clear(Samples *samples)
{
    g_clear_pointer(&samples->pooled, g_array_unref);
    g_clear_pointer(&samples->repeats, g_array_unref);
}

void
samples_add_repeat(Samples *samples, double *values, size_t count)
{
    if (!count)
        return;
    sort_values(values, count);
    Quantiles quantiles = quantiles_of(values, count);
    g_array_append_val(samples->repeats, quantiles);
    g_array_append_vals(samples->pooled, values, (guint)count);
    samples->is_sorted = false;
}

size_t
samples_count(const Samples *samples)
{
    return samples->pooled->len;
}

static const double *
sorted(Samples *samples)
{
    double *values = (double *)(void *)samples->pooled->data;
    if (!samples->is_sorted)
        sort_values(values, samples->pooled->len);
    samples->is_sorted = true;
    return values;
}

double
samples_percentile(Samples *samples, double percent)
{
    return sorted_percentile(sorted(samples), samples->pooled->len, percent);
}

Quantiles
samples_quantiles(Samples *samples)
{
    return quantiles_of(sorted(samples), samples->pooled->len);
}

void
samples_range(const Samples *samples, Quantiles *ret_least, Quantiles *ret_greatest)
{
    *ret_least = *ret_greatest = (Quantiles){{0}};
    for (guint r = 0; r < samples->repeats->len; r++) {
        const Quantiles *one = &g_array_index(samples->repeats, Quantiles, r);
        for (unsigned i = 0; i < QUANTILE_COUNT; i++) {
            double value = one->value[i];
            ret_least->value[i] = r ? MIN(ret_least->value[i], value) : value;
            ret_greatest->value[i] = r ? MAX(ret_greatest->value[i], value) : value;
        }
    }
}
