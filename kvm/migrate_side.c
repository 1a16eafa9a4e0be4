/* SPDX-License-Identifier: MIT */
/*
 * Asks one machine and reads its answers, with QEMU's names, so that either side may be a QEMU. An
 * answer that is not as it should be counts as one that does not tell. What follows from it is left
 * to the phases. One thread.
 */
#include "kvm/migrate_side.h"

#include "engine/faultline.h"

#include <string.h>

#define PATIENCE_S 20

bool
migrate_side_open(MigrateSide *side, GError **error)
{
    if (side->client)
        return true;
    side->client = qmp_client_open_within(side->path, PATIENCE_S, error);
    if (!side->client) {
        g_prefix_error(error, "%s: ", side->name);
        return false;
    }
    if (side->capabilities)
        return true;
    side->capabilities = migrate_side_ask(side, "query-migrate-capabilities", NULL, error);
    return side->capabilities != NULL;
}

void
migrate_side_close(MigrateSide *side)
{
    g_clear_pointer(&side->client, qmp_client_free);
    g_clear_pointer(&side->capabilities, json_node_unref);
}

JsonNode *
migrate_side_ask(MigrateSide *side, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(GError) reason = NULL;

    if (!side->client && !migrate_side_open(side, error)) {
        g_clear_pointer(&arguments, json_object_unref);
        return NULL;
    }
    JsonNode *reply = qmp_client_execute(side->client, command, arguments, &reason);
    if (reply)
        return reply;
    /* An answer that comes late would be taken for that to the next question. */
    if (!g_error_matches(reason, G_IO_ERROR, G_IO_ERROR_FAILED))
        g_clear_pointer(&side->client, qmp_client_free);
    g_propagate_prefixed_error(error, g_steal_pointer(&reason), "%s: ", side->name);
    return NULL;
}

bool
migrate_side_do(MigrateSide *side, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) reply = migrate_side_ask(side, command, arguments, error);

    return reply != NULL;
}

/* ---- Reading answers ------------------------------------------------------------------------- */

