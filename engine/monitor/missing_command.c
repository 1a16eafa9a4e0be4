/* SPDX-License-Identifier: MIT */
/*
 * Commands of our own about what the other side still has. x-query-missing-pages: which pages are
 * not here (destination) or were not sent (source), as ranges. x-peer-lost: whoever types it knows
 * that the other side's process is gone, and what then happens need not wait. x-take-back: a
 * destination's record shows that it never ran the guest. Control thread.
 */
#include "engine/monitor/monitor.h"

#define RANGES_MAX 4096u /* of one reply */

JsonNode *
missing_query_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    JsonArray *list = json_array_new();
    FaultlineRange range = {0};
    int64_t pages = 0;
    unsigned count = 0;

    for (; faultline_next_missing(monitor->faultline, &range); count++) {
        pages += (int64_t)range.count_pages;
        if (count >= RANGES_MAX)
            continue;
        JsonObject *row = json_object_new();
        json_object_set_string_member(row, "block", range.block);
        json_object_set_int_member(row, "offset", (int64_t)range.page * FAULTLINE_PAGE_BYTES);
        json_object_set_int_member(row, "length",
                                   (int64_t)range.count_pages * FAULTLINE_PAGE_BYTES);
        json_array_add_object_element(list, row);
    }
    JsonObject *reply = json_object_new();
    json_object_set_int_member(reply, "pages", pages);
    json_object_set_int_member(reply, "count-ranges", count);
    json_object_set_array_member(reply, "ranges", list); /* the first of them */
    return command_reply(reply);
}

JsonNode *
missing_peer_lost_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object;
    if (monitor->host.peer_lost == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "x-peer-lost: this program has no policy for a lost peer");
        return NULL;
    }
    return monitor->host.peer_lost(monitor->opaque, error) ? command_reply(json_object_new())
                                                           : NULL;
}

JsonNode *
missing_take_back_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    const char *directory = json_object_get_string_member(object, "directory");
    bool has_ended =
        json_object_has_member(object, "ended") && json_object_get_boolean_member(object, "ended");

    if (monitor->host.take_back == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "x-take-back: this program reads no records");
        return NULL;
    }
    return monitor->host.take_back(monitor->opaque, directory, has_ended, error)
               ? command_reply(json_object_new())
               : NULL;
}

bool
hmp_take_back(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
              GError **error)
{
    g_autoptr(JsonObject) arguments = json_object_new();
    (void)output;

    if (words[0] != NULL && g_str_equal(words[0], "-e")) {
        json_object_set_boolean_member(arguments, "ended", true);
        words++;
    }
    if (g_strv_length(words) != 1)
        return hmp_refuse(error, "expecting the destination's state directory");
    json_object_set_string_member(arguments, "directory", words[0]);
    g_autoptr(JsonNode) result = command_run(monitor, command, arguments, error);
    return result != NULL;
}

bool
hmp_info_missing(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
                 GError **error)
{
    (void)command, (void)words, (void)error;
    FaultlineRange range = {0};
    uint64_t pages = 0;

    for (unsigned count = 0; faultline_next_missing(monitor->faultline, &range); count++) {
        pages += range.count_pages;
        if (count < RANGES_MAX)
            g_string_append_printf(output,
                                   "%s: 0x%" G_GINT64_MODIFIER "x to 0x%" G_GINT64_MODIFIER "x\n",
                                   range.block, range.page * FAULTLINE_PAGE_BYTES,
                                   (range.page + range.count_pages) * FAULTLINE_PAGE_BYTES - 1);
    }
    g_string_append_printf(output, "missing pages: %" G_GUINT64_FORMAT "\n", pages);
    return true;
}
