/* SPDX-License-Identifier: MIT */
/*
 * Channels over tcp, unix and fd, by io_uring. Knows bytes and links, no pages.
 *
 * The story in call order. Each thread that moves bytes makes one ring, and only that thread uses
 * it (IORING_SETUP_SINGLE_ISSUER where the kernel has it). A link is a connected socket; its two
 * halves, a sender and a receiver, may live on the rings of two threads. Nothing here blocks except
 * transport_ring_wait():
 *
 *     ring = transport_ring_new(&error);
 *     connector = transport_connect(ring, "tcp:127.0.0.1:4444", &error);
 *     while ((r = transport_connect_finish(connector, &link, &error)) == TRANSPORT_WAIT)
 *         transport_ring_wait(ring, 0);
 *     receiver = transport_receiver_new(ring, link);
 *     while ((r = transport_peek(receiver, 8, &bytes)) == TRANSPORT_WAIT)
 *         transport_ring_wait(ring, 0);
 *     transport_consume(receiver, 8);
 *
 * A caller is a step function: it does what it can, returns when all it needs says TRANSPORT_WAIT,
 * and is called again after transport_ring_wait() returned, which may also be for no reason.
 *
 * tests/sim links the engine against its own definition of all that is declared here.
 */
#ifndef TRANSPORT_TRANSPORT_H
#define TRANSPORT_TRANSPORT_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define TRANSPORT_ERROR (transport_error_quark())
GQuark transport_error_quark(void);

typedef enum {
    TRANSPORT_ERROR_UNSUPPORTED, /* io_uring is forbidden or lacks what we need: names the sysctl */
    TRANSPORT_ERROR_ADDRESS,     /* the URI is not acceptable, or does not resolve */
    TRANSPORT_ERROR_LINK,        /* refused, reset, closed in the middle, timed out */
    TRANSPORT_ERROR_HOST,        /* no memory, no descriptors */
    TRANSPORT_ERROR_CREDENTIALS, /* TLS: what we have to show or to check with cannot work */
} TransportError;

typedef enum {
    TRANSPORT_OK,
    TRANSPORT_WAIT, /* not yet: wait on the ring and ask again */
    TRANSPORT_END,  /* the peer closed its half; nothing is left in the buffer (receivers only) */
    TRANSPORT_ERROR_RESULT, /* see the GError, or transport_*_error() */
} TransportResult;

/* ---- Rings ----------------------------------------------------------------------------------- */

typedef struct TransportRing TransportRing;

/* Whether io_uring may be used here, with the sysctl to change in the error if not. */
bool transport_probe(GError **error);

/* Thread: the one that will use it. Errors: UNSUPPORTED (io_uring forbidden by seccomp or by
 * kernel.io_uring_disabled), HOST. Source: io_uring_setup(2). */
TransportRing *transport_ring_new(GError **error);

/* All senders, receivers, connectors and watches of the ring must have been freed before. */
void transport_ring_free(TransportRing *ring);

/* Sleeps until something on the ring has happened, transport_ring_notify() was called (also before
 * the call: it is remembered once), or deadline_ns of CLOCK_MONOTONIC has passed (0: none). */
void transport_ring_wait(TransportRing *ring, uint64_t deadline_ns);

/* Looks for something to happen for up to spin_ns without sleeping and, where the kernel can show
 * it in shared memory (Linux 6.1), without a system call. true: something has, step again.
 * *ret_was_interrupted: others had the CPU in the meantime. */
bool transport_ring_spin(TransportRing *ring, uint64_t spin_ns, bool *ret_was_interrupted);

/* Wakes transport_ring_wait(). Thread: any. Does not allocate; safe while the ring exists. */
void transport_ring_notify(TransportRing *ring);

/* From now on fd becoming readable ends transport_ring_wait() (multishot poll; edge: read until
 * EAGAIN). ready, if not NULL, is set to true at once and then whenever it became readable, by
 * calls of the ring's thread; who clears it reads afterwards. fd stays the caller's; it and ready
 * must stay until the ring is freed. */
bool transport_ring_watch(TransportRing *ring, int fd, bool *ready, GError **error);

/* ---- Checking the host ----------------------------------------------------------------------- */

typedef enum {
    TRANSPORT_CHECK_OK,
    TRANSPORT_CHECK_WARNING, /* it goes without */
    TRANSPORT_CHECK_CLOSED,  /* no migration can work */
} TransportCheckState;

