/* SPDX-License-Identifier: MIT */
/*
 * Auto-converge: the steps as arithmetic, and a guest that dirties faster than it is sent. However
 * its migration ends, the guest runs at full speed again.
 */
#include "engine/source/throttle.h"
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

/* ---- Steps -------------------------------------------------------------------------------------
 */

static const ThrottleSteps preset = {.trigger = 50, .initial = 20, .increment = 10, .greatest = 99};

/* Passes until a step is taken; fails when there is none. */
static unsigned
passes_to_step(Throttle *throttle, const ThrottleSteps *steps, uint64_t sent, uint64_t dirtied)
{
    for (unsigned i = 1; i < 10; i++)
        if (throttle_judge(throttle, steps, sent, dirtied))
            return i;
    fail_msg("no step at %u%%", throttle->percent);
    return 0;
}

static void
judge_pass_at_or_below_the_threshold_takes_no_step(void **state)
{
    static const uint64_t dirtied[] = {0, 1, 499, 500};
    Throttle throttle = {0};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(dirtied); i++)
        for (unsigned pass = 0; pass < 5; pass++)
            assert_false(throttle_judge(&throttle, &preset, 1000, dirtied[i]));
    assert_int_equal(throttle.percent, 0);
    for (unsigned pass = 0; pass < 5; pass++)
        assert_false(throttle_judge(&throttle, &preset, 0, 0));
}

static void
judge_two_passes_in_a_row_above_it_take_the_first_step(void **state)
{
    Throttle throttle = {0};
    (void)state;

    assert_false(throttle_judge(&throttle, &preset, 1000, 501));
    assert_int_equal(throttle.percent, 0);
    assert_true(throttle_judge(&throttle, &preset, 1000, 501));
    assert_int_equal(throttle.percent, 20);

    throttle = (Throttle){0};
    assert_int_equal(passes_to_step(&throttle, &preset, 0, 1), 2);
}

static void
judge_pass_that_converges_in_between_starts_over(void **state)
{
    Throttle throttle = {0};
    (void)state;

    for (unsigned i = 0; i < 5; i++) {
        assert_false(throttle_judge(&throttle, &preset, 1000, 2000));
        assert_false(throttle_judge(&throttle, &preset, 1000, 100));
    }
    assert_int_equal(throttle.percent, 0);
}

static void
judge_steps_rise_by_the_increment_up_to_the_greatest(void **state)
{
    Throttle throttle = {0};
    (void)state;

    for (unsigned wanted = 20; wanted <= 90; wanted += 10) {
        assert_int_equal(passes_to_step(&throttle, &preset, 1000, 1000), 2);
        assert_int_equal(throttle.percent, wanted);
    }
    assert_int_equal(passes_to_step(&throttle, &preset, 1000, 1000), 2);
    assert_int_equal(throttle.percent, 99);
    for (unsigned i = 0; i < 6; i++)
        assert_false(throttle_judge(&throttle, &preset, 1000, 1000));
    assert_int_equal(throttle.percent, 99);
}

static void
judge_with_a_lower_greatest_set_meanwhile_falls_to_it(void **state)
{
    ThrottleSteps lower = preset;
    Throttle throttle = {.percent = 80};
    (void)state;

    lower.greatest = 30;
    assert_int_equal(passes_to_step(&throttle, &lower, 1000, 1000), 2);
    assert_int_equal(throttle.percent, 30);
}

static void
judge_slow_tail_takes_what_should_suffice(void **state)
{
    /* 501 of 1000 dirtied are 0.2% too many: of the 80% that it runs less than one. */
    static const struct {
        unsigned percent;
        uint64_t dirtied;
        unsigned then;
    } rows[] = {{20, 501, 21},  {20, 510, 22},  {20, 550, 28},  {20, 600, 30},
                {20, 9999, 30}, {90, 1000, 96}, {97, 1000, 99}, {98, 501, 99}};
    ThrottleSteps slow = preset;
    (void)state;

    slow.has_slow_tail = true;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        Throttle throttle = {.percent = rows[i].percent};
        assert_int_equal(passes_to_step(&throttle, &slow, 1000, rows[i].dirtied), 2);
        assert_int_equal(throttle.percent, rows[i].then);
    }
    Throttle first = {0};
    assert_int_equal(passes_to_step(&first, &slow, 1000, 501), 2);
    assert_int_equal(first.percent, 20);
}

