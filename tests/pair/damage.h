/* SPDX-License-Identifier: MIT */
/* Pair tests in which bits change on the way, with page-checksums on both sides. */
#ifndef TESTS_PAIR_DAMAGE_H
#define TESTS_PAIR_DAMAGE_H

#include "tests/pair/scene.h"

/* Fails unless query-migrate has this verdict over all memory. */
void damage_require_verdict(Vm *vm, const char *verdict);

void damaged_pages_of_precopy_are_asked_for_again(void **state);
void damaged_pages_of_postcopy_are_asked_for_again(void **state);
void damage_that_goes_on_in_precopy_leaves_guest_running(void **state);
void damage_that_goes_on_in_postcopy_pauses_both_and_recovers(void **state);

#endif
