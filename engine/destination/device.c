/* SPDX-License-Identifier: MIT */
/*
 * Device sections: read to their end, handed to the guest. On the listen role in precopy, on the
 * package role after LISTEN. Memory grows with what has come, never with what was announced.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define STATE_LIMIT_PRESET (16u << 20)
#define STATE_LIMIT_MAX    (1u << 30) /* a GByteArray, which grows by doubling, has 32 bits */
#define CHUNK_BYTES        (64u << 10)

uint64_t
destination_state_limit(const Destination *destination)
{
    uint64_t limit = destination->faultline->guest.state_limit_bytes;
    return limit ? MIN(limit, STATE_LIMIT_MAX) : STATE_LIMIT_PRESET;
}

void
destination_begin_device(Destination *destination, const StreamElement *head)
{
    DeviceLoad *device = &destination->device;
    device->head = *head;
    device->has_length = false;
    g_clear_pointer(&device->bytes, g_byte_array_unref);
}

typedef struct DeviceDecode {
    const Destination *destination;
    DeviceLoad *device;
    bool running;
} DeviceDecode;

static StreamResult
decode_length(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    DeviceDecode *decode = context;
    return stream_decode_device_length(bytes, available, decode->device->head.name,
                                       destination_state_limit(decode->destination),
                                       &decode->device->length, ret_length, error);
}

static StreamResult
decode_globalstate(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
                   GError **error)
{
    DeviceDecode *decode = context;
    return stream_decode_globalstate(bytes, available, &decode->running, ret_length, error);
}

/* The body, as it comes. */
static ReadResult
read_body(DeviceLoad *device, Reader *reader)
{
    while (device->bytes->len < device->length) {
        const uint8_t *bytes;
        ReadResult result = reader_peek(reader, 1, &bytes);
        if (result != READ_OK)
            return result == READ_BAD ? READ_END : result;
        size_t left = device->length - device->bytes->len;
        size_t take = MIN(MIN(left, reader_available(reader)), CHUNK_BYTES);
        g_byte_array_append(device->bytes, bytes, (guint)take);
        reader_consume(reader, take);
    }
    return READ_OK;
}

static ReadResult
read_section(Destination *destination, Reader *reader, DeviceDecode *decode, GError **error)
{
    DeviceLoad *device = &destination->device;
    bool is_global = strcmp(device->head.name, "globalstate") == 0;
    size_t length;

    if (!device->has_length) {
        ReadResult result = reader_decode(reader, is_global ? decode_globalstate : decode_length,
                                          decode, &length, error);
        if (result != READ_OK)
            return result;
        reader_consume(reader, length);
        device->has_length = true;
        device->bytes = g_byte_array_new();
        if (is_global) {
            device->length = 0;
            destination->can_run = decode->running;
        }
    }
    ReadResult result = read_body(device, reader);
    if (result != READ_OK)
        return result;
    return destination_read_footer(reader, device->head.section_id, device->head.name, error);
}

ReadResult
destination_load_device(Destination *destination, Reader *reader, GError **error)
{
    Faultline *faultline = destination->faultline;
    DeviceLoad *device = &destination->device;
    DeviceDecode decode = {.destination = destination, .device = device};

    ReadResult result = read_section(destination, reader, &decode, error);
    if (result == READ_LINK && !*error)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "receive: %s",
                    reader_problem(reader));
    if (result != READ_OK)
        return result;
    if (strcmp(device->head.name, "globalstate") != 0 &&
        !faultline->guest.load_state(faultline->opaque, device->head.name, device->head.instance,
                                     device->head.version, device->bytes->data, device->bytes->len,
                                     error)) {
        g_prefix_error(error, "load device '%s' %u: ", device->head.name, device->head.instance);
        result = READ_BAD;
    }
    g_clear_pointer(&device->bytes, g_byte_array_unref);
    return result;
}
