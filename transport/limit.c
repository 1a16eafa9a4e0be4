/* SPDX-License-Identifier: MIT */
/*
 * Rate limits: a token bucket kept as one time, that from which the next frame may go.
 *
 * Sending moves that time on by what the frame costs at the rate; it never lies more than the
 * bucket's 20 ms in the past. The owner's thread, except for transport_limit_set(). A new rate
 * acts at once: what is owed is kept in bytes and reckoned again.
 */
#include "transport/transport.h"

#define BUCKET_NS 20000000u
#define NS_PER_S  1000000000u
#define FAR_NS    ((uint64_t)INT64_MAX / 4) /* no sum of two overflows */

static uint64_t
scale(uint64_t value, uint64_t factor, uint64_t divisor)
{
    unsigned __int128 scaled = (unsigned __int128)value * factor / divisor;

    return scaled > FAR_NS ? FAR_NS : (uint64_t)scaled;
}

/* Returns the rate in force, ready_ns being reckoned by it. */
static uint64_t
settle(TransportLimit *limit, uint64_t now_ns)
{
    uint64_t rate = __atomic_load_n(&limit->bytes_per_s, __ATOMIC_RELAXED);

    if (rate == limit->settled_bytes_per_s)
        return rate;
    if (rate == 0 || limit->settled_bytes_per_s == 0)
        limit->ready_ns = 0;
    else if (limit->ready_ns > now_ns)
        limit->ready_ns =
            now_ns + scale(limit->ready_ns - now_ns, limit->settled_bytes_per_s, rate);
    limit->settled_bytes_per_s = rate;
    return rate;
}

void
transport_limit_set(TransportLimit *limit, uint64_t bytes_per_s)
{
    __atomic_store_n(&limit->bytes_per_s, bytes_per_s, __ATOMIC_RELAXED);
}

uint64_t
transport_limit_wait(TransportLimit *limit, uint64_t now_ns)
{
    if (settle(limit, now_ns) == 0 || limit->ready_ns <= now_ns)
        return 0;
    return limit->ready_ns;
}

void
transport_limit_take(TransportLimit *limit, uint64_t length, uint64_t now_ns)
{
    uint64_t rate = settle(limit, now_ns);
    uint64_t oldest_ns = now_ns > BUCKET_NS ? now_ns - BUCKET_NS : 0;

    if (rate == 0)
        return;
    limit->ready_ns = MIN(MAX(limit->ready_ns, oldest_ns), FAR_NS) + scale(length, NS_PER_S, rate);
}
