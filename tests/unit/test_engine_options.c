/* SPDX-License-Identifier: MIT */
/*
 * Capabilities, parameters and events of a Faultline that does not migrate, and of one that waits
 * for a guest: what is refused, with which code and text, and that its positive twin is taken.
 */
#include "engine/context.h"
#include "tests/unit/support/toy.h"

#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static Toy *
quiet_toy(void)
{
    static const ToyKind kind = {.name = "quiet", .pages = 64, .count_vcpus = 1};
    return toy_new(&kind);
}

static void
expect(const GError *error, int code, const char *says)
{
    assert_non_null(error);
    assert_true(g_error_matches(error, FAULTLINE_ERROR, code));
    if (!strstr(error->message, says))
        fail_msg("'%s' is not in '%s'", says, error->message);
}

/* ---- Capabilities -----------------------------------------------------------------------------
 */

static void
capability_table_gives_names_and_presets(void **state)
{
    Toy *toy = quiet_toy();
    unsigned count = 0;
    (void)state;

    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++) {
        assert_int_equal(faultline_get_capability(toy->faultline, row->name), row->preset);
        assert_true(strlen(row->help) > 10);
        count++;
    }
    assert_int_equal(count, CAPABILITY_COUNT);
    assert_true(faultline_get_capability(toy->faultline, "return-path"));
    assert_false(faultline_get_capability(toy->faultline, "postcopy-ram"));
    toy_free(toy);
}

static void
capability_unknown_is_refused(void **state)
{
    static const char *const names[] = {"", "postcopy", "postcopy-ram ", "Postcopy-Ram", "xbzrle"};
    Toy *toy = quiet_toy();
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError) error = NULL;
        assert_false(faultline_set_capability(toy->faultline, names[i], true, &error));
        expect(error, FAULTLINE_ERROR_ARGUMENT, "there is none named");
        assert_false(faultline_get_capability(toy->faultline, names[i]));
    }
    toy_free(toy);
}

static void
capability_each_can_be_set_and_cleared(void **state)
{
    Toy *toy = quiet_toy();
    (void)state;

    assert_true(faultline_set_capability(toy->faultline, "postcopy-ram", true, NULL));
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++) {
        assert_true(faultline_set_capability(toy->faultline, row->name, true, NULL));
        assert_true(faultline_get_capability(toy->faultline, row->name));
    }
    assert_true(faultline_set_capability(toy->faultline, "postcopy-preempt", false, NULL));
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++) {
        assert_true(faultline_set_capability(toy->faultline, row->name, false, NULL));
        assert_false(faultline_get_capability(toy->faultline, row->name));
    }
    toy_free(toy);
}

static void
capability_combination_that_cannot_work_names_both(void **state)
{
    Toy *toy = quiet_toy();
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_false(faultline_set_capability(toy->faultline, "postcopy-preempt", true, &error));
    expect(error, FAULTLINE_ERROR_ARGUMENT, "'postcopy-preempt' needs 'postcopy-ram'");
    assert_false(faultline_get_capability(toy->faultline, "postcopy-preempt"));
    g_clear_error(&error);

    assert_true(faultline_set_capability(toy->faultline, "postcopy-ram", true, NULL));
    assert_true(faultline_set_capability(toy->faultline, "postcopy-preempt", true, NULL));
    assert_false(faultline_set_capability(toy->faultline, "postcopy-ram", false, &error));
    expect(error, FAULTLINE_ERROR_ARGUMENT, "off last");
    assert_true(faultline_get_capability(toy->faultline, "postcopy-ram"));
    toy_free(toy);
}

/* ---- Parameters -------------------------------------------------------------------------------
 */

static void
parameter_at_each_end_of_its_range_is_taken_past_it_refused(void **state)
{
    Toy *toy = quiet_toy();
    unsigned count = 0;
    (void)state;

    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        g_autoptr(GError) error = NULL;
        count++;
        if (row->type == FAULTLINE_TYPE_TEXT)
            continue; /* test_engine_security.c */
        assert_int_equal(faultline_get_parameter(toy->faultline, row->name), row->preset);
        assert_true(row->preset >= row->least && row->preset <= row->greatest);
        if (strcmp(row->name, "max-cpu-throttle") == 0)
            faultline_set_parameter(toy->faultline, "cpu-throttle-initial", row->least, NULL);
        assert_true(faultline_set_parameter(toy->faultline, row->name, row->least, NULL));
        assert_int_equal(faultline_get_parameter(toy->faultline, row->name), row->least);
        assert_true(faultline_set_parameter(toy->faultline, row->name, row->greatest, NULL));
        assert_false(faultline_set_parameter(toy->faultline, row->name, row->greatest + 1, &error));
        expect(error, FAULTLINE_ERROR_ARGUMENT, "out of range");
        assert_non_null(strstr(error->message, row->name));
        assert_int_equal(faultline_get_parameter(toy->faultline, row->name), row->greatest);
        assert_true(faultline_set_parameter(toy->faultline, row->name, row->preset, NULL));
    }
    assert_int_equal(count, PARAMETER_COUNT);
    toy_free(toy);
}

