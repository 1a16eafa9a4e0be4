/* SPDX-License-Identifier: MIT */
/*
 * What the destination's messages on the return path mean, and when they may come: the hello and
 * what was agreed, how far it is, the end. Everything that is wrong with one is an error that ends
 * the link. Pages that are asked for are request.c's. Request role.
 */
#include "engine/source/source.h"

#include <string.h>

GError *
source_peer_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    GError *error = g_error_new_valist(FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, format, arguments);
    va_end(arguments);
    return error;
}

/* The destination refuses as well; but by then its word may be all that is known here. */
static GError *
take_agreement(const Source *source, uint32_t value)
{
    GError *error = NULL;
    if (source->can_postcopy)
        options_check_agreement(source->agreement, value & STREAM_AGREE_BITS, &error);
    return error;
}

/* Where checksums are wished, the hello was said twice: features that two answers agree on were not
 * damaged, and what comes behind the second one is sealed. */
static GError *
take_hello_answer(Source *source, uint32_t value)
{
    bool is_echo = (value & STREAM_HELLO_MASK) == STREAM_HELLO; /* a QEMU's */
    bool is_answer = (value & STREAM_HELLO_MASK) == STREAM_HELLO_ANSWER;
    bool is_checked = (source->offers & STREAM_FEATURE_CHECKSUMS) != 0;
    uint32_t features = is_answer ? value & source->offers : 0;

    if (!source->has_token)
        features &= ~(STREAM_FEATURE_TOKEN | STREAM_FEATURE_FAREWELL);

    if (is_checked &&
        ((!is_echo && !is_answer) || (source->count_hellos && features != source->features)))
        return source_peer_error(
            "return path: the answer to our hello, 0x%x, was damaged on its way", value);
    source->features = features;
    if (is_checked && !source->count_hellos++)
        return NULL;
    source->urgent.puts_runs = features & STREAM_FEATURE_RUNS;
    if (features & STREAM_FEATURE_CHECKSUMS)
        reader_seal(&source->reader, source_piece_limit(source));
    source_set_flag(&source->has_pong);
    return NULL;
}

static GError *
take_pong(Source *source, uint32_t value)
{
    bool is_hello = (value & STREAM_HELLO_MASK) == STREAM_HELLO ||
                    (value & STREAM_HELLO_MASK) == STREAM_HELLO_ANSWER ||
                    (source->offers & STREAM_FEATURE_CHECKSUMS);
    GError *error = NULL;

    /* Once: features do not change after others were told of them. */
    if (is_hello && !source_flag(&source->has_pong)) {
        error = take_hello_answer(source, value);
    } else if ((value & STREAM_HELLO_MASK) == STREAM_PING_BEAT) {
        bool is_agreed = source->features & STREAM_FEATURE_HEARTBEAT;
        if (source->is_beating || !is_agreed)
            return NULL;
        source_set_flag(&source->is_beating);
    } else if (value == STREAM_PING_SETTLED) {
        source_set_flag(&source->has_settled);
    } else if ((value & STREAM_PING_SETTLED_MASK) == STREAM_PING_SETTLED) {
        __atomic_store_n(&source->settled_heard, value & ~STREAM_PING_SETTLED_MASK,
                         __ATOMIC_RELEASE);
    } else if (value == STREAM_PING_COMMIT) {
        source_set_flag(&source->has_commit);
    } else if (value == STREAM_PING_LOADED) {
        source_set_flag(&source->has_loaded);
    }
    source_notify(source);
    return error;
}

GError *
source_take_message(Source *source, const StreamReturn *message)
{
    bool is_proof =
        message->type == STREAM_RETURN_CHALLENGE || message->type == STREAM_RETURN_PROOF;
    if (source_flag(&source->needs_proof) && !source_flag(&source->is_proved) && !is_proof)
        return source_peer_error(
            "recover: message %u came before a proof that this is the destination", message->type);
    switch (message->type) {
    case STREAM_RETURN_PONG:
        if ((message->value & STREAM_HELLO_MASK) == STREAM_AGREE_ANSWER)
            return take_agreement(source, message->value);
        return take_pong(source, message->value);
    case STREAM_RETURN_SHUT:
        source->shut_value = message->value;
        source_set_flag(&source->has_shut);
        source_notify(source);
        return NULL;
    case STREAM_RETURN_REQ_PAGES:
    case STREAM_RETURN_REQ_PAGES_ID:
        return source_take_request(source, message);
    case STREAM_RETURN_RESEND:
    case STREAM_RETURN_WHOLE:
    case STREAM_RETURN_VERDICT:
        return source_take_integrity(source, message);
    case STREAM_RETURN_RECV_BITMAP:
        return source_begin_bitmap(source, message->name);
    case STREAM_RETURN_RESUME_ACK:
        if (!source_flag(&source->expects_resume) || source_flag(&source->has_resumed))
            return source_peer_error("recover: RESUME was acknowledged, and nobody asked for that");
        /* A QEMU recovers no guest that does not run. Ours tells it once more if it was so. */
        if (!(source->features & STREAM_FEATURE_COMMIT))
            source_set_flag(&source->has_loaded);
        source_set_flag(&source->has_resumed);
        source_notify(source);
        return NULL;
    case STREAM_RETURN_TOKEN:
        if (source_flag(&source->has_pong))
            return source_peer_error("return path: a token came after the hello was answered");
        if (source->has_token && memcmp(source->token, message->secret, sizeof source->token) != 0)
            return source_peer_error(
                "return path: two tokens came, so that one was damaged on its way");
        memcpy(source->token, message->secret, sizeof source->token);
        source->has_token = true;
        return NULL;
    case STREAM_RETURN_ADDRESS:
        if (source_flag(&source->has_pong))
            return source_peer_error("return path: an address came after the hello was answered");
        source_take_address(source, message->name);
        return NULL;
    case STREAM_RETURN_CHALLENGE:
    case STREAM_RETURN_PROOF:
        return source_take_proof(source, STREAM_CHANNEL_MAIN, message);
    case STREAM_RETURN_SWITCHOVER_ACK:
        break;
    }
    return NULL;
}
