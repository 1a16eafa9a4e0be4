/* SPDX-License-Identifier: MIT */
/*
 * The package: its bytes are taken off the wire and LISTEN is obeyed by the listen role, which then
 * goes on reading pages; the package role loads the devices, which may touch memory that is still
 * missing, starts the guest at RUN, and then is the mapper. At the end it gives the memory back to
 * the kernel.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define URGENT_NS     5000000000ull /* how long the guest stands for a connection that may not come */
#define STAND_BACK_NS 2000000ull

/* ---- Listen role: the bytes, and LISTEN ------------------------------------------------------ */

static bool
obey_listen(Destination *destination, GError **error)
{
    Reader reader = {.bytes = destination->blob->data, .length = destination->blob->len};
    StreamElement element;
    size_t length;

    if (reader_decode(&reader, destination_decode_element, &element, &length, error) != READ_OK)
        return false;
    if (element.type != STREAM_COMMAND || element.command != STREAM_COMMAND_POSTCOPY_LISTEN) {
        g_propagate_error(
            error, destination_peer_error("load package: it does not begin with POSTCOPY_LISTEN"));
        return false;
    }
    if (!destination_move(destination, POSTCOPY_LISTENING, "POSTCOPY_LISTEN", error))
        return false;
    context_move(destination->faultline, FAULTLINE_STATUS_POSTCOPY_DEVICE);
    if (!destination_register(destination, error))
        return false;
    reader_consume(&reader, length);
    destination->package_reader = reader;
    destination->in_postcopy = true;
    destination->main.block = NULL;
    progress_set(&destination->faultline->progress.remaining_bytes,
                 destination->missing_pages * FAULTLINE_PAGE_BYTES);
    context_note(destination->faultline, FAULTLINE_MOMENT_LISTENING);
    destination_set_flag(&destination->is_listening);
    destination_set_flag(&destination->package_ready);
    destination_notify(destination, &destination->package);
    destination_notify(destination, &destination->fault);
    transport_link_shorten_queue(destination->link);
    thread_set_urgency(URGENCY_BULK, destination->bulk_nice);
    return true;
}

/* A source opens the second connection before it stops its guest, so that it is there by now. */
StageResult
destination_await_urgent(Destination *destination, GError **error)
{
    if (!destination_accept_urgent(destination, error))
        return STAGE_FAILED;
    if (!destination->has_preempt || destination->urgent_link) {
        destination->deadline_ns = 0;
        return STAGE_AGAIN;
    }
    if (!destination->deadline_ns)
        destination->deadline_ns = clock_now_ns() + URGENT_NS;
    destination->listen.wake_ns = destination->deadline_ns;
    if (clock_now_ns() < destination->deadline_ns)
        return STAGE_STAY;
    g_propagate_error(
        error,
        destination_peer_error("receive: the source made no second connection for requested pages; "
                               " set capability postcopy-preempt to the same on both "
                               "sides"));
    return STAGE_FAILED;
}

StageResult
destination_stage_blob(Destination *destination, GError **error)
{
    GByteArray *blob = destination->blob;

    while (blob->len < destination->blob_length) {
        const uint8_t *bytes;
        ReadResult result = reader_peek(&destination->reader, 1, &bytes);
        if (result == READ_LINK)
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "receive package: %s",
                        reader_problem(&destination->reader));
        if (result != READ_OK)
            return destination_stage_of(result, error);
        size_t take =
            MIN(reader_available(&destination->reader), destination->blob_length - blob->len);
        g_byte_array_append(blob, bytes, (guint)take);
        reader_consume(&destination->reader, take);
    }
    destination_order_taking(destination);
    StageResult awaited = destination_await_urgent(destination, error);
    if (awaited != STAGE_AGAIN)
        return awaited;
    context_note(destination->faultline, FAULTLINE_MOMENT_ARRIVED);
    if (!obey_listen(destination, error))
        return STAGE_FAILED;
    if (options_has(&destination->faultline->options, CAPABILITY_LOW_LATENCY))
        destination->latency_hold = cpu_latency_hold();
    destination->deadline_ns = clock_now_ns() + STAND_BACK_NS;
    destination->stage = destination_stage_stand_back;
    return STAGE_AGAIN;
}

