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

#define DIRECT_PAGES 8u /* of a run, from which on it is received to where it belongs */

void
page_channel_init(PageChannel *channel, const char *name, const RamBlocks *blocks)
{
    uint64_t largest = FAULTLINE_PAGE_BYTES;
    for (unsigned i = 0; i < blocks->count; i++)
        largest = MAX(largest, blocks->blocks[i].is.page_size_bytes);
    *channel = (PageChannel){.name = name,
                             .run = uffd_run_new(),
                             .take = destination_take_pages,
                             .take_in_place = destination_show_pages};
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
    WALK_PROBE(page_place, block->index, page);
    walk_step(channel->walk, WALK_PAGE_PLACE, block->index, page);
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

/* One of them was gathered, so that it is here without a mark; *ret_page: which. */
static bool
is_gathered(const PageChannel *channel, const RamBlock *block, uint64_t page, uint64_t count,
            uint64_t *ret_page)
{
    *ret_page = MAX(page, channel->run_page);
    return uffd_run_memory(channel->run) && channel->run_block == block &&
           *ret_page < page + count && *ret_page < channel->run_page + channel->run_count;
}

/* None of them was here before. */
static bool
check_new(const PageChannel *channel, const RamBlock *block, uint64_t page, uint64_t count,
          GError **error)
{
    uint64_t again = page_bitmap_next_set(block->received, page, page + count);
    if (again == page + count && !is_gathered(channel, block, page, count, &again))
        return true;
    return refuse_again(channel, block, again, error);
}

/* Shows pages just marked to those who asked for them; *ret_count: how many these are. */
static bool
serve_waiting(Destination *destination, const PageChannel *channel, RamBlock *block, uint64_t page,
              uint64_t end, uint64_t *ret_count, GError **error)
{
    *ret_count = 0;
    while ((page = page_bitmap_next_set(block->requested, page, end)) < end) {
        *ret_count += block->host_pages;
        if (!serve_requested(destination, channel, block, page, error))
            return false;
        page += block->host_pages;
    }
    return true;
}

/* Whole host pages whose bytes are in place. */
static bool
mark_received(Destination *destination, const PageChannel *channel, RamBlock *block, uint64_t page,
              uint64_t count, GError **error)
{
    Progress *progress = &destination->faultline->progress;

    uint64_t count_new = page_bitmap_set_range(block->received, page, count);
    uint64_t count_requested;
    bool is_served =
        serve_waiting(destination, channel, block, page, page + count, &count_requested, error);
    if (!is_served)
        destination_set_flag(&destination->has_hidden);
    if (channel == &destination->urgent) {
        progress_add(&progress->requested_pages, count_requested);
        progress_add(&progress->neighbour_pages, count - count_requested);
    } else {
        progress_add(&progress->requested_main_pages, count_requested);
        progress_add(&progress->pushed_pages, count - count_requested);
    }
    if (!__atomic_sub_fetch(&destination->missing_pages, count_new, __ATOMIC_ACQ_REL)) {
        context_note(destination->faultline, FAULTLINE_MOMENT_RESIDENT);
        destination_notify(destination, &destination->listen);
    }
    /* Both channels brought it at once, so that neither saw the other's mark before it wrote. */
    return is_served && (count_new == count || refuse_again(channel, block, page, error));
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
    bool was_empty = !uffd_run_memory(channel->run);

    UffdResult result = uffd_run_add(channel->run, block->memory, page * FAULTLINE_PAGE_BYTES,
                                     bytes, &offset, &length);
    channel->run_block = block;
    if (was_empty || length) {
        channel->run_page = page;
        channel->run_count = 0;
    }
    channel->run_count++;
    if (!check_result(result, before ? before : block, page, error))
        return false;
    if (length && !mark_received(destination, channel, before, offset / FAULTLINE_PAGE_BYTES,
                                 length / FAULTLINE_PAGE_BYTES, error))
        return false;
    if (page_bitmap_is_set(block->requested, page))
        return destination_flush_run(destination, channel, error);
    return true;
}

/* Whole host pages. */
static bool
place_pages(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
            uint64_t count, const uint8_t *bytes, GError **error)
{
    WALK_PROBE(page_write, block->index, page, count);
    UffdResult result =
        uffd_place(block->memory, page * FAULTLINE_PAGE_BYTES, count * FAULTLINE_PAGE_BYTES, bytes);
    return check_result(result, block, page, error) &&
           mark_received(destination, channel, block, page, count, error);
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
        channel->staged_is_damaged = false;
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
    if (channel->staged_is_damaged)
        return destination_note_damage(destination, channel, block, host_page, block->host_pages,
                                       error);
    return place_pages(destination, channel, block, host_page, block->host_pages,
                       channel->staged_is_zero ? NULL : channel->staging, error);
}

static bool
stage_pages(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
            uint64_t count, const uint8_t *bytes, GError **error)
{
    for (uint64_t i = 0; i < count; i++)
        if (!stage_page(destination, channel, block, page + i,
                        bytes ? bytes + i * FAULTLINE_PAGE_BYTES : NULL, error))
            return false;
    return true;
}

/* ---- Precopy --------------------------------------------------------------------------------- */

static void
mark_stored(Destination *destination, RamBlock *block, uint64_t page, uint64_t count)
{
    uint64_t count_new = page_bitmap_set_range(block->received, page, count);
    if (count_new)
        __atomic_sub_fetch(&destination->missing_pages, count_new, __ATOMIC_ACQ_REL);
    progress_add(&destination->faultline->progress.precopy_pages, count);
}

static bool
store_pages(Destination *destination, RamBlock *block, uint64_t page, uint64_t count,
            const uint8_t *bytes)
{
    for (uint64_t i = 0; i < count; i++)
        uffd_store(block->memory, (page + i) * FAULTLINE_PAGE_BYTES,
                   bytes ? bytes + i * FAULTLINE_PAGE_BYTES : NULL);
    mark_stored(destination, block, page, count);
    return true;
}

/* ---- Records --------------------------------------------------------------------------------- */

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
    else if (record->offset >= block->is.length_bytes ||
             record->count_pages >
                 (block->is.length_bytes - record->offset) / FAULTLINE_PAGE_BYTES) {
        g_propagate_error(error, destination_peer_error("load ram: offset 0x%" G_GINT64_MODIFIER
                                                        "x, pages %u, lies past the end of block "
                                                        "'%s'",
                                                        record->offset, record->count_pages,
                                                        block->is.name));
        return NULL;
    }
    return block;
}

