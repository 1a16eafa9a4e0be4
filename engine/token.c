/* SPDX-License-Identifier: MIT */
/*
 * The proofs of a token. Pure; any thread.
 */
#include "engine/token.h"

#include <string.h>

void
token_prove(const uint8_t *token, const TokenExchange *exchange, TokenSide side, uint8_t *ret_proof)
{
    static const char *const names[] = {"faultline source", "faultline destination"};
    gsize length = STREAM_SECRET_BYTES;
    GHmac *hmac = g_hmac_new(G_CHECKSUM_SHA256, token, STREAM_SECRET_BYTES);

    g_hmac_update(hmac, (const guchar *)names[side], (gssize)strlen(names[side]) + 1);
    g_hmac_update(hmac, &exchange->channel, sizeof exchange->channel);
    g_hmac_update(hmac, exchange->challenge, sizeof exchange->challenge);
    g_hmac_update(hmac, exchange->nonce, sizeof exchange->nonce);
    g_hmac_get_digest(hmac, ret_proof, &length);
    g_hmac_unref(hmac);
}

bool
token_is_proved(const uint8_t *token, const TokenExchange *exchange, TokenSide side,
                const uint8_t *proof)
{
    uint8_t expected[STREAM_SECRET_BYTES];
    unsigned difference = 0;

    token_prove(token, exchange, side, expected);
    for (unsigned i = 0; i < sizeof expected; i++)
        difference |= expected[i] ^ proof[i];
    return difference == 0;
}
