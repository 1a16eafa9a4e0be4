/* SPDX-License-Identifier: MIT */
/*
 * The monitor's commands: replies, events, the check of arguments, all-or-nothing settings, and
 * HMP lines.
 */
#include "tests/unit/monitor_client.h"

/* ---- Commands ---------------------------------------------------------------------------------
 */

static void
query_commands_names_every_command(void **state)
{
    static const char *const names[] = {
        "qmp_capabilities",
        "query-commands",
        "query-version",
        "query-name",
        "query-status",
        "query-migrate",
        "migrate",
        "migrate-incoming",
        "migrate-start-postcopy",
        "migrate_cancel",
        "migrate-set-capabilities",
        "query-migrate-capabilities",
        "migrate-set-parameters",
        "query-migrate-parameters",
        "stop",
        "cont",
        "quit",
        "human-monitor-command",
    };
    negotiate(*state);
    g_autofree char *list = ask_text(*state, "{\"execute\":\"query-commands\"}");
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *entry = g_strdup_printf("{\"name\":\"%s\"}", names[i]);
        if (strstr(list, entry) == NULL)
            fail_msg("%s is missing in %s", entry, list);
    }
}

static void
query_version_has_three_numbers_and_a_package(void **state)
{
    negotiate(*state);
    g_autoptr(JsonNode) node = ask(*state, "{\"execute\":\"query-version\"}");
    JsonObject *version = json_node_get_object(node);
    JsonObject *triple = json_object_get_object_member(version, "qemu");
    assert_true(json_object_has_member(triple, "major") &&
                json_object_has_member(triple, "minor") && json_object_has_member(triple, "micro"));
    assert_string_equal(json_object_get_string_member(version, "package"), "faultline");
}

static void
query_migrate_is_empty_before_any_migration(void **state)
{
    negotiate(*state);
    g_autofree char *reply = ask_text(*state, "{\"execute\":\"query-migrate\"}");
    assert_string_equal(reply, "{}");
}

static void
stop_and_cont_move_the_status_and_send_events_first(void **state)
{
    negotiate(*state);
    g_autofree char *before = ask_text(*state, "{\"execute\":\"query-status\"}");
    assert_string_equal(before, "{\"status\":\"prelaunch\",\"running\":false}");
    assert_true(feed(*state, "{\"execute\":\"cont\"}"));
    g_autofree char *event = next_text(*state);
    assert_non_null(strstr(event, "\"event\":\"RESUME\""));
    assert_non_null(strstr(event, "{\"timestamp\":{\"seconds\":"));
    assert_non_null(strstr(event, ",\"microseconds\":"));
    expect_line(*state, "{\"return\":{}}");
    g_autofree char *running = ask_text(*state, "{\"execute\":\"query-status\"}");
    assert_string_equal(running, "{\"status\":\"running\",\"running\":true}");
    assert_true(feed(*state, "{\"execute\":\"stop\"}"));
    g_autofree char *stopped = next_text(*state);
    assert_non_null(strstr(stopped, "\"event\":\"STOP\""));
    expect_line(*state, "{\"return\":{}}");
    g_autofree char *paused = ask_text(*state, "{\"execute\":\"query-status\"}");
    assert_string_equal(paused, "{\"status\":\"paused\",\"running\":false}");
}

static void
guest_that_ended_by_itself_is_not_running(void **state)
{
    static const char *const ends[] = {"shutdown", "internal-error"};
    Client *client = *state;
    negotiate(client);
    assert_true(faultline_cont(client->faultline, NULL));
    faultline_monitor_pump(client->monitor);
    g_string_truncate(client->output, 0);
    for (size_t i = 0; i < G_N_ELEMENTS(ends); i++) {
        client->ended = ends[i];
        faultline_monitor_pump(client->monitor); /* SHUTDOWN, STOP */
        g_string_truncate(client->output, 0);
        g_autofree char *wanted = g_strdup_printf("{\"status\":\"%s\",\"running\":false}", ends[i]);
        g_autofree char *status = ask_text(client, "{\"execute\":\"query-status\"}");
        assert_string_equal(status, wanted);
        feed(client, "{\"execute\":\"cont\"}");
        expect_error(client, "GenericError", ends[i]);
        g_autofree char *typed = faultline_monitor_hmp(client->monitor, "info status");
        assert_non_null(strstr(typed, ends[i]));
    }
}

