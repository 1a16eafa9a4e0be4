/* SPDX-License-Identifier: MIT */
/*
 * Precopy that succeeds, through the public API as an embedder uses it: two Faultlines in one
 * process, real threads, real userfaultfd, real sockets. After each the guest runs at the
 * destination alone, with every page as it left it.
 */
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static const ToyKind memfd = {.name = "memfd", .pages = 2048, .count_vcpus = 2};
static const ToyKind anonymous = {
    .name = "private", .memory = TOY_PRIVATE, .pages = 2048, .count_vcpus = 2};
static const ToyKind tracked = {
    .name = "tracked memfd", .pages = 2048, .count_vcpus = 2, .is_tracked = true};
static const ToyKind tracked_anonymous = {.name = "tracked private",
                                          .memory = TOY_PRIVATE,
                                          .pages = 2048,
                                          .count_vcpus = 2,
                                          .is_tracked = true};
static const ToyKind *const kinds[] = {&memfd, &anonymous, &tracked, &tracked_anonymous};

static void
set_parameter(Toy *toy, const char *name, uint64_t value)
{
    assert_true(faultline_set_parameter(toy->faultline, name, value, NULL));
}

static FaultlineInfo
info_of(Toy *toy)
{
    FaultlineInfo info;
    faultline_query(toy->faultline, &info);
    return info;
}

/* ---- Precopy ----------------------------------------------------------------------------------
 */

static void
precopy(const ToyKind *kind, ToyLinkKind link)
{
    ToyMove move;

    print_message("%s, link %d\n", kind->name, link);
    toy_move_begin(&move, kind, link);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_expect_progress(move.from);
    toy_move_start(&move);
    toy_move_expect_moved(&move);

    FaultlineInfo source = info_of(move.from), destination = info_of(move.to);
    assert_false(source.incoming);
    assert_true(destination.incoming);
    assert_string_equal(source.error, "");
    assert_string_equal(destination.error, "");
    assert_int_equal(source.ram_total_bytes, kind->pages * FAULTLINE_PAGE_BYTES);
    assert_int_equal(source.ram_remaining_bytes, 0);
    assert_int_equal(destination.missing_pages, 0);
    assert_true(source.precopy_pages >= kind->pages);
    assert_int_equal(source.normal_pages + source.zero_pages, source.precopy_pages);
    assert_true(source.zero_pages >= kind->pages / 8);
    assert_true(source.ram_transferred_bytes >= source.normal_pages * FAULTLINE_PAGE_BYTES);
    assert_true(source.dirty_sync_count >= 2);
    assert_true(source.downtime_us > 0);
    assert_int_equal(source.pushed_pages + source.requested_pages + source.postcopy_requests, 0);
    toy_move_end(&move);
}

static void
precopy_of_a_running_guest_completes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        precopy(kinds[i], TOY_UNIX);
    precopy(&memfd, TOY_FD);
    precopy(&anonymous, TOY_TCP);
}

static void
precopy_without_return_path_completes(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    assert_true(faultline_set_capability(move.from->faultline, "return-path", false, NULL));
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
precopy_of_a_paused_guest_arrives_paused(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_expect_progress(move.from);
    assert_true(faultline_stop(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_PAUSED);
    assert_false(toy_is_running(move.to));
    assert_int_equal(move.to->calls[TOY_RESUME], 0);
    assert_int_equal(toy_steps(move.to), toy_steps(move.from));
    toy_check(move.to);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
precopy_of_a_guest_never_started_completes(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &anonymous, TOY_FD);
    toy_move_start(&move);
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    assert_false(toy_is_running(move.to));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
precopy_without_autostart_waits_for_cont(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    faultline_set_autostart(move.to->faultline, false);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_PAUSED);
    assert_false(toy_is_running(move.to));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
stop_while_precopy_runs_is_kept_by_the_destination(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    assert_true(faultline_cont(move.from->faultline, NULL));
    set_parameter(move.from, "max-bandwidth", 64 << 10);
    toy_move_start(&move);
    assert_true(faultline_stop(move.from->faultline, NULL));
    set_parameter(move.from, "max-bandwidth", 0);
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_PAUSED);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

/* ---- Parameters that act on a running migration ------------------------------------------------
 */

static void
max_bandwidth_holds_a_migration_back_until_it_is_lifted(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    set_parameter(move.from, "max-bandwidth", 64 << 10);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    /* 3 MiB of data at 64 KiB/s take the better part of a minute. */
    assert_int_equal(faultline_wait(move.from->faultline, 300), FAULTLINE_STATUS_ACTIVE);
    assert_true(info_of(move.from).precopy_bytes <= 2 << 20);
    set_parameter(move.from, "max-bandwidth", 0);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
max_bandwidth_is_not_exceeded(void **state)
{
    const uint64_t limit_bytes_per_s = 8 << 20;
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    set_parameter(move.from, "max-bandwidth", limit_bytes_per_s);
    set_parameter(move.from, "downtime-limit", 0); /* the rest goes without a limit */
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
    FaultlineInfo info = info_of(move.from);
    assert_true(info.precopy_bytes >= 3 << 20);
    assert_true(info.total_time_ms * limit_bytes_per_s / 1000 >= info.precopy_bytes * 8 / 10);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
downtime_limit_of_zero_never_ends_until_it_is_raised(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    set_parameter(move.from, "downtime-limit", 0);
    set_parameter(move.from, "max-bandwidth", 16 << 20);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    for (unsigned i = 0; i < TOY_TIMEOUT_MS && info_of(move.from).dirty_sync_count < 4; i++)
        assert_int_not_equal(faultline_wait(move.from->faultline, 1), FAULTLINE_STATUS_COMPLETED);
    assert_true(info_of(move.from).dirty_sync_count >= 4);
    set_parameter(move.from, "downtime-limit", 2000000);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precopy_of_a_running_guest_completes),
        cmocka_unit_test(precopy_without_return_path_completes),
        cmocka_unit_test(precopy_of_a_paused_guest_arrives_paused),
        cmocka_unit_test(precopy_of_a_guest_never_started_completes),
        cmocka_unit_test(precopy_without_autostart_waits_for_cont),
        cmocka_unit_test(stop_while_precopy_runs_is_kept_by_the_destination),
        cmocka_unit_test(max_bandwidth_holds_a_migration_back_until_it_is_lifted),
        cmocka_unit_test(max_bandwidth_is_not_exceeded),
        cmocka_unit_test(downtime_limit_of_zero_never_ends_until_it_is_raised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
