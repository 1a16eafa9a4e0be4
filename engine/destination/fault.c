/* SPDX-License-Identifier: MIT */
/*
 * The fault role: page faults become requests (on the urgent channel where the source agreed, else
 * on the main one), replies on the urgent channel become pages. Also sends what the others have for
 * the source, on the main one. It never touches guest memory through the guest
 * mapping and takes no lock that a vCPU may hold. Walk 1 to 4 and 9 to 12 of 12.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define FAULTS_BATCH  16u
#define RECORDS_BATCH 64u
#define BUSY_STEPS    64u /* without a look at the clock */

/* In a pause there is nobody to be told. */
static void
fail(Destination *destination, GError *error)
{
    if (destination_flag(&destination->fault_failed) ||
        (!destination->sender && destination_flag(&destination->is_paused))) {
        g_error_free(error);
        return;
    }
    destination->fault_error = error;
    destination_set_flag(&destination->fault_failed);
    destination_notify(destination, &destination->listen);
}

/* Something can be sent: a link is there, and nobody has given it up. */
static bool
has_source(const Destination *destination)
{
    return destination->sender && !destination_flag(&destination->fault_failed);
}

/* And pages can be asked for. */
static bool
can_ask(const Destination *destination)
{
    return has_source(destination) && !destination_flag(&destination->is_paused);
}

/* ---- Faults ---------------------------------------------------------------------------------- */

void
destination_request_page(Destination *destination, RamBlock *block, uint64_t page, uint64_t now_ns)
{
    const char *name = destination->asked == block ? NULL : block->is.name;
    stream_put_request(frame_queue_writer(destination->requests), name, page * FAULTLINE_PAGE_BYTES,
                       (uint32_t)block->is.page_size_bytes);
    WALK_PROBE(request_send, block->index, page);
    frame_queue_note_page(destination->requests, block, page);
    destination->asked = destination->expected = block;
    destination->expected_page = page;
    destination->asked_ns = now_ns;
    destination->count_asked++;
    progress_add(&destination->faultline->progress.postcopy_requests, 1);
}

void
destination_note_answer(Destination *destination, uint64_t now_ns)
{
    /* The time of one that was alone is a round trip; of several, nobody knows whose it is. */
    if (destination->count_asked == 1 && now_ns > destination->asked_ns)
        destination->answer_mean_ns =
            spin_mean(destination->answer_mean_ns, now_ns - destination->asked_ns);
    if (destination->count_asked)
        destination->count_asked--;
}

/* The kernel tells a fault once: who could not be shown the page now is shown it in a recovery. */
static bool
show_local(Destination *destination, RamBlock *block, uint64_t page, GError **error)
{
    progress_add(&destination->faultline->progress.local_faults, 1);
    if (destination_show_received(block, page, error))
        return true;
    page_bitmap_test_and_set(block->requested, page);
    destination_set_flag(&destination->has_hidden);
    return false;
}

/* Walk 2 and 3 of 12. */
static bool
take_fault(Destination *destination, const UffdFault *fault, uint64_t now_ns, GError **error)
{
    uint64_t page;
    RamBlock *block = ram_blocks_locate(destination->blocks, fault->address, &page);
    if (!block) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "resolve page fault: address 0x%" G_GINT64_MODIFIER
                    "x lies in no RAM block; this is a defect of the library",
                    (uint64_t)fault->address);
        return false;
    }
    page = ram_block_host_page(block, page);
    WALK_PROBE(fault_read, block->index, page, fault->thread);
    WALK_PROBE(fault_locate, block->index, page, fault->address);
    walk_step_at(destination->walk, WALK_FAULT_READ, block->index, page, now_ns);
    if (page_bitmap_is_set(block->received, page))
        return show_local(destination, block, page, error);

    /* Marked first, then looked again: whoever brings the page marks it received and then looks at
     * this mark, so that one of the two sides makes it visible to who came in between. */
    bool was_requested = page_bitmap_test_and_set(block->requested, page);
    WALK_PROBE(fault_mark, block->index, page, was_requested);
    if (page_bitmap_is_set(block->received, page))
        return show_local(destination, block, page, error);
    if (destination->accounts)
        account_begin(&destination->account, block->index, page, fault->thread, now_ns);
    if (!was_requested && can_ask(destination))
        destination_request_page(destination, block, page, now_ns);
    return true;
}

/* The request has left, its page is on the way. */
static void
expect_page(Destination *destination)
{
    if (destination->expected)
        uffd_expect(destination->expected->memory,
                    destination->expected_page * FAULTLINE_PAGE_BYTES);
    destination->expected = NULL;
}

