/* SPDX-License-Identifier: MIT */
/*
 * A source and what comes back to it: the return path, and requests on the urgent channel.
 */
#include "tests/fuzz/side.h"

const size_t fuzz_bound_bytes = 2u << 20;

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const SideStart start = {.side = SIM_SOURCE, .begins = true, .channel = 'm'};
    side_run(&start, bytes, length);
    return 0;
}
