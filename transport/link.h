/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about links. A link is set once and for all when it is made;
 * only its reference count changes, so any thread may read it.
 */
#ifndef TRANSPORT_LINK_H
#define TRANSPORT_LINK_H

#include "transport/session.h"

struct TransportLink {
    int fd;     /* blocking: io_uring would hand us EAGAIN instead of waiting itself */
    char *name; /* of the peer, for error texts */
    TransportSession *session; /* TLS, hands shaken; NULL: plain */
    unsigned count_references;
};

/* fd: connected; taken over. name: copied. */
TransportLink *transport_link_new(int fd, const char *name);

/* io_uring waits for readiness only if the descriptor itself is blocking. */
void transport_link_make_blocking(int fd);

#endif
