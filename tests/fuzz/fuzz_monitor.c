/* SPDX-License-Identifier: MIT */
/*
 * The monitor: QMP bytes and HMP lines of a client, to either side, whose migration is the client's
 * to begin.
 */
#include "tests/fuzz/side.h"

const size_t fuzz_bound_bytes = 32u << 20;

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    if (length == 0)
        return 0;
    const SideStart start = {.side = bytes[0] & 1 ? SIM_DESTINATION : SIM_SOURCE, .channel = 'q'};
    side_run(&start, bytes + 1, length - 1);
    return 0;
}
