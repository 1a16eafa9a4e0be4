/* SPDX-License-Identifier: MIT */
/* A guest's move between two toys, and where it must be found afterwards. */
#include "tests/unit/support/toy_move.h"
#include "uffd/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

/* Nothing of this move was made yet; the kinds before this one have passed. */
static void
need_tracker(void)
{
    g_autoptr(GError) error = NULL;
    UffdTracker *tracker = uffd_tracker_new(&error);

    if (!tracker)
        print_message("skipped from here on: %s\n", error->message);
    g_clear_error(&error);
    if (!tracker)
        skip();
    uffd_tracker_free(tracker);
}

void
toy_move_begin(ToyMove *move, const ToyKind *kind, ToyLinkKind link)
{
    if (kind->is_tracked)
        need_tracker();
    *move = (ToyMove){.from = toy_new(kind), .to = toy_new(kind)};
    toy_fill(move->from);
    toy_link_open(&move->link, link);
}

static void
require(bool done, const GError *error)
{
    if (!done)
        fail_msg("%s", error ? error->message : "no error was set");
}

void
toy_move_set(ToyMove *move, const char *capabilities)
{
    g_auto(GStrv) names = g_strsplit(capabilities, " ", -1);

    for (unsigned i = 0; names[i]; i++) {
        g_autoptr(GError) error = NULL;
        bool on = names[i][0] != '-';
        const char *name = names[i] + !on;
        require(faultline_set_capability(move->from->faultline, name, on, &error), error);
        require(faultline_set_capability(move->to->faultline, name, on, &error), error);
    }
}

void
toy_move_start(ToyMove *move)
{
    g_autoptr(GError) error = NULL;

    require(faultline_incoming(move->to->faultline, move->link.incoming, &error), error);
    g_autofree char *uri = move->link.outgoing ? g_strdup(move->link.outgoing)
                                               : faultline_incoming_address(move->to->faultline);
    require(faultline_migrate(move->from->faultline, uri, &error), error);
}

void
toy_move_expect_moved(ToyMove *move)
{
    g_autoptr(GError) error = NULL;
    Faultline *source = move->from->faultline, *destination = move->to->faultline;

    toy_expect_end(move->from, FAULTLINE_STATUS_COMPLETED);
    toy_expect_end(move->to, FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(faultline_run_state(source), FAULTLINE_RUN_POSTMIGRATE);
    assert_false(toy_is_running(move->from));
    assert_false(faultline_cont(source, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
    assert_non_null(strstr(error->message, "the destination may run it"));
    assert_false(toy_is_running(move->from));
    g_clear_error(&error);

    if (faultline_run_state(destination) != FAULTLINE_RUN_RUNNING)
        require(faultline_cont(destination, &error), error);
    toy_expect_progress(move->to);
    assert_true(toy_steps(move->to) > toy_steps(move->from));
    require(faultline_stop(destination, &error), error);
    assert_int_equal(faultline_run_state(destination), FAULTLINE_RUN_PAUSED);
    toy_check(move->to);
}

void
toy_move_expect_kept(ToyMove *move, bool ran)
{
    g_autoptr(GError) error = NULL;
    Faultline *source = move->from->faultline, *destination = move->to->faultline;

    assert_false(toy_is_running(move->to));
    assert_int_not_equal(faultline_run_state(destination), FAULTLINE_RUN_RUNNING);
    if (faultline_run_state(destination) == FAULTLINE_RUN_INMIGRATE)
        assert_false(faultline_cont(destination, NULL));
    assert_int_equal(faultline_run_state(source),
                     ran ? FAULTLINE_RUN_RUNNING : FAULTLINE_RUN_PAUSED);
    assert_int_equal(toy_is_running(move->from), ran);
    require(faultline_cont(source, &error), error);
    toy_expect_progress(move->from);
    assert_false(toy_is_running(move->to));
    require(faultline_stop(source, &error), error);
    toy_check(move->from);
    assert_false(move->from->is_logging);
}

void
toy_move_end(ToyMove *move)
{
    toy_free(move->from);
    toy_free(move->to);
    toy_link_close(&move->link);
}
