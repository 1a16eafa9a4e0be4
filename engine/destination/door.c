/* SPDX-License-Identifier: MIT */
/*
 * Connections that come after the token was agreed on: challenged, let in or sent away. Which of
 * those that proved themselves is of use now, and what a main connection means that comes while
 * there is one, is decided here too. Listen role.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define KNOCK_NS        2000000000ull /* for an answer, which a source gives at once */
#define KNOCK_LEAST_NS  200000000ull  /* of it, whoever else comes: a long way there and back */
#define ACCEPT_AGAIN_NS 100000000u

bool
destination_has_door(const Destination *destination)
{
    return destination->features & STREAM_FEATURE_TOKEN;
}

static void
send_away(Door *door, Knock *knock)
{
    g_clear_pointer(&knock->sender, transport_sender_free);
    g_clear_pointer(&knock->receiver, transport_receiver_free);
    if (knock->link)
        transport_link_shutdown(knock->link);
    g_clear_pointer(&knock->link, transport_link_unref);
    knock->state = KNOCK_NONE;
    door->refused++;
}

void
destination_close_door(Destination *destination)
{
    for (unsigned i = 0; i < KNOCKS_MAX; i++)
        if (destination->door.knocks[i].state != KNOCK_NONE)
            send_away(&destination->door, &destination->door.knocks[i]);
}

static bool
say(Knock *knock, StreamReturnType type, const uint8_t *secret)
{
    StreamWriter writer = {.bytes = knock->bytes, .capacity = sizeof knock->bytes};

    stream_put_return_secret(&writer, type, secret);
    knock->iov = (struct iovec){knock->bytes, writer.length};
    return transport_send(knock->sender, &knock->iov, 1) == TRANSPORT_OK;
}

static void
challenge(Destination *destination, Knock *knock, TransportLink *link)
{
    TransportRing *ring = destination->listen.ring;

    *knock = (Knock){.state = KNOCK_CHALLENGED, .link = link};
    knock->sender = transport_sender_new(ring, link);
    knock->receiver = transport_receiver_new(ring, link);
    knock->reader = (Reader){.receiver = knock->receiver};
    knock->until_ns = clock_now_ns() + KNOCK_NS;
    if (!random_fill(knock->exchange.challenge, STREAM_SECRET_BYTES, NULL) ||
        !say(knock, STREAM_RETURN_CHALLENGE, knock->exchange.challenge))
        send_away(&destination->door, knock);
}

static Knock *
free_place(Door *door)
{
    for (unsigned i = 0; i < KNOCKS_MAX; i++)
        if (door->knocks[i].state == KNOCK_NONE)
            return &door->knocks[i];
    return NULL;
}

static void
wake_at(Destination *destination, uint64_t at_ns)
{
    uint64_t *wake_ns = &destination->listen.wake_ns;
    *wake_ns = *wake_ns ? MIN(*wake_ns, at_ns) : at_ns;
}

/* The oldest who has not answered yet gives way. NULL: he has had no time to, or all have. */
static Knock *
make_place(Destination *destination)
{
    Knock *oldest = NULL;

    for (unsigned i = 0; i < KNOCKS_MAX; i++) {
        Knock *knock = &destination->door.knocks[i];
        if (knock->state == KNOCK_CHALLENGED && (!oldest || knock->until_ns < oldest->until_ns))
            oldest = knock;
    }
    if (!oldest)
        return NULL;
    uint64_t gives_way_ns = oldest->until_ns - (KNOCK_NS - KNOCK_LEAST_NS);
    if (clock_now_ns() < gives_way_ns) {
        wake_at(destination, gives_way_ns);
        return NULL;
    }
    send_away(&destination->door, oldest);
    return oldest;
}

static Knock *
find_place(Destination *destination)
{
    Knock *place = free_place(&destination->door);
    return place ? place : make_place(destination);
}

/* An error of accepting, for instance that there are too many files, is one of this moment. */
static void
accept_knocks(Destination *destination)
{
    g_autoptr(GError) failed = NULL;
    StageResult result = STAGE_AGAIN;
    TransportLink *link;
    Knock *place;

    while (!destination_flag(&destination->is_held) && result == STAGE_AGAIN &&
           (place = find_place(destination))) {
        result = destination_accept_link(destination, DESTINATION_FIRST_ANY, &link, &failed);
        if (result == STAGE_AGAIN)
            challenge(destination, place, link);
    }
    if (result == STAGE_FAILED)
        wake_at(destination, clock_now_ns() + ACCEPT_AGAIN_NS);
}

