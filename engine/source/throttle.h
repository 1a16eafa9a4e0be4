/* SPDX-License-Identifier: MIT */
/*
 * Auto-converge: by how much the guest's vCPUs are slowed down, from pass to pass.
 *
 * A pass does not converge when the guest dirtied more than `trigger` percent of what was sent in
 * it. After two such passes in a row a step is taken, by which vCPUs run more slowly from the next
 * pass on: at first to `initial` percent, then up by `increment`, up to `greatest`. The second pass
 * is what shows whether a step was enough, so nothing is judged by the clock; a pass that does not
 * converge lasts longer than downtime-limit, which evens out in what part of a vCPU's slice it
 * began. Steps only go up: a guest that is let go dirties as before.
 *
 * Arithmetic only; migration thread.
 */
#ifndef ENGINE_SOURCE_THROTTLE_H
#define ENGINE_SOURCE_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

/* In percent, within the ranges of their parameters. */
typedef struct ThrottleSteps {
    unsigned trigger, initial, increment, greatest;
    bool has_slow_tail; /* a step is not larger than what should suffice */
} ThrottleSteps;

typedef struct Throttle {
    unsigned percent;      /* of its time that a vCPU is held; 0: runs freely */
    unsigned count_passes; /* that did not converge, since the last step or one that did */
} Throttle;

/* A pass is over that did not bring the rest below the downtime: takes a step if there is need.
 * Returns whether percent is another now. */
bool throttle_judge(Throttle *throttle, const ThrottleSteps *steps, uint64_t sent_bytes,
                    uint64_t dirtied_bytes);

#endif
