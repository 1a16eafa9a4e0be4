/* SPDX-License-Identifier: MIT */
/*
 * The destination's door: whoever connects after the token was agreed on is challenged, and let in
 * only when he proves to be the source (token.h). Several may stand at it at once, so that one who
 * says nothing, or the wrong thing, keeps nobody out: he is sent away after a moment, and sooner if
 * all places are taken: the oldest who has not answered then gives way, as soon as he has had the
 * time that an answer takes. Those behind wait in the kernel's queue meanwhile. Listen role.
 */
#ifndef ENGINE_DESTINATION_DOOR_H
#define ENGINE_DESTINATION_DOOR_H

#include "engine/reader.h"
#include "engine/token.h"

#define KNOCKS_MAX 32u /* a quarter of a MiB each, of which a silent one touches nothing */

typedef enum { KNOCK_NONE, KNOCK_CHALLENGED, KNOCK_PROVING, KNOCK_PROVED, KNOCK_TOLD } KnockState;

/* One connection that is not yet let in. */
typedef struct Knock {
    KnockState state;
    TransportLink *link;
    TransportSender *sender;
    TransportReceiver *receiver;
    Reader reader;
    uint64_t until_ns;
    TokenExchange exchange;
    unsigned count_heard; /* elements, once it was told */
    uint8_t bytes[64];    /* what is being sent */
    struct iovec iov;
} Knock;

typedef struct Door {
    Knock knocks[KNOCKS_MAX];
    uint64_t refused; /* how many were sent away */
} Door;

#endif
