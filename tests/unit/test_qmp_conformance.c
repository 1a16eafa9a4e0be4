/* SPDX-License-Identifier: MIT */
/*
 * QMP as QEMU's clients know it, walked table by table: commands and their arguments, errors with
 * their class and what they name, status values. Capabilities and parameters are walked in
 * test_qmp_options.c, fields and events of a migration in test_qmp_migration.c.
 */
#include "tests/unit/monitor_client.h"

/* ---- Commands ----------------------------------------------------------------------------------
 */

typedef struct Row {
    const char *name, *type; /* the type of a right value; NULL: end */
    bool optional;
} Row;

static const struct {
    const char *command;
    Row arguments[6];
} commands[] = {
    {"query-version", {{.name = NULL}}},
    {"query-commands", {{.name = NULL}}},
    {"query-name", {{.name = NULL}}},
    {"query-status", {{.name = NULL}}},
    {"query-memory-size-summary", {{.name = NULL}}},
    {"query-cpus-fast", {{.name = NULL}}},
    {"query-migrate", {{.name = NULL}}},
    {"x-query-memory-blocks", {{.name = NULL}}},
    {"x-query-memory-map", {{"cells", "integer", true}, {.name = NULL}}},
    {"x-query-missing-pages", {{.name = NULL}}},
    {"x-peer-lost", {{.name = NULL}}},
    {"x-take-back", {{"directory", "string", false}, {"ended", "boolean", true}, {.name = NULL}}},
    {"query-migrate-capabilities", {{.name = NULL}}},
    {"query-migrate-parameters", {{.name = NULL}}},
    {"query-fdsets", {{.name = NULL}}},
    {"stop", {{.name = NULL}}},
    {"cont", {{.name = NULL}}},
    {"quit", {{.name = NULL}}},
    {"migrate-start-postcopy", {{.name = NULL}}},
    {"migrate-pause", {{.name = NULL}}},
    {"migrate_cancel", {{.name = NULL}}},
    {"migrate",
     {{"uri", "string", true},
      {"channels", "array", true},
      {"resume", "boolean", true},
      {.name = NULL}}},
    {"migrate-incoming",
     {{"uri", "string", true},
      {"channels", "array", true},
      {"exit-on-error", "boolean", true},
      {.name = NULL}}},
    {"migrate-set-capabilities", {{"capabilities", "array", false}, {.name = NULL}}},
    {"migrate-recover", {{"uri", "string", false}, {.name = NULL}}},
    {"migrate-continue", {{"state", "string", false}, {.name = NULL}}},
    {"calc-dirty-rate",
     {{"calc-time", "integer", false},
      {"calc-time-unit", "string", true},
      {"sample-pages", "integer", true},
      {"mode", "string", true},
      {.name = NULL}}},
    {"query-dirty-rate", {{"calc-time-unit", "string", true}, {.name = NULL}}},
    {"pmemsave",
     {{"val", "integer", false},
      {"size", "integer", false},
      {"filename", "string", false},
      {.name = NULL}}},
    {"getfd", {{"fdname", "string", false}, {.name = NULL}}},
    {"closefd", {{"fdname", "string", false}, {.name = NULL}}},
    {"add-fd", {{"fdset-id", "integer", true}, {"opaque", "string", true}, {.name = NULL}}},
    {"remove-fd", {{"fdset-id", "integer", false}, {"fd", "integer", true}, {.name = NULL}}},
    {"human-monitor-command", {{"command-line", "string", false}, {.name = NULL}}},
};

static const char *
right_value(const char *type)
{
    static const char *const values[][2] = {
        {"string", "\"x\""}, {"boolean", "true"}, {"integer", "1"}, {"array", "[]"}};
    for (size_t i = 0; i < G_N_ELEMENTS(values); i++)
        if (g_str_equal(values[i][0], type))
            return values[i][1];
    fail_msg("no value of type %s", type);
    return NULL;
}

#define NONE UINT_MAX

/* Runs the command with all required arguments but that one, and with one as an object. */
static void
run_with(Client *client, const char *command, const Row *rows, unsigned without, unsigned wrong)
{
    GString *line = g_string_new("{\"execute\":\"");
    g_string_append_printf(line, "%s\",\"arguments\":{", command);
    const char *comma = "";
    for (unsigned i = 0; rows[i].name != NULL; i++) {
        if (i == without || (rows[i].optional && i != wrong))
            continue;
        g_string_append_printf(line, "%s\"%s\":%s", comma, rows[i].name,
                               i == wrong ? "{}" : right_value(rows[i].type));
        comma = ",";
    }
    g_string_append(line, "}}");
    assert_true(feed(client, line->str));
    g_string_free(line, TRUE);
}

