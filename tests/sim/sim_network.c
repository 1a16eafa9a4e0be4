/* SPDX-License-Identifier: MIT */
/*
 * The network between two simulated sides: what happens to bytes when nobody calls.
 *
 * At any moment a set of actions is possible or will be: take a part of a send, deliver a part of
 * what is on the way, complete a receive, tell an end that its link broke, finish a connect. The
 * scheduler asks for the time of the next one and has one of those that are due carried out.
 */
#include "tests/sim/sim_pipe.h"

#include <string.h>

SimNetwork net;

/* ---- Links and how they end --------------------------------------------------------------------
 */

static Connection *
connection_of(const TransportLink *link)
{
    return &net.connections[link->number];
}

Pipe *
sim_pipe_out(const TransportLink *link)
{
    return &connection_of(link)->pipes[link->end];
}

Pipe *
sim_pipe_in(const TransportLink *link)
{
    return &connection_of(link)->pipes[!link->end];
}

static void
notice_sender(Pipe *pipe, uint64_t at_ns)
{
    pipe->dropping = true;
    if (pipe->sender_outcome != OUTCOME_OPEN && pipe->sender_outcome_ns <= at_ns)
        return;
    pipe->sender_outcome = OUTCOME_ERROR;
    pipe->sender_outcome_ns = at_ns;
}

static void
notice_receiver(Pipe *pipe, Outcome outcome, uint64_t at_ns)
{
    if (pipe->receiver_outcome != OUTCOME_OPEN && pipe->receiver_outcome_ns <= at_ns)
        return;
    pipe->receiver_outcome = outcome;
    pipe->receiver_outcome_ns = at_ns;
}

/* What is on the way is lost from a random place on. */
static void
lose_bytes(Pipe *pipe)
{
    uint64_t on_the_way = pipe->accepted - pipe->arrived;
    if (on_the_way)
        pipe->accepted = pipe->arrived + sim_below(on_the_way + 1);
}

static void
break_connection(Connection *connection)
{
    if (connection->broken)
        return;
    connection->broken = true;
    sim_trace("network: link %u breaks", connection->ends[0].number);
    for (unsigned i = 0; i < 2; i++) {
        Pipe *pipe = &connection->pipes[i];
        bool whole = sim_chance(30);
        if (!whole)
            lose_bytes(pipe);
        Outcome outcome = whole && sim_chance(50) ? OUTCOME_END : OUTCOME_ERROR;
        notice_sender(pipe, sim.now_ns + sim_below(20000000));
        notice_receiver(pipe, outcome, sim.now_ns + sim_below(20000000));
    }
}

void
sim_network_cut(unsigned number)
{
    for (unsigned i = 0; i < net.count_connections; i++)
        if (number == UINT_MAX || i == number)
            break_connection(&net.connections[i]);
}

unsigned
sim_network_count_broken(void)
{
    unsigned count = 0;

    for (unsigned i = 0; i < net.count_connections; i++)
        count += net.connections[i].broken;
    return count;
}

void
sim_network_hang(unsigned way)
{
    for (unsigned i = 0; i < net.count_connections; i++) {
        bool is_urgent = way == 2 || way >= SIM_WAY_ANSWERS;
        if (way != 0 && i != is_urgent)
            continue;
        sim_trace("network: link %u hangs", i);
        for (unsigned j = 0; j < 2; j++)
            net.connections[i].pipes[j].hangs |= way < 3 || j == way % 2;
    }
}

void
sim_link_close(TransportLink *link)
{
    Pipe *out = sim_pipe_out(link), *in = sim_pipe_in(link);
    bool unread = in->accepted > in->pulled;

    if (unread && sim_chance(50)) {
        net.has_reset = true;
        lose_bytes(out); /* a reset overtakes data */
    }
    uint64_t told_ns = sim.now_ns + sim_below(sim.plan.delay_ns + 1);
    if (!out->hangs) {
        notice_receiver(out, unread ? OUTCOME_ERROR : OUTCOME_END, sim.now_ns);
        notice_sender(in, told_ns);
    }
    notice_sender(out, sim.now_ns);
    notice_receiver(in, sim_chance(50) ? OUTCOME_END : OUTCOME_ERROR, sim.now_ns);
    in->accepted = in->arrived;
}

