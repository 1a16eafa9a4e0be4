/* SPDX-License-Identifier: MIT */
/* See orchestra.h. One thread, and one for each gate. */
#include "tests/pair/orchestra.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARGUMENTS 32

/* A full-speed guest of 16 MiB at 64 MiB/s: no pass leaves less than the one before. */
#define SLOW "--bandwidth=64M"

/* ---- The machines ---------------------------------------------------------------------------- */

Orchestra *
orchestra_new(Scene *scene, const OrchestraKind *kind)
{
    const char *guest = kind->guest ? kind->guest : "threads";
    const char *here[] = {
        "--guest", guest, "--memory", "16M", kind->writes_much ? NULL : "--write-rate",
        "200",     NULL};
    const char *there[] = {"--guest",    guest,
                           "--memory",   kind->other_memory ? kind->other_memory : "16M",
                           "--incoming", kind->incoming ? kind->incoming : "defer",
                           NULL};
    scene_need_guest(guest);
    Orchestra *orchestra = g_new0(Orchestra, 1);

    orchestra->scene = scene;
    orchestra->source = scene_start(scene, "source", here);
    orchestra->destination = scene_start(scene, "destination", there);
    vm_wait_checks(orchestra->source, ORCHESTRA_CHECKS);
    for (unsigned i = 0; i < 2; i++) {
        const Vm *vm = i ? orchestra->destination : orchestra->source;
        orchestra->sockets[i] = g_strdup_printf("%s/%s.gate", scene->directory, vm->label);
        orchestra->gates[i] = gate_new(orchestra->sockets[i], vm->socket);
    }
    orchestra->output = g_strdup_printf("%s/migrate.output", scene->directory);
    return orchestra;
}

void
orchestra_free(Orchestra *orchestra)
{
    for (unsigned i = 0; i < 2; i++) {
        gate_free(orchestra->gates[i]);
        g_free(orchestra->sockets[i]);
    }
    g_free(orchestra->output);
    g_free(orchestra);
}

/* ---- The program ----------------------------------------------------------------------------- */

static void
run_child(char *const *argv, const char *output)
{
    int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(argv[0], argv);
    _exit(127);
}

void
orchestra_start(Orchestra *orchestra, const char *const *options)
{
    g_autofree char *program = scene_program();
    const char *argv[ARGUMENTS] = {program,
                                   "migrate",
                                   "--json",
                                   "--from",
                                   orchestra->sockets[0],
                                   "--to",
                                   orchestra->sockets[1],
                                   SLOW};
    unsigned count = 8;

    for (unsigned i = 0; options[i]; i++)
        argv[count++] = options[i];
    pid_t pid = fork();
    if (pid == 0)
        run_child((char *const *)argv, orchestra->output);
    __atomic_store_n(&orchestra->pid, pid, __ATOMIC_RELEASE);
}

char *
orchestra_said(const Orchestra *orchestra)
{
    char *text = NULL;

    g_file_get_contents(orchestra->output, &text, NULL, NULL);
    return text ? text : g_strdup("");
}

void
orchestra_wait_for(Orchestra *orchestra, const char *words)
{
    int64_t until_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;

    while (true) {
        g_autofree char *text = orchestra_said(orchestra);
        if (strstr(text, words))
            return;
        if (g_get_monotonic_time() > until_us)
            scene_fail(orchestra->scene, "it does not say \"%s\" but:\n%s", words, text);
        g_usleep(5000);
    }
}

/* Its exit code is that, and it said all of it. */
void
orchestra_expect_end(Orchestra *orchestra, int exit_code, const char *words)
{
    int64_t until_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;
    int status = 0;

    while (waitpid(orchestra->pid, &status, WNOHANG) == 0) {
        if (g_get_monotonic_time() > until_us) {
            g_autofree char *text = orchestra_said(orchestra);
            kill(orchestra->pid, SIGKILL);
            scene_fail(orchestra->scene, "the program does not end; it said:\n%s", text);
        }
        g_usleep(5000);
    }
    g_autofree char *text = orchestra_said(orchestra);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != exit_code || !strstr(text, words))
        scene_fail(orchestra->scene, "wait status 0x%x, expected exit code %d and \"%s\":\n%s",
                   (unsigned)status, exit_code, words, text);
}

void
orchestra_expect_outcome(Orchestra *orchestra, int exit_code, const char *guest)
{
    g_autofree char *words = g_strdup_printf("\"guest\":\"%s\"", guest);

    orchestra_expect_end(orchestra, exit_code, words);
}

void
orchestra_require_runs(Vm *vm)
{
    vm_wait_run_state(vm, "running");
    vm_wait_checks(vm, ORCHESTRA_CHECKS);
}

/* The guest is at the source, and can be moved to the same destination as if nothing had been. */
void
orchestra_require_moves(Orchestra *orchestra)
{
    static const char *const options[] = {"--postcopy=after-pass=1", NULL};

    orchestra_require_runs(orchestra->source);
    orchestra_start(orchestra, options);
    orchestra_expect_outcome(orchestra, 0, "destination");
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
}
