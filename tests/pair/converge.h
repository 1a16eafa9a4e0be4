/* SPDX-License-Identifier: MIT */
/* Pair tests of guests that write faster than they are sent, and auto-converge; each is a cmocka
 * test whose state is a Scene. */
#ifndef TESTS_PAIR_CONVERGE_H
#define TESTS_PAIR_CONVERGE_H

void auto_converge_ends_a_precopy_that_would_not_threads(void **state);
void auto_converge_ends_a_precopy_that_would_not_kvm(void **state);
void cancel_of_a_throttled_guest_lets_it_run_threads(void **state);
void cancel_of_a_throttled_guest_lets_it_run_kvm(void **state);

#endif