static void
quit_replies_and_tells_the_host_once(void **state)
{
    Client *client = *state;
    negotiate(client);
    g_autofree char *reply = ask_text(client, "{\"execute\":\"quit\"}");
    assert_string_equal(reply, "{}");
    assert_int_equal(client->count_quits, 1);
}

static void
cancel_succeeds_when_nothing_runs(void **state)
{
    negotiate(*state);
    g_autofree char *reply = ask_text(*state, "{\"execute\":\"migrate_cancel\"}");
    assert_string_equal(reply, "{}");
}

static void
start_postcopy_without_a_migration_is_refused(void **state)
{
    negotiate(*state);
    feed(*state, "{\"execute\":\"migrate-start-postcopy\"}");
    expect_error(*state, "GenericError", "");
}

/* A migration to nowhere; the events it leaves behind. */
static char *
migrate_to_nowhere(Client *client)
{
    negotiate(client);
    feed(client, "{\"execute\":\"cont\"}");
    feed(client, "{\"execute\":\"migrate\",\"arguments\":{\"detach\":true,"
                 "\"uri\":\"unix:/nonexistent/socket\"},\"id\":7}");
    assert_int_equal(faultline_wait(client->faultline, 10000), FAULTLINE_STATUS_FAILED);
    faultline_monitor_pump(client->monitor);
    assert_non_null(strstr(client->output->str, "{\"return\":{},\"id\":7}"));
    char *lines = g_strdup(client->output->str);
    g_string_truncate(client->output, 0);
    return lines;
}

static void
migrate_without_a_peer_fails_with_a_reason(void **state)
{
    Client *client = *state;
    g_autofree char *lines = migrate_to_nowhere(client);
    assert_null(strstr(lines, "MIGRATION"));
    g_autoptr(JsonNode) node = ask(client, "{\"execute\":\"query-migrate\"}");
    JsonObject *reply = json_node_get_object(node);
    assert_string_equal(json_object_get_string_member(reply, "status"), "failed");
    assert_true(strlen(json_object_get_string_member(reply, "error-desc")) > 0);
    assert_false(json_object_has_member(reply, "ram"));
    JsonObject *ours = json_object_get_object_member(reply, "faultline");
    assert_int_equal(json_object_get_int_member(ours, "faults"), 0);
    assert_int_equal(json_array_get_length(json_object_get_array_member(ours, "fault-histogram")),
                     24);
    assert_string_equal(json_object_get_string_member(ours, "run-state"), "running");
}

static void
migrate_with_capability_events_sends_each_status(void **state)
{
    Client *client = *state;
    assert_true(faultline_set_capability(client->faultline, "events", true, NULL));
    g_autofree char *lines = migrate_to_nowhere(client);
    assert_non_null(strstr(lines, "\"event\":\"MIGRATION\",\"data\":{\"status\":\"setup\"}"));
    assert_non_null(strstr(lines, "\"event\":\"MIGRATION\",\"data\":{\"status\":\"failed\"}"));
}

static void
events_are_not_sent_before_negotiation(void **state)
{
    Client *client = *state;
    g_string_truncate(client->output, 0);
    assert_true(faultline_cont(client->faultline, NULL));
    faultline_monitor_pump(client->monitor);
    expect_silence(client);
}

static void
incoming_by_channels_shows_the_address_it_listens_at(void **state)
{
    Client *client = *state;
    negotiate(client);
    feed(client, "{\"execute\":\"migrate-incoming\",\"arguments\":{\"exit-on-error\":false,"
                 "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\","
                 "\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"0\"}}]}}");
    expect_line(client, "{\"return\":{}}");
    assert_true(faultline_monitor_stays_on_error(client->monitor));
    g_autoptr(JsonNode) node = ask(client, "{\"execute\":\"query-migrate\"}");
    JsonObject *reply = json_node_get_object(node);
    assert_string_equal(json_object_get_string_member(reply, "status"), "setup");
    JsonArray *list = json_object_get_array_member(reply, "socket-address");
    JsonObject *address = json_array_get_object_element(list, 0);
    assert_string_equal(json_object_get_string_member(address, "type"), "inet");
    assert_string_equal(json_object_get_string_member(address, "host"), "127.0.0.1");
    assert_true(atoi(json_object_get_string_member(address, "port")) > 0);
    g_autofree char *status = ask_text(client, "{\"execute\":\"query-status\"}");
    assert_string_equal(status, "{\"status\":\"inmigrate\",\"running\":false}");
}

