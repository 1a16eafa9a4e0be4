/* SPDX-License-Identifier: MIT */
/*
 * Traces of pages' walks: what is recorded agrees with the figures and is in the order of the walk.
 * Two Faultlines in one process, so that both sides' times are of one clock. The push is slow, so
 * that faults do the work.
 */
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define ROOM 20000u

enum { READ = 1, REQUEST = 4, RECEIVE = 5, CLAIM = 6, REPLY = 8, REPLIED = 9, PLACE = 11 };

static const ToyKind memfd = {.name = "memfd", .pages = 2048, .count_vcpus = 2};

typedef struct Traced {
    ToyMove move;
    FaultlineWalkTrace from[FAULTLINE_WALK_ROLE_COUNT], to[FAULTLINE_WALK_ROLE_COUNT];
    FaultlineInfo source, destination;
} Traced;

static void
give_room(FaultlineWalkTrace *traces, uint64_t room)
{
    for (unsigned i = 0; i < FAULTLINE_WALK_ROLE_COUNT; i++)
        traces[i] = (FaultlineWalkTrace){.records = g_new0(FaultlineWalkRecord, room + 1),
                                         .capacity = room};
}

/* room 0: traced, and every record is lost. */
static Traced *
traced_begin(const char *capabilities, uint64_t room)
{
    Traced *traced = g_new0(Traced, 1);
    ToyMove *move = &traced->move;

    give_room(traced->from, room);
    give_room(traced->to, room);
    toy_move_begin(move, &memfd, TOY_UNIX);
    toy_move_set(move, capabilities);
    /* Pages that nobody asked for have no beginning of a walk. */
    assert_true(faultline_set_parameter(move->from->faultline, "neighbour-pages", 0, NULL));
    faultline_set_parameter(move->from->faultline, "max-postcopy-bandwidth", 8 << 20, NULL);
    assert_true(faultline_trace_walk(move->from->faultline, traced->from, NULL));
    assert_true(faultline_trace_walk(move->to->faultline, traced->to, NULL));
    assert_true(faultline_cont(move->from->faultline, NULL));
    toy_expect_progress(move->from);
    return traced;
}

static void
traced_go(Traced *traced)
{
    ToyMove *move = &traced->move;

    toy_move_start(move);
    assert_true(faultline_start_postcopy(move->from->faultline, NULL));
    toy_move_expect_moved(move);
    faultline_query(move->from->faultline, &traced->source);
    faultline_query(move->to->faultline, &traced->destination);
}

static void
traced_end(Traced *traced)
{
    toy_move_end(&traced->move);
    for (unsigned i = 0; i < FAULTLINE_WALK_ROLE_COUNT; i++) {
        g_free(traced->from[i].records);
        g_free(traced->to[i].records);
    }
    g_free(traced);
}

static uint64_t
count_of(const FaultlineWalkTrace *trace, unsigned step)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < trace->count; i++)
        count += trace->records[i].step == step;
    return count;
}

/* The time of a page's first record of a step; 0: it has none. */
static uint64_t
time_of(const FaultlineWalkTrace *trace, unsigned step, const FaultlineWalkRecord *page)
{
    for (uint64_t i = 0; i < trace->count; i++) {
        const FaultlineWalkRecord *record = &trace->records[i];
        if (record->step == step && record->page == page->page && record->block == page->block)
            return record->time_ns;
    }
    return 0;
}

/* ---- Cases ------------------------------------------------------------------------------------
 */

static void
walk_table_names_twelve_steps_in_order(void **state)
{
    const FaultlineWalkRow *row = faultline_walk_table();
    unsigned number = 0;
    (void)state;

    for (; row->name; row++) {
        bool is_source = strcmp(row->role, "request") == 0;
        assert_int_equal(row->number, ++number);
        assert_int_equal(row->side,
                         is_source ? FAULTLINE_WALK_SIDE_SOURCE : FAULTLINE_WALK_SIDE_DESTINATION);
    }
    assert_int_equal(number, 12);
}

