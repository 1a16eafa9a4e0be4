/* SPDX-License-Identifier: MIT */
/*
 * QMP from the client's side: JSON lines over a unix socket. Waits for a reply without limit unless
 * it is given one, as a monitor command may last as long as a migration. Runs on its caller's
 * thread.
 */
#include "kvm/qmp_client.h"

#include <gio/gunixsocketaddress.h>
#include <string.h>

#define PATH_LIMIT 107 /* sun_path without its final zero */

struct QmpClient {
    GSocketConnection *connection;
    GDataInputStream *input;
    void (*take_event)(void *opaque, JsonObject *event);
    void *event_opaque;
};

void
qmp_client_free(QmpClient *client)
{
    g_clear_object(&client->input);
    g_clear_object(&client->connection);
    g_free(client);
}

void
qmp_client_on_event(QmpClient *client, void (*take)(void *opaque, JsonObject *event), void *opaque)
{
    client->take_event = take;
    client->event_opaque = opaque;
}

void
qmp_client_set_patience(QmpClient *client, unsigned timeout_s)
{
    g_socket_set_timeout(g_socket_connection_get_socket(client->connection), timeout_s);
}

/* What GLib says of a time that is over does not say whose. */
static void
explain_silence(const QmpClient *client, GError **error)
{
    if (!error || !g_error_matches(*error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
        return;
    g_clear_error(error);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT,
                "the machine has not answered for %u s; is its process stopped (SIGSTOP, a "
                "debugger), or is the socket another program's?",
                g_socket_get_timeout(g_socket_connection_get_socket(client->connection)));
}

/* The next message; blank lines are passed over. */
static JsonNode *
read_message(QmpClient *client, GError **error)
{
    while (true) {
        g_autofree char *line = g_data_input_stream_read_line(client->input, NULL, NULL, error);
        if (!line) {
            explain_silence(client, error);
            if (error && !*error)
                g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CLOSED,
                                    "the machine closed the monitor connection");
            return NULL;
        }
        if (!*g_strchomp(line))
            continue;

        g_autoptr(JsonNode) node = json_from_string(line, error);
        if (node && JSON_NODE_HOLDS_OBJECT(node))
            return g_steal_pointer(&node);
        g_clear_error(error);
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "the monitor's answer is no JSON object: %.60s; is the socket a QMP one?",
                    line);
        return NULL;
    }
}

static void
set_peer_error(JsonObject *message, const char *command, GError **error)
{
    JsonNode *node = json_object_get_member(message, "error");
    const char *text = "no reason given";

    if (node && JSON_NODE_HOLDS_OBJECT(node))
        text = json_object_get_string_member_with_default(json_node_get_object(node), "desc", text);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "%s: %s", command, text);
}

JsonNode *
qmp_client_execute(QmpClient *client, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) request = json_node_new(JSON_NODE_OBJECT);
    JsonObject *object = json_object_new();
    json_node_take_object(request, object);
    json_object_set_string_member(object, "execute", command);
    if (arguments)
        json_object_set_object_member(object, "arguments", arguments);

    g_autofree char *text = json_to_string(request, FALSE);
    g_autofree char *line = g_strconcat(text, "\n", NULL);
    GOutputStream *output = g_io_stream_get_output_stream(G_IO_STREAM(client->connection));
    if (!g_output_stream_write_all(output, line, strlen(line), NULL, NULL, error)) {
        g_prefix_error(error, "sending %s: ", command);
        return NULL;
    }

    while (true) {
        g_autoptr(JsonNode) message = read_message(client, error);
        if (!message)
            return NULL;
        JsonObject *reply = json_node_get_object(message);
        if (json_object_has_member(reply, "return"))
            return json_object_dup_member(reply, "return");
        if (json_object_has_member(reply, "error")) {
            set_peer_error(reply, command, error);
            return NULL;
        }
        if (json_object_has_member(reply, "event") && client->take_event)
            client->take_event(client->event_opaque, reply);
    }
}

static bool
greet(QmpClient *client, GError **error)
{
    g_autoptr(JsonNode) greeting = read_message(client, error);
    if (!greeting)
        return false;
    if (!json_object_has_member(json_node_get_object(greeting), "QMP")) {
        g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                            "no QMP greeting; is the socket a QMP one?");
        return false;
    }
    g_autoptr(JsonNode) done = qmp_client_execute(client, "qmp_capabilities", NULL, error);
    return done != NULL;
}

QmpClient *
qmp_client_open(const char *path, GError **error)
{
    return qmp_client_open_within(path, 0, error);
}

QmpClient *
qmp_client_open_within(const char *path, unsigned timeout_s, GError **error)
{
    if (g_str_has_prefix(path, "unix:"))
        path += strlen("unix:");
    if (!*path || strlen(path) > PATH_LIMIT) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_ARGUMENT,
                    "connecting to the monitor: a socket's path has 1 to %d bytes, not %zu",
                    PATH_LIMIT, strlen(path));
        return NULL;
    }

    g_autoptr(GSocketClient) maker = g_socket_client_new();
    g_socket_client_set_timeout(maker, timeout_s);
    g_autoptr(GSocketAddress) address = g_unix_socket_address_new(path);
    g_autoptr(GSocketConnection) connection =
        g_socket_client_connect(maker, G_SOCKET_CONNECTABLE(address), NULL, error);
    if (!connection) {
        g_prefix_error(error, "connecting to the monitor at %s: ", path);
        return NULL;
    }

    g_autoptr(QmpClient) client = g_new0(QmpClient, 1);
    client->input = g_data_input_stream_new(g_io_stream_get_input_stream(G_IO_STREAM(connection)));
    client->connection = g_steal_pointer(&connection);
    if (!greet(client, error)) {
        g_prefix_error(error, "talking to the monitor at %s: ", path);
        return NULL;
    }
    return g_steal_pointer(&client);
}
