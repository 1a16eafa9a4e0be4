/* SPDX-License-Identifier: MIT */
/*
 * The monitor as a whole: its making, its sessions, and the engine's events on their way to every
 * session that has negotiated.
 *
 * MIGRATION and MIGRATION_PASS go out only while capability `events` is on, STOP and RESUME always.
 * Control thread.
 */
#include "engine/monitor/monitor.h"

FaultlineMonitor *
faultline_monitor_new(Faultline *faultline, const FaultlineMonitorHost *host, void *opaque)
{
    FaultlineMonitor *monitor = g_new0(FaultlineMonitor, 1);
    monitor->faultline = faultline;
    monitor->host = *host;
    /* The name comes from a command line and goes into JSON. */
    monitor->name = host->name != NULL ? g_utf8_make_valid(host->name, -1) : NULL;
    monitor->opaque = opaque;
    monitor->sessions = g_ptr_array_new();
    fds_init(monitor);
    return monitor;
}

void
faultline_monitor_free(FaultlineMonitor *monitor)
{
    if (monitor == NULL)
        return;
    g_assert(monitor->sessions->len == 0);
    g_ptr_array_free(monitor->sessions, TRUE);
    fds_clear(monitor);
    g_free(monitor->name);
    g_free(monitor);
}

static const struct {
    const char *name;
    bool needs_capability;
} event_kinds[] = {
    [FAULTLINE_EVENT_STATUS] = {"MIGRATION", true},
    [FAULTLINE_EVENT_PASS] = {"MIGRATION_PASS", true},
    [FAULTLINE_EVENT_STOP] = {"STOP", false},
    [FAULTLINE_EVENT_RESUME] = {"RESUME", false},
    [FAULTLINE_EVENT_VERDICT] = {"FAULTLINE_VERDICT", true},
    [FAULTLINE_EVENT_REFUSED] = {NULL, false}, /* QEMU has none such */
    [FAULTLINE_EVENT_HEARD] = {NULL, false},   /* nor this */
};
G_STATIC_ASSERT(G_N_ELEMENTS(event_kinds) == FAULTLINE_EVENT_HEARD + 1);

static JsonObject *
event_data(const FaultlineEvent *event)
{
    if (event->kind == FAULTLINE_EVENT_STOP || event->kind == FAULTLINE_EVENT_RESUME)
        return NULL;
    JsonObject *data = json_object_new();
    if (event->kind == FAULTLINE_EVENT_STATUS)
        json_object_set_string_member(data, "status", faultline_status_name(event->status));
    else if (event->kind == FAULTLINE_EVENT_VERDICT)
        json_object_set_string_member(data, "verdict", faultline_verdict_name(event->verdict));
    else
        json_object_set_int_member(data, "pass", (int64_t)event->pass);
    return data;
}

static JsonNode *
named_event(const char *name, JsonObject *data, int64_t time_us)
{
    JsonObject *timestamp = json_object_new();
    json_object_set_int_member(timestamp, "seconds", time_us / G_USEC_PER_SEC);
    json_object_set_int_member(timestamp, "microseconds", time_us % G_USEC_PER_SEC);
    JsonObject *object = json_object_new();
    json_object_set_object_member(object, "timestamp", timestamp);
    json_object_set_string_member(object, "event", name);
    if (data != NULL)
        json_object_set_object_member(object, "data", data);
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    return node;
}

static void
send_to_all(FaultlineMonitor *monitor, JsonNode *node)
{
    for (unsigned i = 0; i < monitor->sessions->len; i++)
        session_send_event(g_ptr_array_index(monitor->sessions, i), node);
    json_node_unref(node);
}

void
faultline_monitor_send_event(FaultlineMonitor *monitor, const char *name, const char *data)
{
    g_autoptr(JsonNode) parsed = data != NULL ? json_from_string(data, NULL) : NULL;
    g_assert(data == NULL || (parsed != NULL && JSON_NODE_HOLDS_OBJECT(parsed)));
    send_to_all(monitor, named_event(name, parsed != NULL ? json_node_dup_object(parsed) : NULL,
                                     g_get_real_time()));
}

/* A guest that shut down or reset says so; one that its machine cannot run on only stops. */
static void
tell_guest_end(FaultlineMonitor *monitor)
{
    bool is_running;
    const char *status = command_status(monitor, &is_running);
    bool is_shutdown = g_str_equal(status, "shutdown");
    bool has_ended = is_shutdown || g_str_equal(status, "internal-error");

    if (has_ended && !monitor->has_ended) {
        if (is_shutdown)
            faultline_monitor_send_event(monitor, "SHUTDOWN",
                                         "{\"guest\": true, \"reason\": \"guest-shutdown\"}");
        faultline_monitor_send_event(monitor, "STOP", NULL);
    }
    monitor->has_ended = has_ended;
}

void
faultline_monitor_pump(FaultlineMonitor *monitor)
{
    FaultlineEvent event;
    bool has_any = false;
    while (faultline_next_event(monitor->faultline, &event)) {
        has_any = true;
        if (event_kinds[event.kind].name == NULL ||
            (event_kinds[event.kind].needs_capability &&
             !faultline_get_capability(monitor->faultline, "events")))
            continue;
        send_to_all(monitor,
                    named_event(event_kinds[event.kind].name, event_data(&event), event.time_us));
    }
    tell_guest_end(monitor);
    if (has_any && monitor->host.happened != NULL)
        monitor->host.happened(monitor->opaque);
}
