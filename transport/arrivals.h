/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about arrivals: peers that have connected and have yet to
 * prove themselves. All functions: the listener's thread.
 */
#ifndef TRANSPORT_ARRIVALS_H
#define TRANSPORT_ARRIVALS_H

#include "transport/link.h"
#include "transport/ring.h"

typedef struct TransportArrivals TransportArrivals;

/* Holds both; authz may be NULL. */
TransportArrivals *transport_arrivals_new(TransportCredentials *credentials, TransportAuthz *authz);
/* NULL: nothing. false: called by another thread while it waited; its memory is kept. */
bool transport_arrivals_free(TransportArrivals *arrivals);

/* Takes over the connected socket fd. There is always room: another one gives way. */
void transport_arrivals_add(TransportArrivals *arrivals, TransportRing *ring, int fd,
                            const char *name);

/* OK: one has proved itself, *ret_link is the caller's. WAIT: none has yet; the ring wakes. */
TransportResult transport_arrivals_step(TransportArrivals *arrivals, TransportLink **ret_link);

bool transport_arrivals_is_empty(const TransportArrivals *arrivals);

/* As transport_refusals_take(). */
char *transport_arrivals_take_refusal(TransportArrivals *arrivals, bool is_last,
                                      unsigned *ret_count);

#endif
