/* SPDX-License-Identifier: MIT */
/*
 * Rate limits: the arithmetic, with a clock of the test's own.
 */
#include "tests/unit/test_transport_pair.h"

#define S  1000000000u
#define MS 1000000u

static void
limit_unlimited_never_waits(void **state)
{
    TransportLimit limit = {0};

    (void)state;
    transport_limit_take(&limit, UINT64_MAX, 5 * (uint64_t)S);
    assert_int_equal(transport_limit_wait(&limit, 5 * (uint64_t)S), 0);
}

static void
limit_full_bucket_lets_20_ms_pass_then_waits(void **state)
{
    TransportLimit limit = {0};
    uint64_t now = 100 * (uint64_t)S;

    (void)state;
    transport_limit_set(&limit, 1000000); /* 20 ms are 20,000 bytes */
    assert_int_equal(transport_limit_wait(&limit, now), 0);
    transport_limit_take(&limit, 20000, now);
    assert_int_equal(transport_limit_wait(&limit, now), 0);
    transport_limit_take(&limit, 1000, now);
    assert_int_equal(transport_limit_wait(&limit, now), now + MS);
    assert_int_equal(transport_limit_wait(&limit, now + MS - 1), now + MS);
    assert_int_equal(transport_limit_wait(&limit, now + MS), 0);
}

static void
limit_long_idle_saves_no_more_than_20_ms(void **state)
{
    TransportLimit limit = {0};
    uint64_t now = 100 * (uint64_t)S;

    (void)state;
    transport_limit_set(&limit, 1000000);
    transport_limit_take(&limit, 1000, now);
    now += 3600 * (uint64_t)S;
    transport_limit_take(&limit, 50000, now);
    assert_int_equal(transport_limit_wait(&limit, now), now + 30 * MS);
}

static void
limit_over_a_second_gives_its_rate(void **state)
{
    TransportLimit limit = {0};
    uint64_t start = 7 * (uint64_t)S, now = start, sent = 0;

    (void)state;
    transport_limit_set(&limit, 123456789);
    while (now < start + S) {
        uint64_t until = transport_limit_wait(&limit, now);

        if (until != 0) {
            now = until;
            continue;
        }
        transport_limit_take(&limit, 4096, now);
        sent += 4096;
    }
    assert_in_range(sent, 123456789, 123456789 + 123456789 / 50 + 2 * 4096);
}

static void
limit_raised_while_waiting_acts_at_once(void **state)
{
    TransportLimit limit = {0};
    uint64_t now = 100 * (uint64_t)S;

    (void)state;
    transport_limit_set(&limit, 1000);
    transport_limit_take(&limit, 1000020, now); /* 20 bytes of the bucket, then 1000 s */
    assert_int_equal(transport_limit_wait(&limit, now), now + 1000 * (uint64_t)S);
    transport_limit_set(&limit, 1000000000);
    assert_int_equal(transport_limit_wait(&limit, now), now + MS);
    transport_limit_set(&limit, 1000000);
    assert_int_equal(transport_limit_wait(&limit, now), now + S);
    transport_limit_set(&limit, 0);
    assert_int_equal(transport_limit_wait(&limit, now), 0);
    transport_limit_set(&limit, 1000); /* what was owed is forgiven by then */
    assert_int_equal(transport_limit_wait(&limit, now), 0);
}

static void
limit_huge_numbers_do_not_overflow(void **state)
{
    TransportLimit limit = {0};
    uint64_t now = 100 * (uint64_t)S;

    (void)state;
    transport_limit_set(&limit, 1);
    for (unsigned i = 0; i < 8; i++)
        transport_limit_take(&limit, UINT64_MAX, now);
    assert_true(transport_limit_wait(&limit, now) > now + 1000000 * (uint64_t)S);
    transport_limit_set(&limit, UINT64_MAX);
    assert_in_range(transport_limit_wait(&limit, now), 0, now + S);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limit_unlimited_never_waits),
        cmocka_unit_test(limit_full_bucket_lets_20_ms_pass_then_waits),
        cmocka_unit_test(limit_long_idle_saves_no_more_than_20_ms),
        cmocka_unit_test(limit_over_a_second_gives_its_rate),
        cmocka_unit_test(limit_raised_while_waiting_acts_at_once),
        cmocka_unit_test(limit_huge_numbers_do_not_overflow),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
