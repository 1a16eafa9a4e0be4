/* SPDX-License-Identifier: MIT */
/*
 * From a record to a page in guest memory: checks it against the block table and the bitmaps,
 * stores it (precopy) or places it (postcopy), and marks it received. Run by the role that owns the
 * channel the record came on. Walk 9 to 12 of 12.
 *
 * In postcopy a page may come once, over all channels together. That is checked before anything is
 * written: the guest may have changed the page since.
 */
#include "engine/destination/destination.h"

#include <string.h>

void
page_channel_init(PageChannel *channel, const char *name, const RamBlocks *blocks)
{
    uint64_t largest = FAULTLINE_PAGE_BYTES;
    for (unsigned i = 0; i < blocks->count; i++)
        largest = MAX(largest, blocks->blocks[i].is.page_size_bytes);
    *channel = (PageChannel){.name = name, .run = uffd_run_new()};
    if (largest > FAULTLINE_PAGE_BYTES)
        channel->staging = g_malloc(largest);
}

void
page_channel_clear(PageChannel *channel)
{
    g_clear_pointer(&channel->run, uffd_run_free);
    g_clear_pointer(&channel->staging, g_free);
}

static bool
check_result(UffdResult result, const RamBlock *block, uint64_t page, GError **error)
{
    if (result == UFFD_PLACED || result == UFFD_ALREADY)
        return true;
    const char *reason = uffd_memory_error(block->memory);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "place page 0x%" G_GINT64_MODIFIER "x of block '%s': %s", page, block->is.name,
                result == UFFD_GONE ? "the memory or its registration is gone" : reason);
    return false;
}

/* ---- Marking --------------------------------------------------------------------------------- */

static void
tell_account(Destination *destination, const PageChannel *channel, const RamBlock *block,
             uint64_t page)
{
    uint64_t now_ns = clock_now_ns();

    if (channel == &destination->urgent) {
        account_end(&destination->account, block->index, page, now_ns);
        destination_note_answer(destination, now_ns);
        return;
    }
    uint32_t tail = __atomic_load_n(&destination->placed_tail, __ATOMIC_ACQUIRE);
    if (destination->placed_head - tail == PLACED_MAX)
        return;
    destination->placed[destination->placed_head % PLACED_MAX] =
        (PlacedPage){.block = block->index, .page = page, .when_ns = now_ns};
    __atomic_store_n(&destination->placed_head, destination->placed_head + 1, __ATOMIC_RELEASE);
}

/* Somebody asked for this host page before it was marked, and was woken as it was placed. If the
 * kernel took it out of the mapping at once (reclaim, khugepaged), a second fault may have been
 * read between placing and marking, and waits for us: shown once more. Not on the urgent channel,
 * where the role that places is the one that reads faults. */
static bool
serve_requested(Destination *destination, const PageChannel *channel, RamBlock *block,
                uint64_t page, GError **error)
{
    tell_account(destination, channel, block, page);
    if (channel == &destination->urgent)
        return true;
    UffdResult result = uffd_place_received(block->memory, page * FAULTLINE_PAGE_BYTES,
                                            block->host_pages * FAULTLINE_PAGE_BYTES);
    return check_result(result, block, page, error);
}

static bool
refuse_again(const PageChannel *channel, const RamBlock *block, uint64_t page, GError **error)
{
    g_propagate_error(error, destination_peer_error("load ram: page 0x%" G_GINT64_MODIFIER
                                                    "x of block '%s' came again on channel %s "
                                                    "after the guest was handed over",
                                                    page, block->is.name, channel->name));
    return false;
}

/* Whole host pages whose bytes are in place. */
static bool
mark_received(Destination *destination, const PageChannel *channel, RamBlock *block, uint64_t page,
              uint64_t count, GError **error)
{
    Progress *progress = &destination->faultline->progress;

    uint64_t count_new = page_bitmap_set_range(block->received, page, count);
    uint64_t count_requested = 0;
    for (uint64_t i = page; i < page + count; i += block->host_pages) {
        if (!page_bitmap_is_set(block->requested, i))
            continue;
        count_requested += block->host_pages;
        if (!serve_requested(destination, channel, block, i, error))
            return false;
    }
    if (channel == &destination->urgent) {
        progress_add(&progress->requested_pages, count_requested);
        progress_add(&progress->neighbour_pages, count - count_requested);
    } else {
        progress_add(&progress->requested_main_pages, count_requested);
        progress_add(&progress->pushed_pages, count - count_requested);
    }
    if (!__atomic_sub_fetch(&destination->missing_pages, count_new, __ATOMIC_ACQ_REL))
        destination_notify(destination, &destination->listen);
    /* Both channels brought it at once, so that neither saw the other's mark before it wrote. */
    return count_new == count || refuse_again(channel, block, page, error);
}

