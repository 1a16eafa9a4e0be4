/* SPDX-License-Identifier: MIT */
/*
 * Filling and sending frames: the send half of the main and of the urgent channel. Runs on the role
 * that owns the queue; knows no phases.
 */
#include "engine/frame.h"
#include "engine/zero_page.h"

#include <string.h>

#define COMMAND_ROOM  600u
#define RECORD_BYTES  (STREAM_RECORD_MAX + 8u + STREAM_SEAL_BYTES) /* with a page's checksum */
#define HEADERS_BYTES (FRAME_PAGES * RECORD_BYTES + 4u * COMMAND_ROOM)
G_STATIC_ASSERT(HEADERS_BYTES <= STREAM_ITEM_MAX);
/* The stream's first frame: name, length and page size of each block behind header, commands. */
G_STATIC_ASSERT(RAM_BLOCKS_MAX *(1 + STREAM_NAME_MAX + 16) + 2 * COMMAND_ROOM <= HEADERS_BYTES);

/* ---- Plain and sealed ------------------------------------------------------------------------ */

static void
put_no_checksums(G_GNUC_UNUSED StreamWriter *writer, G_GNUC_UNUSED const FrameRecord *record)
{
}

static void
put_checksums(StreamWriter *writer, const FrameRecord *record)
{
    const RamBlock *block = record->block;

    for (uint64_t i = 0; i < record->count; i++) {
        const uint8_t *page = record->is_zero ? NULL : record->bytes + i * FAULTLINE_PAGE_BYTES;
        uint64_t checksum = stream_page_checksum(page, block->place, record->page + i);
        block->checksums[record->page + i] = checksum;
        if (page)
            stream_put_be64(writer, checksum);
    }
}

static void
leave_unsealed(G_GNUC_UNUSED FrameQueue *queue, G_GNUC_UNUSED uint8_t *at,
               G_GNUC_UNUSED const void *piece, G_GNUC_UNUSED size_t length_bytes)
{
}

static void
seal_piece(FrameQueue *queue, uint8_t *at, const void *piece, size_t length_bytes)
{
    stream_put_seal(at, piece, (uint32_t)length_bytes, queue->count_sealed++);
}

static const FrameFormat plain = {0, put_no_checksums, leave_unsealed};
static const FrameFormat sealed = {STREAM_SEAL_BYTES, put_checksums, seal_piece};

static const uint8_t *
borrow_page(G_GNUC_UNUSED Frame *frame, const RamBlock *block, uint64_t page)
{
    return ram_block_address(block, page);
}

static const uint8_t *
copy_page(Frame *frame, const RamBlock *block, uint64_t page)
{
    uint8_t *copy = frame->copies + (size_t)frame->count_pages * FAULTLINE_PAGE_BYTES;
    return memcpy(copy, ram_block_address(block, page), FAULTLINE_PAGE_BYTES);
}

/* ---- Frames ---------------------------------------------------------------------------------- */

static void
frame_reset(Frame *frame, const FrameFormat *format)
{
    frame->open.count = 0;
    frame->writer.length = format->seal_bytes;
    frame->piece = 0;
    frame->count_iov = frame->count_pages = frame->count_runs = 0;
    frame->length_bytes = 0;
}

void
frame_queue_init(FrameQueue *queue)
{
    *queue = (FrameQueue){.pages_max = FRAME_PAGES, .format = &plain, .borrow = borrow_page};
    for (unsigned i = 0; i < G_N_ELEMENTS(queue->frames); i++)
        queue->frames[i].writer =
            (StreamWriter){.bytes = g_malloc(HEADERS_BYTES), .capacity = HEADERS_BYTES};
}

void
frame_queue_clear(FrameQueue *queue)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(queue->frames); i++)
        g_clear_pointer(&queue->frames[i].writer.bytes, g_free);
    for (unsigned i = 0; i < G_N_ELEMENTS(queue->frames); i++)
        g_clear_pointer(&queue->frames[i].copies, g_free);
}

void
frame_queue_seal(FrameQueue *queue)
{
    g_assert(!queue->is_pending && frame_queue_is_empty(queue));
    queue->format = &sealed;
    queue->count_sealed = 0;
    frame_reset(&queue->frames[queue->next], queue->format);
}

void
frame_queue_unseal(FrameQueue *queue)
{
    g_assert(!queue->is_pending && frame_queue_is_empty(queue));
    queue->format = &plain;
    for (unsigned i = 0; i < G_N_ELEMENTS(queue->frames); i++)
        frame_reset(&queue->frames[i], queue->format);
}

