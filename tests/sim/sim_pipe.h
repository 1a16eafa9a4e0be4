/* SPDX-License-Identifier: MIT */
/*
 * The simulated network's things, shared by sim_transport.c (what the engine calls) and
 * sim_network.c (what happens between the calls).
 */
#ifndef TESTS_SIM_SIM_PIPE_H
#define TESTS_SIM_SIM_PIPE_H

#include "tests/sim/sim.h"

#define RINGS_MAX      16u
#define LINKS_MAX      128u
#define LISTENERS_MAX  4u /* addresses */
#define PIPE_BYTES     65536u
#define RECEIVER_BYTES (2u * TRANSPORT_PEEK_MAX)
#define AHEAD_BYTES    128u /* of a receive into the caller's memory */
#define NEVER          UINT64_MAX

struct TransportRing {
    SimSide side;
    const void *thread;
    bool alive, event;
    unsigned count_users;
    int watched_fd;
    bool *ready;
};

/* What becomes of a pipe, as one of its ends is told. */
typedef enum { OUTCOME_OPEN, OUTCOME_END, OUTCOME_ERROR } Outcome;

/* One direction of a link. */
typedef struct Pipe {
    uint8_t bytes[PIPE_BYTES];
    uint64_t accepted, arrived, pulled; /* by the sender's kernel, at the receiver's, by it */
    bool dropping;                      /* what the sender's kernel still takes gets nowhere */
    bool hangs;                         /* nothing arrives any more */
    uint64_t dropped;
    bool sender_outcome_told;
    Outcome sender_outcome, receiver_outcome;
    uint64_t sender_outcome_ns, receiver_outcome_ns; /* when they are noticed; NEVER: not */
    uint64_t cut_at;                                 /* breaks the link; NEVER: no */
    unsigned way;                                    /* its number, as faults name it */
    uint64_t headers;                                /* pieces shorter than a page so far */
    uint64_t take_ns, arrive_ns;
    TransportSender *sender;
    TransportReceiver *receiver;
} Pipe;

struct TransportLink {
    unsigned references, number;
    unsigned end; /* 0: that of the connector, 1: of the acceptor */
};

typedef struct Connection {
    Pipe pipes[2]; /* by the sending end */
    TransportLink ends[2];
    bool broken, told;
    bool accepted; /* or refused, when the listener went away */
    bool met;      /* the listener has taken it */
    TransportListener *listener;
    uint64_t accept_ns;
} Connection;

struct TransportSender {
    TransportRing *ring;
    TransportLink *link;
    Pipe *pipe;
    const struct iovec *iov;
    unsigned count_iov, piece;
    size_t offset;
    bool alive, busy;
    uint64_t hash, accepted_bytes;
    GError *error;
};

struct TransportReceiver {
    TransportRing *ring;
    TransportLink *link;
    Pipe *pipe;
    size_t begin, end;
    bool alive, armed;
    uint64_t count_bytes;
    GError *error;
    uint8_t *into; /* transport_receive_into(): under way */
    size_t into_length, into_done;
    uint8_t bytes[RECEIVER_BYTES];
};

struct TransportConnector {
    TransportRing *ring;
    bool alive, told;
    uint64_t due_ns;
    unsigned address;
    bool refused;
};

struct TransportListener {
    bool alive, armed;
    TransportRing *ring;
};

typedef struct SimNetwork {
    TransportRing rings[RINGS_MAX];
    Connection connections[LINKS_MAX];
    TransportSender senders[2 * LINKS_MAX];
    TransportReceiver receivers[2 * LINKS_MAX];
    TransportConnector connectors[LINKS_MAX];
    TransportListener listeners[LISTENERS_MAX];
    unsigned count_connections;
    bool was_met_again; /* after the network had swallowed connections */
    bool has_reset;     /* an end closed with bytes unread, and what it had sent was lost */
} SimNetwork;
extern SimNetwork net;

/* Alive, and used by the thread it is for. */
void sim_ring_check(const TransportRing *ring);
Connection *sim_connection_new(TransportListener *listener);
/* The one that a listener would accept now. */
Connection *sim_connection_waiting(const TransportListener *listener);
/* The end's socket is closed, or shut down both ways. */
void sim_link_close(TransportLink *link);
Pipe *sim_pipe_out(const TransportLink *link);
Pipe *sim_pipe_in(const TransportLink *link);
/* Moves what has arrived, or a part of it, into the receiver's buffer. */
void sim_receiver_pull(TransportReceiver *receiver);
uint64_t sim_sender_hash(const TransportSender *sender);

#endif
