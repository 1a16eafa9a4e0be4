/* SPDX-License-Identifier: MIT */
/*
 * Proofs of a token: what they depend on; and a real destination against somebody who connects
 * beside its source, over real sockets: a stranger, one with another token, one who repeats what he
 * recorded, and the source itself, who comes in whatever the others did.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

#include "engine/token.h"
#include "tests/unit/support/peer_source.h"

static const uint8_t token[STREAM_SECRET_BYTES] = {1, 2, 3};

/* ---- Proofs ------------------------------------------------------------------------------------
 */

static void
token_proof_is_accepted_for_the_same_exchange_only(void **state)
{
    TokenExchange exchange = {STREAM_CHANNEL_MAIN, {4}, {5}}, other;
    uint8_t proof[STREAM_SECRET_BYTES], other_token[STREAM_SECRET_BYTES] = {1, 2, 4};
    (void)state;

    token_prove(token, &exchange, TOKEN_SOURCE, proof);
    assert_true(token_is_proved(token, &exchange, TOKEN_SOURCE, proof));
    assert_false(token_is_proved(token, &exchange, TOKEN_DESTINATION, proof));
    assert_false(token_is_proved(other_token, &exchange, TOKEN_SOURCE, proof));
    other = exchange;
    other.channel = STREAM_CHANNEL_URGENT;
    assert_false(token_is_proved(token, &other, TOKEN_SOURCE, proof));
    other = exchange;
    other.challenge[31] = 1;
    assert_false(token_is_proved(token, &other, TOKEN_SOURCE, proof));
    other = exchange;
    other.nonce[31] = 1;
    assert_false(token_is_proved(token, &other, TOKEN_SOURCE, proof));
    proof[31] ^= 1;
    assert_false(token_is_proved(token, &exchange, TOKEN_SOURCE, proof));
}

/* ---- At the door -------------------------------------------------------------------------------
 */

typedef struct Scene {
    Script *script;
    PeerSource *source; /* its urgent connection was made by a stranger: it sends nothing */
    uint8_t token[STREAM_SECRET_BYTES];
} Scene;

static void
pump_until_received(PeerLink *link, size_t length)
{
    for (unsigned i = 0; i < PEER_WAIT_MS && link->received->len < length && !link->is_closed; i++)
        peer_link_pump(link, 1);
}

/* Takes a message of that type off what has come; false: the connection was closed before. */
static bool
receive(PeerLink *link, StreamReturnType type, StreamReturn *ret)
{
    for (;;) {
        g_autoptr(GError) error = NULL;
        size_t length = 0;
        StreamResult result =
            stream_decode_return(link->received->data, link->received->len, ret, &length, &error);
        if (result == STREAM_BAD)
            fail_msg("%s", error->message);
        if (result == STREAM_OK) {
            g_byte_array_remove_range(link->received, 0, (guint)length);
            if (ret->type == type)
                return true;
            continue;
        }
        size_t before = link->received->len;
        pump_until_received(link, length);
        if (link->received->len == before)
            return false;
    }
}

static void
put_hello_with_token(StreamWriter *w)
{
    stream_put_ping(w, STREAM_HELLO | STREAM_FEATURE_COMMIT | STREAM_FEATURE_TOKEN |
                           STREAM_FEATURE_FAREWELL);
}

/* A destination that has told its token, and before the package. */
static void
begin(Scene *scene)
{
    const ScriptChange change = {CHANGE_INSTEAD, STEP_HELLO, put_hello_with_token};
    StreamReturn message;

    scene->script = script_new(SCRIPT_PREEMPT, &change);
    scene->source = peer_source_new(SCRIPT_PREEMPT);
    g_byte_array_append(scene->source->main->to_send, scene->script->main.bytes,
                        (guint)scene->script->offsets[STEP_DISCARDED]);
    while (!peer_link_is_sent(scene->source->main))
        peer_link_pump(scene->source->main, 10);
    assert_true(receive(scene->source->main, STREAM_RETURN_TOKEN, &message));
    memcpy(scene->token, message.secret, sizeof scene->token);
}

