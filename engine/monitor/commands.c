/* SPDX-License-Identifier: MIT */
/*
 * The one table of commands: QMP, exec-oob, query-commands, HMP and its help read it; and the
 * commands that are about the guest or the monitor itself.
 *
 * What a migration command does is in migrate_commands.c and query_migrate.c, what a typed line
 * means in hmp.c. Control thread.
 */
#include "engine/monitor/monitor.h"

static JsonNode *
reply(JsonObject *object)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    return node;
}

JsonNode *
command_done(void)
{
    return reply(json_object_new());
}

JsonObject *
command_version(void)
{
    JsonObject *triple = json_object_new();
    json_object_set_int_member(triple, "micro", MONITOR_VERSION_MICRO);
    json_object_set_int_member(triple, "minor", MONITOR_VERSION_MINOR);
    json_object_set_int_member(triple, "major", MONITOR_VERSION_MAJOR);
    JsonObject *version = json_object_new();
    /* Clients look for this name; package says whose version it is. */
    json_object_set_object_member(version, "qemu", triple);
    json_object_set_string_member(version, "package", MONITOR_PACKAGE);
    return version;
}

static JsonNode *
query_version_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)monitor, (void)object, (void)error;
    return reply(command_version());
}

static JsonNode *
query_commands_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)monitor, (void)object, (void)error;
    JsonArray *list = json_array_new();
    for (const Command *c = command_table; c->name != NULL || c->typed != NULL; c++) {
        if (c->name == NULL)
            continue;
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "name", c->name);
        json_array_add_object_element(list, entry);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    return node;
}

static JsonNode *
query_name_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    JsonObject *name = json_object_new();
    if (monitor->name != NULL)
        json_object_set_string_member(name, "name", monitor->name);
    return reply(name);
}

static JsonNode *
query_status_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    FaultlineRunState state = faultline_run_state(monitor->faultline);
    JsonObject *status = json_object_new();
    json_object_set_string_member(status, "status", faultline_run_state_name(state));
    json_object_set_boolean_member(status, "running", state == FAULTLINE_RUN_RUNNING);
    return reply(status);
}

/* While a guest is awaited, stop and cont say whether it is to run once it is here. */
static bool
set_autostart_if_awaited(Faultline *faultline, bool autostart)
{
    if (faultline_run_state(faultline) != FAULTLINE_RUN_INMIGRATE)
        return false;
    faultline_set_autostart(faultline, autostart);
    return true;
}

static JsonNode *
stop_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    if (set_autostart_if_awaited(monitor->faultline, false))
        return command_done();
    return faultline_stop(monitor->faultline, error) ? command_done() : NULL;
}

static JsonNode *
cont_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    if (set_autostart_if_awaited(monitor->faultline, true))
        return command_done();
    return faultline_cont(monitor->faultline, error) ? command_done() : NULL;
}

static JsonNode *
quit_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    if (monitor->host.quit == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "quit: this program does not let its monitor end it; stop it from outside");
        return NULL;
    }
    monitor->host.quit(monitor->opaque);
    return command_done();
}

static JsonNode *
human_monitor_command_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)error;
    g_autofree char *output =
        faultline_monitor_hmp(monitor, arguments_string(object, "command-line"));
    return json_node_init_string(json_node_alloc(), output);
}

static const Argument arguments_negotiate[] = {{"enable", ARGUMENT_ARRAY, true}, {NULL, 0, false}};

static const Argument arguments_migrate[] = {
    {"uri", ARGUMENT_STRING, true},
    {"channels", ARGUMENT_ARRAY, true},
    {"resume", ARGUMENT_BOOLEAN, true},
    {"detach", ARGUMENT_BOOLEAN, true},
    {NULL, 0, false},
};

static const Argument arguments_migrate_incoming[] = {
    {"uri", ARGUMENT_STRING, true},
    {"channels", ARGUMENT_ARRAY, true},
    {"exit-on-error", ARGUMENT_BOOLEAN, true},
    {NULL, 0, false},
};

static const Argument arguments_set_capabilities[] = {
    {"capabilities", ARGUMENT_ARRAY, false},
    {NULL, 0, false},
};

static const Argument arguments_human_monitor_command[] = {
    {"command-line", ARGUMENT_STRING, false},
    {"cpu-index", ARGUMENT_INTEGER, true},
    {NULL, 0, false},
};

