/* SPDX-License-Identifier: MIT */
/*
 * The peer's end of the simulated links: writes what it is given, throws away what it gets.
 */
#include "tests/fuzz/side.h"
#include "tests/sim/sim_pipe.h"

#include <string.h>

#define TRIES_MAX  20u             /* without progress */
#define LINKS_KEPT (LINKS_MAX - 4) /* so many are answered; then nobody listens any more */

static bool was_closed[LINKS_MAX], is_gone;
static unsigned count_tries;
static unsigned first_link; /* of this connection: main; behind it urgent */

static unsigned
peer_end(void)
{
    return side.side == SIM_SOURCE ? 1 : 0;
}

/* A source finds somebody who listens, at any address. */
static void
listen_everywhere(bool listens)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        net.listeners[i].alive = listens;
}

void
peer_reset(void)
{
    memset(was_closed, 0, sizeof was_closed);
    count_tries = first_link = 0;
    is_gone = false;
    if (side.side == SIM_SOURCE)
        listen_everywhere(true);
}

static void
close_link(unsigned number)
{
    if (number >= net.count_connections || was_closed[number])
        return;
    was_closed[number] = true;
    sim_link_close(&net.connections[number].ends[peer_end()]);
}

void
peer_drain(void)
{
    for (unsigned i = 0; i < net.count_connections; i++) {
        Connection *connection = &net.connections[i];
        Pipe *pipe = &connection->pipes[!peer_end()];
        if (side.side == SIM_SOURCE)
            connection->accepted = connection->met = true;
        pipe->pulled = pipe->arrived = pipe->accepted;
        pipe->dropped = 0;
        if (is_gone)
            close_link(i);
    }
    if (side.side == SIM_SOURCE && net.count_connections > LINKS_KEPT)
        listen_everywhere(false);
}

static TransportListener *
find_listener(void)
{
    for (unsigned i = 0; i < LISTENERS_MAX; i++)
        if (net.listeners[i].alive)
            return &net.listeners[i];
    return NULL;
}

/* The link, made if a destination listens; NULL: there is none. */
static Connection *
find_link(unsigned number)
{
    TransportListener *listener = find_listener();
    while (side.side == SIM_DESTINATION && listener && net.count_connections <= number &&
           number <= LINKS_KEPT)
        sim_connection_new(listener);
    return number < net.count_connections ? &net.connections[number] : NULL;
}

static size_t
copy_in(Pipe *pipe, const uint8_t *bytes, size_t length)
{
    uint64_t held = pipe->accepted - pipe->pulled;
    size_t count = held < sim.plan.capacity_bytes ? sim.plan.capacity_bytes - held : 0;
    count = MIN(count, length);
    for (size_t done = 0; done < count;) {
        size_t at = pipe->accepted % PIPE_BYTES, part = MIN(count - done, PIPE_BYTES - at);
        memcpy(pipe->bytes + at, bytes + done, part);
        pipe->accepted += part;
        done += part;
    }
    pipe->arrived = pipe->accepted;
    return count;
}

size_t
peer_write(unsigned link, const uint8_t *bytes, size_t length)
{
    Connection *connection = find_link(first_link + link);
    if (length == 0 || !connection || was_closed[first_link + link] || connection->broken ||
        connection->pipes[peer_end()].dropping)
        return length;
    size_t count = copy_in(&connection->pipes[peer_end()], bytes, length);
    count_tries = count ? 0 : count_tries + 1;
    if (count_tries < TRIES_MAX)
        return count;
    count_tries = 0;
    return length;
}

void
peer_close(unsigned link)
{
    close_link(first_link + link);
}

void
peer_close_all(void)
{
    is_gone = true;
    peer_drain();
}

void
peer_start_over(void)
{
    for (unsigned i = 0; i < net.count_connections; i++)
        close_link(i);
    first_link = net.count_connections;
}

void
peer_leave(void)
{
    for (unsigned i = 0; i < net.count_connections; i++)
        net.connections[i].ends[peer_end()].references = 0;
    if (side.side == SIM_SOURCE)
        listen_everywhere(false);
}
