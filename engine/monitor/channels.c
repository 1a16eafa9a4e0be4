/* SPDX-License-Identifier: MIT */
/*
 * Where a migration goes: `uri` or `channels` of QMP to the URI that faultline.h takes, and such a
 * URI back to QMP's SocketAddress.
 *
 * Checks the shape of `channels`; whether host, port or path are good is for faultline_migrate()
 * and faultline_incoming() to say. Control thread.
 */
#include <string.h>

#include "engine/monitor/monitor.h"

static const Argument arguments_channel[] = {
    {"channel-type", ARGUMENT_STRING, false},
    {"addr", ARGUMENT_OBJECT, false},
    {NULL, 0, false},
};

static const Argument arguments_inet[] = {
    {"transport", ARGUMENT_STRING, false},
    {"type", ARGUMENT_STRING, false},
    {"host", ARGUMENT_STRING, false},
    {"port", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_unix[] = {
    {"transport", ARGUMENT_STRING, false},
    {"type", ARGUMENT_STRING, false},
    {"path", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static const Argument arguments_fd[] = {
    {"transport", ARGUMENT_STRING, false},
    {"type", ARGUMENT_STRING, false},
    {"str", ARGUMENT_STRING, false},
    {NULL, 0, false},
};

static char *
inet_uri(JsonObject *address)
{
    const char *host = arguments_string(address, "host"), *port = arguments_string(address, "port");
    bool is_ipv6 = strchr(host, ':') != NULL && host[0] != '[';
    return g_strdup_printf(is_ipv6 ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

static char *
unix_uri(JsonObject *address)
{
    return g_strconcat("unix:", arguments_string(address, "path"), NULL);
}

static char *
fd_uri(JsonObject *address)
{
    return g_strconcat("fd:", arguments_string(address, "str"), NULL);
}

static const struct {
    const char *type;
    const Argument *arguments;
    char *(*uri)(JsonObject *address);
} socket_types[] = {
    {"inet", arguments_inet, inet_uri},
    {"unix", arguments_unix, unix_uri},
    {"fd", arguments_fd, fd_uri},
};

static void
refuse(GError **error, const char *text)
{
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
}

static bool
member_is(JsonObject *object, const char *name, const char *text)
{
    JsonNode *node = json_object_get_member(object, name);
    return node != NULL && JSON_NODE_HOLDS_VALUE(node) &&
           json_node_get_value_type(node) == G_TYPE_STRING &&
           g_str_equal(json_node_get_string(node), text);
}

static char *
address_uri(JsonObject *address, GError **error)
{
    if (!member_is(address, "transport", "socket")) {
        refuse(error, "Parameter 'channels[0].addr.transport' must be 'socket'");
        return NULL;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(socket_types); i++) {
        if (!member_is(address, "type", socket_types[i].type))
            continue;
        if (!arguments_check(socket_types[i].arguments, address, "channels[0].addr.", error))
            return NULL;
        return socket_types[i].uri(address);
    }
    refuse(error, "Parameter 'channels[0].addr.type' must be 'inet', 'unix' or 'fd'");
    return NULL;
}

static char *
list_uri(JsonArray *list, GError **error)
{
    if (json_array_get_length(list) != 1) {
        refuse(error, "Parameter 'channels' must have one entry, of channel-type 'main'");
        return NULL;
    }
    JsonNode *node = json_array_get_element(list, 0);
    if (!JSON_NODE_HOLDS_OBJECT(node)) {
        refuse(error, "Invalid parameter type for 'channels[0]', expected: object");
        return NULL;
    }
    JsonObject *channel = json_node_get_object(node);
    if (!arguments_check(arguments_channel, channel, "channels[0].", error))
        return NULL;
    if (!member_is(channel, "channel-type", "main")) {
        refuse(error, "Parameter 'channels[0].channel-type' must be 'main'");
        return NULL;
    }
    return address_uri(json_object_get_object_member(channel, "addr"), error);
}

char *
channels_uri(JsonObject *object, GError **error)
{
    bool has_list = json_object_has_member(object, "channels");
    if (has_list == json_object_has_member(object, "uri")) {
        refuse(error, "need exactly one of 'uri' and 'channels'");
        return NULL;
    }
    if (has_list)
        return list_uri(json_object_get_array_member(object, "channels"), error);
    return g_strdup(arguments_string(object, "uri"));
}

static JsonObject *
inet_address(const char *host_port)
{
    const char *colon = strrchr(host_port, ':');
    if (colon == NULL)
        return NULL;
    size_t length = (size_t)(colon - host_port);
    bool is_bracketed = length >= 2 && host_port[0] == '[' && colon[-1] == ']';
    g_autofree char *host =
        is_bracketed ? g_strndup(host_port + 1, length - 2) : g_strndup(host_port, length);
    JsonObject *address = json_object_new();
    json_object_set_string_member(address, "type", "inet");
    json_object_set_string_member(address, "host", host);
    json_object_set_string_member(address, "port", colon + 1);
    return address;
}

JsonObject *
channels_socket_address(const char *uri)
{
    if (g_str_has_prefix(uri, "tcp:"))
        return inet_address(uri + strlen("tcp:"));
    bool is_unix = g_str_has_prefix(uri, "unix:");
    if (!is_unix && !g_str_has_prefix(uri, "fd:"))
        return NULL;
    JsonObject *address = json_object_new();
    json_object_set_string_member(address, "type", is_unix ? "unix" : "fd");
    json_object_set_string_member(address, is_unix ? "path" : "str", strchr(uri, ':') + 1);
    return address;
}
