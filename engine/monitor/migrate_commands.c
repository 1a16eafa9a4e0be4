/* SPDX-License-Identifier: MIT */
/*
 * Commands that start, steer and set up a migration. Each is a call of faultline.h; what is added
 * here is QMP's promise that a list of capabilities or parameters is set wholly or not at all.
 *
 * Looking at a migration is in query_migrate.c. Control thread.
 */
#include "engine/monitor/monitor.h"

/* Where a command with `uri` or `channels` goes, as the engine takes it. */
static char *
read_uri(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    g_autofree char *uri = channels_uri(object, error);
    return uri != NULL ? fds_resolve(monitor, uri, error) : NULL;
}

JsonNode *
migrate_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    g_autofree char *uri = read_uri(monitor, object, error);
    if (uri == NULL)
        return NULL;
    bool resumes = arguments_boolean(object, "resume", false);
    if (!(resumes ? faultline_migrate_resume : faultline_migrate)(monitor->faultline, uri, error))
        return NULL;
    fds_forget(monitor, uri);
    return command_done();
}

JsonNode *
migrate_incoming_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    g_autofree char *uri = read_uri(monitor, object, error);
    if (uri == NULL || !faultline_incoming(monitor->faultline, uri, error))
        return NULL;
    fds_forget(monitor, uri);
    monitor->stays_on_error = !arguments_boolean(object, "exit-on-error", true);
    return command_done();
}

bool
faultline_monitor_stays_on_error(const FaultlineMonitor *monitor)
{
    return monitor->stays_on_error;
}

JsonNode *
migrate_pause_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    return faultline_pause(monitor->faultline, error) ? command_done() : NULL;
}

JsonNode *
migrate_recover_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    g_autofree char *uri = read_uri(monitor, object, error);
    if (uri == NULL || !faultline_recover(monitor->faultline, uri, error))
        return NULL;
    fds_forget(monitor, uri);
    return command_done();
}

JsonNode *
migrate_continue_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    const char *name = arguments_string(object, "state");
    for (unsigned i = 0; i < FAULTLINE_STATUS_COUNT; i++)
        if (g_str_equal(faultline_status_name((FaultlineStatus)i), name))
            return faultline_continue(monitor->faultline, (FaultlineStatus)i, error)
                       ? command_done()
                       : NULL;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "Parameter 'state' does not accept value '%s'", name);
    return NULL;
}

JsonNode *
migrate_start_postcopy_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    return faultline_start_postcopy(monitor->faultline, error) ? command_done() : NULL;
}

JsonNode *
migrate_cancel_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    return faultline_cancel(monitor->faultline, error) ? command_done() : NULL;
}

/* ---- Capabilities ---------------------------------------------------------------------------- */

typedef struct Switch {
    const char *name; /* the table's */
    bool on, was_on, is_done;
} Switch;

static const Argument arguments_capability[] = {
    {"capability", ARGUMENT_STRING, false},
    {"state", ARGUMENT_BOOLEAN, false},
    {NULL, 0, false},
};

static bool
read_switch(FaultlineMonitor *monitor, JsonNode *node, unsigned index, Switch *ret, GError **error)
{
    g_autofree char *prefix = g_strdup_printf("capabilities[%u].", index);
    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Invalid parameter type for 'capabilities[%u]', expected: object", index);
        return false;
    }
    JsonObject *entry = json_node_get_object(node);
    if (!arguments_check(arguments_capability, entry, prefix, error))
        return false;
    const char *name = arguments_string(entry, "capability");
    const FaultlineCapabilityRow *row = faultline_capability_table();
    while (row->name != NULL && !g_str_equal(row->name, name))
        row++;
    if (row->name == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Parameter '%scapability' does not accept value '%s'", prefix, name);
        return false;
    }
    *ret = (Switch){.name = row->name,
                    .on = arguments_boolean(entry, "state", false),
                    .was_on = faultline_get_capability(monitor->faultline, name)};
    return true;
}

/* Sets those that can be set now. Returns how many; the error is the last refusal's. */
static unsigned
set_some(Faultline *faultline, GArray *switches, GError **error)
{
    unsigned count_set = 0;
    for (unsigned i = 0; i < switches->len; i++) {
        Switch *s = &g_array_index(switches, Switch, i);
        if (s->is_done)
            continue;
        g_clear_error(error);
        s->is_done = faultline_set_capability(faultline, s->name, s->on, error);
        count_set += s->is_done;
    }
    return count_set;
}

static unsigned
count_left(const GArray *switches)
{
    unsigned left = 0;
    for (unsigned i = 0; i < switches->len; i++)
        left += !g_array_index(switches, Switch, i).is_done;
    return left;
}

/* The members of a list may need each other (postcopy-preempt needs postcopy-ram), and the list may
 * name them in any order: go round until nothing moves. */
static bool
set_all(Faultline *faultline, GArray *switches, GError **error)
{
    g_autoptr(GError) refusal = NULL;
    while (count_left(switches) > 0) {
        if (set_some(faultline, switches, &refusal) > 0)
            continue;
        g_propagate_error(error, g_steal_pointer(&refusal));
        return false;
    }
    return true;
}

