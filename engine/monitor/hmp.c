/* SPDX-License-Identifier: MIT */
/*
 * HMP: a typed line is split into words, finds its row in the table of commands by its typed name,
 * and becomes the QMP command of that row; the reply becomes text.
 *
 * QEMU's `migrate` without -d keeps its monitor busy until the migration is over. Nothing may block
 * the control thread here, so it always runs in the background and, without -d, says so.
 * Control thread.
 */
#include <string.h>

#include "engine/monitor/monitor.h"

bool
hmp_refuse(GError **error, const char *text)
{
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return false;
}

/* Runs the QMP command; takes object. */
static bool
run_command(FaultlineMonitor *monitor, const char *name, JsonObject *object, GError **error)
{
    g_autoptr(JsonObject) arguments = object;
    g_autoptr(JsonNode) result = command_run(monitor, command_find(name), arguments, error);
    return result != NULL;
}

static bool
run_with_uri(FaultlineMonitor *monitor, const char *name, char **words, bool resume, GError **error)
{
    if (g_strv_length(words) != 1)
        return hmp_refuse(error, "expecting one URI: tcp:HOST:PORT, unix:PATH or fd:NAME");
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "uri", words[0]);
    if (resume)
        json_object_set_boolean_member(arguments, "resume", TRUE);
    return run_command(monitor, name, arguments, error);
}

bool
hmp_migrate(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
            GError **error)
{
    (void)command;
    bool is_detached = false, resumes = false;
    for (; words[0] != NULL && words[0][0] == '-'; words++) {
        is_detached |= g_str_equal(words[0], "-d");
        resumes |= g_str_equal(words[0], "-r");
        if (!g_str_equal(words[0], "-d") && !g_str_equal(words[0], "-r"))
            return hmp_refuse(error, "expecting -d, -r or a URI");
    }
    if (!run_with_uri(monitor, "migrate", words, resumes, error))
        return false;
    if (!is_detached)
        g_string_append(output, "Migration runs in the background; see 'info migrate'\n");
    return true;
}

bool
hmp_migrate_incoming(FaultlineMonitor *monitor, const Command *command, char **words,
                     GString *output, GError **error)
{
    (void)output;
    return run_with_uri(monitor, command->name, words, false, error);
}

bool
hmp_migrate_recover(FaultlineMonitor *monitor, const Command *command, char **words,
                    GString *output, GError **error)
{
    (void)output;
    return run_with_uri(monitor, command->name, words, false, error);
}

/* One word that is the command's one text argument. */
static bool
run_with_text(FaultlineMonitor *monitor, const Command *command, char **words, GError **error)
{
    if (g_strv_length(words) != 1) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, "expecting one word: %s",
                    command->typed_synopsis);
        return false;
    }
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, command->arguments[0].name, words[0]);
    return run_command(monitor, command->name, arguments, error);
}

bool
hmp_migrate_continue(FaultlineMonitor *monitor, const Command *command, char **words,
                     GString *output, GError **error)
{
    (void)output;
    return run_with_text(monitor, command, words, error);
}

bool
hmp_fd_name(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
            GError **error)
{
    (void)output;
    return run_with_text(monitor, command, words, error);
}

static bool
parse_switch(const char *text, bool *ret_on)
{
    bool is_on = g_str_equal(text, "on") || g_str_equal(text, "true") || g_str_equal(text, "yes");
    *ret_on = is_on;
    return is_on || g_str_equal(text, "off") || g_str_equal(text, "false") ||
           g_str_equal(text, "no");
}

bool
hmp_migrate_set_capability(FaultlineMonitor *monitor, const Command *command, char **words,
                           GString *output, GError **error)
{
    (void)command, (void)output;
    bool on;
    if (g_strv_length(words) != 2 || !parse_switch(words[1], &on))
        return hmp_refuse(error, "expecting a capability and 'on' or 'off'");
    JsonObject *entry = json_object_new();
    json_object_set_string_member(entry, "capability", words[0]);
    json_object_set_boolean_member(entry, "state", on);
    JsonArray *list = json_array_new();
    json_array_add_object_element(list, entry);
    JsonObject *arguments = json_object_new();
    json_object_set_array_member(arguments, "capabilities", list);
    return run_command(monitor, "migrate-set-capabilities", arguments, error);
}