static bool
read_faults(Destination *destination, GError **error)
{
    UffdFault faults[FAULTS_BATCH];

    if (!destination->has_faults || !frame_queue_has_room(destination->requests))
        return false;
    unsigned count = uffd_read_faults(destination->uffd, faults, FAULTS_BATCH);
    destination->has_faults = count == FAULTS_BATCH;
    if (destination->is_rereading)
        spin_learn(&destination->reread, count != 0);
    destination->is_rereading = false;
    uint64_t now_ns = count ? clock_now_ns() : 0;
    /* All of them, also after an error: the kernel tells each only once, and a page that is here
     * must not stay hidden because another one could not be shown. */
    for (unsigned i = 0; i < count; i++)
        take_fault(destination, &faults[i], now_ns, *error ? NULL : error);
    return count != 0;
}

/* ---- Pages on the urgent channel ------------------------------------------------------------- */

static void
close_urgent(Destination *destination)
{
    g_clear_pointer(&destination->urgent_receiver, transport_receiver_free);
    reader_clear(&destination->urgent_reader);
}

static bool
take_urgent_record(Destination *destination, const StreamRecord *record, GError **error)
{
    if (record->flag == STREAM_RAM_EOS)
        return true; /* a beat, or how older sources end this channel */
    if (record->flag != STREAM_RAM_PAGE && record->flag != STREAM_RAM_ZERO) {
        g_propagate_error(error, destination_peer_error("load ram: flags 0x%x have no place on the "
                                                        "urgent channel",
                                                        record->flag));
        return false;
    }
    if (!destination_flag(&destination->is_listening)) {
        g_propagate_error(error, destination_peer_error("load ram: a page came on the urgent "
                                                        "channel before POSTCOPY_LISTEN"));
        return false;
    }
    return destination_take_record(destination, &destination->urgent, record, error);
}

/* A thread that was woken on this CPU has run on, and maybe into its next page, by the time the
 * placing call returns: looking at once, before the ring is asked what else is new, saves that
 * thread a system call or two. */
static bool
looks_again(Destination *destination)
{
    if (reader_available(&destination->urgent_reader) || !spin_allow(&destination->reread, 1))
        return false;
    destination->is_rereading = !destination->has_faults;
    destination->has_faults = true;
    return true;
}

/* A page may still have to come on it. In precopy nobody knows better; a source that has nothing
 * more to send closes it, but not before precopy's SHUT. */
static bool
needs_urgent(const Destination *destination)
{
    if (destination_flag(&destination->is_listening))
        return __atomic_load_n(&destination->missing_pages, __ATOMIC_ACQUIRE) != 0;
    return !destination->is_sending_shut;
}

/* Reads on to the end also when the source is lost: what it sent last is good. */
static bool
read_urgent(Destination *destination, GError **error)
{
    StreamRecord record;
    size_t length;

    for (unsigned count = 0; count < RECORDS_BATCH; count++) {
        if (!destination->urgent_receiver)
            return count != 0;
        ReadResult result = destination_read_record(&destination->urgent_reader,
                                                    &destination->urgent, &record, &length, error);
        progress_set(&destination->faultline->progress.received_urgent_bytes,
                     destination->earlier_urgent_bytes +
                         transport_receiver_count_bytes(destination->urgent_receiver));
        if (result == READ_WAIT)
            return count != 0;
        if (result == READ_END && needs_urgent(destination))
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                        "receive: the source closed the urgent channel");
        if (result != READ_OK || !take_urgent_record(destination, &record, error)) {
            close_urgent(destination);
            return true;
        }
        reader_consume(&destination->urgent_reader, length);
        if (record.flag != STREAM_RAM_EOS && looks_again(destination))
            break;
    }
    return true;
}

/* ---- Messages to the source ------------------------------------------------------------------ */