/* Something that was tried. */
typedef struct TransportCheck {
    const char *name;  /* "io-uring"; never changes its meaning */
    const char *tried; /* "io_uring" */
    TransportCheckState state;
    const char *text; /* what came of it; sentences behind the first say what to do about it */
} TransportCheck;

/* Tries a ring for real, and whether a destination listens at uri (NULL: none is asked for) in a
 * way that it does not notice: no connection is made. Hands each row to take, valid during the
 * call. Blocks for up to 3 s an address of uri. Thread: any. */
void transport_check_host(const char *uri, void (*take)(void *opaque, const TransportCheck *check),
                          void *opaque);

/* ---- Links ----------------------------------------------------------------------------------- */

typedef struct TransportLink TransportLink;

/* Reference counted; the socket closes with the last reference. Sender and receiver hold one each.
 * Thread: any. */
TransportLink *transport_link_ref(TransportLink *link);
void transport_link_unref(TransportLink *link);

/* Ends both directions at once; operations of all threads on it complete with an error or END.
 * Thread: any. */
void transport_link_shutdown(TransportLink *link);

/* From now on little of what is sent on it waits inside the two kernels: what somebody wants may be
 * in there, and comes after all that was sent before. Costs no throughput: where the round trip is
 * long, that side is left alone. Both sides call it; unix
 * sockets are short anyway. Thread: any. */
void transport_link_shorten_queue(TransportLink *link);

/* ---- Connecting and listening ---------------------------------------------------------------- */

/* Whether transport_connect() (is_listen: transport_listen()) would know the form of uri; resolves
 * nothing. Thread: any. Errors: ADDRESS, with the forms. */
bool transport_check_uri(const char *uri, bool is_listen, GError **error);

typedef struct TransportConnector TransportConnector;
typedef struct TransportListener TransportListener;

/* uri: tcp:HOST:PORT (IPv4, [IPv6], names), unix:PATH, fd:N (N is taken over, unless
 * this fails). Begins to connect; only the resolution of a name may block.
 * TCP links get TCP_NODELAY, and keep-alive: a host that vanished breaks them after 150 s of
 * silence. Errors: ADDRESS, HOST. */
TransportConnector *transport_connect(TransportRing *ring, const char *uri, GError **error);

/* OK: *ret_link is the caller's. ERROR_RESULT: all addresses failed. */
TransportResult transport_connect_finish(TransportConnector *connector, TransportLink **ret_link,
                                         GError **error);
void transport_connector_free(TransportConnector *connector);

/* Binds and listens; tcp port 0 picks one; a stale unix socket is replaced, a live one is not, and
 * it is made with mode 0600. fd:N is an already connected socket (accepted once, a second
 * transport_accept() fails) or a listening one. Thread: any. Errors: ADDRESS, HOST. */
TransportListener *transport_listen(const char *uri, GError **error);

/* The URI a peer can connect to, the real port in it. Owned by the listener. */
const char *transport_listener_address(const TransportListener *listener);

/* WAIT arms the ring to wake when a peer comes; always call it from the same ring's thread. */
TransportResult transport_accept(TransportListener *listener, TransportRing *ring,
                                 TransportLink **ret_link, GError **error);

/*
 * The same for peers that begin to speak: hands out one whose first TRANSPORT_FIRST_BYTES are here,
 * and right; they are still to be received. Whoever says something else, or nothing for some
 * seconds, loses its connection, and nobody waits for it; so do those that are too many; why, tells
 * transport_listener_take_refusal() (tls.h). Once one was handed out, those before it are sent
 * away. Peers that have proved themselves by TLS and the one of an already connected socket are
 * taken as they are.
 */
#define TRANSPORT_FIRST_BYTES 4
typedef bool (*TransportIsRight)(const uint8_t *first_bytes);
TransportResult transport_accept_right(TransportListener *listener, TransportRing *ring,
                                       TransportIsRight is_right, TransportLink **ret_link,
                                       GError **error);

/* Whether other hosts can reach it, and it does not ask them by TLS who they are. */
bool transport_listener_is_exposed(const TransportListener *listener);

/* Removes a unix socket's path that it made. Thread: that of transport_accept, before its ring is
 * freed; any if transport_accept was never called. */
void transport_listener_free(TransportListener *listener);

/* ---- Sending --------------------------------------------------------------------------------- */

typedef struct TransportSender TransportSender;

TransportSender *transport_sender_new(TransportRing *ring, TransportLink *link);

/* Cancels what is in flight and waits for it. Thread: the ring's (so for all that lives on one). */
void transport_sender_free(TransportSender *sender);

