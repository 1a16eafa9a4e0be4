/* SPDX-License-Identifier: MIT */
/*
 * What every decoder shares and the page path does not inline: names taken off the wire, and the
 * errors of a peer that broke the protocol. Pure, any thread; where the guest is when that happens,
 * the caller adds.
 */
#include "engine/stream/wire.h"

StreamResult
wire_bad(GError **error, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, text);
    return STREAM_BAD;
}

/* Names go into messages and JSON. */
static bool
is_name_byte(uint8_t byte)
{
    return byte >= 0x20 && byte <= 0x7e;
}

bool
stream_name_is_good(const char *name)
{
    size_t length = strlen(name);
    bool is_good = length > 0 && length <= STREAM_NAME_MAX;

    for (size_t i = 0; i < length && is_good; i++)
        is_good = is_name_byte((uint8_t)name[i]);
    return is_good;
}

StreamResult
wire_copy_name(const void *text, size_t length, const char *what, char *ret_name, GError **error)
{
    const uint8_t *bytes = text;

    g_assert(length <= STREAM_NAME_MAX);
    if (length == 0)
        return wire_bad(error, "%s is empty; expected 1 to %u bytes", what, STREAM_NAME_MAX);
    for (size_t i = 0; i < length; i++)
        if (!is_name_byte(bytes[i]))
            return wire_bad(error, "%s has byte 0x%02x at %zu; expected printable ASCII", what,
                            bytes[i], i);
    memcpy(ret_name, bytes, length);
    ret_name[length] = '\0';
    return STREAM_OK;
}

StreamResult
wire_take_name(WireReader *reader, const char *what, char *ret_name, GError **error)
{
    uint8_t length;
    const void *text;

    if (!wire_take_u8(reader, &length) || !(text = wire_take(reader, length)))
        return STREAM_MORE;
    return wire_copy_name(text, length, what, ret_name, error);
}

bool
wire_is_zero(const void *bytes, size_t length)
{
    const uint8_t *byte = bytes;
    uint8_t seen = 0;

    for (size_t i = 0; i < length; i++)
        seen |= byte[i];
    return seen == 0;
}
