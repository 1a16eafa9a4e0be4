/* SPDX-License-Identifier: MIT */
/*
 * The request role: reads the return path and answers page requests, on the urgent channel itself,
 * or through the pusher when there is none. All requests that are there leave in one frame; what
 * can wait until then does, and neighbours wait until nobody else does. Everything that is wrong
 * with what the peer says ends the role with an error that the migration role takes up.
 *
 * Walk 5 to 8 of 12.
 */
#include "engine/source/source.h"

#define BUSY_STEPS 64u /* without a look at the clock */

/* The first error is the one that the migration role takes up. */
static void
tell_failure(Source *source, GError *error)
{
    if (source_flag(&source->request_failed)) {
        g_error_free(error);
        return;
    }
    source->request_error = error;
    source_set_flag(&source->request_failed);
    source_notify(source);
}

/* Nothing more can be heard on these links; there may be others one day. error: NULL: it was all.
 */
static StepResult
fall_silent(Source *source, GError *error)
{
    if (error)
        tell_failure(source, error);
    source->is_deaf = true;
    source_set_flag(&source->request_ended);
    source_notify(source);
    return STEP_WAIT;
}

/* No page can be answered any more, but what the destination says last is still to be heard. */
static void
lose_urgent(Source *source, GError *error)
{
    source_set_flag(&source->has_lost_urgent);
    tell_failure(source, error);
    source->is_mute = true;
    source->asking = source->sending = NULL;
}

/* ---- Answering ------------------------------------------------------------------------------- */

void
source_leave_to_pusher(Source *source, RamBlock *block, uint64_t page)
{
    uint32_t tail = __atomic_load_n(&source->requests_tail, __ATOMIC_ACQUIRE);
    if (source->requests_head - tail == SOURCE_REQUESTS_MAX)
        return;
    source->requests[source->requests_head % SOURCE_REQUESTS_MAX] =
        (SourceRequest){.block = block->index, .page = page};
    __atomic_store_n(&source->requests_head, source->requests_head + 1, __ATOMIC_RELEASE);
}

/* Goes on inside a claimed host page. False: no room, more of it is to come. */
static bool
put_sending(Source *source)
{
    while (source->sending_page < source->sending_end) {
        if (!frame_queue_has_room(&source->urgent))
            return false;
        WALK_PROBE(page_borrow, source->sending->index, source->sending_page);
        frame_queue_put_page(&source->urgent, source->sending, source->sending_page++);
    }
    source->sending = NULL;
    return true;
}

void
source_put_claimed(Source *source, RamBlock *block, uint64_t page)
{
    source->sending = block;
    source->sending_page = page;
    source->sending_end = page + block->host_pages;
    put_sending(source);
}

/* Puts what was asked for into the frame. False: no room, some of it is left. */
static bool
put_asked(Source *source)
{
    if (source->sending && !put_sending(source))
        return false;
    while (source->asking) {
        RamBlock *block = source->asking;
        uint64_t page = source->asking_page;
        if (!frame_queue_has_room(&source->urgent))
            return false;
        source->asking_page += block->host_pages;
        if (source->asking_page == source->asking_end)
            source->asking = NULL;
        if (!source_claim(block, page))
            continue;
        WALK_PROBE(page_claim, block->index, page);
        walk_step(source->urgent.walk, WALK_PAGE_CLAIM, block->index, page);
        source->answered_pages += block->host_pages;
        source_put_claimed(source, block, page);
        if (source->sending)
            return false;
    }
    return true;
}

/* A frame waits open while the one before is in flight: more may be asked for meanwhile. */
static FlushResult
send_frame(Source *source, GError **error)
{
    FrameQueue *urgent = &source->urgent;

    if (!urgent->sender || source->is_mute)
        return FLUSH_TAKEN;
    if (!urgent->is_pending && frame_queue_has_room(urgent) && !frame_queue_is_empty(urgent) &&
        transport_sender_state(urgent->sender) == TRANSPORT_WAIT)
        return FLUSH_WAIT;
    urgent->releases = source->releases_ram && source_flag(&source->has_loaded);
    return frame_queue_flush(urgent, error);
}

/* Of what was handed over since the last time. */
static void
tell_figures(Source *source)
{
    Progress *progress = &source->faultline->progress;

    if (source->urgent.closed_bytes == source->told_bytes)
        return;
    source->told_bytes = source->urgent.closed_bytes;
    progress_set(&progress->requested_pages, source->answered_pages);
    progress_set(&progress->neighbour_pages, source->neighbour_pages);
    progress_set(&progress->urgent_zero_pages, source->urgent.count_zero);
    progress_set(&progress->urgent_normal_pages, source->urgent.count_normal);
    progress_set(&progress->urgent_bytes, source->urgent.closed_bytes);
}

