/* SPDX-License-Identifier: MIT */
/* When an armed strike comes, and what it does to the connections. On the relay's thread, under its
 * lock; arming from any other. */
#include "tests/chaos/relay_pipe.h"

void
relay_arm(Relay *relay, const RelayStrike *strike)
{
    g_mutex_lock(&relay->lock);
    relay->strike = *strike;
    relay->left_bytes = strike->after_bytes;
    relay->limit_us =
        strike->after_ms ? g_get_monotonic_time() + strike->after_ms * (int64_t)1000 : 0;
    relay->is_armed = strike->act != RELAY_NOTHING;
    relay->struck_us = 0;
    g_mutex_unlock(&relay->lock);
    relay_wake(relay);
}

int64_t
relay_disarm(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    relay->is_armed = false;
    relay->pace_bytes = 0;
    int64_t struck_us = relay->struck_us;
    g_mutex_unlock(&relay->lock);
    return struck_us;
}

int64_t
relay_struck_us(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    int64_t struck_us = relay->struck_us;
    g_mutex_unlock(&relay->lock);
    return struck_us;
}

static void
act_on_connection(const RelayStrike *strike, RelayConnection *connection)
{
    if (connection->is_closed)
        return;
    if (strike->act == RELAY_RESET) {
        relay_connection_close(connection, true);
        return;
    }
    for (int way = 0; way < 2; way++) {
        RelayPipe *pipe = &connection->ways[way];
        if (strike->act == RELAY_CLOSE || strike->act == RELAY_TRUNCATE)
            pipe->has_ended = true;
        if (strike->act == RELAY_TRUNCATE)
            pipe->length = 0;
        if (strike->act == RELAY_HANG)
            pipe->hangs = true;
        if (strike->act == RELAY_DELAY)
            pipe->hold_until_us = g_get_monotonic_time() + strike->length_ms * (int64_t)1000;
        if (strike->act == RELAY_SPLIT)
            pipe->split_bytes = strike->length_bytes;
    }
}

/* What comes now is numbered anew: it is another attempt of a migration. */
static void
note_struck(Relay *relay)
{
    relay->is_armed = false;
    relay->struck_us = g_get_real_time();
    relay->first = relay->count;
}

/* connection: the one that triggered. */
static void
act(Relay *relay, RelayConnection *connection)
{
    const RelayStrike *strike = &relay->strike;

    unsigned first = relay->first;

    note_struck(relay);
    if (strike->act == RELAY_CALL) {
        strike->call(strike->opaque);
        return;
    }
    if (!strike->on_all && connection) {
        act_on_connection(strike, connection);
        return;
    }
    for (unsigned i = first; i < relay->count; i++)
        act_on_connection(strike, &relay->connections[i]);
}

void
relay_strike_look(Relay *relay, RelayConnection *connection, RelayPipe *pipe)
{
    const RelayStrike *strike = &relay->strike;

    if (!relay->is_armed || connection < &relay->connections[relay->first] ||
        connection->index != strike->connection || pipe != &connection->ways[strike->way])
        return;
    if (pipe->length <= relay->left_bytes) {
        relay->left_bytes -= pipe->length;
        return;
    }
    pipe->has_mark = true;
    pipe->mark = (size_t)relay->left_bytes;
}

void
relay_strike_at_mark(Relay *relay, RelayConnection *connection, RelayPipe *pipe)
{
    pipe->has_mark = false;
    if (!relay->is_armed)
        return;
    if (relay->strike.act == RELAY_FLIP) {
        pipe->bytes[pipe->start] ^= (char)(1u << (relay->strike.bit & 7));
        note_struck(relay);
        return;
    }
    act(relay, connection);
}

/* The connection that triggers, or any that is hit as well; NULL: none is there yet. */
static RelayConnection *
find_target(Relay *relay)
{
    const RelayStrike *strike = &relay->strike;
    RelayConnection *found = NULL;

    for (unsigned i = relay->first; i < relay->count; i++) {
        RelayConnection *connection = &relay->connections[i];
        if (connection->is_closed)
            continue;
        if (connection->index == strike->connection)
            return connection;
        if (strike->on_all)
            found = connection;
    }
    return found;
}

void
relay_strike_when_late(Relay *relay)
{
    if (!relay->is_armed || !relay->limit_us || g_get_monotonic_time() < relay->limit_us)
        return;
    relay->pace_bytes = 0;
    /* A bit can be turned only where there are bytes, a link be harmed only when there is one. */
    RelayConnection *target = find_target(relay);
    if (relay->strike.act == RELAY_CALL || (relay->strike.act != RELAY_FLIP && target))
        act(relay, target);
}
