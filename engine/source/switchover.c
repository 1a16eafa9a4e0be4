/* SPDX-License-Identifier: MIT */
/*
 * The switch-over: the guest is stopped, and either precopy is brought to its end or postcopy is
 * begun. Migration role. All of it is downtime, so nothing here allocates by the page or waits
 * without need.
 *
 * The guest is given away in two places only, source_stage_commit() and source_stage_package();
 * both write down from how many accepted bytes on the destination can have it.
 */
#include "engine/source/source.h"

#include <string.h>

StageResult
source_stage_stop(Source *source, GError **error)
{
    Faultline *faultline = source->faultline;

    context_note(faultline, FAULTLINE_MOMENT_STOPPING);
    if (!context_take_guest(faultline, &source->was_running, error))
        return STAGE_FAILED;
    source->has_guest = true;
    context_note(faultline, FAULTLINE_MOMENT_STOPPED);
    source->stage = source_stage_last;
    if (options_has(&faultline->options, CAPABILITY_PAUSE_BEFORE_SWITCHOVER)) {
        context_move(faultline, FAULTLINE_STATUS_PRE_SWITCHOVER);
        source->stage = source_stage_await;
    }
    return STAGE_AGAIN;
}

StageResult
source_stage_await(Source *source, GError **error)
{
    if (!source_flag(&source->wants_switchover))
        return source_drain(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_STAY;
    source->stage = source_stage_last;
    return STAGE_AGAIN;
}

StageResult
source_stage_last(Source *source, GError **error)
{
    context_move(source->faultline, FAULTLINE_STATUS_DEVICE);
    if (!source_sync(source, true, error))
        return STAGE_FAILED;
    context_note(source->faultline, FAULTLINE_MOMENT_SYNCED);
    frame_queue_copy(&source->main, false);
    source->cursor_block = 0;
    source->cursor_page = 0;
    if (source->is_postcopy)
        for (unsigned i = 0; i < source->blocks->count; i++)
            source_round_dirty(&source->blocks->blocks[i]);
    source->stage = source->is_postcopy ? source_stage_discard : source_stage_rest;
    return STAGE_AGAIN;
}

static void
set_downtime(Source *source)
{
    Progress *progress = &source->faultline->progress;
    context_note(source->faultline, FAULTLINE_MOMENT_GIVEN);
    progress_set(&progress->downtime_ns, progress->moment_ns[FAULTLINE_MOMENT_GIVEN] -
                                             progress->moment_ns[FAULTLINE_MOMENT_STOPPED]);
    progress_set(&progress->downtime_bytes,
                 transport_sender_accepted_bytes(source->main.sender) - progress->precopy_bytes);
}

void
source_record_given(Source *source)
{
    if (!source->has_recorded_given)
        record_order(source->faultline, FAULTLINE_OWNER_GIVEN);
    source->has_recorded_given = true;
}

/* ---- The end of precopy ---------------------------------------------------------------------- */

static void
put_end(Source *source)
{
    StreamWriter *writer = frame_queue_writer(&source->main);

    stream_put_part(writer, STREAM_END, SOURCE_RAM_SECTION);
    stream_put_eos(writer);
    stream_put_footer(writer, SOURCE_RAM_SECTION);
    progress_set(&source->faultline->progress.remaining_bytes, 0);
    source->stage = source_stage_devices;
}

StageResult
source_stage_rest(Source *source, GError **error)
{
    Progress *progress = &source->faultline->progress;
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;

    source_name_migration(source);
    bool has_more = source_put_dirty(source);
    source_end_part(source);
    uint64_t count = source->main.count_zero + source->main.count_normal - progress->zero_pages -
                     progress->normal_pages;
    progress_add(&progress->precopy_pages, count);
    progress_set(&progress->zero_pages, source->main.count_zero);
    progress_set(&progress->normal_pages, source->main.count_normal);
    if (!has_more && source_has_checksums(source)) {
        source->stage = source_stage_repair;
    } else if (!has_more) {
        if (!frame_queue_has_room(&source->main))
            return STAGE_AGAIN;
        put_end(source);
    }
    return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_AGAIN;
}

StageResult
source_stage_end(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    put_end(source);
    return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_AGAIN;
}

StageResult
source_stage_devices(Source *source, GError **error)
{
    if (!source->package) {
        source->package = g_byte_array_new();
        source->description = g_string_new(NULL);
        if (!source_put_devices(source, source->package, source->description, error))
            return STAGE_FAILED;
        context_note(source->faultline, FAULTLINE_MOMENT_SAVED);
    }
    StageResult result = source_drain(source, error);
    if (result != STAGE_AGAIN)
        return result;
    frame_queue_put_memory(&source->main, source->package->data, source->package->len);
    if (source->features & STREAM_FEATURE_COMMIT)
        stream_put_ping(frame_queue_writer(&source->main), STREAM_PING_COMMIT);
    source->may_be_missed = true;
    if (source_flush(source, error) == STAGE_FAILED)
        return STAGE_FAILED;
    source->stage = source_stage_commit;
    return STAGE_AGAIN;
}

StageResult
source_stage_commit(Source *source, GError **error)
{
    StageResult result = source_drain(source, error);
    if (result != STAGE_AGAIN)
        return result;
    if ((source->features & STREAM_FEATURE_COMMIT) && !source_flag(&source->has_commit))
        return STAGE_STAY;

    /* The EOF is the first byte of what follows: with it the destination has everything. */
    if (!source_give_away(source))
        return STAGE_AGAIN;
    stream_put_u8(frame_queue_writer(&source->main), STREAM_EOF);
    source->give_bytes =
        transport_sender_accepted_bytes(source->main.sender) + frame_queue_close(&source->main);
    StreamWriter *writer = frame_queue_writer(&source->main);
    stream_put_u8(writer, STREAM_VMDESCRIPTION);
    stream_put_be32(writer, (uint32_t)source->description->len);
    frame_queue_put_memory(&source->main, source->description->str, source->description->len);
    source->stage = source_stage_confirm;
    return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_AGAIN;
}

/* The destination's own word, or without a return path the transport's, that it has everything. */
StageResult
source_stage_confirm(Source *source, GError **error)
{
    if (source_flag(&source->has_shut)) {
        if (source->shut_value == 0) {
            if (!source->is_postcopy)
                set_downtime(source);
            source->stage = source_stage_farewell;
            return STAGE_AGAIN;
        }
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "confirm: the destination ended the migration with error %u; its log says why",
                    source->shut_value);
        return STAGE_FAILED;
    }
    StageResult result = source_drain(source, error);
    if (result != STAGE_AGAIN)
        return result;
    source_record_given(source);
    if (source->has_return_path)
        return STAGE_STAY;
    set_downtime(source);
    source->stage = source_stage_farewell;
    return STAGE_AGAIN;
}

