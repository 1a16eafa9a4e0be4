/* SPDX-License-Identifier: MIT */
/*
 * The table of RAM blocks: checked copies of what the VMM describes. Made on the control thread,
 * read by all; the bitmaps in it belong to the source's or the destination's set-up.
 */
#include "engine/block.h"

#include "engine/stream/stream.h"

#include <string.h>

#define PAGE_SIZE_MAX (1u << 30) /* a request for one page has 32 bits of length */

G_GNUC_PRINTF(3, 4)
static bool
refuse(GError **error, const FaultlineBlock *block, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *reason = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "describe RAM block '%s': %s; correct the VMM's block table",
                block->name ? block->name : "", reason);
    return false;
}

static bool
check_block(const FaultlineBlock *block, GError **error)
{
    uint64_t page_size = block->page_size_bytes;

    if (!block->name || !stream_name_is_good(block->name))
        return refuse(error, block, "the name must have 1 to 255 bytes of printable ASCII");
    if (page_size < FAULTLINE_PAGE_BYTES || page_size > PAGE_SIZE_MAX ||
        (page_size & (page_size - 1)))
        return refuse(error, block,
                      "page size %" G_GUINT64_FORMAT " is no power of two from %u to %u", page_size,
                      FAULTLINE_PAGE_BYTES, PAGE_SIZE_MAX);
    if (!block->length_bytes || block->length_bytes % page_size)
        return refuse(error, block,
                      "length %" G_GUINT64_FORMAT
                      " is no multiple of its page size %" G_GUINT64_FORMAT,
                      block->length_bytes, page_size);
    if (!block->host_address || (uintptr_t)block->host_address % page_size)
        return refuse(error, block, "host address %p is not aligned to its page size",
                      block->host_address);
    if (block->fd >= 0 && block->fd_offset_bytes % page_size)
        return refuse(error, block, "file offset is not aligned to its page size");
    if (block->shared && block->fd < 0)
        return refuse(error, block, "shared memory needs its file descriptor");
    if (block->guest_address > INT64_MAX ||
        block->length_bytes > (uint64_t)INT64_MAX - block->guest_address)
        return refuse(error, block, "it does not fit into the guest's address space");
    return true;
}

static bool
ranges_meet(uint64_t a, uint64_t a_length, uint64_t b, uint64_t b_length)
{
    return a < b ? b - a < a_length : a - b < b_length;
}

/* A page of two blocks would be sent from one, and placed over what has come for the other. */
static const char *
find_overlap(const FaultlineBlock *a, const FaultlineBlock *b)
{
    uint64_t a_host = (uintptr_t)a->host_address, b_host = (uintptr_t)b->host_address;

    if (ranges_meet(a_host, a->length_bytes, b_host, b->length_bytes))
        return "is in the host memory";
    if (ranges_meet(a->guest_address, a->length_bytes, b->guest_address, b->length_bytes))
        return "has guest addresses";
    if (a->shared && b->shared && a->fd == b->fd &&
        ranges_meet(a->fd_offset_bytes, a->length_bytes, b->fd_offset_bytes, b->length_bytes))
        return "has a range of the file";
    return NULL;
}

static bool
check_apart(const RamBlocks *blocks, const FaultlineBlock *block, GError **error)
{
    for (unsigned i = 0; i < blocks->count; i++) {
        const char *what = find_overlap(&blocks->blocks[i].is, block);
        if (what)
            return refuse(error, block, "it %s of block '%s'", what, blocks->blocks[i].is.name);
    }
    return true;
}

bool
ram_blocks_init(RamBlocks *blocks, const FaultlineBlock *descriptions, unsigned count,
                GError **error)
{
    if (!count) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "describe RAM: there is no block, so nothing to migrate; correct the VMM's "
                    "block table");
        return false;
    }
    if (count > RAM_BLOCKS_MAX) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "describe RAM: there are %u blocks, and %u can be migrated; join blocks in the "
                    "VMM's block table",
                    count, RAM_BLOCKS_MAX);
        return false;
    }
    *blocks = (RamBlocks){.blocks = g_new0(RamBlock, count)};
    for (unsigned i = 0; i < count; i++) {
        const FaultlineBlock *is = &descriptions[i];
        bool is_good = check_block(is, error);
        if (is_good && ram_blocks_find(blocks, is->name))
            is_good = refuse(error, is, "another block has this name");
        is_good = is_good && check_apart(blocks, is, error);
        if (!is_good) {
            ram_blocks_clear(blocks);
            return false;
        }
        blocks->blocks[i] = (RamBlock){
            .is = *is,
            .index = i,
            .count_pages = is->length_bytes / FAULTLINE_PAGE_BYTES,
            .host_pages = is->page_size_bytes / FAULTLINE_PAGE_BYTES,
        };
        blocks->blocks[i].is.name = g_strdup(is->name);
        blocks->total_bytes += is->length_bytes;
        blocks->page_sizes |= is->page_size_bytes;
        blocks->count++;
    }
    return true;
}

void
ram_blocks_clear(RamBlocks *blocks)
{
    ram_blocks_close_memory(blocks);
    for (unsigned i = 0; i < blocks->count; i++)
        g_free((char *)blocks->blocks[i].is.name);
    g_clear_pointer(&blocks->blocks, g_free);
    blocks->count = 0;
}

RamBlock *
ram_blocks_find(RamBlocks *blocks, const char *name)
{
    for (unsigned i = 0; i < blocks->count; i++)
        if (strcmp(blocks->blocks[i].is.name, name) == 0)
            return &blocks->blocks[i];
    return NULL;
}

RamBlock *
ram_blocks_locate(RamBlocks *blocks, uintptr_t address, uint64_t *ret_page)
{
    for (unsigned i = 0; i < blocks->count; i++) {
        RamBlock *block = &blocks->blocks[i];
        uintptr_t start = (uintptr_t)block->is.host_address;
        if (address >= start && address - start < block->is.length_bytes) {
            *ret_page = (address - start) / FAULTLINE_PAGE_BYTES;
            return block;
        }
    }
    return NULL;
}

bool
ram_blocks_open_memory(RamBlocks *blocks, GError **error)
{
    for (unsigned i = 0; i < blocks->count; i++) {
        RamBlock *block = &blocks->blocks[i];
        UffdLayout layout = {
            .host_address = block->is.host_address,
            .length_bytes = block->is.length_bytes,
            .fd = block->is.fd,
            .fd_offset_bytes = block->is.fd_offset_bytes,
            .page_bytes = block->is.page_size_bytes,
            .shared = block->is.shared,
        };
        block->memory = uffd_memory_new(&layout, error);
        if (!block->memory) {
            g_prefix_error(error, "prepare memory of block '%s': ", block->is.name);
            ram_blocks_close_memory(blocks);
            return false;
        }
    }
    return true;
}

void
ram_blocks_close_memory(RamBlocks *blocks)
{
    for (unsigned i = 0; i < blocks->count; i++)
        g_clear_pointer(&blocks->blocks[i].memory, uffd_memory_free);
}

void
ram_blocks_open_checksums(RamBlocks *blocks)
{
    for (unsigned i = 0; i < blocks->count; i++) {
        RamBlock *block = &blocks->blocks[i];
        block->place = stream_block_place(block->is.name);
        block->checksums = g_new(uint64_t, block->count_pages);
        memset(block->checksums, 0xff, block->count_pages * sizeof block->checksums[0]);
    }
}

void
ram_blocks_close_checksums(RamBlocks *blocks)
{
    for (unsigned i = 0; i < blocks->count; i++)
        g_clear_pointer(&blocks->blocks[i].checksums, g_free);
}
