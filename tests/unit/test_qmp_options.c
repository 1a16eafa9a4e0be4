/* SPDX-License-Identifier: MIT */
/*
 * Capabilities and parameters as QEMU's clients know them: side, whether both must agree, default,
 * range, unit. One that this program does not have is refused by its name.
 */
#include "engine/monitor/monitor.h"
#include "tests/unit/monitor_client.h"

#define RUN(name, arguments) "{\"execute\":\"" name "\",\"arguments\":{" arguments "}}"
#define SWITCH_ON                                                                                  \
    RUN("migrate-set-capabilities", "\"capabilities\":[{\"capability\":\"%s\",\"state\":true}]")

/* ---- Capabilities and parameters ---------------------------------------------------------------
 */

#define SOURCE      FAULTLINE_SIDE_SOURCE
#define DESTINATION FAULTLINE_SIDE_DESTINATION
#define EACH        FAULTLINE_SIDE_EACH

/* What this program does not do must be refused, not taken and ignored. */
static const struct {
    const char *name;
    FaultlineSide side;
    bool is_equal;
} capabilities[] = {
    {"xbzrle", SOURCE, false},
    {"rdma-pin-all", EACH, true},
    {"auto-converge", SOURCE, false},
    {"events", EACH, false},
    {"postcopy-ram", EACH, true},
    {"x-colo", EACH, true},
    {"release-ram", SOURCE, false},
    {"return-path", SOURCE, false},
    {"pause-before-switchover", SOURCE, false},
    {"multifd", EACH, true},
    {"dirty-bitmaps", EACH, true},
    {"postcopy-blocktime", DESTINATION, false},
    {"late-block-activate", DESTINATION, false},
    {"x-ignore-shared", EACH, true},
    {"validate-uuid", SOURCE, false},
    {"background-snapshot", SOURCE, false},
    {"zero-copy-send", SOURCE, false},
    {"postcopy-preempt", EACH, true},
    {"switchover-ack", EACH, true},
    {"dirty-limit", SOURCE, false},
    {"mapped-ram", EACH, true},
};

static const FaultlineCapabilityRow *
find_capability(const char *name)
{
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++)
        if (g_str_equal(row->name, name))
            return row;
    return NULL;
}

static void
each_capability_is_as_in_qemu_or_refused(void **state)
{
    Client *client = *state;
    negotiate(client);
    unsigned count_known = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        const FaultlineCapabilityRow *row = find_capability(capabilities[i].name);
        if (row == NULL) {
            g_autofree char *line = g_strdup_printf(SWITCH_ON, capabilities[i].name);
            assert_true(feed(client, line));
            expect_error(client, "GenericError", capabilities[i].name);
            continue;
        }
        count_known++;
        assert_int_equal(row->side, capabilities[i].side);
        assert_int_equal(row->both_sides, capabilities[i].is_equal);
        /* A lost guest is worse than one more message: the return path is on unless refused. */
        assert_int_equal(row->preset, g_str_equal(row->name, "return-path"));
        assert_true(strlen(row->help) > 0);
    }
    assert_true(count_known >= 8);
}

static const struct {
    const char *name;
    uint64_t preset, least, greatest;
    const char *unit;
    FaultlineSide side;
    bool is_equal, is_boolean;
} parameters[] = {
    {"throttle-trigger-threshold", 50, 1, 100, "%", SOURCE, false, false},
    {"cpu-throttle-initial", 20, 1, 99, "%", SOURCE, false, false},
    {"cpu-throttle-increment", 10, 1, 99, "%", SOURCE, false, false},
    {"cpu-throttle-tailslow", 0, 0, 1, "", SOURCE, false, true},
    {"max-cpu-throttle", 99, 1, 99, "%", SOURCE, false, false}, /* and cpu-throttle-initial */
    {"max-bandwidth", 134217728, 0, INT64_MAX, "bytes/s", SOURCE, false, false},
    {"avail-switchover-bandwidth", 0, 0, INT64_MAX, "bytes/s", SOURCE, false, false},
    {"downtime-limit", 300, 0, 2000000, "ms", SOURCE, false, false},
    {"multifd-channels", 2, 1, 255, "", EACH, true, false},
    {"xbzrle-cache-size", 67108864, 4096, INT64_MAX, "bytes", SOURCE, false, false},
    {"max-postcopy-bandwidth", 0, 0, INT64_MAX, "bytes/s", SOURCE, false, false},
    {"announce-initial", 50, 0, 100000, "ms", DESTINATION, false, false},
    {"x-checkpoint-delay", 20000, 0, UINT32_MAX, "ms", SOURCE, false, false},
};