/* ---- What is of use -------------------------------------------------------------------------- */

static bool
takes_urgent(const Destination *destination)
{
    bool has_begun = destination->in_postcopy ? destination->in_recovery : true;
    return destination->has_preempt && has_begun && destination->receiver &&
           !destination->urgent_link;
}

/* A source comes again only if its links are dead, whatever is known of that here: for the pages
 * that are missing, or to learn that the guest it gave away never came. */
static bool
takes_main(const Destination *destination)
{
    return !destination_flag(&destination->is_held) &&
           (destination->is_over || destination->stage != destination_stage_leave);
}

static bool
is_of_use(const Destination *destination, uint8_t channel)
{
    if (channel == STREAM_CHANNEL_URGENT)
        return takes_urgent(destination);
    return channel == STREAM_CHANNEL_MAIN && takes_main(destination);
}

static bool
check_answer(Destination *destination, Knock *knock, const StreamAnswer *answer)
{
    uint8_t proof[STREAM_SECRET_BYTES];

    knock->exchange.channel = answer->channel;
    memcpy(knock->exchange.nonce, answer->nonce, sizeof answer->nonce);
    if (!token_is_proved(destination->token, &knock->exchange, TOKEN_SOURCE, answer->proof) ||
        !is_of_use(destination, answer->channel))
        return false;
    token_prove(destination->token, &knock->exchange, TOKEN_DESTINATION, proof);
    knock->state = KNOCK_PROVING;
    return say(knock, STREAM_RETURN_PROOF, proof);
}

/* False: he is sent away. */
static bool
hear_answer(Destination *destination, Knock *knock)
{
    g_autoptr(GError) ignored = NULL;
    StreamElement element;
    size_t length;

    TransportResult state = transport_sender_state(knock->sender);
    if (state != TRANSPORT_OK)
        return state == TRANSPORT_WAIT;
    ReadResult result =
        reader_decode(&knock->reader, destination_decode_element, &element, &length, &ignored);
    if (result != READ_OK)
        return result == READ_WAIT;
    if (element.type != STREAM_COMMAND || element.command != STREAM_COMMAND_ANSWER)
        return false;
    StreamAnswer answer = stream_parse_answer(&element);
    reader_consume(&knock->reader, length);
    /* Another thread reads on there; nothing is lost, as the source waits for our proof. */
    if (answer.channel == STREAM_CHANNEL_URGENT)
        g_clear_pointer(&knock->receiver, transport_receiver_free);
    return check_answer(destination, knock, &answer);
}

static bool
hear_sent(Knock *knock)
{
    TransportResult state = transport_sender_state(knock->sender);
    if (state != TRANSPORT_OK)
        return state == TRANSPORT_WAIT;
    g_clear_pointer(&knock->sender, transport_sender_free);
    knock->state = KNOCK_PROVED;
    return true;
}

static void
let_urgent_in(Destination *destination, Knock *knock)
{
    if (!takes_urgent(destination)) {
        send_away(&destination->door, knock);
        return;
    }
    destination->urgent_link = g_steal_pointer(&knock->link);
    knock->state = KNOCK_NONE;
    destination_publish_urgent(destination);
}

/* True: he was let in, or may be. */
static bool
step_knock(Destination *destination, Knock *knock, uint64_t now_ns)
{
    bool goes_on = true;

    if (knock->state >= KNOCK_PROVED)
        return false;
    if (knock->state == KNOCK_CHALLENGED)
        goes_on = hear_answer(destination, knock);
    if (goes_on && knock->state == KNOCK_PROVING)
        goes_on = hear_sent(knock);
    if (!goes_on || (now_ns >= knock->until_ns && knock->state != KNOCK_PROVED)) {
        send_away(&destination->door, knock);
        return false;
    }
    if (knock->state != KNOCK_PROVED) {
        wake_at(destination, knock->until_ns);
        return false;
    }
    if (knock->exchange.channel == STREAM_CHANNEL_URGENT)
        let_urgent_in(destination, knock);
    return true;
}

static Knock *
proved_main(Destination *destination)
{
    for (unsigned i = 0; i < KNOCKS_MAX; i++) {
        Knock *knock = &destination->door.knocks[i];
        if (knock->state == KNOCK_PROVED && knock->exchange.channel == STREAM_CHANNEL_MAIN)
            return knock;
    }
    return NULL;
}

