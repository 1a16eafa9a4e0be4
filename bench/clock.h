/* SPDX-License-Identifier: MIT */
/*
 * The time stamp counter, for what is too short for a system call's clock. Both reads are fenced,
 * so that the touch between two of them lies between them. Any thread; comparable between the CPUs
 * of one machine where the counter is invariant, which bench_clock_calibrate() checks.
 * Source: Intel SDM vol. 2B, RDTSCP; vol. 3B, 18.17.
 */
#ifndef BENCH_CLOCK_H
#define BENCH_CLOCK_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>
#include <x86intrin.h>

static inline uint64_t
bench_ticks(void)
{
    unsigned processor;
    _mm_lfence();
    uint64_t ticks = __rdtscp(&processor);
    _mm_lfence();
    return ticks;
}

/* Measures the counter against CLOCK_MONOTONIC. Errors: the CPU has no invariant counter. Before
 * any process is forked, so that all of them use the same figure. */
bool bench_clock_calibrate(GError **error);
double bench_ns_per_tick(void);

uint64_t bench_now_ns(void);
void bench_spin_ns(uint64_t ns);

#endif
