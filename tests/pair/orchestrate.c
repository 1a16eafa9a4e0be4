/* SPDX-License-Identifier: MIT */
/* See orchestrate.h. The machines are thread guests of 16 MiB; gates stand before their sockets.
 * One thread, and one for each gate. */
#include "tests/pair/orchestrate.h"
#include "tests/pair/gate.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define GUEST_CHECKS 4096 /* once through 16 MiB */
#define ARGUMENTS    32

/* A full-speed guest of 16 MiB at 64 MiB/s: no pass leaves less than the one before. */
#define SLOW "--bandwidth=64M"

typedef struct Orchestra {
    Scene *scene;
    Vm *source, *destination;
    Gate *gates[2];   /* of source and destination */
    char *sockets[2]; /* of the gates */
    char *output;     /* path: what the program printed */
    pid_t pid;        /* of the program; 0: not started */
} Orchestra;

const PolicyCase orchestrate_policies[] = {
    {.name = "orchestrate_converging_moves_the_guest"},
    {.name = "orchestrate_converging_to_a_listener_moves_the_guest", .destination_listens = true},
    {.name = "orchestrate_pause_before_switchover_is_continued",
     .options = {"--capability=pause-before-switchover=on"}},
    {.name = "orchestrate_not_converging_after_pass_switches",
     .options = {"--postcopy=after-pass=1", "--downtime=10ms"},
     .writes_much = true,
     .switches = true},
    {.name = "orchestrate_not_converging_timeout_switches",
     .options = {"--postcopy=timeout=300ms", "--downtime=10ms"},
     .writes_much = true,
     .switches = true},
    {.name = "orchestrate_not_converging_stall_switches",
     .options = {"--postcopy=stall", "--downtime=10ms"},
     .writes_much = true,
     .switches = true},
    {.name = "orchestrate_postcopy_at_once_switches",
     .options = {"--postcopy=after-pass=0", "--capability=postcopy-preempt=off"},
     .writes_much = true,
     .switches = true},
};
const unsigned orchestrate_count_policies = G_N_ELEMENTS(orchestrate_policies);

#define SOURCE(name)      "orchestrate_source_gone_in_" name
#define DESTINATION(name) "orchestrate_destination_gone_in_" name
#define CANCEL(name)      "orchestrate_ctrl_c_in_" name

const PhaseCase orchestrate_phases[] = {
    {DESTINATION("begin"), "query-status", true, false, "destination", 1, "source", "begin"},
    {DESTINATION("prepare"), "migrate-incoming", true, false, "destination", 1, "source",
     "prepare"},
    {DESTINATION("perform"), "migrate", false, false, "destination", 1, "source", "perform"},
    {DESTINATION("finish"), "query-migrate", true, true, "destination", 5, NULL, "finish"},
    {SOURCE("begin"), "query-status", false, false, "source", 5, NULL, "begin"},
    {SOURCE("prepare"), "migrate-set-parameters", false, false, "source", 5, NULL, "prepare"},
    {SOURCE("perform"), "query-migrate", false, true, "source", 5, NULL, "perform"},
    {SOURCE("finish"), "query-migrate", true, true, "source", 0, "destination", NULL},
    {SOURCE("confirm"), "quit", false, false, "source", 0, "destination", NULL},
    {CANCEL("begin"), "query-memory-size-summary", false, false, NULL, 3, "source", "begin"},
    {CANCEL("prepare"), "migrate-incoming", true, false, NULL, 3, "source", "prepare"},
    {CANCEL("perform"), "migrate", false, false, NULL, 3, "source", "perform"},
    {CANCEL("finish_goes_on"), "query-migrate", true, true, NULL, 0, "destination", NULL},
    {CANCEL("confirm_goes_on"), "quit", false, false, NULL, 0, "destination", NULL},
};
const unsigned orchestrate_count_phases = G_N_ELEMENTS(orchestrate_phases);

/* ---- The machines ---------------------------------------------------------------------------- */

static Orchestra *
set_up(Scene *scene, bool writes_much, const char *incoming, const char *memory)
{
    const char *calm[] = {
        "--guest", "threads", "--memory", "16M", writes_much ? NULL : "--write-rate", "200", NULL};
    const char *there[] = {"--guest", "threads", "--memory", memory, "--incoming", incoming, NULL};
    Orchestra *orchestra = g_new0(Orchestra, 1);

    orchestra->scene = scene;
    orchestra->source = scene_start(scene, "source", calm);
    orchestra->destination = scene_start(scene, "destination", there);
    vm_wait_checks(orchestra->source, GUEST_CHECKS);
    for (unsigned i = 0; i < 2; i++) {
        const Vm *vm = i ? orchestra->destination : orchestra->source;
        orchestra->sockets[i] = g_strdup_printf("%s/gate-%u", scene->directory, i);
        orchestra->gates[i] = gate_new(orchestra->sockets[i], vm->socket);
    }
    orchestra->output = g_strdup_printf("%s/migrate.output", scene->directory);
    return orchestra;
}