void
frame_queue_copy(FrameQueue *queue, bool copies)
{
    for (unsigned i = 0; copies && i < G_N_ELEMENTS(queue->frames); i++)
        if (!queue->frames[i].copies)
            queue->frames[i].copies = g_malloc(FRAME_PAGES * FAULTLINE_PAGE_BYTES);
    queue->borrow = copies ? copy_page : borrow_page;
}

void
frame_queue_reset(FrameQueue *queue)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(queue->frames); i++)
        frame_reset(&queue->frames[i], queue->format);
    queue->is_pending = false;
    queue->named = NULL;
    queue->count_sealed = 0;
}

static Frame *
current(FrameQueue *queue)
{
    return &queue->frames[queue->next];
}

bool
frame_queue_has_room(const FrameQueue *queue)
{
    return frame_queue_room_pages(queue) != 0;
}

unsigned
frame_queue_room_pages(const FrameQueue *queue)
{
    const Frame *frame = &queue->frames[queue->next];
    size_t taken = frame->writer.length + 2 * COMMAND_ROOM;

    if (queue->is_pending || frame->count_pages >= queue->pages_max ||
        taken > frame->writer.capacity)
        return 0;
    size_t records = (frame->writer.capacity - taken) / RECORD_BYTES;
    return MIN(queue->pages_max - frame->count_pages, (unsigned)records);
}

bool
frame_queue_is_empty(const FrameQueue *queue)
{
    const Frame *frame = &queue->frames[queue->next];
    return !frame->count_iov && frame->writer.length <= queue->format->seal_bytes &&
           !frame->open.count;
}

static void
add_iov(Frame *frame, const void *bytes, size_t length_bytes)
{
    g_assert(frame->count_iov < G_N_ELEMENTS(frame->iov));
    frame->iov[frame->count_iov++] =
        (struct iovec){.iov_base = (void *)bytes, .iov_len = length_bytes};
    frame->length_bytes += length_bytes;
}

static void
close_piece(FrameQueue *queue, Frame *frame)
{
    size_t seal_bytes = queue->format->seal_bytes;
    size_t length = frame->writer.length - frame->piece;
    uint8_t *at = frame->writer.bytes + frame->piece;

    if (length > seal_bytes) {
        queue->format->seal(queue, at, at + seal_bytes, length - seal_bytes);
        add_iov(frame, at, length);
        frame->piece = frame->writer.length;
    }
    frame->writer.length = frame->piece + seal_bytes;
}

/* The room for the next piece's seal becomes that of memory that follows. */
static void
put_memory_seal(FrameQueue *queue, Frame *frame, const void *bytes, size_t length_bytes)
{
    size_t seal_bytes = queue->format->seal_bytes;
    uint8_t *at = frame->writer.bytes + frame->piece;

    if (!seal_bytes)
        return;
    queue->format->seal(queue, at, bytes, length_bytes);
    add_iov(frame, at, seal_bytes);
    frame->piece += seal_bytes;
    frame->writer.length += seal_bytes;
}

static void
note_pages(Frame *frame, const FrameRecord *record)
{
    FrameRun *last = frame->count_runs ? &frame->runs[frame->count_runs - 1] : NULL;
    if (last && last->block == record->block && last->page + last->count == record->page)
        last->count += record->count;
    else
        frame->runs[frame->count_runs++] =
            (FrameRun){.block = record->block, .page = record->page, .count = record->count};
}

/* Writes the record that was open, now that its count is known. */
static void
close_record(FrameQueue *queue)
{
    Frame *frame = current(queue);
    FrameRecord record = frame->open;

    if (!record.count)
        return;
    frame->open.count = 0;
    stream_put_run(&frame->writer, record.is_zero ? STREAM_RAM_ZERO : STREAM_RAM_PAGE,
                   record.is_continue ? NULL : record.block->is.name,
                   record.page * FAULTLINE_PAGE_BYTES, record.count);
    queue->format->put_checksums(&frame->writer, &record);
    if (!record.is_zero) {
        close_piece(queue, frame);
        add_iov(frame, record.bytes, record.count * FAULTLINE_PAGE_BYTES);
    }
    note_pages(frame, &record);
}

StreamWriter *
frame_queue_writer(FrameQueue *queue)
{
    close_record(queue);
    return &current(queue)->writer;
}

void
frame_queue_put_memory(FrameQueue *queue, const void *bytes, size_t length_bytes)
{
    close_record(queue);
    close_piece(queue, current(queue));
    if (!length_bytes)
        return;
    put_memory_seal(queue, current(queue), bytes, length_bytes);
    add_iov(current(queue), bytes, length_bytes);
}

