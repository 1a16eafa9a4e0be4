/* SPDX-License-Identifier: MIT */
/*
 * The source's heartbeat (heartbeat.h): the migration role beats on main when it sends nothing
 * else, the request role beats on the urgent channel and listens to the destination on both.
 *
 * Once requests are answered the request role sleeps without a timer, which would cost it time when
 * it wakes; the migration role, which makes no calls into the VMM any more, wakes it for its looks.
 */
#include "engine/source/source.h"

/* The destination has a heartbeat, or has not yet said that it has none. */
static bool
may_beat(const Source *source)
{
    return !source_flag(&source->has_pong) || (source->features & STREAM_FEATURE_HEARTBEAT);
}

static void
beat_on_main(Source *source)
{
    FrameQueue *main = &source->main;
    bool is_between = !source->is_part_open && !main->is_pending && frame_queue_is_empty(main);
    /* Behind its last byte main is not read any more. */
    bool is_over = source->stage == source_stage_confirm;
    /* And in front of an answer nothing else is. */
    bool is_early = source->stage == source_stage_prove;

    if (is_between && !is_over && !is_early && transport_sender_state(main->sender) == TRANSPORT_OK)
        stream_put_ping(frame_queue_writer(main),
                        STREAM_PING_BEAT | (uint32_t)source->heartbeat_ms);
}

StageResult
source_send_beat(Source *source, uint64_t now_ns, GError **error)
{
    if (!source->heartbeat_ms || !source->main.sender || source->failure || !may_beat(source))
        return STAGE_STAY;
    heartbeat_start(&source->heartbeat, source->heartbeat_ms, now_ns);
    bool is_due = heartbeat_is_due(&source->heartbeat, now_ns);
    uint64_t next_ns = source->heartbeat.next_ns;
    if (!source->migration.wake_ns || source->migration.wake_ns > next_ns)
        source->migration.wake_ns = next_ns;
    if (!is_due)
        return STAGE_STAY;
    if (source_flag(&source->answers_requests))
        transport_ring_notify(source->request.ring);
    if (!source_flag(&source->is_beating) ||
        !heartbeat_wants_beat(&source->main_sent, source->main.closed_bytes))
        return STAGE_STAY;
    beat_on_main(source);
    return frame_queue_flush(&source->main, error) == FLUSH_FAILED ? STAGE_FAILED : STAGE_STAY;
}

/* ---- Request role ---------------------------------------------------------------------------- */

/* Who waits for room in a frame does not read: what has come is heard all the same. */
static uint64_t
count_heard(const Source *source, TransportReceiver *receiver)
{
    bool is_reading = !source->asking && !source->sending;
    size_t available = transport_available(receiver);
    const uint8_t *ignored;

    if (!is_reading && available < TRANSPORT_PEEK_MAX)
        transport_peek(receiver, available + 1, &ignored);
    return transport_receiver_count_bytes(receiver);
}

/* One that cannot beat is given up only if it does not answer the first word; the first beat may
 * take as long. */
static void
listen_to_main(Source *source, GError **error)
{
    unsigned patience = source->is_beating ? 1 : HEARTBEAT_PATIENCE;

    if (!may_beat(source))
        return;
    uint64_t count_bytes = count_heard(source, source->receiver);
    if (heartbeat_is_lost(&source->main_heard, count_bytes, patience))
        *error = heartbeat_error(&source->listening, "destination", "main", patience);
}

static void
beat_on_urgent(Source *source, GError **lost)
{
    FrameQueue *urgent = &source->urgent;

    if (!heartbeat_wants_beat(&source->urgent_sent, urgent->closed_bytes) || source->sending ||
        urgent->is_pending || !frame_queue_is_empty(urgent))
        return;
    stream_put_eos(frame_queue_writer(urgent));
    frame_queue_flush(urgent, lost);
}

/* Nobody beats there yet: what the destination has to say may come after a whole round trip. */
static void
await_urgent_proof(Source *source, GError **lost)
{
    const TransportReceiver *receiver = source->urgent_receiver;
    uint64_t count_bytes = receiver ? transport_receiver_count_bytes(receiver) : 0;

    if (heartbeat_is_lost(&source->urgent_heard, count_bytes, 2))
        *lost = heartbeat_error(&source->listening, "destination", "urgent", 2);
}

/* The destination speaks there once it has obeyed LISTEN. */
static void
listen_to_urgent(Source *source, GError **lost)
{
    if (!source->urgent_receiver)
        return;
    uint64_t count_bytes = count_heard(source, source->urgent_receiver);
    bool is_there = count_bytes > source->urgent_proof_bytes || source_flag(&source->has_loaded);
    if (is_there && heartbeat_is_lost(&source->urgent_heard, count_bytes, 1))
        *lost = heartbeat_error(&source->listening, "destination", "urgent", 1);
}

void
source_listen(Source *source, GError **lost, GError **error)
{
    uint64_t now_ns = clock_now_ns();

    heartbeat_start(&source->listening, source->heartbeat_ms, now_ns);
    bool is_due = heartbeat_is_due(&source->listening, now_ns);
    if (!source_flag(&source->answers_requests))
        source->request.wake_ns = source->listening.next_ns;
    if (!is_due)
        return;
    listen_to_main(source, error);
    if (*error || !source->is_beating || !source->urgent.sender || source->is_mute)
        return;
    if (source_has_token(source) && !source_flag(&source->is_urgent_proved)) {
        await_urgent_proof(source, lost);
        return;
    }
    beat_on_urgent(source, lost);
    if (!*lost)
        listen_to_urgent(source, lost);
}