static void
each_command_is_listed_and_refuses_what_it_does_not_take(void **state)
{
    Client *client = *state;
    negotiate(client);
    g_autofree char *list = ask_text(client, "{\"execute\":\"query-commands\"}");
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        g_autofree char *entry = g_strdup_printf("{\"name\":\"%s\"}", commands[i].command);
        if (strstr(list, entry) == NULL)
            fail_msg("%s is not listed", commands[i].command);
        g_autofree char *more = g_strdup_printf(
            "{\"execute\":\"%s\",\"arguments\":{\"no-such\":1},\"id\":[1,{\"a\":null}]}",
            commands[i].command);
        assert_true(feed(client, more));
        assert_non_null(strstr(client->output->str, "\"id\":[1,{\"a\":null}]"));
        expect_error(client, "GenericError", "'no-such' is unexpected");
    }
}

static void
each_argument_has_its_type_and_is_missed_where_required(void **state)
{
    Client *client = *state;
    negotiate(client);
    for (size_t i = 0; i < G_N_ELEMENTS(commands); i++) {
        const Row *rows = commands[i].arguments;
        for (unsigned n = 0; rows[n].name != NULL; n++) {
            g_autofree char *wrong =
                g_strdup_printf("'%s', expected: %s", rows[n].name, rows[n].type);
            run_with(client, commands[i].command, rows, NONE, n);
            expect_error(client, "GenericError", wrong);
            if (rows[n].optional)
                continue;
            g_autofree char *missing = g_strdup_printf("'%s' is missing", rows[n].name);
            run_with(client, commands[i].command, rows, n, NONE);
            expect_error(client, "GenericError", missing);
        }
        expect_silence(client);
    }
}

static void
each_out_of_band_command_may_overtake(void **state)
{
    static const struct {
        const char *command;
        bool may;
    } rows[] = {
        {"migrate-pause", true}, {"migrate-recover", true}, {"stop", false},
        {"cont", false},         {"migrate", false},        {"migrate-incoming", false},
    };
    Client *client = *state;
    g_string_truncate(client->output, 0);
    feed(client, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}");
    expect_line(client, "{\"return\":{}}");
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *line =
            g_strdup_printf("{\"exec-oob\":\"%s\",\"arguments\":{\"x\":1}}", rows[i].command);
        assert_true(feed(client, line));
        expect_error(client, "GenericError", rows[i].may ? "'x' is unexpected" : "OOB");
    }
}

/* ---- Errors ------------------------------------------------------------------------------------
 */

typedef enum { FRESH, NEGOTIATED, RUNNING, WAITING } Situation;

static void
bring_about(Client *client, Situation situation)
{
    g_string_truncate(client->output, 0);
    if (situation >= NEGOTIATED)
        negotiate(client);
    if (situation == RUNNING)
        assert_true(faultline_cont(client->faultline, NULL));
    if (situation == WAITING)
        assert_true(faultline_incoming(client->faultline, "tcp:127.0.0.1:0", NULL));
    faultline_monitor_pump(client->monitor);
    g_string_truncate(client->output, 0);
}

#define RUN(name, arguments)    "{\"execute\":\"" name "\",\"arguments\":{" arguments "}}"
#define SWITCH(name, is_on)     "{\"capability\":\"" name "\",\"state\":" is_on "}"
#define SET(switches)           RUN("migrate-set-capabilities", "\"capabilities\":[" switches "]")
#define TO(uri)                 RUN("migrate", "\"uri\":\"" uri "\"")
#define MAIN_CHANNEL(transport) "{\"channel-type\":\"main\",\"addr\":{" transport "}}"

