/* SPDX-License-Identifier: MIT */
/*
 * What page-checksums adds at the source: the beginning of sealing, pages that came damaged and are
 * sent again, and the digest by which the destination judges at the end that it has of each page
 * what was sent last. Stages run on the migration role, messages are taken by the request role.
 *
 * A page that came damaged is dirty again, and is sent like any other dirty one. At the end of
 * precopy, with the guest stopped, the destination answers a PING only after it has told of all
 * damage before it; so when it has answered and nothing is dirty, nothing is damaged.
 */
#include "engine/source/source.h"

#define AGREE_NS 30000000000ull

uint64_t
source_piece_limit(const Source *source)
{
    return (1u << 20) + source->blocks->total_bytes / FAULTLINE_PAGE_BYTES;
}

/* ---- The beginning --------------------------------------------------------------------------- */

/* AGAIN: the destination has read all that was sent so far, and told of all damage in it. */
static StageResult
settle(Source *source, GError **error)
{
    if (!source->asks_settled) {
        source->asks_settled = true;
        source->settled_number = source->settled_number % 0xffffu + 1;
        stream_put_ping(frame_queue_writer(&source->main),
                        STREAM_PING_SETTLED | source->settled_number);
    }
    if (source_flush(source, error) == STAGE_FAILED)
        return STAGE_FAILED;
    if (__atomic_load_n(&source->settled_heard, __ATOMIC_ACQUIRE) != source->settled_number)
        return STAGE_STAY;
    source->asks_settled = false;
    return STAGE_AGAIN;
}

/* What was damaged before anything was sealed may have left the destination waiting for bytes that
 * never come. */
static StageResult
check_patience(Source *source, GError **error)
{
    uint64_t now_ns = clock_now_ns();

    if (!source->agree_until_ns)
        source->agree_until_ns = now_ns + AGREE_NS;
    source->migration.wake_ns = source->agree_until_ns;
    if (now_ns < source->agree_until_ns)
        return STAGE_STAY;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                "agree on checksums: the destination has not answered within %u s; look at it and "
                "at the network, or switch page-checksums off",
                (unsigned)(AGREE_NS / 1000000000u));
    return STAGE_FAILED;
}

static void
begin_sealed(Source *source)
{
    frame_queue_seal(&source->main);
    frame_queue_copy(&source->main, true);
    source->releases_ram = false; /* a page may have to be sent again */
    progress_set(&source->faultline->progress.verdict, FAULTLINE_VERDICT_PENDING);
    source->stage = source_stage_agreed;
}

StageResult
source_stage_agree(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result == STAGE_FAILED)
        return result;
    if (result == STAGE_STAY || !source_has_answer(source))
        return check_patience(source, error);
    if (!source_has_checksums(source)) {
        source->stage = source_stage_pass;
        return STAGE_AGAIN;
    }
    if (!source->has_said_sealed)
        stream_put_sealed(frame_queue_writer(&source->main), source->features);
    source->has_said_sealed = true;
    result = source_flush(source, error);
    if (result == STAGE_AGAIN)
        begin_sealed(source);
    return result == STAGE_STAY ? check_patience(source, error) : result;
}

StageResult
source_stage_agreed(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result == STAGE_AGAIN)
        result = settle(source, error);
    if (result == STAGE_STAY)
        return check_patience(source, error);
    source->stage = source_stage_pass;
    return result;
}

/* ---- Damage ---------------------------------------------------------------------------------- */

G_GNUC_PRINTF(1, 2)
static GError *
peer_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    GError *error = g_error_new_valist(FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, format, arguments);
    va_end(arguments);
    return error;
}

