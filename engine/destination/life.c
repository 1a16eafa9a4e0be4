/* SPDX-License-Identifier: MIT */
/*
 * How a destination comes to be and goes: its memory, listeners and roles. Control thread.
 */
#include "engine/destination/destination.h"
#include "engine/error.h"

static void
make_bitmaps(RamBlocks *blocks, bool with_checksums)
{
    for (unsigned i = 0; i < blocks->count; i++) {
        RamBlock *block = &blocks->blocks[i];
        block->received = page_bitmap_new(block->count_pages);
        block->precopied = page_bitmap_new(block->count_pages);
        block->requested = page_bitmap_new(block->count_pages);
    }
    if (with_checksums)
        ram_blocks_open_checksums(blocks);
}

static bool
open_memory(Destination *destination, GError **error)
{
    if (destination->can_postcopy) {
        destination->uffd = uffd_open(error);
        if (!destination->uffd) {
            g_prefix_error(error, "receive by postcopy: ");
            return false;
        }
    }
    if (!ram_blocks_open_memory(destination->blocks, error))
        return false;
    for (unsigned i = 0; i < destination->blocks->count; i++) {
        RamBlock *block = &destination->blocks->blocks[i];
        if (!uffd_memory_empty(block->memory, error)) {
            g_prefix_error(error, "empty block '%s': ", block->is.name);
            return false;
        }
    }
    return true;
}

static void
make_roles(Destination *destination)
{
    destination->listen = (Role){.name = "listen",
                                 .step = destination_listen_step,
                                 .close = destination_listen_close,
                                 .self = destination};
    destination->package =
        (Role){.name = "package", .step = destination_package_step, .self = destination};
    destination->fault = (Role){.name = "fault",
                                .step = destination_fault_step,
                                .close = destination_fault_close,
                                .self = destination};
}

static bool
listen_at(Destination *destination, const char *const *uris, GError **error)
{
    for (; *uris; uris++) {
        unsigned count = destination->count_listeners;
        if (count == LISTENERS_MAX) {
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                        "listen at '%s': a destination has at most %u addresses", *uris,
                        LISTENERS_MAX);
            return false;
        }
        TransportListener *listener = destination_listen_at(destination->faultline, *uris, error);
        if (!listener)
            return false;
        destination->listeners[destination->count_listeners++] = listener;
        destination->addresses[destination->count_addresses++] =
            g_strdup(transport_listener_address(listener));
    }
    return destination->count_listeners != 0;
}

Destination *
destination_new(Faultline *faultline, const char *const *uris, GError **error)
{
    const Options *options = &faultline->options;
    Destination *destination = g_new0(Destination, 1);

    destination->faultline = faultline;
    destination->blocks = &faultline->blocks;
    destination->can_postcopy = options_has(options, CAPABILITY_POSTCOPY_RAM);
    destination->has_preempt = options_has(options, CAPABILITY_POSTCOPY_PREEMPT);
    destination->accounts = options_has(options, CAPABILITY_POSTCOPY_BLOCKTIME);
    destination->warms = options_has(options, CAPABILITY_WARM_MEMORY);
    destination->spin_limit_ns = options_get(options, PARAMETER_SPIN_LIMIT) * 1000;
    destination->bulk_nice = options_get(options, PARAMETER_BULK_NICE);
    destination->latency_hold = -1;
    destination->can_run = true;
    destination->missing_pages = faultline->blocks.total_bytes / FAULTLINE_PAGE_BYTES;
    destination->stage = destination_stage_accept;
    pthread_mutex_init(&destination->mailbox_lock, NULL);
    frame_queue_init(&destination->out);
    frame_queue_init(&destination->asking);
    make_bitmaps(destination->blocks, options_has(options, CAPABILITY_PAGE_CHECKSUMS));
    page_channel_init(&destination->main, "main", destination->blocks);
    page_channel_init(&destination->urgent, "urgent", destination->blocks);
    destination->walk = faultline->walks[FAULTLINE_WALK_FAULT];
    destination->out.walk = destination->asking.walk = destination->walk;
    destination->out.walk_step = destination->asking.walk_step = WALK_REQUEST_SEND;
    destination->urgent.walk = destination->walk;
    destination->main.walk = faultline->walks[FAULTLINE_WALK_LISTEN];
    make_roles(destination);
    destination->offers_token = options_features(options) & STREAM_FEATURE_TOKEN;
    destination->calls_back =
        destination->offers_token && options_has(options, CAPABILITY_AUTO_RECOVER);
    /* First what can fail for reasons of the caller's: memory is emptied last. */
    bool listens = listen_at(destination, uris, error);
    bool has_token = !destination->offers_token ||
                     random_fill(destination->token, sizeof destination->token, error);
    if (!listens || !has_token || !open_memory(destination, error)) {
        destination_free(destination);
        return NULL;
    }
    destination->address = g_strdup(destination->addresses[0]);
    destination->heard_address = g_strdup(destination->address);
    return destination;
}

void
destination_free(Destination *destination)
{
    destination_close_listeners(destination);
    g_clear_pointer(&destination->offered, transport_listener_free);
    destination_drop_fault_links(destination);
    ram_blocks_close_memory(destination->blocks);
    g_clear_pointer(&destination->uffd, uffd_free);
    for (unsigned i = 0; i < destination->blocks->count; i++) {
        RamBlock *block = &destination->blocks->blocks[i];
        g_clear_pointer(&block->received, page_bitmap_free);
        g_clear_pointer(&block->precopied, page_bitmap_free);
        g_clear_pointer(&block->requested, page_bitmap_free);
    }
    ram_blocks_close_checksums(destination->blocks);
    page_channel_clear(&destination->main);
    page_channel_clear(&destination->urgent);
    frame_queue_clear(&destination->out);
    frame_queue_clear(&destination->asking);
    account_clear(&destination->account);
    g_clear_pointer(&destination->blob, g_byte_array_unref);
    g_clear_pointer(&destination->device.bytes, g_byte_array_unref);
    g_clear_error(&destination->failure);
    g_clear_error(&destination->package_error);
    g_clear_error(&destination->fault_error);
    pthread_mutex_destroy(&destination->mailbox_lock);
    g_free(destination->address);
    g_free(destination->heard_address);
    for (unsigned i = 0; i < destination->count_addresses; i++)
        g_free(destination->addresses[i]);
    g_free(destination);
}

void
destination_stop(Destination *destination)
{
    destination_set_flag(&destination->is_stopping);
    destination_notify(destination, &destination->listen);
    destination_notify(destination, &destination->package);
    destination_notify(destination, &destination->fault);
}
