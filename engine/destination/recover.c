/* SPDX-License-Identifier: MIT */
/*
 * Pause and recovery at the destination. Listen lets go of the links, waits for a listener from the
 * control thread and for a source at it, and obeys that source's RECV_BITMAPs and RESUME. Fault,
 * who sends all that goes to the source, puts the received bitmaps on the wire piece by piece, and
 * asks again for every page that somebody waits for. Package notices nothing of it.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define PIECE_WORDS 2048u /* of a bitmap, in one frame */

/* ---- Control thread -------------------------------------------------------------------------- */

/* As it was said, or as it came out. */
static bool
listens_at(const Destination *destination, const char *uri)
{
    for (unsigned i = 0; i < destination->count_addresses; i++)
        if (strcmp(uri, destination->addresses[i]) == 0)
            return strcmp(destination->address, destination->addresses[0]) == 0;
    return strcmp(uri, destination->address) == 0;
}

bool
destination_recover(Destination *destination, const char *uri, GError **error)
{
    /* With a door it has never ceased to listen. */
    if (destination_has_door(destination) && !destination_flag(&destination->is_held) &&
        listens_at(destination, uri)) {
        destination_set_flag(&destination->wants_recover);
        destination_notify(destination, &destination->listen);
        return true;
    }
    TransportListener *listener = destination_listen_at(destination->faultline, uri, error);
    if (!listener)
        return false;
    g_free(destination->address);
    destination->address = g_strdup(transport_listener_address(listener));
    record_set_address(destination->faultline, destination->address);
    TransportListener *before =
        __atomic_exchange_n(&destination->offered, listener, __ATOMIC_ACQ_REL);
    g_clear_pointer(&before, transport_listener_free);
    destination_notify(destination, &destination->listen);
    return true;
}

/* ---- Listen role: the pause ------------------------------------------------------------------ */

void
destination_drop_link(TransportLink **link)
{
    if (*link)
        transport_link_shutdown(*link);
    g_clear_pointer(link, transport_link_unref);
}

void
destination_pause(Destination *destination)
{
    g_autoptr(GError) ignored = NULL;

    /* Pages that came whole are good; those that cannot be placed come again. */
    destination_flush_run(destination, &destination->main, &ignored);
    destination_leave_run(destination);
    page_channel_forget(&destination->main);
    if (destination->receiver)
        destination->earlier_bytes += transport_receiver_count_bytes(destination->receiver);
    g_clear_pointer(&destination->receiver, transport_receiver_free);
    reader_clear(&destination->reader);
    destination_drop_link(&destination->link);
    destination_drop_link(&destination->urgent_link);
    /* One that is whole is over, and stays only to say so. */
    bool is_held =
        destination_flag(&destination->is_held) &&
        (!destination_flag(&destination->has_run) || destination_count_missing(destination));
    if (is_held)
        destination_close_door(destination);
    if (is_held || !destination_has_door(destination))
        destination_close_listeners(destination);
    destination->in_recovery = destination->has_posted = false;
    destination_judge_anew(destination);
    destination->stage = destination_stage_paused;
    destination_set_flag(&destination->is_paused);
    destination_set_flag(&destination->drops_links);
    destination_notify(destination, &destination->fault);
}

static void
tell_pause(Destination *destination, const char *where_the_guest_is)
{
    if (!destination->failure)
        return;
    destination_tell_failure(destination, where_the_guest_is);
    if (context_status(destination->faultline) != FAULTLINE_STATUS_POSTCOPY_PAUSED)
        context_move(destination->faultline, FAULTLINE_STATUS_POSTCOPY_PAUSED);
}

/* Loading the device state takes a moment; if it waits for a page that is not here, for ever.
 * false: the moment is not over. */
static bool
has_waited_for_run(Destination *destination)
{
    if (!destination->failure || destination_flag(&destination->has_run))
        return true;
    if (!destination->deadline_ns)
        destination->deadline_ns = clock_now_ns() + DESTINATION_LEAVE_NS;
    destination->listen.wake_ns = destination->deadline_ns;
    return clock_now_ns() >= destination->deadline_ns;
}

/* The source is lost and pages are missing: the guest runs on what is here, and whoever touches a
 * missing page waits. */
StageResult
destination_stage_paused(Destination *destination, GError **error)
{
    bool has_run = destination_flag(&destination->has_run);

    if (destination_flag(&destination->drops_links))
        return STAGE_STAY;
    if (has_run && !destination_count_missing(destination)) {
        destination->stage = destination_stage_leave;
        return STAGE_AGAIN;
    }
    if (!destination_has_main(destination) && !has_waited_for_run(destination))
        return STAGE_STAY;
    destination->listen.wake_ns = 0;
    tell_pause(destination,
               has_run ? "The guest runs here on the pages that have come and waits for the "
                         "others, which the source keeps; keep both processes, and let it go on "
                         "with migrate-recover here and 'migrate' with 'resume' there"
                       : "The guest is here, but does not run yet: loading its devices waits "
                         "for pages, which the source keeps; keep both processes, and let it go "
                         "on with migrate-recover here and 'migrate' with 'resume' there");
    return destination_await_source(destination, error);
}

