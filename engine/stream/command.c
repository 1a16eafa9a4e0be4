/* SPDX-License-Identifier: MIT */
/*
 * The payloads of commands: PING, ADVISE, RAM_DISCARD, DISCARD_WORDS, ANSWER, RECV_BITMAP. Those of
 * sealed channels stand in seal.c.
 * stream_decode_element has checked the lengths; here the fields are. Whether a block exists and a
 * range lies inside of it and on its host pages, the caller knows.
 */
#include "engine/stream/wire.h"

void
stream_put_ping(StreamWriter *writer, uint32_t value)
{
    be32 payload = be32_make(value);
    stream_put_command(writer, STREAM_COMMAND_PING, &payload, sizeof payload);
}

uint32_t
stream_parse_be32(const StreamElement *element)
{
    be32 payload;

    g_assert(element->payload_length == sizeof payload);
    memcpy(&payload, element->payload, sizeof payload);
    return be32_load(payload);
}

bool
stream_parse_advise(const StreamElement *element, StreamAdvise *ret, GError **error)
{
    const WireAdvise *wire = (const void *)element->payload;

    *ret = (StreamAdvise){.is_short = element->payload_length == 0};
    if (ret->is_short)
        return true;
    if (element->payload_length != sizeof *wire)
        return wire_bad(error, "decode command POSTCOPY_ADVISE: length is %u, expected 0 or %zu",
                        element->payload_length, sizeof *wire) == STREAM_OK;

    ret->page_sizes = be64_load(wire->page_sizes);
    ret->target_page_bytes = be64_load(wire->target_page_bytes);
    if (ret->page_sizes == 0 || ret->page_sizes % STREAM_PAGE_BYTES != 0)
        return wire_bad(error,
                        "decode command POSTCOPY_ADVISE: page sizes are 0x%" PRIx64
                        ", expected one or more of at least %u bytes",
                        ret->page_sizes, STREAM_PAGE_BYTES) == STREAM_OK;
    if (ret->target_page_bytes != STREAM_PAGE_BYTES)
        return wire_bad(error,
                        "decode command POSTCOPY_ADVISE: target page has %" PRIu64
                        " bytes, expected %u",
                        ret->target_page_bytes, STREAM_PAGE_BYTES) == STREAM_OK;
    return true;
}

void
stream_put_advise(StreamWriter *writer, uint64_t page_sizes)
{
    WireAdvise payload = {be64_make(page_sizes), be64_make(STREAM_PAGE_BYTES)};

    stream_put_command(writer, STREAM_COMMAND_POSTCOPY_ADVISE, &payload, sizeof payload);
}

/* version, length of the name, name, 0 */
#define DISCARD_HEAD_BYTES(name_length) (1u + 1u + (name_length) + 1u)

static const WireRange *
discard_ranges(const StreamElement *element)
{
    return (const void *)(element->payload + DISCARD_HEAD_BYTES(element->payload[1]));
}

static StreamResult
check_discard_head(const StreamElement *element, char *ret_name, GError **error)
{
    const uint8_t *payload = element->payload;
    unsigned name_length = payload[1];
    unsigned head = DISCARD_HEAD_BYTES(name_length);

    if (payload[0] != 0)
        return wire_bad(error, "decode command POSTCOPY_RAM_DISCARD: version is %u, expected 0",
                        payload[0]);
    if (element->payload_length < head + sizeof(WireRange) ||
        (element->payload_length - head) % sizeof(WireRange) != 0)
        return wire_bad(error,
                        "decode command POSTCOPY_RAM_DISCARD: length is %u, expected %u for the "
                        "name, and one or more ranges of %zu",
                        element->payload_length, head, sizeof(WireRange));
    StreamResult result =
        wire_copy_name(payload + 2, name_length, "decode command POSTCOPY_RAM_DISCARD: block name",
                       ret_name, error);
    if (result != STREAM_OK)
        return result;
    if (payload[head - 1] != 0)
        return wire_bad(error,
                        "decode command POSTCOPY_RAM_DISCARD: byte behind block name %s is 0x%02x, "
                        "expected 0",
                        ret_name, payload[head - 1]);
    return STREAM_OK;
}

bool
stream_parse_discard(const StreamElement *element, char *ret_name, unsigned *ret_count,
                     GError **error)
{
    if (check_discard_head(element, ret_name, error) != STREAM_OK)
        return false;

    size_t head = DISCARD_HEAD_BYTES(element->payload[1]);
    *ret_count = (unsigned)((element->payload_length - head) / sizeof(WireRange));
    for (unsigned i = 0; i < *ret_count; i++) {
        StreamRange range = stream_discard_range(element, i);
        if (range.start % STREAM_PAGE_BYTES != 0 || range.length % STREAM_PAGE_BYTES != 0 ||
            range.length == 0 || range.start > UINT64_MAX - range.length)
            return wire_bad(
                       error,
                       "decode command POSTCOPY_RAM_DISCARD: range %u of block %s is 0x%" PRIx64
                       " + 0x%" PRIx64 ", expected whole pages of %u bytes",
                       i, ret_name, range.start, range.length, STREAM_PAGE_BYTES) == STREAM_OK;
    }
    return true;
}

