/* SPDX-License-Identifier: MIT */
/*
 * faultline_free() in the middle: at every phase of either side it returns, takes its threads and
 * its memory with it, and leaves the other side with the truth. What is lost with a half of a guest
 * is the caller's doing; what is whole stays whole.
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
    .name = "tracked", .pages = 2048, .count_vcpus = 2, .is_tracked = true};
/* Move for so long, by faults alone too, that the test comes in between. */
static const ToyKind slow_memfd = {
    .name = "slow memfd", .pages = 8192, .count_vcpus = 2, .rest_us = 50000};
static const ToyKind slow_anonymous = {.name = "slow private",
                                       .memory = TOY_PRIVATE,
                                       .pages = 8192,
                                       .count_vcpus = 2,
                                       .rest_us = 50000};
static const ToyKind slow_tracked = {
    .name = "slow tracked", .pages = 8192, .count_vcpus = 2, .is_tracked = true, .rest_us = 50000};
static const ToyKind *const slow_kinds[] = {&slow_memfd, &slow_anonymous, &slow_tracked};
static const ToyKind *const kinds[] = {&memfd, &anonymous, &tracked};

static unsigned
count_entries(const char *directory)
{
    unsigned count = 0;
    g_autoptr(GDir) entries = g_dir_open(directory, 0, NULL);
    assert_non_null(entries);
    while (g_dir_read_name(entries))
        count++;
    return count;
}

static void
wait_for(Toy *toy, FaultlineStatus status)
{
    FaultlineInfo info = {0};
    for (unsigned i = 0; i < TOY_TIMEOUT_MS; i++) {
        faultline_query(toy->faultline, &info);
        if (info.status == status)
            return;
        g_usleep(1000);
    }
    fail_msg("status %s, not %s", faultline_status_name(info.status),
             faultline_status_name(status));
}

static void
drop(Toy *toy)
{
    g_clear_pointer(&toy->faultline, faultline_free);
}

static void
free_of_none_and_of_an_idle_one_returns(void **state)
{
    (void)state;
    faultline_free(NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        toy_free(toy_new(kinds[i]));
}

static void
free_while_waiting_for_a_source_returns(void **state)
{
    static const ToyLinkKind links[] = {TOY_UNIX, TOY_TCP};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(links); i++) {
        ToyLink link;
        Toy *toy = toy_new(&memfd);
        assert_true(faultline_set_capability(toy->faultline, "postcopy-ram", true, NULL));
        toy_link_open(&link, links[i]);
        assert_true(faultline_incoming(toy->faultline, link.incoming, NULL));
        if (i)
            g_usleep(20000);
        toy_free(toy);
        if (link.directory)
            assert_false(g_file_test(link.incoming + strlen("unix:"), G_FILE_TEST_EXISTS));
        toy_link_close(&link);
    }
}

/* Nobody answers at the other end of the pair. */
static void
free_while_the_peer_is_silent_returns(void **state)
{
    (void)state;
    for (unsigned side = 0; side < 2; side++) {
        ToyMove move;
        toy_move_begin(&move, &memfd, TOY_FD);
        toy_move_set(&move, "postcopy-ram");
        assert_true(faultline_cont(move.from->faultline, NULL));
        if (side)
            assert_true(faultline_incoming(move.to->faultline, move.link.incoming, NULL));
        else
            assert_true(faultline_migrate(move.from->faultline, move.link.outgoing, NULL));
        g_usleep(50000);
        drop(move.from);
        drop(move.to);
        /* The source's guest ran on all the while, or stood for a switch that never came. */
        toy_move_end(&move);
    }
}

/* So small that all of it fits into the socket, and the peer says nothing: the guest is not stopped
 * for a destination that never answered. */
