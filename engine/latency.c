/* SPDX-License-Identifier: MIT */
/*
 * Histogram of latencies: 32 buckets an octave, so that a value read back is within 3.2% of the one
 * that was put in. Put by the fault thread, read by any: each figure is atomic, together they agree
 * nearly.
 */
#include "engine/latency.h"

#define OCTAVE_BITS 5u /* log2 of the buckets of an octave */
#define OCTAVE      (1u << OCTAVE_BITS)

/* Values below OCTAVE have a bucket each; above, the top OCTAVE_BITS + 1 bits choose. */
static unsigned
bucket_of(uint64_t value_ns)
{
    if (value_ns < OCTAVE)
        return (unsigned)value_ns;
    unsigned shift = 63u - (unsigned)__builtin_clzll(value_ns) - OCTAVE_BITS;
    unsigned bucket = (shift << OCTAVE_BITS) + (unsigned)(value_ns >> shift);
    return MIN(bucket, FAULTLINE_LATENCY_BUCKETS - 1);
}

/* The middle of what falls into a bucket. */
static uint64_t
value_of(unsigned bucket)
{
    if (bucket < 2 * OCTAVE)
        return bucket;
    unsigned shift = (bucket >> OCTAVE_BITS) - 1;
    uint64_t low = (uint64_t)(bucket - (shift << OCTAVE_BITS)) << shift;
    return low + (1ull << shift) / 2;
}

static void
add(uint64_t *figure, uint64_t value)
{
    __atomic_store_n(figure, *figure + value, __ATOMIC_RELAXED);
}

void
latency_put(FaultlineLatency *latency, uint64_t value_ns)
{
    uint32_t *bucket = &latency->buckets[bucket_of(value_ns)];
    __atomic_store_n(bucket, *bucket + 1, __ATOMIC_RELAXED);
    add(&latency->count, 1);
    add(&latency->total_ns, value_ns);
    if (value_ns > latency->max_ns)
        __atomic_store_n(&latency->max_ns, value_ns, __ATOMIC_RELAXED);
}

void
latency_read(const FaultlineLatency *latency, FaultlineLatency *ret)
{
    ret->count = __atomic_load_n(&latency->count, __ATOMIC_RELAXED);
    ret->total_ns = __atomic_load_n(&latency->total_ns, __ATOMIC_RELAXED);
    ret->max_ns = __atomic_load_n(&latency->max_ns, __ATOMIC_RELAXED);
    for (unsigned i = 0; i < FAULTLINE_LATENCY_BUCKETS; i++)
        ret->buckets[i] = __atomic_load_n(&latency->buckets[i], __ATOMIC_RELAXED);
}

uint64_t
faultline_latency_count_below(const FaultlineLatency *latency, uint64_t limit_ns)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < FAULTLINE_LATENCY_BUCKETS && value_of(i) < limit_ns; i++)
        count += latency->buckets[i];
    return count;
}

uint64_t
faultline_latency_percentile(const FaultlineLatency *latency, double percent)
{
    uint64_t count = 0, seen = 0;
    for (unsigned i = 0; i < FAULTLINE_LATENCY_BUCKETS; i++)
        count += latency->buckets[i];
    double wanted = (double)count * CLAMP(percent, 0.0, 100.0) / 100.0;
    for (unsigned i = 0; i < FAULTLINE_LATENCY_BUCKETS; i++) {
        seen += latency->buckets[i];
        if (seen && (double)seen >= wanted)
            return MIN(value_of(i), latency->max_ns);
    }
    return 0;
}