/* parts: words that the text must have, upper or lower case, one after the other. */
static const struct {
    Situation situation;
    const char *input, *class, *parts[3];
} errors[] = {
    {FRESH, RUN("query-status", ""), "CommandNotFound", {"negotiation", "qmp_capabilities"}},
    {FRESH, RUN("qmp_capabilities", "\"enable\":[\"tea\"]"), "GenericError", {"'tea'"}},
    {NEGOTIATED, RUN("qmp_capabilities", ""), "CommandNotFound", {"negotiation", "complete"}},
    {NEGOTIATED, RUN("fly", ""), "CommandNotFound", {"fly", "not been found"}},
    {NEGOTIATED, "{\"exec-oob\":\"migrate-pause\"}", "GenericError", {"'exec-oob'"}},
    {NEGOTIATED, "{\"execute\":7}", "GenericError", {"'execute'", "string"}},
    {NEGOTIATED, "{\"arguments\":{}}", "GenericError", {"lacks", "'execute'"}},
    {NEGOTIATED, "{\"execute\":\"stop\",\"extra\":1}", "GenericError", {"'extra'"}},
    {NEGOTIATED, "[]", "GenericError", {"object"}},
    {NEGOTIATED, "{\"execute\":\"stop\" 1}\n", "GenericError", {"JSON parse error"}},
    {NEGOTIATED, "}\n", "GenericError", {"JSON parse error"}},
    {RUNNING, TO("pigeon:1"), "GenericError", {"pigeon:1"}},
    {RUNNING, TO("exec:cat"), "GenericError", {"exec:cat"}},
    {RUNNING, TO("fd:none"), "GenericError", {"fd:none", "getfd"}},
    {RUNNING, RUN("migrate", ""), "GenericError", {"'uri'", "'channels'"}},
    {RUNNING,
     RUN("migrate", "\"uri\":\"unix:/x\",\"channels\":[]"),
     "GenericError",
     {"'uri'", "'channels'"}},
    {RUNNING, RUN("migrate", "\"channels\":[]"), "GenericError", {"one entry", "main"}},
    {RUNNING,
     RUN("migrate", "\"channels\":[" MAIN_CHANNEL("\"transport\":\"exec\",\"args\":[]") "]"),
     "GenericError",
     {"transport"}},
    {RUNNING,
     RUN("migrate", "\"uri\":\"unix:/x\",\"resume\":true"),
     "GenericError",
     {"cannot resume", "no paused migration"}},
    {RUNNING,
     RUN("migrate-start-postcopy", ""),
     "GenericError",
     {"enable postcopy", "migrate_set_capability", "before the start of migration"}},
    {RUNNING, RUN("migrate-pause", ""), "GenericError", {"postcopy-active"}},
    {RUNNING,
     RUN("migrate-recover", "\"uri\":\"unix:/x\""),
     "GenericError",
     {"only be run", "postcopy is paused"}},
    {RUNNING,
     RUN("migrate-continue", "\"state\":\"pre-switchover\""),
     "GenericError",
     {"not in", "expected state", "pre-switchover"}},
    {RUNNING, RUN("migrate-continue", "\"state\":\"active\""), "GenericError", {"'active'"}},
    {RUNNING,
     RUN("migrate-continue", "\"state\":\"dancing\""),
     "GenericError",
     {"'state'", "'dancing'"}},
    {RUNNING,
     RUN("migrate-incoming", "\"uri\":\"tcp:127.0.0.1:0\""),
     "GenericError",
     {"guest here"}},
    {NEGOTIATED,
     RUN("migrate-incoming", "\"uri\":\"tcp:0.0.0.0:0\""),
     "GenericError",
     {"other hosts reach it", "TLS", "--insecure"}},
    {NEGOTIATED,
     SET(SWITCH("postcopy-preempt", "true")),
     "GenericError",
     {"postcopy-preempt", "postcopy-ram"}},
    {NEGOTIATED,
     SET(SWITCH("flying", "true")),
     "GenericError",
     {"capabilities[0].capability", "'flying'"}},
    {WAITING, SET(SWITCH("events", "true")), "GenericError", {"migration", "wait"}},
    {WAITING, TO("unix:/x"), "GenericError", {"guest is waiting for an incoming migration"}},
    {WAITING,
     RUN("migrate-incoming", "\"uri\":\"tcp:127.0.0.1:0\""),
     "GenericError",
     {"migration process in progress"}},
    {WAITING,
     RUN("calc-dirty-rate", "\"calc-time\":1"),
     "GenericError",
     {"migration process in progress"}},
    {NEGOTIATED, RUN("calc-dirty-rate", "\"calc-time\":0"), "GenericError", {"50 to 60000"}},
    {NEGOTIATED, RUN("calc-dirty-rate", "\"calc-time\":61"), "GenericError", {"61000 ms"}},
    {NEGOTIATED,
     RUN("calc-dirty-rate", "\"calc-time\":1,\"calc-time-unit\":\"week\""),
     "GenericError",
     {"'calc-time-unit'", "'week'"}},
    {NEGOTIATED,
     RUN("calc-dirty-rate", "\"calc-time\":1,\"mode\":\"guess\""),
     "GenericError",
     {"'mode'", "'guess'"}},
    {NEGOTIATED,
     RUN("calc-dirty-rate", "\"calc-time\":1,\"mode\":\"page-sampling\""),
     "GenericError",
     {"'page-sampling'", "not supported", "dirty-bitmap"}},
    {NEGOTIATED,
     RUN("calc-dirty-rate", "\"calc-time\":1,\"mode\":\"dirty-ring\""),
     "GenericError",
     {"'dirty-ring'", "not supported", "dirty-bitmap"}},
    {NEGOTIATED,
     RUN("calc-dirty-rate", "\"calc-time\":1,\"sample-pages\":512"),
     "GenericError",
     {"sample-pages", "not supported"}},
    {NEGOTIATED, RUN("getfd", "\"fdname\":\"a\""), "GenericError", {"SCM_RIGHTS"}},
    {NEGOTIATED, RUN("getfd", "\"fdname\":\"1a\""), "GenericError", {"digit"}},
    {NEGOTIATED, RUN("closefd", "\"fdname\":\"a\""), "GenericError", {"'a'"}},
    {NEGOTIATED, RUN("add-fd", ""), "GenericError", {"SCM_RIGHTS"}},
    {NEGOTIATED, RUN("remove-fd", "\"fdset-id\":3"), "GenericError", {"set 3"}},
    {NEGOTIATED,
     RUN("pmemsave", "\"val\":0,\"size\":1,\"filename\":\"/x\""),
     "GenericError",
     {"pmemsave"}},
    {NEGOTIATED,
     RUN("pmemsave", "\"val\":-1,\"size\":1,\"filename\":\"/x\""),
     "GenericError",
     {"'val'", "not negative"}},
};

