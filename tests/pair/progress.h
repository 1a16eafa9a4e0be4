/* SPDX-License-Identifier: MIT */
/* What `faultline migrate` says while it moves a guest: at a terminal one line, written over and
 * over; with --json one object a line. */
#ifndef TESTS_PAIR_PROGRESS_H
#define TESTS_PAIR_PROGRESS_H

void orchestrate_progress_at_a_terminal_is_one_line(void **state);
void orchestrate_json_is_one_object_a_line(void **state);

#endif