/* ---- Arguments --------------------------------------------------------------------------------
 */

static void
arguments_that_do_not_fit_are_refused_by_name(void **state)
{
#define MIGRATE(arguments) "{\"execute\":\"migrate\",\"arguments\":{" arguments "}}"
#define CHANNEL(entry)     MIGRATE("\"channels\":[" entry "]")
#define ADDRESS(members)   CHANNEL("{\"channel-type\":\"main\",\"addr\":{" members "}}")
#define CAPABILITIES(arguments)                                                                    \
    "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{" arguments "}}"
#define PARAMETERS(arguments)                                                                      \
    "{\"execute\":\"migrate-set-parameters\",\"arguments\":{" arguments "}}"
    static const struct {
        const char *input, *part;
    } cases[] = {
        {"{\"execute\":\"query-status\",\"arguments\":{\"a\":1}}", "'a' is unexpected"},
        {MIGRATE(""), "'uri' and 'channels'"},
        {MIGRATE("\"uri\":1"), "'uri', expected: string"},
        {MIGRATE("\"uri\":\"x\",\"detach\":1"), "'detach', expected: boolean"},
        {MIGRATE("\"uri\":\"x\",\"channels\":[]"), "'uri' and 'channels'"},
        {MIGRATE("\"uri\":\"x\",\"resume\":true"), "resume"},
        {MIGRATE("\"uri\":\"carrier-pigeon:1\""), ""},
        {MIGRATE("\"channels\":{}"), "'channels', expected: array"},
        {MIGRATE("\"channels\":[]"), "one entry"},
        {CHANNEL("1"), "'channels[0]', expected: object"},
        {CHANNEL("{}"), "'channels[0].channel-type' is missing"},
        {CHANNEL("{\"channel-type\":\"cpr\",\"addr\":{}}"), "must be 'main'"},
        {ADDRESS(""), "addr.transport"},
        {ADDRESS("\"transport\":\"rdma\""), "addr.transport"},
        {ADDRESS("\"transport\":\"socket\",\"type\":\"vsock\""), "addr.type"},
        {ADDRESS("\"transport\":\"socket\",\"type\":\"unix\""), "addr.path' is missing"},
        {ADDRESS("\"transport\":\"socket\",\"type\":\"inet\",\"host\":\"a\",\"port\":1"),
         "addr.port', expected: string"},
        {"{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"unix:/x\","
         "\"exit-on-error\":1}}",
         "'exit-on-error', expected: boolean"},
        {CAPABILITIES(""), "'capabilities' is missing"},
        {CAPABILITIES("\"capabilities\":[1]"), "'capabilities[0]', expected: object"},
        {CAPABILITIES("\"capabilities\":[{\"capability\":\"events\"}]"), "state' is missing"},
        {CAPABILITIES("\"capabilities\":[{\"capability\":\"events\",\"state\":\"on\"}]"),
         "capabilities[0].state', expected: boolean"},
        {CAPABILITIES("\"capabilities\":[{\"capability\":\"flying\",\"state\":true}]"),
         "does not accept value 'flying'"},
        {PARAMETERS("\"speed\":1"), "'speed' is unexpected"},
        {PARAMETERS("\"downtime-limit\":\"300\""), "'downtime-limit', expected: integer"},
        {PARAMETERS("\"downtime-limit\":1.5"), "'downtime-limit', expected: integer"},
        {PARAMETERS("\"downtime-limit\":true"), "'downtime-limit', expected: integer"},
        {PARAMETERS("\"downtime-limit\":null"), "'downtime-limit', expected: integer"},
        {PARAMETERS("\"downtime-limit\":-1"), "not negative"},
        {PARAMETERS("\"downtime-limit\":2000001"), "from 0 to 2000000 ms"},
        {PARAMETERS("\"downtime-limit\":18446744073709551616"), "digits"},
        {"{\"execute\":\"human-monitor-command\"}", "'command-line' is missing"},
    };
    Client *client = *state;
    negotiate(client);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        assert_true(feed(client, cases[i].input));
        expect_error(client, "GenericError", cases[i].part);
        expect_silence(client);
    }
    g_autofree char *reply = ask_text(client, "{\"execute\":\"query-migrate\"}");
    assert_string_equal(reply, "{}");
}

