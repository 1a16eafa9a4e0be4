/* SPDX-License-Identifier: MIT */
/*
 * The manual pages as the build made them: every command has one, which names each option of its
 * --help, the tables of capabilities and parameters are the library's, and what a machine answers
 * beside what QEMU does is described.
 */
#include "engine/monitor/monitor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* Of the folder of this build. */
static char *
built(const char *folder, const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *directory = g_path_get_dirname(self);
    return g_build_filename(directory, "..", "..", folder, name, NULL);
}

static char *
page(const char *name)
{
    g_autofree char *path = built("doc", name);
    char *text = NULL;

    if (!g_file_get_contents(path, &text, NULL, NULL))
        fail_msg("there is no manual page %s: write doc/%s", path, name);
    return text;
}

/* Lines of --help; command NULL: of the program. */
static char **
help(const char *command)
{
    g_autofree char *program = built("", "faultline");
    char *arguments[] = {program, (char *)(command ? command : "--help"), command ? "--help" : NULL,
                         NULL};
    g_autofree char *text = NULL;
    int status = -1;

    assert_true(g_spawn_sync(NULL, arguments, NULL, 0, NULL, NULL, &text, NULL, &status, NULL));
    assert_int_equal(status, 0);
    return g_strsplit(text, "\n", -1);
}

static void
expect_option(const char *command, const char *text, const char *option)
{
    g_autofree char *macro = g_strdup_printf("Fl -%s", option);
    const char *at = strstr(text, macro);

    while (at && (g_ascii_isalnum(at[strlen(macro)]) || at[strlen(macro)] == '-'))
        at = strstr(at + 1, macro);
    if (!at)
        fail_msg("doc/faultline-%s.1 does not tell of --%s", command, option);
}

/* Returns how many options its help lists. */
static unsigned
check_command(const char *command)
{
    g_autofree char *name = g_strdup_printf("faultline-%s.1", command);
    g_autofree char *text = page(name);
    g_auto(GStrv) lines = help(command);
    unsigned count = 0;

    for (unsigned i = 0; lines[i]; i++) {
        const char *at = g_str_has_prefix(lines[i], "  -") ? strstr(lines[i], "--") : NULL;
        if (!at)
            continue;
        g_autofree char *option = g_strndup(at + 2, strcspn(at + 2, "= "));
        if (g_str_equal(option, "help"))
            continue;
        expect_option(command, text, option);
        count++;
    }
    return count;
}

static void
pages_name_every_command_and_option(void **state)
{
    g_autofree char *overview = page("faultline.1");
    g_auto(GStrv) lines = help(NULL);
    unsigned commands = 0, options = 0;
    (void)state;

    for (unsigned i = 0; lines[i]; i++) {
        if (!g_str_has_prefix(lines[i], "  ") || !g_ascii_islower(lines[i][2]))
            continue;
        g_autofree char *command = g_strndup(lines[i] + 2, strcspn(lines[i] + 2, " "));
        g_autofree char *item = g_strdup_printf("\n.It Cm %s\n", command);
        if (!strstr(overview, item))
            fail_msg("doc/faultline.1 does not tell of the command %s", command);
        options += check_command(command);
        commands++;
    }
    assert_true(commands >= 4 && options >= 20);
}

static void
tables_are_the_librarys(void **state)
{
    g_autofree char *text = page("faultline.1");
    (void)state;

    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++) {
        g_autofree char *item = g_strdup_printf("\n.It Cm %s\n%s.\nPreset: %s", row->name,
                                                row->help, row->preset ? "on" : "off");
        if (!strstr(text, item))
            fail_msg("no capability %s", row->name);
    }
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        g_autofree char *number = g_strdup_printf("%" G_GUINT64_FORMAT "; range: ", row->preset);
        bool is_boolean = row->type == FAULTLINE_TYPE_BOOLEAN;
        g_autofree char *item =
            g_strdup_printf("\n.It Cm %s\n%s.\nPreset: %s", row->name, row->help,
                            row->type == FAULTLINE_TYPE_TEXT ? "empty; a text"
                            : !is_boolean                    ? number
                            : row->preset                    ? "on; on or off"
                                                             : "off; on or off");
        if (!strstr(text, item))
            fail_msg("no parameter %s", row->name);
    }
    assert_null(strchr(text, '@'));
}

static void
expect_word(const char *text, const char *word)
{
    g_autofree char *pattern = g_strdup_printf("^\\.(It )?Cm ([a-z0-9-]+ , )*%s( |$)", word);

    if (!g_regex_match_simple(pattern, text, G_REGEX_MULTILINE, 0))
        fail_msg("doc/faultline-monitor.1 does not tell of %s", word);
}

static void
answers_of_our_own_are_described(void **state)
{
    g_autofree char *text = page("faultline-monitor.1");
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    unsigned count = 0;
    (void)state;

    info->status = FAULTLINE_STATUS_COMPLETED;
    info->incoming = true;
    g_autoptr(JsonNode) reply = query_migrate_reply(info, true, NULL);
    JsonObject *ours = json_object_get_object_member(json_node_get_object(reply), "faultline");
    g_autoptr(GList) names = json_object_get_members(ours);
    for (GList *name = names; name; name = name->next)
        expect_word(text, name->data);
    for (const Command *command = command_table; command->name || command->typed; command++) {
        if (!command->name || !g_str_has_prefix(command->name, "x-query-"))
            continue;
        expect_word(text, command->name);
        count++;
    }
    assert_true(count >= 2);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_name_every_command_and_option),
        cmocka_unit_test(tables_are_the_librarys),
        cmocka_unit_test(answers_of_our_own_are_described),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