static void
expect_parts(Client *client, const char *class, const char *const *parts, size_t count)
{
    g_autofree char *line = next_text(client);
    g_autofree char *small = g_ascii_strdown(line, -1);
    g_autofree char *wanted = g_strdup_printf("{\"error\":{\"class\":\"%s\",\"desc\":", class);
    if (!g_str_has_prefix(line, wanted))
        fail_msg("%s is no error of class %s", line, class);
    const char *at = small;
    for (size_t i = 0; i < count && parts[i] != NULL; i++) {
        g_autofree char *part = g_ascii_strdown(parts[i], -1);
        at = strstr(at, part);
        if (at == NULL)
            fail_msg("%s lacks '%s'", line, parts[i]);
    }
}

static void
each_error_has_its_class_and_says_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(errors); i++) {
        void *fresh;
        set_up(&fresh);
        Client *client = fresh;
        bring_about(client, errors[i].situation);
        assert_true(feed(client, errors[i].input));
        expect_parts(client, errors[i].class, errors[i].parts, G_N_ELEMENTS(errors[i].parts));
        expect_silence(client);
        tear_down(&fresh);
    }
}

/* ---- Names -------------------------------------------------------------------------------------
 */

static void
each_status_has_a_name_of_the_enumeration(void **state)
{
    static const char *const names[] = {
        "none",
        "setup",
        "cancelling",
        "cancelled",
        "active",
        "postcopy-active",
        "device",
        "failed",
        "pre-switchover",
        "completed",
        "postcopy-paused",
        "postcopy-device",
        "postcopy-recover-setup",
        "postcopy-recover",
    };
    (void)state;
    assert_int_equal(G_N_ELEMENTS(names), FAULTLINE_STATUS_COUNT);
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        unsigned found = 0;
        for (unsigned j = 0; j < FAULTLINE_STATUS_COUNT; j++)
            found += g_str_equal(faultline_status_name((FaultlineStatus)j), names[i]);
        if (found != 1)
            fail_msg("status %s is there %u times", names[i], found);
    }
}

static const char *const run_states[] = {"prelaunch", "inmigrate",      "running",
                                         "paused",    "finish-migrate", "postmigrate"};

static void
each_run_state_has_a_name_of_the_enumeration(void **state)
{
    (void)state;
    assert_int_equal(G_N_ELEMENTS(run_states), FAULTLINE_RUN_COUNT);
    for (unsigned i = 0; i < FAULTLINE_RUN_COUNT; i++)
        assert_string_equal(faultline_run_state_name((FaultlineRunState)i), run_states[i]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(each_command_is_listed_and_refuses_what_it_does_not_take),
        CASE(each_argument_has_its_type_and_is_missed_where_required),
        CASE(each_out_of_band_command_may_overtake),
        CASE(each_error_has_its_class_and_says_what_is_wrong),
        CASE(each_status_has_a_name_of_the_enumeration),
        CASE(each_run_state_has_a_name_of_the_enumeration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
