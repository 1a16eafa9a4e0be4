/* SPDX-License-Identifier: MIT */
/*
 * Which pages a side does not have, or has not sent, as ranges. Control thread; bits that others
 * change meanwhile are seen before or after.
 */
#include "engine/context.h"

#include <string.h>

/* The next run behind `page` of a block. false: there is none. */
static bool
find_run(const RamBlock *block, bool is_destination, uint64_t page, FaultlineRange *ret_range)
{
    const PageBitmap *bits = is_destination ? block->received : block->dirty;
    uint64_t end = block->count_pages;

    if (!bits || page >= end)
        return false;
    uint64_t begin = is_destination ? page_bitmap_next_clear(bits, page, end)
                                    : page_bitmap_next_set(bits, page, end);
    if (begin >= end)
        return false;
    uint64_t stop = is_destination ? page_bitmap_next_set(bits, begin, end)
                                   : page_bitmap_next_clear(bits, begin, end);
    *ret_range = (FaultlineRange){
        .block = block->is.name, .page = begin, .count_pages = MIN(stop, end) - begin};
    return true;
}

bool
faultline_next_missing(const Faultline *faultline, FaultlineRange *range)
{
    const RamBlocks *blocks = &faultline->blocks;
    bool is_destination = faultline->destination != NULL;
    uint64_t page = range->page + range->count_pages;
    unsigned i = 0;

    if (!is_destination && !faultline->source)
        return false;
    while (range->block && i < blocks->count && strcmp(blocks->blocks[i].is.name, range->block))
        i++;
    for (; i < blocks->count; i++, page = 0)
        if (find_run(&blocks->blocks[i], is_destination, page, range))
            return true;
    return false;
}
