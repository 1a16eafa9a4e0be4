/* SPDX-License-Identifier: MIT */
/*
 * Handshakes: waiting for the socket and for the time limit, on behalf of a session.
 *
 * The thread of the ring. A one-shot poll wakes it when the session can go on, a timeout when it
 * has taken too long. What is said, and to whom, is the session's; how many there may be at once
 * is left to listen.c.
 */
#include "transport/handshake.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

#define PATIENCE_S 10

/* For a refused peer to read why. */
#define LINGER_S         2
#define LINGER_BYTES_MAX (1024u * 1024u)

struct TransportHandshake {
    TransportOp poll;
    TransportOp timer;
    TransportRing *ring;
    TransportLink *link;
    struct __kernel_timespec patience;
    bool is_late;
    bool is_lingering;
    size_t drained_bytes;
};

static void
poll_done(TransportOp *op, int result)
{
    (void)op, (void)result; /* the session asks the socket itself */
}

static void
timer_done(TransportOp *op, int result)
{
    TransportHandshake *handshake =
        (TransportHandshake *)((char *)op - offsetof(TransportHandshake, timer));

    (void)result;
    handshake->is_late = true;
}

static void
start_timer(TransportHandshake *handshake, int64_t seconds)
{
    struct io_uring_sqe *sqe = transport_ring_sqe(handshake->ring);

    handshake->patience = (struct __kernel_timespec){.tv_sec = seconds};
    io_uring_prep_timeout(sqe, &handshake->patience, 0, 0);
    transport_ring_start(handshake->ring, &handshake->timer, sqe);
}

static void
start_poll(TransportHandshake *handshake, short events)
{
    struct io_uring_sqe *sqe = transport_ring_sqe(handshake->ring);

    io_uring_prep_poll_add(sqe, handshake->link->fd, (unsigned)events);
    transport_ring_start(handshake->ring, &handshake->poll, sqe);
}

TransportHandshake *
transport_handshake_new(TransportRing *ring, TransportLink *link)
{
    TransportHandshake *handshake = g_new0(TransportHandshake, 1);

    handshake->poll.done = poll_done;
    handshake->timer.done = timer_done;
    handshake->ring = ring;
    handshake->link = link;
    start_timer(handshake, PATIENCE_S);
    return handshake;
}

static TransportResult
refuse_late(const TransportHandshake *handshake, GError **error)
{
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                "TLS with %s failed: it did not finish the handshake within %d s: is 'tls-creds' "
                "set there, too, and is it a migration's other side?",
                handshake->link->name, PATIENCE_S);
    return TRANSPORT_ERROR_RESULT;
}

TransportResult
transport_handshake_step(TransportHandshake *handshake, TransportLink **ret_link, GError **error)
{
    short events = 0;

    transport_ring_reap(handshake->ring, &handshake->poll);
    if (handshake->is_late)
        return refuse_late(handshake, error);
    if (handshake->poll.is_in_flight)
        return TRANSPORT_WAIT;
    TransportResult result = transport_session_shake(handshake->link->session, &events, error);
    if (result == TRANSPORT_WAIT)
        start_poll(handshake, events);
    if (result == TRANSPORT_OK)
        *ret_link = g_steal_pointer(&handshake->link);
    return result;
}

bool
transport_handshake_has_heard(const TransportHandshake *handshake)
{
    return transport_session_has_heard(handshake->link->session);
}

static bool
has_ended(TransportHandshake *handshake)
{
    uint8_t bytes[4096];
    ssize_t got;

    while ((got = recv(handshake->link->fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0) {
        handshake->drained_bytes += (size_t)got;
        if (handshake->drained_bytes > LINGER_BYTES_MAX)
            return true;
    }
    return got == 0 || (errno != EAGAIN && errno != EINTR);
}

bool
transport_handshake_linger(TransportHandshake *handshake)
{
    transport_ring_reap(handshake->ring, &handshake->poll);
    if (!handshake->is_lingering) {
        handshake->is_lingering = true;
        shutdown(handshake->link->fd, SHUT_WR);
        if (!transport_ring_cancel(handshake->ring, &handshake->timer) ||
            !transport_ring_cancel(handshake->ring, &handshake->poll))
            return true;
        handshake->timer.is_closing = handshake->poll.is_closing = false;
        handshake->is_late = false;
        start_timer(handshake, LINGER_S);
    }
    if (handshake->is_late || has_ended(handshake))
        return true;
    if (!handshake->poll.is_in_flight)
        start_poll(handshake, POLLIN);
    return false;
}

bool
transport_handshake_free(TransportHandshake *handshake)
{
    if (handshake == NULL)
        return true;
    if (!transport_ring_cancel(handshake->ring, &handshake->poll) ||
        !transport_ring_cancel(handshake->ring, &handshake->timer)) {
        g_warning("handshake given up by another thread while it waited: its memory is kept");
        return false;
    }
    transport_link_unref(handshake->link);
    g_free(handshake);
    return true;
}
