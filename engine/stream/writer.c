/* SPDX-License-Identifier: MIT */
/*
 * Appending to a buffer that the caller has sized: integers in network order, names, bytes.
 * Whoever owns the buffer calls; running over its end is our own mistake and asserts.
 */
#include "engine/stream/wire.h"

void
stream_put_bytes(StreamWriter *writer, const void *bytes, size_t length)
{
    g_assert(length <= writer->capacity - writer->length);
    if (length > 0)
        memcpy(writer->bytes + writer->length, bytes, length);
    writer->length += length;
}

void
stream_put_u8(StreamWriter *writer, uint8_t value)
{
    stream_put_bytes(writer, &value, sizeof value);
}

void
stream_put_be16(StreamWriter *writer, uint16_t value)
{
    be16 wire = be16_make(value);
    stream_put_bytes(writer, &wire, sizeof wire);
}

void
stream_put_be32(StreamWriter *writer, uint32_t value)
{
    be32 wire = be32_make(value);
    stream_put_bytes(writer, &wire, sizeof wire);
}

void
stream_put_be64(StreamWriter *writer, uint64_t value)
{
    be64 wire = be64_make(value);
    stream_put_bytes(writer, &wire, sizeof wire);
}

void
stream_put_name(StreamWriter *writer, const char *name)
{
    size_t length = strlen(name);

    g_assert(length > 0 && length <= STREAM_NAME_MAX);
    stream_put_u8(writer, (uint8_t)length);
    stream_put_bytes(writer, name, length);
}
