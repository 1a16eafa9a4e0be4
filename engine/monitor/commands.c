/* SPDX-License-Identifier: MIT */
/*
 * Finding and running a command of the table, and the commands that are about the guest or the
 * monitor itself: what clients ask before they start, run and stop, quit, guest memory to a file.
 *
 * The table is command_table.c; what a migration command does is in migrate_commands.c and
 * query_migrate.c, what a typed line means in hmp.c. Control thread.
 */
#include "engine/monitor/monitor.h"

JsonNode *
command_reply(JsonObject *object)
{
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    return node;
}

JsonNode *
command_done(void)
{
    return command_reply(json_object_new());
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

JsonNode *
command_query_version_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)monitor, (void)object, (void)error;
    return command_reply(command_version());
}

JsonNode *
command_query_commands_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
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

JsonNode *
command_query_name_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    JsonObject *name = json_object_new();
    if (monitor->name != NULL)
        json_object_set_string_member(name, "name", monitor->name);
    return command_reply(name);
}

JsonNode *
command_query_memory_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    faultline_query(monitor->faultline, info);
    JsonObject *memory = json_object_new();
    json_object_set_int_member(memory, "base-memory", (int64_t)info->ram_total_bytes);
    return command_reply(memory);
}

const char *
command_status(FaultlineMonitor *monitor, bool *ret_is_running)
{
    FaultlineRunState state = faultline_run_state(monitor->faultline);
    bool is_here = state == FAULTLINE_RUN_RUNNING || state == FAULTLINE_RUN_PAUSED;
    const char *ended = is_here && monitor->host.guest_end != NULL
                            ? monitor->host.guest_end(monitor->opaque)
                            : NULL;
    *ret_is_running = state == FAULTLINE_RUN_RUNNING && ended == NULL;
    return ended != NULL ? ended : faultline_run_state_name(state);
}

JsonNode *
command_query_status_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    bool is_running;
    JsonObject *status = json_object_new();
    json_object_set_string_member(status, "status", command_status(monitor, &is_running));
    json_object_set_boolean_member(status, "running", is_running);
    return command_reply(status);
}

JsonNode *
command_query_cpus_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    JsonArray *list = json_array_new();
    pid_t thread;
    for (unsigned i = 0; (thread = faultline_vcpu_thread(monitor->faultline, i)) != 0; i++) {
        g_autofree char *path = g_strdup_printf("/machine/cpu[%u]", i);
        JsonObject *cpu = json_object_new();
        json_object_set_int_member(cpu, "cpu-index", i);
        json_object_set_int_member(cpu, "thread-id", thread);
        json_object_set_string_member(cpu, "qom-path", path);
        json_object_set_string_member(cpu, "target", "x86_64");
        json_array_add_object_element(list, cpu);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    return node;
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

JsonNode *
command_stop_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    if (set_autostart_if_awaited(monitor->faultline, false))
        return command_done();
    return faultline_stop(monitor->faultline, error) ? command_done() : NULL;
}

JsonNode *
command_cont_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    if (set_autostart_if_awaited(monitor->faultline, true))
        return command_done();
    bool is_running;
    const char *status = command_status(monitor, &is_running);
    if (g_str_equal(status, "shutdown") || g_str_equal(status, "internal-error")) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "cont: the guest is in state '%s': it ended by itself and cannot run on; the "
                    "program's log says why",
                    status);
        return NULL;
    }
    return faultline_cont(monitor->faultline, error) ? command_done() : NULL;
}

JsonNode *
command_quit_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
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

JsonNode *
command_human_monitor_command_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)error;
    g_autofree char *output =
        faultline_monitor_hmp(monitor, arguments_string(object, "command-line"));
    return json_node_init_string(json_node_alloc(), output);
}

JsonNode *
command_pmemsave_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    if (monitor->host.save_memory == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "pmemsave: this program does not let its monitor write files");
        return NULL;
    }
    uint64_t address = (uint64_t)json_object_get_int_member(object, "val");
    uint64_t length_bytes = (uint64_t)json_object_get_int_member(object, "size");
    bool is_saved = monitor->host.save_memory(monitor->opaque, address, length_bytes,
                                              arguments_string(object, "filename"), error);
    return is_saved ? command_done() : NULL;
}

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
