/* SPDX-License-Identifier: MIT */
/*
 * Seals and checksums, and the commands that belong to them. The only file that knows the hash
 * function. Pure, any thread; what a seal that does not fit means for a connection, the reader
 * decides, and what a page does, whoever takes it.
 */
#include "engine/stream/wire.h"

#include <xxhash.h>

/* Odd, so that no two pages of a block share a place. */
#define PLACE_STEP 0x9e3779b97f4a7c15u

typedef struct WireSeal {
    be32 length, check;
    be64 checksum;
} WireSeal;
static_assert(sizeof(WireSeal) == STREAM_SEAL_BYTES, "no padding");

/* ---- Seals ----------------------------------------------------------------------------------- */

static uint32_t
check_of(const WireSeal *seal, uint64_t number)
{
    uint8_t covered[sizeof seal->length + sizeof seal->checksum];

    memcpy(covered, &seal->length, sizeof seal->length);
    memcpy(covered + sizeof seal->length, &seal->checksum, sizeof seal->checksum);
    return (uint32_t)XXH3_64bits_withSeed(covered, sizeof covered, number);
}

void
stream_put_seal(uint8_t *at, const void *piece, uint32_t length, uint64_t number)
{
    WireSeal seal = {.length = be32_make(length),
                     .checksum = be64_make(XXH3_64bits(piece, length))};

    g_assert(length);
    seal.check = be32_make(check_of(&seal, number));
    memcpy(at, &seal, sizeof seal);
}

bool
stream_parse_seal(const uint8_t *bytes, uint64_t number, StreamSeal *ret)
{
    WireSeal seal;

    memcpy(&seal, bytes, sizeof seal);
    ret->length = be32_load(seal.length);
    ret->checksum = be64_load(seal.checksum);
    return ret->length && be32_load(seal.check) == check_of(&seal, number);
}

bool
stream_check_piece(const StreamSeal *seal, const void *piece)
{
    return XXH3_64bits(piece, seal->length) == seal->checksum;
}

/* ---- Pages ----------------------------------------------------------------------------------- */

uint64_t
stream_block_place(const char *name)
{
    return XXH3_64bits(name, strlen(name));
}

uint64_t
stream_page_checksum(const void *page, uint64_t block_place, uint64_t number)
{
    uint64_t place = block_place + number * PLACE_STEP;

    return (page ? XXH3_64bits(page, STREAM_PAGE_BYTES) : 0) ^ place;
}

uint64_t
stream_record_checksum(const StreamRecord *record, unsigned index)
{
    be64 wire;

    memcpy(&wire, record->checksums + index * sizeof wire, sizeof wire);
    return be64_load(wire);
}

/* ---- Commands -------------------------------------------------------------------------------- */

bool
stream_parse_sealed(const StreamElement *element, uint32_t *ret_features, GError **error)
{
    be32 fields[2];

    g_assert(element->payload_length == sizeof fields);
    memcpy(fields, element->payload, sizeof fields);
    *ret_features = be32_load(fields[0]);
    return be32_load(fields[1]) == ~*ret_features ||
           wire_bad(error,
                    "decode command SEALED: features 0x%x are followed by 0x%x, expected the "
                    "complement",
                    *ret_features, be32_load(fields[1])) == STREAM_OK;
}

void
stream_put_sealed(StreamWriter *writer, uint32_t features)
{
    be32 fields[2] = {be32_make(features), be32_make(~features)};

    stream_put_command(writer, STREAM_COMMAND_SEALED, fields, sizeof fields);
}

/* length of the name, name, first extent */
#define DIGEST_HEAD_BYTES(name_length) (1u + (name_length) + 8u)

bool
stream_parse_digest(const StreamElement *element, char *ret_name, uint64_t *ret_first_extent,
                    unsigned *ret_count, GError **error)
{
    const uint8_t *payload = element->payload;
    size_t head = DIGEST_HEAD_BYTES(payload[0]);
    be64 first;

    if (element->payload_length < head + 8 || (element->payload_length - head) % 8 != 0 ||
        element->payload_length > head + 8 * STREAM_DIGEST_SUMS)
        return wire_bad(error,
                        "decode command DIGEST: length is %u, expected %zu for the head, and 1 to "
                        "%u sums of 8",
                        element->payload_length, head, STREAM_DIGEST_SUMS) == STREAM_OK;
    if (wire_copy_name(payload + 1, payload[0], "decode command DIGEST: block name", ret_name,
                       error) != STREAM_OK)
        return false;
    memcpy(&first, payload + head - 8, 8);
    *ret_first_extent = be64_load(first);
    *ret_count = (unsigned)((element->payload_length - head) / 8);
    return true;
}

uint64_t
stream_digest_sum(const StreamElement *element, unsigned index)
{
    size_t at = DIGEST_HEAD_BYTES(element->payload[0]) + 8u * index;
    be64 sum;

    g_assert(at + 8 <= element->payload_length);
    memcpy(&sum, element->payload + at, 8);
    return be64_load(sum);
}

void
stream_put_digest(StreamWriter *writer, const char *name, uint64_t first_extent,
                  const uint64_t *sums, unsigned count)
{
    uint8_t bytes[DIGEST_HEAD_BYTES(STREAM_NAME_MAX) + STREAM_DIGEST_SUMS * 8];
    StreamWriter payload = {bytes, 0, sizeof bytes};

    g_assert(count > 0 && count <= STREAM_DIGEST_SUMS);
    stream_put_name(&payload, name);
    stream_put_be64(&payload, first_extent);
    for (unsigned i = 0; i < count; i++)
        stream_put_be64(&payload, sums[i]);
    stream_put_command(writer, STREAM_COMMAND_DIGEST, bytes, (uint16_t)payload.length);
}
