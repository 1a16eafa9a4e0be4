/* SPDX-License-Identifier: MIT */
/*
 * The files of a state directory: their names, a write that survives a crash, their locks, and what
 * tells one host and boot from another. Any thread.
 */
#ifndef KVM_STATE_FILE_H
#define KVM_STATE_FILE_H

#include <glib.h>
#include <stdbool.h>

#define STATE_FILE_RECORD "json"
#define STATE_FILE_LOCK   "lock"

/* A guest's name as the first part of file names. Free with g_free. */
char *state_file_stem(const char *name);
/* STEM.SIDE.KIND. Free with g_free. */
char *state_file_name(const char *stem, bool incoming, const char *kind);

/* Replaces the file in the directory fd, durably. path: the directory's, for the text. Errors:
 * HOST; the file is then as it was, or, if the directory alone could not be synced, new. */
bool state_file_write(int fd, const char *path, const char *file, const char *text, GError **error);

/* Sets a HOST error with a remedy. file may be NULL. False always. */
bool state_file_fail(GError **error, const char *what, const char *path, const char *file,
                     int reason);

/* Takes the lock of an open lock file for as long as it is open; false with errno EAGAIN: another
 * process has it. */
bool state_file_lock(int fd);
/* Whether another process holds the lock of that file. false: it cannot be found out. */
bool state_file_is_locked(const char *file, bool *ret_is_locked);

/* This host's name, and its boot's number. Free with g_free. */
char *state_file_host(void);
char *state_file_boot(void);

#endif
