/* SPDX-License-Identifier: MIT */
/*
 * transport.h without sockets: links are pairs of byte pipes with a bound, a delay and a place
 * where they break.
 *
 * What a kernel may do, the network does here at random: takes any part of a send, from the
 * caller's memory as it is at that moment; delivers any part of what is on the way; reports a
 * broken link to both ends at different times, after any part of what was on the way. What the
 * header forbids a caller is checked: a ring used by a foreign thread, pieces of a send changed in
 * flight, things freed in the wrong order or not at all.
 */
#include "tests/sim/sim_pipe.h"
#include "tests/sim/sim_table.h"

#include <string.h>

/* ---- Links -------------------------------------------------------------------------------------
 */

TransportLink *
transport_link_ref(TransportLink *link)
{
    sim_check(link->references > 0, "transport_link_ref: link is freed");
    link->references++;
    return link;
}

void
transport_link_unref(TransportLink *link)
{
    sim_check(link->references > 0, "transport_link_unref: link is freed");
    if (--link->references == 0) {
        sim_trace("link %u is closed", link->number);
        sim_link_close(link);
    }
}

void
transport_link_shutdown(TransportLink *link)
{
    sim_check(link->references > 0, "transport_link_shutdown: link is freed");
    sim_trace("link %u is shut down", link->number);
    sim_link_close(link);
    Pipe *out = sim_pipe_out(link), *in = sim_pipe_in(link);
    if (out->sender && out->sender->alive)
        transport_ring_notify(out->sender->ring);
    if (in->receiver && in->receiver->alive)
        transport_ring_notify(in->receiver->ring);
}

void
transport_link_shorten_queue(TransportLink *link)
{
    sim_check(link->references > 0, "transport_link_shorten_queue: link is freed");
}

/* ---- Sending -----------------------------------------------------------------------------------
 */

/* Of the array, and of all pieces that are not guest memory: those may not change in flight. */
uint64_t
sim_sender_hash(const TransportSender *sender)
{
    uint64_t hash = sender->count_iov;
    for (unsigned i = 0; i < sender->count_iov; i++) {
        const struct iovec *iov = &sender->iov[i];
        SimSide side;
        unsigned block;
        uint64_t offset;
        hash = hash * 31 + (uintptr_t)iov->iov_base + iov->iov_len;
        if (sim_guest_find(iov->iov_base, &side, &block, &offset))
            continue;
        const uint8_t *bytes = iov->iov_base;
        for (size_t j = 0; j < iov->iov_len; j++)
            hash = hash * 0x100000001b3u + bytes[j];
    }
    return hash;
}

TransportSender *
transport_sender_new(TransportRing *ring, TransportLink *link)
{
    sim_ring_check(ring);
    TransportSender *sender = &net.senders[link->number * 2 + link->end];
    sim_check(!sender->alive, "transport_sender_new: the link's half has a sender");
    *sender = (TransportSender){0};
    sender->ring = ring;
    sender->link = transport_link_ref(link);
    sender->pipe = sim_pipe_out(link);
    sender->alive = true;
    sender->pipe->sender = sender;
    ring->count_users++;
    return sender;
}

void
transport_sender_free(TransportSender *sender)
{
    if (!sender)
        return;
    sim_ring_check(sender->ring);
    sim_check(sender->alive, "transport_sender_free: twice");
    sender->alive = false;
    sender->busy = false;
    sender->ring->count_users--;
    sender->pipe->sender = NULL;
    g_clear_error(&sender->error);
    transport_link_unref(sender->link);
}

static void
fail_sender(TransportSender *sender)
{
    if (!sender->error)
        sender->error =
            g_error_new(TRANSPORT_ERROR, TRANSPORT_ERROR_LINK, "simulated: link broke (send)");
    sender->busy = false;
}

static bool
sender_is_broken(TransportSender *sender)
{
    Pipe *pipe = sender->pipe;
    /* As with a socket, who has nothing in flight does not notice. */
    if (sender->busy && pipe->sender_outcome != OUTCOME_OPEN &&
        pipe->sender_outcome_ns <= sim.now_ns)
        fail_sender(sender);
    return sender->error != NULL;
}

