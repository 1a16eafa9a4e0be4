/* SPDX-License-Identifier: MIT */
/*
 * The description at the end of a precopy stream, held against the sections found; and loading of
 * captures. One thread.
 */
#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <string.h>

#include "tests/unit/support/walk.h"

static size_t
object_bytes(JsonObject *object)
{
    size_t bytes = 0;

    if (!json_object_has_member(object, "vmsd_name") && json_object_has_member(object, "size"))
        return (size_t)json_object_get_int_member(object, "size");
    JsonArray *fields = json_object_has_member(object, "fields")
                            ? json_object_get_array_member(object, "fields")
                            : NULL;
    for (unsigned i = 0; fields && i < json_array_get_length(fields); i++) {
        JsonObject *field = json_array_get_object_element(fields, i);
        bytes += (size_t)json_object_get_int_member(field, "size") *
                 (size_t)json_object_get_int_member_with_default(field, "array_len", 1);
    }
    JsonArray *subsections = json_object_has_member(object, "subsections")
                                 ? json_object_get_array_member(object, "subsections")
                                 : NULL;
    for (unsigned i = 0; subsections && i < json_array_get_length(subsections); i++) {
        JsonObject *subsection = json_array_get_object_element(subsections, i);
        const char *name = json_object_get_string_member(subsection, "vmsd_name");
        bytes += 1 + 1 + strlen(name) + 4 + object_bytes(subsection);
    }
    return bytes;
}

bool
walk_description(Walk *walk, const char *json, size_t length, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new();

    if (!json_parser_load_from_data(parser, json, (gssize)length, error))
        return false;
    JsonObject *root = json_node_get_object(json_parser_get_root(parser));
    if (json_object_get_int_member(root, "page_size") != STREAM_PAGE_BYTES)
        return walk_fail(error, "description: page_size");
    JsonArray *devices = json_object_get_array_member(root, "devices");
    unsigned next = 0;
    for (unsigned i = 0; i < walk->sections->len; i++) {
        const WalkSection *section = &g_array_index(walk->sections, WalkSection, i);
        if (strcmp(section->name, "ram") == 0)
            continue;
        if (next == json_array_get_length(devices))
            return walk_fail(error, "description lacks %s", section->name);
        JsonObject *device = json_array_get_object_element(devices, next++);
        if (strcmp(json_object_get_string_member(device, "name"), section->name) != 0 ||
            json_object_get_int_member(device, "instance_id") != section->instance ||
            object_bytes(device) != section->length)
            return walk_fail(error, "description of %s: %zu bytes, found %zu", section->name,
                             object_bytes(device), section->length);
    }
    return next == json_array_get_length(devices) || walk_fail(error, "description has more");
}

GBytes *
walk_load(const char *name)
{
    g_autofree char *path = g_strdup_printf("tests/captures/%s.gz", name);
    g_autoptr(GError) error = NULL;
    g_autoptr(GFile) file = g_file_new_for_path(path);
    g_autoptr(GFileInputStream) packed = g_file_read(file, NULL, &error);
    if (!packed)
        g_error("%s", error->message);

    g_autoptr(GZlibDecompressor) gzip = g_zlib_decompressor_new(G_ZLIB_COMPRESSOR_FORMAT_GZIP);
    g_autoptr(GInputStream) plain =
        g_converter_input_stream_new(G_INPUT_STREAM(packed), G_CONVERTER(gzip));
    GByteArray *all = g_byte_array_new();
    g_autofree uint8_t *chunk = g_malloc(1 << 20);
    gssize got;
    while ((got = g_input_stream_read(plain, chunk, 1 << 20, NULL, &error)) > 0)
        g_byte_array_append(all, chunk, (guint)got);
    if (got < 0)
        g_error("%s: %s", path, error->message);
    return g_byte_array_free_to_bytes(all);
}
