/* SPDX-License-Identifier: MIT */
/* See qemu.h. */
#include "tests/unit/support/qemu.h"

#include <json-glib/json-glib.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#define PROGRAM      "qemu-system-x86_64"
#define ASK_EVERY_US 50000
#define ASK_MAX      400u

void
qemu_need(void)
{
    g_autofree char *path = g_find_program_in_path(PROGRAM);
    g_autoptr(GError) error = NULL;
    g_autofree char *machines = NULL;

    if (!path) {
        print_message("skipped: there is no " PROGRAM " in PATH\n");
        skip();
    }
    g_autoptr(GSubprocess) lists =
        g_subprocess_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE, &error, path, "-machine", "help", NULL);
    if (!lists || !g_subprocess_communicate_utf8(lists, NULL, NULL, &machines, NULL, &error) ||
        !strstr(machines, QEMU_MACHINE)) {
        print_message("skipped: " PROGRAM " has no machine " QEMU_MACHINE "\n");
        skip();
    }
}

/* ---- Speaking -------------------------------------------------------------------------------- */

static void
say(Qemu *qemu, const char *line)
{
    GOutputStream *input = g_subprocess_get_stdin_pipe(qemu->process);

    assert_true(g_output_stream_write_all(input, line, strlen(line), NULL, NULL, NULL));
    assert_true(g_output_stream_flush(input, NULL, NULL));
}

/* NULL: it has ended. */
static char *
read_line(Qemu *qemu)
{
    return g_data_input_stream_read_line(qemu->output, NULL, NULL, NULL);
}

static void
note(Qemu *qemu, const char *line)
{
    g_string_append(qemu->said, line);
    g_string_append_c(qemu->said, '\n');
}

/* The text that a command returned; what comes before is noted. */
static char *
await_answer(Qemu *qemu)
{
    for (;;) {
        g_autofree char *line = read_line(qemu);
        if (!line)
            fail_msg("QEMU has ended: %s", qemu->said->str);
        if (g_str_has_prefix(line, "{\"error\""))
            fail_msg("QEMU says: %s", line);
        if (!g_str_has_prefix(line, "{\"return\"")) {
            note(qemu, line);
            continue;
        }
        g_autoptr(JsonNode) node = json_from_string(line, NULL);
        JsonNode *value = json_object_get_member(json_node_get_object(node), "return");
        return JSON_NODE_HOLDS_VALUE(value) ? json_node_dup_string(value) : NULL;
    }
}

Qemu *
qemu_start(const char *const *options)
{
    static const char *const common[] = {PROGRAM, "-machine", QEMU_MACHINE ",accel=tcg",
                                         "-m",    "16",       "-nodefaults",
                                         "-S",    "-display", "none",
                                         "-qmp",  "stdio",    NULL};
    g_autoptr(GPtrArray) arguments = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    Qemu *qemu = g_new0(Qemu, 1);

    for (const char *const *at = common; *at; at++)
        g_ptr_array_add(arguments, (gpointer)*at);
    for (; *options; options++)
        g_ptr_array_add(arguments, (gpointer)*options);
    g_ptr_array_add(arguments, NULL);
    qemu->process =
        g_subprocess_newv((const char *const *)arguments->pdata,
                          G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE |
                              G_SUBPROCESS_FLAGS_STDERR_MERGE,
                          &error);
    if (!qemu->process)
        fail_msg("%s", error->message);
    qemu->output = g_data_input_stream_new(g_subprocess_get_stdout_pipe(qemu->process));
    qemu->said = g_string_new(NULL);
    say(qemu, "{\"execute\": \"qmp_capabilities\"}\n");
    g_free(await_answer(qemu));
    return qemu;
}

void
qemu_end(Qemu *qemu)
{
    g_subprocess_force_exit(qemu->process);
    g_subprocess_wait(qemu->process, NULL, NULL);
    g_object_unref(qemu->output);
    g_object_unref(qemu->process);
    g_string_free(qemu->said, TRUE);
    g_free(qemu);
}

static char *
do_command(Qemu *qemu, const char *command)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_VALUE);

    json_node_set_string(node, command);
    g_autofree char *text = json_to_string(node, FALSE);
    g_autofree char *line = g_strdup_printf("{\"execute\": \"human-monitor-command\", "
                                            "\"arguments\": {\"command-line\": %s}}\n",
                                            text);
    say(qemu, line);
    return await_answer(qemu);
}

char *
qemu_do(Qemu *qemu, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *command = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    return do_command(qemu, command);
}

void
qemu_must(Qemu *qemu, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *command = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_autofree char *answer = do_command(qemu, command);
    if (answer && answer[0])
        fail_msg("%s: QEMU says: %s", command, answer);
}

void
qemu_expect(Qemu *qemu, const char *what)
{
    while (!strstr(qemu->said->str, what)) {
        g_autofree char *line = read_line(qemu);
        if (!line)
            fail_msg("QEMU does not say '%s': %s", what, qemu->said->str);
        note(qemu, line);
    }
}

void
qemu_expect_migration(Qemu *qemu, const char *status)
{
    g_autofree char *wanted = g_strdup_printf("Migration status: %s\r\n", status);
    g_autofree char *answer = NULL;

    for (unsigned i = 0; i < ASK_MAX; i++) {
        g_free(answer);
        answer = qemu_do(qemu, "info migrate");
        if (answer && strstr(answer, wanted))
            return;
        g_usleep(ASK_EVERY_US);
    }
    fail_msg("QEMU's migration is not %s: %s", status, answer);
}