static void
count_pages(Destination *destination, const PageChannel *channel, bool is_zero, uint64_t count)
{
    Progress *progress = &destination->faultline->progress;

    if (channel == &destination->urgent)
        progress_add(is_zero ? &progress->urgent_zero_pages : &progress->urgent_normal_pages,
                     count);
    else
        progress_add(is_zero ? &progress->zero_pages : &progress->normal_pages, count);
}

/* A run's header: all of its pages are checked before a byte of them is written anywhere. */
static bool
begin_run(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
          const StreamRecord *record, GError **error)
{
    bool is_main = channel == &destination->main;
    uint64_t count = record->count_pages;

    if ((!is_main || destination->in_postcopy) && !check_new(channel, block, page, count, error))
        return false;
    channel->coming = (ComingRun){.block = block, .page = page, .count = count};
    for (unsigned i = 0; record->checksums && i < count; i++)
        channel->checksums[i] = stream_record_checksum(record, i);
    channel->next_checksum = 0;
    if (is_main && count >= DIRECT_PAGES)
        channel->coming.memory = uffd_receive_address(block->memory, page * FAULTLINE_PAGE_BYTES,
                                                      count * FAULTLINE_PAGE_BYTES);
    return destination_flush_run(destination, channel, error);
}

bool
destination_take_pages(Destination *destination, PageChannel *channel, RamBlock *block,
                       uint64_t page, uint64_t count, const uint8_t *bytes, GError **error)
{
    bool is_urgent = channel == &destination->urgent;

    count_pages(destination, channel, !bytes, count);
    if (!is_urgent && !destination->in_postcopy)
        return store_pages(destination, block, page, count, bytes);
    if (!check_new(channel, block, page, count, error))
        return false;
    if (block->host_pages > 1)
        return stage_pages(destination, channel, block, page, count, bytes, error);
    if (count == 1 && !is_urgent)
        return gather_page(destination, channel, block, page, bytes, error);
    return place_pages(destination, channel, block, page, count, bytes, error);
}

