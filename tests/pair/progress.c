/* SPDX-License-Identifier: MIT */
/* See progress.h. The program is a child of the test; its terminal is read by the test's only
 * thread. */
#include "tests/pair/progress.h"
#include "tests/pair/orchestra.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>
#include <cmocka.h>

#define ERASE "\r\033[K" /* back to the line's begin, and empties it */

/* Slow enough that its progress is shown more than once. */
static const char *const options[] = {"--postcopy=after-pass=2", "--bandwidth=16M",
                                      "--downtime=1ms", NULL};

/* ---- At a terminal --------------------------------------------------------------------------- */

static pid_t
start_at_terminal(const Orchestra *orchestra, int *ret_fd)
{
    g_autofree char *program = scene_program();
    const char *argv[] = {program,    "migrate",
                          "--from",   orchestra->sockets[0],
                          "--to",     orchestra->sockets[1],
                          options[0], options[1],
                          options[2], NULL};
    const struct winsize size = {.ws_row = 24, .ws_col = 80};
    pid_t pid = forkpty(ret_fd, NULL, NULL, &size);

    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        execv(argv[0], (char *const *)argv);
        _exit(127);
    }
    assert_true(pid > 0);
    return pid;
}

/* All that it writes until it ends. */
static char *
read_terminal(Scene *scene, int fd)
{
    GString *text = g_string_new(NULL);
    int64_t until_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;

    while (true) {
        char bytes[4096];
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        poll(&wait, 1, 1000);
        ssize_t length = wait.revents ? read(fd, bytes, sizeof bytes) : 0;
        if (length < 0 && errno == EIO)
            break; /* nobody has it open any more */
        g_string_append_len(text, bytes, MAX(length, 0));
        if (g_get_monotonic_time() > until_us)
            scene_fail(scene, "the program does not end; it said:\n%s", text->str);
    }
    close(fd);
    return g_string_free(text, FALSE);
}

/* A line of progress stands until the next is written over it. */
static void
check_written_over(Scene *scene, const char *text)
{
    g_auto(GStrv) pieces = g_strsplit(text, ERASE, -1);
    unsigned count = 0;

    for (unsigned i = 0; pieces[i]; i++) {
        if (!strstr(pieces[i], " left ") || !strstr(pieces[i], " MiB/s dirty "))
            continue;
        count++;
        if (strchr(pieces[i], '\n'))
            scene_fail(scene, "a line of progress was not written over: %s", pieces[i]);
        if (strlen(pieces[i]) > 80)
            scene_fail(scene, "a line of progress does not fit into 80 columns: %s", pieces[i]);
        if (!g_str_has_prefix(pieces[i], "perform"))
            scene_fail(scene, "a line of progress names no phase: %s", pieces[i]);
    }
    if (count < 2)
        scene_fail(scene, "%u lines of progress in:\n%s", count, text);
}

void
orchestrate_progress_at_a_terminal_is_one_line(void **state)
{
    Scene *scene = *state;
    Orchestra *orchestra = orchestra_new(scene, &(OrchestraKind){.writes_much = true});
    int fd, status = 0;

    pid_t pid = start_at_terminal(orchestra, &fd);
    g_autofree char *text = read_terminal(scene, fd);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        scene_fail(scene, "wait status 0x%x:\n%s", (unsigned)status, text);
    check_written_over(scene, text);
    if (!strstr(text, ERASE "The guest has moved and runs at the destination.\r\n"))
        scene_fail(scene, "it does not say how it ended:\n%s", text);
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
    orchestra_free(orchestra);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static const char *const phase_names[] = {"begin", "prepare", "perform", "finish", "confirm"};

/* Where in the order of phases this line stands. */
static unsigned
phase_of(Scene *scene, JsonObject *object, const char *line)
{
    const char *name = json_object_get_string_member_with_default(object, "phase", "");

    for (unsigned i = 0; i < G_N_ELEMENTS(phase_names); i++)
        if (g_str_equal(phase_names[i], name))
            return i;
    scene_fail(scene, "a line without its phase: %s", line);
}

static void
check_progress(Scene *scene, JsonObject *object, const char *line)
{
    static const char *const members[] = {"percent",
                                          "status",
                                          "pass",
                                          "total-bytes",
                                          "remaining-bytes",
                                          "transferred-bytes",
                                          "bytes-per-second",
                                          "dirty-bytes-per-second",
                                          "allowed-downtime-ms"};

    for (unsigned i = 0; i < G_N_ELEMENTS(members); i++)
        if (!json_object_has_member(object, members[i]))
            scene_fail(scene, "progress lacks %s: %s", members[i], line);
}

void
orchestrate_json_is_one_object_a_line(void **state)
{
    Scene *scene = *state;
    Orchestra *orchestra = orchestra_new(scene, &(OrchestraKind){.writes_much = true});
    unsigned phase = 0, count_progress = 0, count_outcomes = 0, seen = 0;

    orchestra_start(orchestra, options);
    orchestra_expect_outcome(orchestra, 0, "destination");
    g_autofree char *text = orchestra_said(orchestra);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i] && *lines[i]; i++) {
        g_autoptr(JsonNode) node = json_from_string(lines[i], NULL);
        if (!node || !JSON_NODE_HOLDS_OBJECT(node))
            scene_fail(scene, "a line is no JSON object: %s", lines[i]);
        JsonObject *object = json_node_get_object(node);
        unsigned next = phase_of(scene, object, lines[i]);
        if (next < phase)
            scene_fail(scene, "phases are out of order:\n%s", text);
        phase = next;
        seen |= 1u << phase;
        if (json_object_has_member(object, "percent")) {
            check_progress(scene, object, lines[i]);
            count_progress++;
        }
        if (count_outcomes)
            scene_fail(scene, "something follows the outcome: %s", lines[i]);
        count_outcomes += json_object_has_member(object, "outcome");
    }
    assert_int_equal(seen, (1u << G_N_ELEMENTS(phase_names)) - 1);
    assert_int_equal(count_outcomes, 1);
    assert_true(count_progress > 0);
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
    orchestra_free(orchestra);
}
