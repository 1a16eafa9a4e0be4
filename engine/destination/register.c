/* SPDX-License-Identifier: MIT */
/*
 * LISTEN's registering: what is missing is watched by userfaultfd from here on, before the guest
 * runs. Listen role, and downtime: a look at each word of the received bitmap, and a few calls of
 * the kernel, however much is missing.
 */
#include "engine/destination/destination.h"

/* Registered ranges of all blocks together. Each is a mapping of its own, which costs the kernel
 * 2-4 us while the guest stands; a received page that is watched costs 0.1 us afterwards. */
#define RANGES_MAX 256u

/* First extent from `page` on with a page missing, up to the first one with none. */
static bool
next_missing(const RamBlock *block, uint64_t extent_pages, uint64_t *page, uint64_t *ret_end)
{
    uint64_t missing = page_bitmap_next_clear(block->received, *page, block->count_pages);
    if (missing == block->count_pages)
        return false;
    *page = missing - missing % extent_pages;
    uint64_t end = *page;
    while (end < block->count_pages) {
        uint64_t past = MIN(end + extent_pages, block->count_pages);
        if (page_bitmap_next_clear(block->received, end, past) == past)
            break;
        end = past;
    }
    *ret_end = end;
    return true;
}

static bool
register_pages(Destination *destination, RamBlock *block, uint64_t page, uint64_t end,
               GError **error)
{
    /* What is received and hidden here must be made visible by us; outside, the kernel does so. */
    if (uffd_memory_extent_bytes(block->memory) > block->is.page_size_bytes)
        page_bitmap_copy_range(block->precopied, block->received, page, end - page);
    return uffd_memory_register(block->memory, destination->uffd, page * FAULTLINE_PAGE_BYTES,
                                (end - page) * FAULTLINE_PAGE_BYTES, error);
}

/* A host page of which a part is here is in the guest mapping, where no touch of the rest would
 * stop anybody: a source has to discard all of it. */
static bool
check_whole(const RamBlock *block, GError **error)
{
    uint64_t page = 0;

    while (block->host_pages > 1 &&
           (page = page_bitmap_next_clear(block->received, page, block->count_pages)) <
               block->count_pages) {
        uint64_t first = ram_block_host_page(block, page);
        uint64_t end = first + block->host_pages;
        if (page_bitmap_next_set(block->received, first, end) < end) {
            g_propagate_error(
                error, destination_peer_error("load package: of the host page 0x%" G_GINT64_MODIFIER
                                              "x of block '%s' only a part has come, and it was "
                                              "not discarded",
                                              first, block->is.name));
            return false;
        }
        page = end;
    }
    return true;
}

static bool
register_block(Destination *destination, RamBlock *block, GError **error)
{
    uint64_t extent_pages =
        MAX(uffd_memory_extent_bytes(block->memory) / FAULTLINE_PAGE_BYTES, block->host_pages);
    uint64_t ranges_max = RANGES_MAX / destination->blocks->count;
    uint64_t page = 0, end, count = 0;

    if (!check_whole(block, error) || !uffd_memory_zap(block->memory, error))
        return false;
    while (page < block->count_pages && next_missing(block, extent_pages, &page, &end)) {
        if (++count >= ranges_max)
            end = block->count_pages;
        if (!register_pages(destination, block, page, end, error))
            return false;
        page = end;
    }
    return true;
}

bool
destination_register(Destination *destination, GError **error)
{
    for (unsigned i = 0; i < destination->blocks->count; i++) {
        RamBlock *block = &destination->blocks->blocks[i];
        if (!register_block(destination, block, error)) {
            g_prefix_error(error, "watch memory of block '%s': ", block->is.name);
            return false;
        }
    }
    return true;
}