bool
destination_post(Destination *destination, StreamReturnType type, uint32_t value)
{
    pthread_mutex_lock(&destination->mailbox_lock);
    bool has_room = destination->mailbox_count < MAILBOX_MAX;
    if (has_room) {
        destination->mailbox[destination->mailbox_count] =
            (ReturnMessage){.type = type, .value = value};
        __atomic_store_n(&destination->mailbox_count, destination->mailbox_count + 1,
                         __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&destination->mailbox_lock);
    if (has_room)
        destination_notify(destination, &destination->fault);
    return has_room;
}

static void
put_message(Destination *destination, const ReturnMessage *message)
{
    StreamWriter *writer = frame_queue_writer(&destination->out);
    bool is_answer = message->type == STREAM_RETURN_PONG &&
                     (message->value & STREAM_HELLO_MASK) == STREAM_HELLO_ANSWER &&
                     (message->value & STREAM_FEATURE_CHECKSUMS);

    if (message->type == STREAM_RETURN_WHOLE)
        stream_put_whole(writer);
    else if (message->type == STREAM_RETURN_TOKEN)
        stream_put_return_secret(writer, message->type, destination->token);
    else if (message->type == STREAM_RETURN_ADDRESS)
        stream_put_return_address(writer, destination->addresses[message->value]);
    else
        stream_put_return_value(writer, message->type, message->value);
    destination->is_sending_shut |= message->type == STREAM_RETURN_SHUT;
    destination->seals_next = is_answer && destination->has_answered;
    destination->has_answered |= is_answer;
}

static void
empty_mailbox(Destination *destination)
{
    if (destination->seals_next || !frame_queue_has_room(&destination->out) ||
        !destination_put_resends(destination) ||
        !__atomic_load_n(&destination->mailbox_count, __ATOMIC_ACQUIRE) ||
        !frame_queue_has_room(&destination->out))
        return;
    pthread_mutex_lock(&destination->mailbox_lock);
    bool was_full = destination->mailbox_count == MAILBOX_MAX;
    unsigned count = 0;
    while (count < destination->mailbox_count && !destination->seals_next)
        put_message(destination, &destination->mailbox[count++]);
    unsigned left = destination->mailbox_count - count;
    memmove(destination->mailbox, destination->mailbox + count,
            left * sizeof destination->mailbox[0]);
    __atomic_store_n(&destination->mailbox_count, left, __ATOMIC_RELEASE);
    pthread_mutex_unlock(&destination->mailbox_lock);
    if (was_full) {
        destination_notify(destination, &destination->listen);
        destination_notify(destination, &destination->package);
    }
}

/* Whole bitmaps, with nothing in between; then what others have for the source. */
static void
fill_frame(Destination *destination)
{
    if (has_source(destination) && !destination->out.is_pending &&
        !destination_put_bitmaps(destination))
        empty_mailbox(destination);
}

static void
send_messages(Destination *destination, GError **error)
{
    if (destination->asking.sender &&
        frame_queue_flush(&destination->asking, error) == FLUSH_FAILED)
        return;
    if (frame_queue_flush(&destination->out, error) == FLUSH_TAKEN && !*error) {
        if (destination->seals_next)
            frame_queue_seal(&destination->out);
        destination->seals_next = false;
        fill_frame(destination);
        frame_queue_flush(&destination->out, error);
    }
    if (*error || !destination->is_sending_shut || destination_flag(&destination->shut_sent))
        return;
    if (frame_queue_drain(&destination->out, error) == FLUSH_TAKEN) {
        destination_set_flag(&destination->shut_sent);
        destination_notify(destination, &destination->listen);
    }
}

/* ---- The role -------------------------------------------------------------------------------- */

/* Where requests go. */
static void
choose_requests(Destination *destination, TransportLink *urgent)
{
    bool is_on_urgent = urgent && (destination->features & STREAM_FEATURE_URGENT_REQUESTS);

    bool is_used = destination->features & STREAM_FEATURE_HEARTBEAT || is_on_urgent;

    destination->requests = is_on_urgent ? &destination->asking : &destination->out;
    if (!urgent || !is_used || destination->asking.sender)
        return;
    destination->asking.sender = transport_sender_new(destination->fault.ring, urgent);
    if (destination->features & STREAM_FEATURE_CHECKSUMS)
        frame_queue_seal(&destination->asking);
}

static void
attach_links(Destination *destination, TransportLink *link, TransportLink *urgent)
{
    TransportRing *ring = destination->fault.ring;

    if (link && !destination->sender) {
        destination->sender = transport_sender_new(ring, link);
        destination->out.sender = destination->sender;
    }
    if (urgent && !destination->has_urgent) {
        destination->has_urgent = true;
        destination->urgent_receiver = transport_receiver_new(ring, urgent);
        transport_receiver_look(destination->urgent_receiver);
        destination->urgent_reader = (Reader){.receiver = destination->urgent_receiver};
        if (destination->features & STREAM_FEATURE_CHECKSUMS)
            reader_seal(&destination->urgent_reader, destination_piece_limit(destination));
        if (destination->is_watching)
            choose_requests(destination, urgent);
    }
}

static bool
attach(Destination *destination, GError **error)
{
    bool is_listening = destination_flag(&destination->is_listening); /* before the links */
    TransportLink *link = __atomic_load_n(&destination->fault_link, __ATOMIC_ACQUIRE);
    TransportLink *urgent = __atomic_load_n(&destination->fault_urgent_link, __ATOMIC_ACQUIRE);

    attach_links(destination, link, urgent);
    if (destination->is_watching || !is_listening || destination_flag(&destination->fault_failed))
        return true;
    choose_requests(destination, urgent);
    if (!transport_ring_watch(destination->fault.ring, uffd_fd(destination->uffd),
                              &destination->has_faults, error))
        return false;
    destination->is_watching = true;
    thread_set_urgency(URGENCY_URGENT, 0);
    account_start(&destination->account, destination->faultline);
    return true;
}

static void
drain_placed(Destination *destination)
{
    uint32_t head = __atomic_load_n(&destination->placed_head, __ATOMIC_ACQUIRE);
    while (destination->placed_tail != head) {
        const PlacedPage *placed = &destination->placed[destination->placed_tail % PLACED_MAX];
        account_end(&destination->account, placed->block, placed->page, placed->when_ns);
        destination_note_answer(destination, placed->when_ns);
        __atomic_store_n(&destination->placed_tail, destination->placed_tail + 1, __ATOMIC_RELEASE);
    }
}

static void
be_quiet(Destination *destination)
{
    if (destination_flag(&destination->fault_is_quiet))
        return;
    destination_set_flag(&destination->fault_is_quiet);
    destination_notify(destination, &destination->package);
}

/* The control thread wants all roles to end: a device that loads may wait for a page, and is let go
 * so that its role can. What it reads then is lost together with the guest. A guest that runs is
 * not let go: it would go on with pages of zeros. The listen role has left, so that nothing is
 * registered after this. */
static void
let_go(Destination *destination)
{
    if (!destination_flag(&destination->is_stopping) ||
        !destination_flag(&destination->is_listening) ||
        destination_flag(&destination->is_ending) || destination_flag(&destination->has_run))
        return;
    for (unsigned i = 0; i < destination->blocks->count; i++) {
        g_autoptr(GError) ignored = NULL;
        uffd_memory_finish(destination->blocks->blocks[i].memory, false, &ignored);
    }
}

/* One round; true: there may be more to do. */
static bool
work(Destination *destination, GError **error)
{
    if (!attach(destination, error))
        return false;
    drain_placed(destination);
    bool asks =
        can_ask(destination); /* first: what listen has posted before that goes out before */
    fill_frame(destination);
    bool has_worked = read_faults(destination, error);
    if (asks && destination->asks_again && !*error)
        has_worked |= destination_ask_again(destination, clock_now_ns(), error);
    if (!*error && has_source(destination)) {
        send_messages(destination, error);
        has_worked |= !*error && destination_can_put_bitmaps(destination);
    }
    expect_page(destination);
    if (!*error)
        has_worked |= read_urgent(destination, error);
    if (!*error && has_source(destination) &&
        (!has_worked || ++destination->count_working >= BUSY_STEPS))
        destination_beat(destination, error);
    return has_worked;
}

StepResult
destination_fault_step(void *self)
{
    Destination *destination = self;
    GError *error = NULL;

    /* All is over: nothing can fault any more, and nothing is left to be said. */
    bool is_unregistered = destination_flag(&destination->is_unregistered);
    if (is_unregistered || destination_flag(&destination->has_left)) {
        if (!is_unregistered)
            let_go(destination);
        drain_placed(destination);
        be_quiet(destination);
        return STEP_DONE;
    }
    if (destination_flag(&destination->is_ending)) {
        /* Whoever waits is woken by the unregistering. */
        be_quiet(destination);
        return STEP_WAIT;
    }
    if (destination_flag(&destination->is_stopping))
        return STEP_WAIT; /* for listen, which may be about to register */
    bool has_worked = work(destination, &error);
    if (error)
        fail(destination, error);
    if (destination_flag(&destination->drops_links)) {
        destination_forget_links(destination);
        return STEP_AGAIN;
    }
    if (destination->count_asked)
        destination->fault.spin_ns =
            spin_for_answer(destination->answer_mean_ns, destination->spin_limit_ns);
    return has_worked ? STEP_AGAIN : STEP_WAIT;
}

void
destination_drop_fault_links(Destination *destination)
{
    TransportLink **const slots[] = {&destination->fault_link, &destination->fault_urgent_link};
    for (unsigned i = 0; i < G_N_ELEMENTS(slots); i++) {
        TransportLink *link = __atomic_exchange_n(slots[i], NULL, __ATOMIC_ACQ_REL);
        if (link)
            transport_link_unref(link);
    }
}

void
destination_fault_close(void *self)
{
    Destination *destination = self;
    close_urgent(destination);
    g_clear_pointer(&destination->sender, transport_sender_free);
    g_clear_pointer(&destination->asking.sender, transport_sender_free);
    destination_drop_fault_links(destination);
}
