/* SPDX-License-Identifier: MIT */
/*
 * A relay between two machines that harms what passes: one strike at a time, at an exact byte of
 * one direction of one connection, or when its time is over. tcp and unix, any number of
 * connections, in the order in which they came: the first is a migration's main channel, the second
 * its urgent one.
 *
 * One thread of its own does everything; the functions may be called from any other. Connections
 * that were cut stay cut; later ones pass, so that a migration can be taken up again, unless the
 * relay is told to refuse.
 */
#ifndef TESTS_CHAOS_RELAY_H
#define TESTS_CHAOS_RELAY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Relay Relay;

typedef enum {
    RELAY_NOTHING,
    RELAY_CLOSE,    /* what was read is passed on, then the connection ends, in order */
    RELAY_RESET,    /* the connection is reset; what is under way is lost */
    RELAY_TRUNCATE, /* up to the byte everything is passed on, the rest is not, then the end */
    RELAY_HANG,     /* nothing passes any more, nothing is closed */
    RELAY_DELAY,    /* nothing passes for `length_ms`, then everything */
    RELAY_SPLIT,    /* the next `length_bytes` go in writes of 1 to 7 bytes */
    RELAY_FLIP,     /* one bit of this byte is turned */
    RELAY_CALL,     /* calls `call`, and goes on */
} RelayAct;

typedef enum { RELAY_THERE, RELAY_BACK } RelayWay;

typedef struct RelayStrike {
    RelayAct act;
    unsigned connection; /* that triggers: 0 main, 1 urgent; one that does not exist never does */
    RelayWay way;
    bool on_all;          /* hits all connections, else the one that triggers */
    uint64_t after_bytes; /* of that way, counted from the arming */
    unsigned after_ms;    /* strikes then at the latest; 0: no such limit */
    unsigned length_ms, length_bytes, bit;
    void (*call)(void *opaque);
    void *opaque;
} RelayStrike;

/* Listens at the same kind of address as target ("tcp:127.0.0.1:PORT", "unix:PATH") and passes each
 * connection on to it. directory: for sockets of unix. queue_bytes: of the sockets' queues in the
 * kernel, 0: what it gives; the smaller, the less can a sender be ahead of its receiver. */
Relay *relay_new(const char *target, const char *directory, unsigned queue_bytes);

/* Owned by the relay. */
const char *relay_uri(const Relay *relay);

/* Replaces what was armed before and did not strike. */
void relay_arm(Relay *relay, const RelayStrike *strike);

/* It comes no more; what relay_struck_us() says of it. */
int64_t relay_disarm(Relay *relay);

/* Wall clock in us of the last strike; 0: none yet. */
int64_t relay_struck_us(Relay *relay);

/* Writes of at most chunk_bytes, one a millisecond, in both ways; 0: as fast as it goes. */
void relay_pace(Relay *relay, unsigned chunk_bytes);

/* Ends all connections, those that hang too; later ones pass. */
void relay_cut(Relay *relay);

/* "main 123456 there, 78 back; urgent ...": bytes passed. Free with g_free. */
char *relay_describe(Relay *relay);

void relay_free(Relay *relay);

#endif