static void
plan_cuts(Connection *connection, unsigned number)
{
    for (unsigned i = 0; i < sim.plan.count_faults; i++) {
        const SimFault *fault = &sim.plan.faults[i];
        if (fault->point == SIM_POINT_CUT_BYTE && fault->way / 2 == number)
            connection->pipes[fault->way % 2].cut_at = fault->at;
    }
    if (sim.phase_ns[SIM_PHASE_PAUSED] != NEVER && sim_chance(sim.plan.again_percent)) {
        /* In a recovery; not for ever. */
        sim.plan.again_percent -= MIN(sim.plan.again_percent, 8);
        connection->pipes[sim_below(2)].cut_at = sim_below(UINT64_C(1) << sim_below(17));
    }
}

static void
reset_pipe(Pipe *pipe)
{
    size_t head = sizeof pipe->bytes; /* which need no clearing */
    memset((char *)pipe + head, 0, sizeof *pipe - head);
    pipe->cut_at = pipe->sender_outcome_ns = pipe->receiver_outcome_ns = NEVER;
}

Connection *
sim_connection_new(TransportListener *listener)
{
    unsigned number = net.count_connections++;
    sim_check(number < LINKS_MAX, "the source made more than %u links", LINKS_MAX);
    Connection *connection = &net.connections[number];
    for (unsigned i = 0; i < 2; i++) {
        reset_pipe(&connection->pipes[i]);
        connection->pipes[i].way = 2 * number + i;
        connection->ends[i] = (TransportLink){.references = 1, .number = number, .end = i};
    }
    connection->broken = connection->accepted = connection->told = connection->met = false;
    connection->listener = listener;
    connection->accept_ns = sim.now_ns + sim_below(sim.plan.delay_ns + 1);
    plan_cuts(connection, number);
    return connection;
}

Connection *
sim_connection_waiting(const TransportListener *listener)
{
    for (unsigned i = 0; i < net.count_connections; i++)
        if (!net.connections[i].accepted && net.connections[i].listener == listener)
            return net.connections[i].accept_ns <= sim.now_ns ? &net.connections[i] : NULL;
    return NULL;
}

/* ---- Actions -----------------------------------------------------------------------------------
 */

typedef enum {
    ACT_TAKE,
    ACT_ARRIVE,
    ACT_PULL,
    ACT_TELL_SENDER,
    ACT_TELL_RECEIVER,
    ACT_CONNECT,
    ACT_ACCEPT
} ActKind;

typedef struct Act {
    ActKind kind;
    Pipe *pipe;
    Connection *connection;
    TransportConnector *connector;
} Act;

#define ACTS_MAX (LINKS_MAX * 12u)

typedef struct Acts {
    Act due[ACTS_MAX];
    unsigned count;
    uint64_t next_ns;
} Acts;

static void
consider(Acts *acts, uint64_t at_ns, Act act)
{
    acts->next_ns = MIN(acts->next_ns, at_ns);
    if (at_ns <= sim.now_ns)
        acts->due[acts->count++] = act;
}

static uint64_t
pipe_room(const Pipe *pipe)
{
    uint64_t held = pipe->dropping ? pipe->dropped : pipe->accepted - pipe->pulled;
    return held < sim.plan.capacity_bytes ? sim.plan.capacity_bytes - held : 0;
}

static bool
receiver_is_drained(const Pipe *pipe)
{
    return pipe->pulled == pipe->accepted;
}

static void
consider_pipe(Acts *acts, Connection *connection, Pipe *pipe)
{
    Act act = {.pipe = pipe, .connection = connection};
    TransportSender *sender = pipe->sender;
    if (sender && sender->busy) {
        if (pipe_room(pipe) > 0 && pipe->sender_outcome_ns > sim.now_ns) {
            act.kind = ACT_TAKE;
            consider(acts, pipe->take_ns, act);
        }
        if (pipe->sender_outcome != OUTCOME_OPEN && !pipe->sender_outcome_told) {
            act.kind = ACT_TELL_SENDER;
            consider(acts, pipe->sender_outcome_ns, act);
        }
    }
    if (pipe->accepted > pipe->arrived && !pipe->hangs) {
        act.kind = ACT_ARRIVE;
        consider(acts, pipe->arrive_ns, act);
    }
    TransportReceiver *receiver = pipe->receiver;
    if (!receiver || !receiver->armed)
        return;
    if (pipe->arrived > pipe->pulled) {
        act.kind = ACT_PULL;
        consider(acts, sim.now_ns, act);
    }
    if (pipe->receiver_outcome != OUTCOME_OPEN && receiver_is_drained(pipe)) {
        act.kind = ACT_TELL_RECEIVER;
        consider(acts, pipe->receiver_outcome_ns, act);
    }
}

