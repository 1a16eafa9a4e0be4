/* SPDX-License-Identifier: MIT */
/*
 * The return path: what a destination tells its source. Decoded by the source's request thread,
 * encoded by the destination's fault thread. Which block a REQ_PAGES continues, and what lies
 * inside of a block, the caller knows.
 */
#include "engine/stream/wire.h"

#define BITMAP_END_MARK 0x0123456789abcdefull

static StreamResult
parse_value(WireReader *reader, uint16_t length, StreamReturn *ret, GError **error)
{
    g_assert(length == sizeof(be32));
    if (!wire_take_be32(reader, &ret->value))
        return STREAM_MORE;
    if (ret->type == STREAM_RETURN_RESUME_ACK && ret->value != 1)
        return wire_bad(error, "decode return message RESUME_ACK: value is %u, expected 1",
                        ret->value);
    return STREAM_OK;
}

static StreamResult
parse_name(WireReader *reader, uint16_t length, const char *what, StreamReturn *ret, GError **error)
{
    const uint8_t *text = wire_take(reader, length);

    if (!text)
        return STREAM_MORE;
    if (length != 1u + text[0])
        return wire_bad(error, "%s length is %u, expected %u", what, text[0], length - 1u);
    return wire_copy_name(text + 1, text[0], what, ret->name, error);
}

static StreamResult
parse_request(WireReader *reader, uint16_t length, StreamReturn *ret, GError **error)
{
    const WireRequest *wire = wire_take(reader, sizeof *wire);

    if (!wire)
        return STREAM_MORE;
    ret->start = be64_load(wire->start);
    ret->length = be32_load(wire->length);
    if (ret->start % STREAM_PAGE_BYTES != 0 || ret->start > UINT64_MAX - ret->length)
        return wire_bad(error,
                        "decode return message REQ_PAGES: start is 0x%" PRIx64
                        ", expected a multiple of %u inside of a block",
                        ret->start, STREAM_PAGE_BYTES);
    if (ret->length == 0 || ret->length % STREAM_PAGE_BYTES != 0)
        return wire_bad(error,
                        "decode return message REQ_PAGES: length is %u, expected a multiple of %u",
                        ret->length, STREAM_PAGE_BYTES);
    if (ret->type == STREAM_RETURN_REQ_PAGES)
        return STREAM_OK;
    return parse_name(reader, (uint16_t)(length - sizeof *wire),
                      "decode return message REQ_PAGES_ID: block name", ret, error);
}

static StreamResult
parse_bitmap(WireReader *reader, uint16_t length, StreamReturn *ret, GError **error)
{
    return parse_name(reader, length, "decode return message RECV_BITMAP: block name", ret, error);
}

static StreamResult
parse_address(WireReader *reader, uint16_t length, StreamReturn *ret, GError **error)
{
    return parse_name(reader, length, "decode return message ADDRESS: URI", ret, error);
}

static StreamResult
parse_nothing(G_GNUC_UNUSED WireReader *reader, G_GNUC_UNUSED uint16_t length,
              G_GNUC_UNUSED StreamReturn *ret, G_GNUC_UNUSED GError **error)
{
    return STREAM_OK;
}

static StreamResult
parse_secret(WireReader *reader, uint16_t length, StreamReturn *ret, G_GNUC_UNUSED GError **error)
{
    const uint8_t *secret = wire_take(reader, length);

    g_assert(length == sizeof ret->secret);
    if (!secret)
        return STREAM_MORE;
    memcpy(ret->secret, secret, length);
    return STREAM_OK;
}

#define PARSE_SHUT           parse_value
#define PARSE_PONG           parse_value
#define PARSE_REQ_PAGES_ID   parse_request
#define PARSE_REQ_PAGES      parse_request
#define PARSE_RECV_BITMAP    parse_bitmap
#define PARSE_RESUME_ACK     parse_value
#define PARSE_SWITCHOVER_ACK parse_nothing
#define PARSE_TOKEN          parse_secret
#define PARSE_CHALLENGE      parse_secret
#define PARSE_PROOF          parse_secret
#define PARSE_ADDRESS        parse_address
#define PARSE_RESEND         parse_request
#define PARSE_WHOLE          parse_nothing
#define PARSE_VERDICT        parse_value