static void
parameter_that_does_not_go_with_another_names_both(void **state)
{
    Toy *toy = quiet_toy();
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_false(faultline_set_parameter(toy->faultline, "max-cpu-throttle", 19, &error));
    expect(error, FAULTLINE_ERROR_ARGUMENT, "'max-cpu-throttle': 19 is below");
    expect(error, FAULTLINE_ERROR_ARGUMENT, "'cpu-throttle-initial', which is 20");
    g_clear_error(&error);
    assert_true(faultline_set_parameter(toy->faultline, "max-cpu-throttle", 20, NULL));
    assert_false(faultline_set_parameter(toy->faultline, "cpu-throttle-initial", 21, &error));
    expect(error, FAULTLINE_ERROR_ARGUMENT, "'cpu-throttle-initial': 21 is above");
    expect(error, FAULTLINE_ERROR_ARGUMENT, "'max-cpu-throttle', which is 20");
    assert_int_equal(faultline_get_parameter(toy->faultline, "cpu-throttle-initial"), 20);
    assert_int_equal(faultline_get_parameter(toy->faultline, "max-cpu-throttle"), 20);
    assert_true(faultline_set_parameter(toy->faultline, "cpu-throttle-initial", 1, NULL));
    assert_true(faultline_set_parameter(toy->faultline, "max-cpu-throttle", 1, NULL));
    toy_free(toy);
}

static void
parameter_unknown_is_refused(void **state)
{
    Toy *toy = quiet_toy();
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_false(faultline_set_parameter(toy->faultline, "max-bandwith", 1, &error));
    expect(error, FAULTLINE_ERROR_ARGUMENT, "there is none named 'max-bandwith'");
    assert_int_equal(faultline_get_parameter(toy->faultline, "max-bandwith"), 0);
    toy_free(toy);
}

/* ---- While a migration is under way -----------------------------------------------------------
 */

static void
options_while_busy_capabilities_are_refused_parameters_taken(void **state)
{
    Toy *toy = quiet_toy();
    ToyLink link;
    g_autoptr(GError) error = NULL;
    (void)state;

    toy_link_open(&link, TOY_UNIX);
    assert_true(faultline_incoming(toy->faultline, link.incoming, NULL));
    assert_false(faultline_set_capability(toy->faultline, "postcopy-ram", true, &error));
    expect(error, FAULTLINE_ERROR_STATE, "under way");
    g_clear_error(&error);
    assert_true(faultline_set_parameter(toy->faultline, "downtime-limit", 5, NULL));
    assert_false(faultline_incoming(toy->faultline, link.incoming, &error));
    expect(error, FAULTLINE_ERROR_STATE, "in progress");
    g_clear_error(&error);
    assert_false(faultline_migrate(toy->faultline, link.incoming, &error));
    expect(error, FAULTLINE_ERROR_STATE, "incoming migration");
    g_clear_error(&error);
    assert_false(faultline_cont(toy->faultline, &error));
    expect(error, FAULTLINE_ERROR_STATE, "not here yet");
    g_clear_error(&error);
    assert_false(faultline_stop(toy->faultline, &error));
    expect(error, FAULTLINE_ERROR_STATE, "wait for the outcome");
    g_clear_error(&error);
    assert_false(faultline_cancel(toy->faultline, &error));
    expect(error, FAULTLINE_ERROR_STATE, "this is the destination");
    toy_free(toy);
    toy_link_close(&link);
}

static void
commands_without_a_migration_say_what_is_missing(void **state)
{
    Toy *toy = quiet_toy();
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_false(faultline_start_postcopy(toy->faultline, &error));
    expect(error, FAULTLINE_ERROR_STATE, "enable postcopy-ram");
    g_clear_error(&error);
    assert_true(faultline_set_capability(toy->faultline, "postcopy-ram", true, NULL));
    assert_false(faultline_start_postcopy(toy->faultline, &error));
    expect(error, FAULTLINE_ERROR_STATE, "start a migration");
    g_clear_error(&error);
    assert_true(faultline_cancel(toy->faultline, &error)); /* nothing runs: fine */
    assert_int_equal(faultline_wait(toy->faultline, -1), FAULTLINE_STATUS_NONE);
    assert_null(faultline_incoming_address(toy->faultline));
    toy_free(toy);
}

