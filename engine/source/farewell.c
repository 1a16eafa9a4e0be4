/* SPDX-License-Identifier: MIT */
/*
 * The last word, heard: the destination's SHUT comes to who waits for it, or behind its proof to
 * who has come again to a destination that is over. With STREAM_FEATURE_FAREWELL it is answered,
 * for until then the destination stays to say it once more; SHUT 0, with which nothing can fail any
 * more, after it was put on record. And a source that keeps its guest says farewell to a
 * destination that was told of the switch-over, which waits else for somebody who may have given a
 * guest away. Migration role.
 */
#include "engine/source/source.h"

#define FAREWELL_NS 1000000000ull /* a destination that is over may be gone */
#define CALL_NS     3000000000ull /* and so may the way to it */

/* Features and addresses are the request role's until it has taken the answer to the hello. */
static bool
has_agreed(const Source *source)
{
    return source_flag(&source->has_pong) && (source->features & STREAM_FEATURE_FAREWELL);
}

bool
source_can_ask(const Source *source)
{
    return has_agreed(source) && (!g_str_has_prefix(source->uri, "fd:") || source->count_addresses);
}

bool
source_is_told_end(const Source *source)
{
    return source_flag(&source->is_proved) && source_flag(&source->has_shut) &&
           source->shut_value == 0 &&
           context_status(source->faultline) == FAULTLINE_STATUS_POSTCOPY_RECOVER;
}

/* It has everything, also what was to come. */
static void
put_on_record(Source *source)
{
    uint64_t *verdict = &source->faultline->progress.verdict;

    source_stop_log(source);
    context_set_run_state(source->faultline, FAULTLINE_RUN_POSTMIGRATE);
    if (progress_get(verdict) == FAULTLINE_VERDICT_PENDING)
        progress_set(verdict, FAULTLINE_VERDICT_UNCHECKED);
    progress_set(&source->faultline->progress.remaining_bytes, 0);
    for (unsigned i = 0; source->releases_ram && source->is_postcopy && i < source->blocks->count;
         i++)
        uffd_memory_release(source->blocks->blocks[i].memory, 0,
                            source->blocks->blocks[i].is.length_bytes);
    /* Without a return path nobody has said that it arrived. */
    record_write(source->faultline,
                 source->has_return_path ? FAULTLINE_OWNER_THERE : FAULTLINE_OWNER_GIVEN,
                 FAULTLINE_STATUS_COMPLETED);
    source->farewell_until_ns = clock_now_ns() + FAREWELL_NS;
}

StageResult
source_stage_farewell(Source *source, GError **error)
{
    g_autoptr(GError) ignored = NULL;
    StageResult result = STAGE_AGAIN;
    (void)error;

    if (!source->farewell_until_ns)
        put_on_record(source);
    if (!has_agreed(source) || !source->main.sender)
        return STAGE_DONE;
    if (!source->has_said_farewell)
        result = source_flush(source, &ignored); /* the frame may be full, or on its way */
    if (result == STAGE_AGAIN && !source->has_said_farewell) {
        stream_put_ping(frame_queue_writer(&source->main), STREAM_PING_FAREWELL);
        source->has_said_farewell = true;
    }
    if (result == STAGE_AGAIN)
        result = source_drain(source, &ignored);
    if (result != STAGE_STAY || clock_now_ns() >= source->farewell_until_ns)
        return STAGE_DONE;
    source->migration.wake_ns = source->farewell_until_ns;
    return STAGE_STAY;
}

void
source_complete(Source *source)
{
    if (context_status(source->faultline) == FAULTLINE_STATUS_POSTCOPY_DEVICE)
        context_move(source->faultline, FAULTLINE_STATUS_POSTCOPY_ACTIVE); /* a peer without PONG */
    context_move(source->faultline, FAULTLINE_STATUS_COMPLETED);
}

/* ---- A guest that stayed ----------------------------------------------------------------------
 */

static bool
is_lost(const Source *source)
{
    return source_flag(&source->request_failed) || source_flag(&source->request_ended);
}

/* Until then, and then no more. */
static StageResult
wait_for_call(Source *source)
{
    source->migration.wake_ns = source->farewell_until_ns;
    return clock_now_ns() < source->farewell_until_ns ? STAGE_STAY : STAGE_DONE;
}

/* It is over, and says so behind its proof. */
static StageResult
stage_call_heard(Source *source, GError **error)
{
    if (source_flush(source, error) == STAGE_FAILED)
        return STAGE_DONE;
    if (!source_flag(&source->has_shut))
        return is_lost(source) ? STAGE_DONE : wait_for_call(source);
    if (source_has_checksums(source))
        frame_queue_seal(&source->main);
    source->stage = source_stage_farewell;
    return STAGE_AGAIN;
}

static StageResult
stage_call_prove(Source *source, GError **error)
{
    (void)error;
    if (!source_flag(&source->has_challenge))
        return is_lost(source) ? STAGE_DONE : wait_for_call(source);
    stream_put_answer(frame_queue_writer(&source->main), &source->answer);
    source->stage = stage_call_heard;
    return STAGE_AGAIN;
}

static StageResult
stage_call(Source *source, GError **error)
{
    g_autoptr(GError) ignored = NULL;
    (void)error;

    if (source_flag(&source->drops_links))
        return wait_for_call(source);
    StageResult result = source_connect_link(source, &source->link, &ignored);
    if (result == STAGE_STAY)
        return wait_for_call(source);
    if (result == STAGE_FAILED) {
        if (source->next_call >= source->count_addresses)
            return STAGE_DONE;
        g_free(source->uri);
        source->uri = g_strdup(source->addresses[source->next_call++]);
        return STAGE_AGAIN;
    }
    source->main.sender = transport_sender_new(source->migration.ring, source->link);
    source_set_flag(&source->needs_proof);
    source_publish_link(source, &source->request_link, source->link);
    source->stage = stage_call_prove;
    return STAGE_AGAIN;
}

bool
source_begin_call(Source *source)
{
    if (!source->may_be_missed || !source_can_ask(source))
        return false;
    source_let_go(source);
    source->is_over = true;
    source->farewell_until_ns = clock_now_ns() + CALL_NS;
    source->stage = stage_call;
    return true;
}
