/* SPDX-License-Identifier: MIT */
/* Pair tests of connections that are lost in postcopy and found again without a command; each is a
 * cmocka test whose state is a Scene. */
#ifndef TESTS_PAIR_HEAL_H
#define TESTS_PAIR_HEAL_H

void link_broken_in_postcopy_heals(void **state);
void link_broken_in_postcopy_with_preempt_heals(void **state);
void link_cut_for_good_heals_by_another_address(void **state);
void link_hanging_in_postcopy_heals(void **state);
void link_hanging_in_postcopy_with_preempt_heals(void **state);
void link_broken_again_and_again_heals_among_strangers(void **state);
void last_word_that_is_lost_is_said_again(void **state);
void pause_by_command_waits_for_a_command(void **state);

#endif
