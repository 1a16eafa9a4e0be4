/* SPDX-License-Identifier: MIT */
/*
 * The file of `run --verdict`: one line, what the guest says of its own data. A reader always sees
 * a whole line: it is written beside and moved into place. Any thread.
 */
#ifndef KVM_VERDICT_FILE_H
#define KVM_VERDICT_FILE_H

#include <glib.h>
#include <stdbool.h>

bool verdict_file_write(const char *path, const char *verdict, GError **error);

/* The line without its end (g_free); NULL when there is none yet. */
char *verdict_file_read(const char *path);

#endif
