/* SPDX-License-Identifier: MIT */
/* Comparing all guest memory of two processes, from outside, by /proc/PID/mem. */
#ifndef TESTS_PAIR_MEMORY_H
#define TESTS_PAIR_MEMORY_H

#include "tests/pair/scene.h"

/* Both guests stand still and both mappings are whole. Blocks are found by the lines "ram: NAME
 * 0xADDRESS 0xLENGTH" that the program prints. Fails the test at the first byte that differs, and
 * when all of it is zero: then nothing would have been shown. */
void memory_require_equal(Vm *source, Vm *destination);

#endif