/* ---- A guest that dirties faster than it is sent -----------------------------------------------
 */

static const ToyKind hasty = {.name = "hasty memfd", .pages = 2048, .count_vcpus = 2};
static const ToyKind stubborn = {
    .name = "stubborn memfd", .pages = 2048, .count_vcpus = 2, .has_no_throttle = true};

static FaultlineInfo
info_of(Toy *toy)
{
    static FaultlineInfo info;
    faultline_query(toy->faultline, &info);
    return info;
}

static void
set_parameter(Toy *toy, const char *name, uint64_t value)
{
    g_autoptr(GError) error = NULL;
    if (!faultline_set_parameter(toy->faultline, name, value, &error))
        fail_msg("%s", error->message);
}

/* 4 MiB are written in a tenth of the time that they take to be sent. */
static void
begin(ToyMove *move, const ToyKind *kind, const char *capabilities)
{
    toy_move_begin(move, kind, TOY_UNIX);
    toy_move_set(move, capabilities);
    set_parameter(move->from, "max-bandwidth", 16 << 20);
    set_parameter(move->from, "downtime-limit", 20);
    set_parameter(move->from, "cpu-throttle-initial", 50);
    set_parameter(move->from, "cpu-throttle-increment", 49);
    assert_true(faultline_cont(move->from->faultline, NULL));
    toy_expect_progress(move->from);
}

static void
expect_throttled(ToyMove *move)
{
    for (unsigned i = 0; i < TOY_TIMEOUT_MS; i++) {
        FaultlineInfo info = info_of(move->from);
        if (info.cpu_throttle_percent >= 50) {
            assert_int_equal(info.status, FAULTLINE_STATUS_ACTIVE);
            assert_true(move->from->throttle_percent >= 50);
            return;
        }
        g_usleep(1000);
    }
    fail_msg("it was never throttled");
}

static void
expect_free(ToyMove *move)
{
    assert_int_equal(move->from->throttle_percent, 0);
    assert_int_equal(move->from->pause_percent, 0); /* before it was stopped */
    assert_int_equal(info_of(move->from).cpu_throttle_percent, 0);
    assert_int_equal(move->to->count_throttles, 0);
}

static void
precopy_that_does_not_converge_ends_with_auto_converge(void **state)
{
    ToyMove move;
    (void)state;

    begin(&move, &hasty, "auto-converge");
    toy_move_start(&move);
    toy_move_expect_moved(&move);
    expect_free(&move);
    assert_true(move.from->greatest_percent >= 50);
    assert_true(move.from->count_throttles >= 2);
    toy_move_end(&move);
}

static void
precopy_without_auto_converge_never_throttles(void **state)
{
    ToyMove move;
    (void)state;

    begin(&move, &hasty, "return-path");
    toy_move_start(&move);
    for (unsigned i = 0; i < TOY_TIMEOUT_MS && info_of(move.from).dirty_sync_count < 8; i++)
        assert_int_not_equal(faultline_wait(move.from->faultline, 1), FAULTLINE_STATUS_COMPLETED);
    assert_true(info_of(move.from).dirty_sync_count >= 8);
    set_parameter(move.from, "downtime-limit", 2000000);
    toy_move_expect_moved(&move);
    assert_int_equal(move.from->count_throttles, 0);
    toy_move_end(&move);
}

static void
auto_converge_of_a_guest_that_cannot_be_throttled_is_refused(void **state)
{
    Toy *toy = toy_new(&stubborn);
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_false(faultline_set_capability(toy->faultline, "auto-converge", true, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED));
    assert_non_null(strstr(error->message, "'auto-converge'"));
    assert_non_null(strstr(error->message, "throttle callback"));
    assert_false(faultline_get_capability(toy->faultline, "auto-converge"));
    assert_true(faultline_set_capability(toy->faultline, "auto-converge", false, NULL));
    assert_true(faultline_set_capability(toy->faultline, "events", true, NULL));
    toy_free(toy);
}

/* ---- Taken back --------------------------------------------------------------------------------
 */

