/* SPDX-License-Identifier: MIT */
/*
 * transport.h without sockets: connecting and listening. There are a few addresses, each with at
 * most one listener; who connects is taken by the listener that is at the address by then.
 */
#include "engine/context.h"
#include "tests/sim/sim_pipe.h"
#include "tests/sim/sim_schedule.h"

#include <string.h>

#define SWALLOWED_NS UINT64_C(1000000000)
#define LATE_NS      UINT64_C(1000000)

static const char *const addresses[LISTENERS_MAX] = {SIM_URI, "tcp:127.0.0.1:4445",
                                                     "unix:/sim/third", "tcp:[::1]:4444"};

const char *
sim_address(unsigned number)
{
    return addresses[number % LISTENERS_MAX];
}

/* Alone with a hostile peer or client (tests/fuzz), a side may be given any URI. */
static bool
find_address(const char *uri, unsigned *ret_number, GError **error)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        if (g_str_equal(uri, addresses[i])) {
            *ret_number = i;
            return true;
        }
    sim_check(sim.on_bug || sim.plan.count_flips, "the URI '%s' comes from nowhere", uri);
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS, "simulated: '%s'", uri);
    return false;
}

/* Whether a call with this URI has to fail; then the error is set. Only this side makes it. */
static bool
call_fails(const char *uri, SimSide side, SimPoint point, unsigned *ret_number, GError **error)
{
    if (!find_address(uri, ret_number, error))
        return true;
    if (sim.side == side && !sim_inject(point))
        return false;
    sim_check(sim.side == side || sim.on_bug, "%s at the other side", sim_point_name(point));
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST, "simulated: %s failed",
                sim_point_name(point));
    return true;
}

bool
transport_check_uri(const char *uri, bool is_listen G_GNUC_UNUSED, GError **error)
{
    unsigned number;
    return find_address(uri, &number, error);
}

/* ---- Connecting --------------------------------------------------------------------------------
 */

/* After the first pause the network swallows what is sent for a while. */
static uint64_t
hole_end_ns(void)
{
    uint64_t paused_ns = sim.phase_ns[SIM_PHASE_PAUSED];
    return paused_ns == NEVER || !sim.plan.hole_ns ? 0 : paused_ns + sim.plan.hole_ns;
}

/* Who comes again by itself is there soon after. Not so soon where attempts were answered before,
 * and failed then. */
static void
check_hole(void)
{
    uint64_t hole_ns = hole_end_ns();
    bool is_alone = sim.plan.auto_recover[SIM_SOURCE] && sim.plan.auto_recover[SIM_DESTINATION] &&
                    sim.plan.recoveries == 0 && !sim_fault_fired(SIM_POINT_REFUSED) &&
                    sim.phase_ns[SIM_PHASE_RECOVER] == NEVER;

    if (!hole_ns || !is_alone || sim.over || sim.now_ns < hole_ns || net.was_met_again)
        return;
    uint64_t paused_ns = progress_get(&run.sides[SIM_SOURCE]->progress.pause_began_ns);
    uint64_t since_ns = MAX(hole_ns, paused_ns);
    uint64_t late_ns = 2 * sim.plan.retry_ms * 1000000u + 4 * sim.plan.delay_ns + LATE_NS;
    net.was_met_again = true;
    sim_check(sim.now_ns <= since_ns + late_ns,
              "the network was there at %.3f us, and it came %.3f us later",
              (double)since_ns / 1000.0, (double)(sim.now_ns - since_ns) / 1000.0);
}

TransportConnector *
transport_connect(TransportRing *ring, const char *uri, GError **error)
{
    sim_ring_check(ring);
    unsigned address;
    if (call_fails(uri, SIM_SOURCE, SIM_POINT_CONNECT, &address, error))
        return NULL;
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        TransportConnector *connector = &net.connectors[i];
        if (connector->alive)
            continue;
        *connector = (TransportConnector){.ring = ring, .alive = true, .address = address};
        connector->due_ns = sim.now_ns + sim_below(sim.plan.delay_ns + 1);
        if (sim.now_ns < hole_end_ns()) /* the kernel sends it once more */
            connector->due_ns += SWALLOWED_NS;
        connector->refused = sim_inject(SIM_POINT_REFUSED);
        ring->count_users++;
        return connector;
    }
    sim_fail("too many connectors");
}

TransportResult
transport_connect_finish(TransportConnector *connector, TransportLink **ret_link, GError **error)
{
    sim_ring_check(connector->ring);
    sim_check(connector->alive, "transport_connect_finish: connector is freed");
    if (sim.now_ns < connector->due_ns)
        return TRANSPORT_WAIT;
    TransportListener *listener = &net.listeners[connector->address];
    if (connector->refused || !listener->alive || sim.dead[SIM_DESTINATION]) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK, "simulated: refused");
        return TRANSPORT_ERROR_RESULT;
    }
    check_hole();
    *ret_link = &sim_connection_new(listener)->ends[0];
    return TRANSPORT_OK;
}

void
transport_connector_free(TransportConnector *connector)
{
    if (!connector)
        return;
    sim_check(connector->alive, "transport_connector_free: twice");
    connector->alive = false;
    connector->ring->count_users--;
}

/* ---- Listening ---------------------------------------------------------------------------------
 */

TransportListener *
transport_listen(const char *uri, GError **error)
{
    unsigned address;
    if (call_fails(uri, SIM_DESTINATION, SIM_POINT_LISTEN, &address, error))
        return NULL;
    TransportListener *listener = &net.listeners[address];
    if (listener->alive) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST, "simulated: address in use");
        return NULL;
    }
    *listener = (TransportListener){.alive = true};
    return listener;
}

const char *
transport_listener_address(const TransportListener *listener)
{
    sim_check(listener->alive, "transport_listener_address: listener is freed");
    return addresses[listener - net.listeners];
}

TransportResult
transport_accept(TransportListener *listener, TransportRing *ring, TransportLink **ret_link,
                 GError **error)
{
    sim_ring_check(ring);
    sim_check(listener && listener->alive, "transport_accept: listener is freed");
    sim_check(!listener->ring || listener->ring == ring, "transport_accept: on another ring");
    listener->ring = ring;
    Connection *connection = sim_connection_waiting(listener);
    listener->armed = !connection;
    if (!connection)
        return TRANSPORT_WAIT;
    if (sim_inject(SIM_POINT_ACCEPT)) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST, "simulated: no descriptors");
        return TRANSPORT_ERROR_RESULT;
    }
    connection->accepted = connection->met = true;
    *ret_link = &connection->ends[1];
    sim_trace("link %u is accepted", connection->ends[1].number);
    return TRANSPORT_OK;
}

/* Nobody but sources connects here. */
TransportResult
transport_accept_right(TransportListener *listener, TransportRing *ring, TransportIsRight is_right,
                       TransportLink **ret_link, GError **error)
{
    (void)is_right;
    return transport_accept(listener, ring, ret_link, error);
}

bool
transport_listener_is_exposed(const TransportListener *listener)
{
    sim_check(listener->alive, "transport_listener_is_exposed: listener is freed");
    return false;
}

void
transport_listener_free(TransportListener *listener)
{
    if (!listener)
        return;
    sim_check(listener->alive, "transport_listener_free: twice");
    listener->alive = false;
    for (unsigned i = 0; i < net.count_connections; i++) {
        Connection *connection = &net.connections[i];
        if (!connection->accepted && connection->listener == listener) {
            connection->accepted = true; /* the kernel resets who was not accepted */
            connection->ends[1].references = 0;
            sim_link_close(&connection->ends[1]);
        }
    }
}