static void
set_parameters_sets_all_or_nothing(void **state)
{
    Client *client = *state;
    negotiate(client);
    feed(client, PARAMETERS("\"downtime-limit\":42,\"max-bandwidth\":-5"));
    expect_error(client, "GenericError", "max-bandwidth");
    assert_int_equal(faultline_get_parameter(client->faultline, "downtime-limit"), 300);
    feed(client, PARAMETERS("\"downtime-limit\":42,\"max-bandwidth\":1048576"));
    expect_line(client, "{\"return\":{}}");
    g_autoptr(JsonNode) node = ask(client, "{\"execute\":\"query-migrate-parameters\"}");
    JsonObject *reply = json_node_get_object(node);
    assert_int_equal(json_object_get_int_member(reply, "downtime-limit"), 42);
    assert_int_equal(json_object_get_int_member(reply, "max-bandwidth"), 1048576);
}

static void
set_capabilities_takes_a_list_in_any_order(void **state)
{
    Client *client = *state;
    negotiate(client);
    feed(client,
         CAPABILITIES("\"capabilities\":[{\"capability\":\"postcopy-preempt\",\"state\":true},"
                      "{\"capability\":\"postcopy-ram\",\"state\":true}]"));
    expect_line(client, "{\"return\":{}}");
    g_autofree char *list = ask_text(client, "{\"execute\":\"query-migrate-capabilities\"}");
    assert_non_null(strstr(list, "{\"capability\":\"postcopy-ram\",\"state\":true}"));
    assert_non_null(strstr(list, "{\"capability\":\"postcopy-preempt\",\"state\":true}"));
    assert_non_null(strstr(list, "{\"capability\":\"events\",\"state\":false}"));
}

static void
set_capabilities_sets_all_or_nothing(void **state)
{
    Client *client = *state;
    negotiate(client);
    feed(client, CAPABILITIES("\"capabilities\":[{\"capability\":\"events\",\"state\":true},"
                              "{\"capability\":\"postcopy-preempt\",\"state\":true}]"));
    expect_error(client, "GenericError", "postcopy-ram");
    assert_false(faultline_get_capability(client->faultline, "events"));
}

/* ---- HMP --------------------------------------------------------------------------------------
 */

