/* SPDX-License-Identifier: MIT */
/* The bench of recovery, run once small: each kind of recovery, without and with an urgent channel.
 */
#ifndef TESTS_BENCH_RECOVERY_H
#define TESTS_BENCH_RECOVERY_H

void recovery_by_itself_and_by_command_times_every_break(void **state);

#endif
