/* SPDX-License-Identifier: MIT */
/*
 * Receivers: a buffer that shows the bytes of a link in order and in one piece.
 *
 * The thread of the receiver's ring. The kernel is asked only when a peek finds too little, for as
 * much as there is room. Bytes lie between start and end; they move to the front of the buffer when
 * the room behind them gets small, never while the kernel writes there. Meaning is left to the
 * caller.
 */
#include "transport/link.h"
#include "transport/ring.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define CAPACITY_BYTES (256u * 1024u + TRANSPORT_PEEK_MAX)

/* Below this much room a move is cheaper than receiving in small pieces. */
#define ROOM_MIN_BYTES (64u * 1024u)

struct TransportReceiver {
    TransportOp op;
    TransportRing *ring;
    TransportLink *link;
    uint8_t *bytes;
    size_t start, end;
    uint64_t count_bytes;
    bool is_ended;  /* the peer closed its half */
    bool is_broken; /* error stays */
    GError *error;
};

static void
receive_done(TransportOp *op, int result)
{
    TransportReceiver *receiver = (TransportReceiver *)op;

    if (result > 0) {
        receiver->end += (size_t)result;
        receiver->count_bytes += (uint64_t)result;
    } else if (result == 0) {
        receiver->is_ended = true;
    } else if (result == -EAGAIN) {
        transport_link_make_blocking(receiver->link->fd);
    } else if (result != -EINTR && !op->is_closing) {
        receiver->is_broken = true;
        g_clear_error(&receiver->error);
        g_set_error(&receiver->error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                    "receiving from %s failed after %" G_GUINT64_FORMAT " bytes: %s: the peer or "
                    "the network ended the link: see why the peer stopped, then connect again",
                    receiver->link->name, receiver->count_bytes, g_strerror(-result));
    }
}

/* Room for what a peek of length asks for, and for more than a little. */
static void
make_room(TransportReceiver *receiver, size_t length)
{
    size_t available = receiver->end - receiver->start;

    if (receiver->start == 0)
        return;
    if (available != 0 && receiver->start + length <= CAPACITY_BYTES &&
        CAPACITY_BYTES - receiver->end >= ROOM_MIN_BYTES)
        return;
    memmove(receiver->bytes, receiver->bytes + receiver->start, available);
    receiver->start = 0;
    receiver->end = available;
}

static void
prepare_receive(TransportOp *op, struct io_uring_sqe *sqe)
{
    TransportReceiver *receiver = (TransportReceiver *)op;

    io_uring_prep_recv(sqe, receiver->link->fd, receiver->bytes + receiver->end,
                       CAPACITY_BYTES - receiver->end, 0);
}

static void
start_receive(TransportReceiver *receiver, size_t length)
{
    make_room(receiver, length);
    transport_ring_queue(receiver->ring, &receiver->op);
}

TransportReceiver *
transport_receiver_new(TransportRing *ring, TransportLink *link)
{
    TransportReceiver *receiver = g_new0(TransportReceiver, 1);

    receiver->op.done = receive_done;
    receiver->op.prepare = prepare_receive;
    receiver->ring = ring;
    receiver->link = transport_link_ref(link);
    receiver->bytes = g_malloc(CAPACITY_BYTES);
    return receiver;
}

void
transport_receiver_free(TransportReceiver *receiver)
{
    if (receiver == NULL)
        return;
    if (!transport_ring_cancel(receiver->ring, &receiver->op)) {
        g_warning("receiver from %s freed by another thread while it received: its memory is kept",
                  receiver->link->name);
        transport_link_shutdown(receiver->link);
        return;
    }
    transport_link_unref(receiver->link);
    g_clear_error(&receiver->error);
    g_free(receiver->bytes);
    g_free(receiver);
}

static TransportResult
report_end(TransportReceiver *receiver, size_t length)
{
    size_t available = receiver->end - receiver->start;

    if (available == 0)
        return TRANSPORT_END;
    g_clear_error(&receiver->error);
    g_set_error(
        &receiver->error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
        "receiving from %s failed: the peer closed the link in the middle: of %zu bytes only "
        "%zu came, %" G_GUINT64_FORMAT " in all: see why the peer stopped",
        receiver->link->name, length, available, receiver->count_bytes);
    return TRANSPORT_ERROR_RESULT;
}

static bool
is_enough_or_over(const TransportReceiver *receiver, size_t length)
{
    return receiver->end - receiver->start >= length || receiver->is_broken || receiver->is_ended;
}

TransportResult
transport_peek(TransportReceiver *receiver, size_t length, const uint8_t **ret_bytes)
{
    g_assert(length <= TRANSPORT_PEEK_MAX);
    for (;;) {
        if (receiver->end - receiver->start >= length) {
            *ret_bytes = receiver->bytes + receiver->start;
            return TRANSPORT_OK;
        }
        if (receiver->is_broken)
            return TRANSPORT_ERROR_RESULT;
        if (receiver->is_ended)
            return report_end(receiver, length);
        transport_ring_reap(receiver->ring, &receiver->op);
        if (receiver->op.is_in_flight)
            return TRANSPORT_WAIT;
        if (is_enough_or_over(receiver, length))
            continue;
        start_receive(receiver, length);
        return TRANSPORT_WAIT;
    }
}

size_t
transport_available(const TransportReceiver *receiver)
{
    return receiver->end - receiver->start;
}

void
transport_consume(TransportReceiver *receiver, size_t length)
{
    g_assert(length <= receiver->end - receiver->start);
    receiver->start += length;
    /* The next bytes are asked for at once, so that the request travels with whatever is sent in
     * answer to these. */
    if (receiver->start == receiver->end && !receiver->op.is_in_flight && !receiver->is_broken &&
        !receiver->is_ended)
        start_receive(receiver, 1);
}

uint64_t
transport_receiver_count_bytes(const TransportReceiver *receiver)
{
    return receiver->count_bytes;
}

const GError *
transport_receiver_error(const TransportReceiver *receiver)
{
    return receiver->error;
}