static void
restore_all(Faultline *faultline, GArray *switches)
{
    g_autoptr(GArray) back = g_array_new(FALSE, TRUE, sizeof(Switch));
    for (unsigned i = 0; i < switches->len; i++) {
        Switch *s = &g_array_index(switches, Switch, i);
        if (s->is_done)
            g_array_append_val(back, ((Switch){.name = s->name, .on = s->was_on}));
    }
    set_all(faultline, back, NULL);
}

JsonNode *
migrate_set_capabilities_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    JsonArray *list = json_object_get_array_member(object, "capabilities");
    g_autoptr(GArray) switches = g_array_new(FALSE, TRUE, sizeof(Switch));
    for (unsigned i = 0; i < json_array_get_length(list); i++) {
        Switch s;
        if (!read_switch(monitor, json_array_get_element(list, i), i, &s, error))
            return NULL;
        g_array_append_val(switches, s);
    }
    if (set_all(monitor->faultline, switches, error))
        return command_done();
    restore_all(monitor->faultline, switches);
    return NULL;
}

JsonNode *
migrate_query_capabilities_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    JsonArray *list = json_array_new();
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++) {
        JsonObject *entry = json_object_new();
        json_object_set_string_member(entry, "capability", row->name);
        json_object_set_boolean_member(entry, "state",
                                       faultline_get_capability(monitor->faultline, row->name));
        json_array_add_object_element(list, entry);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    return node;
}

/* ---- Parameters ------------------------------------------------------------------------------ */

typedef struct Setting {
    const char *name; /* the command's */
    uint64_t value, before;
    const char *text;  /* of one that takes text; else NULL */
    char *before_text; /* a copy */
} Setting;

static void
clear_setting(gpointer setting)
{
    g_free(((Setting *)setting)->before_text);
}

static bool
set_parameter(Faultline *faultline, const Setting *setting, GError **error)
{
    if (setting->text)
        return faultline_set_text_parameter(faultline, setting->name, setting->text, error);
    return faultline_set_parameter(faultline, setting->name, setting->value, error);
}

static void
restore_parameters(Faultline *faultline, const GArray *done)
{
    for (unsigned i = done->len; i-- > 0;) {
        const Setting *setting = &g_array_index(done, Setting, i);
        if (setting->text)
            faultline_set_text_parameter(faultline, setting->name, setting->before_text, NULL);
        else
            faultline_set_parameter(faultline, setting->name, setting->before, NULL);
    }
}

/* Moves from `left` to `done` what can be set now. The error is the last refusal's. */
static void
set_some_parameters(Faultline *faultline, GArray *left, GArray *done, GError **error)
{
    for (unsigned i = 0; i < left->len;) {
        Setting setting = g_array_index(left, Setting, i);
        g_clear_error(error);
        if (!set_parameter(faultline, &setting, error)) {
            i++;
            continue;
        }
        g_array_append_val(done, setting);
        g_array_index(left, Setting, i).before_text = NULL;
        g_array_remove_index(left, i);
    }
}

/* As with capabilities, one value may have to wait for another: go round until nothing moves. */
static bool
set_parameters(Faultline *faultline, GArray *left, GError **error)
{
    g_autoptr(GArray) done = g_array_new(FALSE, FALSE, sizeof(Setting));
    g_array_set_clear_func(done, clear_setting);
    g_autoptr(GError) refusal = NULL;
    for (unsigned before = left->len + 1; left->len > 0 && left->len < before;) {
        before = left->len;
        set_some_parameters(faultline, left, done, &refusal);
    }
    if (left->len == 0)
        return true;
    restore_parameters(faultline, done);
    g_propagate_error(error, g_steal_pointer(&refusal));
    return false;
}

JsonNode *
migrate_set_parameters_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    g_autoptr(GArray) settings = g_array_new(FALSE, TRUE, sizeof(Setting));
    g_array_set_clear_func(settings, clear_setting);
    JsonObjectIter iter;
    const char *name;
    JsonNode *node;
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &node)) {
        g_array_set_size(settings, settings->len + 1);
        Setting *setting = &g_array_index(settings, Setting, settings->len - 1);
        setting->name = name;
        if (arguments_find_parameter(name)->type == FAULTLINE_TYPE_TEXT) {
            setting->text = arguments_text_parameter(node);
            setting->before_text = g_strdup(faultline_get_text_parameter(monitor->faultline, name));
        } else {
            setting->value = arguments_parameter(node);
            setting->before = faultline_get_parameter(monitor->faultline, name);
        }
    }
    return set_parameters(monitor->faultline, settings, error) ? command_done() : NULL;
}

JsonNode *
migrate_query_parameters_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    JsonObject *parameters = json_object_new();
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        uint64_t value = faultline_get_parameter(monitor->faultline, row->name);
        if (row->type == FAULTLINE_TYPE_TEXT)
            json_object_set_string_member(
                parameters, row->name, faultline_get_text_parameter(monitor->faultline, row->name));
        else if (row->type == FAULTLINE_TYPE_BOOLEAN)
            json_object_set_boolean_member(parameters, row->name, value != 0);
        else
            json_object_set_int_member(parameters, row->name, (int64_t)MIN(value, INT64_MAX));
    }
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, parameters);
    return node;
}
