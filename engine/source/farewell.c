/* SPDX-License-Identifier: MIT */
/*
 * The last word, heard: the destination's SHUT comes to who waits for it, or behind its proof to
 * who has come again to a destination that is over. With STREAM_FEATURE_FAREWELL it is answered,
 * for until then the destination stays to say it once more; SHUT 0, with which nothing can fail any
 * more, after it was put on record. Migration role.
 */
#include "engine/source/source.h"

#define FAREWELL_NS 1000000000ull /* a destination that is over may be gone */

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

/* AGAIN: it has left, or cannot. */
StageResult
source_say_farewell(Source *source, uint64_t until_ns)
{
    g_autoptr(GError) ignored = NULL;
    StageResult result = STAGE_AGAIN;

    if (!(source->features & STREAM_FEATURE_FAREWELL) || !source->main.sender)
        return STAGE_AGAIN;
    if (!source->has_said_farewell)
        result = source_flush(source, &ignored); /* the frame may be full, or on its way */
    if (result == STAGE_AGAIN && !source->has_said_farewell) {
        stream_put_ping(frame_queue_writer(&source->main), STREAM_PING_FAREWELL);
        source->has_said_farewell = true;
    }
    if (result == STAGE_AGAIN)
        result = source_drain(source, &ignored);
    if (result != STAGE_STAY || clock_now_ns() >= until_ns)
        return STAGE_AGAIN;
    source->migration.wake_ns = until_ns;
    return STAGE_STAY;
}

StageResult
source_stage_farewell(Source *source, GError **error)
{
    (void)error;
    if (!source->farewell_until_ns)
        put_on_record(source);
    StageResult result = source_say_farewell(source, source->farewell_until_ns);
    return result == STAGE_STAY ? result : STAGE_DONE;
}
