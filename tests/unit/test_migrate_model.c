/* SPDX-License-Identifier: MIT */
/*
 * What `faultline migrate` computes and decides: rising downtime, policies of the switch, the model
 * of the passes, and where the guest is after a failure. No machine takes part.
 */
#include "kvm/migrate.h"
#include "kvm/migrate_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define MIB 1048576.0
#define GIB (1024 * MIB)

static void
expect_near(double found, double expected, double part)
{
    if (fabs(found - expected) > fabs(expected) * part)
        fail_msg("%g, expected %g within %g%%", found, expected, part * 100);
}

/* ---- Downtime -------------------------------------------------------------------------------- */

static const MigrateDowntime rising = {
    .limit_ms = 300, .steps = 10, .delay_ms_per_gib = 5000, .guest_bytes = 2ull << 30};

static void
downtime_at_the_start_is_the_first_step(void **state)
{
    (void)state;
    assert_int_equal(migrate_downtime_at(&rising, 0), 30);
    assert_int_equal(migrate_downtime_at(&rising, 9999), 30);
}

static void
downtime_rises_after_each_delay_to_the_limit(void **state)
{
    uint64_t last = 0;
    (void)state;

    for (uint64_t step = 0; step <= 10; step++) {
        uint64_t now = migrate_downtime_at(&rising, step * 10000);
        assert_true(now > last);
        last = now;
    }
    assert_int_equal(last, 300);
    assert_int_equal(migrate_downtime_at(&rising, UINT64_MAX), 300);
    assert_int_equal(migrate_downtime_full_ms(&rising), 100000);
}

static void
downtime_without_steps_or_memory_is_the_limit(void **state)
{
    MigrateDowntime flat = rising, empty = rising;
    (void)state;

    flat.steps = 0;
    empty.guest_bytes = 0;
    assert_int_equal(migrate_downtime_at(&flat, 0), 300);
    assert_int_equal(migrate_downtime_at(&empty, 0), 300);
}

/* ---- Policies -------------------------------------------------------------------------------- */

static void
policy_after_pass_waits_for_the_end_of_that_pass(void **state)
{
    const MigratePolicy policy = {.kind = MIGRATE_POSTCOPY_AFTER_PASS, .value = 2};
    MigrateWatch watch = {0};
    (void)state;

    assert_false(migrate_policy_wants_postcopy(&policy, &watch, 0, 1, 100));
    assert_false(migrate_policy_wants_postcopy(&policy, &watch, 0, 2, 100));
    assert_true(migrate_policy_wants_postcopy(&policy, &watch, 0, 3, 100));
}

static void
policy_timeout_looks_at_the_time_only(void **state)
{
    const MigratePolicy policy = {.kind = MIGRATE_POSTCOPY_TIMEOUT, .value = 500};
    MigrateWatch watch = {0};
    (void)state;

    assert_false(migrate_policy_wants_postcopy(&policy, &watch, 499, 90, 100));
    assert_true(migrate_policy_wants_postcopy(&policy, &watch, 500, 1, 100));
}

static void
policy_never_never_does(void **state)
{
    const MigratePolicy policy = {.kind = MIGRATE_POSTCOPY_NEVER};
    MigrateWatch watch = {0};
    (void)state;

    for (uint64_t pass = 1; pass < 100; pass++)
        assert_false(migrate_policy_wants_postcopy(&policy, &watch, pass * 10000, pass, 100));
}

static bool
stalls(const uint64_t *remaining, unsigned count)
{
    const MigratePolicy policy = {.kind = MIGRATE_POSTCOPY_STALL};
    MigrateWatch watch = {0};
    bool wants = false;

    for (unsigned i = 0; i < count; i++) {
        /* Many looks at one pass are one pass; what is left falls within it. */
        wants = migrate_policy_wants_postcopy(&policy, &watch, 0, i + 1, remaining[i]);
        for (unsigned look = 1; look < 9; look++)
            assert_int_equal(migrate_policy_wants_postcopy(&policy, &watch, 0, i + 1,
                                                           remaining[i] * (9 - look) / 9),
                             wants);
    }
    return wants;
}

static void
policy_stall_waits_for_two_passes_without_progress(void **state)
{
    static const uint64_t shrinking[] = {1000, 900, 800, 700, 650, 600};
    static const uint64_t once[] = {1000, 900, 950, 800, 810};
    static const uint64_t twice[] = {1000, 900, 950, 901};
    static const uint64_t hardly[] = {100000, 50000, 49999, 49998};
    (void)state;

    assert_false(stalls(shrinking, G_N_ELEMENTS(shrinking)));
    assert_false(stalls(once, G_N_ELEMENTS(once)));
    assert_false(stalls(twice, G_N_ELEMENTS(twice) - 1));
    assert_true(stalls(twice, G_N_ELEMENTS(twice)));
    assert_true(stalls(hardly, G_N_ELEMENTS(hardly)));
}

