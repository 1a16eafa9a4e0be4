/* SPDX-License-Identifier: MIT */
/*
 * Precopy: pass after pass over what is dirty, until the rest fits into the downtime or postcopy is
 * wished for. Migration role; the dirty bitmaps are this thread's alone until the switch-over.
 *
 * A page is taken out of the bitmap first and read afterwards, so a write that comes in between is
 * in the dirty log of the next pass.
 */
#include "engine/source/source.h"

#include <string.h>

#define NS_PER_S   1000000000ull
#define WINDOW_NS  100000000ull /* over which the bandwidth is measured */
#define PART_BYTES 18u          /* head, EOS and footer around a frame's records */

StageResult
source_flush(Source *source, GError **error)
{
    switch (frame_queue_flush(&source->main, error)) {
    case FLUSH_TAKEN:
        return STAGE_AGAIN;
    case FLUSH_WAIT:
        return STAGE_STAY;
    default:
        return STAGE_FAILED;
    }
}

StageResult
source_drain(Source *source, GError **error)
{
    switch (frame_queue_drain(&source->main, error)) {
    case FLUSH_TAKEN:
        return STAGE_AGAIN;
    case FLUSH_WAIT:
        return STAGE_STAY;
    default:
        return STAGE_FAILED;
    }
}

void
source_put_page(Source *source, RamBlock *block, uint64_t page)
{
    if (!source->is_part_open)
        stream_put_part(frame_queue_writer(&source->main), STREAM_PART, SOURCE_RAM_SECTION);
    source->is_part_open = true;
    frame_queue_put_page(&source->main, block, page);
}

void
source_end_part(Source *source)
{
    if (!source->is_part_open)
        return;
    stream_put_eos(frame_queue_writer(&source->main));
    stream_put_footer(frame_queue_writer(&source->main), SOURCE_RAM_SECTION);
    source->is_part_open = false;
}

bool
source_put_dirty(Source *source)
{
    for (; source->cursor_block < source->blocks->count;
         source->cursor_block++, source->cursor_page = 0) {
        RamBlock *block = &source->blocks->blocks[source->cursor_block];
        uint64_t room;
        while ((room = frame_queue_room_pages(&source->main))) {
            uint64_t page =
                page_bitmap_next_set(block->dirty, source->cursor_page, block->count_pages);
            source->cursor_page = page;
            if (page == block->count_pages)
                break;
            uint64_t end = page + page_bitmap_claim_run(block->dirty, page,
                                                        MIN(page + room, block->count_pages));
            for (; source->cursor_page < end; source->cursor_page++)
                source_put_page(source, block, source->cursor_page);
        }
        if (!room)
            return true;
    }
    return false;
}

/* ---- The dirty log --------------------------------------------------------------------------- */

bool
source_start_log(Source *source, GError **error)
{
    Faultline *faultline = source->faultline;

    source->is_logging = true;
    if (!source->tracker) {
        if (!faultline->guest.dirty_log_start(faultline->opaque, error)) {
            source->is_logging = false;
            g_prefix_error(error, "start dirty log: ");
            return false;
        }
    }
    for (unsigned i = 0; i < source->blocks->count; i++) {
        RamBlock *block = &source->blocks->blocks[i];
        if (source->tracker && !uffd_tracker_add(source->tracker, block->is.host_address,
                                                 block->is.length_bytes, error)) {
            g_prefix_error(error, "track writes to block '%s': ", block->is.name);
            return false;
        }
        page_bitmap_set_range(block->dirty, 0, block->count_pages);
    }
    progress_set(&faultline->progress.remaining_bytes, source->blocks->total_bytes);
    progress_set(&faultline->progress.dirty_sync_count, 1);
    context_event(faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_PASS, .pass = 1});
    source->pass_began_ns = source->window_began_ns = clock_now_ns();
    return true;
}

void
source_stop_log(Source *source)
{
    Faultline *faultline = source->faultline;

    if (!source->is_logging)
        return;
    source->is_logging = false;
    if (source->tracker)
        g_clear_pointer(&source->tracker, uffd_tracker_free);
    else
        faultline->guest.dirty_log_stop(faultline->opaque);
}

