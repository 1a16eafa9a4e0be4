/* SPDX-License-Identifier: MIT */
/*
 * The discards of a walked stream: what they name is not held any more.
 */
#include "tests/unit/support/walk.h"

#include <string.h>

bool
walk_discard(Walk *walk, const StreamElement *element, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    unsigned count;

    if (!stream_parse_discard(element, name, &count, error))
        return false;
    WalkBlock *block = walk_find_block(walk, name);
    if (!block || count > STREAM_DISCARD_RANGES)
        return walk_fail(error, "discard of %s, %u ranges", name, count);
    for (unsigned i = 0; i < count; i++) {
        StreamRange range = stream_discard_range(element, i);
        uint64_t first = range.start / STREAM_PAGE_BYTES, pages = range.length / STREAM_PAGE_BYTES;
        if (first + pages > block->count_pages)
            return walk_fail(error, "discard outside of %s", name);
        memset(block->held + first, 0, pages);
        walk->count_discarded += pages;
    }
    return true;
}

bool
walk_discard_words(Walk *walk, const StreamElement *element, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    uint64_t first;
    unsigned count;

    if (!stream_parse_discard_words(element, name, &first, &count, error))
        return false;
    WalkBlock *block = walk_find_block(walk, name);
    if (!block)
        return walk_fail(error, "discard of %s", name);
    for (unsigned i = 0; i < 64 * count; i++) {
        if (!(stream_discard_word(element, i / 64) >> i % 64 & 1))
            continue;
        if (first + i >= block->count_pages)
            return walk_fail(error, "discard outside of %s", name);
        block->held[first + i] = 0;
        walk->count_discarded++;
    }
    return true;
}