static PeerLink *
knock(const Scene *scene)
{
    g_autofree char *address = faultline_incoming_address(scene->source->guest->faultline);
    return peer_link_new(peer_connect(address + strlen("unix:")));
}

static StreamAnswer
answer_to(const uint8_t *challenge, const uint8_t *own_token, StreamChannel channel)
{
    TokenExchange exchange = {.channel = (uint8_t)channel, .nonce = {7}};
    StreamAnswer answer = {.channel = (uint8_t)channel, .nonce = {7}};

    memcpy(exchange.challenge, challenge, sizeof exchange.challenge);
    token_prove(own_token, &exchange, TOKEN_SOURCE, answer.proof);
    return answer;
}

static void
say(PeerLink *link, const StreamAnswer *answer)
{
    uint8_t bytes[128];
    StreamWriter w = {.bytes = bytes, .capacity = sizeof bytes};

    stream_put_answer(&w, answer);
    g_byte_array_append(link->to_send, bytes, (guint)w.length);
    while (!peer_link_is_sent(link) && !link->is_closed)
        peer_link_pump(link, 10);
}

static void
send_range(PeerLink *link, const StreamWriter *from, size_t first, size_t end)
{
    g_byte_array_append(link->to_send, from->bytes + first, (guint)(end - first));
    while (!peer_link_is_sent(link) && !link->is_closed)
        peer_link_pump(link, 10);
}

/* Connects, proves itself, and brings the guest over. */
static void
come_in_and_finish(Scene *scene)
{
    g_autoptr(PeerLink) urgent = knock(scene);
    PeerLink *main = scene->source->main;
    StreamReturn message;

    assert_true(receive(urgent, STREAM_RETURN_CHALLENGE, &message));
    StreamAnswer answer = answer_to(message.secret, scene->token, STREAM_CHANNEL_URGENT);
    TokenExchange exchange = {.channel = STREAM_CHANNEL_URGENT, .nonce = {7}};
    memcpy(exchange.challenge, message.secret, sizeof exchange.challenge);
    say(urgent, &answer);
    assert_true(receive(urgent, STREAM_RETURN_PROOF, &message));
    assert_true(token_is_proved(scene->token, &exchange, TOKEN_DESTINATION, message.secret));
    const size_t *offsets = scene->script->offsets;
    send_range(main, &scene->script->main, offsets[STEP_DISCARDED], offsets[STEP_RUNNING]);
    do
        assert_true(receive(main, STREAM_RETURN_PONG, &message));
    while (message.value != STREAM_PING_RUNNING);
    send_range(urgent, &scene->script->urgent, 0, scene->script->urgent.length);
    send_range(main, &scene->script->main, offsets[STEP_RUNNING], scene->script->main.length);
    assert_int_equal(peer_source_wait(scene->source), FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(peer_count(&scene->source->guest->count_resumes), 1);
}

static void
end(Scene *scene)
{
    peer_source_free(scene->source);
    script_free(scene->script);
}

static void
expect_refusal(PeerLink *link)
{
    StreamReturn message;
    assert_false(receive(link, STREAM_RETURN_PROOF, &message));
    assert_true(link->is_closed);
}

static void
incoming_lets_the_source_in(void **state)
{
    Scene scene;
    (void)state;
    begin(&scene);
    come_in_and_finish(&scene);
    end(&scene);
}

static void
incoming_sends_strangers_away_and_lets_the_source_in(void **state)
{
    static const char *const words[] = {"QEVM", "GET / HTTP/1.0\r\n\r\n",
                                        "\010\000\002\000\0041234"};
    Scene scene;
    (void)state;
    begin(&scene);
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++) {
        g_autoptr(PeerLink) stranger = knock(&scene);
        StreamReturn message;
        assert_true(receive(stranger, STREAM_RETURN_CHALLENGE, &message));
        size_t length = i == 2 ? 9 : strlen(words[i]);
        g_byte_array_append(stranger->to_send, (const guint8 *)words[i], (guint)length);
        while (!peer_link_is_sent(stranger) && !stranger->is_closed)
            peer_link_pump(stranger, 10);
        expect_refusal(stranger);
    }
    come_in_and_finish(&scene);
    end(&scene);
}