static void
hmp_lines_answer_as_typed_in_qemu(void **state)
{
    static const struct {
        const char *line, *part; /* "" expects no output at all */
    } cases[] = {
        {"", ""},
        {"   ", ""},
        {"migrate_set_capability postcopy-ram on", ""},
        {"info migrate_capabilities", "postcopy-ram: on\n"},
        {"migrate_set_capability postcopy-ram maybe", "Error: "},
        {"migrate_set_capability flying on", "Error: "},
        {"migrate_set_capability", "Error: "},
        {"migrate_set_parameter max-bandwidth 2G", ""},
        {"info migrate_parameters", "max-bandwidth: 2147483648 bytes/s\n"},
        {"migrate_set_parameter max-bandwidth 1.5k", ""},
        {"info migrate_parameters", "max-bandwidth: 1536 bytes/s\n"},
        {"migrate_set_parameter max-bandwidth 3", ""},
        {"info migrate_parameters", "max-bandwidth: 3145728 bytes/s\n"},
        {"migrate_set_parameter max-postcopy-bandwidth 3", ""},
        {"info migrate_parameters", "max-postcopy-bandwidth: 3 bytes/s\n"},
        {"migrate_set_parameter max-bandwidth 99999999999999999999", "Error: "},
        {"migrate_set_parameter max-bandwidth 9999999999G", "Error: "},
        {"migrate_set_parameter max-bandwidth -1", "Error: "},
        {"migrate_set_parameter max-bandwidth 1X", "Error: "},
        {"migrate_set_parameter downtime-limit 300", ""},
        {"migrate_set_parameter downtime-limit 1K", "Error: "},
        {"migrate_set_parameter downtime-limit 3000000", "Error: "},
        {"migrate_set_parameter speed 1", "Error: "},
        {"migrate", "Error: "},
        {"migrate -d", "Error: "},
        {"migrate -d carrier-pigeon:1", "Error: "},
        {"migrate_incoming", "Error: "},
        {"migrate_start_postcopy", "Error: "},
        {"migrate_cancel", ""},
        {"migrate_cancel now", "Error: "},
        {"info migrate", "Migration status: none\n"},
        {"info status", "VM status: paused (prelaunch)\n"},
        {"cont", ""},
        {"info status", "VM status: running\n"},
        {"s", ""},
        {"info status", "VM status: paused\n"},
        {"info", "Error: unknown command: 'info'"},
        {"frobnicate", "Error: unknown command: 'frobnicate'"},
        {"migrate 'open", "Error: "},
        {"help", "migrate_set_capability CAPABILITY on|off -- "},
        {"help migrate", "migrate [-d] [-r] URI -- "},
        {"help info", "info status -- "},
        {"help nothing", "Error: "},
    };
    Client *client = *state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *output = faultline_monitor_hmp(client->monitor, cases[i].line);
        bool is_right =
            cases[i].part[0] == '\0' ? output[0] == '\0' : strstr(output, cases[i].part) != NULL;
        if (!is_right)
            fail_msg("'%s' -> '%s', expected '%s'", cases[i].line, output, cases[i].part);
    }
}

static void
hmp_quit_tells_the_host(void **state)
{
    Client *client = *state;
    g_autofree char *output = faultline_monitor_hmp(client->monitor, "quit");
    assert_string_equal(output, "");
    assert_int_equal(client->count_quits, 1);
}

static void
hmp_info_migrate_after_a_failure_says_why(void **state)
{
    Client *client = *state;
    faultline_cont(client->faultline, NULL);
    g_autofree char *said = faultline_monitor_hmp(client->monitor, "migrate unix:/nonexistent/s");
    assert_non_null(strstr(said, "background"));
    faultline_wait(client->faultline, 10000);
    g_autofree char *output = faultline_monitor_hmp(client->monitor, "info migrate");
    assert_non_null(strstr(output, "Migration status: failed (source)\n"));
    assert_non_null(strstr(output, "error: "));
    assert_non_null(strstr(output, "guest: running\n"));
}

static void
human_monitor_command_returns_the_text(void **state)
{
    negotiate(*state);
    g_autofree char *text = ask_text(*state, "{\"execute\":\"human-monitor-command\",\"arguments\":"
                                             "{\"command-line\":\"info status\"}}");
    assert_string_equal(text, "\"VM status: paused (prelaunch)\\n\"");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(query_commands_names_every_command),
        CASE(query_version_has_three_numbers_and_a_package),
        CASE(query_migrate_is_empty_before_any_migration),
        CASE(stop_and_cont_move_the_status_and_send_events_first),
        CASE(guest_that_ended_by_itself_is_not_running),
        CASE(quit_replies_and_tells_the_host_once),
        CASE(cancel_succeeds_when_nothing_runs),
        CASE(start_postcopy_without_a_migration_is_refused),
        CASE(migrate_without_a_peer_fails_with_a_reason),
        CASE(migrate_with_capability_events_sends_each_status),
        CASE(events_are_not_sent_before_negotiation),
        CASE(incoming_by_channels_shows_the_address_it_listens_at),
        CASE(arguments_that_do_not_fit_are_refused_by_name),
        CASE(set_parameters_sets_all_or_nothing),
        CASE(set_capabilities_takes_a_list_in_any_order),
        CASE(set_capabilities_sets_all_or_nothing),
        CASE(hmp_lines_answer_as_typed_in_qemu),
        CASE(hmp_quit_tells_the_host),
        CASE(hmp_info_migrate_after_a_failure_says_why),
        CASE(human_monitor_command_returns_the_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
