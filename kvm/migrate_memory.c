/* SPDX-License-Identifier: MIT */
/*
 * Whether both sides of an orchestrated migration have the same memory: the same blocks, by name,
 * length and, for postcopy, page size. A machine that does not know our x-query-memory-blocks (a
 * QEMU) is compared by its total alone; the engine compares blocks again when they arrive. One
 * thread.
 */
#include "kvm/migrate.h"

#include <string.h>

static bool
refuse(GError **error, const char *what, const char *source, const char *destination)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                "%s: the source has %s and the destination %s; start the destination with the "
                "same machine and the same memory",
                what, source, destination);
    return false;
}

/* false: the connection failed. *ret_reply NULL: the machine does not tell. */
static bool
ask(MigrateSide *side, const char *command, JsonNode **ret_reply, GError **error)
{
    g_autoptr(GError) reason = NULL;

    *ret_reply = migrate_side_ask(side, command, NULL, &reason);
    if (*ret_reply && !JSON_NODE_HOLDS_OBJECT(*ret_reply))
        g_clear_pointer(ret_reply, json_node_unref);
    if (!reason || g_error_matches(reason, G_IO_ERROR, G_IO_ERROR_FAILED))
        return true;
    g_propagate_error(error, g_steal_pointer(&reason));
    return false;
}

/* ---- Totals ---------------------------------------------------------------------------------- */

static int64_t
total_in(JsonNode *reply)
{
    return reply ? json_object_get_int_member_with_default(json_node_get_object(reply),
                                                           "base-memory", -1)
                 : -1;
}

static bool
check_totals(Migrate *migrate, GError **error)
{
    g_autoptr(JsonNode) at_source = NULL;
    g_autoptr(JsonNode) at_destination = NULL;

    if (!ask(&migrate->source, "query-memory-size-summary", &at_source, error) ||
        !ask(&migrate->destination, "query-memory-size-summary", &at_destination, error))
        return false;
    int64_t source = total_in(at_source), destination = total_in(at_destination);
    migrate->downtime.guest_bytes = (uint64_t)MAX(source, 0);
    if (source < 0 || destination < 0 || source == destination)
        return true;
    g_autofree char *source_says = g_strdup_printf("%" G_GINT64_FORMAT " MiB", source >> 20);
    g_autofree char *destination_says =
        g_strdup_printf("%" G_GINT64_FORMAT " MiB", destination >> 20);
    return refuse(error, "memory", source_says, destination_says);
}

/* ---- Blocks ---------------------------------------------------------------------------------- */

static JsonArray *
blocks_in(JsonNode *reply)
{
    JsonNode *list = reply ? json_object_get_member(json_node_get_object(reply), "blocks") : NULL;

    return list && JSON_NODE_HOLDS_ARRAY(list) ? json_node_get_array(list) : NULL;
}

static JsonObject *
block_at(JsonArray *list, guint index)
{
    JsonNode *node = json_array_get_element(list, index);

    return JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static const char *
name_of(JsonObject *block)
{
    return json_object_get_string_member_with_default(block, "name", "");
}

static JsonObject *
find_block(JsonArray *list, const char *name)
{
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *block = block_at(list, i);
        if (block && g_str_equal(name_of(block), name))
            return block;
    }
    return NULL;
}

/* Both have it: the same number? */
static bool
check_number(JsonObject *source, JsonObject *destination, const char *member, GError **error)
{
    int64_t here = json_object_get_int_member_with_default(source, member, -1);
    int64_t there = json_object_get_int_member_with_default(destination, member, -1);

    if (here == there)
        return true;
    g_autofree char *what = g_strdup_printf("%s of RAM block '%s'", member, name_of(source));
    g_autofree char *source_says = g_strdup_printf("%" G_GINT64_FORMAT " bytes", here);
    g_autofree char *destination_says = g_strdup_printf("%" G_GINT64_FORMAT " bytes", there);
    return refuse(error, what, source_says, destination_says);
}

/* Each block of one side at the other; numbers are compared once, from the source's side. */
static bool
check_list(JsonArray *list, JsonArray *other, bool is_source, bool with_page_size, GError **error)
{
    for (guint i = 0; i < json_array_get_length(list); i++) {
        JsonObject *block = block_at(list, i);
        if (!block)
            continue;
        JsonObject *twin = find_block(other, name_of(block));
        if (!twin) {
            g_autofree char *what = g_strdup_printf("RAM block '%s'", name_of(block));
            return refuse(error, what, is_source ? "it" : "none of that name",
                          is_source ? "none of that name" : "it");
        }
        if (is_source && (!check_number(block, twin, "length", error) ||
                          (with_page_size && !check_number(block, twin, "page-size", error))))
            return false;
    }
    return true;
}

static bool
check_blocks(Migrate *migrate, GError **error)
{
    bool postcopy = migrate->options->policy.kind != MIGRATE_POSTCOPY_NEVER;
    g_autoptr(JsonNode) at_source = NULL;
    g_autoptr(JsonNode) at_destination = NULL;

    if (!ask(&migrate->source, "x-query-memory-blocks", &at_source, error) ||
        !ask(&migrate->destination, "x-query-memory-blocks", &at_destination, error))
        return false;
    JsonArray *source = blocks_in(at_source), *destination = blocks_in(at_destination);
    return !source || !destination ||
           (check_list(source, destination, true, postcopy, error) &&
            check_list(destination, source, false, postcopy, error));
}

bool
migrate_check_memory(Migrate *migrate, GError **error)
{
    return check_totals(migrate, error) && check_blocks(migrate, error);
}
