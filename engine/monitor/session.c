/* SPDX-License-Identifier: MIT */
/*
 * One QMP client: greeting, negotiation, commands in, replies out.
 *
 * A broken command costs an error reply, hostile input (frame.c) an error reply and the session. A
 * client that cannot take a line loses its session too: a reply that is missing in the middle
 * would make all later ones lies. Commands are answered one by one in the order they come; as none
 * of them blocks, exec-oob is the same with a check that the command's row allows it.
 * Control thread.
 */
#include <string.h>

#include "engine/monitor/monitor.h"

struct FaultlineSession {
    FaultlineMonitor *monitor;
    bool (*write)(void *opaque, const char *bytes, size_t length_bytes);
    int (*take_fd)(void *opaque); /* NULL: its client cannot send descriptors */
    void *opaque;
    Frame *frame;
    bool has_negotiated, has_oob;
    bool is_over;
};

/* ---- Lines out ------------------------------------------------------------------------------- */

static void
send_node(FaultlineSession *session, JsonNode *node)
{
    if (session->is_over)
        return;
    g_autofree char *text = json_to_string(node, FALSE);
    /* An echoed id may hold half of a surrogate pair. */
    g_autofree char *valid = g_utf8_make_valid(text, -1);
    g_autofree char *line = g_strconcat(valid, "\r\n", NULL);
    session->is_over = !session->write(session->opaque, line, strlen(line));
}

static void
send_object(FaultlineSession *session, JsonObject *object)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, object);
    send_node(session, node);
}

static void
send_greeting(FaultlineSession *session)
{
    JsonArray *capabilities = json_array_new();
    json_array_add_string_element(capabilities, "oob");
    JsonObject *qmp = json_object_new();
    json_object_set_object_member(qmp, "version", command_version());
    json_object_set_array_member(qmp, "capabilities", capabilities);
    JsonObject *greeting = json_object_new();
    json_object_set_object_member(greeting, "QMP", qmp);
    send_object(session, greeting);
}

static void
set_id(JsonObject *reply, JsonNode *id)
{
    if (id != NULL)
        json_object_set_member(reply, "id", json_node_copy(id));
}

static void
send_return(FaultlineSession *session, JsonNode *id, JsonNode *result)
{
    JsonObject *reply = json_object_new();
    json_object_set_member(reply, "return", result);
    set_id(reply, id);
    send_object(session, reply);
}

static void
send_error(FaultlineSession *session, JsonNode *id, const char *class, const char *text)
{
    JsonObject *details = json_object_new();
    json_object_set_string_member(details, "class", class);
    json_object_set_string_member(details, "desc", text);
    JsonObject *reply = json_object_new();
    json_object_set_object_member(reply, "error", details);
    set_id(reply, id);
    send_object(session, reply);
}

void
session_send_event(FaultlineSession *session, JsonNode *event)
{
    if (session->has_negotiated)
        send_node(session, event);
}

/* ---- One command ----------------------------------------------------------------------------- */

typedef struct Request {
    const char *command;
    JsonObject *arguments; /* owned */
    JsonNode *id;          /* NULL: none */
    bool out_of_band;
} Request;

static bool
refuse(GError **error, const char *format, const char *name)
{
    g_autofree char *text = g_strdup_printf(format, name);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return false;
}

static bool
is_string(JsonNode *node)
{
    return JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING;
}

static bool
read_command_name(FaultlineSession *session, const char *member, JsonNode *node, Request *ret,
                  GError **error)
{
    ret->out_of_band = g_str_equal(member, "exec-oob");
    if (ret->out_of_band && !session->has_oob)
        return refuse(error, "QMP input member '%s' is unexpected", member);
    if (ret->command != NULL)
        return refuse(error, "QMP input member '%s' clashes with another one", member);
    if (!is_string(node))
        return refuse(error, "QMP input member '%s' must be a string", member);
    ret->command = json_node_get_string(node);
    return true;
}

static bool
read_member(FaultlineSession *session, const char *member, JsonNode *node, Request *ret,
            GError **error)
{
    if (g_str_equal(member, "execute") || g_str_equal(member, "exec-oob"))
        return read_command_name(session, member, node, ret, error);
    if (g_str_equal(member, "id"))
        return true;
    if (!g_str_equal(member, "arguments"))
        return refuse(error, "QMP input member '%s' is unexpected", member);
    if (!JSON_NODE_HOLDS_OBJECT(node))
        return refuse(error, "QMP input member '%s' must be an object", member);
    ret->arguments = json_node_dup_object(node);
    return true;
}

static bool
read_request(FaultlineSession *session, JsonNode *root, Request *ret, GError **error)
{
    JsonObject *object = json_node_get_object(root);
    JsonObjectIter iter;
    const char *member;
    JsonNode *node;
    ret->id = json_object_get_member(object, "id");
    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &member, &node))
        if (!read_member(session, member, node, ret, error))
            return false;
    if (ret->command == NULL)
        return refuse(error, "QMP input lacks member '%s'", "execute");
    if (ret->arguments == NULL)
        ret->arguments = json_object_new();
    return true;
}

