/* SPDX-License-Identifier: MIT */
/*
 * A destination and the stream that it is sent.
 */
#include "tests/fuzz/side.h"

const size_t fuzz_bound_bytes = 4u << 20;

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const SideStart start = {.side = SIM_DESTINATION, .begins = true, .channel = 'm'};
    side_run(&start, bytes, length);
    return 0;
}
