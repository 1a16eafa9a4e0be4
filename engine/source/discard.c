/* SPDX-License-Identifier: MIT */
/*
 * What has to come again, told to the destination at the beginning of postcopy: every page that is
 * dirty when the guest stands. Migration role, and downtime: its cost is one look at each word of
 * the dirty bitmap, and what it says grows with the runs, not with the memory.
 *
 * Few runs leave as ranges, which is all that a QEMU knows; many in a small piece of memory as the
 * words of its bitmap.
 */
#include "engine/source/source.h"

#include <string.h>

/* Host pages go as a whole: if one target page is dirty, all of it is. */
void
source_round_dirty(RamBlock *block)
{
    if (block->host_pages == 1)
        return;
    uint64_t page = 0;
    while ((page = page_bitmap_next_set(block->dirty, page, block->count_pages)) <
           block->count_pages) {
        page = ram_block_host_page(block, page);
        page_bitmap_set_range(block->dirty, page, block->host_pages);
        page += block->host_pages;
    }
}

/* One command of up to STREAM_DISCARD_RANGES runs from the cursor on. */
static void
put_ranges(Source *source, const RamBlock *block)
{
    StreamRange ranges[STREAM_DISCARD_RANGES];
    unsigned count = 0;

    while (count < STREAM_DISCARD_RANGES) {
        uint64_t page = page_bitmap_next_set(block->dirty, source->cursor_page, block->count_pages);
        uint64_t end = page_bitmap_next_clear(block->dirty, page, block->count_pages);
        source->cursor_page = end;
        if (page == block->count_pages)
            break;
        ranges[count++] = (StreamRange){.start = page * FAULTLINE_PAGE_BYTES,
                                        .length = (end - page) * FAULTLINE_PAGE_BYTES};
    }
    stream_put_discard(frame_queue_writer(&source->main), block->is.name, ranges, count);
}

static unsigned
count_runs(const uint64_t *words, unsigned count)
{
    uint64_t before = 0;
    unsigned runs = 0;

    for (unsigned i = 0; i < count; i++) {
        runs += (unsigned)__builtin_popcountll(words[i] & ~(words[i] << 1 | before));
        before = words[i] >> 63;
    }
    return runs;
}

/* The next command of a block; false: there is none. A word that the cursor stands in is told as a
 * whole: to say the beginning of it twice does no harm. */
static bool
put_discard(Source *source, const RamBlock *block)
{
    uint64_t words[STREAM_DISCARD_WORDS];

    source->cursor_page =
        page_bitmap_next_set(block->dirty, source->cursor_page, block->count_pages);
    if (source->cursor_page == block->count_pages)
        return false;
    uint64_t first = source->cursor_page / 64;
    unsigned count = (unsigned)MIN(STREAM_DISCARD_WORDS, block->dirty->count_words - first);
    page_bitmap_read(block->dirty, first, words, count);
    if (!(source->features & STREAM_FEATURE_DISCARD_WORDS) ||
        count_runs(words, count) <= STREAM_DISCARD_RANGES) {
        put_ranges(source, block);
        return true;
    }
    stream_put_discard_words(frame_queue_writer(&source->main), block->is.name, first * 64, words,
                             count);
    source->cursor_page = MIN((first + count) * 64, block->count_pages);
    return true;
}

StageResult
source_stage_discard(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    while (source->cursor_block < source->blocks->count && frame_queue_has_room(&source->main)) {
        if (put_discard(source, &source->blocks->blocks[source->cursor_block]))
            continue;
        source->cursor_block++;
        source->cursor_page = 0;
    }
    if (source->cursor_block == source->blocks->count && frame_queue_has_room(&source->main)) {
        context_note(source->faultline, FAULTLINE_MOMENT_DISCARDED);
        stream_put_ping(frame_queue_writer(&source->main), STREAM_PING_DISCARDED);
        source->stage = source_stage_package;
    }
    return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_AGAIN;
}
