/* SPDX-License-Identifier: MIT */
/*
 * The back-off of spinning, and how long an answer is worth to be waited for awake. Pure
 * arithmetic; threads.c spins, the fault and the request role say what they wait for.
 */
#include "engine/spin.h"

#define MISSES_MAX  4u  /* in a row, before sleeping comes first */
#define SKIPS_MAX   32u /* sleeps between two tries then */
#define TOO_LONG_NS 200000u

uint64_t
spin_allow(Spin *spin, uint64_t wanted_ns)
{
    if (spin->count_misses < MISSES_MAX || ++spin->count_skips >= SKIPS_MAX) {
        spin->count_skips = 0;
        return wanted_ns;
    }
    return 0;
}

void
spin_learn(Spin *spin, bool is_hit)
{
    spin->count_misses = is_hit ? 0 : spin->count_misses + 1;
}

uint64_t
spin_mean(uint64_t mean_ns, uint64_t new_ns)
{
    return mean_ns ? mean_ns - mean_ns / 8 + new_ns / 8 : new_ns;
}

uint64_t
spin_for_answer(uint64_t mean_ns, uint64_t limit_ns)
{
    if (mean_ns > TOO_LONG_NS)
        return 0;
    uint64_t wanted_ns = mean_ns ? 2 * mean_ns : limit_ns;
    return wanted_ns < limit_ns ? wanted_ns : limit_ns;
}
