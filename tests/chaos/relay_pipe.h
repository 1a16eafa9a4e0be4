/* SPDX-License-Identifier: MIT */
/* What relay.c and relay_strike.c share. All of it is under the relay's lock. */
#ifndef TESTS_CHAOS_RELAY_PIPE_H
#define TESTS_CHAOS_RELAY_PIPE_H

#include "tests/chaos/relay.h"

#include <glib-unix.h>

#define RELAY_CONNECTIONS 64
#define RELAY_BUFFER      ((size_t)64 * 1024)

/* One way of one connection. Closing a connection closes the `from` of both. */
typedef struct RelayPipe {
    int from, to;
    char *bytes; /* read and not passed on: length from start */
    size_t start, length;
    uint64_t passed;
    bool has_ended, told_end; /* the sender closed; the receiver knows */
    bool hangs;
    int64_t hold_until_us;
    unsigned split_bytes;
    bool has_mark; /* the strike comes when `mark` more bytes were written */
    size_t mark;
} RelayPipe;

typedef struct RelayConnection {
    unsigned index; /* since the last cut or strike */
    RelayPipe ways[2];
    bool is_closed;
} RelayConnection;

struct Relay {
    /* Set before the thread starts. */
    int listener, wake;
    unsigned queue_bytes;
    char *uri;
    GThread *thread;

    GMutex lock;
    char *target;
    RelayConnection connections[RELAY_CONNECTIONS];
    unsigned count, first; /* first: of those since the last cut or strike */
    unsigned pace_bytes;
    bool is_ending;

    /* The strike. */
    RelayStrike strike;
    bool is_armed;
    int64_t limit_us; /* when it comes at the latest; 0: no such */
    uint64_t left_bytes;
    int64_t struck_us;
};

void relay_wake(Relay *relay);
void relay_connection_close(RelayConnection *connection, bool reset);

/* New bytes are in the pipe: whether the armed strike is among them. */
void relay_strike_look(Relay *relay, RelayConnection *connection, RelayPipe *pipe);

/* Everything before the mark was written. */
void relay_strike_at_mark(Relay *relay, RelayConnection *connection, RelayPipe *pipe);

/* Strikes when its time is over. */
void relay_strike_when_late(Relay *relay);

#endif