/* ---- Placing --------------------------------------------------------------------------------- */

bool
destination_flush_run(Destination *destination, PageChannel *channel, GError **error)
{
    uint64_t offset, length;
    RamBlock *block = channel->run_block;

    if (!uffd_run_memory(channel->run))
        return true;
    UffdResult result = uffd_run_flush(channel->run, &offset, &length);
    return check_result(result, block, offset / FAULTLINE_PAGE_BYTES, error) &&
           mark_received(destination, channel, block, offset / FAULTLINE_PAGE_BYTES,
                         length / FAULTLINE_PAGE_BYTES, error);
}

/* Main channel, small pages: gathered into runs, unless somebody waits. */
static bool
gather_page(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
            const uint8_t *bytes, GError **error)
{
    uint64_t offset = 0, length = 0;
    RamBlock *before = channel->run_block;

    UffdResult result = uffd_run_add(channel->run, block->memory, page * FAULTLINE_PAGE_BYTES,
                                     bytes, &offset, &length);
    channel->run_block = block;
    if (!check_result(result, before ? before : block, page, error))
        return false;
    if (length && !mark_received(destination, channel, before, offset / FAULTLINE_PAGE_BYTES,
                                 length / FAULTLINE_PAGE_BYTES, error))
        return false;
    if (page_bitmap_is_set(block->requested, page))
        return destination_flush_run(destination, channel, error);
    return true;
}

static bool
place_page(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
           const uint8_t *bytes, GError **error)
{
    uint64_t length = block->host_pages * FAULTLINE_PAGE_BYTES;
    UffdResult result = uffd_place(block->memory, page * FAULTLINE_PAGE_BYTES, length, bytes);
    return check_result(result, block, page, error) &&
           mark_received(destination, channel, block, page, block->host_pages, error);
}

/* Large host pages: put together from their target pages, which come one after the other. */
static bool
stage_page(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
           const uint8_t *bytes, GError **error)
{
    uint64_t host_page = ram_block_host_page(block, page);

    if (!channel->staged_block) {
        channel->staged_block = block;
        channel->staged_page = host_page;
        channel->staged_count = 0;
        channel->staged_is_zero = true;
    }
    if (channel->staged_block != block || page != channel->staged_page + channel->staged_count) {
        g_propagate_error(
            error, destination_peer_error(
                       "load ram: channel %s brings page 0x%" G_GINT64_MODIFIER
                       "x of block '%s' in the middle of the host page at 0x%" G_GINT64_MODIFIER
                       "x of block '%s'",
                       channel->name, page, block->is.name, channel->staged_page,
                       channel->staged_block->is.name));
        return false;
    }
    uint8_t *at = channel->staging + channel->staged_count * FAULTLINE_PAGE_BYTES;
    if (bytes)
        memcpy(at, bytes, FAULTLINE_PAGE_BYTES);
    else
        memset(at, 0, FAULTLINE_PAGE_BYTES);
    channel->staged_is_zero = channel->staged_is_zero && !bytes;
    if (++channel->staged_count < block->host_pages)
        return true;
    channel->staged_block = NULL;
    return place_page(destination, channel, block, host_page,
                      channel->staged_is_zero ? NULL : channel->staging, error);
}

static bool
store_page(Destination *destination, RamBlock *block, uint64_t page, const uint8_t *bytes)
{
    Progress *progress = &destination->faultline->progress;

    uffd_store(block->memory, page * FAULTLINE_PAGE_BYTES, bytes);
    if (!page_bitmap_test_and_set(block->received, page))
        __atomic_sub_fetch(&destination->missing_pages, 1, __ATOMIC_ACQ_REL);
    progress_add(&progress->precopy_pages, 1);
    return true;
}

