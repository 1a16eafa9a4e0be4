/* SPDX-License-Identifier: MIT */
/*
 * What page-checksums adds at the destination: pages are compared with their checksums before they
 * are marked received or shown, damaged ones are asked for again, and at the end all of memory is
 * compared with the source's digest.
 *
 * A damaged page counts as missing from then on, whatever was there before: in precopy its old
 * bytes may be overwritten in place. Compared on the role that owns the channel, RESEND is sent by
 * the fault role before any message that was posted later: what the source hears after it, it hears
 * with the damage known. Damage is rare and takes a lock that no vCPU thread takes.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define NS_PER_S 1000000000ull

/* ---- Comparing ------------------------------------------------------------------------------- */

/* How many of the pages, from the first on, are as they were sent; notes their checksums. */
static uint64_t
count_good(PageChannel *channel, RamBlock *block, uint64_t page, uint64_t count,
           const uint8_t *bytes)
{
    for (uint64_t i = 0; i < count; i++) {
        const uint8_t *at = bytes ? bytes + i * FAULTLINE_PAGE_BYTES : NULL;
        uint64_t checksum = stream_page_checksum(at, block->place, page + i);
        if (bytes && checksum != channel->checksums[channel->next_checksum])
            return i;
        channel->next_checksum += bytes != NULL;
        block->checksums[page + i] = checksum;
    }
    return count;
}

/* A page of a large host page is one of many that come together: the others are still to come, and
 * then all of them are asked for. */
static bool
refuse_page(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
            GError **error)
{
    bool is_placed = channel == &destination->urgent || destination->in_postcopy;

    channel->next_checksum++;
    if (!is_placed || block->host_pages == 1)
        return destination_note_damage(destination, channel, block, page, 1, error);
    bool begins = !channel->staged_block;
    bool is_last = channel->staged_count + 1 == block->host_pages && !begins;
    channel->staged_is_damaged = true;
    if (!destination_take_pages(destination, channel, block, page, 1, NULL, error))
        return false;
    /* The first one begins the host page, which clears the mark. */
    channel->staged_is_damaged = !is_last;
    return true;
}

static bool
take_compared(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
              uint64_t count, const uint8_t *bytes, TakePages *take, GError **error)
{
    for (uint64_t i = 0; i < count;) {
        const uint8_t *at = bytes ? bytes + i * FAULTLINE_PAGE_BYTES : NULL;
        uint64_t good = count_good(channel, block, page + i, count - i, at);
        if (good && !take(destination, channel, block, page + i, good, at, error))
            return false;
        i += good;
        if (i < count && !refuse_page(destination, channel, block, page + i, error))
            return false;
        i += i < count;
    }
    return true;
}

static bool
take_checked(Destination *destination, PageChannel *channel, RamBlock *block, uint64_t page,
             uint64_t count, const uint8_t *bytes, GError **error)
{
    return take_compared(destination, channel, block, page, count, bytes, destination_take_pages,
                         error);
}

static bool
take_checked_in_place(Destination *destination, PageChannel *channel, RamBlock *block,
                      uint64_t page, uint64_t count, const uint8_t *bytes, GError **error)
{
    return take_compared(destination, channel, block, page, count, bytes, destination_show_pages,
                         error);
}

void
destination_begin_checks(Destination *destination)
{
    PageChannel *const channels[] = {&destination->main, &destination->urgent};

    for (unsigned i = 0; i < G_N_ELEMENTS(channels); i++) {
        channels[i]->take = take_checked;
        channels[i]->take_in_place = take_checked_in_place;
    }
    progress_set(&destination->faultline->progress.verdict, FAULTLINE_VERDICT_PENDING);
}

uint64_t
destination_piece_limit(const Destination *destination)
{
    return destination_state_limit(destination) + (1u << 20);
}

bool
destination_obey_sealed(Destination *destination, const StreamElement *element, GError **error)
{
    uint32_t features;
    const char *problem = NULL;

    if (!stream_parse_sealed(element, &features, error))
        return false;
    if (!(destination->features & STREAM_FEATURE_CHECKSUMS))
        problem = "but page-checksums was not agreed on";
    else if (features != destination->features)
        problem = "by a source that understood another answer to its hello: it was damaged on its "
                  "way";
    else if (destination->reader.is_sealed)
        problem = "a second time";
    if (problem)
        g_propagate_error(
            error, destination_peer_error("seal the stream: the source did it, %s", problem));
    return !problem;
}

