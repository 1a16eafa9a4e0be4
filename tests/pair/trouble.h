/* SPDX-License-Identifier: MIT */
/* Pair tests in which something goes wrong, or goes on for long; each is a cmocka test whose state
 * is a Scene. */
#ifndef TESTS_PAIR_TROUBLE_H
#define TESTS_PAIR_TROUBLE_H

void ping_pong_twenty_times_threads(void **state);
void ping_pong_twenty_times_kvm(void **state);
void migrate_to_nobody_leaves_guest_running(void **state);
void incoming_garbage_ends_its_connection_alone(void **state);
void cancel_at_random_moments_leaves_guest_running(void **state);
void destination_killed_in_precopy_leaves_guest_running(void **state);
void link_cut_in_precopy_leaves_guest_running(void **state);
void link_cut_in_postcopy_pauses_both(void **state);
void link_cut_in_postcopy_with_preempt_pauses_both(void **state);
void destination_killed_in_postcopy_pauses_source(void **state);

#endif
