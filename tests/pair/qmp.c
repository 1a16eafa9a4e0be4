/* SPDX-License-Identifier: MIT */
/* See qmp.h. One thread, the test's; sleeps in poll() only. */
#include "tests/pair/qmp.h"

#include <errno.h>
#include <gio/gio.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define ANSWER_TIMEOUT_MS 60000

struct Qmp {
    int fd;
    GString *bytes;  /* read and not yet a whole line */
    GString *events; /* what qmp_events returns */
    GArray *times;   /* int64_t, us since 1970, of each of them */
};

static bool
fail(GError **error, const char *what, const char *why)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "qmp: %s: %s", what, why);
    return false;
}

/* Reads what there is, waiting up to timeout_ms for the first byte. */
static bool
fill(Qmp *qmp, int timeout_ms, GError **error)
{
    struct pollfd ready = {.fd = qmp->fd, .events = POLLIN};
    char buffer[4096];

    if (poll(&ready, 1, timeout_ms) == 0)
        return fail(error, "waiting for an answer", "timed out");
    ssize_t count = read(qmp->fd, buffer, sizeof(buffer));
    if (count <= 0)
        return fail(error, "reading", count == 0 ? "the machine hung up" : g_strerror(errno));
    g_string_append_len(qmp->bytes, buffer, count);
    return true;
}

static void
note_time(Qmp *qmp, JsonObject *message)
{
    int64_t time_us = 0;

    if (json_object_has_member(message, "timestamp")) {
        JsonObject *stamp = json_object_get_object_member(message, "timestamp");
        time_us = json_object_get_int_member(stamp, "seconds") * G_USEC_PER_SEC +
                  json_object_get_int_member(stamp, "microseconds");
    }
    g_array_append_val(qmp->times, time_us);
}

static void
note_event(Qmp *qmp, JsonObject *message)
{
    const char *name = json_object_get_string_member(message, "event");
    JsonObject *data = json_object_has_member(message, "data")
                           ? json_object_get_object_member(message, "data")
                           : NULL;

    g_string_append_printf(qmp->events, "%s%s", qmp->events->len ? " " : "", name);
    if (data && json_object_has_member(data, "status"))
        g_string_append_printf(qmp->events, ":%s", json_object_get_string_member(data, "status"));
    if (data && json_object_has_member(data, "pass"))
        g_string_append_printf(qmp->events, ":%" G_GINT64_FORMAT,
                               json_object_get_int_member(data, "pass"));
    note_time(qmp, message);
}

/* The next line as an object, or NULL without an error when no whole line is there. */
static JsonNode *
take_line(Qmp *qmp, GError **error)
{
    char *end = memchr(qmp->bytes->str, '\n', qmp->bytes->len);
    if (!end)
        return NULL;
    gsize length = (gsize)(end - qmp->bytes->str) + 1;
    g_autofree char *line = g_strndup(qmp->bytes->str, length);
    g_string_erase(qmp->bytes, 0, (gssize)length);
    JsonNode *node = json_from_string(line, error);
    if (node && !JSON_NODE_HOLDS_OBJECT(node)) {
        fail(error, "reading a line", "it is no JSON object");
        g_clear_pointer(&node, json_node_unref);
    }
    return node;
}

/* The next line that is no event. */
static JsonNode *
next_answer(Qmp *qmp, int timeout_ms, GError **error)
{
    for (;;) {
        g_autoptr(GError) reason = NULL;
        JsonNode *node = take_line(qmp, &reason);

        if (reason) {
            g_propagate_error(error, g_steal_pointer(&reason));
            return NULL;
        }
        if (!node) {
            if (!fill(qmp, timeout_ms, error))
                return NULL;
            continue;
        }
        if (!json_object_has_member(json_node_get_object(node), "event"))
            return node;
        note_event(qmp, json_node_get_object(node));
        json_node_unref(node);
    }
}

static int
connect_path(const char *path, int timeout_ms)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    gint64 until = g_get_monotonic_time() + timeout_ms * (gint64)1000;

    g_strlcpy(address.sun_path, path, sizeof(address.sun_path));
    do {
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
            return fd;
        close(fd);
        g_usleep(10000);
    } while (g_get_monotonic_time() < until);
    return -1;
}

Qmp *
qmp_open(const char *path, int timeout_ms, GError **error)
{
    Qmp *qmp = g_new0(Qmp, 1);

    qmp->bytes = g_string_new(NULL);
    qmp->events = g_string_new(NULL);
    qmp->times = g_array_new(FALSE, FALSE, sizeof(int64_t));
    qmp->fd = connect_path(path, timeout_ms);
    if (qmp->fd < 0)
        fail(error, path, "nobody listens");
    g_autoptr(JsonNode) greeting = qmp->fd < 0 ? NULL : next_answer(qmp, timeout_ms, error);
    if (greeting && !json_object_has_member(json_node_get_object(greeting), "QMP"))
        fail(error, "connecting", "the first line is no greeting");
    else if (greeting) {
        g_autoptr(JsonNode) agreed = qmp_call(qmp, "qmp_capabilities", NULL, error);
        if (agreed)
            return qmp;
    }
    qmp_close(qmp);
    return NULL;
}

void
qmp_close(Qmp *qmp)
{
    if (!qmp)
        return;
    if (qmp->fd >= 0)
        close(qmp->fd);
    g_string_free(qmp->bytes, TRUE);
    g_string_free(qmp->events, TRUE);
    g_array_unref(qmp->times);
    g_free(qmp);
}

JsonNode *
qmp_call(Qmp *qmp, const char *command, const char *arguments, GError **error)
{
    g_autofree char *line =
        g_strdup_printf("{\"execute\": \"%s\"%s%s}\n", command,
                        arguments ? ", \"arguments\": " : "", arguments ? arguments : "");

    if (send(qmp->fd, line, strlen(line), MSG_NOSIGNAL) != (ssize_t)strlen(line)) {
        fail(error, command, "cannot send");
        return NULL;
    }
    g_autoptr(JsonNode) answer = next_answer(qmp, ANSWER_TIMEOUT_MS, error);
    if (!answer)
        return NULL;
    JsonObject *object = json_node_get_object(answer);
    if (json_object_has_member(object, "return"))
        return json_node_copy(json_object_get_member(object, "return"));
    const char *why = "the answer has neither return nor error";
    if (json_object_has_member(object, "error"))
        why = json_object_get_string_member(json_object_get_object_member(object, "error"), "desc");
    fail(error, command, why);
    return NULL;
}

const char *
qmp_events(Qmp *qmp)
{
    struct pollfd ready = {.fd = qmp->fd, .events = POLLIN};

    while (poll(&ready, 1, 0) > 0 && fill(qmp, 0, NULL))
        ;
    for (;;) {
        g_autoptr(JsonNode) node = take_line(qmp, NULL);
        if (!node)
            return qmp->events->str;
        if (json_object_has_member(json_node_get_object(node), "event"))
            note_event(qmp, json_node_get_object(node));
    }
}

static int64_t
find_event(Qmp *qmp, const char *event, bool want_last)
{
    g_auto(GStrv) words = g_strsplit(qmp->events->str, " ", -1);
    int64_t found_us = 0;

    for (guint i = 0; i < qmp->times->len && words[i]; i++)
        if (g_str_equal(words[i], event) && (want_last || !found_us))
            found_us = g_array_index(qmp->times, int64_t, i);
    return found_us;
}

int64_t
qmp_event_first_us(Qmp *qmp, const char *event)
{
    return find_event(qmp, event, false);
}

int64_t
qmp_event_last_us(Qmp *qmp, const char *event)
{
    return find_event(qmp, event, true);
}