static void
policy_texts_are_taken_by_a_strict_rule(void **state)
{
    static const struct {
        const char *text;
        MigratePolicy policy;
    } good[] = {
        {"never", {MIGRATE_POSTCOPY_NEVER, 0}},
        {"stall", {MIGRATE_POSTCOPY_STALL, 0}},
        {"after-pass=3", {MIGRATE_POSTCOPY_AFTER_PASS, 3}},
        {"after-pass=0", {MIGRATE_POSTCOPY_AFTER_PASS, 0}},
        {"timeout=30s", {MIGRATE_POSTCOPY_TIMEOUT, 30000}},
        {"timeout=0.5s", {MIGRATE_POSTCOPY_TIMEOUT, 500}},
    };
    static const char *const bad[] = {
        "",          "Never",        "after-pass", "after-pass=",  "timeout=",
        "timeout=3", "after-pass=x", "stall=1",    "after-pass=-1"};
    MigratePolicy policy;
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(migrate_policy_parse(good[i].text, &policy));
        assert_int_equal(policy.kind, good[i].policy.kind);
        assert_int_equal(policy.value, good[i].policy.value);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        if (migrate_policy_parse(bad[i], &policy))
            fail_msg("\"%s\" was taken", bad[i]);
}

static void
time_texts_have_a_unit(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms;
    } good[] = {{"300ms", 300}, {"5s", 5000}, {"2m", 120000}, {"1.5s", 1500}, {"0ms", 0}};
    static const char *const bad[] = {"",    "300",  "s",      "-1s",           "1h", "1 s", "1e3s",
                                      "nan", "0x1s", "1.2.3s", "9999999999999m"};
    uint64_t ms;
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        assert_true(migrate_time_parse(good[i].text, &ms));
        assert_int_equal(ms, good[i].ms);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        if (migrate_time_parse(bad[i], &ms))
            fail_msg("\"%s\" was taken", bad[i]);
}

/* ---- The guest's writes ---------------------------------------------------------------------- */

static void
fit_finds_rate_and_working_set_again(void **state)
{
    static const MigrateWrites guests[] = {
        {.working_bytes = 100 * MIB, .bytes_per_s = 50 * MIB},
        {.working_bytes = 512 * MIB, .bytes_per_s = 40 * MIB},
        {.working_bytes = 16 * MIB, .bytes_per_s = 30 * MIB},
    };
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(guests); i++) {
        MigrateWrites found = migrate_writes_fit(0.4, migrate_writes_in(&guests[i], 0.4), 2,
                                                 migrate_writes_in(&guests[i], 2), GIB);
        expect_near(found.working_bytes, guests[i].working_bytes, 0.01);
        expect_near(found.bytes_per_s, guests[i].bytes_per_s, 0.01);
    }
}

static void
fit_of_a_guest_that_writes_all_at_once_is_its_working_set(void **state)
{
    MigrateWrites found = migrate_writes_fit(0.4, 64 * MIB, 2, 64 * MIB, GIB);
    (void)state;

    expect_near(migrate_writes_in(&found, 0.4), 64 * MIB, 0.01);
    expect_near(migrate_writes_in(&found, 100), 64 * MIB, 0.01);
}

static void
fit_of_a_steady_writer_stays_within_the_guest(void **state)
{
    MigrateWrites found = migrate_writes_fit(0.4, 40 * MIB, 2, 200 * MIB, GIB);
    (void)state;

    expect_near(migrate_writes_in(&found, 2), 200 * MIB, 0.01);
    assert_true(migrate_writes_in(&found, 1e6) <= GIB);
    /* Also with figures that no such guest can have. */
    found = migrate_writes_fit(0.4, 10 * MIB, 2, 3 * GIB, GIB);
    assert_true(migrate_writes_in(&found, 1e6) <= GIB);
    assert_true(isfinite(found.bytes_per_s));
}

static void
fit_of_an_idle_guest_writes_nothing(void **state)
{
    MigrateWrites found = migrate_writes_fit(0.4, 0, 2, 0, GIB);
    (void)state;

    assert_true(migrate_writes_in(&found, 1000) == 0);
}

/* ---- Forecasts ------------------------------------------------------------------------------- */

static MigratePlan
plan_of(double working, double rate, MigratePostcopy kind, uint64_t value)
{
    return (MigratePlan){
        .guest_bytes = GIB,
        .content_bytes = GIB,
        .writes = {.working_bytes = working, .bytes_per_s = rate},
        .bytes_per_s = 128 * MIB,
        .link_bytes_per_s = 512 * MIB,
        .postcopy_bytes_per_s = 256 * MIB,
        .downtime = {.limit_ms = 300, .guest_bytes = 1 << 30},
        .policy = {.kind = kind, .value = value},
    };
}