/* ---- Damage ---------------------------------------------------------------------------------- */

static bool
refuse_damage(const RamBlock *block, uint64_t page, const char *what, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                "receive: page 0x%" G_GINT64_MODIFIER "x of block '%s' came damaged, %s; look for "
                "what changes bytes on the way from the source",
                page, block->is.name, what);
    return false;
}

/* The entry of this page, else one to be taken; NULL: all are of use. */
static Damage *
find_damage_locked(Destination *destination, const RamBlock *block, uint64_t page)
{
    for (unsigned i = 0; i < DAMAGES_MAX; i++) {
        Damage *damage = &destination->damages[i];
        if (damage->block == block && damage->page == page)
            return damage;
    }
    for (unsigned i = 0; i < DAMAGES_MAX; i++) {
        Damage *damage = &destination->damages[destination->damages_next++ % DAMAGES_MAX];
        if (damage->block && !damage->is_told)
            continue;
        *damage = (Damage){.block = block, .page = page, .is_told = true};
        return damage;
    }
    return NULL;
}

/* Whether there is too much of it; else NULL. */
static const char *
count_damage_locked(Destination *destination, RamBlock *block, uint64_t page, uint64_t count)
{
    uint64_t now_ns = clock_now_ns();
    uint64_t limit = options_get(&destination->faultline->options, PARAMETER_DAMAGE_LIMIT);
    Damage *damage = find_damage_locked(destination, block, page);

    if (now_ns - destination->damages_since_ns > NS_PER_S) {
        destination->damages_since_ns = now_ns;
        destination->damages_recent = 0;
    }
    if (!damage || ++destination->damages_recent > DAMAGES_PER_S_MAX)
        return "like very many before it";
    damage->count = count;
    if (++damage->times >= limit)
        return "as often as damage-limit allows";
    if (damage->is_told)
        __atomic_store_n(&destination->damages_untold, destination->damages_untold + 1,
                         __ATOMIC_RELEASE);
    damage->is_told = false;
    return NULL;
}

bool
destination_note_damage(Destination *destination, PageChannel *channel, RamBlock *block,
                        uint64_t page, uint64_t count, GError **error)
{
    Progress *progress = &destination->faultline->progress;

    if (channel == &destination->main && !destination->in_postcopy)
        __atomic_add_fetch(&destination->missing_pages,
                           page_bitmap_clear_range(block->received, page, count), __ATOMIC_ACQ_REL);
    __atomic_add_fetch(&progress->damaged_pages, count, __ATOMIC_RELAXED);
    pthread_mutex_lock(&destination->mailbox_lock);
    const char *problem = count_damage_locked(destination, block, page, count);
    pthread_mutex_unlock(&destination->mailbox_lock);
    if (problem)
        return refuse_damage(block, page, problem, error);
    destination_notify(destination, &destination->fault);
    return true;
}

bool
destination_put_resends(Destination *destination)
{
    if (!__atomic_load_n(&destination->damages_untold, __ATOMIC_ACQUIRE))
        return true;
    pthread_mutex_lock(&destination->mailbox_lock);
    for (unsigned i = 0; i < DAMAGES_MAX && frame_queue_has_room(&destination->out); i++) {
        Damage *damage = &destination->damages[i];
        if (!damage->block || damage->is_told)
            continue;
        stream_put_resend(frame_queue_writer(&destination->out), damage->block->is.name,
                          damage->page * FAULTLINE_PAGE_BYTES,
                          (uint32_t)(damage->count * FAULTLINE_PAGE_BYTES));
        damage->is_told = true;
        progress_add(&destination->faultline->progress.asked_again, damage->count);
        __atomic_store_n(&destination->damages_untold, destination->damages_untold - 1,
                         __ATOMIC_RELEASE);
    }
    bool is_done = !destination->damages_untold;
    pthread_mutex_unlock(&destination->mailbox_lock);
    return is_done;
}

void
destination_forget_damage(Destination *destination)
{
    pthread_mutex_lock(&destination->mailbox_lock);
    memset(destination->damages, 0, sizeof destination->damages);
    __atomic_store_n(&destination->damages_untold, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&destination->mailbox_lock);
}

void
destination_judge_anew(Destination *destination)
{
    destination->has_told_whole = destination->has_told_verdict = false;
    destination->judged_pages = destination->bad_extents = 0;
}

