/* SPDX-License-Identifier: MIT */
/*
 * transport.h without io_uring: rings and rate limits.
 *
 * A ring remembers that something happened on it; the scheduler runs a sleeping role only when its
 * ring does. That a ring is used by its own role alone is checked at each call.
 */
#include "tests/sim/sim_pipe.h"

G_DEFINE_QUARK(sim - transport - error, transport_error)

/* ---- Rings -------------------------------------------------------------------------------------
 */

void
sim_ring_check(const TransportRing *ring)
{
    sim_check(ring && ring->alive, "a ring that is freed, or was never made, is used");
    sim_check(ring->thread == sim.thread, "a ring is used by another thread than its own");
}

bool
transport_probe(GError **error G_GNUC_UNUSED)
{
    return true;
}

TransportRing *
transport_ring_new(GError **error)
{
    if (sim_inject(SIM_POINT_RING_NEW)) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_UNSUPPORTED, "simulated: no ring");
        return NULL;
    }
    for (unsigned i = 0; i < RINGS_MAX; i++) {
        TransportRing *ring = &net.rings[i];
        if (ring->alive)
            continue;
        *ring = (TransportRing){.side = sim.side, .thread = sim.thread, .alive = true};
        ring->watched_fd = -1;
        return ring;
    }
    sim_fail("the engine made more than %u rings", RINGS_MAX);
}

void
transport_ring_free(TransportRing *ring)
{
    sim_check(ring && ring->alive, "transport_ring_free: not a live ring");
    sim_check(ring->count_users == 0, "transport_ring_free: %u things of the ring are not freed",
              ring->count_users);
    ring->alive = false;
}

void
transport_ring_wait(TransportRing *ring G_GNUC_UNUSED, uint64_t deadline_ns G_GNUC_UNUSED)
{
    sim_fail("a step called transport_ring_wait(): it would block");
}

void
transport_ring_notify(TransportRing *ring)
{
    sim_check(ring && ring->alive, "transport_ring_notify: not a live ring");
    ring->event = true;
}

bool
transport_ring_watch(TransportRing *ring, int fd, bool *ready, GError **error)
{
    sim_ring_check(ring);
    if (sim_inject(SIM_POINT_WATCH)) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST, "simulated: no watch");
        return false;
    }
    sim_check(ring->watched_fd == -1, "transport_ring_watch: the simulator knows one fd a ring");
    ring->watched_fd = fd;
    ring->ready = ready;
    *ready = true;
    ring->event = true;
    return true;
}

bool
sim_ring_take_event(TransportRing *ring)
{
    bool event = ring->event;
    ring->event = false;
    return event;
}

bool
sim_ring_has_event(const TransportRing *ring)
{
    return ring->event;
}

void
sim_fd_readable(int fd)
{
    for (unsigned i = 0; i < RINGS_MAX; i++)
        if (net.rings[i].alive && net.rings[i].watched_fd == fd)
            *net.rings[i].ready = net.rings[i].event = true;
}

/* ---- Rate limits -------------------------------------------------------------------------------
 */

void
transport_limit_set(TransportLimit *limit, uint64_t bytes_per_s)
{
    limit->bytes_per_s = bytes_per_s;
}

uint64_t
transport_limit_wait(TransportLimit *limit, uint64_t now_ns)
{
    return limit->bytes_per_s == 0 || limit->ready_ns <= now_ns ? 0 : limit->ready_ns;
}

void
transport_limit_take(TransportLimit *limit, uint64_t length, uint64_t now_ns)
{
    if (limit->bytes_per_s == 0)
        return;
    uint64_t from = limit->ready_ns + 20000000 < now_ns ? now_ns - 20000000 : limit->ready_ns;
    limit->ready_ns = from + length * 1000000000u / limit->bytes_per_s;
}
