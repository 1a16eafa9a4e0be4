/* SPDX-License-Identifier: MIT */
/*
 * Heartbeat: finding a connection that hangs without closing, between two faultlines that both have
 * STREAM_FEATURE_HEARTBEAT.
 *
 * Each side sends something on each connection at least twice in a heartbeat-timeout: what it has
 * to send anyway, or when there is nothing a beat. A side that has received no byte for that long
 * takes the link for broken; the source's first byte on the urgent channel may take twice as long,
 * as it beats there once it has heard the destination. So a peer is alive as long as a single byte
 * of it comes, however slow the link is; bytes that our own kernel takes prove nothing.
 *
 *   connection, direction      beat                   sent by           heard by
 *   main, to destination       PING STREAM_PING_BEAT  source migration  listen
 *   main, return path          PONG STREAM_PING_BEAT  fault             source request
 *   urgent, to destination     EOS record             source request    fault
 *   urgent, to source          PONG STREAM_PING_BEAT  fault             source request
 *
 * Who beats must not be busy for long. The migration role is, in callbacks of its VMM, until the
 * guest is given away: so long the destination waits HEARTBEAT_PATIENCE times as long for main. The
 * source's timeout, which its first beat tells, holds for both sides. Before that beat each side
 * goes by its own, and waits HEARTBEAT_PATIENCE times as long too: the source for the first answer,
 * the destination, of any source, for each byte of header, configuration and block list.
 *
 * A Heartbeat is one role's; it looks at the clock only when the role has nothing else to do.
 */
#ifndef ENGINE_HEARTBEAT_H
#define ENGINE_HEARTBEAT_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define HEARTBEAT_PATIENCE  12u
#define HEARTBEAT_GREATEST  60000u /* ms: it travels in 16 bits */
#define HEARTBEAT_NS_PER_MS UINT64_C(1000000)

typedef struct Heartbeat {
    uint64_t timeout_ns; /* 0: off */
    uint64_t next_ns;    /* when the role looks again */
} Heartbeat;

/* A count of bytes, and how many looks have found it unchanged. Looks are counted rather than time:
 * who was busy himself has looked less often, and holds nobody else guilty. */
typedef struct Pulse {
    uint64_t count_bytes;
    unsigned looks;
} Pulse;

/* Off for 0 ms. Fine when it is on: nothing happens. */
void heartbeat_start(Heartbeat *heartbeat, uint64_t timeout_ms, uint64_t now_ns);

static inline bool
heartbeat_is_on(const Heartbeat *heartbeat)
{
    return heartbeat->timeout_ns != 0;
}

/* Whether it is time to look at the pulses; then sets the next time. */
bool heartbeat_is_due(Heartbeat *heartbeat, uint64_t now_ns);

/* For each look: whether a beat is due, as nothing was sent since the last look. */
bool heartbeat_wants_beat(Pulse *sent, uint64_t count_bytes);

/* For each look: no byte came for `patience` timeouts. */
bool heartbeat_is_lost(Pulse *heard, uint64_t count_bytes, unsigned patience);

/* LINK error: nothing came from `whom` on `channel`. */
GError *heartbeat_error(const Heartbeat *heartbeat, const char *whom, const char *channel,
                        unsigned patience);

#endif