static void
tear_down(Orchestra *orchestra)
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

static void
start_program(Orchestra *orchestra, const char *const *options)
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

static char *
said(const Orchestra *orchestra)
{
    char *text = NULL;

    g_file_get_contents(orchestra->output, &text, NULL, NULL);
    return text ? text : g_strdup("");
}

static void
wait_for_text(Orchestra *orchestra, const char *words)
{
    int64_t until_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;

    while (true) {
        g_autofree char *text = said(orchestra);
        if (strstr(text, words))
            return;
        if (g_get_monotonic_time() > until_us)
            scene_fail(orchestra->scene, "it does not say \"%s\" but:\n%s", words, text);
        g_usleep(5000);
    }
}

/* Its exit code is that, and it said all of it. */
static void
expect_end(Orchestra *orchestra, int exit_code, const char *words)
{
    int64_t until_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;
    int status = 0;

    while (waitpid(orchestra->pid, &status, WNOHANG) == 0) {
        if (g_get_monotonic_time() > until_us) {
            g_autofree char *text = said(orchestra);
            kill(orchestra->pid, SIGKILL);
            scene_fail(orchestra->scene, "the program does not end; it said:\n%s", text);
        }
        g_usleep(5000);
    }
    g_autofree char *text = said(orchestra);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != exit_code || !strstr(text, words))
        scene_fail(orchestra->scene, "wait status 0x%x, expected exit code %d and \"%s\":\n%s",
                   (unsigned)status, exit_code, words, text);
}

static void
expect_outcome(Orchestra *orchestra, int exit_code, const char *guest)
{
    g_autofree char *words = g_strdup_printf("\"guest\":\"%s\"", guest);

    expect_end(orchestra, exit_code, words);
}

static void
require_runs_on(Vm *vm)
{
    vm_wait_run_state(vm, "running");
    vm_wait_checks(vm, GUEST_CHECKS);
}

/* The guest is at the source, and can be moved to the same destination as if nothing had been. */
static void
require_moves_on(Orchestra *orchestra)
{
    static const char *const options[] = {"--postcopy=after-pass=1", NULL};

    require_runs_on(orchestra->source);
    start_program(orchestra, options);
    expect_outcome(orchestra, 0, "destination");
    vm_wait_exit(orchestra->source);
    require_runs_on(orchestra->destination);
}

/* ---- Cases ----------------------------------------------------------------------------------- */

void
orchestrate_policy(void **state)
{
    Scene *scene = *state;
    const PolicyCase *c = scene->subject;
    Orchestra *orchestra =
        set_up(scene, c->writes_much, c->destination_listens ? "tcp:127.0.0.1:0" : "defer", "16M");

    start_program(orchestra, c->options);
    expect_outcome(orchestra, 0, "destination");
    g_autofree char *text = said(orchestra);
    if ((strstr(text, "switching to postcopy") != NULL) != c->switches)
        scene_fail(scene, "it %s to postcopy:\n%s", c->switches ? "did not switch" : "switched",
                   text);
    vm_wait_exit(orchestra->source);
    require_runs_on(orchestra->destination);
    vm_quit(orchestra->destination);
    tear_down(orchestra);
}

/* Nowhere else. */
static void
require_guest(Orchestra *orchestra, const PhaseCase *c)
{
    bool source_lives = g_strcmp0(c->killed, "source") != 0;
    bool destination_lives = g_strcmp0(c->killed, "destination") != 0;

    if (g_strcmp0(c->guest, "source") == 0 && destination_lives) {
        require_moves_on(orchestra);
        return;
    }
    if (g_strcmp0(c->guest, "source") == 0)
        require_runs_on(orchestra->source);
    else if (c->guest)
        require_runs_on(orchestra->destination);
    if (c->guest && g_str_equal(c->guest, "destination") && source_lives)
        vm_wait_exit(orchestra->source);
    else if (!c->guest && source_lives)
        vm_must_refuse(orchestra->source, "cont", NULL);
    if (!c->guest && destination_lives) {
        g_autofree char *status = vm_status(orchestra->destination);
        if (g_str_equal(status, "completed"))
            scene_fail(orchestra->scene, "the destination completed without its source");
    }
}

