/* SPDX-License-Identifier: MIT */
/*
 * The elements of a main channel or of a package: heads of sections, footers, commands, the end.
 * Called by the thread that reads or writes that channel. Which element may come when, and which
 * section a number stands for, is the caller's.
 */
#include "engine/stream/wire.h"

static StreamResult
take_start(WireReader *reader, StreamElement *ret, GError **error)
{
    if (!wire_take_be32(reader, &ret->section_id))
        return STREAM_MORE;
    StreamResult result = wire_take_name(reader, "decode section head: name", ret->name, error);
    if (result != STREAM_OK)
        return result;
    if (!wire_take_be32(reader, &ret->instance) || !wire_take_be32(reader, &ret->version))
        return STREAM_MORE;
    return STREAM_OK;
}

static StreamResult
take_part(WireReader *reader, StreamElement *ret, G_GNUC_UNUSED GError **error)
{
    return wire_take_be32(reader, &ret->section_id) ? STREAM_OK : STREAM_MORE;
}

static StreamResult
take_description(WireReader *reader, StreamElement *ret, G_GNUC_UNUSED GError **error)
{
    return wire_take_be32(reader, &ret->json_length) ? STREAM_OK : STREAM_MORE;
}

static StreamResult
take_nothing(G_GNUC_UNUSED WireReader *reader, G_GNUC_UNUSED StreamElement *ret,
             G_GNUC_UNUSED GError **error)
{
    return STREAM_OK;
}

/* number -> name and payload limits; a row without name is an unknown command */
static const struct {
    const char *name;
    uint16_t least, greatest;
} commands[] = {
#define STREAM_COMMAND_ROW(name, number, least, greatest) [number] = {#name, least, greatest},
    STREAM_COMMAND_LIST(STREAM_COMMAND_ROW)
#undef STREAM_COMMAND_ROW
};
static_assert(G_N_ELEMENTS(commands) == STREAM_COMMAND_DIGEST + 1, "no gap at the end");

const char *
stream_command_name(unsigned command)
{
    if (command >= G_N_ELEMENTS(commands) || !commands[command].name)
        return "unknown";
    return commands[command].name;
}

static StreamResult
take_command(WireReader *reader, StreamElement *ret, GError **error)
{
    uint16_t number, length;

    if (!wire_take_be16(reader, &number))
        return STREAM_MORE;
    if (number >= G_N_ELEMENTS(commands) || !commands[number].name)
        return wire_bad(error,
                        "decode command: number is %u, expected 1 to %d or one of ours, %d to %d",
                        number, STREAM_COMMAND_SWITCHOVER_START, STREAM_COMMAND_DISCARD_WORDS,
                        STREAM_COMMAND_DIGEST);
    if (!wire_take_be16(reader, &length))
        return STREAM_MORE;
    if (length < commands[number].least || length > commands[number].greatest)
        return wire_bad(error, "decode command %s: length is %u, expected %u to %u",
                        commands[number].name, length, commands[number].least,
                        commands[number].greatest);
    ret->command = (StreamCommand)number;
    ret->payload_length = length;
    ret->payload = wire_take(reader, length);
    return ret->payload ? STREAM_OK : STREAM_MORE;
}

/* Types that may stand at the begin of an element. */
static StreamResult (*const takes[])(WireReader *reader, StreamElement *ret, GError **error) = {
    [STREAM_EOF] = take_nothing,     [STREAM_START] = take_start,
    [STREAM_PART] = take_part,       [STREAM_END] = take_part,
    [STREAM_FULL] = take_start,      [STREAM_VMDESCRIPTION] = take_description,
    [STREAM_COMMAND] = take_command,
};

StreamResult
stream_decode_element(const uint8_t *bytes, size_t available, StreamElement *ret,
                      size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    uint8_t type;

    if (!wire_take_u8(&reader, &type))
        return wire_more(&reader, ret_length);
    if (type >= G_N_ELEMENTS(takes) || !takes[type])
        return wire_bad(
            error, "decode element: type is 0x%02x, expected 0x00 to 0x04, 0x06 or 0x08", type);
    *ret = (StreamElement){.type = (StreamType)type};
    StreamResult result = takes[type](&reader, ret, error);
    *ret_length = reader.position;
    return result;
}

StreamResult
stream_decode_footer(const uint8_t *bytes, size_t available, uint32_t section_id, const char *name,
                     size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    uint8_t type;
    uint32_t id;

    if (!wire_take_u8(&reader, &type))
        return wire_more(&reader, ret_length);
    if (type != STREAM_FOOTER)
        return wire_bad(error,
                        "decode footer of section %s: type is 0x%02x, expected 0x%02x; "
                        "the section is longer or shorter than this side reads",
                        name, type, STREAM_FOOTER);
    if (!wire_take_be32(&reader, &id))
        return wire_more(&reader, ret_length);
    if (id != section_id)
        return wire_bad(error, "decode footer of section %s: section id is %u, expected %u", name,
                        id, section_id);
    return wire_ok(&reader, ret_length);
}

void
stream_put_start(StreamWriter *writer, StreamType start_or_full, uint32_t section_id,
                 const char *name, uint32_t instance, uint32_t version)
{
    g_assert(start_or_full == STREAM_START || start_or_full == STREAM_FULL);
    stream_put_u8(writer, (uint8_t)start_or_full);
    stream_put_be32(writer, section_id);
    stream_put_name(writer, name);
    stream_put_be32(writer, instance);
    stream_put_be32(writer, version);
}

void
stream_put_part(StreamWriter *writer, StreamType part_or_end, uint32_t section_id)
{
    g_assert(part_or_end == STREAM_PART || part_or_end == STREAM_END);
    stream_put_u8(writer, (uint8_t)part_or_end);
    stream_put_be32(writer, section_id);
}

void
stream_put_footer(StreamWriter *writer, uint32_t section_id)
{
    stream_put_u8(writer, STREAM_FOOTER);
    stream_put_be32(writer, section_id);
}

void
stream_put_command(StreamWriter *writer, StreamCommand command, const void *payload,
                   uint16_t length)
{
    g_assert((unsigned)command < G_N_ELEMENTS(commands) && commands[command].name);
    g_assert(length >= commands[command].least && length <= commands[command].greatest);
    stream_put_u8(writer, STREAM_COMMAND);
    stream_put_be16(writer, (uint16_t)command);
    stream_put_be16(writer, length);
    stream_put_bytes(writer, payload, length);
}