static void
guest_is_not_stopped_for_a_silent_peer(void **state)
{
    static const ToyKind tiny = {.name = "tiny", .pages = 16, .count_vcpus = 1};
    (void)state;
    for (unsigned cancels = 0; cancels < 2; cancels++) {
        ToyMove move;
        toy_move_begin(&move, &tiny, TOY_FD);
        assert_true(faultline_cont(move.from->faultline, NULL));
        assert_true(faultline_migrate(move.from->faultline, move.link.outgoing, NULL));
        wait_for(move.from, FAULTLINE_STATUS_ACTIVE);
        g_usleep(100000);
        toy_expect_progress(move.from);
        wait_for(move.from, FAULTLINE_STATUS_ACTIVE);
        assert_int_equal(faultline_run_state(move.from->faultline), FAULTLINE_RUN_RUNNING);
        if (cancels) {
            assert_true(faultline_cancel(move.from->faultline, NULL));
            toy_expect_end(move.from, FAULTLINE_STATUS_CANCELLED);
            assert_int_equal(faultline_run_state(move.from->faultline), FAULTLINE_RUN_RUNNING);
        } else {
            drop(move.from);
        }
        toy_expect_progress(move.from);
        assert_false(move.from->is_logging);
        toy_move_end(&move);
    }
}

static void
begin_slow_precopy(ToyMove *move, const ToyKind *kind)
{
    toy_move_begin(move, kind, TOY_UNIX);
    toy_move_set(move, "postcopy-ram");
    assert_true(faultline_set_parameter(move->from->faultline, "max-bandwidth", 1 << 20, NULL));
    assert_true(
        faultline_set_parameter(move->from->faultline, "max-postcopy-bandwidth", 1 << 20, NULL));
    assert_true(faultline_cont(move->from->faultline, NULL));
    toy_move_start(move);
    wait_for(move->to, FAULTLINE_STATUS_ACTIVE);
}

static void
free_of_the_source_in_precopy_ends_the_destination(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(slow_kinds); i++) {
        ToyMove move;
        begin_slow_precopy(&move, slow_kinds[i]);
        drop(move.from);
        toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
        assert_non_null(strstr(toy_error(move.to), "The guest never ran here"));
        /* The guest itself is the VMM's; the engine left it running, and no log behind. */
        assert_true(toy_is_running(move.from));
        assert_false(move.from->is_logging);
        toy_expect_progress(move.from);
        toy_move_end(&move);
    }
}

static void
free_of_the_destination_in_precopy_keeps_the_guest(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(slow_kinds); i++) {
        ToyMove move;
        begin_slow_precopy(&move, slow_kinds[i]);
        toy_renew(move.to);
        toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
        assert_non_null(strstr(toy_error(move.from), "goes on at the source, whole"));
        toy_move_expect_kept(&move, true);
        toy_move_end(&move);
    }
}

static void
begin_slow_postcopy(ToyMove *move, const ToyKind *kind)
{
    begin_slow_precopy(move, kind);
    assert_true(faultline_start_postcopy(move->from->faultline, NULL));
    wait_for(move->from, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    wait_for(move->to, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
}

static void
free_of_the_source_in_postcopy_pauses_the_destination(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(slow_kinds); i++) {
        ToyMove move;
        begin_slow_postcopy(&move, slow_kinds[i]);
        drop(move.from);
        toy_expect_end(move.to, FAULTLINE_STATUS_POSTCOPY_PAUSED);
        assert_non_null(strstr(toy_error(move.to), "The guest runs here on the pages"));
        assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_RUNNING);
        assert_false(toy_is_running(move.from));
        assert_false(faultline_cancel(move.to->faultline, NULL));
        toy_move_end(&move);
    }
}

static void
free_of_the_destination_in_postcopy_pauses_the_source(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(slow_kinds); i++) {
        ToyMove move;
        g_autoptr(GError) error = NULL;
        begin_slow_postcopy(&move, slow_kinds[i]);
        drop(move.to);
        toy_expect_end(move.from, FAULTLINE_STATUS_POSTCOPY_PAUSED);
        assert_non_null(strstr(toy_error(move.from), "keep both processes"));
        assert_int_equal(faultline_run_state(move.from->faultline), FAULTLINE_RUN_POSTMIGRATE);
        assert_false(faultline_cont(move.from->faultline, &error));
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
        assert_false(faultline_stop(move.from->faultline, NULL));
        assert_false(faultline_cancel(move.from->faultline, NULL));
        assert_false(faultline_migrate(move.from->faultline, move.link.outgoing, NULL));
        assert_false(toy_is_running(move.from));
        toy_move_end(&move);
    }
}

