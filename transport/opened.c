/* SPDX-License-Identifier: MIT */
/*
 * Receivers on TLS links: records as a plain receiver brings them, opened into the buffer or the
 * caller's memory.
 *
 * The thread of the receiver's ring. GnuTLS is only given whole records, so that an end between two
 * is told from one inside of one, which somebody else than the peer may have made. What of a record
 * was not asked for stays in GnuTLS, to be taken into the caller's memory without another copy.
 */
#include "transport/receive.h"

struct TransportOpener {
    TransportReceiver *raw;
};

static TransportResult
break_off(TransportReceiver *receiver, GError *error)
{
    receiver->is_broken = true;
    g_clear_error(&receiver->error);
    receiver->error = error;
    return TRANSPORT_ERROR_RESULT;
}

static TransportResult
refuse_header(TransportReceiver *receiver, const uint8_t *header)
{
    return break_off(receiver,
                     g_error_new(TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                                 "receiving from %s failed: what came is no record of TLS (it "
                                 "begins with 0x%02x%02x): see who is in between, then connect "
                                 "again",
                                 receiver->link->name, header[0], header[1]));
}

/* The next whole record, which stays until it is consumed. */
static TransportResult
peek_record(TransportReceiver *receiver, const uint8_t **ret_record, size_t *ret_length)
{
    TransportReceiver *raw = receiver->opener->raw;
    TransportResult result = transport_peek(raw, SESSION_HEADER_BYTES, ret_record);

    if (result == TRANSPORT_OK) {
        *ret_length = transport_session_record_length(*ret_record);
        if (*ret_length == 0)
            return refuse_header(receiver, *ret_record);
        result = transport_peek(raw, *ret_length, ret_record);
    }
    if (result == TRANSPORT_ERROR_RESULT)
        return break_off(receiver, g_error_copy(raw->error));
    receiver->is_ended = result == TRANSPORT_END;
    return result;
}

/* What is left of the last record, or the next one's. WAIT: none has come wholly. */
static TransportResult
open_some(TransportReceiver *receiver, uint8_t *bytes, size_t room, size_t *ret_length)
{
    TransportSession *session = receiver->link->session;
    const uint8_t *record = NULL;
    size_t record_length = 0;
    GError *error = NULL;

    *ret_length = 0;
    if (!transport_session_has_pending(session)) {
        TransportResult result = peek_record(receiver, &record, &record_length);
        if (result != TRANSPORT_OK)
            return result == TRANSPORT_WAIT ? TRANSPORT_WAIT : TRANSPORT_OK;
    }
    TransportResult result =
        transport_session_open(session, record, record_length, bytes, room, ret_length, &error);
    if (record != NULL)
        transport_consume(receiver->opener->raw, record_length);
    if (result == TRANSPORT_ERROR_RESULT)
        break_off(receiver, error);
    receiver->is_ended = result == TRANSPORT_END;
    receiver->count_bytes += *ret_length;
    return TRANSPORT_OK;
}

/* As much ahead as a plain receiver would ask for: what is behind may be for the caller's memory.
 */
static TransportResult
fetch(TransportReceiver *receiver, size_t length)
{
    size_t got, before_bytes = receiver->ahead_bytes;

    transport_receiver_make_room(receiver, length);
    size_t wanted = transport_receiver_wanted(receiver, length);
    TransportResult result = open_some(receiver, receiver->bytes + receiver->end,
                                       MIN(wanted, CAPACITY_BYTES - receiver->end), &got);
    if (got == 0)
        receiver->ahead_bytes = before_bytes;
    receiver->end += got;
    return result;
}

TransportResult
transport_opener_fetch_into(TransportReceiver *receiver)
{
    size_t got;
    TransportResult result = open_some(receiver, receiver->into + receiver->into_done,
                                       receiver->into_length - receiver->into_done, &got);

    receiver->into_done += got;
    return result;
}

void
transport_opener_attach(TransportReceiver *receiver)
{
    receiver->opener = g_new0(TransportOpener, 1);
    receiver->opener->raw = transport_receiver_new_plain(receiver->ring, receiver->link);
    receiver->fetch = fetch;
    receiver->advance_into = transport_receiver_advance_opened;
}

void
transport_opener_look(TransportOpener *opener)
{
    transport_receiver_look(opener->raw);
}

void
transport_opener_free(TransportOpener *opener)
{
    if (opener == NULL)
        return;
    transport_receiver_free(opener->raw);
    g_free(opener);
}