static void
consider_all(Acts *acts)
{
    acts->count = 0;
    acts->next_ns = NEVER;
    for (unsigned i = 0; i < net.count_connections; i++) {
        Connection *connection = &net.connections[i];
        for (unsigned j = 0; j < 2; j++)
            consider_pipe(acts, connection, &connection->pipes[j]);
        if (!connection->accepted && !connection->told && connection->listener->armed)
            consider(acts, connection->accept_ns,
                     (Act){.kind = ACT_ACCEPT, .connection = connection});
    }
    for (unsigned i = 0; i < LINKS_MAX; i++)
        if (net.connectors[i].alive && !net.connectors[i].told)
            consider(acts, net.connectors[i].due_ns,
                     (Act){.kind = ACT_CONNECT, .connector = &net.connectors[i]});
}

uint64_t
sim_network_next_ns(void)
{
    Acts acts;
    consider_all(&acts);
    return acts.next_ns;
}

/* The bytes [first, end) of the pipe, which begin a piece of a send that has `length` of them, may
 * be damaged. */
static void
damage_bytes(Pipe *pipe, uint64_t first, uint64_t end, size_t length, bool begins)
{
    bool is_header = begins && length % SIM_PAGE != 0;

    pipe->headers += is_header;
    for (unsigned i = 0; i < sim.plan.count_flips; i++) {
        SimFlip *flip = &sim.plan.flips[i];
        if (flip->fired || flip->way != pipe->way)
            continue;
        if (flip->point == SIM_POINT_FLIP_HEADER && is_header && pipe->headers == flip->at + 1) {
            flip->at = first + flip->byte % length;
            flip->point = SIM_POINT_FLIP_PAGE;
            flip->byte = UINT_MAX;
        }
        if (flip->point != SIM_POINT_FLIP_PAGE || flip->at < first || flip->at >= end)
            continue;
        pipe->bytes[flip->at % PIPE_BYTES] ^= (uint8_t)(1u << flip->bit);
        flip->fired = true;
        sim_trace("network: bit %u of byte %lu of pipe %u is flipped", flip->bit, flip->at,
                  pipe->way);
        sim_count(flip->byte == UINT_MAX ? SIM_POINT_FLIP_HEADER : SIM_POINT_FLIP_PAGE);
    }
}

/* Copies up to count bytes of the send into the pipe, from where they lie now. */
static void
take_bytes(TransportSender *sender, Pipe *pipe, uint64_t count)
{
    while (count > 0 && sender->piece < sender->count_iov) {
        const struct iovec *iov = &sender->iov[sender->piece];
        size_t part = MIN(count, iov->iov_len - sender->offset);
        size_t at = pipe->accepted % PIPE_BYTES;
        part = MIN(part, PIPE_BYTES - at);
        if (pipe->dropping) {
            pipe->dropped += part;
        } else {
            memcpy(pipe->bytes + at, (const uint8_t *)iov->iov_base + sender->offset, part);
            pipe->accepted += part;
            damage_bytes(pipe, pipe->accepted - part, pipe->accepted, iov->iov_len,
                         sender->offset == 0);
        }
        sender->accepted_bytes += part;
        sender->offset += part;
        count -= part;
        if (sender->offset == iov->iov_len) {
            sender->piece++;
            sender->offset = 0;
        }
    }
}