static void
throttled(ToyMove *move, const char *capabilities)
{
    begin(move, &hasty, capabilities);
    set_parameter(move->from, "downtime-limit", 0); /* it goes on until something happens */
    toy_move_start(move);
    expect_throttled(move);
}

static void
cancel_of_a_throttled_guest_takes_it_back(void **state)
{
    ToyMove move;
    (void)state;

    throttled(&move, "auto-converge");
    assert_true(faultline_cancel(move.from->faultline, NULL));
    toy_expect_end(move.from, FAULTLINE_STATUS_CANCELLED);
    expect_free(&move);
    toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
    toy_move_expect_kept(&move, true);
    toy_move_end(&move);
}

static void
postcopy_of_a_throttled_guest_takes_it_back(void **state)
{
    ToyMove move;
    (void)state;

    throttled(&move, "auto-converge postcopy-ram postcopy-preempt");
    assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_move_expect_moved(&move);
    expect_free(&move);
    toy_move_end(&move);
}

static void
failure_of_a_throttled_guest_takes_it_back(void **state)
{
    ToyMove move;
    (void)state;

    throttled(&move, "auto-converge");
    /* Not the very next: that one may begin at this moment. */
    move.from->fail_at[TOY_LOG_SYNC] = move.from->calls[TOY_LOG_SYNC] + 4;
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    expect_free(&move);
    toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
    toy_move_expect_kept(&move, true);
    toy_move_end(&move);
}

static void
lost_destination_of_a_throttled_guest_takes_it_back(void **state)
{
    ToyMove move;
    (void)state;

    throttled(&move, "auto-converge");
    g_clear_pointer(&move.to->faultline, faultline_free);
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    expect_free(&move);
    toy_expect_progress(move.from);
    assert_true(faultline_stop(move.from->faultline, NULL));
    toy_check(move.from);
    toy_move_end(&move);
}

static void
free_of_a_throttled_guest_takes_it_back(void **state)
{
    ToyMove move;
    (void)state;

    throttled(&move, "auto-converge");
    g_clear_pointer(&move.from->faultline, faultline_free);
    assert_int_equal(move.from->throttle_percent, 0);
    assert_true(toy_is_running(move.from));
    toy_expect_progress(move.from);
    toy_move_end(&move);
}

static void
pause_before_switchover_of_a_throttled_guest_takes_it_back(void **state)
{
    ToyMove move;
    (void)state;

    throttled(&move, "auto-converge pause-before-switchover");
    set_parameter(move.from, "downtime-limit", 2000000);
    for (unsigned i = 0; i < TOY_TIMEOUT_MS; i++) {
        if (info_of(move.from).status == FAULTLINE_STATUS_PRE_SWITCHOVER)
            break;
        g_usleep(1000);
    }
    assert_int_equal(info_of(move.from).status, FAULTLINE_STATUS_PRE_SWITCHOVER);
    expect_free(&move);
    assert_true(faultline_continue(move.from->faultline, FAULTLINE_STATUS_PRE_SWITCHOVER, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(judge_pass_at_or_below_the_threshold_takes_no_step),
        cmocka_unit_test(judge_two_passes_in_a_row_above_it_take_the_first_step),
        cmocka_unit_test(judge_pass_that_converges_in_between_starts_over),
        cmocka_unit_test(judge_steps_rise_by_the_increment_up_to_the_greatest),
        cmocka_unit_test(judge_with_a_lower_greatest_set_meanwhile_falls_to_it),
        cmocka_unit_test(judge_slow_tail_takes_what_should_suffice),
        cmocka_unit_test(precopy_that_does_not_converge_ends_with_auto_converge),
        cmocka_unit_test(precopy_without_auto_converge_never_throttles),
        cmocka_unit_test(auto_converge_of_a_guest_that_cannot_be_throttled_is_refused),
        cmocka_unit_test(cancel_of_a_throttled_guest_takes_it_back),
        cmocka_unit_test(postcopy_of_a_throttled_guest_takes_it_back),
        cmocka_unit_test(failure_of_a_throttled_guest_takes_it_back),
        cmocka_unit_test(lost_destination_of_a_throttled_guest_takes_it_back),
        cmocka_unit_test(free_of_a_throttled_guest_takes_it_back),
        cmocka_unit_test(pause_before_switchover_of_a_throttled_guest_takes_it_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