/* In postcopy somebody may wait for it, so that it leaves like a page that was asked for. */
static GError *
take_resend(Source *source, const StreamReturn *message)
{
    Progress *progress = &source->faultline->progress;
    bool in_postcopy = source_flag(&source->answers_requests);
    RamBlock *block = ram_blocks_find(source->blocks, message->name);
    uint64_t size = block && in_postcopy ? block->is.page_size_bytes : FAULTLINE_PAGE_BYTES;

    if (!block || message->start % size || message->length % size ||
        message->start >= block->is.length_bytes ||
        message->length > block->is.length_bytes - message->start)
        return peer_error("send damaged pages again: %u bytes at 0x%" G_GINT64_MODIFIER
                          "x of block '%s' are not whole pages of this guest",
                          message->length, message->start, message->name);
    uint64_t page = message->start / FAULTLINE_PAGE_BYTES;
    uint64_t count = message->length / FAULTLINE_PAGE_BYTES;
    page_bitmap_set_range(block->dirty, page, count);
    progress_add(&progress->damaged_pages, count);
    progress_add(&progress->asked_again, count);
    if (in_postcopy && source->urgent.sender && !source->is_mute) {
        source->asking = block;
        source->asking_page = page;
        source->asking_end = page + count;
    }
    for (uint64_t i = 0; in_postcopy && !source->urgent.sender && i < count; i += block->host_pages)
        source_leave_to_pusher(source, block, page + i);
    source_notify(source);
    return NULL;
}

GError *
source_take_integrity(Source *source, const StreamReturn *message)
{
    Progress *progress = &source->faultline->progress;

    if (!source_has_checksums(source))
        return peer_error("return path: message %u needs page-checksums, which is off",
                          message->type);
    if (message->type == STREAM_RETURN_RESEND)
        return take_resend(source, message);
    if (message->type == STREAM_RETURN_WHOLE)
        source_set_flag(&source->has_whole);
    else
        progress_set(&progress->verdict,
                     message->value ? FAULTLINE_VERDICT_FAILED : FAULTLINE_VERDICT_PASSED);
    if (message->type == STREAM_RETURN_VERDICT && message->value)
        context_keep_error(source->faultline,
                           peer_error("verdict: %u parts of 2 MiB of the guest's memory are not at "
                                      "the destination as they were sent; its status says which",
                                      message->value));
    source_notify(source);
    return NULL;
}

/* The end of precopy: the guest stands, everything was sent once. */
StageResult
source_stage_repair(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result == STAGE_AGAIN)
        result = settle(source, error);
    if (result != STAGE_AGAIN)
        return result;
    source->stage = source_count_dirty(source) ? source_stage_rest : source_stage_digest;
    source->cursor_block = 0;
    source->cursor_page = 0;
    return STAGE_AGAIN;
}

/* The end of postcopy: nothing is dirty, but what was sent last may still come back damaged. */
StageResult
source_stage_whole(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    if (source_flag(&source->has_whole)) {
        source->stage = source_stage_digest;
        return STAGE_AGAIN;
    }
    if (!source_count_dirty(source))
        return STAGE_STAY;
    source->stage = source_stage_push;
    return STAGE_AGAIN;
}

/* ---- The digest ------------------------------------------------------------------------------ */

static uint64_t
sum_extent(const RamBlock *block, uint64_t page)
{
    uint64_t end = MIN(page + STREAM_DIGEST_PAGES, block->count_pages), sum = 0;

    for (; page < end; page++)
        sum += block->checksums[page];
    return sum;
}

static void
put_sums(Source *source)
{
    const RamBlock *block = &source->blocks->blocks[source->digest_block];
    uint64_t first = source->digest_page / STREAM_DIGEST_PAGES, sums[STREAM_DIGEST_SUMS];
    unsigned count = 0;

    while (count < STREAM_DIGEST_SUMS && source->digest_page < block->count_pages) {
        sums[count++] = sum_extent(block, source->digest_page);
        source->digest_page += STREAM_DIGEST_PAGES;
    }
    stream_put_digest(frame_queue_writer(&source->main), block->is.name, first, sums, count);
    if (source->digest_page < block->count_pages)
        return;
    source->digest_block++;
    source->digest_page = 0;
}

StageResult
source_stage_digest(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    while (source->digest_block < source->blocks->count && frame_queue_has_room(&source->main))
        put_sums(source);
    if (source->digest_block == source->blocks->count)
        source->stage = source->is_postcopy ? source_stage_finish : source_stage_end;
    return STAGE_AGAIN;
}