/* All that requests lead to and that can wait until their pages have left. */
static void
keep_books(Source *source)
{
    progress_add(&source->faultline->progress.postcopy_requests, source->count_noted);
    if (!source->urgent.sender)
        source_notify(source);
    source_learn_requests(source);
}

/* Checks a request against the block table before anybody uses it. */
GError *
source_take_request(Source *source, const StreamReturn *message)
{
    if (!source_flag(&source->answers_requests))
        return source_peer_error(
            "request pages: the destination asked before it was given the guest");
    if (message->type == STREAM_RETURN_REQ_PAGES_ID)
        source->asked = ram_blocks_find(source->blocks, message->name);
    RamBlock *block = source->asked;
    if (!block)
        return source_peer_error("request pages: there is no RAM block '%s' here",
                                 message->type == STREAM_RETURN_REQ_PAGES_ID ? message->name : "");
    uint64_t size = block->is.page_size_bytes;
    if (message->start % size || message->length % size ||
        message->start >= block->is.length_bytes ||
        message->length > block->is.length_bytes - message->start)
        return source_peer_error("request pages: %u bytes at 0x%" G_GINT64_MODIFIER
                                 "x of block '%s' are not whole pages inside it",
                                 message->length, message->start, block->is.name);

    uint64_t page = message->start / FAULTLINE_PAGE_BYTES;
    uint64_t end = page + message->length / FAULTLINE_PAGE_BYTES;
    WALK_PROBE(request_receive, block->index, page, end - page);
    walk_step(source->urgent.walk, WALK_REQUEST_RECEIVE, block->index, page);
    source->noted[source->count_noted++] = (SourceRequest){.block = block->index, .page = page};
    if (source->is_mute)
        return NULL;
    if (source->urgent.sender) {
        if (!source->has_answered)
            thread_set_urgency(URGENCY_URGENT, 0);
        source->has_answered = true;
        source->asking = block;
        source->asking_page = page;
        source->asking_end = end;
        return NULL;
    }
    for (; page < end; page += block->host_pages)
        source_leave_to_pusher(source, block, page);
    return NULL;
}

/* ---- Connections ----------------------------------------------------------------------------- */

static StreamResult
decode_return(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    return stream_decode_return(bytes, available, context, ret_length, error);
}

static void
attach_links(Source *source)
{
    TransportLink *link = __atomic_load_n(&source->request_link, __ATOMIC_ACQUIRE);
    TransportLink *urgent = __atomic_load_n(&source->request_urgent_link, __ATOMIC_ACQUIRE);

    if (link && source->has_return_path && !source->receiver) {
        source->receiver = transport_receiver_new(source->request.ring, link);
        transport_receiver_look(source->receiver);
        source->reader = (Reader){.receiver = source->receiver};
        if (source_has_checksums(source) && !source_flag(&source->needs_proof))
            reader_seal(&source->reader, source_piece_limit(source));
    }
    if (urgent && !source->urgent.sender) {
        source->urgent.sender = transport_sender_new(source->request.ring, urgent);
        bool is_plain = source_has_token(source); /* up to the proof */
        if (!is_plain && source_has_checksums(source))
            frame_queue_seal(&source->urgent);
        if (source->features &
            (STREAM_FEATURE_URGENT_REQUESTS | STREAM_FEATURE_HEARTBEAT | STREAM_FEATURE_TOKEN)) {
            source->urgent_receiver = transport_receiver_new(source->request.ring, urgent);
            transport_receiver_look(source->urgent_receiver);
            source->urgent_reader = (Reader){.receiver = source->urgent_receiver};
            if (!is_plain && source_has_checksums(source))
                reader_seal(&source->urgent_reader, source_piece_limit(source));
        }
    }
}

static void
close_urgent(Source *source)
{
    g_clear_pointer(&source->urgent_receiver, transport_receiver_free);
    reader_clear(&source->urgent_reader);
}

/* A request or a beat on the urgent channel, where nothing else has a place; WAIT: none is there.
 * *lost: the channel broke. */
static ReadResult
take_urgent_message(Source *source, GError **lost, GError **error)
{
    StreamReturn message;
    size_t length;
    GError *failed = NULL;

    ReadResult result =
        reader_decode(&source->urgent_reader, decode_return, &message, &length, &failed);
    if (result == READ_END || result == READ_LINK) {
        close_urgent(source);
        *lost = failed;
        if (!failed && source_has_token(source) && !source_flag(&source->is_urgent_proved))
            *lost = g_error_new(FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                                "the destination closed the urgent connection before it was used");
        return READ_WAIT;
    }
    if (result == READ_OK) {
        reader_consume(&source->urgent_reader, length);
        bool is_proof =
            message.type == STREAM_RETURN_CHALLENGE || message.type == STREAM_RETURN_PROOF;
        bool is_trusted = !source_has_token(source) || source_flag(&source->is_urgent_proved);
        if (is_proof)
            failed = source_take_proof(source, STREAM_CHANNEL_URGENT, &message);
        else if (!is_trusted)
            failed =
                source_peer_error("urgent channel: message %u came before a proof", message.type);
        else if (message.type == STREAM_RETURN_REQ_PAGES ||
                 message.type == STREAM_RETURN_REQ_PAGES_ID)
            failed = source_take_request(source, &message);
        else if (message.type != STREAM_RETURN_PONG)
            failed =
                source_peer_error("urgent channel: message %u has no place there", message.type);
    }
    *error = failed;
    return failed ? READ_BAD : result;
}