static void
incoming_sends_an_old_source_away(void **state)
{
    Scene scene;
    StreamReturn message;
    (void)state;
    begin(&scene);
    g_autoptr(PeerLink) old = knock(&scene);
    assert_true(receive(old, STREAM_RETURN_CHALLENGE, &message));
    StreamAnswer answer = answer_to(message.secret, token, STREAM_CHANNEL_URGENT);
    say(old, &answer);
    expect_refusal(old);
    come_in_and_finish(&scene);
    end(&scene);
}

/* What was right once is wrong on another connection. */
static void
incoming_sends_a_replay_away(void **state)
{
    Scene scene;
    StreamReturn message;
    (void)state;
    begin(&scene);
    g_autoptr(PeerLink) first = knock(&scene);
    g_autoptr(PeerLink) second = knock(&scene);
    assert_true(receive(first, STREAM_RETURN_CHALLENGE, &message));
    StreamAnswer answer = answer_to(message.secret, scene.token, STREAM_CHANNEL_URGENT);
    assert_true(receive(second, STREAM_RETURN_CHALLENGE, &message));
    say(second, &answer);
    expect_refusal(second);
    g_clear_pointer(&first, peer_link_free);
    come_in_and_finish(&scene);
    end(&scene);
}

static bool
is_unheard(const Scene *scene)
{
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    faultline_query(scene->source->guest->faultline, info);
    return info->is_unheard;
}

static void
say_farewell(PeerLink *link)
{
    uint8_t bytes[16];
    StreamWriter writer = {.bytes = bytes, .capacity = sizeof bytes};

    stream_put_ping(&writer, STREAM_PING_FAREWELL);
    g_byte_array_append(link->to_send, bytes, (guint)writer.length);
    while (!peer_link_is_sent(link))
        peer_link_pump(link, 10);
}

/* The source has given the guest away and lost the connection before it was here. */
static void
incoming_sends_the_guest_back_to_a_source_that_asks_for_it(void **state)
{
    Scene scene;
    StreamReturn message;
    (void)state;
    begin(&scene);
    g_autoptr(PeerLink) again = knock(&scene);
    assert_true(receive(again, STREAM_RETURN_CHALLENGE, &message));
    StreamAnswer answer = answer_to(message.secret, scene.token, STREAM_CHANNEL_MAIN);
    say(again, &answer);
    assert_true(receive(again, STREAM_RETURN_PROOF, &message));
    assert_true(receive(again, STREAM_RETURN_SHUT, &message));
    assert_int_equal(message.value, 1);
    assert_int_equal(peer_source_wait(scene.source), FAULTLINE_STATUS_FAILED);
    assert_true(is_unheard(&scene));
    say_farewell(again);
    for (unsigned i = 0; i < PEER_WAIT_MS && is_unheard(&scene); i++)
        g_usleep(1000);
    assert_false(is_unheard(&scene));
    assert_int_equal(peer_count(&scene.source->guest->count_resumes), 0);
    end(&scene);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(token_proof_is_accepted_for_the_same_exchange_only),
        cmocka_unit_test(incoming_lets_the_source_in),
        cmocka_unit_test(incoming_sends_strangers_away_and_lets_the_source_in),
        cmocka_unit_test(incoming_sends_an_old_source_away),
        cmocka_unit_test(incoming_sends_a_replay_away),
        cmocka_unit_test(incoming_sends_the_guest_back_to_a_source_that_asks_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
