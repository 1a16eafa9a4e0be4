/* SPDX-License-Identifier: MIT */
/*
 * Receivers: a buffer that shows the bytes of a link in order and in one piece, or the caller's own
 * memory.
 *
 * The thread of the receiver's ring. The kernel is asked only when a peek finds too little. Bytes
 * lie between start and end; they move to the front of the buffer when the room behind them gets
 * small, never while the kernel writes there. For as much as there is room the kernel is asked as
 * long as all goes through the buffer; after bytes that went straight to the caller's memory only
 * for what probably lies between them and the next such bytes, and then for more with each time
 * that this was too little. Meaning is left to the caller; TLS to opened.c.
 */
#include "transport/receive.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

/* Below this much room a move is cheaper than receiving in small pieces. */
#define ROOM_MIN_BYTES (64u * 1024u)

/* What is asked for behind bytes that go to the caller's memory: a few headers, so that mostly they
 * come by the same call, and little enough to be copied. */
#define AHEAD_MIN_BYTES 128u

static TransportResult advance_into(TransportReceiver *receiver);

static void
receive_done(TransportOp *op, int result)
{
    TransportReceiver *receiver = (TransportReceiver *)op;

    if (result > 0) {
        size_t direct = MIN((size_t)result, receiver->direct_bytes);
        receiver->into_done += direct;
        receiver->end += (size_t)result - direct;
        receiver->count_bytes += (uint64_t)result;
    } else if (result == 0) {
        receiver->is_ended = true;
    } else if (result == -EAGAIN) {
        transport_link_make_blocking(receiver->link->fd);
    } else if (result == -EFAULT) {
        receiver->is_broken = true;
        g_clear_error(&receiver->error);
        g_set_error(&receiver->error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "receiving from %s failed after %" G_GUINT64_FORMAT
                    " bytes: the memory they were meant for cannot be written: is the host, or the "
                    "memory control group, out of memory or of huge pages?",
                    receiver->link->name, receiver->count_bytes);
    } else if (result != -EINTR && !op->is_closing) {
        receiver->is_broken = true;
        g_clear_error(&receiver->error);
        g_set_error(&receiver->error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                    "receiving from %s failed after %" G_GUINT64_FORMAT " bytes: %s: the peer or "
                    "the network ended the link: see why the peer stopped, then connect again",
                    receiver->link->name, receiver->count_bytes, g_strerror(-result));
    }
}

void
transport_receiver_make_room(TransportReceiver *receiver, size_t length)
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

/* For the rest of the caller's memory, and the little that comes behind it. */
static void
prepare_receive_into(TransportReceiver *receiver, struct io_uring_sqe *sqe)
{
    g_assert(receiver->start == receiver->end);
    receiver->start = receiver->end = 0;
    receiver->direct_bytes = receiver->into_length - receiver->into_done;
    receiver->iov[0] = (struct iovec){receiver->into + receiver->into_done, receiver->direct_bytes};
    receiver->iov[1] = (struct iovec){receiver->bytes, AHEAD_MIN_BYTES};
    receiver->message = (struct msghdr){.msg_iov = receiver->iov, .msg_iovlen = 2};
    io_uring_prep_recvmsg(sqe, receiver->link->fd, &receiver->message, 0);
}

static void
prepare_receive(TransportOp *op, struct io_uring_sqe *sqe)
{
    TransportReceiver *receiver = (TransportReceiver *)op;

    if (receiver->into != NULL) {
        prepare_receive_into(receiver, sqe);
        return;
    }
    receiver->direct_bytes = 0;
    io_uring_prep_recv(sqe, receiver->link->fd, receiver->bytes + receiver->end,
                       MIN(receiver->wanted_bytes, CAPACITY_BYTES - receiver->end), 0);
}

size_t
transport_receiver_wanted(TransportReceiver *receiver, size_t length)
{
    size_t wanted = length - (receiver->end - receiver->start) + receiver->ahead_bytes;

    receiver->ahead_bytes = MIN(receiver->ahead_bytes * 4, CAPACITY_BYTES);
    return wanted;
}

/* For a peek of length. */
static void
start_receive(TransportReceiver *receiver, size_t length)
{
    transport_receiver_make_room(receiver, length);
    receiver->wanted_bytes = transport_receiver_wanted(receiver, length);
    transport_ring_queue(receiver->ring, &receiver->op);
}

TransportReceiver *
transport_receiver_new(TransportRing *ring, TransportLink *link)
{
    TransportReceiver *receiver = transport_receiver_new_plain(ring, link);

    if (link->session != NULL)
        transport_opener_attach(receiver);
    return receiver;
}

TransportReceiver *
transport_receiver_new_plain(TransportRing *ring, TransportLink *link)
{
    TransportReceiver *receiver = g_new0(TransportReceiver, 1);

    receiver->op.done = receive_done;
    receiver->op.prepare = prepare_receive;
    receiver->advance_into = advance_into;
    receiver->ring = ring;
    receiver->link = transport_link_ref(link);
    receiver->bytes = g_malloc(CAPACITY_BYTES);
    receiver->ahead_bytes = CAPACITY_BYTES;
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
    if (receiver->looks)
        transport_ring_count_lookers(receiver->ring, -1);
    transport_opener_free(receiver->opener);
    transport_link_unref(receiver->link);
    g_clear_error(&receiver->error);
    g_free(receiver->bytes);
    g_free(receiver);
}

/* ---- Looking ---- */

static void
poll_done(TransportOp *op, int result)
{
    TransportReceiver *receiver = (TransportReceiver *)op;

    receiver->is_readable = true;
    receiver->is_ending = receiver->is_ending || result < 0 ||
                          (result & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL)) != 0;
}

