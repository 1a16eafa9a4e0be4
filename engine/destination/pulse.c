/* SPDX-License-Identifier: MIT */
/*
 * The destination's heartbeat (heartbeat.h): the fault role beats on both channels and listens on
 * the urgent one, the listen role listens on main.
 *
 * Once there are page faults the fault role sleeps without a timer, which would cost it time when
 * it wakes; the listen role, which makes no calls into the VMM any more, wakes it for its looks.
 *
 * Up to the source's first beat, or the end of its block list, the destination goes by its own
 * timeout: any source sends all of that in one go, whether it has a heartbeat or not.
 */
#include "engine/destination/destination.h"

static uint32_t
heartbeat_ms(const Destination *destination)
{
    return __atomic_load_n(&destination->heartbeat_ms, __ATOMIC_ACQUIRE);
}

/* ---- Listen role ----------------------------------------------------------------------------- */

/* The next byte of main is what the stage waits for, and nothing else. */
static bool
waits_for_main(const Destination *destination)
{
    static const DestinationStage stages[] = {
        destination_stage_open,    destination_stage_element, destination_stage_block_list,
        destination_stage_records, destination_stage_footer,  destination_stage_device,
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(stages); i++)
        if (destination->stage == stages[i])
            return true;
    return destination->stage == destination_stage_blob &&
           destination->blob->len < destination->blob_length;
}

/* A connection that was passed as a descriptor may wait for its source for as long as it likes. */
static bool
is_opening(const Destination *destination)
{
    bool has_begun = transport_receiver_count_bytes(destination->receiver) > 0;
    bool is_listed =
        destination->total_bytes && destination->listed_bytes == destination->total_bytes;
    return has_begun && !is_listed;
}

/* By whose timeout; NULL: there is none. */
static Heartbeat *
start_listening(Destination *destination, uint64_t now_ns)
{
    uint64_t timeout_ms = heartbeat_ms(destination);
    Heartbeat *heartbeat = timeout_ms ? &destination->listening : &destination->opening;

    if (!timeout_ms && is_opening(destination))
        timeout_ms = options_get(&destination->faultline->options, PARAMETER_HEARTBEAT_TIMEOUT);
    if (!timeout_ms)
        return NULL;
    heartbeat_start(heartbeat, timeout_ms, now_ns);
    return heartbeat;
}

bool
destination_listen_to_main(Destination *destination, GError **error)
{
    destination->count_busy = 0;
    if (!destination->receiver || destination->stage == destination_stage_failing)
        return true;
    uint64_t now_ns = clock_now_ns();
    Heartbeat *listening = start_listening(destination, now_ns);
    if (!listening)
        return true;
    bool is_due = heartbeat_is_due(listening, now_ns);
    uint64_t next_ns = listening->next_ns;
    if (!destination->listen.wake_ns || destination->listen.wake_ns > next_ns)
        destination->listen.wake_ns = next_ns;
    if (!is_due)
        return true;
    if (destination_flag(&destination->is_listening))
        destination_notify(destination, &destination->fault);
    if (!waits_for_main(destination)) {
        destination->main_heard.looks = 0;
        return true;
    }
    unsigned patience = destination->in_postcopy ? 1 : HEARTBEAT_PATIENCE;
    uint64_t count_bytes = transport_receiver_count_bytes(destination->receiver);
    if (!heartbeat_is_lost(&destination->main_heard, count_bytes, patience))
        return true;
    g_propagate_error(error, heartbeat_error(listening, "source", "main", patience));
    return false;
}

/* ---- Fault role ------------------------------------------------------------------------------ */

/* Something to be heard, unless messages are under way anyway. */
static void
beat(Destination *destination, FrameQueue *queue, Pulse *sent, GError **error)
{
    if (!queue->sender || !heartbeat_wants_beat(sent, queue->closed_bytes) || queue->is_pending ||
        !frame_queue_is_empty(queue) || destination->is_sending_shut || destination->is_in_bitmap)
        return;
    stream_put_return_value(frame_queue_writer(queue), STREAM_RETURN_PONG,
                            STREAM_PING_BEAT | heartbeat_ms(destination));
    frame_queue_flush(queue, error);
}

void
destination_beat(Destination *destination, GError **error)
{
    uint32_t timeout_ms = heartbeat_ms(destination);

    destination->count_working = 0;
    /* Behind the answer to the hello, which was posted before. */
    if (!timeout_ms || destination->seals_next ||
        __atomic_load_n(&destination->mailbox_count, __ATOMIC_ACQUIRE))
        return;
    uint64_t now_ns = clock_now_ns();
    bool is_first = !heartbeat_is_on(&destination->beating);
    heartbeat_start(&destination->beating, timeout_ms, now_ns);
    bool is_due = heartbeat_is_due(&destination->beating, now_ns);
    if (!destination_flag(&destination->is_listening))
        destination->fault.wake_ns = destination->beating.next_ns;
    if (!is_due)
        return;
    /* The first one tells the source that it can listen. */
    if (is_first)
        destination->main_sent = (Pulse){.count_bytes = destination->out.closed_bytes};
    beat(destination, &destination->out, &destination->main_sent, error);
    if (!*error)
        beat(destination, &destination->asking, &destination->urgent_sent, error);
    if (*error || !destination->urgent_receiver || !destination_flag(&destination->is_listening))
        return;
    /* The source beats there as soon as it has heard us, which may take as long again. */
    uint64_t count_bytes = transport_receiver_count_bytes(destination->urgent_receiver);
    unsigned patience = count_bytes ? 1 : 2;
    if (heartbeat_is_lost(&destination->urgent_heard, count_bytes, patience))
        *error = heartbeat_error(&destination->beating, "source", "urgent", patience);
}
