/* SPDX-License-Identifier: MIT */
/*
 * Keeps the record of who owns the guest (owner.h): what is to be written, by whom, and whether it
 * is durable by now.
 *
 * The role `record` writes what others order, and wakes them; it is made only when there is
 * somebody to write. At the ends of a migration, when no page waits, the phase's owner writes on
 * its own thread. Without a callback everything is durable at once.
 */
#ifndef ENGINE_RECORD_H
#define ENGINE_RECORD_H

#include "engine/faultline.h"
#include "engine/role.h"

#include <pthread.h>

typedef struct Record {
    /* set before any thread starts */
    FaultlineRecordWrite write; /* NULL: none is kept */
    void *opaque;
    Role role;
    Role *waiters[2]; /* woken when an order is done; NULL: none */
    bool incoming;

    /* Held over the callback, so that words come one after the other. Taken by record, migration,
     * listen and control thread; before lock. */
    pthread_mutex_t write_lock;

    /* Held for nothing else. */
    pthread_mutex_t lock;
    FaultlineOwner owner; /* last ordered */
    char *address;        /* where to, or where it listens */
    bool is_ordered;      /* and not yet begun */
    bool is_stopping;     /* nobody orders any more */
    GError *error;        /* why the last one failed; NULL: it did not */
    unsigned written;     /* bit per owner: durable in this migration */
    unsigned failed;      /* bit per owner: could not be written */
    uint64_t migration;   /* its number */
} Record;

void record_init(Record *record);
void record_clear(Record *record);

/* Control thread, before the roles start: a migration begins, in which `owner` is what is so. */
bool record_begin(Faultline *faultline, FaultlineOwner owner, const char *address, GError **error);

/* It goes on there: the words that follow say so. Thread: any. */
void record_set_address(Faultline *faultline, const char *address);

/* Has it written by the role; an order that has not begun is replaced. Thread: the side's. */
void record_order(Faultline *faultline, FaultlineOwner owner);
/* The same words with new figures. */
void record_refresh(Faultline *faultline);

/* Of an order: STAY while it is not durable, AGAIN when it is, FAILED with the reason. */
StageResult record_await(Faultline *faultline, FaultlineOwner owner, GError **error);

/* Writes it now, instead of all that was ordered, where the owner is fixed already; status: the
 * migration's from now on. false: the record is old. */
bool record_write(Faultline *faultline, FaultlineOwner owner, FaultlineStatus status);

/* Whether such words may be on the disk. */
bool record_has_tried(Faultline *faultline, FaultlineOwner owner);

/* The migration's number: set once, by the source's own or as it said. */
void record_set_migration(Faultline *faultline, uint64_t migration);
uint64_t record_migration(Faultline *faultline);

/* The role ends once what was ordered is written. */
void record_stop(Faultline *faultline);

#endif