/* A factor of 1024^n for a size's letter; 0 for none such. */
static uint64_t
size_factor(const char *suffix)
{
    static const char letters[] = "BKMGT";
    if (suffix[0] == '\0' || suffix[1] != '\0')
        return 0;
    const char *letter = strchr(letters, g_ascii_toupper(suffix[0]));
    return letter == NULL ? 0 : UINT64_C(1) << (10 * (letter - letters));
}

/* "100", "1.5G"; plain: factor of a number without a letter. */
static bool
parse_size(const char *text, uint64_t plain, uint64_t *ret_value)
{
    char *end;
    if (!g_ascii_isdigit(text[0]))
        return false;
    uint64_t whole = g_ascii_strtoull(text, &end, 10);
    double fraction = *end == '.' ? g_ascii_strtod(end, &end) : 0;
    uint64_t factor = *end == '\0' ? plain : size_factor(end);
    if (factor == 0 || fraction < 0 || fraction >= 1 || whole > (uint64_t)INT64_MAX / factor - 1)
        return false;
    *ret_value = whole * factor + (uint64_t)(fraction * (double)factor);
    return true;
}

/* QEMU's monitor takes a plain number for these two as MiB/s, for all other sizes as bytes. */
static uint64_t
plain_factor(const FaultlineParameterRow *row)
{
    bool is_mib = g_str_equal(row->name, "max-bandwidth") ||
                  g_str_equal(row->name, "avail-switchover-bandwidth");
    return is_mib ? 1024 * 1024 : 1;
}

static bool
parse_value(const FaultlineParameterRow *row, const char *text, uint64_t *ret_value, GError **error)
{
    if (row->type == FAULTLINE_TYPE_BOOLEAN) {
        bool on = false;
        bool is_good = parse_switch(text, &on);
        *ret_value = on;
        return is_good || hmp_refuse(error, "expecting 'on' or 'off'");
    }
    if (row->type == FAULTLINE_TYPE_SIZE) {
        if (parse_size(text, plain_factor(row), ret_value))
            return true;
        return hmp_refuse(error, "expecting a size: a number, and B, K, M, G or T after it");
    }
    guint64 value;
    if (!g_ascii_string_to_unsigned(text, 10, 0, INT64_MAX, &value, NULL))
        return hmp_refuse(error, "expecting a number that is not negative");
    *ret_value = value;
    return true;
}

bool
hmp_migrate_set_parameter(FaultlineMonitor *monitor, const Command *command, char **words,
                          GString *output, GError **error)
{
    (void)command, (void)output;
    if (g_strv_length(words) != 2)
        return hmp_refuse(error, "expecting a parameter and its value");
    const FaultlineParameterRow *row = arguments_find_parameter(words[0]);
    if (row == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Parameter '%s' is unexpected; 'info migrate_parameters' lists them", words[0]);
        return false;
    }
    uint64_t value = 0;
    if (row->type != FAULTLINE_TYPE_TEXT && !parse_value(row, words[1], &value, error))
        return false;
    JsonObject *arguments = json_object_new();
    if (row->type == FAULTLINE_TYPE_TEXT)
        json_object_set_string_member(arguments, row->name, words[1]);
    else if (row->type == FAULTLINE_TYPE_BOOLEAN)
        json_object_set_boolean_member(arguments, row->name, value != 0);
    else
        json_object_set_int_member(arguments, row->name, (int64_t)value);
    return run_command(monitor, "migrate-set-parameters", arguments, error);
}

bool
hmp_calc_dirty_rate(FaultlineMonitor *monitor, const Command *command, char **words,
                    GString *output, GError **error)
{
    guint64 seconds;
    if (g_strv_length(words) != 1 ||
        !g_ascii_string_to_unsigned(words[0], 10, 0, INT32_MAX, &seconds, NULL))
        return hmp_refuse(error, "expecting a number of seconds");
    JsonObject *arguments = json_object_new();
    json_object_set_int_member(arguments, "calc-time", (int64_t)seconds);
    if (!run_command(monitor, command->name, arguments, error))
        return false;
    g_string_append(output, "Measuring; 'info dirty_rate' has the outcome when the time is over\n");
    return true;
}

