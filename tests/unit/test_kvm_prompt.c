/* SPDX-License-Identifier: MIT */
/*
 * `faultline monitor PATH` at a terminal: completion, history, and its end.
 *
 * The client is a process of its own behind a pseudo terminal, made before this one has threads.
 */
#include "kvm/command.h"
#include "tests/unit/monitor_scene.h"

#include <pty.h>
#include <termios.h>
#include <stdio.h>
#include <sys/wait.h>

/* The program's own is in main.c. */
int
usage_error(const char *command, const char *reason)
{
    fprintf(stderr, "%s: %s\n", command ? command : "", reason);
    return EXIT_USAGE;
}

#define PROMPT "(faultline) "

static const struct {
    const char *typed, *answer, *then;
} lines[] = {
    {"", PROMPT, ""},
    {"info st\t\r", "VM status: running", PROMPT},
    {"migrate_set_cap\tpostcopy-r\ton\r", PROMPT, ""},
    {"info migrate_cap\t\r", "postcopy-ram: on", PROMPT},
    {"\033[A\r", "postcopy-ram: on", PROMPT}, /* the last line again */
    {"migrate\r", "Error: ", PROMPT},
    {"stop\r", PROMPT, ""},
    {"info status\r", "VM status: paused", PROMPT},
    {"\004", "", ""},
};

static void
be_client(int path_fd)
{
    char path[128] = {0};
    if (read(path_fd, path, sizeof path - 1) <= 0)
        _exit(99);
    char *arguments[] = {(char *)"monitor", path, NULL};
    setenv("TERM", "vt100", 1);
    exit(monitor_command(2, arguments));
}

/* Reads what the terminal shows until it has `part`, and `then` behind it. */
static void
expect_shown(int terminal, const char *part, const char *then)
{
    GString *text = g_string_new(NULL);
    struct pollfd ready = {.fd = terminal, .events = POLLIN};
    char bytes[512];
    const char *at;
    while (!(at = strstr(text->str, part)) || !strstr(at + strlen(part), then)) {
        ssize_t got = poll(&ready, 1, PATIENCE_MS) > 0 ? read(terminal, bytes, sizeof bytes) : 0;
        if (got <= 0)
            fail_msg("'%s' is not shown; so far: %s", part, text->str);
        g_string_append_len(text, bytes, got);
    }
    g_string_free(text, TRUE);
}

/* What is typed before the editor has the terminal is taken by the line discipline, which makes an
 * end of file of a ^D that nobody sees. */
static void
await_editor(int terminal)
{
    struct termios modes;

    for (unsigned i = 0; i < PATIENCE_MS; i++) {
        assert_int_equal(tcgetattr(terminal, &modes), 0);
        if (!(modes.c_lflag & ICANON))
            return;
        g_usleep(1000);
    }
    fail_msg("the editor does not take the terminal");
}

/* Reads on until the client has hung up; what it wrote last may be lost with that. */
static void
expect_ended(int terminal)
{
    struct pollfd ready = {.fd = terminal, .events = POLLIN};
    char bytes[512];
    do
        if (poll(&ready, 1, PATIENCE_MS) <= 0)
            fail_msg("the prompt did not end");
    while (read(terminal, bytes, sizeof bytes) > 0);
}

static void
prompt_completes_remembers_and_ends(void **state)
{
    int path[2], terminal, status;
    void *made;
    (void)state;

    assert_int_equal(pipe(path), 0);
    pid_t child = forkpty(&terminal, NULL, NULL, NULL);
    assert_true(child >= 0);
    if (child == 0)
        be_client(path[0]);
    set_up(&made);
    const Scene *scene = made;
    assert_int_equal(write(path[1], scene->from.path, strlen(scene->from.path)),
                     (ssize_t)strlen(scene->from.path));
    for (size_t i = 0; i < G_N_ELEMENTS(lines); i++) {
        if (lines[i].typed[0])
            await_editor(terminal);
        assert_int_equal(write(terminal, lines[i].typed, strlen(lines[i].typed)),
                         (ssize_t)strlen(lines[i].typed));
        expect_shown(terminal, lines[i].answer, lines[i].then);
    }
    expect_ended(terminal);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(terminal);
    close(path[0]);
    close(path[1]);
    tear_down(&made);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompt_completes_remembers_and_ends)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
