/* SPDX-License-Identifier: MIT */
/*
 * Senders: one frame at a time, straight from where its pieces lie.
 *
 * The thread of the sender's ring. The kernel is asked for the whole frame (MSG_WAITALL) and sees
 * the caller's iov array; only when it took less does the rest move into an array of our own. What
 * a frame is, and whether the bytes accepted matter, is left to the caller; TLS to sealed.c.
 */
#include "transport/send.h"

#include <errno.h>
#include <string.h>

static void
start_send(TransportSender *sender)
{
    struct io_uring_sqe *sqe = transport_ring_sqe(sender->ring);

    const struct msghdr *message = &sender->message;

    /* A single piece, as a request is, needs no message to be read in. */
    if (message->msg_iovlen == 1)
        io_uring_prep_send(sqe, sender->link->fd, message->msg_iov->iov_base,
                           message->msg_iov->iov_len, MSG_WAITALL | MSG_NOSIGNAL);
    else
        io_uring_prep_sendmsg(sqe, sender->link->fd, message, MSG_WAITALL | MSG_NOSIGNAL);
    transport_ring_start(sender->ring, &sender->op, sqe);
}

/* Points the message to what is left after length bytes of it, without touching the caller's. */
static void
advance(TransportSender *sender, size_t length)
{
    const struct iovec *iov = sender->message.msg_iov;
    size_t count_iov = sender->message.msg_iovlen;

    while (length >= iov->iov_len) {
        length -= iov->iov_len;
        iov++;
        count_iov--;
    }
    memmove(sender->rest, iov, count_iov * sizeof *iov);
    sender->rest[0].iov_base = (uint8_t *)sender->rest[0].iov_base + length;
    sender->rest[0].iov_len -= length;
    sender->message.msg_iov = sender->rest;
    sender->message.msg_iovlen = count_iov;
}

void
transport_send_failed(TransportSender *sender, int code)
{
    g_set_error(&sender->error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                "sending to %s failed after %" G_GUINT64_FORMAT " bytes: %s: the peer or the "
                "network ended the link: see why the peer stopped, then connect again",
                sender->link->name, sender->accepted_bytes, g_strerror(code));
}

static void
send_done(TransportOp *op, int result)
{
    TransportSender *sender = (TransportSender *)op;

    if (result > 0) {
        sender->accepted_bytes += (uint64_t)result;
        sender->left_bytes -= (uint64_t)result;
        if (sender->left_bytes != 0)
            advance(sender, (size_t)result);
    }
    if (op->is_closing || sender->left_bytes == 0)
        return;
    if (result == -EAGAIN) /* somebody made the shared file description non-blocking */
        transport_link_make_blocking(sender->link->fd);
    if (result > 0 || result == -EINTR || result == -EAGAIN)
        start_send(sender);
    else
        transport_send_failed(sender, result < 0 ? -result : EPIPE);
}

TransportSender *
transport_sender_new(TransportRing *ring, TransportLink *link)
{
    TransportSender *sender = g_new0(TransportSender, 1);

    sender->op.done = send_done;
    sender->start = start_send;
    sender->ring = ring;
    sender->link = transport_link_ref(link);
    if (link->session != NULL)
        transport_sealer_attach(sender);
    return sender;
}

void
transport_sender_free(TransportSender *sender)
{
    if (sender == NULL)
        return;
    if (!transport_ring_cancel(sender->ring, &sender->op)) {
        g_warning("sender to %s freed by another thread while it sent: its memory is kept",
                  sender->link->name);
        transport_link_shutdown(sender->link);
        return;
    }
    transport_link_unref(sender->link);
    g_clear_error(&sender->error);
    transport_sealer_free(sender->sealer);
    g_free(sender);
}

TransportResult
transport_sender_state(TransportSender *sender)
{
    if (sender->op.is_in_flight)
        transport_ring_reap(sender->ring, &sender->op);
    if (sender->error != NULL)
        return TRANSPORT_ERROR_RESULT;
    return sender->op.is_in_flight ? TRANSPORT_WAIT : TRANSPORT_OK;
}

TransportResult
transport_send(TransportSender *sender, const struct iovec *iov, unsigned count_iov)
{
    TransportResult state = transport_sender_state(sender);
    uint64_t length = 0;

    g_assert(count_iov <= TRANSPORT_IOV_MAX);
    if (state != TRANSPORT_OK)
        return state;
    for (unsigned i = 0; i < count_iov; i++)
        length += iov[i].iov_len;
    if (length == 0)
        return TRANSPORT_OK;
    sender->left_bytes = length;
    /* sendmsg(2) only reads the array; its type is older than const. */
    sender->message = (struct msghdr){.msg_iov = (struct iovec *)iov, .msg_iovlen = count_iov};
    sender->start(sender);
    /* Mostly it is over by now. Its completion is no news to whoever waits for an answer. */
    transport_ring_reap(sender->ring, &sender->op);
    return TRANSPORT_OK;
}

uint64_t
transport_sender_accepted_bytes(const TransportSender *sender)
{
    return sender->accepted_bytes;
}

const GError *
transport_sender_error(const TransportSender *sender)
{
    return sender->error;
}
