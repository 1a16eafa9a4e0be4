/* SPDX-License-Identifier: MIT */
/*
 * Reading decoded items from a link or from memory. Turns the transport's answers into the few that
 * a role has to tell apart; runs on the thread that owns the reader.
 */
#include "engine/reader.h"

static ReadResult
read_result_of(TransportResult result)
{
    switch (result) {
    case TRANSPORT_OK:
        return READ_OK;
    case TRANSPORT_WAIT:
        return READ_WAIT;
    case TRANSPORT_END:
        return READ_END;
    case TRANSPORT_ERROR_RESULT:
        break;
    }
    return READ_LINK;
}

void
reader_seal(Reader *reader, uint64_t limit)
{
    g_assert(reader->receiver && !reader->is_sealed);
    reader->is_sealed = true;
    reader->limit = limit;
}

void
reader_expect_bare(Reader *reader, size_t length)
{
    reader->bare = length;
}

void
reader_clear(Reader *reader)
{
    g_clear_pointer(&reader->gathered, g_byte_array_unref);
    *reader = (Reader){0};
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

static ReadResult
refuse(Reader *reader, const char *problem)
{
    reader->problem = problem;
    return READ_LINK;
}

/* The checked piece may be read from here on. */
static ReadResult
show_piece(Reader *reader, const void *piece)
{
    if (!stream_check_piece(&reader->seal, piece))
        return refuse(reader, "a piece of the stream was damaged on its way");
    reader->number++;
    reader->left = reader->seal.length;
    return READ_OK;
}

/* Memory grows with what has come, never with what was announced. */
static ReadResult
gather_piece(Reader *reader)
{
    GByteArray *gathered = reader->gathered;

    while (gathered->len < reader->seal.length) {
        const uint8_t *bytes;
        ReadResult result = read_result_of(transport_peek(reader->receiver, 1, &bytes));
        if (result != READ_OK)
            return result == READ_END ? refuse(reader, "the peer closed inside a piece") : result;
        size_t length =
            MIN(transport_available(reader->receiver), reader->seal.length - gathered->len);
        g_byte_array_append(gathered, bytes, (guint)length);
        transport_consume(reader->receiver, length);
    }
    return show_piece(reader, gathered->data);
}

static ReadResult
open_piece(Reader *reader)
{
    const uint8_t *bytes;

    if (reader->problem)
        return READ_LINK;
    if (reader->gathered)
        return gather_piece(reader);
    ReadResult result = read_result_of(transport_peek(reader->receiver, STREAM_SEAL_BYTES, &bytes));
    if (result != READ_OK)
        return result;
    if (!stream_parse_seal(bytes, reader->number, &reader->seal))
        return refuse(reader, "a seal of the stream was damaged on its way");
    size_t length = reader->seal.length;
    if (length <= STREAM_ITEM_MAX) {
        result =
            read_result_of(transport_peek(reader->receiver, STREAM_SEAL_BYTES + length, &bytes));
        if (result == READ_OK)
            result = show_piece(reader, bytes + STREAM_SEAL_BYTES);
        if (result == READ_OK)
            transport_consume(reader->receiver, STREAM_SEAL_BYTES);
        return result;
    }
    if (length > reader->limit)
        return refuse(reader, "a piece of the stream is longer than anything expected here");
    transport_consume(reader->receiver, STREAM_SEAL_BYTES);
    reader->gathered = g_byte_array_new();
    return gather_piece(reader);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static ReadResult
peek_sealed(Reader *reader, size_t length, const uint8_t **ret_bytes)
{
    if (reader->bare)
        return read_result_of(transport_peek(reader->receiver, length, ret_bytes));
    while (!reader->left) {
        ReadResult result = open_piece(reader);
        if (result != READ_OK)
            return result;
    }
    if (reader->left < length)
        return refuse(reader, "a piece of the stream ends in the middle of an item");
    if (!reader->gathered)
        return read_result_of(transport_peek(reader->receiver, length, ret_bytes));
    *ret_bytes = reader->gathered->data + reader->gathered->len - reader->left;
    return READ_OK;
}

ReadResult
reader_peek(Reader *reader, size_t length, const uint8_t **ret_bytes)
{
    if (!reader->receiver) {
        *ret_bytes = reader->bytes;
        if (reader->length >= length)
            return READ_OK;
        return reader->length ? READ_BAD : READ_END;
    }
    if (reader->is_sealed)
        return peek_sealed(reader, length, ret_bytes);
    return read_result_of(transport_peek(reader->receiver, length, ret_bytes));
}

size_t
reader_available(const Reader *reader)
{
    if (!reader->receiver)
        return reader->length;
    if (reader->left)
        return reader->left;
    size_t available = transport_available(reader->receiver);
    return reader->bare ? MIN(available, reader->bare) : available;
}

void
reader_consume(Reader *reader, size_t length)
{
    if (!reader->receiver) {
        reader->bytes += length;
        reader->length -= length;
        return;
    }
    if (reader->bare)
        reader->bare -= length;
    else if (reader->is_sealed)
        reader->left -= length;
    if (!reader->gathered)
        transport_consume(reader->receiver, length);
    else if (!reader->left)
        g_clear_pointer(&reader->gathered, g_byte_array_unref);
}

const char *
reader_problem(const Reader *reader)
{
    const GError *cause = reader->receiver ? transport_receiver_error(reader->receiver) : NULL;

    if (reader->problem)
        return reader->problem;
    return cause ? cause->message : "the link broke";
}

static ReadResult
explain(const Reader *reader, ReadResult result, GError **error)
{
    if (result == READ_LINK)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "receive: %s",
                    reader_problem(reader));
    else if (result == READ_BAD)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "load package: it ends in the middle of an element");
    return result;
}

ReadResult
reader_receive_into(Reader *reader, void *bytes, size_t length, size_t *ret_done, GError **error)
{
    g_assert(reader->receiver);
    if (reader->left) {
        *ret_done = 0;
        return explain(reader, refuse(reader, "pages come in the middle of a piece"), error);
    }
    TransportResult result = transport_receive_into(reader->receiver, bytes, length, ret_done);
    return explain(reader, read_result_of(result), error);
}

ReadResult
reader_decode(Reader *reader, ReadDecode decode, void *context, size_t *ret_length, GError **error)
{
    size_t need = 1;

    for (;;) {
        const uint8_t *bytes;
        ReadResult result = reader_peek(reader, need, &bytes);
        if (result != READ_OK)
            return explain(reader, result, error);
        switch (decode(context, bytes, reader_available(reader), ret_length, error)) {
        case STREAM_OK:
            return READ_OK;
        case STREAM_BAD:
            return READ_BAD;
        case STREAM_MORE:
            g_assert(*ret_length > need && *ret_length <= STREAM_ITEM_MAX);
            need = *ret_length;
            break;
        }
    }
}