/* Pages come as fast as they can be read from here on, and the package role may have to wait for
 * the processor while the guest stands. A device that loads may need one of them, so not for long.
 */
StageResult
destination_stage_stand_back(Destination *destination, GError **error)
{
    (void)error;
    bool is_over =
        destination_flag(&destination->has_run) || destination_flag(&destination->package_failed);
    if (!is_over && clock_now_ns() < destination->deadline_ns) {
        destination->listen.wake_ns = destination->deadline_ns;
        return STAGE_STAY;
    }
    destination->deadline_ns = 0;
    destination->stage = destination_stage_element;
    return STAGE_AGAIN;
}

/* ---- Package role: before anything is to be loaded ------------------------------------------- */

/* Takes memory for one extent, which can last milliseconds; so not when the guest has been stopped,
 * which the first DISCARD tells. false: there is no more to do. */
static bool
warm_some(Destination *destination)
{
    if (!destination->warms || destination_postcopy(destination) > POSTCOPY_ADVISE)
        return false;
    while (destination->warm_block < destination->blocks->count) {
        const RamBlock *block = &destination->blocks->blocks[destination->warm_block];
        uint64_t extent_bytes = uffd_memory_extent_bytes(block->memory);
        uint64_t at = destination->warm_offset;
        uint64_t length = MIN(extent_bytes, block->is.length_bytes - at);
        destination->warms = host_spare_bytes() > length;
        if (!destination->warms)
            return false;
        destination->warm_offset += length;
        bool is_warm = uffd_memory_warm(block->memory, at, length);
        if (!is_warm || destination->warm_offset == block->is.length_bytes) {
            destination->warm_block++;
            destination->warm_offset = 0;
        }
        if (is_warm)
            return true;
    }
    return false;
}

/* ---- Package role: devices and RUN ----------------------------------------------------------- */

