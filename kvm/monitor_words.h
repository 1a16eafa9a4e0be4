/* SPDX-License-Identifier: MIT */
/*
 * What can be typed at the monitor's prompt, word by word, for completion. Filled from what a
 * machine's own `help` and `info` answer, so that it knows what that machine knows. Any one thread.
 */
#ifndef KVM_MONITOR_WORDS_H
#define KVM_MONITOR_WORDS_H

#include <glib.h>
#include <stdbool.h>

typedef struct MonitorWords {
    GPtrArray *phrases; /* char *: words with one blank between two, e.g. "info migrate" */
} MonitorWords;

MonitorWords *monitor_words_new(void);
void monitor_words_free(MonitorWords *words);

/* help: the answer to `help`, one command a line. */
void monitor_words_take_help(MonitorWords *words, const char *help);

/* info: an answer of lines "NAME: VALUE". Each NAME may follow the command, and after it each of
 * values (ended by NULL). */
void monitor_words_take_names(MonitorWords *words, const char *command, const char *info,
                              const char *const *values);

/* Words that may stand after `before` (whole words) and begin with `text`, each once (g_strfreev).
 */
char **monitor_words_complete(const MonitorWords *words, const char *before, const char *text);

#endif
