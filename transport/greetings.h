/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about greetings: peers that have connected and have not said
 * yet what they want. All functions: the listener's thread.
 */
#ifndef TRANSPORT_GREETINGS_H
#define TRANSPORT_GREETINGS_H

#include "transport/link.h"
#include "transport/ring.h"

typedef struct TransportGreetings TransportGreetings;

TransportGreetings *transport_greetings_new(TransportRing *ring);

/* NULL: nothing. Closes all. false: freed by another thread while the ring held on to some: their
 * memory is kept. */
bool transport_greetings_free(TransportGreetings *greetings);

/* Takes over the connected socket fd. There is always room: the oldest gives way. */
void transport_greetings_add(TransportGreetings *greetings, int fd, const char *name);

/* OK: one has said what is right, *ret_link is the caller's; who came before it is sent away, and
 * behind it no more than a few stay. WAIT: none has; the ring wakes. */
TransportResult transport_greetings_step(TransportGreetings *greetings, TransportIsRight is_right,
                                         TransportLink **ret_link);

/* The oldest that is still there, whatever it said; NULL: there is none. */
TransportLink *transport_greetings_take(TransportGreetings *greetings);

/* Makes room for a descriptor; false: there is none to be had here. */
bool transport_greetings_displace(TransportGreetings *greetings);

/* Why one was turned away, the caller's to free, and how many were since it was last told: at most
 * once a second. NULL: none was, or the second is not over; the ring wakes after it. */
char *transport_greetings_take_refusal(TransportGreetings *greetings, unsigned *ret_count);

#endif
