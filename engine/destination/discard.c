/* SPDX-License-Identifier: MIT */
/*
 * DISCARD: pages that came in precopy and will come again. Listen role, while the guest stands.
 * Where what precopy brought is hidden until it is shown, clearing the received bits is all there
 * is to do; elsewhere the pages are dropped, run by run.
 */
#include "engine/destination/destination.h"

static bool
check_range(const RamBlock *block, const StreamRange *range, GError **error)
{
    uint64_t size = block->is.page_size_bytes;
    if (!(range->start % size || range->length % size || range->start >= block->is.length_bytes ||
          range->length > block->is.length_bytes - range->start))
        return true;
    g_propagate_error(error, destination_peer_error("discard: 0x%" G_GINT64_MODIFIER
                                                    "x bytes at 0x%" G_GINT64_MODIFIER
                                                    "x of block '%s' are not whole pages inside it",
                                                    range->length, range->start, block->is.name));
    return false;
}

static void
count_missing(Destination *destination, uint64_t count_cleared)
{
    __atomic_add_fetch(&destination->missing_pages, count_cleared, __ATOMIC_ACQ_REL);
}

static bool
discard_range(Destination *destination, RamBlock *block, const StreamRange *range, GError **error)
{
    if (!check_range(block, range, error))
        return false;
    count_missing(destination,
                  page_bitmap_clear_range(block->received, range->start / FAULTLINE_PAGE_BYTES,
                                          range->length / FAULTLINE_PAGE_BYTES));
    return uffd_memory_discard(block->memory, range->start, range->length, error);
}

static RamBlock *
find_block(Destination *destination, const char *name, GError **error)
{
    RamBlock *block = ram_blocks_find(destination->blocks, name);
    if (!block)
        g_propagate_error(error,
                          destination_peer_error("discard: there is no block '%s' here", name));
    return block;
}

bool
destination_discard(Destination *destination, const StreamElement *element, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    unsigned count;

    if (!destination_move(destination, POSTCOPY_DISCARD, "POSTCOPY_RAM_DISCARD", error) ||
        !stream_parse_discard(element, name, &count, error))
        return false;
    RamBlock *block = find_block(destination, name, error);
    for (unsigned i = 0; block && i < count; i++) {
        StreamRange range = stream_discard_range(element, i);
        if (!discard_range(destination, block, &range, error))
            return false;
    }
    return block != NULL;
}

/* ---- Words of a bitmap ----------------------------------------------------------------------- */

/* The runs of one word; what continues in the next is a run of its own. */
static bool
discard_word(Destination *destination, RamBlock *block, uint64_t page, uint64_t word,
             GError **error)
{
    while (word) {
        unsigned first = (unsigned)__builtin_ctzll(word);
        uint64_t rest = ~(word >> first);
        unsigned length = rest ? (unsigned)__builtin_ctzll(rest) : 64 - first;
        StreamRange range = {.start = (page + first) * FAULTLINE_PAGE_BYTES,
                             .length = (uint64_t)length * FAULTLINE_PAGE_BYTES};
        if (!discard_range(destination, block, &range, error))
            return false;
        word &= first + length == 64 ? 0 : UINT64_MAX << (first + length);
    }
    return true;
}

bool
destination_discard_words(Destination *destination, const StreamElement *element, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    uint64_t page;
    unsigned count;

    if (!destination_move(destination, POSTCOPY_DISCARD, "DISCARD_WORDS", error) ||
        !stream_parse_discard_words(element, name, &page, &count, error))
        return false;
    RamBlock *block = find_block(destination, name, error);
    if (!block)
        return false;
    bool is_hidden = uffd_memory_extent_bytes(block->memory) > block->is.page_size_bytes;
    for (unsigned i = 0; i < count; i++, page += 64) {
        uint64_t word = stream_discard_word(element, i);
        bool is_inside = page < block->count_pages && block->count_pages - page >= 64;
        if (is_hidden && is_inside)
            count_missing(destination, page_bitmap_clear_word(block->received, page / 64, word));
        else if (!discard_word(destination, block, page, word, error))
            return false;
    }
    return true;
}