/* A message of the return path; END: the last one. */
static ReadResult
take_main_message(Source *source, GError **error)
{
    StreamReturn message;
    size_t length;

    if (source->is_in_bitmap)
        return source_read_bitmap(source, error);
    ReadResult result = reader_decode(&source->reader, decode_return, &message, &length, error);
    if (result == READ_END)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                    "the destination closed the connection");
    if (result != READ_OK)
        return result;
    reader_consume(&source->reader, length);
    *error = source_take_message(source, &message);
    return *error || message.type == STREAM_RETURN_SHUT ? READ_END : READ_OK;
}

/* Takes messages, and puts what they ask for into a frame. OK: it is full, or holds answers enough
 * that the first one must not wait any longer. */
static ReadResult
take_messages(Source *source, GError **lost, GError **error)
{
    for (unsigned count = 0; put_asked(source) && count < SOURCE_BATCH_MAX && !*lost; count++) {
        ReadResult result = READ_WAIT;
        /* To ask the kernel whether there are more would keep the first one waiting. */
        if (count && !reader_available(&source->urgent_reader) &&
            !reader_available(&source->reader) && !frame_queue_is_empty(&source->urgent))
            return READ_OK;
        if (source->urgent_receiver)
            result = take_urgent_message(source, lost, error);
        if (result == READ_WAIT && !*lost)
            result = take_main_message(source, error);
        if (result != READ_OK && !*lost)
            return result;
    }
    return READ_OK;
}

/* Neighbours, when nothing else is to be done. True: more of them may be there. */
static bool
send_neighbours(Source *source, GError **error)
{
    if (!source->count_windows || source->is_mute ||
        transport_sender_state(source->urgent.sender) != TRANSPORT_OK)
        return false;
    source_put_neighbours(source);
    FlushResult flush = send_frame(source, error);
    tell_figures(source);
    return flush == FLUSH_TAKEN;
}

StepResult
source_request_step(void *self)
{
    Source *source = self;
    GError *error = NULL, *lost = NULL;

    if (source_flag(&source->is_stopping))
        return STEP_DONE;
    if (source_flag(&source->drops_links))
        source_forget_links(source);
    attach_links(source);
    if (!source->receiver || source->is_deaf)
        return STEP_WAIT;
    ReadResult read = take_messages(source, &lost, &error);
    FlushResult flush = lost ? FLUSH_FAILED : send_frame(source, &lost);
    tell_figures(source);
    if (source->count_noted)
        keep_books(source);
    bool has_more = read == READ_OK;
    if (read == READ_WAIT && flush == FLUSH_TAKEN)
        has_more = send_neighbours(source, &lost);
    bool is_idle = !has_more || flush != FLUSH_TAKEN;
    if ((is_idle || ++source->count_busy >= BUSY_STEPS) && !lost && !error) {
        source->count_busy = 0;
        source_listen(source, &lost, &error);
    }
    if (lost)
        lose_urgent(source, lost);
    if (error)
        return fall_silent(source, error);
    if (read != READ_OK && read != READ_WAIT)
        return fall_silent(source, NULL);
    if (lost || !is_idle)
        return STEP_AGAIN;
    if (source->has_answered)
        source->request.spin_ns =
            2000 * options_get(&source->faultline->options, PARAMETER_SPIN_LIMIT);
    return STEP_WAIT;
}

void
source_drop_request_links(Source *source)
{
    TransportLink **const slots[] = {&source->request_link, &source->request_urgent_link};
    for (unsigned i = 0; i < G_N_ELEMENTS(slots); i++) {
        TransportLink *link = __atomic_exchange_n(slots[i], NULL, __ATOMIC_ACQ_REL);
        if (link)
            transport_link_unref(link);
    }
}

void
source_request_close(void *self)
{
    Source *source = self;
    source_set_flag(&source->request_ended);
    source_notify(source);
    g_clear_pointer(&source->receiver, transport_receiver_free);
    reader_clear(&source->reader);
    close_urgent(source);
    g_clear_pointer(&source->urgent.sender, transport_sender_free);
    source_drop_request_links(source);
}
