/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about rings: operations, and how they are begun and ended.
 *
 * An operation lives in the struct of its owner (a sender, a receiver, ...) and is in flight from
 * transport_ring_start() until its done function has been called. Its memory, and the memory it
 * points the kernel to, must not be freed before transport_ring_cancel() said that it is over.
 * All functions: the ring's thread.
 */
#ifndef TRANSPORT_RING_H
#define TRANSPORT_RING_H

#include "transport/transport.h"

#include <liburing.h>

typedef struct TransportOp TransportOp;

struct TransportOp {
    /* result: as the system call's, or a negative errno. May start the operation again, unless
     * is_closing. */
    void (*done)(TransportOp *op, int result);
    /* Of operations that are queued: fills the entry when it is submitted. */
    void (*prepare)(TransportOp *op, struct io_uring_sqe *sqe);
    TransportOp *next_queued;
    bool is_in_flight;
    bool is_queued;  /* in flight, and not yet known to the kernel */
    bool is_closing; /* it is being cancelled */
};

/* Makes a ring of the kernel with the best flags it takes. Errors: UNSUPPORTED, HOST. */
bool transport_setup(struct io_uring *uring, unsigned entries, GError **error);

/* A free submission entry, never NULL. */
struct io_uring_sqe *transport_ring_sqe(TransportRing *ring);

/* Submits the entry as op, at once. */
void transport_ring_start(TransportRing *ring, TransportOp *op, struct io_uring_sqe *sqe);

/* Begins op with the next start, wait or spin of the ring, behind what that submits itself: a
 * receive must not keep the request waiting that it awaits the answer of. Saves a system call where
 * one of them comes soon in any case. */
void transport_ring_queue(TransportRing *ring, TransportOp *op);

/*
 * Calls the done functions of all that has completed; never blocks and mostly costs no system
 * call. self: the operation whose outcome the caller looks at next, so that only completions of
 * others are remembered for transport_ring_wait(); may be NULL.
 */
void transport_ring_reap(TransportRing *ring, const TransportOp *self);

/* Whether the ring may have something to reap; reads shared memory only. */
bool transport_ring_has_news(const TransportRing *ring);

/* One more, or one less, on this ring looks for itself when it has news: a spin that ends with news
 * leaves them there, once. */
void transport_ring_count_lookers(TransportRing *ring, int change);

/* Ends op and waits for its completion. false: called by another thread while op was in flight;
 * the kernel may still use its memory, which must be kept. */
bool transport_ring_cancel(TransportRing *ring, TransportOp *op);

#endif
