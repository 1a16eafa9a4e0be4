/* SPDX-License-Identifier: MIT */
/*
 * What senders of plain links and of TLS links have in common. The thread of the sender's ring.
 */
#ifndef TRANSPORT_SEND_H
#define TRANSPORT_SEND_H

#include "transport/link.h"
#include "transport/ring.h"

#include <sys/socket.h>

typedef struct TransportSealer TransportSealer;

struct TransportSender {
    TransportOp op;
    /* Begins the frame of message, of left_bytes. Chosen once, for the link. */
    void (*start)(TransportSender *sender);
    TransportRing *ring;
    TransportLink *link;
    TransportSealer *sealer; /* TLS; else NULL */
    struct msghdr message;
    uint64_t left_bytes; /* of the frame in flight */
    uint64_t accepted_bytes;
    GError *error;
    struct iovec rest[TRANSPORT_IOV_MAX];
};

/* Breaks the sender for the reason of an errno. */
void transport_send_failed(TransportSender *sender, int code);

/* Makes it one that seals. */
void transport_sealer_attach(TransportSender *sender);
void transport_sealer_free(TransportSealer *sealer);

#endif
