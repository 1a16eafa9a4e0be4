/* SPDX-License-Identifier: MIT */
/*
 * A state directory: one file for each guest and side, NAME.source.json and NAME.destination.json,
 * and beside each a lock that its process holds as long as it lives.
 *
 * A record is written to a file beside it, synced, renamed, and the directory synced: a crash
 * leaves the old words or the new ones. The writer is the callback of faultline_set_record(), on
 * the threads that owner.h names; everything else is the main thread's.
 */
#ifndef KVM_STATE_DIR_H
#define KVM_STATE_DIR_H

#include "kvm/state_record.h"

typedef struct StateDir StateDir;

/* For a guest that starts here, or with incoming is waited for: takes the side's lock and writes
 * its first record, so that a directory that cannot be written is found out now.
 * Errors: ARGUMENT for a name that makes no file name; HOST; STATE when another process records
 * that side, or when the records say that the guest is not to be started, or received, here. */
StateDir *state_dir_open(const char *path, const char *name, bool incoming, GError **error);

/* Says how the process ended, in the record; what goes wrong is logged. */
void state_dir_end(StateDir *dir, const char *how);

/* Lets go of the locks. NULL: nothing. */
void state_dir_free(StateDir *dir);

/* For faultline_set_record(). */
bool state_dir_write(void *dir, const FaultlineOwnership *ownership, GError **error);

/* Writes a text beside the records, as durable as they are: NAME.SUFFIX. */
bool state_dir_write_beside(StateDir *dir, const char *suffix, const char *text, GError **error);
void state_dir_remove_beside(StateDir *dir, const char *suffix);

#define STATE_LIST "missing" /* pages that a lost source had: block, offset, length a line */

/* ---- Reading --------------------------------------------------------------------------------- */

/* What became of the process that wrote a record. */
typedef enum {
    STATE_LIFE_RUNS,
    STATE_LIFE_GONE,    /* it died: it said no last word */
    STATE_LIFE_ENDED,   /* it ended by itself and said so */
    STATE_LIFE_UNKNOWN, /* another host's, or its directory is gone */
} StateLife;

typedef struct StateFile {
    char *path;
    StateRecord *record; /* NULL: see error */
    GError *error;       /* why it could not be read; NULL: it could */
    StateLife life;
    bool has_list; /* its source was lost: NAME.missing says which pages are not here */
} StateFile;

/* All records of a directory, by name. Errors: HOST when it cannot be read. Free with
 * g_ptr_array_unref. */
GPtrArray *state_dir_read(const char *path, GError **error);

#endif
