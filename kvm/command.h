/* SPDX-License-Identifier: MIT */
/*
 * The subcommands of the program. main.c has their table; each is a file of its own and gets its
 * arguments with its own name as the first.
 */
#ifndef KVM_COMMAND_H
#define KVM_COMMAND_H

/* Exit codes of every subcommand. */
#define EXIT_OK     0
#define EXIT_FAILED 1
#define EXIT_USAGE  2
/* Of `faultline run` alone. */
#define EXIT_SOURCE_LOST      3 /* --on-source-lost end */
#define EXIT_DESTINATION_LOST 4 /* ended with a guest's pages, after its destination was lost */

int run_command(int argc, char **argv);
int monitor_command(int argc, char **argv);
int migrate_command(int argc, char **argv);
int demo_command(int argc, char **argv);
int doctor_command(int argc, char **argv);
int status_command(int argc, char **argv);

/* Prints one error line with the way to help, and returns EXIT_USAGE. */
int usage_error(const char *command, const char *reason);

#endif
