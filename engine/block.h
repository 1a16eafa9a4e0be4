/* SPDX-License-Identifier: MIT */
/*
 * RAM blocks: what the VMM said of its memory, checked, and the bitmaps of the migration under way.
 * The table is made once by faultline_new() and never changes; the bitmaps live as long as one
 * migration.
 */
#ifndef ENGINE_BLOCK_H
#define ENGINE_BLOCK_H

#include "engine/faultline.h"
#include "engine/page_bitmap.h"
#include "uffd/uffd.h"

#define RAM_BLOCKS_MAX 64u /* their list leaves in one frame of headers (frame.c) */

typedef struct RamBlock {
    /* set before any thread starts */
    FaultlineBlock is; /* the VMM's description; is.name is our copy */
    unsigned index;
    uint64_t count_pages; /* target pages */
    uint64_t host_pages;  /* target pages a host page: 1, 512, ... */
    UffdMemory *memory;   /* destination, and a source with release-ram */
    uint64_t place;       /* with page-checksums: stream_block_place() */
    uint64_t *checksums;  /* with page-checksums: of each page as it was sent, or taken, last; a
                             page's entry belongs to who sends or takes it; else NULL */

    /* shared by the threads of a migration: atomic */
    PageBitmap *dirty;     /* source: to be sent; who clears a bit sends that page */
    PageBitmap *received;  /* destination: its bytes are here; set after they were stored */
    PageBitmap *precopied; /* destination: received before LISTEN, not yet visible to the guest; who
                              clears a bit makes the page visible */
    PageBitmap *requested; /* destination: asked for; one bit a host page, at its first page */
} RamBlock;

typedef struct RamBlocks {
    RamBlock *blocks;
    unsigned count;
    uint64_t total_bytes;
    uint64_t page_sizes; /* OR of all host page sizes */
} RamBlocks;

/* Copies and checks. Errors: ARGUMENT. */
bool ram_blocks_init(RamBlocks *blocks, const FaultlineBlock *descriptions, unsigned count,
                     GError **error);
void ram_blocks_clear(RamBlocks *blocks);

/* NULL when there is none. */
RamBlock *ram_blocks_find(RamBlocks *blocks, const char *name);

/* The block that holds a host address, and the page in it; NULL when it lies in none. Walk 2 of 12.
 */
RamBlock *ram_blocks_locate(RamBlocks *blocks, uintptr_t address, uint64_t *ret_page);

/* First page of the host page that `page` lies in. */
static inline uint64_t
ram_block_host_page(const RamBlock *block, uint64_t page)
{
    return page & ~(block->host_pages - 1);
}

static inline uint8_t *
ram_block_address(const RamBlock *block, uint64_t page)
{
    return (uint8_t *)block->is.host_address + page * FAULTLINE_PAGE_BYTES;
}

/* Opens uffd's view of each block, as a destination (and for release-ram) needs it. Errors: those
 * of uffd_memory_new(). */
bool ram_blocks_open_memory(RamBlocks *blocks, GError **error);
void ram_blocks_close_memory(RamBlocks *blocks);

/* The tables of checksums: 8 bytes a page, touched, so that nobody waits for them later. */
void ram_blocks_open_checksums(RamBlocks *blocks);
void ram_blocks_close_checksums(RamBlocks *blocks);

#endif