StreamRange
stream_discard_range(const StreamElement *element, unsigned index)
{
    const WireRange *wire = discard_ranges(element) + index;

    g_assert((const uint8_t *)(wire + 1) <= element->payload + element->payload_length);
    return (StreamRange){be64_load(wire->start), be64_load(wire->length)};
}

void
stream_put_discard(StreamWriter *writer, const char *name, const StreamRange *ranges,
                   unsigned count)
{
    uint8_t bytes[DISCARD_HEAD_BYTES(STREAM_NAME_MAX) + STREAM_DISCARD_RANGES * sizeof(WireRange)];
    StreamWriter payload = {bytes, 0, sizeof bytes};

    g_assert(count > 0 && count <= STREAM_DISCARD_RANGES);
    stream_put_u8(&payload, 0);
    stream_put_name(&payload, name);
    stream_put_u8(&payload, 0);
    for (unsigned i = 0; i < count; i++) {
        stream_put_be64(&payload, ranges[i].start);
        stream_put_be64(&payload, ranges[i].length);
    }
    stream_put_command(writer, STREAM_COMMAND_POSTCOPY_RAM_DISCARD, bytes,
                       (uint16_t)payload.length);
}

/* length of the name, name, first page */
#define WORDS_HEAD_BYTES(name_length) (1u + (name_length) + 8u)

bool
stream_parse_discard_words(const StreamElement *element, char *ret_name, uint64_t *ret_first_page,
                           unsigned *ret_count, GError **error)
{
    const uint8_t *payload = element->payload;
    size_t head = WORDS_HEAD_BYTES(payload[0]);
    be64 first_page;

    if (element->payload_length < head + 8 || (element->payload_length - head) % 8 != 0 ||
        element->payload_length > head + 8 * STREAM_DISCARD_WORDS)
        return wire_bad(error,
                        "decode command DISCARD_WORDS: length is %u, expected %zu for the head, "
                        "and 1 to %u words of 8",
                        element->payload_length, head, STREAM_DISCARD_WORDS) == STREAM_OK;
    if (wire_copy_name(payload + 1, payload[0], "decode command DISCARD_WORDS: block name",
                       ret_name, error) != STREAM_OK)
        return false;
    memcpy(&first_page, payload + head - 8, 8);
    *ret_first_page = be64_load(first_page);
    *ret_count = (unsigned)((element->payload_length - head) / 8);
    if (*ret_first_page % 64 != 0 || *ret_first_page > UINT64_MAX / STREAM_PAGE_BYTES / 2)
        return wire_bad(error,
                        "decode command DISCARD_WORDS: first page of block %s is 0x%" PRIx64
                        ", expected a multiple of 64",
                        ret_name, *ret_first_page) == STREAM_OK;
    return true;
}

uint64_t
stream_discard_word(const StreamElement *element, unsigned index)
{
    size_t at = WORDS_HEAD_BYTES(element->payload[0]) + 8u * index;
    be64 word;

    g_assert(at + 8 <= element->payload_length);
    memcpy(&word, element->payload + at, 8);
    return be64_load(word);
}

void
stream_put_discard_words(StreamWriter *writer, const char *name, uint64_t first_page,
                         const uint64_t *words, unsigned count)
{
    uint8_t bytes[WORDS_HEAD_BYTES(STREAM_NAME_MAX) + STREAM_DISCARD_WORDS * 8];
    StreamWriter payload = {bytes, 0, sizeof bytes};

    g_assert(count > 0 && count <= STREAM_DISCARD_WORDS && first_page % 64 == 0);
    stream_put_name(&payload, name);
    stream_put_be64(&payload, first_page);
    for (unsigned i = 0; i < count; i++)
        stream_put_be64(&payload, words[i]);
    stream_put_command(writer, STREAM_COMMAND_DISCARD_WORDS, bytes, (uint16_t)payload.length);
}

StreamAnswer
stream_parse_answer(const StreamElement *element)
{
    StreamAnswer answer = {.channel = element->payload[0]};

    g_assert(element->payload_length == 1 + sizeof answer.nonce + sizeof answer.proof);
    memcpy(answer.nonce, element->payload + 1, sizeof answer.nonce);
    memcpy(answer.proof, element->payload + 1 + sizeof answer.nonce, sizeof answer.proof);
    return answer;
}

void
stream_put_answer(StreamWriter *writer, const StreamAnswer *answer)
{
    uint8_t bytes[1 + sizeof answer->nonce + sizeof answer->proof];
    StreamWriter payload = {bytes, 0, sizeof bytes};

    stream_put_u8(&payload, answer->channel);
    stream_put_bytes(&payload, answer->nonce, sizeof answer->nonce);
    stream_put_bytes(&payload, answer->proof, sizeof answer->proof);
    stream_put_command(writer, STREAM_COMMAND_ANSWER, bytes, (uint16_t)payload.length);
}

bool
stream_parse_bitmap_name(const StreamElement *element, char *ret_name, GError **error)
{
    if (element->payload_length != 1u + element->payload[0])
        return wire_bad(error, "decode command RECV_BITMAP: length is %u, expected %u for the name",
                        element->payload_length, 1u + element->payload[0]) == STREAM_OK;
    return wire_copy_name(element->payload + 1, element->payload[0],
                          "decode command RECV_BITMAP: block name", ret_name, error) == STREAM_OK;
}
