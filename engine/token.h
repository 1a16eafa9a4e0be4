/* SPDX-License-Identifier: MIT */
/*
 * The token: only the same migration may come back, between two faultlines that both have
 * STREAM_FEATURE_TOKEN.
 *
 * The destination makes a random token and tells it on the return path, before it answers the
 * hello. Whoever connects after that, with the urgent channel or to recover, proves to know it
 * before anything else is said, and is shown that the destination does:
 *
 *   D -> S   CHALLENGE   32 random bytes, as soon as the connection is accepted
 *   S -> D   ANSWER      which channel it is, 32 random bytes, keyed hash of side, channel and both
 *   D -> S   PROOF       keyed hash of the other side's name and the same
 *
 * The hash is HMAC-SHA-256, the key is the token. What was recorded is of no use on another
 * connection, as the random bytes are others, nor is what the one side said for the other. Whoever
 * reads the first connection reads the token: against that helps TLS, and nothing else.
 */
#ifndef ENGINE_TOKEN_H
#define ENGINE_TOKEN_H

#include "engine/stream/stream.h"

typedef enum { TOKEN_SOURCE, TOKEN_DESTINATION } TokenSide;

/* What one connection's proofs are made of. */
typedef struct TokenExchange {
    uint8_t channel; /* StreamChannel */
    uint8_t challenge[STREAM_SECRET_BYTES], nonce[STREAM_SECRET_BYTES];
} TokenExchange;

void token_prove(const uint8_t *token, const TokenExchange *exchange, TokenSide side,
                 uint8_t *ret_proof);

/* Takes the same time whatever is wrong. */
bool token_is_proved(const uint8_t *token, const TokenExchange *exchange, TokenSide side,
                     const uint8_t *proof);

#endif