/* ---- The beginning of postcopy --------------------------------------------------------------- */

static void
append_command(GByteArray *bytes, StreamCommand command)
{
    uint8_t memory[16];
    StreamWriter writer = {.bytes = memory, .capacity = sizeof memory};
    stream_put_command(&writer, command, NULL, 0);
    g_byte_array_append(bytes, memory, (guint)writer.length);
}

static bool
build_package(Source *source, GError **error)
{
    uint8_t memory[16];
    StreamWriter ping = {.bytes = memory, .capacity = sizeof memory};

    source->package = g_byte_array_new();
    append_command(source->package, STREAM_COMMAND_POSTCOPY_LISTEN);
    if (!source_put_devices(source, source->package, NULL, error))
        return false;
    stream_put_ping(&ping, STREAM_PING_LOADED);
    g_byte_array_append(source->package, memory, (guint)ping.length);
    append_command(source->package, STREAM_COMMAND_POSTCOPY_RUN);
    context_note(source->faultline, FAULTLINE_MOMENT_SAVED);
    return true;
}

/* Hands the package over; from here on requests may come. */
static StageResult
give_away(Source *source, GError **error)
{
    uint8_t length[4];
    StreamWriter writer = {.bytes = length, .capacity = sizeof length};

    if (!source_give_away(source))
        return STAGE_AGAIN;
    stream_put_be32(&writer, source->package->len);
    stream_put_command(frame_queue_writer(&source->main), STREAM_COMMAND_PACKAGED, length,
                       sizeof length);
    frame_queue_put_memory(&source->main, source->package->data, source->package->len);
    source->give_bytes =
        transport_sender_accepted_bytes(source->main.sender) + frame_queue_close(&source->main);
    source_set_flag(&source->answers_requests);
    return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_AGAIN;
}

StageResult
source_stage_package(Source *source, GError **error)
{
    if (!source->package && !build_package(source, error))
        return STAGE_FAILED;
    StageResult result = source_drain(source, error);
    if (result != STAGE_AGAIN)
        return result;
    if (!source->gave_away)
        return give_away(source, error);

    /* All of it was accepted. The log is of no use any more, and costs the host. */
    set_downtime(source);
    source_record_given(source);
    source_stop_log(source);
    context_set_run_state(source->faultline, FAULTLINE_RUN_POSTMIGRATE);
    context_move(source->faultline, FAULTLINE_STATUS_POSTCOPY_DEVICE);
    if (options_has(&source->faultline->options, CAPABILITY_LOW_LATENCY))
        source->latency_hold = cpu_latency_hold();
    thread_set_urgency(URGENCY_BULK, options_get(&source->faultline->options, PARAMETER_BULK_NICE));
    transport_link_shorten_queue(source->link);
    stream_put_ping(frame_queue_writer(&source->main), STREAM_PING_RUNNING);
    source->main.named = NULL;
    source->cursor_block = 0;
    source->cursor_page = 0;
    source->stage = source_stage_push;
    return STAGE_AGAIN;
}
