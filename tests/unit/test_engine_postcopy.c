/* SPDX-License-Identifier: MIT */
/*
 * Postcopy that succeeds, through the public API as an embedder uses it: two Faultlines in one
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

/* ---- Postcopy ---------------------------------------------------------------------------------
 */

typedef struct Postcopy {
    const char *capabilities;
    ToyLinkKind link;
    bool later;        /* the wish comes after precopy has begun to send */
    uint64_t slow_bps; /* max-postcopy-bandwidth, so that faults do the work; 0: none */
} Postcopy;

static void
wait_for_pages(Toy *source)
{
    while (info_of(source).precopy_pages < 300) {
        assert_int_not_equal(faultline_wait(source->faultline, 1), FAULTLINE_STATUS_FAILED);
        assert_int_not_equal(faultline_wait(source->faultline, 0), FAULTLINE_STATUS_COMPLETED);
    }
}

static void
postcopy_start(ToyMove *move, const ToyKind *kind, const Postcopy *how)
{
    print_message("%s: %s, link %d, %s%s\n", kind->name, how->capabilities, how->link,
                  how->later ? "later" : "at once", how->slow_bps ? ", slow" : "");
    toy_move_begin(move, kind, how->link);
    toy_move_set(move, how->capabilities);
    set_parameter(move->from, "max-postcopy-bandwidth", how->slow_bps);
    if (how->later) {
        set_parameter(move->from, "max-bandwidth", 1 << 20);
        set_parameter(move->from, "downtime-limit", 0);
    }
    assert_true(faultline_cont(move->from->faultline, NULL));
    toy_expect_progress(move->from);
    toy_move_start(move);
    if (how->later)
        wait_for_pages(move->from);
    assert_true(faultline_start_postcopy(move->from->faultline, NULL));
}

static void
expect_postcopy_figures(const ToyMove *move, bool has_slow_push)
{
    FaultlineInfo source = info_of(move->from), destination = info_of(move->to);

    assert_int_equal(source.ram_remaining_bytes, 0);
    assert_int_equal(destination.missing_pages, 0);
    assert_int_equal(destination.ram_remaining_bytes, 0);
    assert_true(source.pushed_pages + source.requested_pages > 0);
    assert_int_equal(source.precopy_pages + source.pushed_pages + source.requested_pages +
                         source.neighbour_pages,
                     source.normal_pages + source.zero_pages);
    assert_true(destination.main_bytes > 0);
    assert_int_equal(destination.urgent_bytes > 0, source.urgent_bytes > 0);
    assert_true(destination.moment_ns[FAULTLINE_MOMENT_RESIDENT] != 0);
    assert_int_equal(destination.precopy_pages + destination.pushed_pages +
                         destination.requested_pages + destination.neighbour_pages,
                     destination.normal_pages + destination.zero_pages);
    if (has_slow_push) {
        assert_true(source.postcopy_requests > 0);
        assert_true(source.requested_pages > 0);
    }
}

static void
postcopy(const ToyKind *kind, const Postcopy *how)
{
    ToyMove move;

    postcopy_start(&move, kind, how);
    toy_move_expect_moved(&move);
    expect_postcopy_figures(&move, how->slow_bps != 0);
    toy_move_end(&move);
}

static void
postcopy_at_once_completes(void **state)
{
    static const Postcopy hows[] = {
        {"postcopy-ram", TOY_UNIX, false, 0},
        {"postcopy-ram", TOY_FD, false, 8 << 20},
        {"postcopy-ram postcopy-preempt", TOY_UNIX, false, 8 << 20},
    };
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        for (unsigned j = 0; j < G_N_ELEMENTS(hows); j++)
            postcopy(kinds[i], &hows[j]);
}

static void
postcopy_later_completes(void **state)
{
    static const Postcopy hows[] = {
        {"postcopy-ram", TOY_TCP, true, 0},
        {"postcopy-ram", TOY_UNIX, true, 8 << 20},
        {"postcopy-ram postcopy-preempt", TOY_TCP, true, 8 << 20},
        {"postcopy-ram postcopy-preempt", TOY_UNIX, true, 0},
    };
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        for (unsigned j = 0; j < G_N_ELEMENTS(hows); j++)
            postcopy(kinds[i], &hows[j]);
}

/* Each vCPU of a toy goes through its pages in order. */
static void
postcopy_of_a_guest_that_strides_brings_neighbours(void **state)
{
    const Postcopy how = {"postcopy-ram postcopy-preempt", TOY_UNIX, false, 1 << 20};
    ToyMove move;
    (void)state;

    postcopy_start(&move, &memfd, &how);
    toy_move_expect_moved(&move);
    expect_postcopy_figures(&move, true);
    FaultlineInfo source = info_of(move.from), destination = info_of(move.to);
    assert_true(destination.neighbour_pages > 0);
    /* One that crossed a request for it counts as requested there. */
    assert_true(source.neighbour_pages >= destination.neighbour_pages);
    toy_move_end(&move);
}

