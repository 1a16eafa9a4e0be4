/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about handshakes: a connected socket on its way to a link.
 * All functions: the ring's thread.
 */
#ifndef TRANSPORT_HANDSHAKE_H
#define TRANSPORT_HANDSHAKE_H

#include "transport/link.h"
#include "transport/ring.h"

typedef struct TransportHandshake TransportHandshake;

/* Takes over link, whose session is made and has not shaken hands. */
TransportHandshake *transport_handshake_new(TransportRing *ring, TransportLink *link);

/* OK: *ret_link is the caller's. WAIT: the ring wakes. Errors: LINK; then free it, at a server
 * after transport_handshake_linger(). */
TransportResult transport_handshake_step(TransportHandshake *handshake, TransportLink **ret_link,
                                         GError **error);

/* The peer has said something. */
bool transport_handshake_has_heard(const TransportHandshake *handshake);

/* After an error, until it says true: takes what the peer still sends, so that the kernel has no
 * reason to reset the connection before the peer has read why it was refused. */
bool transport_handshake_linger(TransportHandshake *handshake);

/* false: called by another thread while it waited; its memory is kept. */
bool transport_handshake_free(TransportHandshake *handshake);

#endif