/* The capabilities a client may enable: oob. */
static bool
negotiate(FaultlineSession *session, const Command *command, JsonObject *arguments, GError **error)
{
    if (!arguments_check(command->arguments, arguments, "", error))
        return false;
    bool has_oob = false;
    JsonArray *enable = json_object_has_member(arguments, "enable")
                            ? json_object_get_array_member(arguments, "enable")
                            : NULL;
    for (unsigned i = 0; enable != NULL && i < json_array_get_length(enable); i++) {
        JsonNode *node = json_array_get_element(enable, i);
        if (!is_string(node))
            return refuse(error, "Invalid parameter type for '%s', expected: string", "enable");
        if (!g_str_equal(json_node_get_string(node), "oob"))
            return refuse(error, "QMP capability '%s' is not available",
                          json_node_get_string(node));
        has_oob = true;
    }
    session->has_oob = has_oob;
    session->has_negotiated = true;
    return true;
}

/* NULL: the command is not to be had now, and *ret_refusal says why. */
static const Command *
find_command(FaultlineSession *session, const char *name, char **ret_refusal)
{
    const Command *command = command_find(name);
    if (command != NULL && command->negotiation != session->has_negotiated)
        return command;
    if (!session->has_negotiated)
        *ret_refusal = g_strdup("Expecting capabilities negotiation with 'qmp_capabilities'");
    else if (command != NULL)
        *ret_refusal = g_strdup("Capabilities negotiation is already complete, command ignored");
    else
        *ret_refusal = g_strdup_printf("The command %s has not been found", name);
    return NULL;
}

static JsonNode *
run_request(FaultlineSession *session, const Command *command, const Request *request,
            GError **error)
{
    if (request->out_of_band && !command->out_of_band) {
        refuse(error, "The command %s does not support OOB", command->name);
        return NULL;
    }
    if (command->negotiation)
        return negotiate(session, command, request->arguments, error) ? command_done() : NULL;
    session->monitor->current = session;
    JsonNode *result = command_run(session->monitor, command, request->arguments, error);
    session->monitor->current = NULL;
    /* What a command caused is told before its reply. */
    faultline_monitor_pump(session->monitor);
    return result;
}

static void
execute(FaultlineSession *session, JsonNode *root)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *refusal = NULL;
    Request request = {.command = NULL};
    JsonNode *result = NULL;
    if (read_request(session, root, &request, &error)) {
        const Command *command = find_command(session, request.command, &refusal);
        if (command != NULL)
            result = run_request(session, command, &request, &error);
    }
    if (result != NULL)
        send_return(session, request.id, result);
    else if (refusal != NULL)
        send_error(session, request.id, "CommandNotFound", refusal);
    else
        send_error(session, request.id, "GenericError", error->message);
    g_clear_pointer(&request.arguments, json_object_unref);
}

/* ---- Bytes in -------------------------------------------------------------------------------- */

static void
send_parse_error(FaultlineSession *session, const char *problem, const char *more)
{
    g_autofree char *text = g_strconcat("JSON parse error, ", problem, more, NULL);
    send_error(session, NULL, "GenericError", text);
}

static void
take_value(FaultlineSession *session, const char *text)
{
    const char *problem = grammar_find_problem(text);
    if (problem != NULL) {
        send_parse_error(session, problem, NULL);
        return;
    }
    g_autoptr(JsonParser) parser = json_parser_new();
    g_autoptr(GError) error = NULL;
    if (!json_parser_load_from_data(parser, text, -1, &error)) {
        send_parse_error(session, error->message, NULL);
        return;
    }
    JsonNode *root = json_parser_get_root(parser);
    if (root == NULL || !JSON_NODE_HOLDS_OBJECT(root))
        send_error(session, NULL, "GenericError", "QMP input must be a JSON object");
    else
        execute(session, root);
}

static void
take_problem(FaultlineSession *session, bool is_hostile)
{
    send_parse_error(session, session->frame->problem, is_hostile ? "; the session ends" : NULL);
    session->is_over |= is_hostile;
}

bool
faultline_session_feed(FaultlineSession *session, const char *bytes, size_t length_bytes)
{
    while (length_bytes > 0 && !session->is_over) {
        size_t used;
        FrameResult result = frame_take(session->frame, bytes, length_bytes, &used);
        bytes += used;
        length_bytes -= used;
        if (result == FRAME_VALUE)
            take_value(session, session->frame->text->str);
        else if (result != FRAME_MORE)
            take_problem(session, result == FRAME_HOSTILE);
    }
    return !session->is_over;
}

FaultlineSession *
faultline_session_new(FaultlineMonitor *monitor,
                      bool (*write)(void *opaque, const char *bytes, size_t length_bytes),
                      void *opaque)
{
    FaultlineSession *session = g_new0(FaultlineSession, 1);
    session->monitor = monitor;
    session->write = write;
    session->opaque = opaque;
    session->frame = frame_new();
    g_ptr_array_add(monitor->sessions, session);
    send_greeting(session);
    return session;
}

void
faultline_session_free(FaultlineSession *session)
{
    if (session == NULL)
        return;
    g_ptr_array_remove(session->monitor->sessions, session);
    frame_free(session->frame);
    g_free(session);
}

void
faultline_session_accept_fds(FaultlineSession *session, int (*take_fd)(void *opaque))
{
    session->take_fd = take_fd;
}

int
session_take_fd(FaultlineSession *session)
{
    return session->take_fd != NULL ? session->take_fd(session->opaque) : -1;
}
