/* SPDX-License-Identifier: MIT */
/*
 * The program `faultline`: finds the subcommand in a table and runs it. What a subcommand does and
 * takes is said in its own file. Main thread only.
 */
#include "kvm/command.h"

#include <glib.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>

#define PROGRAM_VERSION "0.1.0"

typedef struct CommandRow {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *arguments;
    const char *help;
} CommandRow;

static const CommandRow command_table[] = {
    {"run", run_command, "--memory SIZE --qmp unix:PATH [...]",
     "start a machine, or wait for one that migrates here"},
    {"monitor", monitor_command, "PATH [COMMAND...]",
     "send monitor commands to a running machine, or type them"},
    {"migrate", migrate_command, "--from SOCKET --to SOCKET [...]",
     "move the guest of a running machine to another, in five phases"},
    {"demo", demo_command, "[--memory SIZE] [...]",
     "move a guest between two processes of this host and report"},
    {"doctor", doctor_command, "[--to ADDRESS] [...]",
     "try what a migration needs of this host, and say what mends it"},
    {"status", status_command, "[--json] DIR",
     "say where each guest of a state directory is, after any crash"},
};

static void
print_help(void)
{
    printf(
        "Usage: faultline COMMAND [ARGUMENT...]\n\n"
        "Moves a running virtual machine to another process or host: precopy, then postcopy.\n\n");
    for (unsigned i = 0; i < G_N_ELEMENTS(command_table); i++)
        printf("  %-8s %-38s %s\n", command_table[i].name, command_table[i].arguments,
               command_table[i].help);
    printf("\nfaultline COMMAND --help says more; faultline --version prints the version.\n"
           "Exit codes: 0 success, 1 failure, 2 wrong use.\n");
}

int
usage_error(const char *command, const char *reason)
{
    fprintf(stderr, "faultline%s%s: %s; see: faultline%s%s --help\n", command ? " " : "",
            command ? command : "", reason, command ? " " : "", command ? command : "");
    return EXIT_USAGE;
}

int
main(int argc, char **argv)
{
    setlocale(LC_ALL, "");
    signal(SIGPIPE, SIG_IGN);

    const char *name = argc > 1 ? argv[1] : NULL;
    if (!name)
        return usage_error(NULL, "no command given");
    if (g_str_equal(name, "--help") || g_str_equal(name, "-h") || g_str_equal(name, "help")) {
        print_help();
        return EXIT_OK;
    }
    if (g_str_equal(name, "--version")) {
        printf("faultline " PROGRAM_VERSION "\n");
        return EXIT_OK;
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(command_table); i++)
        if (g_str_equal(name, command_table[i].name))
            return command_table[i].run(argc - 1, argv + 1);

    g_autofree char *reason = g_strdup_printf("there is no command \"%s\"", name);
    return usage_error(NULL, reason);
}