static void
take_listener(Destination *destination)
{
    TransportListener *offered = __atomic_exchange_n(&destination->offered, NULL, __ATOMIC_ACQ_REL);
    bool may_recover =
        __atomic_exchange_n(&destination->wants_recover, false, __ATOMIC_ACQUIRE) || offered;

    if (may_recover)
        destination_clear_flag(&destination->is_held);
    if (!offered)
        return;
    destination_close_listeners(destination);
    destination->listeners[destination->count_listeners++] = offered;
    g_free(destination->heard_address);
    destination->heard_address = g_strdup(transport_listener_address(offered));
}

StageResult
destination_await_source(Destination *destination, GError **error)
{
    take_listener(destination);
    if (destination_has_door(destination)) {
        if (!destination_take_main(destination))
            return STAGE_STAY;
    } else {
        StageResult result = destination_accept_link(destination, DESTINATION_FIRST_COMMAND,
                                                     &destination->link, error);
        if (result != STAGE_AGAIN)
            return result;
    }
    __atomic_store_n(&destination->bitmaps_asked, 0, __ATOMIC_RELEASE);
    destination->in_recovery = true;
    destination->deadline_ns = 0;
    context_forget_error(destination->faultline);
    context_move(destination->faultline, FAULTLINE_STATUS_POSTCOPY_RECOVER);
    destination_begin_link(destination);
    destination->stage = destination_stage_element;
    return STAGE_AGAIN;
}

/* ---- Listen role: what the source wants ------------------------------------------------------ */

static bool
ask_bitmap(Destination *destination, const StreamElement *element, GError **error)
{
    unsigned count = __atomic_load_n(&destination->bitmaps_asked, __ATOMIC_RELAXED);
    char name[STREAM_NAME_MAX + 1];

    if (!stream_parse_bitmap_name(element, name, error))
        return false;
    const RamBlock *block = ram_blocks_find(destination->blocks, name);
    bool is_again = false;
    for (unsigned i = 0; block && i < count; i++)
        is_again |= destination->bitmap_order[i] == block->index;
    if (!block || is_again) {
        g_propagate_error(error, destination_peer_error(
                                     "recover: RECV_BITMAP for block '%s', %s", name,
                                     block ? "which was asked for before" : "which is not here"));
        return false;
    }
    destination->bitmap_order[count] = block->index;
    __atomic_store_n(&destination->bitmaps_asked, count + 1, __ATOMIC_RELEASE);
    destination_notify(destination, &destination->fault);
    return true;
}

bool
destination_obey_recovery(Destination *destination, const StreamElement *element, GError **error)
{
    unsigned count = __atomic_load_n(&destination->bitmaps_asked, __ATOMIC_RELAXED);

    if (element->type != STREAM_COMMAND) {
        g_propagate_error(error, destination_peer_error("recover: element 0x%02x came before "
                                                        "POSTCOPY_RESUME",
                                                        element->type));
        return false;
    }
    switch (element->command) {
    case STREAM_COMMAND_RECV_BITMAP:
        return ask_bitmap(destination, element, error);
    case STREAM_COMMAND_PING:
        return true;
    case STREAM_COMMAND_POSTCOPY_RESUME:
        if (count == destination->blocks->count)
            return true;
        g_propagate_error(error, destination_peer_error(
                                     "recover: POSTCOPY_RESUME came after %u of %u RECV_BITMAPs",
                                     count, destination->blocks->count));
        return false;
    default:
        g_propagate_error(error, destination_peer_error("recover: %s came before POSTCOPY_RESUME",
                                                        stream_command_name(element->command)));
        return false;
    }
}

/* The source has our bitmaps; whatever was asked for is asked again, once its pages have a way. */
StageResult
destination_stage_resume(Destination *destination, GError **error)
{
    const uint8_t *bytes;

    StageResult result = destination_await_urgent(destination, error);
    if (result == STAGE_FAILED)
        return result;
    if (result == STAGE_STAY) {
        ReadResult read = reader_peek(&destination->reader, 1, &bytes);
        if (read == READ_OK || read == READ_WAIT)
            return STAGE_STAY;
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                    "recover: the connection broke before the second one was there");
        return STAGE_FAILED;
    }
    destination->in_recovery = false;
    context_move(destination->faultline, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    transport_link_shorten_queue(destination->link);
    destination_clear_flag(&destination->is_paused);
    destination_notify(destination, &destination->fault);
    destination->stage = destination_stage_element;
    return STAGE_AGAIN;
}

