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

ReadResult
reader_peek(Reader *reader, size_t length, const uint8_t **ret_bytes)
{
    if (!reader->receiver) {
        *ret_bytes = reader->bytes;
        if (reader->length >= length)
            return READ_OK;
        return reader->length ? READ_BAD : READ_END;
    }
    return read_result_of(transport_peek(reader->receiver, length, ret_bytes));
}

size_t
reader_available(const Reader *reader)
{
    return reader->receiver ? transport_available(reader->receiver) : reader->length;
}

void
reader_consume(Reader *reader, size_t length)
{
    if (reader->receiver) {
        transport_consume(reader->receiver, length);
        return;
    }
    reader->bytes += length;
    reader->length -= length;
}

static ReadResult
explain(const Reader *reader, ReadResult result, GError **error)
{
    if (result == READ_LINK) {
        const GError *cause = transport_receiver_error(reader->receiver);
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "receive: %s",
                    cause ? cause->message : "the link broke");
    } else if (result == READ_BAD) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "load package: it ends in the middle of an element");
    }
    return result;
}

ReadResult
reader_receive_into(Reader *reader, void *bytes, size_t length, size_t *ret_done, GError **error)
{
    g_assert(reader->receiver);
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
