/* SPDX-License-Identifier: MIT */
/*
 * The last word, said until it was heard. A migration that is over here, well or not, may not be so
 * for its source: the SHUT can be lost with the connection. With STREAM_FEATURE_FAREWELL the listen
 * role then stays alone, the other two end: whoever proves himself at the door is told how it
 * ended, and the source says farewell, there or on the connection that is left. The status is final
 * by then, and a guest that is here runs. Listen role.
 */
#include "engine/destination/destination.h"

#define ELEMENTS_MAX                                                                               \
    4096u /* in front of a farewell: a bitmap asked for of each block, and beats                   \
           */

/* Nobody comes again to a descriptor that he was given. */
static bool
can_be_asked(const Destination *destination)
{
    bool has_address = false;

    for (unsigned i = 0; i < destination->count_listeners; i++)
        has_address |=
            !g_str_has_prefix(transport_listener_address(destination->listeners[i]), "fd:");
    return has_address && (destination->features & STREAM_FEATURE_FAREWELL);
}

static void
drop_main(Destination *destination)
{
    g_clear_pointer(&destination->receiver, transport_receiver_free);
    reader_clear(&destination->reader);
    destination_drop_link(&destination->link);
}

bool
destination_begin_farewell(Destination *destination, uint32_t word)
{
    uint64_t limit_ms = options_get(&destination->faultline->options, PARAMETER_FAREWELL_DEADLINE);

    cpu_latency_release(destination->latency_hold);
    destination->latency_hold = -1;
    if (!can_be_asked(destination) || !limit_ms)
        return false;
    destination->last_word = word;
    destination->is_over = true;
    destination_clear_flag(&destination->is_held);
    destination->deadline_ns = clock_now_ns() + limit_ms * 1000000u;
    destination_drop_link(&destination->urgent_link);
    progress_set(&destination->faultline->progress.is_unheard, true);
    return true;
}

ReadResult
destination_hear_farewell(Reader *reader, unsigned *count)
{
    g_autoptr(GError) ignored = NULL;
    StreamElement element;
    ReadResult result;
    size_t length;

    while ((result = reader_decode(reader, destination_decode_element, &element, &length,
                                   &ignored)) == READ_OK) {
        bool is_farewell = element.type == STREAM_COMMAND &&
                           element.command == STREAM_COMMAND_PING &&
                           stream_parse_be32(&element) == STREAM_PING_FAREWELL;
        reader_consume(reader, length);
        if (is_farewell)
            return READ_OK;
        if (++*count > ELEMENTS_MAX)
            return READ_BAD;
    }
    return result;
}

/* The link that it ended on: the source's farewell, or its end. */
static void
hear_main(Destination *destination)
{
    if (!destination->receiver)
        return;
    ReadResult result = destination_hear_farewell(&destination->reader, &destination->count_heard);
    destination->has_farewell |= result == READ_OK;
    if (result != READ_WAIT)
        drop_main(destination);
}

StepResult
destination_farewell_step(Destination *destination)
{
    g_autoptr(GError) ignored = NULL;

    destination->listen.wake_ns = destination->deadline_ns;
    hear_main(destination);
    StageResult result = destination_step_door(destination, &ignored);
    destination->has_farewell |= destination_say_last_word(destination);
    if (!destination->has_farewell && clock_now_ns() < destination->deadline_ns)
        return result == STAGE_AGAIN ? STEP_AGAIN : STEP_WAIT;
    progress_set(&destination->faultline->progress.is_unheard, false);
    context_event(destination->faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_HEARD});
    return STEP_DONE;
}
