/* SPDX-License-Identifier: MIT */
/*
 * object-add and object-del, as QEMU has them, typed too. What a type takes is the engine's table;
 * here JSON becomes its names and texts.
 */
#include <string.h>

#include "engine/monitor/monitor.h"

/* Names and values to be handed over. */
typedef struct Flat {
    GArray *properties; /* FaultlineProperty */
    GPtrArray *texts;   /* that they point to */
} Flat;

static bool
refuse(const char *name, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "Invalid parameter type for '%s', expected: string, boolean or number", name);
    return false;
}

static char *
keep(Flat *flat, char *text)
{
    g_ptr_array_add(flat->texts, text);
    return text;
}

static bool add_node(Flat *flat, const char *name, JsonNode *node, GError **error);

static bool
add_object(Flat *flat, const char *prefix, JsonObject *object, GError **error)
{
    JsonObjectIter iter;
    const char *name;
    JsonNode *node;

    json_object_iter_init_ordered(&iter, object);
    while (json_object_iter_next_ordered(&iter, &name, &node)) {
        bool is_head =
            *prefix == '\0' && (strcmp(name, "qom-type") == 0 || strcmp(name, "id") == 0);
        if (is_head)
            continue;
        if (!add_node(flat, keep(flat, g_strconcat(prefix, name, NULL)), node, error))
            return false;
    }
    return true;
}

static bool
add_array(Flat *flat, const char *name, JsonArray *array, GError **error)
{
    for (unsigned i = 0; i < json_array_get_length(array); i++)
        if (!add_node(flat, keep(flat, g_strdup_printf("%s.%u", name, i)),
                      json_array_get_element(array, i), error))
            return false;
    return true;
}

static char *
value_text(JsonNode *node)
{
    switch (json_node_get_value_type(node)) {
    case G_TYPE_STRING:
        return g_strdup(json_node_get_string(node));
    case G_TYPE_BOOLEAN:
        return g_strdup(json_node_get_boolean(node) ? "on" : "off");
    case G_TYPE_INT64:
        return g_strdup_printf("%" G_GINT64_FORMAT, json_node_get_int(node));
    default:
        return NULL;
    }
}

/* The reader of JSON bounds the depth. */
static bool
add_node(Flat *flat, const char *name, JsonNode *node, GError **error)
{
    if (JSON_NODE_HOLDS_ARRAY(node))
        return add_array(flat, name, json_node_get_array(node), error);
    if (JSON_NODE_HOLDS_OBJECT(node))
        return add_object(flat, keep(flat, g_strconcat(name, ".", NULL)),
                          json_node_get_object(node), error);
    char *text = JSON_NODE_HOLDS_VALUE(node) ? value_text(node) : NULL;
    if (!text || !g_utf8_validate(text, -1, NULL)) {
        g_free(text);
        return refuse(name, error);
    }
    FaultlineProperty property = {name, keep(flat, text)};
    g_array_append_val(flat->properties, property);
    return true;
}

static const char *
string_member(JsonObject *object, const char *name, GError **error)
{
    JsonNode *node = json_object_get_member(object, name);

    if (node && JSON_NODE_HOLDS_VALUE(node) && json_node_get_value_type(node) == G_TYPE_STRING &&
        g_utf8_validate(json_node_get_string(node), -1, NULL))
        return json_node_get_string(node);
    if (node)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Invalid parameter type for '%s', expected: string", name);
    else
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, "Parameter '%s' is missing",
                    name);
    return NULL;
}

bool
object_add_check(JsonObject *object, GError **error)
{
    return string_member(object, "qom-type", error) && string_member(object, "id", error);
}

JsonNode *
object_add_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    Flat flat = {g_array_new(FALSE, FALSE, sizeof(FaultlineProperty)),
                 g_ptr_array_new_with_free_func(g_free)};

    bool is_made = add_object(&flat, "", object, error) &&
                   faultline_add_object(monitor->faultline, string_member(object, "qom-type", NULL),
                                        string_member(object, "id", NULL),
                                        (const FaultlineProperty *)flat.properties->data,
                                        flat.properties->len, error);
    g_array_unref(flat.properties);
    g_ptr_array_unref(flat.texts);
    return is_made ? command_done() : NULL;
}

JsonNode *
object_del_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    return faultline_remove_object(monitor->faultline, arguments_string(object, "id"), error)
               ? command_done()
               : NULL;
}

bool
hmp_object_add(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
               GError **error)
{
    (void)command, (void)output;
    if (g_strv_length(words) != 1)
        return hmp_refuse(error, "expecting TYPE,id=ID,NAME=VALUE,...");
    return faultline_add_object_text(monitor->faultline, words[0], error);
}

bool
hmp_object_del(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
               GError **error)
{
    (void)command, (void)output;
    if (g_strv_length(words) != 1)
        return hmp_refuse(error, "expecting an id");
    return faultline_remove_object(monitor->faultline, words[0], error);
}