/* ---- Records --------------------------------------------------------------------------------- */

typedef struct RecordDecode {
    const char *channel;
    StreamRecord *record;
} RecordDecode;

static StreamResult
decode_record(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    const RecordDecode *decode = context;
    return stream_decode_record(bytes, available, decode->channel, decode->record, ret_length,
                                error);
}

ReadResult
destination_read_record(Reader *reader, const PageChannel *channel, StreamRecord *ret,
                        size_t *ret_length, GError **error)
{
    RecordDecode decode = {channel->name, ret};
    return reader_decode(reader, decode_record, &decode, ret_length, error);
}

static RamBlock *
find_block(Destination *destination, PageChannel *channel, const StreamRecord *record,
           GError **error)
{
    if (!record->is_continue)
        channel->block = ram_blocks_find(destination->blocks, record->name);
    RamBlock *block = channel->block;
    if (!block && record->is_continue)
        g_propagate_error(error, destination_peer_error(
                                     "load ram: channel %s continues a block before it named one",
                                     channel->name));
    else if (!block)
        g_propagate_error(
            error, destination_peer_error("load ram: channel %s brings a page of block '%s', which "
                                          "is not here; give both sides the same memory",
                                          channel->name, record->name));
    else if (record->offset >= block->is.length_bytes) {
        g_propagate_error(error, destination_peer_error("load ram: offset 0x%" G_GINT64_MODIFIER
                                                        "x lies past the end of block '%s'",
                                                        record->offset, block->is.name));
        return NULL;
    }
    return block;
}

bool
destination_take_record(Destination *destination, PageChannel *channel, const StreamRecord *record,
                        GError **error)
{
    Progress *progress = &destination->faultline->progress;
    RamBlock *block = find_block(destination, channel, record, error);
    if (!block)
        return false;
    uint64_t page = record->offset / FAULTLINE_PAGE_BYTES;
    const uint8_t *bytes = record->flag == STREAM_RAM_PAGE ? record->page : NULL;
    bool is_urgent = channel == &destination->urgent;

    if (is_urgent)
        progress_add(bytes ? &progress->urgent_normal_pages : &progress->urgent_zero_pages, 1);
    else
        progress_add(bytes ? &progress->normal_pages : &progress->zero_pages, 1);
    if (!is_urgent && !destination->in_postcopy)
        return store_page(destination, block, page, bytes);
    if (page_bitmap_is_set(block->received, page))
        return refuse_again(channel, block, page, error);
    if (block->host_pages > 1)
        return stage_page(destination, channel, block, page, bytes, error);
    if (is_urgent)
        return place_page(destination, channel, block, page, bytes, error);
    return gather_page(destination, channel, block, page, bytes, error);
}

/* ---- Pages that are received and not yet visible --------------------------------------------- */

bool
destination_map_run(RamBlock *block, uint64_t *page, uint64_t end, GError **error)
{
    uint64_t first = page_bitmap_next_set(block->precopied, *page, end);
    uint64_t past = page_bitmap_next_clear(block->precopied, first, end);

    first = ram_block_host_page(block, first);
    past = ram_block_host_page(block, past);
    *page = MAX(past, *page + block->host_pages);
    if (past <= first || !page_bitmap_clear_range(block->precopied, first, past - first))
        return true;
    UffdResult result = uffd_place_received(block->memory, first * FAULTLINE_PAGE_BYTES,
                                            (past - first) * FAULTLINE_PAGE_BYTES);
    return check_result(result, block, first, error);
}

bool
destination_show_received(RamBlock *block, uint64_t page, GError **error)
{
    uint64_t extent_pages = uffd_memory_extent_bytes(block->memory) / FAULTLINE_PAGE_BYTES;
    uint64_t at = page - page % extent_pages;
    uint64_t end = MIN(at + extent_pages, block->count_pages);

    UffdResult result = uffd_place_received(block->memory, page * FAULTLINE_PAGE_BYTES,
                                            block->host_pages * FAULTLINE_PAGE_BYTES);
    if (!check_result(result, block, page, error))
        return false;
    while (at < end)
        if (!destination_map_run(block, &at, end, error))
            return false;
    return true;
}