static bool
run_guest(Destination *destination, GError **error)
{
    Faultline *faultline = destination->faultline;
    bool autostart = __atomic_load_n(&faultline->autostart, __ATOMIC_RELAXED);

    if (destination->package_reader.length) {
        g_propagate_error(error, destination_peer_error("load package: bytes follow POSTCOPY_RUN"));
        return false;
    }
    if (!destination_move(destination, POSTCOPY_RUNNING, "POSTCOPY_RUN", error))
        return false;
    context_note(faultline, FAULTLINE_MOMENT_LOADED);
    context_move_from(faultline, FAULTLINE_STATUS_POSTCOPY_DEVICE,
                      FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    if (!context_settle_guest(faultline, autostart && destination->can_run, error)) {
        context_set_run_state(faultline, FAULTLINE_RUN_INMIGRATE);
        return false;
    }
    context_note(faultline, FAULTLINE_MOMENT_RUNNING);
    record_order(faultline, FAULTLINE_OWNER_HERE);
    destination_set_flag(&destination->has_run);
    destination_notify(destination, &destination->listen);
    thread_set_urgency(URGENCY_BULK, destination->bulk_nice); /* it is the mapper from here on */
    return true;
}

static bool
take_device(Destination *destination, const StreamElement *element, GError **error)
{
    destination_begin_device(destination, element);
    ReadResult result = destination_load_device(destination, &destination->package_reader, error);
    if (result == READ_END && !*error)
        g_propagate_error(error, destination_peer_error("load package: it ends inside device '%s'",
                                                        element->name));
    return result == READ_OK;
}

/* The source is told that all is loaded, and the guest started, once it is on record. */
static StageResult
await_record(Destination *destination, const StreamElement *element, GError **error)
{
    bool is_last =
        element->type == STREAM_COMMAND && (element->command == STREAM_COMMAND_POSTCOPY_RUN ||
                                            (element->command == STREAM_COMMAND_PING &&
                                             stream_parse_be32(element) == STREAM_PING_LOADED));
    return is_last ? record_await(destination->faultline, FAULTLINE_OWNER_TAKING, error)
                   : STAGE_AGAIN;
}

/* One element of the package; AGAIN, STAY while the mailbox is full or the record not written,
 * FAILED. */
static StageResult
take_element(Destination *destination, GError **error)
{
    Reader *reader = &destination->package_reader;
    StreamElement element;
    size_t length;

    ReadResult result = reader_decode(reader, destination_decode_element, &element, &length, error);
    if (result == READ_END)
        g_propagate_error(error,
                          destination_peer_error("load package: it ends before POSTCOPY_RUN"));
    if (result != READ_OK)
        return STAGE_FAILED;
    StageResult recorded = await_record(destination, &element, error);
    if (recorded != STAGE_AGAIN)
        return recorded;
    if (element.type == STREAM_COMMAND && element.command == STREAM_COMMAND_PING &&
        !destination_answer_ping(destination, stream_parse_be32(&element)))
        return STAGE_STAY;
    reader_consume(reader, length);
    bool taken = true;
    if (element.type == STREAM_FULL) {
        taken = take_device(destination, &element, error);
    } else if (element.type == STREAM_COMMAND && element.command == STREAM_COMMAND_POSTCOPY_RUN) {
        taken = run_guest(destination, error);
    } else if (element.type != STREAM_COMMAND || element.command != STREAM_COMMAND_PING) {
        g_propagate_error(error, destination_peer_error("load package: element 0x%02x, command %u, "
                                                        "has no place in it",
                                                        element.type, element.command));
        taken = false;
    }
    return taken ? STAGE_AGAIN : STAGE_FAILED;
}

static void
fail(Destination *destination, GError *error)
{
    destination->package_error = error;
    destination_set_flag(&destination->package_failed);
    destination_notify(destination, &destination->listen);
}

/* ---- The mapper ------------------------------------------------------------------------------ */

/* Makes one run of precopied pages visible; false: there are no more. Errors are not fatal: a page
 * that stays hidden is shown when it is touched. */
static bool
map_some(Destination *destination)
{
    g_autoptr(GError) ignored = NULL;

    while (destination->map_block < destination->blocks->count) {
        RamBlock *block = &destination->blocks->blocks[destination->map_block];
        uint64_t page =
            page_bitmap_next_set(block->precopied, destination->map_page, block->count_pages);
        if (page < block->count_pages) {
            uint64_t extent = uffd_memory_extent_bytes(block->memory) / FAULTLINE_PAGE_BYTES;
            uint64_t end = MIN(page - page % extent + extent, block->count_pages);
            destination_map_run(block, &page, end, &ignored);
            destination->map_page = page;
            return true;
        }
        destination->map_block++;
        destination->map_page = 0;
    }
    return false;
}

/* All pages are here. Unregistering comes first and is quick; the guest is whole then. Collapsing
 * back to 2 MiB pages may take a while and is only for speed, so that its failure is not told. */
static void
finish_memory(Destination *destination)
{
    for (unsigned pass = 0; pass < 2; pass++) {
        for (unsigned i = 0; i < destination->blocks->count; i++) {
            g_autoptr(GError) failed = NULL;
            UffdMemory *memory = destination->blocks->blocks[i].memory;
            if (!uffd_memory_finish(memory, pass == 1, &failed) && pass == 0)
                context_keep_error(destination->faultline, g_steal_pointer(&failed));
        }
        destination_set_flag(&destination->is_unregistered);
        destination_notify(destination, &destination->listen);
        destination_notify(destination, &destination->fault);
    }
}

StepResult
destination_package_step(void *self)
{
    Destination *destination = self;
    GError *error = NULL;

    if (destination_flag(&destination->is_stopping))
        return STEP_DONE;
    if (destination_flag(&destination->is_ending)) {
        if (!destination_flag(&destination->fault_is_quiet))
            return STEP_WAIT;
        finish_memory(destination);
        return STEP_DONE;
    }
    if (destination_flag(&destination->has_left))
        return STEP_DONE;
    if (!destination_flag(&destination->package_ready))
        return warm_some(destination) ? STEP_AGAIN : STEP_WAIT;
    if (destination_flag(&destination->package_failed))
        return STEP_WAIT;
    if (destination_flag(&destination->has_run))
        return map_some(destination) ? STEP_AGAIN : STEP_WAIT;
    switch (take_element(destination, &error)) {
    case STAGE_FAILED:
        fail(destination, error);
        return STEP_WAIT;
    case STAGE_STAY:
        return STEP_WAIT;
    default:
        return STEP_AGAIN;
    }
}
