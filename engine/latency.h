/* SPDX-License-Identifier: MIT */
/* Putting latencies of faults into a FaultlineLatency, and reading it while it grows. */
#ifndef ENGINE_LATENCY_H
#define ENGINE_LATENCY_H

#include "engine/faultline.h"

/* Thread: one, the fault thread. */
void latency_put(FaultlineLatency *latency, uint64_t value_ns);

/* A copy. Thread: any. */
void latency_read(const FaultlineLatency *latency, FaultlineLatency *ret);

#endif
