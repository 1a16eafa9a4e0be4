/* SPDX-License-Identifier: MIT */
/*
 * Recovery between two Faultlines, with real sockets and userfaultfd: broken from either side, at
 * another address and by another transport, again and again, and given up at each stage.
 */
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

/* Move for so long, by faults alone too, that the test comes in between. */
static const ToyKind memfd = {
    .name = "slow memfd", .pages = 8192, .count_vcpus = 2, .rest_us = 20000};
static const ToyKind anonymous = {.name = "slow private",
                                  .memory = TOY_PRIVATE,
                                  .pages = 8192,
                                  .count_vcpus = 2,
                                  .rest_us = 20000};
static const ToyKind *const kinds[] = {&memfd, &anonymous};

#define SLOW_BYTES_PER_S (2u << 20)

/* error: set or not by then; its value is looked at after the call that `done` is. */
static void
require(bool done, GError *const *error)
{
    if (!done)
        fail_msg("%s", *error ? (*error)->message : "no error was set");
}

static FaultlineStatus
status_of(const Toy *toy)
{
    FaultlineInfo info;
    faultline_query(toy->faultline, &info);
    return info.status;
}

static void
wait_for(Toy *toy, FaultlineStatus status)
{
    for (unsigned i = 0; i < TOY_TIMEOUT_MS && status_of(toy) != status; i++)
        g_usleep(1000);
    if (status_of(toy) != status)
        fail_msg("status %s, not %s: %s", faultline_status_name(status_of(toy)),
                 faultline_status_name(status), toy_error(toy));
}

static void
limit(ToyMove *move, uint64_t bytes_per_s)
{
    assert_true(faultline_set_parameter(move->from->faultline, "max-postcopy-bandwidth",
                                        bytes_per_s, NULL));
}

static void
begin_postcopy(ToyMove *move, const ToyKind *kind, const char *capabilities)
{
    toy_move_begin(move, kind, TOY_UNIX);
    toy_move_set(move, capabilities);
    limit(move, SLOW_BYTES_PER_S);
    assert_true(faultline_set_parameter(move->from->faultline, "downtime-limit", 0, NULL));
    assert_true(faultline_cont(move->from->faultline, NULL));
    toy_move_start(move);
    assert_true(faultline_start_postcopy(move->from->faultline, NULL));
    wait_for(move->from, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    wait_for(move->to, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
}

static void
await_pause(ToyMove *move)
{
    wait_for(move->from, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    wait_for(move->to, FAULTLINE_STATUS_POSTCOPY_PAUSED);
}

/* Listens at uri (NULL: where it did at first), and connects to it. */
static void
reconnect(ToyMove *move, const char *uri)
{
    g_autoptr(GError) error = NULL;

    require(faultline_recover(move->to->faultline, uri ? uri : move->link.incoming, &error),
            &error);
    g_autofree char *address = faultline_incoming_address(move->to->faultline);
    bool resumes = faultline_migrate_resume(move->from->faultline, address, &error);
    /* Since it is let in there again, it may have come by itself. */
    require(resumes || status_of(move->from) != FAULTLINE_STATUS_POSTCOPY_PAUSED, &error);
}

static void
recover(ToyMove *move, const char *uri)
{
    reconnect(move, uri);
    wait_for(move->from, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    wait_for(move->to, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
}

static void
expect_pauses(const Toy *toy, uint64_t count)
{
    FaultlinePauses pauses;
    faultline_query_pauses(toy->faultline, &pauses);
    assert_int_equal(pauses.count, count);
    assert_true(pauses.total_us > 0 && pauses.longest_us > 0);
    assert_true(pauses.longest_us <= pauses.total_us);
}

static void
expect_whole(ToyMove *move)
{
    limit(move, 0);
    toy_move_expect_moved(move);
    assert_string_equal(toy_error(move->from), "");
    assert_string_equal(toy_error(move->to), "");
    toy_move_end(move);
}

static void
recover_after_each_break_loses_nothing(void **state)
{
    static const char *const capabilities[] = {"postcopy-ram", "postcopy-ram postcopy-preempt",
                                               "postcopy-ram postcopy-blocktime"};
    static const char *const addresses[] = {NULL, "tcp:127.0.0.1:0", "tcp:127.0.0.1:0", NULL};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds) * G_N_ELEMENTS(capabilities); i++) {
        ToyMove move;
        begin_postcopy(&move, kinds[i % 2], capabilities[i / 2]);
        for (unsigned j = 0; j < G_N_ELEMENTS(addresses); j++) {
            Toy *side = j % 2 ? move.from : move.to;
            assert_true(faultline_pause(side->faultline, NULL));
            await_pause(&move);
            assert_non_null(strstr(toy_error(side), "asked to"));
            g_usleep(20000); /* so that vCPUs come to wait */
            recover(&move, addresses[j]);
        }
        expect_pauses(move.from, G_N_ELEMENTS(addresses));
        expect_pauses(move.to, G_N_ELEMENTS(addresses));
        expect_whole(&move);
    }
}

static void
resume_before_the_destination_listens_pauses_again(void **state)
{
    ToyMove move;
    (void)state;
    begin_postcopy(&move, &memfd, "postcopy-ram postcopy-preempt -recovery-token -auto-recover");
    assert_true(faultline_pause(move.from->faultline, NULL));
    await_pause(&move);
    assert_true(faultline_migrate_resume(move.from->faultline, move.link.incoming, NULL));
    wait_for(move.from, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    assert_non_null(strstr(toy_error(move.from), "connect"));
    recover(&move, NULL);
    expect_pauses(move.from, 1);
    expect_whole(&move);
}

/* A little later each time, so that it meets one stage after the other. */
static void
pause_during_a_recovery_leads_back(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        ToyMove move;
        begin_postcopy(&move, kinds[i], "postcopy-ram postcopy-preempt");
        assert_true(faultline_pause(move.from->faultline, NULL));
        for (unsigned j = 0; j < 20; j++) {
            Toy *side = j % 2 ? move.from : move.to;
            await_pause(&move);
            reconnect(&move, j % 3 ? NULL : "tcp:127.0.0.1:0");
            g_usleep(j * 37);
            while (!faultline_pause(side->faultline, NULL))
                g_usleep(10);
        }
        await_pause(&move);
        recover(&move, NULL);
        expect_whole(&move);
    }
}

static void
stop_and_cont_work_while_paused(void **state)
{
    ToyMove move;
    (void)state;
    begin_postcopy(&move, &memfd, "postcopy-ram");
    assert_true(faultline_stop(move.to->faultline, NULL));
    assert_true(faultline_pause(move.to->faultline, NULL));
    await_pause(&move);
    assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_PAUSED);
    assert_true(faultline_cont(move.to->faultline, NULL));
    assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_RUNNING);
    recover(&move, NULL);
    assert_true(faultline_stop(move.to->faultline, NULL));
    assert_true(faultline_cont(move.to->faultline, NULL));
    expect_whole(&move);
}

static void
free_at_each_stage_of_a_recovery_returns(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 12; i++) {
        ToyMove move;
        begin_postcopy(&move, kinds[i % 2], "postcopy-ram postcopy-preempt");
        assert_true(faultline_pause(move.from->faultline, NULL));
        await_pause(&move);
        if (i / 4 == 1)
            assert_true(faultline_recover(move.to->faultline, move.link.incoming, NULL));
        if (i / 4 == 2)
            reconnect(&move, NULL);
        g_usleep(i * 50);
        Toy *first = i & 2 ? move.from : move.to;
        g_clear_pointer(&first->faultline, faultline_free);
        toy_move_end(&move);
    }
}