static void
set_parameter(Client *client, const char *name, const char *value)
{
    g_autofree char *line =
        g_strdup_printf(RUN("migrate-set-parameters", "\"%s\":%s"), name, value);
    assert_true(feed(client, line));
}

static void
expect_range(Client *client, const FaultlineParameterRow *row)
{
    if (g_str_equal(row->name, "max-cpu-throttle")) {
        set_parameter(client, "cpu-throttle-initial", "1");
        expect_line(client, "{\"return\":{}}");
    }
    const uint64_t good[] = {row->least, MIN(row->greatest, (uint64_t)1000000000)};
    for (unsigned i = 0; i < 2; i++) {
        g_autofree char *value = g_strdup_printf("%" G_GUINT64_FORMAT, good[i]);
        set_parameter(client, row->name, value);
        expect_line(client, "{\"return\":{}}");
    }
    set_parameter(client, row->name, "-1");
    expect_error(client, "GenericError", row->name);
    if (row->greatest < 1000000000) {
        g_autofree char *value = g_strdup_printf("%" G_GUINT64_FORMAT, row->greatest + 1);
        set_parameter(client, row->name, value);
        expect_error(client, "GenericError", row->unit);
    }
}

static void
each_parameter_is_as_in_qemu_or_refused(void **state)
{
    Client *client = *state;
    negotiate(client);
    unsigned count_known = 0;
    for (size_t i = 0; i < G_N_ELEMENTS(parameters); i++) {
        const FaultlineParameterRow *row = arguments_find_parameter(parameters[i].name);
        if (row == NULL) {
            set_parameter(client, parameters[i].name, "1");
            expect_error(client, "GenericError", parameters[i].name);
            continue;
        }
        count_known++;
        assert_int_equal(row->preset, parameters[i].preset);
        assert_int_equal(row->least, parameters[i].least);
        assert_int_equal(row->greatest, parameters[i].greatest);
        assert_string_equal(row->unit, parameters[i].unit);
        assert_int_equal(row->side, parameters[i].side);
        assert_int_equal(row->both_sides, parameters[i].is_equal);
        assert_int_equal(row->type == FAULTLINE_TYPE_BOOLEAN, parameters[i].is_boolean);
        assert_true(strlen(row->help) > 0);
        if (!parameters[i].is_boolean)
            expect_range(client, row);
    }
    assert_true(count_known >= 8);
}

static void
expect_throttle(Client *client, const char *arguments, unsigned initial, unsigned greatest)
{
    g_autofree char *line = g_strdup_printf(RUN("migrate-set-parameters", "%s"), arguments);
    assert_true(feed(client, line));
    expect_line(client, "{\"return\":{}}");
    assert_int_equal(faultline_get_parameter(client->faultline, "cpu-throttle-initial"), initial);
    assert_int_equal(faultline_get_parameter(client->faultline, "max-cpu-throttle"), greatest);
}

/* One of the two may have to wait for the other, whichever the command names first. */
static void
parameters_that_depend_on_each_other_are_set_in_one_command(void **state)
{
    Client *client = *state;
    negotiate(client);
    expect_throttle(client, "\"cpu-throttle-initial\":5,\"max-cpu-throttle\":10", 5, 10);
    expect_throttle(client, "\"cpu-throttle-initial\":80,\"max-cpu-throttle\":90", 80, 90);
    expect_throttle(client, "\"max-cpu-throttle\":10,\"cpu-throttle-initial\":5", 5, 10);
    expect_throttle(client, "\"max-cpu-throttle\":90,\"cpu-throttle-initial\":80", 80, 90);

    assert_true(feed(client, RUN("migrate-set-parameters",
                                 "\"downtime-limit\":77,\"cpu-throttle-initial\":60,"
                                 "\"max-cpu-throttle\":50")));
    expect_error(client, "GenericError", "max-cpu-throttle");
    assert_int_equal(faultline_get_parameter(client->faultline, "downtime-limit"), 300);
    assert_int_equal(faultline_get_parameter(client->faultline, "cpu-throttle-initial"), 80);
    assert_int_equal(faultline_get_parameter(client->faultline, "max-cpu-throttle"), 90);
}

static void
auto_converge_of_a_guest_without_throttle_is_refused(void **state)
{
    Client *client = *state;
    negotiate(client);
    g_autofree char *line = g_strdup_printf(SWITCH_ON, "auto-converge");
    assert_true(feed(client, line));
    expect_error(client, "GenericError", "'auto-converge' slows vCPUs down");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_capability_is_as_in_qemu_or_refused),
        CASE(each_parameter_is_as_in_qemu_or_refused),
        CASE(parameters_that_depend_on_each_other_are_set_in_one_command),
        CASE(auto_converge_of_a_guest_without_throttle_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