static void
forecast_of_an_idle_guest_is_one_pass(void **state)
{
    MigratePlan plan = plan_of(GIB, 0, MIGRATE_POSTCOPY_NEVER, 0);
    MigrateForecast forecast;
    (void)state;

    plan.downtime.limit_ms = 0;
    migrate_forecast(&plan, &forecast);
    assert_true(forecast.completes && !forecast.postcopy);
    assert_int_equal(forecast.passes, 1);
    expect_near(forecast.seconds, 8, 0.001);
    assert_true(forecast.downtime_s == 0);
}

static void
forecast_of_a_guest_that_is_half_zero_sends_the_other_half(void **state)
{
    MigratePlan plan = plan_of(GIB, 0, MIGRATE_POSTCOPY_NEVER, 0);
    MigrateForecast forecast;
    (void)state;

    plan.content_bytes = GIB / 2;
    migrate_forecast(&plan, &forecast);
    assert_true(forecast.completes);
    expect_near(forecast.seconds, 4, 0.001);

    /* To the policy the first pass is all of memory: the second one shrinks, two more do not. */
    plan = plan_of(GIB / 2, 4 * GIB, MIGRATE_POSTCOPY_STALL, 0);
    plan.content_bytes = GIB / 2;
    migrate_forecast(&plan, &forecast);
    assert_int_equal(forecast.passes, 3);
    expect_near(forecast.seconds, 3 * 4 + 2, 0.02);
}

/* What is written again before it was sent is sent once. */
static void
forecast_of_a_timeout_in_a_later_pass_stays_within_the_working_set(void **state)
{
    MigratePlan plan = plan_of(256 * MIB, 4 * GIB, MIGRATE_POSTCOPY_TIMEOUT, 9000);
    MigrateForecast forecast;
    (void)state;

    migrate_forecast(&plan, &forecast);
    assert_true(forecast.completes && forecast.postcopy);
    assert_int_equal(forecast.passes, 2);
    expect_near(forecast.remaining_bytes, 256 * MIB, 0.01);
}

static void
forecast_that_converges_halves_pass_by_pass(void **state)
{
    MigratePlan plan = plan_of(GIB * 1000, 64 * MIB, MIGRATE_POSTCOPY_NEVER, 0);
    MigrateForecast forecast;
    (void)state;

    /* 8 s, 4, 2, 1, 0.5, 0.25: what is written in 0.5 s takes 0.25 s, which is allowed. */
    migrate_forecast(&plan, &forecast);
    assert_true(forecast.completes && !forecast.postcopy);
    assert_int_equal(forecast.passes, 5);
    expect_near(forecast.seconds, 15.5 + 0.0625, 0.01);
    expect_near(forecast.downtime_s, 0.0625, 0.01);
}

static void
forecast_that_does_not_converge_tells_the_downtime_it_needs(void **state)
{
    MigratePlan plan = plan_of(256 * MIB, 4 * GIB, MIGRATE_POSTCOPY_NEVER, 0);
    MigrateForecast forecast;
    (void)state;

    plan.downtime.steps = 10;
    plan.downtime.delay_ms_per_gib = 5000;
    migrate_forecast(&plan, &forecast);
    assert_false(forecast.completes);
    expect_near(forecast.downtime_s, 2, 0.01);
    plan.downtime.limit_ms = 2100;
    migrate_forecast(&plan, &forecast);
    assert_true(forecast.completes);
}

static void
forecast_of_each_policy_switches_when_it_says(void **state)
{
    static const struct {
        MigratePostcopy kind;
        uint64_t value, passes;
        double seconds;
    } rows[] = {
        {MIGRATE_POSTCOPY_AFTER_PASS, 1, 1, 8 + 1},  /* 256 MiB at 256 MiB/s */
        {MIGRATE_POSTCOPY_AFTER_PASS, 3, 3, 12 + 1}, /* two passes of 2 s more */
        {MIGRATE_POSTCOPY_AFTER_PASS, 0, 1, 4},      /* everything by postcopy */
        {MIGRATE_POSTCOPY_TIMEOUT, 0, 1, 4},
        {MIGRATE_POSTCOPY_TIMEOUT, 4000, 1, 4 + 2.5},  /* half, and half of what was written */
        {MIGRATE_POSTCOPY_STALL, 0, 3, 8 + 2 + 2 + 1}, /* 256 MiB thrice */
    };
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        MigratePlan plan = plan_of(256 * MIB, 4 * GIB, rows[i].kind, rows[i].value);
        MigrateForecast forecast;
        migrate_forecast(&plan, &forecast);
        assert_true(forecast.completes && forecast.postcopy);
        assert_int_equal(forecast.passes, rows[i].passes);
        expect_near(forecast.seconds, rows[i].seconds, 0.02);
        assert_true(forecast.downtime_s == 0);
    }
}

