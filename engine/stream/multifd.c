/* SPDX-License-Identifier: MIT */
/*
 * Packets of multifd channels, decoded for recorded streams. The data behind a header, its
 * compression and the order of packets over channels are the caller's.
 */
#include "engine/stream/wire.h"

#define MULTIFD_MAGIC        0x11223344u
#define MULTIFD_VERSION      1u
#define MULTIFD_SYNC         0x01u
#define MULTIFD_METHODS      0x3eu
#define MULTIFD_DEVICE_STATE 0x40u
#define MULTIFD_DATA_MAX     (1024u * 1024u) /* what QEMU's reader takes of a compressed packet */

static StreamResult
take_head(WireReader *reader, GError **error)
{
    uint32_t magic, version;

    if (!wire_take_be32(reader, &magic))
        return STREAM_MORE;
    if (magic != MULTIFD_MAGIC)
        return wire_bad(error, "decode multifd packet: magic is 0x%08x, expected 0x%08x", magic,
                        MULTIFD_MAGIC);
    if (!wire_take_be32(reader, &version))
        return STREAM_MORE;
    if (version != MULTIFD_VERSION)
        return wire_bad(error, "decode multifd packet: version is %u, expected %u", version,
                        MULTIFD_VERSION);
    return STREAM_OK;
}

/* All of a fixed layout whose first two words take_head has checked; NULL: not all there. */
static const void *
take_rest(WireReader *reader, size_t size)
{
    return wire_take(reader, size - reader->position) ? reader->bytes : NULL;
}

StreamResult
stream_decode_multifd_first(const uint8_t *bytes, size_t available, StreamMultifd *ret,
                            size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    StreamResult result = take_head(&reader, error);

    *ret_length = reader.position;
    if (result != STREAM_OK)
        return result;
    const WireMultifdFirst *wire = take_rest(&reader, sizeof *wire);
    if (!wire)
        return wire_more(&reader, ret_length);
    if (!wire_is_zero(wire->zero, sizeof wire->zero))
        return wire_bad(error, "decode first multifd packet: padding is not 0");
    *ret = (StreamMultifd){.is_first = true, .channel = wire->channel};
    return wire_ok(&reader, ret_length);
}

static StreamResult
check_flags(uint32_t flags, GError **error)
{
    uint32_t method = flags & MULTIFD_METHODS;

    if (flags & MULTIFD_DEVICE_STATE)
        return wire_bad(
            error, "decode multifd packet: flags 0x%x are of device state, expected pages", flags);
    if ((flags & ~(MULTIFD_SYNC | MULTIFD_METHODS)) != 0 || (method & (method - 1)) != 0)
        return wire_bad(error,
                        "decode multifd packet: flags are 0x%x, expected SYNC 0x1 and at most one "
                        "method of 0x2 to 0x20",
                        flags);
    return STREAM_OK;
}

static StreamResult
check_counts(const StreamMultifd *packet, uint32_t pages_alloc, GError **error)
{
    bool is_plain = (packet->flags & MULTIFD_METHODS) == 0;
    uint32_t plain_length = packet->normal_pages * STREAM_PAGE_BYTES;

    if (pages_alloc > WIRE_MULTIFD_PAGES)
        return wire_bad(error, "decode multifd packet: pages_alloc is %u, expected at most %u",
                        pages_alloc, WIRE_MULTIFD_PAGES);
    if (packet->normal_pages > pages_alloc)
        return wire_bad(error, "decode multifd packet: normal_pages is %u, expected at most %u",
                        packet->normal_pages, pages_alloc);
    if (packet->zero_pages > pages_alloc - packet->normal_pages)
        return wire_bad(error, "decode multifd packet: zero_pages is %u, expected at most %u",
                        packet->zero_pages, pages_alloc - packet->normal_pages);
    if (packet->normal_pages > 0 && is_plain && packet->data_length != plain_length)
        return wire_bad(error, "decode multifd packet: next_packet_size is %u, expected %u",
                        packet->data_length, plain_length);
    if (packet->normal_pages > 0 &&
        (packet->data_length == 0 || packet->data_length > MULTIFD_DATA_MAX))
        return wire_bad(error, "decode multifd packet: next_packet_size is %u, expected 1 to %u",
                        packet->data_length, MULTIFD_DATA_MAX);
    return STREAM_OK;
}

static StreamResult
take_pages(const WireMultifd *wire, StreamMultifd *ret, GError **error)
{
    uint32_t count = ret->normal_pages + ret->zero_pages;
    size_t length = strnlen(wire->name, sizeof wire->name);

    if (length == sizeof wire->name)
        return wire_bad(error, "decode multifd packet: block name does not end within 256 bytes");
    if (count == 0)
        return STREAM_OK;
    StreamResult result =
        wire_copy_name(wire->name, length, "decode multifd packet: block name", ret->name, error);
    if (result != STREAM_OK)
        return result;
    for (uint32_t i = 0; i < count; i++)
        if (be64_load(wire->offsets[i]) % STREAM_PAGE_BYTES != 0)
            return wire_bad(error,
                            "decode multifd packet: offset %u is 0x%" PRIx64
                            ", expected a multiple of %u",
                            i, be64_load(wire->offsets[i]), STREAM_PAGE_BYTES);
    return STREAM_OK;
}

StreamResult
stream_decode_multifd(const uint8_t *bytes, size_t available, StreamMultifd *ret,
                      size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    StreamResult result = take_head(&reader, error);

    *ret_length = reader.position;
    if (result != STREAM_OK)
        return result;
    const WireMultifd *wire = take_rest(&reader, sizeof *wire);
    if (!wire)
        return wire_more(&reader, ret_length);

    *ret = (StreamMultifd){
        .flags = be32_load(wire->flags),
        .normal_pages = be32_load(wire->normal_pages),
        .zero_pages = be32_load(wire->zero_pages),
        .data_length = be32_load(wire->next_packet_size),
        .number = be64_load(wire->number),
        .offsets = (const uint8_t *)wire->offsets,
    };
    if ((result = check_flags(ret->flags, error)) != STREAM_OK ||
        (result = check_counts(ret, be32_load(wire->pages_alloc), error)) != STREAM_OK)
        return result;
    if (!wire_is_zero(wire->zero, sizeof wire->zero))
        return wire_bad(error, "decode multifd packet: padding is not 0");
    if ((result = take_pages(wire, ret, error)) != STREAM_OK)
        return result;
    /* QEMU before 9.0 leaves the size of the packet before in a packet without data. */
    if (ret->normal_pages == 0)
        ret->data_length = 0;
    return wire_ok(&reader, ret_length);
}
