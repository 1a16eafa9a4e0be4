/* SPDX-License-Identifier: MIT */
/*
 * What `faultline run` says on standard error, by how much somebody wants to read: --log-level.
 * Main thread only.
 */
#ifndef KVM_LOG_H
#define KVM_LOG_H

#include <glib.h>
#include <stdbool.h>

/* X(NAME, "name"): each level says what those before it say, and more. */
#define LOG_LEVEL_LIST(X)                                                                          \
    X(ERROR, "error")     /* why the program ends, or could not begin */                           \
    X(WARNING, "warning") /* the preset: what should not be, and goes on */                        \
    X(INFO, "info")       /* each phase of a migration, with its figures at the end */             \
    X(DEBUG, "debug")     /* the figures of a migration under way, twice a second */

typedef enum {
#define LOG_LEVEL_ENUM(name, text) LOG_##name,
    LOG_LEVEL_LIST(LOG_LEVEL_ENUM)
#undef LOG_LEVEL_ENUM
        LOG_LEVEL_COUNT
} LogLevel;

/* false for an unknown name; *ret_level is left alone then. */
bool log_level_parse(const char *name, LogLevel *ret_level);

void log_set_level(LogLevel level);
bool log_wants(LogLevel level);
/* One line, without its end. */
void log_say(LogLevel level, const char *format, ...) G_GNUC_PRINTF(2, 3);

#endif
