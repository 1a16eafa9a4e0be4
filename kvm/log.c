/* SPDX-License-Identifier: MIT */
/* Lines on standard error, from the level on that somebody asked for. Main thread only. */
#include "kvm/log.h"

#include <stdio.h>

static const char *const level_names[] = {
#define LOG_LEVEL_NAME(name, text) text,
    LOG_LEVEL_LIST(LOG_LEVEL_NAME)
#undef LOG_LEVEL_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(level_names) == LOG_LEVEL_COUNT);

static LogLevel wanted = LOG_WARNING;

bool
log_level_parse(const char *name, LogLevel *ret_level)
{
    for (unsigned i = 0; i < LOG_LEVEL_COUNT; i++) {
        if (g_str_equal(name, level_names[i])) {
            *ret_level = (LogLevel)i;
            return true;
        }
    }
    return false;
}

void
log_set_level(LogLevel level)
{
    wanted = level;
}

bool
log_wants(LogLevel level)
{
    return level <= wanted;
}

void
log_say(LogLevel level, const char *format, ...)
{
    va_list arguments;

    if (!log_wants(level))
        return;
    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    fprintf(stderr, "faultline run: %s\n", text);
}
