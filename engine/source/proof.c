/* SPDX-License-Identifier: MIT */
/*
 * The source proves on each further connection that it is the one that knows the token, and sees
 * that the destination does (token.h). The request role hears both channels and answers on the
 * urgent one, which is its own; on main the migration role says the answer.
 */
#include "engine/source/source.h"

#include <string.h>

bool
source_has_token(const Source *source)
{
    return source->features & STREAM_FEATURE_TOKEN;
}

static GError *
proof_error(FaultlineError code, const char *text)
{
    return g_error_new(FAULTLINE_ERROR, code, "prove the migration: %s", text);
}

static bool
make_answer(Source *source, TokenExchange *exchange, StreamAnswer *ret_answer)
{
    ret_answer->channel = exchange->channel;
    if (!random_fill(exchange->nonce, sizeof exchange->nonce, NULL))
        return false;
    memcpy(ret_answer->nonce, exchange->nonce, sizeof exchange->nonce);
    token_prove(source->token, exchange, TOKEN_SOURCE, ret_answer->proof);
    return true;
}

static GError *
take_challenge(Source *source, TokenExchange *exchange, StreamChannel channel,
               const uint8_t *challenge)
{
    bool is_main = channel == STREAM_CHANNEL_MAIN;
    StreamAnswer answer;

    if (is_main ? source_flag(&source->has_challenge) : source->has_answered_urgent)
        return proof_error(FAULTLINE_ERROR_PEER, "the destination asked for it twice");
    exchange->channel = (uint8_t)channel;
    memcpy(exchange->challenge, challenge, sizeof exchange->challenge);
    if (!make_answer(source, exchange, &answer))
        return proof_error(FAULTLINE_ERROR_HOST, "no random bytes can be had here");
    if (is_main) {
        source->answer = answer;
        source_set_flag(&source->has_challenge);
        source_notify(source);
    } else {
        stream_put_answer(frame_queue_writer(&source->urgent), &answer);
        source->has_answered_urgent = true;
    }
    return NULL;
}

GError *
source_take_proof(Source *source, StreamChannel channel, const StreamReturn *message)
{
    bool is_main = channel == STREAM_CHANNEL_MAIN;
    TokenExchange *exchange = is_main ? &source->main_exchange : &source->urgent_exchange;
    bool *is_proved = is_main ? &source->is_proved : &source->is_urgent_proved;
    bool has_answered = is_main ? source_flag(&source->has_challenge) : source->has_answered_urgent;

    if (!source_has_token(source))
        return proof_error(FAULTLINE_ERROR_PEER,
                           "the destination asks for it, and none was agreed");
    if (message->type == STREAM_RETURN_CHALLENGE)
        return take_challenge(source, exchange, channel, message->secret);
    if (!has_answered || source_flag(is_proved) ||
        !token_is_proved(source->token, exchange, TOKEN_DESTINATION, message->secret))
        return proof_error(FAULTLINE_ERROR_PEER, "who listens there is not the destination that "
                                                 "has the guest; see who has its address");
    if (!is_main)
        source->urgent_proof_bytes = transport_receiver_count_bytes(source->urgent_receiver);
    if (source_has_checksums(source)) { /* from here on, in both directions */
        reader_seal(is_main ? &source->reader : &source->urgent_reader, source_piece_limit(source));
        if (!is_main)
            frame_queue_seal(&source->urgent);
    }
    source_set_flag(is_proved);
    source_notify(source);
    return NULL;
}