/* As soon as a side says that it is over, its Faultline may go, although the other side, or giving
 * memory back to the kernel, still has to do. */
static void
free_at_once_after_the_end_harms_nobody(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2 * G_N_ELEMENTS(kinds); i++) {
        ToyMove move;
        toy_move_begin(&move, kinds[i / 2], TOY_UNIX);
        toy_move_set(&move, "postcopy-ram");
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_move_start(&move);
        if (i % 2)
            assert_true(faultline_start_postcopy(move.from->faultline, NULL));
        toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
        drop(move.from);
        toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
        toy_renew(move.to);
        toy_expect_progress(move.to);
        /* The new Faultline does not know that its guest runs. */
        assert_true(faultline_cont(move.to->faultline, NULL));
        assert_true(faultline_stop(move.to->faultline, NULL));
        toy_check(move.to);
        toy_move_end(&move);
    }
}

/* At moments that nobody has chosen. */
static void
free_at_any_moment_returns(void **state)
{
    GRand *rand = g_rand_new_with_seed(20);
    (void)state;
    for (unsigned i = 0; i < 60; i++) {
        ToyMove move;
        toy_move_begin(&move, kinds[i % G_N_ELEMENTS(kinds)], TOY_UNIX);
        toy_move_set(&move, i % 2 ? "postcopy-ram postcopy-preempt" : "postcopy-ram");
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_move_start(&move);
        if (i % 5)
            assert_true(faultline_start_postcopy(move.from->faultline, NULL));
        g_usleep((gulong)g_rand_int_range(rand, 0, 12000));
        drop(i % 4 < 2 ? move.from : move.to);
        Toy *left = i % 4 < 2 ? move.to : move.from;
        faultline_wait(left->faultline, 2000);
        /* Never both; neither, when it was freed with half of the guest. */
        FaultlineRunState run_state = faultline_run_state(left->faultline);
        if (left == move.to && run_state == FAULTLINE_RUN_RUNNING)
            assert_false(toy_is_running(move.from));
        toy_move_end(&move);
    }
    g_rand_free(rand);
}

static void
migrations_leave_no_descriptors_or_threads_behind(void **state)
{
    unsigned descriptors = 0, threads = 0;
    (void)state;
    for (unsigned i = 0; i < 6; i++) {
        ToyMove move;
        toy_move_begin(&move, kinds[i % 2], TOY_UNIX);
        toy_move_set(&move, "postcopy-ram postcopy-preempt");
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_move_start(&move);
        if (i % 3)
            assert_true(faultline_start_postcopy(move.from->faultline, NULL));
        toy_move_expect_moved(&move);
        toy_move_end(&move);
        if (i == 1) {
            descriptors = count_entries("/proc/self/fd");
            threads = count_entries("/proc/self/task");
        }
    }
    assert_int_equal(count_entries("/proc/self/fd"), descriptors);
    assert_true(count_entries("/proc/self/task") <= threads);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_of_none_and_of_an_idle_one_returns),
        cmocka_unit_test(free_while_waiting_for_a_source_returns),
        cmocka_unit_test(free_while_the_peer_is_silent_returns),
        cmocka_unit_test(guest_is_not_stopped_for_a_silent_peer),
        cmocka_unit_test(free_of_the_source_in_precopy_ends_the_destination),
        cmocka_unit_test(free_of_the_destination_in_precopy_keeps_the_guest),
        cmocka_unit_test(free_of_the_source_in_postcopy_pauses_the_destination),
        cmocka_unit_test(free_of_the_destination_in_postcopy_pauses_the_source),
        cmocka_unit_test(free_at_once_after_the_end_harms_nobody),
        cmocka_unit_test(free_at_any_moment_returns),
        cmocka_unit_test(migrations_leave_no_descriptors_or_threads_behind),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
