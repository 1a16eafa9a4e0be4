/* SPDX-License-Identifier: MIT */
/*
 * Completion as a list of phrases: those that begin with what stands there offer their next word.
 * Any one thread; the terminal is monitor_client.c's affair.
 */
#include "kvm/monitor_words.h"

#include <string.h>

MonitorWords *
monitor_words_new(void)
{
    MonitorWords *words = g_new0(MonitorWords, 1);
    words->phrases = g_ptr_array_new_with_free_func(g_free);
    return words;
}

void
monitor_words_free(MonitorWords *words)
{
    g_ptr_array_unref(words->phrases);
    g_free(words);
}

/* "stop|s -- pause the guest", "migrate_continue STATE -- ...": the name up to its arguments, in
 * its first spelling. */
static char *
name_of(const char *line)
{
    GString *name = g_string_new(NULL);
    g_auto(GStrv) words = g_strsplit(line, " ", -1);
    for (unsigned i = 0; words[i] && g_ascii_islower(words[i][0]); i++) {
        words[i][strcspn(words[i], "|")] = '\0';
        g_string_append_printf(name, "%s%s", i ? " " : "", words[i]);
    }
    return g_string_free(name, FALSE);
}

void
monitor_words_take_help(MonitorWords *words, const char *help)
{
    g_auto(GStrv) lines = g_strsplit(help, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_autofree char *name = name_of(lines[i]);
        if (!*name)
            continue;
        g_ptr_array_add(words->phrases, g_strconcat("help ", name, NULL));
        g_ptr_array_add(words->phrases, g_steal_pointer(&name));
    }
}

void
monitor_words_take_names(MonitorWords *words, const char *command, const char *info,
                         const char *const *values)
{
    g_auto(GStrv) lines = g_strsplit(info, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        char *colon = strchr(lines[i], ':');
        if (!colon)
            continue;
        *colon = '\0';
        g_ptr_array_add(words->phrases, g_strjoin(" ", command, lines[i], NULL));
        for (unsigned n = 0; values && values[n]; n++)
            g_ptr_array_add(words->phrases, g_strjoin(" ", command, lines[i], values[n], NULL));
    }
}

/* The word of the phrase behind `count` words that are equal to those; NULL: it has none. */
static const char *
next_word(char **phrase, char **before, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        if (!phrase[i] || !g_str_equal(phrase[i], before[i]))
            return NULL;
    return phrase[count];
}

/* The words of a text, however many blanks stand between. */
static char **
split_words(const char *text)
{
    g_auto(GStrv) parts = g_strsplit_set(text, " \t", -1);
    GPtrArray *list = g_ptr_array_new();
    for (unsigned i = 0; parts[i]; i++)
        if (*parts[i])
            g_ptr_array_add(list, g_strdup(parts[i]));
    g_ptr_array_add(list, NULL);
    return (char **)g_ptr_array_free(list, FALSE);
}

char **
monitor_words_complete(const MonitorWords *words, const char *before, const char *text)
{
    g_auto(GStrv) given = split_words(before);
    unsigned count = g_strv_length(given);
    GPtrArray *found = g_ptr_array_new();

    for (unsigned i = 0; i < words->phrases->len; i++) {
        g_auto(GStrv) phrase = g_strsplit(g_ptr_array_index(words->phrases, i), " ", -1);
        const char *word = next_word(phrase, given, count);
        if (word && g_str_has_prefix(word, text) &&
            !g_ptr_array_find_with_equal_func(found, word, g_str_equal, NULL))
            g_ptr_array_add(found, g_strdup(word));
    }
    g_ptr_array_add(found, NULL);
    return (char **)g_ptr_array_free(found, FALSE);
}