static void
uri_that_nobody_understands_is_refused_at_once(void **state)
{
    static const char *const uris[] = {"",      "tcp:", "tcp:host", "exec:cat",
                                       "unix:", "fd:x", "fd:-1"};
    Toy *toy = quiet_toy();
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(uris); i++) {
        g_autoptr(GError) one = NULL;
        g_autoptr(GError) other = NULL;
        assert_false(faultline_migrate(toy->faultline, uris[i], &one));
        assert_true(g_error_matches(one, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        assert_false(faultline_incoming(toy->faultline, uris[i], &other));
        assert_true(g_error_matches(other, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        assert_int_equal(faultline_run_state(toy->faultline), FAULTLINE_RUN_PRELAUNCH);
        assert_int_equal(faultline_wait(toy->faultline, 0), FAULTLINE_STATUS_NONE);
    }
    toy_free(toy);
}

/* ---- Events -----------------------------------------------------------------------------------
 */

static bool
is_readable(const Faultline *faultline)
{
    struct pollfd poller = {.fd = faultline_event_fd(faultline), .events = POLLIN};
    return poll(&poller, 1, 0) == 1;
}

static void
events_come_in_order_and_make_the_descriptor_readable(void **state)
{
    Toy *toy = quiet_toy();
    FaultlineEvent event = {0};
    (void)state;

    assert_false(is_readable(toy->faultline));
    assert_false(faultline_next_event(toy->faultline, &event));
    assert_true(faultline_cont(toy->faultline, NULL));
    assert_true(faultline_cont(toy->faultline, NULL)); /* runs already: no event */
    assert_true(faultline_stop(toy->faultline, NULL));
    assert_true(faultline_stop(toy->faultline, NULL));
    assert_true(is_readable(toy->faultline));
    assert_true(faultline_next_event(toy->faultline, &event));
    assert_int_equal(event.kind, FAULTLINE_EVENT_RESUME);
    int64_t first_us = event.time_us;
    assert_true(g_get_real_time() - first_us < 60000000);
    assert_true(is_readable(toy->faultline));
    assert_true(faultline_next_event(toy->faultline, &event));
    assert_int_equal(event.kind, FAULTLINE_EVENT_STOP);
    assert_true(event.time_us >= first_us);
    assert_false(faultline_next_event(toy->faultline, &event));
    assert_false(is_readable(toy->faultline));
    toy_free(toy);
}

static void
events_past_1024_are_dropped_and_the_oldest_kept(void **state)
{
    Toy *toy = quiet_toy();
    FaultlineEvent event;
    (void)state;

    for (uint64_t pass = 1; pass <= 1500; pass++)
        context_event(toy->faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_PASS, .pass = pass});
    for (uint64_t pass = 1; pass <= 1024; pass++) {
        assert_true(faultline_next_event(toy->faultline, &event));
        assert_int_equal(event.kind, FAULTLINE_EVENT_PASS);
        assert_int_equal(event.pass, pass);
    }
    assert_false(faultline_next_event(toy->faultline, &event));
    context_event(toy->faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_PASS, .pass = 7});
    assert_true(is_readable(toy->faultline));
    assert_true(faultline_next_event(toy->faultline, &event));
    assert_int_equal(event.pass, 7);
    toy_free(toy);
}

static void
names_of_states_are_qemus(void **state)
{
    (void)state;
    assert_string_equal(faultline_status_name(FAULTLINE_STATUS_POSTCOPY_ACTIVE), "postcopy-active");
    assert_string_equal(faultline_status_name(FAULTLINE_STATUS_FAILED), "failed");
    assert_string_equal(faultline_status_name(FAULTLINE_STATUS_COUNT), "unknown");
    assert_string_equal(faultline_status_name((FaultlineStatus)-1), "unknown");
    assert_string_equal(faultline_run_state_name(FAULTLINE_RUN_POSTMIGRATE), "postmigrate");
    assert_string_equal(faultline_run_state_name(FAULTLINE_RUN_PRELAUNCH), "prelaunch");
    assert_string_equal(faultline_run_state_name(FAULTLINE_RUN_COUNT), "unknown");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capability_table_gives_names_and_presets),
        cmocka_unit_test(capability_unknown_is_refused),
        cmocka_unit_test(capability_each_can_be_set_and_cleared),
        cmocka_unit_test(capability_combination_that_cannot_work_names_both),
        cmocka_unit_test(parameter_at_each_end_of_its_range_is_taken_past_it_refused),
        cmocka_unit_test(parameter_that_does_not_go_with_another_names_both),
        cmocka_unit_test(parameter_unknown_is_refused),
        cmocka_unit_test(options_while_busy_capabilities_are_refused_parameters_taken),
        cmocka_unit_test(commands_without_a_migration_say_what_is_missing),
        cmocka_unit_test(uri_that_nobody_understands_is_refused_at_once),
        cmocka_unit_test(events_come_in_order_and_make_the_descriptor_readable),
        cmocka_unit_test(events_past_1024_are_dropped_and_the_oldest_kept),
        cmocka_unit_test(names_of_states_are_qemus),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