static void
prepare_poll(TransportOp *op, struct io_uring_sqe *sqe)
{
    TransportReceiver *receiver = (TransportReceiver *)op;

    io_uring_prep_poll_multishot(sqe, receiver->link->fd, POLLIN | POLLRDHUP);
}

/* False: nothing is there. The next arrival is told anew, unless there is more than there is room
 * for now, or the end, which is told only once. */
static bool
look(TransportReceiver *receiver, size_t length)
{
    transport_receiver_make_room(receiver, length);
    size_t room = CAPACITY_BYTES - receiver->end;
    ssize_t got = recv(receiver->link->fd, receiver->bytes + receiver->end, room, MSG_DONTWAIT);

    receiver->is_readable = got < 0 ? errno != EAGAIN : receiver->is_ending || (size_t)got == room;
    if (!receiver->is_readable && got < 0)
        return false;
    receive_done(&receiver->op, got < 0 ? -errno : (int)got);
    return true;
}

/* OK: something has come; WAIT: nothing has. */
static TransportResult
look_for(TransportReceiver *receiver, size_t length)
{
    if ((receiver->is_readable || transport_ring_has_news(receiver->ring)) &&
        look(receiver, length))
        return TRANSPORT_OK;
    transport_ring_reap(receiver->ring, &receiver->op);
    if (receiver->is_readable && look(receiver, length))
        return TRANSPORT_OK;
    if (!receiver->op.is_in_flight)
        transport_ring_queue(receiver->ring, &receiver->op);
    return TRANSPORT_WAIT;
}

void
transport_receiver_look(TransportReceiver *receiver)
{
    if (receiver->opener != NULL) {
        transport_opener_look(receiver->opener);
        return;
    }
    g_assert(!receiver->op.is_in_flight && !receiver->looks);
    receiver->fetch = look_for;
    receiver->op.done = poll_done;
    receiver->op.prepare = prepare_poll;
    receiver->looks = receiver->is_readable = true;
    transport_ring_count_lookers(receiver->ring, 1);
}

static TransportResult
report_end(TransportReceiver *receiver, size_t length, size_t available)
{
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
    g_assert(length <= TRANSPORT_PEEK_MAX && receiver->into == NULL);
    for (;;) {
        if (receiver->end - receiver->start >= length) {
            *ret_bytes = receiver->bytes + receiver->start;
            return TRANSPORT_OK;
        }
        if (receiver->is_broken)
            return TRANSPORT_ERROR_RESULT;
        if (receiver->is_ended)
            return report_end(receiver, length, receiver->end - receiver->start);
        if (receiver->fetch != NULL) {
            if (receiver->fetch(receiver, length) == TRANSPORT_WAIT)
                return TRANSPORT_WAIT;
            continue;
        }
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
    g_assert(length <= receiver->end - receiver->start && receiver->into == NULL);
    receiver->start += length;
    /* The next bytes are asked for at once, so that the request travels with whatever is sent in
     * answer to these; unless they may be meant for the caller's own memory. */
    if (receiver->start == receiver->end && receiver->fetch == NULL &&
        receiver->ahead_bytes == CAPACITY_BYTES && !receiver->op.is_in_flight &&
        !receiver->is_broken && !receiver->is_ended)
        start_receive(receiver, 1);
}

/* ---- Into the caller's memory ---- */

/* What has come into the buffer before, or was asked for before. */
static void
copy_buffered(TransportReceiver *receiver)
{
    size_t length =
        MIN(receiver->end - receiver->start, receiver->into_length - receiver->into_done);

    memcpy(receiver->into + receiver->into_done, receiver->bytes + receiver->start, length);
    receiver->into_done += length;
    receiver->start += length;
}

/* WAIT: there is more to come. */
static TransportResult
into_state(TransportReceiver *receiver)
{
    if (receiver->into_done == receiver->into_length)
        return TRANSPORT_OK;
    if (receiver->is_broken)
        return TRANSPORT_ERROR_RESULT;
    if (receiver->is_ended)
        return report_end(receiver, receiver->into_length, receiver->into_done);
    return TRANSPORT_WAIT;
}

static TransportResult
advance_into(TransportReceiver *receiver)
{
    transport_ring_reap(receiver->ring, &receiver->op);
    if (receiver->into_done < receiver->into_length)
        copy_buffered(receiver);
    TransportResult state = into_state(receiver);
    if (state == TRANSPORT_WAIT && !receiver->op.is_in_flight)
        transport_ring_queue(receiver->ring, &receiver->op);
    return state;
}

TransportResult
transport_receiver_advance_opened(TransportReceiver *receiver)
{
    TransportResult state;

    copy_buffered(receiver);
    while ((state = into_state(receiver)) == TRANSPORT_WAIT)
        if (transport_opener_fetch_into(receiver) == TRANSPORT_WAIT)
            break;
    return state;
}

TransportResult
transport_receive_into(TransportReceiver *receiver, void *bytes, size_t length, size_t *ret_done)
{
    if (receiver->into == NULL) {
        receiver->into = bytes;
        receiver->into_length = length;
        receiver->into_done = 0;
        receiver->ahead_bytes = AHEAD_MIN_BYTES;
    }
    g_assert(length != 0 && receiver->into == bytes && receiver->into_length == length);
    TransportResult result = receiver->advance_into(receiver);
    *ret_done = receiver->into_done;
    if (result != TRANSPORT_WAIT)
        receiver->into = NULL;
    return result;
}

void
transport_receive_leave(TransportReceiver *receiver)
{
    if (receiver->into == NULL)
        return;
    if (receiver->op.is_in_flight)
        transport_ring_cancel(receiver->ring, &receiver->op);
    receiver->op.is_closing = false;
    receiver->into = NULL;
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
