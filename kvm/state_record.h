/* SPDX-License-Identifier: MIT */
/*
 * One side's record of who owns a guest, as it stands in a state directory: its text, and what a
 * broken, cut, foreign or later one is refused with. No files here. Any thread.
 */
#ifndef KVM_STATE_RECORD_H
#define KVM_STATE_RECORD_H

#include "engine/faultline.h"

#define STATE_RECORD_VERSION 1

typedef struct StateRecord {
    char *name; /* of the guest */
    bool incoming;
    FaultlineOwner owner;
    char *status; /* of the migration, or "none" */
    uint64_t migration, missing_pages;
    char *address;                 /* "": none */
    char *host, *boot, *directory; /* where its process keeps it, and the lock: absolute */
    int64_t pid, written_us;       /* wall clock, since 1970 */
    char *end;                     /* how its process ended, by itself; "": it did not */
} StateRecord;

/* JSON with a newline. Free with g_free. */
char *state_record_format(const StateRecord *record);

/* Errors: ARGUMENT, whose text begins with what is wrong, without a file's name. Free with
 * state_record_free. */
StateRecord *state_record_parse(const char *text, GError **error);

void state_record_free(StateRecord *record);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(StateRecord, state_record_free)

/* "source", "destination". */
const char *state_record_side(bool incoming);

#endif
