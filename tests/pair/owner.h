/* SPDX-License-Identifier: MIT */
/* Pair tests of the record of who owns the guest, and of what is done when a side is lost. */
#ifndef TESTS_PAIR_OWNER_H
#define TESTS_PAIR_OWNER_H

void process_killed_at_random_leaves_records_that_agree_precopy(void **state);
void process_killed_at_random_leaves_records_that_agree_postcopy(void **state);
void process_killed_at_random_leaves_records_that_agree_preempt(void **state);
void state_directory_that_vanished_keeps_the_guest_at_the_source(void **state);
void state_directory_that_vanished_at_the_destination_gives_the_guest_back(void **state);
void source_lost_stalls_pauses_or_ends(void **state);

#endif