/* ---- The verdict ----------------------------------------------------------------------------- */

static GError *
differ(const RamBlock *block, uint64_t page, uint64_t end)
{
    return destination_peer_error("verdict: of block '%s' some of the pages 0x%" G_GINT64_MODIFIER
                                  "x to 0x%" G_GINT64_MODIFIER "x are not here as they were sent",
                                  block->is.name, page, end - 1);
}

static void
declare(Destination *destination, FaultlineVerdict verdict)
{
    Faultline *faultline = destination->faultline;

    if (progress_get(&faultline->progress.verdict) != FAULTLINE_VERDICT_PENDING)
        return;
    progress_set(&faultline->progress.verdict, verdict);
    context_event(faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_VERDICT, .verdict = verdict});
}

static bool
judge_extent(Destination *destination, const RamBlock *block, uint64_t page, uint64_t sum,
             GError **error)
{
    uint64_t end = MIN(page + STREAM_DIGEST_PAGES, block->count_pages);

    destination->judged_pages += end - page;
    for (uint64_t at = page; at < end; at++)
        sum -= block->checksums[at];
    if (!sum)
        return true;
    destination->bad_extents++;
    if (!destination->in_postcopy) {
        declare(destination, FAULTLINE_VERDICT_FAILED);
        g_propagate_error(error, differ(block, page, end));
        return false;
    }
    /* The guest runs here and nowhere else; that it is told is all that can be done. */
    context_keep_error(destination->faultline, differ(block, page, end));
    return true;
}

bool
destination_obey_digest(Destination *destination, const StreamElement *element, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    uint64_t extent;
    unsigned count;

    if (!stream_parse_digest(element, name, &extent, &count, error))
        return false;
    const RamBlock *block = ram_blocks_find(destination->blocks, name);
    uint64_t extents =
        block ? (block->count_pages + STREAM_DIGEST_PAGES - 1) / STREAM_DIGEST_PAGES : 0;
    if (!(destination->features & STREAM_FEATURE_CHECKSUMS) || extent >= extents ||
        count > extents - extent) {
        g_propagate_error(error, destination_peer_error("verdict: %u sums of block '%s', which has "
                                                        "no such part here or no checksums",
                                                        count, name));
        return false;
    }
    for (unsigned i = 0; i < count; i++)
        if (!judge_extent(destination, block, (extent + i) * STREAM_DIGEST_PAGES,
                          stream_digest_sum(element, i), error))
            return false;
    return true;
}

bool
destination_judge(Destination *destination, GError **error)
{
    uint64_t count_pages = destination->blocks->total_bytes / FAULTLINE_PAGE_BYTES;
    bool is_good = destination->judged_pages == count_pages && !destination->bad_extents;

    if (!(destination->features & STREAM_FEATURE_CHECKSUMS))
        return true;
    declare(destination, is_good ? FAULTLINE_VERDICT_PASSED : FAULTLINE_VERDICT_FAILED);
    if (is_good || destination->in_postcopy)
        return true;
    g_propagate_error(error, destination_peer_error("verdict: the source has not said of all pages "
                                                    "what it sent"));
    return false;
}

void
destination_leave_unjudged(Destination *destination)
{
    uint64_t *verdict = &destination->faultline->progress.verdict;

    if (progress_get(verdict) == FAULTLINE_VERDICT_PENDING)
        progress_set(verdict, FAULTLINE_VERDICT_UNCHECKED);
}

bool
destination_tell_verdict(Destination *destination)
{
    uint64_t verdict = progress_get(&destination->faultline->progress.verdict);

    if (verdict != FAULTLINE_VERDICT_PASSED && verdict != FAULTLINE_VERDICT_FAILED)
        return true;
    if (!destination->has_told_verdict)
        destination->has_told_verdict =
            destination_post(destination, STREAM_RETURN_VERDICT,
                             (uint32_t)MIN(destination->bad_extents, UINT32_MAX));
    return destination->has_told_verdict;
}

void
destination_tell_whole(Destination *destination)
{
    bool is_whole = destination->in_postcopy && !destination_flag(&destination->is_paused) &&
                    (destination->features & STREAM_FEATURE_CHECKSUMS) &&
                    !__atomic_load_n(&destination->missing_pages, __ATOMIC_ACQUIRE);
    if (is_whole && !destination->has_told_whole)
        destination->has_told_whole = destination_post(destination, STREAM_RETURN_WHOLE, 0);
}