static void
postcopy_allowed_but_not_wished_for_ends_as_precopy(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    toy_move_set(&move, "postcopy-ram postcopy-preempt postcopy-blocktime release-ram");
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_move_expect_moved(&move);
    FaultlineInfo info = info_of(move.from);
    assert_int_equal(info.pushed_pages + info.requested_pages, 0);
    toy_move_end(&move);
}

static void
postcopy_of_a_paused_guest_arrives_paused(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    toy_move_set(&move, "postcopy-ram");
    toy_move_start(&move);
    assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(faultline_run_state(move.to->faultline), FAULTLINE_RUN_PAUSED);
    assert_int_equal(move.to->calls[TOY_RESUME], 0);
    toy_check(move.to);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

static void
blocktime_counts_the_vcpus_remote_faults(const ToyKind *kind, const char *capabilities)
{
    const Postcopy how = {capabilities, TOY_UNIX, false, 4 << 20};
    ToyMove move;

    postcopy_start(&move, kind, &how);
    toy_move_expect_moved(&move);
    FaultlineInfo source = info_of(move.from), destination = info_of(move.to);
    assert_int_equal(destination.count_vcpus, kind->count_vcpus);
    assert_int_equal(destination.faults_in_flight, 0);
    uint64_t faults = destination.non_vcpu_faults;
    for (unsigned i = 0; i < kind->count_vcpus; i++) {
        assert_true(destination.vcpu_faults[i] > 0);
        assert_true(destination.vcpu_blocktime_ns[i] > 0);
        faults += destination.vcpu_faults[i];
    }
    assert_int_equal(destination.latency.count, faults);
    assert_true(faults >= source.postcopy_requests);
    uint64_t median = faultline_latency_percentile(&destination.latency, 50);
    uint64_t late = faultline_latency_percentile(&destination.latency, 99);
    assert_true(median > 0);
    assert_true(late >= median);
    assert_true(destination.latency.max_ns >= late);
    assert_true(destination.latency.total_ns >= destination.latency.max_ns);
    assert_true(destination.blocktime_ns <= destination.vcpu_blocktime_ns[0]);
    toy_move_end(&move);
}

static void
postcopy_with_blocktime_accounts_remote_faults(void **state)
{
    (void)state;
    blocktime_counts_the_vcpus_remote_faults(&memfd, "postcopy-ram postcopy-blocktime");
    blocktime_counts_the_vcpus_remote_faults(&memfd,
                                             "postcopy-ram postcopy-blocktime postcopy-preempt");
    blocktime_counts_the_vcpus_remote_faults(&anonymous, "postcopy-ram postcopy-blocktime");
}

static void
postcopy_without_blocktime_accounts_nothing(void **state)
{
    const Postcopy how = {"postcopy-ram", TOY_UNIX, false, 8 << 20};
    ToyMove move;
    (void)state;

    postcopy_start(&move, &memfd, &how);
    toy_move_expect_moved(&move);
    FaultlineInfo info = info_of(move.to);
    assert_int_equal(info.latency.count + info.non_vcpu_faults + info.blocktime_ns, 0);
    toy_move_end(&move);
}

static void
postcopy_with_release_ram_frees_the_source(void **state)
{
    const Postcopy how = {"postcopy-ram release-ram", TOY_UNIX, false, 8 << 20};
    ToyMove move;
    (void)state;

    postcopy_start(&move, &memfd, &how);
    toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
    /* What went before the device state was known to be loaded is kept; that is a few frames. */
    uint64_t released = toy_allocated_bytes(move.from);
    assert_true(released <= memfd.pages * FAULTLINE_PAGE_BYTES / 2);
    toy_move_expect_moved(&move);
    toy_move_end(&move);

    const Postcopy keeps = {"postcopy-ram", TOY_UNIX, false, 0};
    postcopy_start(&move, &memfd, &keeps);
    toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
    assert_true(toy_allocated_bytes(move.from) > released);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

/* ---- Again, and events -------------------------------------------------------------------------
 */

/* The machine that gave its guest up begins anew, as the next destination. */
static void
turn_around(ToyMove *move, ToyLinkKind link)
{
    Toy *before = move->from;
    toy_renew(before);
    move->from = move->to;
    move->to = before;
    toy_link_close(&move->link);
    toy_link_open(&move->link, link);
}

static void
guest_that_goes_there_and_back_is_right(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        const Postcopy how = {"postcopy-ram postcopy-preempt", TOY_UNIX, false, 0};
        ToyMove move;
        postcopy_start(&move, kinds[i], &how);
        toy_move_expect_moved(&move);
        for (unsigned trip = 0; trip < 3; trip++) {
            turn_around(&move, trip % 2 ? TOY_UNIX : TOY_TCP);
            assert_true(faultline_set_capability(move.to->faultline, "postcopy-ram", true, NULL));
            assert_true(
                faultline_set_capability(move.to->faultline, "postcopy-preempt", true, NULL));
            assert_true(faultline_cont(move.from->faultline, NULL));
            toy_move_start(&move);
            if (trip % 2)
                assert_true(faultline_start_postcopy(move.from->faultline, NULL));
            toy_move_expect_moved(&move);
        }
        toy_move_end(&move);
    }
}

static void
guest_on_its_way_at_once_after_its_arrival_is_right(void **state)
{
    const Postcopy how = {"postcopy-ram", TOY_UNIX, false, 0};
    ToyMove move;
    (void)state;

    postcopy_start(&move, &memfd, &how);
    for (unsigned trip = 0; trip < 6; trip++) {
        /* No stop in between: memory may still be given back to the kernel. */
        toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
        toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
        turn_around(&move, TOY_UNIX);
        assert_true(faultline_set_capability(move.to->faultline, "postcopy-ram", true, NULL));
        toy_move_start(&move);
        assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    }
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

/* Takes all events; returns the statuses' names and what else there was. */
static char *
tell_events(Toy *toy)
{
    GString *told = g_string_new("");
    FaultlineEvent event;
    uint64_t pass = 0;

    while (faultline_next_event(toy->faultline, &event)) {
        switch (event.kind) {
        case FAULTLINE_EVENT_STATUS:
            g_string_append_printf(told, "%s ", faultline_status_name(event.status));
            break;
        case FAULTLINE_EVENT_PASS:
            assert_int_equal(event.pass, ++pass);
            break;
        case FAULTLINE_EVENT_STOP:
            g_string_append(told, "STOP ");
            break;
        case FAULTLINE_EVENT_RESUME:
            g_string_append(told, "RESUME ");
            break;
        case FAULTLINE_EVENT_VERDICT:
            g_string_append_printf(told, "%s ", faultline_verdict_name(event.verdict));
            break;
        case FAULTLINE_EVENT_REFUSED:
            g_string_append(told, "REFUSED ");
            break;
        case FAULTLINE_EVENT_HEARD: /* as soon as that may be */
            break;
        }
    }
    return g_string_free(told, FALSE);
}

static void
events_tell_the_whole_story_in_order(void **state)
{
    const Postcopy how = {"postcopy-ram", TOY_UNIX, false, 0};
    ToyMove move;
    (void)state;

    postcopy_start(&move, &memfd, &how);
    toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    g_autofree char *source = tell_events(move.from);
    g_autofree char *destination = tell_events(move.to);
    assert_string_equal(
        source, "RESUME setup active STOP device postcopy-device postcopy-active completed ");
    assert_string_equal(destination,
                        "setup active postcopy-device postcopy-active RESUME completed ");
    toy_move_expect_moved(&move);
    toy_move_end(&move);

    toy_move_begin(&move, &memfd, TOY_UNIX);
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_COMPLETED);
    toy_expect_end(move.to, FAULTLINE_STATUS_COMPLETED);
    g_autofree char *precopied = tell_events(move.from);
    g_autofree char *received = tell_events(move.to);
    assert_string_equal(precopied, "RESUME setup active STOP device completed ");
    assert_string_equal(received, "setup active RESUME completed ");
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(postcopy_at_once_completes),
        cmocka_unit_test(postcopy_later_completes),
        cmocka_unit_test(postcopy_of_a_guest_that_strides_brings_neighbours),
        cmocka_unit_test(postcopy_allowed_but_not_wished_for_ends_as_precopy),
        cmocka_unit_test(postcopy_of_a_paused_guest_arrives_paused),
        cmocka_unit_test(postcopy_with_blocktime_accounts_remote_faults),
        cmocka_unit_test(postcopy_without_blocktime_accounts_nothing),
        cmocka_unit_test(postcopy_with_release_ram_frees_the_source),
        cmocka_unit_test(guest_that_goes_there_and_back_is_right),
        cmocka_unit_test(guest_on_its_way_at_once_after_its_arrival_is_right),
        cmocka_unit_test(events_tell_the_whole_story_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
