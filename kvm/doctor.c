/* SPDX-License-Identifier: MIT */
/*
 * `faultline doctor`: tries what a migration will ask of this host, prints a row for each, and ends
 * with 0 only if postcopy would work. The trials run in a child process, as a seccomp filter may
 * kill instead of refusing, and somebody has to be left to say so. One thread in each.
 */
#include "kvm/command.h"
#include "kvm/doctor.h"
#include "kvm/machine.h"

#include <errno.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT_S    120
#define QMP_SCHEME "qmp:"

typedef struct Doctor {
    char *guest;
    char **to;
    gboolean json;
    const char *uri, *socket; /* of to */
    const MachineKind *kind;
    DoctorReport report;
} Doctor;

static bool
refuse(GError **error, const char *reason)
{
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, reason);
    return false;
}

/* ---- Trials: the child ----------------------------------------------------------------------- */

static bool
try_all(Doctor *doctor)
{
    bool needs_kvm = doctor->kind == &machine_kvm;
    bool good = doctor_check_machine(&doctor->report, needs_kvm);

    good = faultline_check_host(doctor->kind->guest, doctor->uri, doctor_report_take,
                                &doctor->report) &&
           good;
    if (doctor->socket)
        good = doctor_check_peer(&doctor->report, doctor->socket) && good;
    return good;
}

/* ---- The parent ------------------------------------------------------------------------------ */

static bool
say_end(Doctor *doctor, int signal_number)
{
    g_autofree char *text = g_strdup_printf(
        "it was ended by signal %d (%s). %s", signal_number, strsignal(signal_number),
        signal_number == SIGSYS
            ? "Make the seccomp filter refuse instead of kill, to see which call it is (systemd: "
              "SystemCallErrorNumber=EPERM), and allow that"
            : "Report this as a fault of the doctor, with the lines above");

    return doctor_report_add(&doctor->report, "doctor", "what follows the line above",
                             FAULTLINE_CHECK_CLOSED, text);
}

/* The child says by its exit status whether nothing is closed. */
static bool
try_in_child(Doctor *doctor)
{
    int status = 0;
    pid_t child = fork();

    if (child < 0) {
        g_autofree char *text =
            g_strdup_printf("fork: %s. Raise the limit of processes", g_strerror(errno));
        return doctor_report_add(&doctor->report, "doctor", "a process for the trials",
                                 FAULTLINE_CHECK_CLOSED, text);
    }
    if (child == 0) {
        alarm(LIMIT_S);
        bool good = try_all(doctor);
        fflush(NULL);
        _exit(good ? EXIT_OK : EXIT_FAILED);
    }
    while (waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (WIFSIGNALED(status))
        return say_end(doctor, WTERMSIG(status));
    return WIFEXITED(status) && WEXITSTATUS(status) == EXIT_OK;
}

/* ---- Options --------------------------------------------------------------------------------- */

static bool
take_to(Doctor *doctor, GError **error)
{
    for (char **at = doctor->to; at && *at; at++) {
        bool is_socket = g_str_has_prefix(*at, QMP_SCHEME);
        const char **into = is_socket ? &doctor->socket : &doctor->uri;

        if (*into)
            return refuse(error, "--to: give at most one address and one QMP socket");
        *into = is_socket ? *at + strlen(QMP_SCHEME) : *at;
        if (!**into)
            return refuse(error, "--to: give tcp:HOST:PORT, unix:PATH or qmp:PATH");
    }
    return true;
}

static bool
take_guest(Doctor *doctor, GError **error)
{
    static const MachineKind *const kinds[] = {&machine_kvm, &machine_threads};

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (g_str_equal(doctor->guest ? doctor->guest : "kvm", kinds[i]->name))
            doctor->kind = kinds[i];
    return doctor->kind || refuse(error, "--guest: give kvm or threads");
}

static bool
parse(Doctor *doctor, int argc, char **argv, GError **error)
{
    const GOptionEntry entries[] = {
        {"to", 0, 0, G_OPTION_ARG_STRING_ARRAY, &doctor->to,
         "try whether a destination listens there; qmp: ask the machine behind its QMP socket",
         "tcp:HOST:PORT|unix:PATH|qmp:PATH"},
        {"guest", 0, 0, G_OPTION_ARG_STRING, &doctor->guest, "kind of guest to be moved (kvm)",
         "kvm|threads"},
        {"json", 0, 0, G_OPTION_ARG_NONE, &doctor->json, "print JSON, one object a line", NULL},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);

    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_summary(
        context, "Tries on this host what a migration asks of it, and prints what came of it: ok,\n"
                 "warning (it goes without), closed (postcopy does not work), and what to do.\n"
                 "A destination is tried without a connection: it does not notice.");
    g_option_context_set_description(
        context, "Exit codes: 0 postcopy would work, 1 something is closed, 2 wrong use.");
    g_set_prgname("faultline doctor");
    if (!g_option_context_parse(context, &argc, &argv, error))
        return false;
    if (argc > 1)
        return refuse(error, "it takes options only");
    return take_to(doctor, error) && take_guest(doctor, error);
}

int
doctor_command(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Doctor doctor = {0};
    int exit_code = EXIT_USAGE;

    if (parse(&doctor, argc, argv, &error)) {
        doctor.report = (DoctorReport){.stream = stdout,
                                       .json = doctor.json,
                                       .colour = isatty(STDOUT_FILENO) && !g_getenv("NO_COLOR")};
        bool good = try_in_child(&doctor);
        doctor_report_end(&doctor.report, good);
        exit_code = good ? EXIT_OK : EXIT_FAILED;
    } else {
        usage_error("doctor", error->message);
    }
    g_free(doctor.guest);
    g_strfreev(doctor.to);
    return exit_code;
}