TransportResult
transport_send(TransportSender *sender, const struct iovec *iov, unsigned count_iov)
{
    sim_ring_check(sender->ring);
    sim_check(sender->alive, "transport_send: sender is freed");
    sim_check(count_iov > 0 && count_iov <= TRANSPORT_IOV_MAX, "transport_send: %u pieces",
              count_iov);
    if (sender_is_broken(sender))
        return TRANSPORT_ERROR_RESULT;
    if (sender->busy)
        return TRANSPORT_WAIT;
    sim_preempt();
    sender->iov = iov;
    sender->count_iov = count_iov;
    sender->piece = 0;
    sender->offset = 0;
    sender->busy = true;
    sender->hash = sim_sender_hash(sender);
    sim_trace("link %u: send of %u pieces begins", sender->link->number, count_iov);
    sender->pipe->take_ns = sim.now_ns;
    sender->pipe->sender_outcome_told = false;
    return TRANSPORT_OK;
}

TransportResult
transport_sender_state(TransportSender *sender)
{
    sim_ring_check(sender->ring);
    sim_check(sender->alive, "transport_sender_state: sender is freed");
    sim_preempt();
    if (sender_is_broken(sender))
        return TRANSPORT_ERROR_RESULT;
    return sender->busy ? TRANSPORT_WAIT : TRANSPORT_OK;
}

uint64_t
transport_sender_accepted_bytes(const TransportSender *sender)
{
    return sender->accepted_bytes;
}

const GError *
transport_sender_error(const TransportSender *sender)
{
    return sender->error;
}

/* ---- Receiving ---- */

TransportReceiver *
transport_receiver_new(TransportRing *ring, TransportLink *link)
{
    sim_ring_check(ring);
    TransportReceiver *receiver = &net.receivers[link->number * 2 + link->end];
    sim_check(!receiver->alive, "transport_receiver_new: the link's half has a receiver");
    memset(receiver, 0, offsetof(TransportReceiver, bytes));
    receiver->ring = ring;
    receiver->link = transport_link_ref(link);
    receiver->pipe = sim_pipe_in(link);
    receiver->alive = true;
    receiver->pipe->receiver = receiver;
    ring->count_users++;
    return receiver;
}

void
transport_receiver_look(TransportReceiver *receiver)
{
    sim_ring_check(receiver->ring);
}

void
transport_receiver_free(TransportReceiver *receiver)
{
    if (!receiver)
        return;
    sim_ring_check(receiver->ring);
    sim_check(receiver->alive, "transport_receiver_free: twice");
    receiver->ring->count_users--;
    transport_link_unref(receiver->link);
    receiver->alive = false;
    receiver->pipe->receiver = NULL;
    g_clear_error(&receiver->error);
}

static void
pull_bytes(TransportReceiver *receiver, uint8_t *to, uint64_t count)
{
    Pipe *pipe = receiver->pipe;
    while (count > 0) {
        size_t at = pipe->pulled % PIPE_BYTES;
        size_t part = MIN(count, PIPE_BYTES - at);
        memcpy(to, pipe->bytes + at, part);
        to += part;
        pipe->pulled += part;
        receiver->count_bytes += part;
        count -= part;
    }
}

static void
come_into(TransportReceiver *receiver, size_t count)
{
    size_t before = receiver->into_done;
    receiver->into_done += count;
    sim_uffd_arrived(receiver->into, before, receiver->into_done);
}

/* Straight to the caller's memory, and a little of what comes behind it. */
static void
pull_into(TransportReceiver *receiver)
{
    Pipe *pipe = receiver->pipe;
    uint64_t ready = pipe->arrived - pipe->pulled;
    uint64_t count = sim_chance(60) ? ready : 1 + sim_below(ready);
    uint64_t direct = MIN(count, receiver->into_length - receiver->into_done);
    if (count < ready)
        sim_table_count_short();

    pull_bytes(receiver, receiver->into + receiver->into_done, direct);
    come_into(receiver, direct);
    receiver->begin = 0;
    receiver->end = MIN(count - direct, AHEAD_BYTES);
    pull_bytes(receiver, receiver->bytes, receiver->end);
}

void
sim_receiver_pull(TransportReceiver *receiver)
{
    Pipe *pipe = receiver->pipe;
    uint64_t ready = pipe->arrived - pipe->pulled;
    if (!ready)
        return;
    if (receiver->into && receiver->into_done < receiver->into_length) {
        pull_into(receiver);
        return;
    }
    if (receiver->end + ready > RECEIVER_BYTES) {
        memmove(receiver->bytes, receiver->bytes + receiver->begin,
                receiver->end - receiver->begin);
        receiver->end -= receiver->begin;
        receiver->begin = 0;
    }
    uint64_t room = RECEIVER_BYTES - receiver->end;
    uint64_t count = sim_chance(60) ? ready : 1 + sim_below(ready);
    count = MIN(count, room);
    if (count < ready)
        sim_table_count_short();
    pull_bytes(receiver, receiver->bytes + receiver->end, count);
    receiver->end += count;
}

