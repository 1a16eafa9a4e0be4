/* SPDX-License-Identifier: MIT */
/*
 * Descriptors that clients hand over with a command (SCM_RIGHTS): getfd keeps one by a name, for
 * `migrate fd:NAME`; add-fd keeps one in a numbered set.
 *
 * All sessions of a monitor see the same ones. One that a migration uses is the engine's from then
 * on, and gone from here; the others are closed by closefd, remove-fd, or with the monitor. Control
 * thread.
 */
#include <glib/gstdio.h>
#include <string.h>

#include "engine/monitor/monitor.h"

typedef struct SetFd {
    int64_t set;
    int fd;
    char *note; /* add-fd's "opaque"; NULL: none */
} SetFd;

static void
close_named(gpointer fd)
{
    g_close(GPOINTER_TO_INT(fd), NULL);
}

void
fds_init(FaultlineMonitor *monitor)
{
    monitor->named_fds = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, close_named);
    monitor->set_fds = g_array_new(FALSE, FALSE, sizeof(SetFd));
}

void
fds_clear(FaultlineMonitor *monitor)
{
    g_hash_table_destroy(monitor->named_fds);
    for (unsigned i = 0; i < monitor->set_fds->len; i++) {
        SetFd *entry = &g_array_index(monitor->set_fds, SetFd, i);
        g_close(entry->fd, NULL);
        g_free(entry->note);
    }
    g_array_free(monitor->set_fds, TRUE);
}

static void *refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void *
refuse(GError **error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return NULL;
}

static int
take_sent(FaultlineMonitor *monitor, const char *command, GError **error)
{
    int fd = monitor->current != NULL ? session_take_fd(monitor->current) : -1;
    if (fd < 0)
        refuse(
            error,
            "%s: no file descriptor came with it; send one by SCM_RIGHTS, through a unix socket, "
            "in the message of the command",
            command);
    return fd;
}

/* ---- By name --------------------------------------------------------------------------------- */

JsonNode *
fds_get_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    const char *name = arguments_string(object, "fdname");
    if (name[0] == '\0' || g_ascii_isdigit(name[0]))
        return refuse(error, "Parameter 'fdname' expects a name that does not begin with a digit");
    int fd = take_sent(monitor, "getfd", error);
    if (fd < 0)
        return NULL;
    g_hash_table_replace(monitor->named_fds, g_strdup(name), GINT_TO_POINTER(fd));
    return command_done();
}

JsonNode *
fds_close_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    const char *name = arguments_string(object, "fdname");
    if (!g_hash_table_remove(monitor->named_fds, name))
        return refuse(error, "closefd: there is no file descriptor named '%s'; getfd makes one",
                      name);
    return command_done();
}

/* ---- In sets --------------------------------------------------------------------------------- */

static int64_t
free_set(const GArray *fds)
{
    int64_t set = 0;
    for (unsigned i = 0; i < fds->len; i++)
        set = MAX(set, g_array_index(fds, SetFd, i).set + 1);
    return set;
}

JsonNode *
fds_add_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    int fd = take_sent(monitor, "add-fd", error);
    if (fd < 0)
        return NULL;
    SetFd entry = {.fd = fd, .note = g_strdup(arguments_string(object, "opaque"))};
    entry.set = json_object_has_member(object, "fdset-id")
                    ? json_object_get_int_member(object, "fdset-id")
                    : free_set(monitor->set_fds);
    g_array_append_val(monitor->set_fds, entry);
    JsonObject *reply = json_object_new();
    json_object_set_int_member(reply, "fdset-id", entry.set);
    json_object_set_int_member(reply, "fd", fd);
    return command_reply(reply);
}

static void
drop_set_fd(FaultlineMonitor *monitor, unsigned index, bool closes)
{
    SetFd *entry = &g_array_index(monitor->set_fds, SetFd, index);
    if (closes)
        g_close(entry->fd, NULL);
    g_free(entry->note);
    g_array_remove_index(monitor->set_fds, index);
}

JsonNode *
fds_remove_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    int64_t set = json_object_get_int_member(object, "fdset-id");
    int64_t fd = json_object_get_int_member_with_default(object, "fd", -1);
    unsigned before = monitor->set_fds->len;
    for (unsigned i = before; i-- > 0;) {
        const SetFd *entry = &g_array_index(monitor->set_fds, SetFd, i);
        if (entry->set == set && (fd < 0 || entry->fd == fd))
            drop_set_fd(monitor, i, true);
    }
    if (monitor->set_fds->len == before)
        return refuse(error,
                      "remove-fd: there is no such file descriptor in set %" G_GINT64_FORMAT
                      "; query-fdsets lists them",
                      set);
    return command_done();
}

static JsonArray *
members_of(const GArray *fds, int64_t set)
{
    JsonArray *members = json_array_new();
    for (unsigned i = 0; i < fds->len; i++) {
        const SetFd *entry = &g_array_index(fds, SetFd, i);
        if (entry->set != set)
            continue;
        JsonObject *member = json_object_new();
        json_object_set_int_member(member, "fd", entry->fd);
        if (entry->note != NULL)
            json_object_set_string_member(member, "opaque", entry->note);
        json_array_add_object_element(members, member);
    }
    return members;
}

static bool
is_first_of_set(const GArray *fds, unsigned index)
{
    for (unsigned i = 0; i < index; i++)
        if (g_array_index(fds, SetFd, i).set == g_array_index(fds, SetFd, index).set)
            return false;
    return true;
}

JsonNode *
fds_query_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    const GArray *fds = monitor->set_fds;
    JsonArray *list = json_array_new();
    for (unsigned i = 0; i < fds->len; i++) {
        if (!is_first_of_set(fds, i))
            continue;
        int64_t set = g_array_index(fds, SetFd, i).set;
        JsonObject *entry = json_object_new();
        json_object_set_int_member(entry, "fdset-id", set);
        json_object_set_array_member(entry, "fds", members_of(fds, set));
        json_array_add_object_element(list, entry);
    }
    JsonNode *node = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(node, list);
    return node;
}

/* ---- For a migration ------------------------------------------------------------------------- */

char *
fds_resolve(FaultlineMonitor *monitor, const char *uri, GError **error)
{
    gpointer fd;
    const char *name = g_str_has_prefix(uri, "fd:") ? uri + strlen("fd:") : "";
    if (name[0] == '\0' || g_ascii_isdigit(name[0]))
        return g_strdup(uri);
    if (!g_hash_table_lookup_extended(monitor->named_fds, name, NULL, &fd))
        return refuse(error,
                      "the address '%s' is not acceptable: no file descriptor has that name; getfd "
                      "gives one its name",
                      uri);
    return g_strdup_printf("fd:%d", GPOINTER_TO_INT(fd));
}

void
fds_forget(FaultlineMonitor *monitor, const char *resolved)
{
    guint64 fd;
    GHashTableIter iter;
    gpointer name, value;
    if (!g_str_has_prefix(resolved, "fd:") ||
        !g_ascii_string_to_unsigned(resolved + strlen("fd:"), 10, 0, INT_MAX, &fd, NULL))
        return;
    g_hash_table_iter_init(&iter, monitor->named_fds);
    while (g_hash_table_iter_next(&iter, &name, &value)) {
        if ((guint64)GPOINTER_TO_INT(value) != fd)
            continue;
        g_hash_table_iter_steal(&iter);
        g_free(name);
    }
    for (unsigned i = monitor->set_fds->len; i-- > 0;)
        if ((guint64)g_array_index(monitor->set_fds, SetFd, i).fd == fd)
            drop_set_fd(monitor, i, false);
}