static bool
sync_block(Source *source, RamBlock *block, bool is_last, uint64_t *ret_new, GError **error)
{
    Faultline *faultline = source->faultline;
    bool synced;

    memset(source->sync_words, 0, block->dirty->count_words * sizeof source->sync_words[0]);
    if (source->tracker)
        synced = uffd_tracker_sync(source->tracker, block->is.host_address, block->is.length_bytes,
                                   source->sync_words, is_last, error);
    else
        synced = faultline->guest.dirty_log_sync(faultline->opaque, block->index,
                                                 source->sync_words, block->count_pages, error);
    if (!synced) {
        g_prefix_error(error, "sync dirty log of block '%s': ", block->is.name);
        return false;
    }
    *ret_new += page_bitmap_or(block->dirty, source->sync_words);
    return true;
}

bool
source_sync(Source *source, bool is_last, GError **error)
{
    Progress *progress = &source->faultline->progress;
    uint64_t count_new = 0;

    for (unsigned i = 0; i < source->blocks->count; i++)
        if (!sync_block(source, &source->blocks->blocks[i], is_last, &count_new, error))
            return false;
    uint64_t now_ns = clock_now_ns();
    uint64_t took_ns = MAX(now_ns - source->pass_began_ns, 1);
    source->pass_began_ns = now_ns;
    source->dirtied_bytes = count_new * FAULTLINE_PAGE_BYTES;
    progress_set(&progress->dirty_pages_per_s,
                 (uint64_t)((double)count_new * (double)NS_PER_S / (double)took_ns));
    progress_set(&progress->remaining_bytes, source_count_dirty(source) * FAULTLINE_PAGE_BYTES);
    progress_add(&progress->dirty_sync_count, 1);
    context_event(source->faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_PASS,
                                                      .pass = progress->dirty_sync_count});
    return true;
}

uint64_t
source_count_dirty(const Source *source)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < source->blocks->count; i++)
        count += page_bitmap_count(source->blocks->blocks[i].dirty);
    return count;
}

/* ---- Passes ---------------------------------------------------------------------------------- */

/* Figures of what went out since the window began, once the window is long enough. */
static void
measure_bandwidth(Source *source, uint64_t now_ns, bool at_once)
{
    Progress *progress = &source->faultline->progress;
    uint64_t took_ns = now_ns - source->window_began_ns;

    if (took_ns < WINDOW_NS && !(at_once && !progress->bandwidth_bytes_per_s))
        return;
    uint64_t bytes = transport_sender_accepted_bytes(source->main.sender);
    uint64_t bandwidth = (uint64_t)((double)(bytes - source->window_bytes) * (double)NS_PER_S /
                                    (double)MAX(took_ns, 1));
    source->window_began_ns = now_ns;
    source->window_bytes = bytes;
    progress_set(&progress->bandwidth_bytes_per_s, bandwidth);
    progress_set(&progress->expected_downtime_ms,
                 bandwidth ? progress->remaining_bytes * 1000 / bandwidth : UINT64_MAX);
}

/* What is left fits into downtime-limit at the measured bandwidth. */
static bool
is_converged(const Source *source)
{
    const Progress *progress = &source->faultline->progress;
    double limit_ms = (double)options_get(&source->faultline->options, PARAMETER_DOWNTIME_LIMIT);

    return (double)progress->remaining_bytes * 1000.0 <=
           (double)progress->bandwidth_bytes_per_s * limit_ms;
}

/* With auto-converge: the pass that is over may be one too many. */
static void
judge_pass(Source *source)
{
    const Options *options = &source->faultline->options;
    const ThrottleSteps steps = {
        .trigger = (unsigned)options_get(options, PARAMETER_THROTTLE_TRIGGER),
        .initial = (unsigned)options_get(options, PARAMETER_THROTTLE_INITIAL),
        .increment = (unsigned)options_get(options, PARAMETER_THROTTLE_INCREMENT),
        .greatest = (unsigned)options_get(options, PARAMETER_THROTTLE_GREATEST),
        .has_slow_tail = options_get(options, PARAMETER_THROTTLE_TAILSLOW) != 0,
    };
    uint64_t sent_bytes = source->main.closed_bytes - source->pass_began_bytes;

    if (throttle_judge(&source->throttle, &steps, sent_bytes, source->dirtied_bytes))
        context_throttle_guest(source->faultline, source->throttle.percent);
}