void
orchestrate_phase(void **state)
{
    static const char *const options[] = {"--postcopy=after-pass=9", NULL};
    Scene *scene = *state;
    const PhaseCase *c = scene->subject;
    Orchestra *orchestra = set_up(scene, false, "defer", "16M");
    Vm *killed = !c->killed                         ? NULL
                 : g_str_equal(c->killed, "source") ? orchestra->source
                                                    : orchestra->destination;
    const GatePlan plan = {.command = c->command,
                           .after = c->after_migrate ? orchestra->gates[0] : NULL,
                           .target = killed ? &killed->pid : &orchestra->pid,
                           .signal = killed ? SIGKILL : SIGINT};

    gate_plan(orchestra->gates[c->at_destination], &plan);
    start_program(orchestra, options);
    g_autofree char *phase = g_strdup_printf("\"text\":\"%s: ", c->phase ? c->phase : "");
    expect_end(orchestra, c->exit_code, c->phase ? phase : "\"outcome\":\"completed\"");
    if (!gate_was_hit(orchestra->gates[c->at_destination]))
        scene_fail(scene, "%s never passed the gate", c->command);
    if (killed)
        vm_kill(killed);
    require_guest(orchestra, c);
    tear_down(orchestra);
}

void
orchestrate_not_converging_is_cancelled_by_ctrl_c(void **state)
{
    static const char *const options[] = {"--postcopy=never", "--downtime=1ms", NULL};
    Orchestra *orchestra = set_up(*state, true, "defer", "16M");

    start_program(orchestra, options);
    vm_wait_number(orchestra->source, "ram.dirty-sync-count", 4);
    kill(orchestra->pid, SIGINT);
    expect_outcome(orchestra, 3, "source");
    require_moves_on(orchestra);
    tear_down(orchestra);
}

/* In postcopy, and for some seconds. */
static Orchestra *
set_up_postcopy(Scene *scene)
{
    static const char *const options[] = {"--postcopy=after-pass=0", "--postcopy-bandwidth=2M",
                                          NULL};
    Orchestra *orchestra = set_up(scene, true, "defer", "16M");

    start_program(orchestra, options);
    vm_wait_status(orchestra->source, "postcopy-active");
    vm_wait_status(orchestra->destination, "postcopy-active");
    return orchestra;
}

void
orchestrate_ctrl_c_in_postcopy_says_why_not_and_goes_on(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);

    kill(orchestra->pid, SIGINT);
    wait_for_text(orchestra, "migrate_pause");
    vm_do(orchestra->source, "migrate-set-parameters", "{\"max-postcopy-bandwidth\": 0}");
    expect_outcome(orchestra, 0, "destination");
    vm_wait_exit(orchestra->source);
    require_runs_on(orchestra->destination);
    tear_down(orchestra);
}

void
orchestrate_pause_in_postcopy_keeps_both(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);

    vm_do(orchestra->source, "migrate-pause", NULL);
    expect_outcome(orchestra, 4, "destination");
    vm_wait_status(orchestra->source, "postcopy-paused");
    vm_wait_status(orchestra->destination, "postcopy-paused");
    vm_must_refuse(orchestra->source, "cont", NULL);
    tear_down(orchestra);
}

void
orchestrate_destination_gone_in_postcopy_says_lost(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);

    vm_kill(orchestra->destination);
    expect_outcome(orchestra, 5, "none");
    vm_must_refuse(orchestra->source, "cont", NULL);
    tear_down(orchestra);
}

void
orchestrate_other_memory_is_refused(void **state)
{
    static const char *const options[] = {NULL};
    Orchestra *orchestra = set_up(*state, false, "defer", "32M");

    start_program(orchestra, options);
    expect_outcome(orchestra, 1, "source");
    g_autofree char *text = said(orchestra);
    assert_non_null(strstr(text, "same memory"));
    require_runs_on(orchestra->source);
    tear_down(orchestra);
}

static char *
settings_of(Vm *vm)
{
    g_autoptr(JsonNode) capabilities = vm_call(vm, "query-migrate-capabilities", NULL);
    g_autoptr(JsonNode) parameters = vm_call(vm, "query-migrate-parameters", NULL);
    g_autofree char *first = json_to_string(capabilities, FALSE);
    g_autofree char *second = json_to_string(parameters, FALSE);

    return g_strconcat(first, second, NULL);
}

void
orchestrate_dry_run_leaves_everything_as_it_was(void **state)
{
    static const char *const options[] = {"--dry-run", "--postcopy=stall", "--downtime=10ms", NULL};
    Orchestra *orchestra = set_up(*state, true, "defer", "16M");
    g_autofree char *source = settings_of(orchestra->source);
    g_autofree char *destination = settings_of(orchestra->destination);

    start_program(orchestra, options);
    expect_end(orchestra, 0, "\"forecast\":{\"completes\":true,\"postcopy\":true");
    g_autofree char *source_after = settings_of(orchestra->source);
    g_autofree char *destination_after = settings_of(orchestra->destination);
    assert_string_equal(source, source_after);
    assert_string_equal(destination, destination_after);
    require_moves_on(orchestra);
    tear_down(orchestra);
}
