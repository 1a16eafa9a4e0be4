/* SPDX-License-Identifier: MIT */
/* System calls that a remote fault takes, counted by strace. */
#ifndef TESTS_BENCH_SYSTEM_CALLS_H
#define TESTS_BENCH_SYSTEM_CALLS_H

/* What this program does when strace runs it: one migration whose guest touches 2,000 pages by as
 * many threads as the argument says. Prints the number of requests. Returns the exit status. */
int system_calls_move(const char *count_threads);

void lone_faults_take_few_system_calls(void **state);
void batches_of_faults_take_few_system_calls(void **state);

#endif
