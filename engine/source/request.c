/* SPDX-License-Identifier: MIT */
/*
 * The request role: reads the return path and answers page requests, on the urgent channel itself,
 * or through the pusher when there is none. Everything that is wrong with what the peer says ends
 * the role with an error that the migration role takes up.
 *
 * Walk 5 to 8 of 12.
 */
#include "engine/source/source.h"

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

static StepResult
fail(Source *source, GError *error)
{
    tell_failure(source, error);
    return STEP_DONE;
}

/* No page can be answered any more, but what the destination says last is still to be heard. */
static StepResult
lose_urgent(Source *source, GError *error)
{
    tell_failure(source, error);
    source->is_mute = true;
    source->asking = NULL;
    return STEP_AGAIN;
}

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

/* ---- Answering ------------------------------------------------------------------------------- */

static void
leave_to_pusher(Source *source, RamBlock *block, uint64_t page)
{
    uint32_t tail = __atomic_load_n(&source->requests_tail, __ATOMIC_ACQUIRE);
    if (source->requests_head - tail == SOURCE_REQUESTS_MAX)
        return;
    source->requests[source->requests_head % SOURCE_REQUESTS_MAX] =
        (SourceRequest){.block = block->index, .page = page};
    __atomic_store_n(&source->requests_head, source->requests_head + 1, __ATOMIC_RELEASE);
    source_notify(source);
}

static void
put_claimed(Source *source)
{
    RamBlock *block = source->asking;
    while (source->sending_page < source->sending_end && frame_queue_has_room(&source->urgent))
        frame_queue_put_page(&source->urgent, block, source->sending_page++);
}

/* Goes on with the request under way; WAIT while the urgent channel is full. */
static FlushResult
answer(Source *source, GError **error)
{
    RamBlock *block = source->asking;

    source->urgent.releases = source->releases_ram && source_flag(&source->has_loaded);
    FlushResult result = frame_queue_flush(&source->urgent, error);
    while (result == FLUSH_TAKEN && (source->sending_page < source->sending_end ||
                                     source->asking_page < source->asking_end)) {
        if (source->sending_page == source->sending_end) {
            uint64_t page = source->asking_page;
            source->asking_page += block->host_pages;
            if (!source_claim(block, page))
                continue;
            walk_step(source->urgent.walk, WALK_PAGE_CLAIM, block->index, page);
            source->sending_page = page;
            source->sending_end = page + block->host_pages;
            progress_add(&source->faultline->progress.requested_pages, block->host_pages);
        }
        put_claimed(source);
        if (!frame_queue_has_room(&source->urgent))
            result = frame_queue_flush(&source->urgent, error);
    }
    if (result == FLUSH_TAKEN)
        result = frame_queue_flush(&source->urgent, error);
    if (result == FLUSH_TAKEN) {
        uint64_t hint = (uint64_t)block->index << SOURCE_HINT_SHIFT | source->asking_end;
        __atomic_store_n(&source->cursor_hint, hint, __ATOMIC_RELEASE);
        source->asking = NULL;
    }
    progress_set(&source->faultline->progress.urgent_zero_pages, source->urgent.count_zero);
    progress_set(&source->faultline->progress.urgent_normal_pages, source->urgent.count_normal);
    progress_set(&source->faultline->progress.urgent_bytes, source->urgent.closed_bytes);
    return result;
}

/* Checks a request against the block table before anybody uses it. */
static GError *
take_request(Source *source, const StreamReturn *message)
{
    if (!source_flag(&source->answers_requests))
        return peer_error("request pages: the destination asked before it was given the guest");
    if (message->type == STREAM_RETURN_REQ_PAGES_ID)
        source->asked = ram_blocks_find(source->blocks, message->name);
    RamBlock *block = source->asked;
    if (!block)
        return peer_error("request pages: there is no RAM block '%s' here",
                          message->type == STREAM_RETURN_REQ_PAGES_ID ? message->name : "");
    uint64_t size = block->is.page_size_bytes;
    if (message->start % size || message->length % size ||
        message->start >= block->is.length_bytes ||
        message->length > block->is.length_bytes - message->start)
        return peer_error("request pages: %u bytes at 0x%" G_GINT64_MODIFIER
                          "x of block '%s' are not whole pages inside it",
                          message->length, message->start, block->is.name);

    progress_add(&source->faultline->progress.postcopy_requests, 1);
    source->asking_page = message->start / FAULTLINE_PAGE_BYTES;
    walk_step(source->urgent.walk, WALK_REQUEST_RECEIVE, block->index, source->asking_page);
    source->asking_end = source->asking_page + message->length / FAULTLINE_PAGE_BYTES;
    if (source->is_mute)
        return NULL;
    if (source->urgent.sender) {
        if (!source->has_answered)
            thread_set_urgency(URGENCY_URGENT, 0);
        source->has_answered = true;
        source->asking = block;
        return NULL;
    }
    for (; source->asking_page < source->asking_end; source->asking_page += block->host_pages)
        leave_to_pusher(source, block, source->asking_page);
    return NULL;
}