void
source_name_migration(Source *source)
{
    uint64_t number = record_migration(source->faultline);

    if (source->has_named || !number || !source_flag(&source->has_pong) || !source->features)
        return;
    source->has_named = true;
    for (unsigned shift = 64; shift > 0;) {
        shift -= 16;
        stream_put_ping(frame_queue_writer(&source->main),
                        STREAM_PING_MIGRATION | (uint16_t)(number >> shift));
    }
}

StageResult
source_announce(Source *source, GError **error)
{
    if (!source->has_announced)
        record_order(source->faultline, FAULTLINE_OWNER_GIVING);
    source->has_announced = true;
    return record_await(source->faultline, FAULTLINE_OWNER_GIVING, error);
}

/* What is left fits into the downtime. */
static StageResult
leave_passes(Source *source, GError **error)
{
    StageResult announced = source_announce(source, error);
    if (announced == STAGE_FAILED)
        return STAGE_FAILED;
    bool is_ready = announced == STAGE_AGAIN && source_has_answer(source);
    source->stage = is_ready ? source_stage_stop : source_stage_hello;
    source->pass_began_bytes = source->main.closed_bytes;
    return STAGE_AGAIN;
}

static StageResult
end_pass(Source *source, GError **error)
{
    measure_bandwidth(source, clock_now_ns(), true);
    if (!source_sync(source, false, error))
        return STAGE_FAILED;
    source->cursor_block = 0;
    source->cursor_page = 0;
    if (is_converged(source))
        return leave_passes(source, error);
    if (source->slows_vcpus)
        judge_pass(source);
    source->pass_began_bytes = source->main.closed_bytes;
    return STAGE_AGAIN;
}

/* The guest is not stopped for a destination that may never say a word, nor before it is on record
 * that it may go there. What it writes meanwhile is sent by one more pass. */
StageResult
source_stage_hello(Source *source, GError **error)
{
    StageResult result = source_drain(source, error);
    if (result == STAGE_FAILED || source_flag(&source->wants_postcopy)) {
        source->stage = source_stage_pass;
        return result == STAGE_FAILED ? STAGE_FAILED : STAGE_AGAIN;
    }
    result = source_announce(source, error);
    if (result != STAGE_AGAIN || !source_has_answer(source))
        return result == STAGE_FAILED ? STAGE_FAILED : STAGE_STAY;
    source->stage = source_stage_pass;
    return STAGE_AGAIN;
}

StageResult
source_stage_pass(Source *source, GError **error)
{
    Progress *progress = &source->faultline->progress;
    uint64_t now_ns = source->seen_ns = clock_now_ns();

    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    if (source_flag(&source->wants_postcopy)) {
        source->is_postcopy = true;
        source->stage = source_stage_urgent;
        return STAGE_AGAIN;
    }
    transport_limit_set(&source->limit,
                        options_get(&source->faultline->options, PARAMETER_MAX_BANDWIDTH));
    source->migration.wake_ns = transport_limit_wait(&source->limit, now_ns);
    if (source->migration.wake_ns)
        return STAGE_STAY;

    source_name_migration(source);
    uint64_t count_before = source->main.count_zero + source->main.count_normal;
    uint64_t bytes_before = source->main.closed_bytes;
    source->main.puts_runs = source_has_runs(source);
    bool has_more = source_put_dirty(source);
    source_end_part(source);
    uint64_t count = source->main.count_zero + source->main.count_normal - count_before;
    if (count && source_flush(source, error) == STAGE_FAILED)
        return STAGE_FAILED;
    transport_limit_take(&source->limit, source->main.closed_bytes - bytes_before, now_ns);
    progress_add(&progress->precopy_pages, count);
    progress_set(&progress->zero_pages, source->main.count_zero);
    progress_set(&progress->normal_pages, source->main.count_normal);
    progress_set(&progress->precopy_bytes, transport_sender_accepted_bytes(source->main.sender));
    uint64_t sent_bytes = count * FAULTLINE_PAGE_BYTES;
    progress_set(&progress->remaining_bytes,
                 progress->remaining_bytes - MIN(progress->remaining_bytes, sent_bytes));
    measure_bandwidth(source, now_ns, false);
    return has_more ? STAGE_AGAIN : end_pass(source, error);
}
