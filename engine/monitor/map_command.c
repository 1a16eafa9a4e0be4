/* SPDX-License-Identifier: MIT */
/*
 * x-query-memory-map, a command of our own: what of guest memory is here, what is missing, and what
 * somebody waits for, as so many cells as the client wants to draw. Control thread.
 */
#include "engine/monitor/monitor.h"

#define CELLS_PRESET 256
#define CELLS_MAX    4096

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
