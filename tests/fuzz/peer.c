/* SPDX-License-Identifier: MIT */
/*
 * The peer's end of the simulated links: writes what it is given, throws away what it gets.
 */
#include "tests/fuzz/side.h"
#include "tests/sim/sim_pipe.h"

#include <string.h>

#define TRIES_MAX 20u /* without progress */

static bool was_closed[LINKS_MAX], is_gone;
static unsigned count_tries;

static unsigned
peer_end(void)
{
    return side.side == SIM_SOURCE ? 1 : 0;
}

void
peer_reset(void)
{
    memset(was_closed, 0, sizeof was_closed);
    count_tries = 0;
    is_gone = false;
    /* A source finds somebody who listens. */
    net.listener.alive = side.side == SIM_SOURCE;
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
            peer_close(i);
    }
}

/* The link, made if a destination listens; NULL: there is none. */
static Connection *
find_link(unsigned link)
{
    while (side.side == SIM_DESTINATION && net.listener.alive && net.count_connections <= link)
        sim_connection_new();
    return link < net.count_connections ? &net.connections[link] : NULL;
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
    Connection *connection = find_link(link);
    if (length == 0 || !connection || was_closed[link] || connection->broken ||
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
    if (link >= net.count_connections || was_closed[link])
        return;
    was_closed[link] = true;
    sim_link_close(&net.connections[link].ends[peer_end()]);
}

void
peer_close_all(void)
{
    is_gone = true;
    peer_drain();
}

void
peer_leave(void)
{
    for (unsigned i = 0; i < net.count_connections; i++)
        net.connections[i].ends[peer_end()].references = 0;
    if (side.side == SIM_SOURCE)
        net.listener.alive = false;
}
