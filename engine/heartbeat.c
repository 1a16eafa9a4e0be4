/* SPDX-License-Identifier: MIT */
/*
 * When to beat and whom to give up. Pure: each role has its own Heartbeat, and hands in the time
 * and the bytes that its channels have counted.
 */
#include "engine/heartbeat.h"
#include "engine/faultline.h"

/* Looks in a timeout. The last byte may have come right after a look, so that LOOKS - 1 unchanged
 * ones find a silence within the timeout; a beat leaves at most two intervals after the last byte,
 * which leaves half of the timeout to the network. */
#define LOOKS 6u

static uint64_t
interval_ns(const Heartbeat *heartbeat)
{
    return MAX(heartbeat->timeout_ns / LOOKS, 1);
}

void
heartbeat_start(Heartbeat *heartbeat, uint64_t timeout_ms, uint64_t now_ns)
{
    if (heartbeat_is_on(heartbeat) || !timeout_ms)
        return;
    heartbeat->timeout_ns = timeout_ms * HEARTBEAT_NS_PER_MS;
    heartbeat->next_ns = now_ns;
}

/* A little early is in time: roles wake each other at their own intervals. The rate stays. */
bool
heartbeat_is_due(Heartbeat *heartbeat, uint64_t now_ns)
{
    uint64_t interval = interval_ns(heartbeat);

    if (!heartbeat_is_on(heartbeat) || now_ns + interval / 4 < heartbeat->next_ns)
        return false;
    bool is_late = now_ns >= heartbeat->next_ns + interval;
    heartbeat->next_ns = is_late ? now_ns + interval : heartbeat->next_ns + interval;
    return true;
}

static unsigned
looks_unchanged(Pulse *pulse, uint64_t count_bytes)
{
    if (pulse->count_bytes != count_bytes)
        *pulse = (Pulse){.count_bytes = count_bytes};
    else
        pulse->looks++;
    return pulse->looks;
}

bool
heartbeat_wants_beat(Pulse *sent, uint64_t count_bytes)
{
    return looks_unchanged(sent, count_bytes) != 0;
}

bool
heartbeat_is_lost(Pulse *heard, uint64_t count_bytes, unsigned patience)
{
    return looks_unchanged(heard, count_bytes) >= LOOKS * patience - 1;
}

GError *
heartbeat_error(const Heartbeat *heartbeat, const char *whom, const char *channel,
                unsigned patience)
{
    return g_error_new(FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                       "heartbeat: nothing has come from the %s for %" G_GUINT64_FORMAT
                       " ms on the %s connection, which hangs; see the network between the two, or "
                       "raise heartbeat-timeout",
                       whom, heartbeat->timeout_ns / HEARTBEAT_NS_PER_MS * patience, channel);
}