/* A number, decimal or with 0x. */
static bool
parse_number(const char *text, int64_t *ret_value)
{
    bool is_hex = g_str_has_prefix(text, "0x");
    guint64 value = 0;
    bool is_good = g_ascii_string_to_unsigned(text + (is_hex ? 2 : 0), is_hex ? 16 : 10, 0,
                                              INT64_MAX, &value, NULL);
    *ret_value = (int64_t)value;
    return is_good;
}

bool
hmp_pmemsave(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
             GError **error)
{
    (void)output;
    int64_t address, length_bytes;
    if (g_strv_length(words) != 3 || !parse_number(words[0], &address) ||
        !parse_number(words[1], &length_bytes))
        return hmp_refuse(error, "expecting an address, a number of bytes and a file");
    JsonObject *arguments = json_object_new();
    json_object_set_int_member(arguments, "val", address);
    json_object_set_int_member(arguments, "size", length_bytes);
    json_object_set_string_member(arguments, "filename", words[2]);
    return run_command(monitor, command->name, arguments, error);
}

/* ---- Finding the row ------------------------------------------------------------------------- */

/* How many words of the line one typed name of the row ("info migrate", "quit|q") takes; 0: it does
 * not match. */
static unsigned
count_matching(const Command *command, char **words)
{
    g_auto(GStrv) names = g_strsplit(command->typed, "|", -1);
    for (unsigned i = 0; names[i] != NULL; i++) {
        g_auto(GStrv) parts = g_strsplit(names[i], " ", -1);
        unsigned n = 0;
        while (parts[n] != NULL && words[n] != NULL && g_str_equal(parts[n], words[n]))
            n++;
        if (parts[n] == NULL)
            return n;
    }
    return 0;
}

static const Command *
find_typed(char **words, unsigned *ret_count)
{
    for (const Command *c = command_table; c->name != NULL || c->typed != NULL; c++) {
        *ret_count = c->typed != NULL ? count_matching(c, words) : 0;
        if (*ret_count > 0)
            return c;
    }
    return NULL;
}

bool
hmp_help(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
         GError **error)
{
    (void)monitor, (void)command;
    unsigned count;
    const Command *only = words[0] != NULL ? find_typed(words, &count) : NULL;
    gsize before = output->len;
    for (const Command *c = command_table; c->name != NULL || c->typed != NULL; c++) {
        bool is_in_group =
            words[0] == NULL || c == only ||
            (only == NULL && c->typed != NULL && g_str_has_prefix(c->typed, words[0]));
        if (c->typed == NULL || !is_in_group)
            continue;
        g_string_append_printf(output, "%s%s%s -- %s\n", c->typed,
                               c->typed_synopsis[0] != '\0' ? " " : "", c->typed_synopsis, c->help);
    }
    return output->len > before || hmp_refuse(error, "no such command; 'help' lists them");
}

/* A command that is typed without arguments. */
static bool
run_plain(FaultlineMonitor *monitor, const Command *command, char **words, GError **error)
{
    if (words[0] != NULL)
        return hmp_refuse(error, "this command takes no arguments");
    return run_command(monitor, command->name, json_object_new(), error);
}

static bool
run_line(FaultlineMonitor *monitor, const char *line, GString *output, GError **error)
{
    g_auto(GStrv) words = NULL;
    g_autoptr(GError) shell_error = NULL;
    if (!g_utf8_validate(line, -1, NULL))
        return hmp_refuse(error, "the line is not UTF-8; type it again");
    if (!g_shell_parse_argv(line, NULL, &words, &shell_error)) {
        if (g_error_matches(shell_error, G_SHELL_ERROR, G_SHELL_ERROR_EMPTY_STRING))
            return true;
        g_propagate_error(error, g_steal_pointer(&shell_error));
        return false;
    }
    unsigned count;
    const Command *command = find_typed(words, &count);
    if (command != NULL && command->run_typed != NULL)
        return command->run_typed(monitor, command, words + count, output, error);
    if (command != NULL)
        return run_plain(monitor, command, words + count, error);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "unknown command: '%s'; 'help' lists them", words[0]);
    return false;
}

char *
faultline_monitor_hmp(FaultlineMonitor *monitor, const char *line)
{
    GString *output = g_string_new(NULL);
    g_autoptr(GError) error = NULL;
    if (!run_line(monitor, line, output, &error))
        g_string_append_printf(output, "Error: %s\n", error->message);
    return g_string_free(output, FALSE);
}
