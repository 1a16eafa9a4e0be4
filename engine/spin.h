/* SPDX-License-Identifier: MIT */
/*
 * When to look for news for a while instead of sleeping: waking a sleeping thread costs more than
 * all the rest of a fault's round trip. A spin that ends without news is a miss; after a few in a
 * row sleeping comes first again, and a spin is tried now and then. Owned by one role; no clock in
 * here.
 */
#ifndef ENGINE_SPIN_H
#define ENGINE_SPIN_H

#include <stdbool.h>
#include <stdint.h>

typedef struct Spin {
    unsigned count_misses; /* in a row */
    unsigned count_skips;  /* since the last try */
} Spin;

/* How long to spin now: wanted_ns, or 0. */
uint64_t spin_allow(Spin *spin, uint64_t wanted_ns);
void spin_learn(Spin *spin, bool is_hit);

/* Running mean of a round trip, an eighth of the new value each time; 0: none known yet. */
uint64_t spin_mean(uint64_t mean_ns, uint64_t new_ns);

/* How long it is worth while to spin for an answer whose round trip takes mean_ns: twice that, at
 * most limit_ns; 0 when it takes too long to wait awake (a WAN). */
uint64_t spin_for_answer(uint64_t mean_ns, uint64_t limit_ns);

#endif