/* ---- Fault role ------------------------------------------------------------------------------ */

void
destination_forget_links(Destination *destination)
{
    if (destination->urgent_receiver)
        destination->earlier_urgent_bytes +=
            transport_receiver_count_bytes(destination->urgent_receiver);
    g_clear_pointer(&destination->urgent_receiver, transport_receiver_free);
    reader_clear(&destination->urgent_reader);
    page_channel_forget(&destination->urgent);
    destination_forget_damage(destination);
    g_clear_pointer(&destination->sender, transport_sender_free);
    g_clear_pointer(&destination->asking.sender, transport_sender_free);
    destination->out.sender = NULL;
    frame_queue_reset(&destination->out);
    frame_queue_reset(&destination->asking);
    destination_drop_fault_links(destination);
    destination->requests = &destination->out;
    destination->asked = destination->expected = NULL;
    destination->has_urgent = destination->is_sending_shut = destination->is_in_bitmap = false;
    destination->count_asked = destination->bitmaps_sent = 0;
    destination->main_sent = destination->urgent_sent = destination->urgent_heard = (Pulse){0};
    destination->asks_again = true;
    destination->again_block = 0;
    destination->again_page = 0;
    pthread_mutex_lock(&destination->mailbox_lock);
    __atomic_store_n(&destination->mailbox_count, 0, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&destination->mailbox_lock);
    g_clear_error(&destination->fault_error);
    destination_clear_flag(&destination->fault_failed);
    destination_clear_flag(&destination->shut_sent);
    destination_clear_flag(&destination->drops_links);
    destination_notify(destination, &destination->listen);
    destination_notify(destination, &destination->package);
}

/* As many words of a bitmap as the frame has room for. */
static void
put_words(Destination *destination, const RamBlock *block, StreamWriter *writer)
{
    size_t room = (writer->capacity - writer->length - STREAM_RETURN_MAX) / sizeof(uint64_t);
    uint64_t left = block->received->count_words - destination->bitmap_word;
    unsigned count = (unsigned)MIN(MIN(room, left), PIECE_WORDS);

    for (unsigned i = 0; i < count; i++) {
        uint64_t word;
        page_bitmap_read(block->received, destination->bitmap_word++, &word, 1);
        stream_put_bitmap_word(writer, word);
    }
}

bool
destination_put_bitmaps(Destination *destination)
{
    unsigned asked = __atomic_load_n(&destination->bitmaps_asked, __ATOMIC_ACQUIRE);

    while (destination->bitmaps_sent < asked) {
        if (!frame_queue_has_room(&destination->out))
            return true;
        const RamBlock *block =
            &destination->blocks->blocks[destination->bitmap_order[destination->bitmaps_sent]];
        StreamWriter *writer = frame_queue_writer(&destination->out);
        if (!destination->is_in_bitmap) {
            stream_put_bitmap_head(writer, block->is.name, block->count_pages);
            destination->is_in_bitmap = true;
            destination->bitmap_word = 0;
        }
        put_words(destination, block, writer);
        if (destination->bitmap_word < block->received->count_words)
            return true;
        stream_put_bitmap_end(writer);
        destination->is_in_bitmap = false;
        destination->bitmaps_sent++;
    }
    return false;
}

bool
destination_can_put_bitmaps(const Destination *destination)
{
    return destination->bitmaps_sent <
               __atomic_load_n(&destination->bitmaps_asked, __ATOMIC_ACQUIRE) &&
           !destination->out.is_pending;
}

/* A page that somebody may wait for: asked for again; or it is here and could not be shown. */
static bool
serve_again(Destination *destination, RamBlock *block, uint64_t page, uint64_t now_ns,
            GError **error)
{
    if (!page_bitmap_is_set(block->received, page))
        destination_request_page(destination, block, page, now_ns);
    else if (destination->shows_again && !destination_show_received(block, page, error)) {
        destination_set_flag(&destination->has_hidden);
        return false;
    }
    return true;
}

bool
destination_ask_again(Destination *destination, uint64_t now_ns, GError **error)
{
    destination->shows_again |=
        __atomic_exchange_n(&destination->has_hidden, false, __ATOMIC_ACQ_REL);
    while (destination->again_block < destination->blocks->count) {
        RamBlock *block = &destination->blocks->blocks[destination->again_block];
        if (!frame_queue_has_room(destination->requests))
            return !destination->requests->is_pending;
        uint64_t page =
            page_bitmap_next_set(block->requested, destination->again_page, block->count_pages);
        destination->again_page = page + block->host_pages;
        if (page == block->count_pages) {
            destination->again_block++;
            destination->again_page = 0;
        } else if (!serve_again(destination, block, page, now_ns, error)) {
            return false;
        }
    }
    destination->asks_again = destination->shows_again = false;
    return false;
}