static void
expect_refused(bool done, GError *error, const char *part)
{
    assert_false(done);
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
    if (!strstr(error->message, part))
        fail_msg("'%s' lacks '%s'", error->message, part);
    g_error_free(error);
}

static void
recover_in_the_wrong_state_refuses(void **state)
{
    ToyMove move;
    GError *error = NULL;
    (void)state;
    toy_move_begin(&move, &memfd, TOY_UNIX);
    bool done = faultline_migrate_resume(move.from->faultline, "unix:/x", &error);
    expect_refused(done, g_steal_pointer(&error), "no paused migration");
    done = faultline_recover(move.to->faultline, "unix:/x", &error);
    expect_refused(done, g_steal_pointer(&error), "at a destination");
    toy_move_end(&move);

    begin_postcopy(&move, &memfd, "postcopy-ram");
    done = faultline_migrate_resume(move.from->faultline, "unix:/x", &error);
    expect_refused(done, g_steal_pointer(&error), "no paused migration");
    done = faultline_recover(move.to->faultline, "unix:/x", &error);
    expect_refused(done, g_steal_pointer(&error), "when postcopy is paused");
    assert_true(faultline_pause(move.from->faultline, NULL));
    await_pause(&move);
    done = faultline_migrate_resume(move.to->faultline, "unix:/x", &error);
    expect_refused(done, g_steal_pointer(&error), "no paused migration");
    done = faultline_recover(move.from->faultline, "unix:/x", &error);
    expect_refused(done, g_steal_pointer(&error), "at a destination");
    done = faultline_pause(move.from->faultline, &error);
    expect_refused(done, g_steal_pointer(&error), "postcopy-active");
    done = faultline_cancel(move.from->faultline, &error);
    expect_refused(done, g_steal_pointer(&error), "cannot cancel");
    assert_false(faultline_migrate_resume(move.from->faultline, "nonsense", NULL));
    assert_false(faultline_recover(move.to->faultline, "nonsense", NULL));
    recover(&move, NULL);
    expect_whole(&move);
}

static void
resume_with_release_ram_refuses(void **state)
{
    ToyMove move;
    GError *error = NULL;
    (void)state;
    toy_move_begin(&move, &memfd, TOY_UNIX);
    toy_move_set(&move, "postcopy-ram release-ram");
    limit(&move, SLOW_BYTES_PER_S);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    wait_for(move.from, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    wait_for(move.to, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_true(faultline_pause(move.from->faultline, NULL));
    await_pause(&move);
    bool done = faultline_migrate_resume(move.from->faultline, move.link.incoming, &error);
    expect_refused(done, error, "release-ram");
    toy_move_end(&move);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recover_after_each_break_loses_nothing),
        cmocka_unit_test(resume_before_the_destination_listens_pauses_again),
        cmocka_unit_test(pause_during_a_recovery_leads_back),
        cmocka_unit_test(stop_and_cont_work_while_paused),
        cmocka_unit_test(free_at_each_stage_of_a_recovery_returns),
        cmocka_unit_test(recover_in_the_wrong_state_refuses),
        cmocka_unit_test(resume_with_release_ram_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