static void
walk_with_urgent_channel_is_recorded_in_order(void **state)
{
    Traced *traced = traced_begin("postcopy-ram postcopy-preempt", ROOM);
    const FaultlineWalkTrace *fault = &traced->to[FAULTLINE_WALK_FAULT];
    const FaultlineWalkTrace *request = &traced->from[FAULTLINE_WALK_REQUEST];
    (void)state;

    traced_go(traced);
    assert_int_equal(fault->count_lost + request->count_lost, 0);
    /* One that waited for the frame before may be overtaken by the end. */
    assert_in_range(count_of(fault, REQUEST), 1, traced->destination.postcopy_requests);
    assert_int_equal(count_of(request, RECEIVE), traced->source.postcopy_requests);
    assert_int_equal(count_of(request, CLAIM), traced->source.requested_pages);
    assert_int_equal(count_of(request, REPLY), traced->source.requested_pages);
    assert_int_equal(count_of(fault, REPLIED), traced->source.requested_pages);
    assert_true(traced->source.requested_pages > 0);
    for (uint64_t i = 0; i < fault->count; i++) {
        const FaultlineWalkRecord *page = &fault->records[i];
        uint64_t replied_ns = time_of(fault, REPLIED, page);
        if (page->step != REPLIED)
            continue;
        assert_true(replied_ns == page->time_ns); /* each page comes once */
        assert_in_range(time_of(fault, READ, page), 1, time_of(fault, REQUEST, page));
        assert_in_range(time_of(fault, REQUEST, page), 1, time_of(request, RECEIVE, page));
        assert_in_range(time_of(request, RECEIVE, page), 1, time_of(request, CLAIM, page));
        assert_in_range(time_of(request, CLAIM, page), 1, time_of(request, REPLY, page));
        assert_in_range(time_of(request, REPLY, page), 1, replied_ns);
        assert_in_range(replied_ns, 1, time_of(fault, PLACE, page));
    }
    traced_end(traced);
}

static void
walk_without_urgent_channel_ends_at_listen(void **state)
{
    Traced *traced = traced_begin("postcopy-ram", ROOM);
    const FaultlineWalkTrace *fault = &traced->to[FAULTLINE_WALK_FAULT];
    const FaultlineWalkTrace *listen = &traced->to[FAULTLINE_WALK_LISTEN];
    (void)state;

    traced_go(traced);
    assert_in_range(count_of(fault, REQUEST), 1, traced->destination.postcopy_requests);
    assert_int_equal(count_of(fault, REPLIED), 0);
    assert_int_equal(count_of(fault, PLACE), 0);
    assert_int_equal(count_of(listen, PLACE), listen->count);
    assert_int_equal(listen->count, traced->destination.requested_pages);
    assert_true(listen->count > 0);
    for (uint64_t i = 0; i < listen->count; i++)
        assert_in_range(time_of(fault, READ, &listen->records[i]), 1, listen->records[i].time_ns);
    traced_end(traced);
}

static void
walk_without_room_counts_what_is_lost(void **state)
{
    Traced *traced = traced_begin("postcopy-ram postcopy-preempt", 3);
    const FaultlineWalkTrace *fault = &traced->to[FAULTLINE_WALK_FAULT];
    (void)state;

    traced_go(traced);
    assert_int_equal(fault->count, 3);
    assert_true(fault->count_lost >= traced->destination.postcopy_requests);
    assert_int_equal(fault->records[3].time_ns, 0);
    traced_end(traced);
}

static void
walk_not_traced_any_more_records_nothing(void **state)
{
    Traced *traced = traced_begin("postcopy-ram postcopy-preempt", ROOM);
    (void)state;

    assert_true(faultline_trace_walk(traced->move.to->faultline, NULL, NULL));
    traced_go(traced);
    for (unsigned i = 0; i < FAULTLINE_WALK_ROLE_COUNT; i++)
        assert_int_equal(traced->to[i].count + traced->to[i].count_lost, 0);
    assert_true(traced->from[FAULTLINE_WALK_REQUEST].count > 0);
    traced_end(traced);
}

static void
trace_walk_during_a_migration_is_refused(void **state)
{
    Traced *traced = traced_begin("postcopy-ram postcopy-preempt", ROOM);
    ToyMove *move = &traced->move;
    g_autoptr(GError) error = NULL;
    (void)state;

    toy_move_start(move);
    assert_false(faultline_trace_walk(move->to->faultline, NULL, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
    assert_non_null(strstr(error->message, "a migration is under way"));
    assert_true(faultline_start_postcopy(move->from->faultline, NULL));
    toy_move_expect_moved(move);
    assert_true(traced->to[FAULTLINE_WALK_FAULT].count > 0);
    traced_end(traced);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walk_table_names_twelve_steps_in_order),
        cmocka_unit_test(walk_with_urgent_channel_is_recorded_in_order),
        cmocka_unit_test(walk_without_urgent_channel_ends_at_listen),
        cmocka_unit_test(walk_without_room_counts_what_is_lost),
        cmocka_unit_test(walk_not_traced_any_more_records_nothing),
        cmocka_unit_test(trace_walk_during_a_migration_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
