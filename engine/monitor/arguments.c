/* SPDX-License-Identifier: MIT */
/*
 * Checks the arguments of a command against its row, before the handler sees them: unknown ones,
 * missing ones, wrong types, and for parameters the range of their own table.
 *
 * The texts name the argument by its path ("channels[0].addr.transport"). What a value means is
 * left to the handlers. Control thread.
 */
#include "engine/monitor/monitor.h"

static const char *const type_names[] = {
    [ARGUMENT_STRING] = "string", [ARGUMENT_BOOLEAN] = "boolean", [ARGUMENT_INTEGER] = "integer",
    [ARGUMENT_ARRAY] = "array",   [ARGUMENT_OBJECT] = "object",
};
G_STATIC_ASSERT(G_N_ELEMENTS(type_names) == ARGUMENT_TYPE_COUNT);

static bool
has_type(JsonNode *node, ArgumentType type)
{
    switch (type) {
    case ARGUMENT_STRING:
        return JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING;
    case ARGUMENT_BOOLEAN:
        return JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_BOOLEAN;
    case ARGUMENT_INTEGER:
        return JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_INT64;
    case ARGUMENT_ARRAY:
        return JSON_NODE_HOLDS_ARRAY(node);
    case ARGUMENT_OBJECT:
        return JSON_NODE_HOLDS_OBJECT(node);
    default:
        return false;
    }
}

static bool
refuse_type(const char *prefix, const char *name, ArgumentType type, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "Invalid parameter type for '%s%s', expected: %s", prefix, name, type_names[type]);
    return false;
}

static bool
refuse_unknown(const char *prefix, const char *name, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, "Parameter '%s%s' is unexpected",
                prefix, name);
    return false;
}

static const Argument *
find_argument(const Argument *arguments, const char *name)
{
    for (const Argument *a = arguments; a != NULL && a->name != NULL; a++)
        if (g_str_equal(a->name, name))
            return a;
    return NULL;
}

static bool
check_member(const Argument *argument, JsonNode *node, const char *prefix, GError **error)
{
    if (!has_type(node, argument->type))
        return refuse_type(prefix, argument->name, argument->type, error);
    if (argument->type == ARGUMENT_STRING &&
        !g_utf8_validate(json_node_get_string(node), -1, NULL)) {
        /* Half of a surrogate pair, written as an escape. */
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Parameter '%s%s' is not valid Unicode", prefix, argument->name);
        return false;
    }
    if (argument->type == ARGUMENT_INTEGER && json_node_get_int(node) < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Parameter '%s%s' expects an integer that is not negative", prefix,
                    argument->name);
        return false;
    }
    return true;
}

bool
arguments_check(const Argument *arguments, JsonObject *object, const char *prefix, GError **error)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *node;
    json_object_iter_init(&iter, object);
    while (json_object_iter_next(&iter, &name, &node)) {
        const Argument *argument = find_argument(arguments, name);
        if (argument == NULL)
            return refuse_unknown(prefix, name, error);
        if (!check_member(argument, node, prefix, error))
            return false;
    }
    for (const Argument *a = arguments; a != NULL && a->name != NULL; a++) {
        if (a->optional || json_object_has_member(object, a->name))
            continue;
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, "Parameter '%s%s' is missing",
                    prefix, a->name);
        return false;
    }
    return true;
}

bool
arguments_check_range(const FaultlineParameterRow *row, uint64_t value, GError **error)
{
    if (value >= row->least && value <= row->greatest)
        return true;
    const char *unit = row->unit != NULL ? row->unit : "";
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "Parameter '%s' expects a value from %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT
                "%s%s, not %" G_GUINT64_FORMAT,
                row->name, row->least, row->greatest, *unit != '\0' ? " " : "", unit, value);
    return false;
}

const FaultlineParameterRow *
arguments_find_parameter(const char *name)
{
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name != NULL; row++)
        if (g_str_equal(row->name, name))
            return row;
    return NULL;
}

static const ArgumentType parameter_types[] = {
    [FAULTLINE_TYPE_INTEGER] = ARGUMENT_INTEGER,
    [FAULTLINE_TYPE_SIZE] = ARGUMENT_INTEGER,
    [FAULTLINE_TYPE_BOOLEAN] = ARGUMENT_BOOLEAN,
    [FAULTLINE_TYPE_TEXT] = ARGUMENT_STRING,
};
G_STATIC_ASSERT(G_N_ELEMENTS(parameter_types) == FAULTLINE_TYPE_TEXT + 1);

const char *
arguments_text_parameter(JsonNode *node)
{
    return JSON_NODE_HOLDS_NULL(node) ? "" : json_node_get_string(node);
}

uint64_t
arguments_parameter(JsonNode *node)
{
    if (has_type(node, ARGUMENT_BOOLEAN))
        return json_node_get_boolean(node);
    return (uint64_t)json_node_get_int(node);
}

bool
arguments_check_parameters(JsonObject *object, GError **error)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *node;
    json_object_iter_init(&iter, object);
    while (json_object_iter_next(&iter, &name, &node)) {
        const FaultlineParameterRow *row = arguments_find_parameter(name);
        if (row == NULL)
            return refuse_unknown("", name, error);
        bool is_text = row->type == FAULTLINE_TYPE_TEXT;
        Argument argument = {row->name, parameter_types[row->type], true};
        if (is_text && JSON_NODE_HOLDS_NULL(node))
            continue;
        if (!check_member(&argument, node, "", error) ||
            (!is_text && !arguments_check_range(row, arguments_parameter(node), error)))
            return false;
    }
    return true;
}

const char *
arguments_string(JsonObject *object, const char *name)
{
    if (!json_object_has_member(object, name))
        return NULL;
    return json_object_get_string_member(object, name);
}

bool
arguments_boolean(JsonObject *object, const char *name, bool otherwise)
{
    if (!json_object_has_member(object, name))
        return otherwise;
    return json_object_get_boolean_member(object, name);
}
