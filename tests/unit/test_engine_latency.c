/* SPDX-License-Identifier: MIT */
/*
 * The histogram of latencies: percentiles of several distributions against the exact ones, and the
 * edges: none, one, 0, the largest. Also the zero-page check.
 */
#include "engine/latency.h"
#include "engine/zero_page.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define COUNT 20000u

typedef struct Distribution {
    const char *name;
    uint64_t (*draw)(GRand *rand, unsigned i);
} Distribution;

static uint64_t
draw_small(GRand *rand, unsigned i)
{
    (void)i;
    return (uint64_t)g_rand_int_range(rand, 0, 70);
}

static uint64_t
draw_uniform(GRand *rand, unsigned i)
{
    (void)i;
    return (uint64_t)g_rand_int_range(rand, 1000, 1000000);
}

static uint64_t
draw_lognormal(GRand *rand, unsigned i)
{
    double sum = -6.0;
    (void)i;
    for (unsigned k = 0; k < 12; k++)
        sum += g_rand_double(rand);
    return (uint64_t)exp(log(200000.0) + sum);
}

/* Nearly all quick, one of a thousand takes 2 s. */
static uint64_t
draw_tail(GRand *rand, unsigned i)
{
    return i % 1000 == 999 ? 2000000000u : (uint64_t)g_rand_int_range(rand, 90000, 110000);
}

static uint64_t
draw_powers(GRand *rand, unsigned i)
{
    (void)rand;
    return (1ull << i % 34) - i % 2;
}

static uint64_t
draw_constant(GRand *rand, unsigned i)
{
    (void)rand;
    (void)i;
    return 123456789;
}

static int
compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Within 5%, and 1 ns for the values where that is less than one. */
static void
assert_near(uint64_t is, uint64_t exact, const char *name, double percent)
{
    double away = fabs((double)is - (double)exact);
    if (away > (double)exact * 0.05 && away > 1.0)
        fail_msg("%s: percentile %g is %" G_GUINT64_FORMAT ", exact %" G_GUINT64_FORMAT, name,
                 percent, is, exact);
}

static void
check_distribution(const Distribution *distribution)
{
    static const double percents[] = {0, 1, 10, 25, 50, 75, 90, 95, 99, 99.9, 99.99, 100};
    g_autofree uint64_t *values = g_new(uint64_t, COUNT);
    g_autofree FaultlineLatency *latency = g_new0(FaultlineLatency, 1);
    GRand *rand = g_rand_new_with_seed(7);
    uint64_t total = 0;

    for (unsigned i = 0; i < COUNT; i++) {
        values[i] = distribution->draw(rand, i);
        total += values[i];
        latency_put(latency, values[i]);
    }
    qsort(values, COUNT, sizeof values[0], compare);
    assert_int_equal(latency->count, COUNT);
    assert_int_equal(latency->total_ns, total);
    assert_int_equal(latency->max_ns, values[COUNT - 1]);
    for (unsigned i = 0; i < G_N_ELEMENTS(percents); i++) {
        uint64_t rank = (uint64_t)ceil((double)COUNT * percents[i] / 100.0);
        assert_near(faultline_latency_percentile(latency, percents[i]), values[MAX(rank, 1) - 1],
                    distribution->name, percents[i]);
    }
    g_rand_free(rand);
}

static void
percentile_of_distributions_is_within_five_percent(void **state)
{
    static const Distribution distributions[] = {
        {"small", draw_small},    {"uniform", draw_uniform},    {"log-normal", draw_lognormal},
        {"long tail", draw_tail}, {"powers of 2", draw_powers}, {"constant", draw_constant},
    };
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(distributions); i++)
        check_distribution(&distributions[i]);
}

static void
percentile_of_one_value_is_that_value(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 36; shift++) {
        for (int64_t away = -1; away <= 1; away++) {
            FaultlineLatency latency = {0};
            uint64_t value = (1ull << shift) + (uint64_t)away;
            latency_put(&latency, value);
            assert_near(faultline_latency_percentile(&latency, 50), value, "one", 50);
            assert_true(faultline_latency_percentile(&latency, 100) <= latency.max_ns);
        }
    }
}

static void
percentile_of_none_is_zero(void **state)
{
    FaultlineLatency latency = {0};
    (void)state;
    assert_int_equal(faultline_latency_percentile(&latency, 0), 0);
    assert_int_equal(faultline_latency_percentile(&latency, 50), 0);
    assert_int_equal(faultline_latency_percentile(&latency, 100), 0);
}

static void
percentile_out_of_range_is_that_of_the_end(void **state)
{
    FaultlineLatency latency = {0};
    (void)state;
    latency_put(&latency, 10);
    latency_put(&latency, 20);
    assert_int_equal(faultline_latency_percentile(&latency, -5), 10);
    assert_int_equal(faultline_latency_percentile(&latency, 50), 10);
    assert_int_equal(faultline_latency_percentile(&latency, 51), 20);
    assert_int_equal(faultline_latency_percentile(&latency, 900), 20);
}

/* The table ends somewhere; what is longer is counted in its last bucket and seen in max_ns. */
static void
put_of_the_largest_value_stays_in_the_table(void **state)
{
    FaultlineLatency latency = {0};
    (void)state;
    latency_put(&latency, UINT64_MAX / 2);
    assert_int_equal(latency.buckets[FAULTLINE_LATENCY_BUCKETS - 1], 1);
    assert_int_equal(latency.max_ns, UINT64_MAX / 2);
    assert_true(faultline_latency_percentile(&latency, 50) >= 20000000000u);
}

static void
read_returns_every_figure(void **state)
{
    FaultlineLatency latency = {0}, copy;
    (void)state;
    for (uint64_t i = 0; i < 5000; i++)
        latency_put(&latency, i * i);
    memset(&copy, 0xff, sizeof copy);
    latency_read(&latency, &copy);
    assert_memory_equal(&copy, &latency, sizeof copy);
}

/* ---- Zero pages -------------------------------------------------------------------------------
 */

static void
zero_page_check_finds_every_single_bit(void **state)
{
    static _Alignas(4096) uint8_t page[4096];
    (void)state;
    assert_true(zero_page_check(page, sizeof page));
    for (unsigned at = 0; at < sizeof page; at++) {
        page[at] = (uint8_t)(1u << at % 8);
        assert_false(zero_page_check(page, sizeof page));
        page[at] = 0;
    }
    assert_true(zero_page_check(page, sizeof page));
}

static void
zero_page_check_reads_its_length_only(void **state)
{
    static _Alignas(4096) uint8_t pages[3 * 4096];
    (void)state;
    memset(pages, 0xff, 4096);
    memset(pages + 2 * 4096, 0xff, 4096);
    assert_true(zero_page_check(pages + 4096, 4096));
    assert_true(zero_page_check(pages + 4096 + 8, 256));
    assert_false(zero_page_check(pages + 4096 - 8, 256));
    assert_false(zero_page_check(pages + 4096, 4096 + 256));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentile_of_distributions_is_within_five_percent),
        cmocka_unit_test(percentile_of_one_value_is_that_value),
        cmocka_unit_test(percentile_of_none_is_zero),
        cmocka_unit_test(percentile_out_of_range_is_that_of_the_end),
        cmocka_unit_test(put_of_the_largest_value_stays_in_the_table),
        cmocka_unit_test(read_returns_every_figure),
        cmocka_unit_test(zero_page_check_finds_every_single_bit),
        cmocka_unit_test(zero_page_check_reads_its_length_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