bool
destination_take_record(Destination *destination, PageChannel *channel, const StreamRecord *record,
                        GError **error)
{
    RamBlock *block = find_block(destination, channel, record, error);
    if (!block)
        return false;
    uint64_t page = record->offset / FAULTLINE_PAGE_BYTES;
    ComingRun *coming = &channel->coming;

    /* What follows a run's head is noted with it. */
    bool is_noted = channel == &destination->urgent && !coming->count;
    if (is_noted)
        WALK_PROBE(reply_receive, block->index, page, record->count_pages);
    for (uint64_t i = 0; is_noted && channel->walk && i < record->count_pages; i++)
        walk_step(channel->walk, WALK_REPLY_RECEIVE, block->index, page + i);
    if (record->flag == STREAM_RAM_PAGE && !record->page)
        return begin_run(destination, channel, block, page, record, error);
    if (coming->count) {
        coming->page += record->count_pages;
        coming->count -= record->count_pages;
    }
    return channel->take(destination, channel, block, page, record->count_pages,
                         record->flag == STREAM_RAM_PAGE ? record->page : NULL, error);
}

/* ---- Runs received to where they belong -------------------------------------------------------
 */

/* Pages whose bytes are in their place. */
bool
destination_show_pages(Destination *destination, PageChannel *channel, RamBlock *block,
                       uint64_t page, uint64_t count, G_GNUC_UNUSED const uint8_t *bytes,
                       GError **error)
{
    count_pages(destination, channel, false, count);
    if (!destination->in_postcopy) {
        mark_stored(destination, block, page, count);
        return true;
    }
    UffdResult result = uffd_place_received(block->memory, page * FAULTLINE_PAGE_BYTES,
                                            count * FAULTLINE_PAGE_BYTES);
    return check_result(result, block, page, error) &&
           mark_received(destination, channel, block, page, count, error);
}

/* The next count pages have been received. */
static bool
take_received(Destination *destination, PageChannel *channel, uint64_t count, GError **error)
{
    ComingRun *coming = &channel->coming;
    const uint8_t *bytes = coming->memory + coming->taken * FAULTLINE_PAGE_BYTES;
    uint64_t page = coming->page;

    if (!count)
        return true;
    coming->page += count;
    coming->count -= count;
    coming->taken += count;
    return channel->take_in_place(destination, channel, coming->block, page, count, bytes, error);
}

/* Whatever has come whole is shown before this role sleeps, so that nobody waits for a page that is
 * here; also what came before the link broke is good. */
StageResult
destination_receive_run(Destination *destination, GError **error)
{
    PageChannel *channel = &destination->main;
    ComingRun *coming = &channel->coming;
    g_autoptr(GError) failure = NULL;
    size_t done_bytes;

    ReadResult result = reader_receive_into(&destination->reader, coming->memory,
                                            (coming->taken + coming->count) * FAULTLINE_PAGE_BYTES,
                                            &done_bytes, &failure);
    bool taken = take_received(destination, channel,
                               done_bytes / FAULTLINE_PAGE_BYTES - coming->taken, error);
    if (!coming->count || !taken)
        coming->memory = NULL;
    if (!taken)
        return STAGE_FAILED;
    if (failure)
        g_propagate_error(error, g_steal_pointer(&failure));
    return destination_stage_of(result, error);
}

void
destination_leave_run(Destination *destination)
{
    if (destination->receiver)
        transport_receive_leave(destination->receiver);
    destination->main.coming = (ComingRun){0};
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
