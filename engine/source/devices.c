/* SPDX-License-Identifier: MIT */
/*
 * The device state: what the VMM's save_state adds, as FULL sections that carry their own length,
 * and QEMU's globalstate. Migration role, guest stopped.
 */
#include "engine/source/source.h"

#include <string.h>

#define FIRST_DEVICE_SECTION 2u
#define HEAD_BYTES           300u /* FULL head with the longest name, length */

struct FaultlineState {
    GByteArray *bytes;
    GString *json; /* NULL: not wanted */
    uint32_t next_section;
    const char *problem; /* what was wrong with an added section */
};

/* JSON text allows nearly all bytes; the rest of a name is written as \u00XX. */
static void
append_json_text(GString *json, const char *text)
{
    for (const char *at = text; *at; at++) {
        unsigned char byte = (unsigned char)*at;
        if (byte < 0x20 || byte == '"' || byte == '\\' || byte >= 0x7f)
            g_string_append_printf(json, "\\u%04x", byte);
        else
            g_string_append_c(json, *at);
    }
}

static void
describe(GString *json, const char *name, uint32_t instance, uint32_t version, size_t length)
{
    g_string_append(json, json->str[json->len - 1] == '[' ? "{\"name\": \"" : ", {\"name\": \"");
    append_json_text(json, name);
    g_string_append_printf(json, "\", \"instance_id\": %u, \"vmsd_name\": \"", instance);
    append_json_text(json, name);
    g_string_append_printf(json, "\", \"version\": %u, \"fields\": [", version);
    g_string_append_printf(json,
                           "{\"name\": \"length\", \"type\": \"uint32\", \"size\": 4}, "
                           "{\"name\": \"state\", \"type\": \"buffer\", \"size\": %zu}]}",
                           length);
}

void
faultline_state_add(FaultlineState *state, const char *name, uint32_t instance, uint32_t version,
                    const void *bytes, size_t length_bytes)
{
    uint8_t memory[HEAD_BYTES];
    StreamWriter writer = {.bytes = memory, .capacity = sizeof memory};
    uint32_t section = state->next_section++;

    if (!name || !stream_name_is_good(name))
        state->problem = "a section's name must have 1 to 255 bytes of printable ASCII";
    else if (length_bytes > UINT32_MAX - 4096 - state->bytes->len)
        state->problem = "the sections are longer than 4 GiB";
    if (state->problem)
        return;
    stream_put_start(&writer, STREAM_FULL, section, name, instance, version);
    stream_put_be32(&writer, (uint32_t)length_bytes);
    g_byte_array_append(state->bytes, memory, (guint)writer.length);
    g_byte_array_append(state->bytes, bytes, (guint)length_bytes);
    writer.length = 0;
    stream_put_footer(&writer, section);
    g_byte_array_append(state->bytes, memory, (guint)writer.length);
    if (state->json)
        describe(state->json, name, instance, version, length_bytes);
}

bool
source_put_devices(Source *source, GByteArray *bytes, GString *json, GError **error)
{
    Faultline *faultline = source->faultline;
    FaultlineState state = {.bytes = bytes, .json = json, .next_section = FIRST_DEVICE_SECTION};
    uint8_t memory[HEAD_BYTES];
    StreamWriter writer = {.bytes = memory, .capacity = sizeof memory};

    if (json)
        g_string_append_printf(json, "{\"page_size\": %u, \"devices\": [", FAULTLINE_PAGE_BYTES);
    if (!faultline->guest.save_state(faultline->opaque, &state, error)) {
        g_prefix_error(error, "save device state: ");
        return false;
    }
    if (state.problem) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "save device state: %s",
                    state.problem);
        return false;
    }
    stream_put_globalstate(&writer, source->was_running);
    g_byte_array_append(bytes, memory, (guint)writer.length);
    if (json)
        g_string_append_printf(
            json,
            "%s{\"name\": \"globalstate\", \"instance_id\": 0, \"vmsd_name\": \"globalstate\", "
            "\"version\": 1, \"fields\": [{\"name\": \"state\", \"type\": \"buffer\", \"size\": "
            "%u}]}]}",
            json->str[json->len - 1] == '[' ? "" : ", ", STREAM_GLOBALSTATE_BYTES);
    return true;
}
