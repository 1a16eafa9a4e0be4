/* SPDX-License-Identifier: MIT */
/*
 * What every harness of this folder has: one input in, and a bound on the memory it may cost.
 *
 * A harness is one file fuzz_NAME.c that defines the two below. It is linked twice: with libFuzzer
 * (make fuzz), and with replay.c, which runs files (make check). bound.c counts for both.
 */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Most live bytes that one input may add to what was live before it; README.md says why. */
extern const size_t fuzz_bound_bytes;

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length_bytes);

/* ---- bound.c: live bytes of malloc and its kin, of all threads */

/* From here on, going beyond limit_bytes more than now prints both and aborts. */
void bound_begin(size_t limit_bytes);
/* No limit any more. */
void bound_end(void);
/* The most since bound_begin(), above what was live then. */
size_t bound_peak(void);

#endif