/* Whether somebody was let in, or may be. */
static bool
step_knocks(Destination *destination)
{
    uint64_t now_ns = 0;
    bool is_in = false;

    for (unsigned i = 0; i < KNOCKS_MAX; i++) {
        Knock *knock = &destination->door.knocks[i];
        if (knock->state == KNOCK_NONE)
            continue;
        now_ns = now_ns ? now_ns : clock_now_ns();
        is_in |= step_knock(destination, knock, now_ns);
    }
    return is_in;
}

StageResult
destination_step_door(Destination *destination, GError **error)
{
    if (!destination_has_door(destination))
        return STAGE_STAY;
    /* Heard before others come: one who has answered gives way to nobody. */
    bool is_in = step_knocks(destination);
    accept_knocks(destination);
    is_in |= step_knocks(destination);
    StageResult result = is_in ? STAGE_AGAIN : STAGE_STAY;
    Knock *again = proved_main(destination);
    if (!again || destination->is_over || destination->stage == destination_stage_paused ||
        destination->stage == destination_stage_failing)
        return result;
    if (!takes_main(destination)) {
        send_away(&destination->door, again);
        return result;
    }
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                "the source has connected again, so that the connection is dead");
    return STAGE_FAILED;
}

/* ---- The last word ----------------------------------------------------------------------------
 */

/* The source reads what comes behind our proof as sealed, if it has checksums. */
static bool
say_shut(const Destination *destination, Knock *knock)
{
    uint64_t verdict = progress_get(&destination->faultline->progress.verdict);
    bool is_judged = verdict == FAULTLINE_VERDICT_PASSED || verdict == FAULTLINE_VERDICT_FAILED;
    bool is_sealed = destination->features & STREAM_FEATURE_CHECKSUMS;
    size_t head = is_sealed ? STREAM_SEAL_BYTES : 0;
    StreamWriter writer = {.bytes = knock->bytes + head,
                           .capacity = sizeof knock->bytes - STREAM_SEAL_BYTES};

    if (is_sealed && is_judged && destination->last_word == 0)
        stream_put_return_value(&writer, STREAM_RETURN_VERDICT,
                                (uint32_t)MIN(destination->bad_extents, UINT32_MAX));
    stream_put_return_value(&writer, STREAM_RETURN_SHUT, destination->last_word);
    if (is_sealed)
        stream_put_seal(knock->bytes, writer.bytes, (uint32_t)writer.length, 0);
    knock->iov = (struct iovec){knock->bytes, head + writer.length};
    return transport_send(knock->sender, &knock->iov, 1) == TRANSPORT_OK;
}

/* Tells a source that came in. */
static void
tell(Destination *destination, Knock *knock)
{
    knock->sender = transport_sender_new(destination->listen.ring, knock->link);
    knock->state = KNOCK_TOLD;
    if (destination->features & STREAM_FEATURE_CHECKSUMS)
        reader_seal(&knock->reader, destination_piece_limit(destination));
    if (!say_shut(destination, knock))
        send_away(&destination->door, knock);
}

/* What it asked for meanwhile is not answered; its farewell is what it says last. A close with
 * bytes unread is a reset, which can overtake what was said: reads to the end. */
bool
destination_say_last_word(Destination *destination)
{
    Knock *knock = proved_main(destination);
    bool was_heard = false;

    if (knock)
        tell(destination, knock);
    for (unsigned i = 0; i < KNOCKS_MAX; i++) {
        knock = &destination->door.knocks[i];
        if (knock->state != KNOCK_TOLD)
            continue;
        ReadResult result = destination_hear_farewell(&knock->reader, &knock->count_heard);
        was_heard |= result == READ_OK;
        if (result != READ_WAIT)
            send_away(&destination->door, knock);
    }
    return was_heard;
}

bool
destination_has_main(const Destination *destination)
{
    return proved_main((Destination *)destination) != NULL;
}

bool
destination_take_main(Destination *destination)
{
    Knock *knock = proved_main(destination);

    if (!knock)
        return false;
    destination->link = g_steal_pointer(&knock->link);
    destination->receiver = g_steal_pointer(&knock->receiver);
    knock->state = KNOCK_NONE;
    return true;
}
