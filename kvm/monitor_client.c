/* SPDX-License-Identifier: MIT */
/*
 * `faultline monitor PATH [COMMAND...]`: sends HMP commands to a machine through its QMP socket and
 * prints what they answer. Runs on the main thread; what commands there are is the machine's
 * affair.
 */
#include "kvm/command.h"
#include "kvm/qmp_client.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *const error_beginnings[] = {"Error:", "unknown command"};

static bool
text_is_error(const char *text)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(error_beginnings); i++)
        if (g_str_has_prefix(text, error_beginnings[i]))
            return true;
    return false;
}

static bool
line_is_quit(const char *line)
{
    return g_str_equal(line, "quit") || g_str_equal(line, "q");
}

/* Prints the answer. false: the command failed; *ret_closed: the machine is gone. */
static bool
send_line(QmpClient *client, const char *line, bool *ret_closed)
{
    g_autoptr(GError) error = NULL;
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "command-line", line);
    g_autoptr(JsonNode) reply =
        qmp_client_execute(client, "human-monitor-command", arguments, &error);

    *ret_closed = false;
    if (!reply) {
        /* The machine may end before its answer to quit is out. */
        *ret_closed = !g_error_matches(error, G_IO_ERROR, G_IO_ERROR_FAILED);
        if (*ret_closed && line_is_quit(line))
            return true;
        fprintf(stderr, "faultline monitor: %s: %s\n", line, error->message);
        return false;
    }
    *ret_closed = line_is_quit(line);

    const char *text = JSON_NODE_HOLDS_VALUE(reply) ? json_node_get_string(reply) : NULL;
    if (!text || !*text)
        return true;
    bool failed = text_is_error(text);
    FILE *stream = failed ? stderr : stdout;
    fputs(text, stream);
    if (text[strlen(text) - 1] != '\n')
        fputc('\n', stream);
    fflush(stream);
    return !failed;
}

static int
run_arguments(QmpClient *client, char **commands)
{
    for (unsigned i = 0; commands[i]; i++) {
        bool closed;
        if (!send_line(client, commands[i], &closed))
            return EXIT_FAILED;
        if (closed && commands[i + 1]) {
            fprintf(stderr, "faultline monitor: the machine has ended; \"%s\" was not sent\n",
                    commands[i + 1]);
            return EXIT_FAILED;
        }
    }
    return EXIT_OK;
}

/* As typed in a monitor, words make one command; where an argument holds a whole command (it has a
 * blank in it), each argument is one. */
static int
run_words(QmpClient *client, char **words)
{
    for (unsigned i = 0; words[i]; i++)
        if (strchr(words[i], ' '))
            return run_arguments(client, words);
    g_autofree char *line = g_strjoinv(" ", words);
    char *command[] = {line, NULL};
    return run_arguments(client, command);
}

/* Lines from standard input until its end; a terminal gets a prompt. */
static int
run_lines(QmpClient *client)
{
    bool terminal = isatty(STDIN_FILENO), failed = false, closed = false;
    char *line = NULL;
    size_t capacity = 0;

    while (!closed) {
        if (terminal) {
            fputs("(faultline) ", stdout);
            fflush(stdout);
        }
        if (getline(&line, &capacity, stdin) < 0)
            break;
        g_strstrip(line);
        if (*line && !send_line(client, line, &closed))
            failed = true;
    }
    free(line);
    if (terminal && !closed)
        fputc('\n', stdout);
    return failed && !terminal ? EXIT_FAILED : EXIT_OK;
}

int
monitor_command(int argc, char **argv)
{
    g_auto(GStrv) rest = NULL;
    const GOptionEntry entries[] = {
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_FILENAME_ARRAY, &rest, NULL, "PATH [COMMAND...]"},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_option_context_set_summary(
        context, "Sends monitor commands to the machine whose QMP socket is PATH and prints the\n"
                 "answers. Words are one command, as typed in the monitor; several commands are\n"
                 "given quoted, each with its own arguments, of which one has a blank in it.\n"
                 "Without COMMAND, lines are read from standard input.");
    g_option_context_set_description(
        context, "Examples:\n"
                 "  faultline monitor /tmp/source.qmp migrate_set_capability postcopy-ram on\n"
                 "  faultline monitor /tmp/source.qmp \"migrate -d tcp:127.0.0.1:4444\" "
                 "migrate_start_postcopy\n"
                 "  faultline monitor /tmp/source.qmp info migrate\n\n"
                 "Exit codes: 0 all commands succeeded, 1 a command or the connection failed, 2 "
                 "wrong use.");
    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_strict_posix(context, TRUE);

    g_autoptr(GError) error = NULL;
    g_autofree char *name = g_strdup("faultline monitor");
    g_set_prgname(name);
    if (!g_option_context_parse(context, &argc, &argv, &error))
        return usage_error("monitor", error->message);
    if (!rest)
        return usage_error("monitor", "the path of a QMP socket is missing");

    g_autoptr(QmpClient) client = qmp_client_open(rest[0], &error);
    if (!client) {
        fprintf(stderr,
                "faultline monitor: %s; give the PATH that `faultline run --qmp "
                "unix:PATH` got\n",
                error->message);
        return EXIT_FAILED;
    }
    return rest[1] ? run_words(client, rest + 1) : run_lines(client);
}