/*
 * Sends all bytes of count_iov pieces (at most TRANSPORT_IOV_MAX), straight from where they lie:
 * the iov array and what it points to stay untouched until transport_sender_state() says OK. OK:
 * taken. WAIT: the frame before is still in flight, nothing was taken. ERROR_RESULT: the link is
 * broken. Short writes and EINTR are handled inside. SIGPIPE is never raised.
 */
#define TRANSPORT_IOV_MAX 1024u
TransportResult transport_send(TransportSender *sender, const struct iovec *iov,
                               unsigned count_iov);

/* OK: nothing in flight. WAIT: in flight. ERROR_RESULT: broken, for good. */
TransportResult transport_sender_state(TransportSender *sender);

/* Bytes the kernel has accepted since the start: what can have reached the peer. Exact when nothing
 * is in flight, also after an error; what the kernel took of a frame in flight comes on top. */
uint64_t transport_sender_accepted_bytes(const TransportSender *sender);

/* Why it is broken; NULL while it is not. Owned by the sender. */
const GError *transport_sender_error(const TransportSender *sender);

/* ---- Receiving ------------------------------------------------------------------------------- */

typedef struct TransportReceiver TransportReceiver;

/* Largest length transport_peek() can be asked for. */
#define TRANSPORT_PEEK_MAX (128u * 1024u)

TransportReceiver *transport_receiver_new(TransportRing *ring, TransportLink *link);
void transport_receiver_free(TransportReceiver *receiver);

/* Set-up, before the first peek: for short messages that the thread waits for awake. The ring only
 * shows that bytes have come, transport_peek() fetches them by recv(2): that leaves less to be done
 * between arrival and peek than when the ring receives them. Not with transport_receive_into(). */
void transport_receiver_look(TransportReceiver *receiver);

/*
 * OK: *ret_bytes points to length contiguous bytes, valid until the next call with this receiver.
 * WAIT: fewer have come; asks the kernel for more. END: the peer closed and no byte is left.
 * ERROR_RESULT: the link broke, or the peer closed after some, but fewer than length, bytes.
 * Bytes that came before an error are handed out before it is reported.
 */
TransportResult transport_peek(TransportReceiver *receiver, size_t length,
                               const uint8_t **ret_bytes);

/* How many bytes can be peeked right now without waiting. */
size_t transport_available(const TransportReceiver *receiver);

/* Takes length bytes, which a peek has shown; they must not be looked at any more. */
void transport_consume(TransportReceiver *receiver, size_t length);

/*
 * Receives the next length bytes straight into bytes: those that have come already are copied, the
 * others the kernel writes there. Call it again with the same arguments until it says something
 * else than WAIT; meanwhile nothing else may be done with the receiver but
 * transport_receive_leave() and freeing it, and until one of these the memory must stay and belongs
 * to the kernel. *ret_done, always: how many bytes, from the first on, have come; they may be
 * looked at. OK: all of them. END: the peer closed before the first of them. ERROR_RESULT: as with
 * transport_peek(), or the memory could not be written to. After both the memory is free.
 * Around such calls no more than a few bytes are read ahead, so that what is received this way is
 * not copied. Thread: the ring's. Source: recvmsg(2).
 */
TransportResult transport_receive_into(TransportReceiver *receiver, void *bytes, size_t length,
                                       size_t *ret_done);

/* Gives up a transport_receive_into() under way, and waits until the kernel does not write there
 * any more; what it has brought is lost. Nothing under way: nothing. */
void transport_receive_leave(TransportReceiver *receiver);

uint64_t transport_receiver_count_bytes(const TransportReceiver *receiver);
const GError *transport_receiver_error(const TransportReceiver *receiver);

/* ---- Rate limits ----------------------------------------------------------------------------- */

/* A token bucket of at most 20 ms of its rate. Thread: its owner's; the rate: any. */
typedef struct TransportLimit {
    uint64_t bytes_per_s;         /* atomic; 0: unlimited */
    uint64_t ready_ns;            /* owner: time from which the next frame may go */
    uint64_t settled_bytes_per_s; /* owner: the rate by which ready_ns was reckoned */
} TransportLimit;

/* Thread: any. */
void transport_limit_set(TransportLimit *limit, uint64_t bytes_per_s);

/* 0: go on now. Else the CLOCK_MONOTONIC time in ns at which to ask again. */
uint64_t transport_limit_wait(TransportLimit *limit, uint64_t now_ns);

/* Accounts length bytes just sent. */
void transport_limit_take(TransportLimit *limit, uint64_t length, uint64_t now_ns);

#include "transport/tls.h"

#endif