static JsonObject *
object_in(JsonNode *node)
{
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static JsonObject *
group_in(JsonObject *object, const char *name)
{
    return object ? object_in(json_object_get_member(object, name)) : NULL;
}

static int64_t
number_in(JsonObject *object, const char *name)
{
    JsonNode *node = object ? json_object_get_member(object, name) : NULL;

    return node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_int(node) : -1;
}

static void
text_in(JsonObject *object, const char *name, char *ret_text, size_t size, const char *otherwise)
{
    JsonNode *node = object ? json_object_get_member(object, name) : NULL;
    const char *text = node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_string(node) : NULL;

    g_strlcpy(ret_text, text ? text : otherwise, size);
}

bool
migrate_side_look(MigrateSide *side, MigrateLook *ret_look, GError **error)
{
    g_autoptr(JsonNode) migration = migrate_side_ask(side, "query-migrate", NULL, error);
    g_autoptr(JsonNode) state =
        migration ? migrate_side_ask(side, "query-status", NULL, error) : NULL;

    if (!state)
        return false;
    JsonObject *reply = object_in(migration), *ram = group_in(reply, "ram");
    JsonObject *ours = group_in(reply, "faultline");
    JsonNode *mbps = ram ? json_object_get_member(ram, "mbps") : NULL;
    *ret_look = (MigrateLook){
        .total_bytes = number_in(ram, "total"),
        .remaining_bytes = number_in(ram, "remaining"),
        .transferred_bytes = number_in(ram, "transferred"),
        .dirty_pages_per_s = number_in(ram, "dirty-pages-rate"),
        .pass = number_in(ram, "dirty-sync-count"),
        .zero_pages = number_in(ram, "duplicate"),
        .normal_pages = number_in(ram, "normal"),
        .bytes_per_s = mbps && JSON_NODE_HOLDS_VALUE(mbps)
                           ? (int64_t)(json_node_get_double(mbps) * 1e6 / 8)
                           : -1,
        .expected_downtime_ms = number_in(reply, "expected-downtime"),
        .downtime_ms = number_in(reply, "downtime"),
        .total_ms = number_in(reply, "total-time"),
        .missing_pages = number_in(ours, "missing-pages"),
        .will_retry = ours && json_object_has_member(ours, "recover-next-us"),
    };
    text_in(reply, "status", ret_look->status, sizeof ret_look->status, "none");
    text_in(reply, "error-desc", ret_look->error, sizeof ret_look->error, "");
    text_in(object_in(state), "status", ret_look->run_state, sizeof ret_look->run_state, "unknown");
    return true;
}

bool
migrate_look_is(const MigrateLook *look, const char *status)
{
    return g_str_equal(look->status, status);
}

bool
migrate_look_runs(const MigrateLook *look, const char *run_state)
{
    return g_str_equal(look->run_state, run_state);
}

bool
migrate_look_is_under_way(const MigrateLook *look)
{
    static const char *const ended[] = {"none",      "completed",       "failed",
                                        "cancelled", "postcopy-paused", NULL};

    return !g_strv_contains(ended, look->status);
}

/* ---- Address --------------------------------------------------------------------------------- */

static char *
uri_of(JsonObject *address)
{
    char type[16], host[256], port[16], path[256];

    text_in(address, "type", type, sizeof type, "");
    text_in(address, "host", host, sizeof host, "");
    text_in(address, "port", port, sizeof port, "");
    text_in(address, "path", path, sizeof path, "");
    if (g_str_equal(type, "unix"))
        return g_strdup_printf("unix:%s", path);
    if (!g_str_equal(type, "inet"))
        return NULL;
    return g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

char *
migrate_side_listening(MigrateSide *side, GError **error)
{
    g_autoptr(JsonNode) reply = migrate_side_ask(side, "query-migrate", NULL, error);
    JsonObject *object = object_in(reply);
    JsonNode *list = object ? json_object_get_member(object, "socket-address") : NULL;
    char status[32];

    text_in(object, "status", status, sizeof status, "none");
    /* A QEMU that waits has no status but setup, and a faultline keeps the address when it failed.
     */
    if (!g_str_equal(status, "setup") || !list || !JSON_NODE_HOLDS_ARRAY(list) ||
        json_array_get_length(json_node_get_array(list)) == 0)
        return NULL;
    return uri_of(object_in(json_array_get_element(json_node_get_array(list), 0)));
}

/* ---- Capabilities and parameters ------------------------------------------------------------- */

static JsonObject *
find_capability(const MigrateSide *side, const char *name)
{
    JsonArray *list = side->capabilities && JSON_NODE_HOLDS_ARRAY(side->capabilities)
                          ? json_node_get_array(side->capabilities)
                          : NULL;

    for (guint i = 0; list && i < json_array_get_length(list); i++) {
        JsonObject *row = object_in(json_array_get_element(list, i));
        char found[64];

        text_in(row, "capability", found, sizeof found, "");
        if (g_str_equal(found, name))
            return row;
    }
    return NULL;
}

bool
migrate_side_knows_capability(const MigrateSide *side, const char *name)
{
    return find_capability(side, name) != NULL;
}

bool
migrate_side_has_capability(const MigrateSide *side, const char *name)
{
    JsonObject *row = find_capability(side, name);

    return row && json_object_get_boolean_member_with_default(row, "state", FALSE);
}

void
migrate_side_put_parameter(JsonObject *arguments, const char *name, uint64_t value)
{
    const FaultlineParameterRow *row = faultline_parameter_table();

    while (row->name && !g_str_equal(row->name, name))
        row++;
    if (row->name && row->type == FAULTLINE_TYPE_BOOLEAN)
        json_object_set_boolean_member(arguments, name, value != 0);
    else
        json_object_set_int_member(arguments, name, (int64_t)MIN(value, (uint64_t)INT64_MAX));
}
