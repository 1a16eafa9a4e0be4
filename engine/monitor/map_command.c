/* SPDX-License-Identifier: MIT */
/*
 * Commands of our own about guest memory. x-query-memory-blocks: which blocks there are, so that
 * whoever drives a migration can compare both sides before it begins. x-query-memory-map: what is
 * here, what is missing, and what somebody waits for, as so many cells as the client wants to draw.
 * Control thread.
 */
#include "engine/monitor/monitor.h"

#define CELLS_PRESET 256
#define CELLS_MAX    4096

JsonNode *
map_blocks_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    JsonArray *list = json_array_new();
    const FaultlineBlock *block;
    (void)object;
    (void)error;

    for (unsigned i = 0; (block = faultline_block(monitor->faultline, i)) != NULL; i++) {
        JsonObject *row = json_object_new();
        json_object_set_string_member(row, "name", block->name);
        json_object_set_int_member(row, "guest-address", (int64_t)block->guest_address);
        json_object_set_int_member(row, "length", (int64_t)block->length_bytes);
        json_object_set_int_member(row, "page-size", (int64_t)block->page_size_bytes);
        json_array_add_object_element(list, row);
    }
    JsonObject *reply = json_object_new();
    json_object_set_array_member(reply, "blocks", list);
    return command_reply(reply);
}

JsonNode *
map_query_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    int64_t count = json_object_get_int_member_with_default(object, "cells", CELLS_PRESET);
    if (count < 1 || count > CELLS_MAX) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "x-query-memory-map: cells is %" G_GINT64_FORMAT "; give 1 to %d", count,
                    CELLS_MAX);
        return NULL;
    }
    g_autofree FaultlineMapCell *cells = g_new0(FaultlineMapCell, count);
    bool has_map = faultline_query_map(monitor->faultline, cells, (unsigned)count);
    JsonArray *list = json_array_new();
    for (int64_t i = 0; has_map && i < count; i++) {
        JsonArray *cell = json_array_sized_new(3);
        json_array_add_int_element(cell, (int64_t)cells[i].pages);
        json_array_add_int_element(cell, (int64_t)cells[i].left);
        json_array_add_int_element(cell, (int64_t)cells[i].waiting);
        json_array_add_array_element(list, cell);
    }
    JsonObject *reply = json_object_new();
    json_object_set_array_member(reply, "cells", list);
    return command_reply(reply);
}
