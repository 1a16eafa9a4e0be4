/* SPDX-License-Identifier: MIT */
/*
 * What receivers of plain links and of TLS links have in common. The thread of the receiver's ring.
 */
#ifndef TRANSPORT_RECEIVE_H
#define TRANSPORT_RECEIVE_H

#include "transport/link.h"
#include "transport/ring.h"

#include <sys/socket.h>

#define CAPACITY_BYTES (256u * 1024u + TRANSPORT_PEEK_MAX)

typedef struct TransportOpener TransportOpener;

struct TransportReceiver {
    TransportOp op;
    TransportRing *ring;
    TransportLink *link;
    uint8_t *bytes;
    size_t start, end;
    size_t ahead_bytes; /* read beyond what is needed: CAPACITY_BYTES: as much as there is room */
    /* The caller's memory; then start and end are equal, unless it has just been filled. */
    uint8_t *into; /* NULL: none */
    size_t into_length, into_done;
    size_t wanted_bytes; /* of a receive for a peek, before it is submitted */
    size_t direct_bytes; /* of the operation in flight: as many go there, the rest to the buffer */
    struct msghdr message;
    struct iovec iov[2];
    uint64_t count_bytes;
    /* How a peek gets more bytes than there are. NULL: by an operation that receives; else OK:
     * something has changed; WAIT: nothing has. Chosen at set-up, for looking or for TLS. */
    TransportResult (*fetch)(TransportReceiver *receiver, size_t length);
    /* Goes on with what is meant for the caller's memory. Chosen at set-up. */
    TransportResult (*advance_into)(TransportReceiver *receiver);
    TransportOpener *opener; /* TLS; else NULL */
    /* transport_receiver_look(): the operation is a poll */
    bool looks;
    bool is_readable; /* there may be bytes, or the end */
    bool is_ending;   /* the end, or an error, is among them */
    bool is_ended;    /* the peer closed its half */
    bool is_broken;   /* error stays */
    GError *error;
};

/* Room in the buffer for what a peek of length asks for, and for more than a little. */
void transport_receiver_make_room(TransportReceiver *receiver, size_t length);

/* How much a peek of length asks for: what it lacks, and what will probably be needed behind. */
size_t transport_receiver_wanted(TransportReceiver *receiver, size_t length);

/* One of the bytes as they come, whatever the link is. */
TransportReceiver *transport_receiver_new_plain(TransportRing *ring, TransportLink *link);

/* Makes it one that opens what another brings. */
void transport_opener_attach(TransportReceiver *receiver);
void transport_opener_free(TransportOpener *opener);

/* transport_receiver_look() of one that opens. */
void transport_opener_look(TransportOpener *opener);

/* The advance_into of one that opens. */
TransportResult transport_receiver_advance_opened(TransportReceiver *receiver);

/* Opens what has come straight into the caller's memory. OK: something has changed. */
TransportResult transport_opener_fetch_into(TransportReceiver *receiver);

#endif