static void
act_take(Connection *connection, Pipe *pipe)
{
    TransportSender *sender = pipe->sender;
    uint64_t room = pipe_room(pipe);
    uint64_t count = sim_chance(60) ? room : 1 + sim_below(room);
    bool cut = false;

    if (!pipe->dropping && pipe->accepted + count >= pipe->cut_at) {
        count = pipe->cut_at > pipe->accepted ? pipe->cut_at - pipe->accepted : 0;
        cut = true;
    }
    if (pipe->accepted == pipe->arrived)
        pipe->arrive_ns = sim.now_ns + sim_below(sim.plan.delay_ns + 1);
    take_bytes(sender, pipe, count);
    pipe->take_ns = sim.now_ns + count * sim.plan.byte_ps / 1000;
    if (sender->piece == sender->count_iov) {
        sim_check(sim_sender_hash(sender) == sender->hash,
                  "pieces of a send were changed while it was in flight");
        sender->busy = false;
        sender->ring->event = true;
        sim_trace("network: a send on link %u is done", sender->link->number);
    }
    if (cut && pipe->accepted >= pipe->cut_at) {
        sim_count(SIM_POINT_CUT_BYTE);
        pipe->cut_at = NEVER;
        if (sim_chance(50))
            break_connection(connection);
        else
            sim_network_cut(UINT_MAX);
    }
}

static void
act_arrive(Pipe *pipe)
{
    uint64_t count = pipe->accepted - pipe->arrived;
    if (sim_chance(30))
        count = 1 + sim_below(count);
    pipe->arrived += count;
    pipe->arrive_ns = sim.now_ns + sim_below(sim.plan.delay_ns + 1);
}

static void
wake_receiver(TransportReceiver *receiver)
{
    receiver->armed = false;
    receiver->ring->event = true;
}

void
sim_network_step(void)
{
    Acts acts;
    consider_all(&acts);
    if (acts.count == 0)
        return;
    Act *act = &acts.due[sim_below(acts.count)];
    switch (act->kind) {
    case ACT_TAKE:
        act_take(act->connection, act->pipe);
        break;
    case ACT_ARRIVE:
        act_arrive(act->pipe);
        break;
    case ACT_PULL:
        sim_receiver_pull(act->pipe->receiver);
        wake_receiver(act->pipe->receiver);
        break;
    case ACT_TELL_SENDER:
        transport_ring_notify(act->pipe->sender->ring); /* it is told when it asks */
        act->pipe->sender_outcome_told = true;
        break;
    case ACT_TELL_RECEIVER:
        wake_receiver(act->pipe->receiver);
        break;
    case ACT_CONNECT:
        act->connector->told = true;
        act->connector->ring->event = true;
        break;
    case ACT_ACCEPT:
        act->connection->told = true;
        act->connection->listener->armed = false;
        act->connection->listener->ring->event = true;
        break;
    }
}

bool
sim_network_has_reset(void)
{
    return net.has_reset;
}

bool
sim_network_met(void)
{
    return net.count_connections > 0 && net.connections[0].met;
}

/* ---- Between seeds -----------------------------------------------------------------------------
 */

void
sim_transport_reset(void)
{
    memset(net.rings, 0, sizeof net.rings);
    memset(net.senders, 0, sizeof net.senders);
    memset(net.connectors, 0, sizeof net.connectors);
    for (unsigned i = 0; i < G_N_ELEMENTS(net.receivers); i++)
        net.receivers[i].alive = false;
    memset(net.listeners, 0, sizeof net.listeners);
    net.count_connections = 0;
    net.has_reset = net.was_met_again = false;
}

void
sim_transport_check_freed(void)
{
    for (unsigned i = 0; i < RINGS_MAX; i++)
        sim_check(!net.rings[i].alive, "a ring was not freed");
    for (unsigned i = 0; i < 2 * LINKS_MAX; i++) {
        sim_check(!net.senders[i].alive, "a sender was not freed");
        sim_check(!net.receivers[i].alive, "a receiver was not freed");
    }
    for (unsigned i = 0; i < LINKS_MAX; i++)
        sim_check(!net.connectors[i].alive, "a connector was not freed");
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        sim_check(!net.listeners[i].alive, "a listener was not freed");
    for (unsigned i = 0; i < net.count_connections; i++)
        for (unsigned j = 0; j < 2; j++)
            sim_check(net.connections[i].ends[j].references == 0 ||
                          (j == 1 && !net.connections[i].accepted),
                      "a reference to link %u was not given back", i);
}
