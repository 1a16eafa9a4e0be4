/* SPDX-License-Identifier: MIT */
/*
 * `faultline monitor PATH [COMMAND...]`: sends HMP commands to a machine through its QMP socket and
 * prints what they answer. A terminal gets a prompt with line editing, history and completion by
 * libedit. Runs on the main thread; what commands there are is the machine's affair.
 */
#include "kvm/command.h"
#include "kvm/monitor_words.h"
#include "kvm/qmp_client.h"
#include "kvm/watch.h"

#include <stdio.h>
#include <editline/readline.h>
#include <string.h>
#include <unistd.h>

#define PATIENCE_S 10 /* with a machine that says nothing */

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

/* NULL: an error of the machine (G_IO_ERROR_FAILED) or of the connection. */
static char *
ask(QmpClient *client, const char *line, GError **error)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "command-line", line);
    g_autoptr(JsonNode) reply =
        qmp_client_execute(client, "human-monitor-command", arguments, error);

    if (!reply)
        return NULL;
    return g_strdup(JSON_NODE_HOLDS_VALUE(reply) ? json_node_get_string(reply) : "");
}

/* Prints the answer. false: the command failed; *ret_closed: the machine is gone. */
static bool
send_line(QmpClient *client, const char *line, bool *ret_closed)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = ask(client, line, &error);

    *ret_closed = false;
    if (!text) {
        /* The machine may end before its answer to quit is out. */
        *ret_closed = !g_error_matches(error, G_IO_ERROR, G_IO_ERROR_FAILED);
        if (*ret_closed && line_is_quit(line))
            return true;
        fprintf(stderr, "faultline monitor: %s: %s\n", line, error->message);
        return false;
    }
    *ret_closed = line_is_quit(line);
    if (!*text)
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

/* ---- At a terminal --------------------------------------------------------------------------- */

/* libedit's completion has no room for a context of the caller's. */
static MonitorWords *known_words;

static char *
offer_word(const char *text, int index)
{
    static char **found;

    if (index == 0) {
        g_autofree char *before = g_strndup(rl_line_buffer, (gsize)rl_point);
        before[strlen(before) - MIN(strlen(before), strlen(text))] = '\0';
        g_strfreev(found);
        found = monitor_words_complete(known_words, before, text);
    }
    /* libedit frees it, and counts from 0 until it gets NULL. */
    const char *word = found && (unsigned)index < g_strv_length(found) ? found[index] : NULL;
    return word ? strdup(word) : NULL;
}

static char **
complete(const char *text, int start, int end)
{
    (void)start, (void)end;
    rl_attempted_completion_over = 1; /* no names of files */
    return rl_completion_matches(text, offer_word);
}

/* Asks the machine what it knows; an older one that cannot answer is completed less. */
static void
learn_words(QmpClient *client, MonitorWords *words)
{
    static const char *const switches[] = {"on", "off", NULL};
    g_autofree char *help = ask(client, "help", NULL);
    g_autofree char *capabilities = ask(client, "info migrate_capabilities", NULL);
    g_autofree char *parameters = ask(client, "info migrate_parameters", NULL);

    monitor_words_take_help(words, help ? help : "");
    monitor_words_take_names(words, "migrate_set_capability", capabilities ? capabilities : "",
                             switches);
    monitor_words_take_names(words, "migrate_set_parameter", parameters ? parameters : "", NULL);
}

static int
run_prompt(QmpClient *client)
{
    bool closed = false;
    char *line;

    known_words = monitor_words_new();
    learn_words(client, known_words);
    rl_readline_name = (char *)"faultline";
    rl_attempted_completion_function = complete;
    rl_completer_word_break_characters = (char *)" \t";
    using_history();
    while (!closed && (line = readline("(faultline) "))) {
        g_strstrip(line);
        if (*line)
            add_history(line);
        if (*line)
            send_line(client, line, &closed);
        free(line);
    }
    if (!closed)
        putchar('\n');
    g_clear_pointer(&known_words, monitor_words_free);
    return EXIT_OK;
}

/* Lines from a pipe or file until its end. */
static int
run_lines(QmpClient *client)
{
    bool failed = false, closed = false;
    char *line = NULL;
    size_t capacity = 0;

    while (!closed && getline(&line, &capacity, stdin) >= 0) {
        g_strstrip(line);
        if (*line && !send_line(client, line, &closed))
            failed = true;
    }
    free(line);
    return failed ? EXIT_FAILED : EXIT_OK;
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
        context,
        "Sends monitor commands to the machine whose QMP socket is PATH and prints the\n"
        "answers. Words are one command, as typed in the monitor; several commands are\n"
        "given quoted, each with its own arguments, of which one has a blank in it.\n"
        "The command watch is this program's own: a picture of the migration, on the whole\n"
        "terminal until q is typed, or once as text where the output is no terminal.\n"
        "Without COMMAND, lines are read from standard input; at a terminal with history and\n"
        "completion.");
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

    g_autoptr(QmpClient) client = qmp_client_open_within(rest[0], PATIENCE_S, &error);
    if (!client) {
        fprintf(stderr,
                "faultline monitor: %s; give the PATH that `faultline run --qmp "
                "unix:PATH` got\n",
                error->message);
        return EXIT_FAILED;
    }
    /* A picture is asked for and answered at once; a command lasts as long as it lasts. */
    if (rest[1] && g_str_equal(rest[1], "watch") && !rest[2])
        return watch_run(client, rest[0]);
    qmp_client_set_patience(client, 0);
    if (rest[1])
        return run_words(client, rest + 1);
    return isatty(STDIN_FILENO) ? run_prompt(client) : run_lines(client);
}