/* ---- Where the guest is ---------------------------------------------------------------------- */

typedef struct Said {
    const char *status, *run_state; /* NULL: does not answer */
    int64_t missing_pages;
} Said;

static MigrateLook *
look_of(const Said *said, MigrateLook *ret_look)
{
    if (!said->status)
        return NULL;
    *ret_look = (MigrateLook){.missing_pages = said->missing_pages};
    g_strlcpy(ret_look->status, said->status, sizeof ret_look->status);
    g_strlcpy(ret_look->run_state, said->run_state, sizeof ret_look->run_state);
    return ret_look;
}

static void
locate_says_where_the_guest_is(void **state)
{
    static const struct {
        Said source, destination;
        MigrateGuest guest;
    } rows[] = {
        {{"failed", "running", 0}, {"failed", "inmigrate", 0}, MIGRATE_GUEST_AT_SOURCE},
        {{"cancelled", "running", 0}, {NULL, NULL, 0}, MIGRATE_GUEST_AT_SOURCE},
        {{"failed", "paused", 0}, {"setup", "inmigrate", 0}, MIGRATE_GUEST_AT_SOURCE},
        {{"none", "prelaunch", 0}, {"none", "prelaunch", 0}, MIGRATE_GUEST_AT_SOURCE},
        {{"completed", "postmigrate", 0},
         {"completed", "running", 0},
         MIGRATE_GUEST_AT_DESTINATION},
        {{"completed", "postmigrate", 0}, {"failed", "inmigrate", 0}, MIGRATE_GUEST_UNKNOWN},
        {{"completed", "postmigrate", 0}, {NULL, NULL, 0}, MIGRATE_GUEST_UNKNOWN},
        {{"postcopy-paused", "postmigrate", 0},
         {"postcopy-paused", "running", 7},
         MIGRATE_GUEST_WAITS},
        {{"postcopy-paused", "postmigrate", 0},
         {"completed", "running", 0},
         MIGRATE_GUEST_AT_DESTINATION},
        {{"postcopy-paused", "postmigrate", 0}, {NULL, NULL, 0}, MIGRATE_GUEST_LOST},
        {{NULL, NULL, 0}, {"failed", "inmigrate", 0}, MIGRATE_GUEST_LOST},
        {{NULL, NULL, 0}, {"postcopy-paused", "running", 7}, MIGRATE_GUEST_LOST},
        {{NULL, NULL, 0}, {"completed", "running", 0}, MIGRATE_GUEST_AT_DESTINATION},
        {{NULL, NULL, 0}, {NULL, NULL, 0}, MIGRATE_GUEST_UNKNOWN},
    };
    MigrateLook looks[2];
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++)
        assert_int_equal(migrate_locate(look_of(&rows[i].source, &looks[0]),
                                        look_of(&rows[i].destination, &looks[1])),
                         rows[i].guest);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(downtime_at_the_start_is_the_first_step),
        cmocka_unit_test(downtime_rises_after_each_delay_to_the_limit),
        cmocka_unit_test(downtime_without_steps_or_memory_is_the_limit),
        cmocka_unit_test(policy_after_pass_waits_for_the_end_of_that_pass),
        cmocka_unit_test(policy_timeout_looks_at_the_time_only),
        cmocka_unit_test(policy_never_never_does),
        cmocka_unit_test(policy_stall_waits_for_two_passes_without_progress),
        cmocka_unit_test(policy_texts_are_taken_by_a_strict_rule),
        cmocka_unit_test(time_texts_have_a_unit),
        cmocka_unit_test(fit_finds_rate_and_working_set_again),
        cmocka_unit_test(fit_of_a_guest_that_writes_all_at_once_is_its_working_set),
        cmocka_unit_test(fit_of_a_steady_writer_stays_within_the_guest),
        cmocka_unit_test(fit_of_an_idle_guest_writes_nothing),
        cmocka_unit_test(forecast_of_an_idle_guest_is_one_pass),
        cmocka_unit_test(forecast_of_a_guest_that_is_half_zero_sends_the_other_half),
        cmocka_unit_test(forecast_of_a_timeout_in_a_later_pass_stays_within_the_working_set),
        cmocka_unit_test(forecast_that_converges_halves_pass_by_pass),
        cmocka_unit_test(forecast_that_does_not_converge_tells_the_downtime_it_needs),
        cmocka_unit_test(forecast_of_each_policy_switches_when_it_says),
        cmocka_unit_test(locate_says_where_the_guest_is),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