uint64_t
frame_queue_close(FrameQueue *queue)
{
    close_record(queue);
    close_piece(queue, current(queue));
    return current(queue)->length_bytes;
}

void
frame_queue_note_page(FrameQueue *queue, RamBlock *block, uint64_t page)
{
    const FrameRecord noted = {.block = block, .page = page, .count = 1};

    if (!queue->walk || current(queue)->count_pages == FRAME_PAGES)
        return;
    note_pages(current(queue), &noted);
    current(queue)->count_pages++;
}

void
frame_queue_put_page(FrameQueue *queue, RamBlock *block, uint64_t page)
{
    Frame *frame = current(queue);
    FrameRecord *open = &frame->open;
    const uint8_t *bytes = queue->borrow(frame, block, page);
    bool is_zero = zero_page_check(bytes, FAULTLINE_PAGE_BYTES);

    bool joins = queue->puts_runs && open->count && open->count < STREAM_RUN_PAGES_MAX &&
                 open->block == block && open->page + open->count == page &&
                 open->is_zero == is_zero;
    if (!joins) {
        close_record(queue);
        *open = (FrameRecord){.block = block,
                              .bytes = bytes,
                              .page = page,
                              .is_zero = is_zero,
                              .is_continue = queue->named == block};
        queue->named = block;
    }
    open->count++;
    frame->count_pages++;
    *(is_zero ? &queue->count_zero : &queue->count_normal) += 1;
}

/* Whole host pages only. One that ends in this frame began in it or in those before, which have
 * left; one that does not is still being sent, and freeing a part of it could free all. */
static void
release_pages(const Frame *frame)
{
    for (unsigned i = 0; i < frame->count_runs; i++) {
        const FrameRun *run = &frame->runs[i];
        uint64_t page = ram_block_host_page(run->block, run->page);
        uint64_t end = ram_block_host_page(run->block, run->page + run->count);
        if (end > page)
            uffd_memory_release(run->block->memory, page * FAULTLINE_PAGE_BYTES,
                                (end - page) * FAULTLINE_PAGE_BYTES);
    }
}

/* Of a queue whose frames are a step of the walk. */
static void
trace_frame(FrameQueue *queue, const Frame *frame, uint64_t time_ns)
{
    for (unsigned i = 0; i < frame->count_runs; i++) {
        const FrameRun *run = &frame->runs[i];
        if (queue->walk_step == WALK_REPLY_SEND)
            WALK_PROBE(reply_send, run->block->index, run->page, run->count);
        for (uint64_t page = run->page; queue->walk && page < run->page + run->count; page++)
            walk_step_at(queue->walk, queue->walk_step, run->block->index, page, time_ns);
    }
}

static FlushResult
fail(FrameQueue *queue, GError **error)
{
    const GError *cause = transport_sender_error(queue->sender);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "send: %s",
                cause ? cause->message : "the link broke");
    return FLUSH_FAILED;
}

/* The transport has let go of this frame. */
static void
finish_frame(FrameQueue *queue, Frame *frame)
{
    if (queue->releases)
        release_pages(frame);
    frame_reset(frame, queue->format);
}

FlushResult
frame_queue_flush(FrameQueue *queue, GError **error)
{
    Frame *frame = current(queue);

    if (!queue->is_pending) {
        if (frame_queue_is_empty(queue))
            return FLUSH_TAKEN;
        close_record(queue);
        close_piece(queue, frame);
        queue->closed_bytes += frame->length_bytes;
        queue->is_pending = true;
    }
    uint64_t handed_ns = walk_now_ns(queue->walk);
    switch (transport_send(queue->sender, frame->iov, frame->count_iov)) {
    case TRANSPORT_OK:
        if (queue->walk_step)
            trace_frame(queue, frame, handed_ns);
        break;
    case TRANSPORT_WAIT:
        return FLUSH_WAIT;
    default:
        return fail(queue, error);
    }
    queue->is_pending = false;
    /* That this one was taken means that the one before has gone. */
    queue->next ^= 1;
    finish_frame(queue, current(queue));
    return FLUSH_TAKEN;
}

FlushResult
frame_queue_drain(FrameQueue *queue, GError **error)
{
    FlushResult result = frame_queue_flush(queue, error);
    if (result != FLUSH_TAKEN)
        return result;
    switch (transport_sender_state(queue->sender)) {
    case TRANSPORT_OK:
        finish_frame(queue, &queue->frames[queue->next ^ 1]);
        return FLUSH_TAKEN;
    case TRANSPORT_WAIT:
        return FLUSH_WAIT;
    default:
        return fail(queue, error);
    }
}