/* ---- Messages -------------------------------------------------------------------------------- */

static void
take_pong(Source *source, uint32_t value)
{
    bool is_hello = (value & STREAM_HELLO_MASK) == STREAM_HELLO; /* a QEMU's echo */
    bool is_answer = (value & STREAM_HELLO_MASK) == STREAM_HELLO_ANSWER;

    /* Once: features do not change after others were told of them. */
    if ((is_hello || is_answer) && !source_flag(&source->has_pong)) {
        source->features = is_answer ? value & source->offers : 0;
        source->urgent.puts_runs = source->features & STREAM_FEATURE_RUNS;
        source_set_flag(&source->has_pong);
    } else if (value == STREAM_PING_SETTLED) {
        source_set_flag(&source->has_settled);
    } else if (value == STREAM_PING_COMMIT) {
        source_set_flag(&source->has_commit);
    } else if (value == STREAM_PING_LOADED) {
        source_set_flag(&source->has_loaded);
    }
    source_notify(source);
}

static GError *
take_message(Source *source, const StreamReturn *message)
{
    switch (message->type) {
    case STREAM_RETURN_PONG:
        take_pong(source, message->value);
        return NULL;
    case STREAM_RETURN_SHUT:
        source->shut_value = message->value;
        source_set_flag(&source->has_shut);
        source_notify(source);
        return NULL;
    case STREAM_RETURN_REQ_PAGES:
    case STREAM_RETURN_REQ_PAGES_ID:
        return take_request(source, message);
    case STREAM_RETURN_SWITCHOVER_ACK:
        return NULL;
    case STREAM_RETURN_RECV_BITMAP:
    case STREAM_RETURN_RESUME_ACK:
        break;
    }
    return peer_error("return path: message %u belongs to a recovery, and none is under way",
                      message->type);
}

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
    }
    if (urgent && !source->urgent.sender) {
        source->urgent.sender = transport_sender_new(source->request.ring, urgent);
        if (source->features & STREAM_FEATURE_URGENT_REQUESTS) {
            source->urgent_receiver = transport_receiver_new(source->request.ring, urgent);
            transport_receiver_look(source->urgent_receiver);
            source->urgent_reader = (Reader){.receiver = source->urgent_receiver};
        }
    }
}

static void
close_urgent(Source *source)
{
    g_clear_pointer(&source->urgent_receiver, transport_receiver_free);
    source->urgent_reader = (Reader){0};
}

/* A request on the urgent channel, where nothing else has a place. AGAIN: taken, or the channel
 * has ended; WAIT: none is there. */
static StepResult
read_urgent(Source *source)
{
    StreamReturn message;
    size_t length;
    GError *error = NULL;

    switch (reader_decode(&source->urgent_reader, decode_return, &message, &length, &error)) {
    case READ_OK:
        break;
    case READ_WAIT:
        return STEP_WAIT;
    case READ_END:
        close_urgent(source);
        return STEP_AGAIN;
    case READ_LINK:
        close_urgent(source);
        return lose_urgent(source, error);
    default:
        return fail(source, error);
    }
    reader_consume(&source->urgent_reader, length);
    if (message.type == STREAM_RETURN_REQ_PAGES || message.type == STREAM_RETURN_REQ_PAGES_ID)
        error = take_request(source, &message);
    else
        error = peer_error("urgent channel: message %u has no place there", message.type);
    return error ? fail(source, error) : STEP_AGAIN;
}

StepResult
source_request_step(void *self)
{
    Source *source = self;
    StreamReturn message;
    size_t length;
    GError *error = NULL;

    if (source_flag(&source->is_stopping))
        return STEP_DONE;
    attach_links(source);
    if (!source->receiver)
        return STEP_WAIT;
    if (source->asking) {
        FlushResult result = answer(source, &error);
        if (result != FLUSH_TAKEN)
            return result == FLUSH_WAIT ? STEP_WAIT : lose_urgent(source, error);
    }
    if (source->urgent_receiver) {
        StepResult result = read_urgent(source);
        if (result != STEP_WAIT)
            return result;
    }
    switch (reader_decode(&source->reader, decode_return, &message, &length, &error)) {
    case READ_OK:
        break;
    case READ_WAIT:
        if (source->has_answered)
            source->request.spin_ns =
                2000 * options_get(&source->faultline->options, PARAMETER_SPIN_LIMIT);
        return STEP_WAIT;
    case READ_END:
        return fail(source, g_error_new(FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                                        "the destination closed the connection"));
    default:
        return fail(source, error);
    }
    reader_consume(&source->reader, length);
    error = take_message(source, &message);
    if (error)
        return fail(source, error);
    return message.type == STREAM_RETURN_SHUT ? STEP_DONE : STEP_AGAIN;
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
    close_urgent(source);
    g_clear_pointer(&source->urgent.sender, transport_sender_free);
    source_drop_request_links(source);
}
