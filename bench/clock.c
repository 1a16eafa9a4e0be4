/* SPDX-License-Identifier: MIT */
/*
 * Calibration of the time stamp counter: the shortest of several readings at both ends of an
 * interval, so that a preempted one does not count. Main thread of the coordinating process.
 */
#include "bench/clock.h"
#include "engine/faultline.h"

#include <cpuid.h>
#include <time.h>

#define INTERVAL_NS  50000000u
#define READINGS     64u
#define LEAF_POWER   0x80000007u
#define BIT_CONSTANT (1u << 8)

static double ns_per_tick = 1.0;

uint64_t
bench_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Counter and clock of the same instant, as far as the narrowest of the readings allows. */
static void
read_both(uint64_t *ret_ticks, uint64_t *ret_ns)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < READINGS; i++) {
        uint64_t before = bench_ticks();
        uint64_t ns = bench_now_ns();
        uint64_t width = bench_ticks() - before;
        if (width >= least)
            continue;
        least = width;
        *ret_ticks = before + width / 2;
        *ret_ns = ns;
    }
}

bool
bench_clock_calibrate(GError **error)
{
    unsigned a, b, c, d = 0;
    uint64_t first_ticks = 0, first_ns = 0, last_ticks = 0, last_ns = 0;

    if (!__get_cpuid(LEAF_POWER, &a, &b, &c, &d) || !(d & BIT_CONSTANT)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "measure by time stamp counter: this CPU's counter is not invariant; run the "
                    "bench on another machine");
        return false;
    }
    read_both(&first_ticks, &first_ns);
    while (bench_now_ns() < first_ns + INTERVAL_NS)
        _mm_pause();
    read_both(&last_ticks, &last_ns);
    ns_per_tick = (double)(last_ns - first_ns) / (double)(last_ticks - first_ticks);
    return true;
}

double
bench_ns_per_tick(void)
{
    return ns_per_tick;
}

void
bench_spin_ns(uint64_t ns)
{
    uint64_t end = bench_ticks() + (uint64_t)((double)ns / ns_per_tick);
    while (bench_ticks() < end)
        _mm_pause();
}