/* number -> name, payload limits and reader; a row without name is an unknown message */
static const struct {
    const char *name;
    uint16_t least, greatest;
    StreamResult (*parse)(WireReader *reader, uint16_t length, StreamReturn *ret, GError **error);
} messages[] = {
#define STREAM_RETURN_ROW(name, number, least, greatest)                                           \
    [number] = {#name, least, greatest, PARSE_##name},
    STREAM_RETURN_LIST(STREAM_RETURN_ROW)
#undef STREAM_RETURN_ROW
};
static_assert(G_N_ELEMENTS(messages) == STREAM_RETURN_VERDICT + 1, "no gap at the end");

StreamResult
stream_decode_return(const uint8_t *bytes, size_t available, StreamReturn *ret, size_t *ret_length,
                     GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    uint16_t number, length;

    if (!wire_take_be16(&reader, &number))
        return wire_more(&reader, ret_length);
    if (number == STREAM_TLS_ALERT)
        return wire_bad(error, "decode return message: the destination speaks TLS, and refuses "
                               "this connection; set 'tls-creds' here, or unset it there");
    if (number >= G_N_ELEMENTS(messages) || !messages[number].name)
        return wire_bad(error,
                        "decode return message: type is %u, expected 1 to %d or one of ours, "
                        "to %zu",
                        number, STREAM_RETURN_SWITCHOVER_ACK, G_N_ELEMENTS(messages) - 1);
    if (!wire_take_be16(&reader, &length))
        return wire_more(&reader, ret_length);
    if (length < messages[number].least || length > messages[number].greatest)
        return wire_bad(error, "decode return message %s: length is %u, expected %u to %u",
                        messages[number].name, length, messages[number].least,
                        messages[number].greatest);

    size_t end = reader.position + length;
    if (end > available) {
        *ret_length = end;
        return STREAM_MORE;
    }
    /* Not all of it: the name is long, and most requests have none. */
    ret->type = (StreamReturnType)number;
    ret->value = ret->length = 0;
    ret->start = 0;
    ret->name[0] = '\0';
    StreamResult result = messages[number].parse(&reader, length, ret, error);
    g_assert(result == STREAM_BAD || (result == STREAM_OK && reader.position == end));
    *ret_length = end;
    return result;
}

static uint64_t
bitmap_bytes(uint64_t count_pages)
{
    return (count_pages + 63) / 64 * 8;
}

static uint64_t
load_be64(const uint8_t *bytes)
{
    be64 value;
    memcpy(&value, bytes, sizeof value);
    return be64_load(value);
}

bool
stream_check_bitmap_size(const uint8_t *bytes, uint64_t count_pages, GError **error)
{
    uint64_t size = load_be64(bytes), expected = bitmap_bytes(count_pages);

    return size == expected || wire_bad(error,
                                        "decode received bitmap: size is %" PRIu64
                                        ", expected %" PRIu64 " for %" PRIu64 " pages",
                                        size, expected, count_pages) == STREAM_OK;
}

bool
stream_check_bitmap_end(const uint8_t *bytes, GError **error)
{
    uint64_t mark = load_be64(bytes);

    return mark == BITMAP_END_MARK ||
           wire_bad(error,
                    "decode received bitmap: end mark is 0x%016" PRIx64 ", expected 0x%016llx",
                    mark, BITMAP_END_MARK) == STREAM_OK;
}

uint64_t
stream_bitmap_word(const uint8_t *bytes)
{
    uint64_t word;
    memcpy(&word, bytes, sizeof word);
    return GUINT64_FROM_LE(word);
}

StreamResult
stream_decode_bitmap(const uint8_t *bytes, size_t available, uint64_t count_pages,
                     const uint8_t **ret_bits, size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    uint64_t expected = bitmap_bytes(count_pages);

    const uint8_t *size = wire_take(&reader, STREAM_BITMAP_MARK_BYTES);
    if (!size)
        return wire_more(&reader, ret_length);
    if (!stream_check_bitmap_size(size, count_pages, error))
        return STREAM_BAD;
    const uint8_t *bits = wire_take(&reader, expected);
    const uint8_t *mark = wire_take(&reader, STREAM_BITMAP_MARK_BYTES);
    if (!mark)
        return wire_more(&reader, ret_length);
    if (!stream_check_bitmap_end(mark, error))
        return STREAM_BAD;
    for (uint64_t page = count_pages; page < expected * 8; page++)
        if (bits[page / 8] & 1u << page % 8)
            return wire_bad(error,
                            "decode received bitmap: padding bit %" PRIu64 " is 1, expected 0 "
                            "behind %" PRIu64 " pages",
                            page, count_pages);
    *ret_bits = bits;
    return wire_ok(&reader, ret_length);
}

static void
put_head(StreamWriter *writer, StreamReturnType type, size_t length)
{
    g_assert((unsigned)type < G_N_ELEMENTS(messages) && messages[type].name);
    g_assert(length >= messages[type].least && length <= messages[type].greatest);
    stream_put_be16(writer, (uint16_t)type);
    stream_put_be16(writer, (uint16_t)length);
}

void
stream_put_return_value(StreamWriter *writer, StreamReturnType type, uint32_t value)
{
    put_head(writer, type, sizeof(be32));
    stream_put_be32(writer, value);
}

void
stream_put_return_address(StreamWriter *writer, const char *uri)
{
    put_head(writer, STREAM_RETURN_ADDRESS, 1 + strlen(uri));
    stream_put_name(writer, uri);
}

void
stream_put_return_secret(StreamWriter *writer, StreamReturnType type, const uint8_t *secret)
{
    put_head(writer, type, STREAM_SECRET_BYTES);
    stream_put_bytes(writer, secret, STREAM_SECRET_BYTES);
}

void
stream_put_request(StreamWriter *writer, const char *name, uint64_t start, uint32_t length)
{
    WireRequest wire = {be64_make(start), be32_make(length)};

    if (name)
        put_head(writer, STREAM_RETURN_REQ_PAGES_ID, sizeof wire + 1 + strlen(name));
    else
        put_head(writer, STREAM_RETURN_REQ_PAGES, sizeof wire);
    stream_put_bytes(writer, &wire, sizeof wire);
    if (name)
        stream_put_name(writer, name);
}

void
stream_put_resend(StreamWriter *writer, const char *name, uint64_t start, uint32_t length)
{
    WireRequest wire = {be64_make(start), be32_make(length)};

    put_head(writer, STREAM_RETURN_RESEND, sizeof wire + 1 + strlen(name));
    stream_put_bytes(writer, &wire, sizeof wire);
    stream_put_name(writer, name);
}

void
stream_put_whole(StreamWriter *writer)
{
    put_head(writer, STREAM_RETURN_WHOLE, 0);
}

void
stream_put_bitmap_head(StreamWriter *writer, const char *name, uint64_t count_pages)
{
    put_head(writer, STREAM_RETURN_RECV_BITMAP, 1 + strlen(name));
    stream_put_name(writer, name);
    stream_put_be64(writer, bitmap_bytes(count_pages));
}

void
stream_put_bitmap_word(StreamWriter *writer, uint64_t word)
{
    word = GUINT64_TO_LE(word);
    stream_put_bytes(writer, &word, sizeof word);
}

void
stream_put_bitmap_end(StreamWriter *writer)
{
    stream_put_be64(writer, BITMAP_END_MARK);
}
