/* SPDX-License-Identifier: MIT */
/*
 * The pusher: after the switch-over, whatever nobody asked for, host page by host page, going on
 * after the last requested one. Without an urgent channel it also sends what was asked for, first.
 * Migration role; shares the dirty bitmaps with the request role: source_claim() decides whose a
 * page is.
 */
#include "engine/source/source.h"

bool
source_claim(RamBlock *block, uint64_t page)
{
    page = ram_block_host_page(block, page);
    if (!page_bitmap_test_and_clear(block->dirty, page))
        return false;
    if (block->host_pages > 1)
        page_bitmap_clear_range(block->dirty, page + 1, block->host_pages - 1);
    return true;
}

uint64_t
source_claim_run(RamBlock *block, uint64_t page, uint64_t end)
{
    if (block->host_pages == 1)
        return page_bitmap_claim_run(block->dirty, page, end);
    return source_claim(block, page) ? block->host_pages : 0;
}

bool
source_requests_pop(Source *source, SourceRequest *ret_request)
{
    uint32_t head = __atomic_load_n(&source->requests_head, __ATOMIC_ACQUIRE);
    if (source->requests_tail == head)
        return false;
    *ret_request = source->requests[source->requests_tail % SOURCE_REQUESTS_MAX];
    __atomic_store_n(&source->requests_tail, source->requests_tail + 1, __ATOMIC_RELEASE);
    return true;
}

/* Claimed pages, whole host pages, come next. */
static void
begin_pages(Source *source, unsigned block, uint64_t page, uint64_t count)
{
    source->cursor_block = block;
    source->cursor_page = ram_block_host_page(&source->blocks->blocks[block], page);
    source->end_page = source->cursor_page + count;
}

/* The request role tells where it was last: what lies behind will be wanted next. */
static void
follow_requests(Source *source)
{
    /* A look first: the line stays the request role's. */
    if (!__atomic_load_n(&source->cursor_hint, __ATOMIC_RELAXED))
        return;
    uint64_t hint = __atomic_exchange_n(&source->cursor_hint, 0, __ATOMIC_ACQ_REL);
    source->cursor_block = (unsigned)(hint >> SOURCE_HINT_SHIFT);
    source->cursor_page = hint & ((1ull << SOURCE_HINT_SHIFT) - 1);
}

/* Next dirty host pages from the cursor on, around all blocks once, of small ones no more than the
 * frame takes; false: none is dirty. */
static bool
next_dirty(Source *source)
{
    uint64_t room = frame_queue_room_pages(&source->main);

    follow_requests(source);
    for (unsigned tries = 0; tries <= source->blocks->count;) {
        RamBlock *block = &source->blocks->blocks[source->cursor_block];
        uint64_t page = page_bitmap_next_set(block->dirty, source->cursor_page, block->count_pages);
        if (page < block->count_pages) {
            source->cursor_page = page;
            uint64_t count = source_claim_run(block, page, MIN(page + room, block->count_pages));
            if (!count)
                continue; /* the request role was quicker; the bit is clear now */
            begin_pages(source, source->cursor_block, page, count);
            return true;
        }
        source->cursor_block = (source->cursor_block + 1) % source->blocks->count;
        source->cursor_page = 0;
        tries++;
    }
    return false;
}

static bool
next_requested(Source *source)
{
    SourceRequest request;
    while (source_requests_pop(source, &request)) {
        RamBlock *block = &source->blocks->blocks[request.block];
        if (!source_claim(block, request.page))
            continue;
        begin_pages(source, request.block, request.page, block->host_pages);
        progress_add(&source->faultline->progress.requested_main_pages, block->host_pages);
        return true;
    }
    return false;
}

/* Sends on from the cursor up to the end of what is claimed. */
static void
put_claimed(Source *source)
{
    RamBlock *block = &source->blocks->blocks[source->cursor_block];
    while (source->cursor_page < source->end_page && frame_queue_has_room(&source->main))
        source_put_page(source, block, source->cursor_page++);
    if (source->cursor_page == source->end_page)
        source->end_page = 0;
}

/* Fills a frame. A requested page ends it, so that it leaves at once. False: nothing is dirty.
 * *ret_background: target pages in it that nobody asked for. */
static bool
fill_frame(Source *source, bool only_requested, uint64_t *ret_background)
{
    bool is_urgent = false;
    *ret_background = 0;
    while (frame_queue_has_room(&source->main)) {
        if (!source->end_page) {
            if (is_urgent)
                break;
            is_urgent = next_requested(source);
            if (!is_urgent && (only_requested || !next_dirty(source)))
                return only_requested;
        }
        uint64_t page = source->cursor_page;
        put_claimed(source);
        *ret_background += is_urgent ? 0 : source->cursor_page - page;
    }
    return true;
}

static void
account(Source *source)
{
    Progress *progress = &source->faultline->progress;
    uint64_t count = source->main.count_zero + source->main.count_normal;

    progress_set(&progress->pushed_pages,
                 count - progress->precopy_pages - progress->requested_main_pages);
    progress_set(&progress->zero_pages, source->main.count_zero);
    progress_set(&progress->normal_pages, source->main.count_normal);
    progress_set(&progress->postcopy_bytes,
                 source_sent_bytes(source) - progress->precopy_bytes - progress->downtime_bytes);
    progress_set(&progress->remaining_bytes, source_count_dirty(source) * FAULTLINE_PAGE_BYTES);
}

StageResult
source_stage_push(Source *source, GError **error)
{
    uint64_t now_ns = source->seen_ns = clock_now_ns();
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;

    transport_limit_set(&source->limit,
                        options_get(&source->faultline->options, PARAMETER_MAX_POSTCOPY_BANDWIDTH));
    uint64_t wait_ns = transport_limit_wait(&source->limit, now_ns);
    uint64_t background;
    /* Until the device state is loaded there, the guest may still come back here. */
    source->main.releases = source->releases_ram && source_flag(&source->has_loaded);
    source->main.puts_runs = source_has_runs(source);
    source->main.pages_max = FRAME_POSTCOPY_PAGES;
    bool has_more = fill_frame(source, wait_ns != 0, &background);
    if (!source->end_page)
        source_end_part(source);
    bool is_idle = frame_queue_is_empty(&source->main);
    if (source_flush(source, error) == STAGE_FAILED)
        return STAGE_FAILED;
    transport_limit_take(&source->limit, background * FAULTLINE_PAGE_BYTES, now_ns);
    if (!has_more) {
        account(source);
        source->stage = source_has_checksums(source) ? source_stage_whole : source_stage_finish;
        return STAGE_AGAIN;
    }
    if (now_ns - source->window_began_ns > 50000000u) {
        source->window_began_ns = now_ns;
        account(source);
    }
    source->migration.wake_ns = wait_ns;
    return wait_ns && is_idle ? STAGE_STAY : STAGE_AGAIN;
}

StageResult
source_stage_finish(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    StreamWriter *writer = frame_queue_writer(&source->main);
    stream_put_part(writer, STREAM_END, SOURCE_RAM_SECTION);
    stream_put_eos(writer);
    stream_put_footer(writer, SOURCE_RAM_SECTION);
    stream_put_u8(writer, STREAM_EOF);
    source->stage = source_stage_confirm;
    return STAGE_AGAIN;
}
