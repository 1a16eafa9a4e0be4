/* SPDX-License-Identifier: MIT */
/*
 * The first bytes of a main channel: file header, machine type, subsections of the configuration.
 * Called once a migration, by the thread that owns the main channel. Whether machine and
 * capabilities suit this host is the caller's question.
 */
#include "engine/stream/wire.h"

StreamResult
stream_decode_header(const uint8_t *bytes, size_t available, size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    uint32_t magic, version;

    if (!wire_take_be32(&reader, &magic))
        return wire_more(&reader, ret_length);
    if (magic >> 16 == STREAM_TLS_HELLO)
        return wire_bad(error, "decode file header: the peer speaks TLS; set 'tls-creds' here, or "
                               "unset it at the source");
    if (magic != STREAM_MAGIC)
        return wire_bad(error,
                        "decode file header: magic is 0x%08x, expected 0x%08x; "
                        "the peer is no migration source",
                        magic, STREAM_MAGIC);
    if (!wire_take_be32(&reader, &version))
        return wire_more(&reader, ret_length);
    if (version != STREAM_VERSION)
        return wire_bad(error, "decode file header: version is %u, expected %u", version,
                        STREAM_VERSION);
    return wire_ok(&reader, ret_length);
}

/* The capabilities that QEMU puts into the configuration; no others are ever validated there. */
static const char *const validated_capabilities[] = {"x-ignore-shared", "mapped-ram"};

static StreamResult
take_capabilities(WireReader *reader, StreamConfiguration *ret, GError **error)
{
    uint32_t count;
    unsigned seen = 0;

    if (ret->count_capabilities > 0)
        return wire_bad(error, "decode configuration: subsection capabilities comes twice");
    if (!wire_take_be32(reader, &count))
        return STREAM_MORE;
    if (count == 0 || count > G_N_ELEMENTS(validated_capabilities))
        return wire_bad(error,
                        "decode configuration: count of capabilities is %u, expected 1 to %zu",
                        count, G_N_ELEMENTS(validated_capabilities));

    for (uint32_t i = 0; i < count; i++) {
        char name[STREAM_NAME_MAX + 1];
        StreamResult result =
            wire_take_name(reader, "decode configuration: capability name", name, error);
        if (result != STREAM_OK)
            return result;
        unsigned bit = 0;
        for (unsigned known = 0; known < G_N_ELEMENTS(validated_capabilities); known++)
            if (strcmp(name, validated_capabilities[known]) == 0)
                bit = 1u << known;
        if (bit == 0)
            return wire_bad(error,
                            "decode configuration: capability name is %s, expected "
                            "x-ignore-shared or mapped-ram; turn it off at the source",
                            name);
        if (seen & bit)
            return wire_bad(error, "decode configuration: capability name %s comes twice", name);
        seen |= bit;
    }
    ret->count_capabilities = count;
    return STREAM_OK;
}

static StreamResult
take_uuid(WireReader *reader, StreamConfiguration *ret, GError **error)
{
    if (ret->has_uuid)
        return wire_bad(error, "decode configuration: subsection uuid comes twice");
    if (!wire_take(reader, 16))
        return STREAM_MORE;
    ret->has_uuid = true;
    return STREAM_OK;
}

static const struct {
    const char *name;
    StreamResult (*take)(WireReader *reader, StreamConfiguration *ret, GError **error);
} subsections[] = {
    {"configuration/capabilities", take_capabilities},
    {"configuration/uuid", take_uuid},
};

/* After the type byte 0x05. */
static StreamResult
take_subsection(WireReader *reader, StreamConfiguration *ret, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    uint32_t version;

    StreamResult result =
        wire_take_name(reader, "decode configuration: subsection name", name, error);
    if (result != STREAM_OK)
        return result;
    for (unsigned i = 0; i < G_N_ELEMENTS(subsections); i++) {
        if (strcmp(name, subsections[i].name) != 0)
            continue;
        if (!wire_take_be32(reader, &version))
            return STREAM_MORE;
        if (version != 1)
            return wire_bad(error,
                            "decode configuration: version of subsection %s is %u, expected 1",
                            name, version);
        return subsections[i].take(reader, ret, error);
    }
    return wire_bad(error,
                    "decode configuration: subsection name is %s, expected "
                    "configuration/capabilities or configuration/uuid",
                    name);
}

static StreamResult
take_machine(WireReader *reader, StreamConfiguration *ret, GError **error)
{
    uint8_t type;
    uint32_t length;
    const void *machine;

    if (!wire_take_u8(reader, &type))
        return STREAM_MORE;
    if (type != STREAM_CONFIGURATION)
        return wire_bad(error, "decode configuration: type is 0x%02x, expected 0x%02x", type,
                        STREAM_CONFIGURATION);
    if (!wire_take_be32(reader, &length))
        return STREAM_MORE;
    if (length == 0 || length > STREAM_NAME_MAX)
        return wire_bad(error,
                        "decode configuration: length of the machine name is %u, expected 1 to %u",
                        length, STREAM_NAME_MAX);
    if (!(machine = wire_take(reader, length)))
        return STREAM_MORE;
    return wire_copy_name(machine, length, "decode configuration: machine name", ret->machine,
                          error);
}

StreamResult
stream_decode_configuration(const uint8_t *bytes, size_t available, StreamConfiguration *ret,
                            size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    uint8_t type;

    *ret = (StreamConfiguration){.count_capabilities = 0};
    StreamResult result = take_machine(&reader, ret, error);
    while (result == STREAM_OK) {
        size_t end = reader.position;
        if (!wire_take_u8(&reader, &type))
            return wire_more(&reader, ret_length);
        if (type != STREAM_SUBSECTION) {
            *ret_length = end;
            return STREAM_OK;
        }
        result = take_subsection(&reader, ret, error);
    }
    *ret_length = reader.position;
    return result;
}

void
stream_put_header(StreamWriter *writer)
{
    stream_put_be32(writer, STREAM_MAGIC);
    stream_put_be32(writer, STREAM_VERSION);
}

void
stream_put_configuration(StreamWriter *writer, const char *machine)
{
    size_t length = strlen(machine);

    g_assert(length > 0 && length <= STREAM_NAME_MAX);
    stream_put_u8(writer, STREAM_CONFIGURATION);
    stream_put_be32(writer, (uint32_t)length);
    stream_put_bytes(writer, machine, length);
}