/* What a receiver without enough bytes is told; has_some: bytes of what it waits for have come. */
static TransportResult
receiver_outcome(TransportReceiver *receiver, bool has_some)
{
    Pipe *pipe = receiver->pipe;
    bool drained = pipe->pulled == pipe->arrived && pipe->arrived == pipe->accepted;

    if (pipe->receiver_outcome == OUTCOME_OPEN || pipe->receiver_outcome_ns > sim.now_ns ||
        !drained)
        return TRANSPORT_WAIT;
    if (pipe->receiver_outcome == OUTCOME_END && !has_some)
        return TRANSPORT_END;
    if (!receiver->error)
        receiver->error =
            g_error_new(TRANSPORT_ERROR, TRANSPORT_ERROR_LINK, "simulated: link broke (receive)");
    return TRANSPORT_ERROR_RESULT;
}

TransportResult
transport_peek(TransportReceiver *receiver, size_t length, const uint8_t **ret_bytes)
{
    sim_ring_check(receiver->ring);
    sim_check(receiver->alive, "transport_peek: receiver is freed");
    sim_preempt();
    sim_check(length > 0 && length <= TRANSPORT_PEEK_MAX, "transport_peek: %zu bytes", length);
    sim_check(!receiver->into, "transport_peek: in the middle of transport_receive_into");
    if (receiver->end - receiver->begin < length && sim_chance(50))
        sim_receiver_pull(receiver);
    if (receiver->end - receiver->begin >= length) {
        *ret_bytes = receiver->bytes + receiver->begin;
        return TRANSPORT_OK;
    }
    TransportResult result = receiver_outcome(receiver, receiver->begin < receiver->end);
    if (result == TRANSPORT_WAIT)
        receiver->armed = true;
    return result;
}

static TransportResult
receive_on(TransportReceiver *receiver)
{
    size_t count =
        MIN(receiver->end - receiver->begin, receiver->into_length - receiver->into_done);
    memcpy(receiver->into + receiver->into_done, receiver->bytes + receiver->begin, count);
    receiver->begin += count;
    come_into(receiver, count);
    if (receiver->into_done < receiver->into_length && sim_chance(50))
        sim_receiver_pull(receiver);
    if (receiver->into_done == receiver->into_length)
        return TRANSPORT_OK;
    TransportResult result = receiver_outcome(receiver, receiver->into_done > 0);
    if (result == TRANSPORT_WAIT)
        receiver->armed = true;
    return result;
}

TransportResult
transport_receive_into(TransportReceiver *receiver, void *bytes, size_t length, size_t *ret_done)
{
    sim_ring_check(receiver->ring);
    sim_check(receiver->alive, "transport_receive_into: receiver is freed");
    sim_preempt();
    if (!receiver->into) {
        receiver->into = bytes;
        receiver->into_length = length;
        receiver->into_done = 0;
    }
    sim_check(length > 0 && receiver->into == bytes && receiver->into_length == length,
              "transport_receive_into: not the arguments it was called with before");
    TransportResult result = receive_on(receiver);
    *ret_done = receiver->into_done;
    if (result != TRANSPORT_WAIT)
        receiver->into = NULL;
    return result;
}

void
transport_receive_leave(TransportReceiver *receiver)
{
    sim_ring_check(receiver->ring);
    sim_check(receiver->alive, "transport_receive_leave: receiver is freed");
    receiver->into = NULL;
}

size_t
transport_available(const TransportReceiver *receiver)
{
    sim_check(receiver->alive, "transport_available: receiver is freed");
    return receiver->end - receiver->begin;
}

void
transport_consume(TransportReceiver *receiver, size_t length)
{
    sim_ring_check(receiver->ring);
    sim_check(length <= receiver->end - receiver->begin, "transport_consume: more than was shown");
    sim_check(!receiver->into, "transport_consume: in the middle of transport_receive_into");
    if (sim.plan.poison)
        memset(receiver->bytes + receiver->begin, 0xee, length);
    receiver->begin += length;
    if (receiver->begin == receiver->end)
        receiver->begin = receiver->end = 0;
}

uint64_t
transport_receiver_count_bytes(const TransportReceiver *receiver)
{
    return receiver->count_bytes;
}

const GError *
transport_receiver_error(const TransportReceiver *receiver)
{
    return receiver->error;
}