const Command command_table[] = {
    {.name = "qmp_capabilities", .arguments = arguments_negotiate, .negotiation = true},
    {.name = "query-version", .run = query_version_run},
    {.name = "query-commands", .run = query_commands_run},
    {.name = "query-name", .run = query_name_run},
    {.name = "query-status",
     .run = query_status_run,
     .typed = "info status",
     .typed_synopsis = "",
     .help = "whether the guest runs here",
     .run_typed = hmp_info_status},
    {.name = "query-migrate",
     .run = query_migrate_run,
     .out_of_band = true,
     .typed = "info migrate",
     .typed_synopsis = "",
     .help = "status and figures of the migration",
     .run_typed = hmp_info_migrate},
    {.name = "query-migrate-capabilities",
     .run = migrate_query_capabilities_run,
     .typed = "info migrate_capabilities",
     .typed_synopsis = "",
     .help = "capabilities, on or off",
     .run_typed = hmp_info_capabilities},
    {.name = "query-migrate-parameters",
     .run = migrate_query_parameters_run,
     .typed = "info migrate_parameters",
     .typed_synopsis = "",
     .help = "parameters with their values",
     .run_typed = hmp_info_parameters},
    {.name = "migrate",
     .arguments = arguments_migrate,
     .run = migrate_run,
     .typed = "migrate",
     .typed_synopsis = "[-d] URI",
     .help = "move the guest to tcp:HOST:PORT, unix:PATH or fd:N; always in the background",
     .run_typed = hmp_migrate},
    {.name = "migrate-incoming",
     .arguments = arguments_migrate_incoming,
     .run = migrate_incoming_run,
     .typed = "migrate_incoming",
     .typed_synopsis = "URI",
     .help = "listen at URI and receive one guest",
     .run_typed = hmp_migrate_incoming},
    {.name = "migrate-start-postcopy",
     .run = migrate_start_postcopy_run,
     .out_of_band = true,
     .typed = "migrate_start_postcopy",
     .typed_synopsis = "",
     .help = "switch to postcopy as soon as the pass under way allows it",
     .run_typed = hmp_migrate_start_postcopy},
    {.name = "migrate_cancel",
     .run = migrate_cancel_run,
     .out_of_band = true,
     .typed = "migrate_cancel",
     .typed_synopsis = "",
     .help = "end a precopy; the guest stays here",
     .run_typed = hmp_migrate_cancel},
    {.name = "migrate-set-capabilities",
     .arguments = arguments_set_capabilities,
     .run = migrate_set_capabilities_run,
     .typed = "migrate_set_capability",
     .typed_synopsis = "CAPABILITY on|off",
     .help = "switch a capability",
     .run_typed = hmp_migrate_set_capability},
    {.name = "migrate-set-parameters",
     .check = arguments_check_parameters,
     .run = migrate_set_parameters_run,
     .typed = "migrate_set_parameter",
     .typed_synopsis = "PARAMETER VALUE",
     .help = "set a parameter; sizes take K, M, G, T (max-bandwidth without a letter: MiB/s)",
     .run_typed = hmp_migrate_set_parameter},
    {.name = "stop",
     .run = stop_run,
     .typed = "stop|s",
     .typed_synopsis = "",
     .help = "pause the guest",
     .run_typed = hmp_stop},
    {.name = "cont",
     .run = cont_run,
     .typed = "cont|c",
     .typed_synopsis = "",
     .help = "run the guest",
     .run_typed = hmp_cont},
    {.name = "quit",
     .run = quit_run,
     .typed = "quit|q",
     .typed_synopsis = "",
     .help = "end this program; a guest that is only partly here is lost",
     .run_typed = hmp_quit},
    {.name = "human-monitor-command",
     .arguments = arguments_human_monitor_command,
     .run = human_monitor_command_run},
    {.typed = "help|?", .typed_synopsis = "[COMMAND]", .help = "this list", .run_typed = hmp_help},
    {.name = NULL, .typed = NULL},
};

const Command *
command_find(const char *name)
{
    for (const Command *c = command_table; c->name != NULL || c->typed != NULL; c++)
        if (c->name != NULL && g_str_equal(c->name, name))
            return c;
    return NULL;
}

JsonNode *
command_run(FaultlineMonitor *monitor, const Command *command, JsonObject *object, GError **error)
{
    bool is_valid = command->check != NULL ? command->check(object, error)
                                           : arguments_check(command->arguments, object, "", error);
    return is_valid ? command->run(monitor, object, error) : NULL;
}
