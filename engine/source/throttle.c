/* SPDX-License-Identifier: MIT */
/* By how much vCPUs are slowed down; see the header. Migration thread. */
#include "engine/source/throttle.h"

#include <glib.h>

#define PASSES_A_STEP 2u

/* The part of its present speed by which the guest is too fast, rounded up, if it dirties memory in
 * proportion to the time that it runs. */
static unsigned
missing_percent(const Throttle *throttle, double allowed_bytes, uint64_t dirtied_bytes)
{
    double excess = 1 - allowed_bytes / (double)dirtied_bytes;
    return 1 + (unsigned)((100 - throttle->percent) * excess);
}

bool
throttle_judge(Throttle *throttle, const ThrottleSteps *steps, uint64_t sent_bytes,
               uint64_t dirtied_bytes)
{
    double allowed_bytes = (double)sent_bytes * steps->trigger / 100;
    unsigned before = throttle->percent;

    if ((double)dirtied_bytes <= allowed_bytes) {
        throttle->count_passes = 0;
        return false;
    }
    if (++throttle->count_passes < PASSES_A_STEP)
        return false;
    throttle->count_passes = 0;
    unsigned step = before == 0 ? steps->initial : steps->increment;
    if (before > 0 && steps->has_slow_tail)
        step = MIN(step, missing_percent(throttle, allowed_bytes, dirtied_bytes));
    throttle->percent = MIN(before + step, steps->greatest);
    return throttle->percent != before;
}
