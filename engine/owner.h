/* SPDX-License-Identifier: MIT */
/*
 * A chapter of faultline.h, which includes it: who owns the guest, and the record of it that is
 * still there when a process is not.
 *
 * Each side writes down what it knows before it does what cannot be taken back. The engine says
 * when and what; where and how is the VMM's: one callback that returns once the words are durable.
 *
 *   source                                          destination
 *     HERE     a migration begins                     COMING   it listens
 *     GIVING   before the guest is stopped
 *              guest stopped, device state leaves
 *                                                     TAKING   all that it needs is here; durable
 *     GIVEN    the last byte of it has left                    before the guest runs
 *                                                              the guest runs
 *     THERE    the destination says that it           HERE
 *              loaded it, or has it whole
 *     HERE     failed or cancelled before             REFUSED  it never ran and never will
 *
 * A source that was left with GIVEN has its guest stopped. When the destination's record, read by
 * somebody, proves that it never ran there, faultline_take_back() lets it go on at the source.
 *
 * What cannot be written. HERE at the beginning and COMING: nothing begins. GIVING: the migration
 * fails and the guest goes on at the source. TAKING: the guest does not run at the destination, and
 * the source has it back. Any other: the owner is fixed already, and it goes on; the VMM says that
 * the record is old. It still tells no untruth: GIVING, GIVEN and TAKING mean that the other side's
 * words are needed.
 *
 * What it costs. Writes before and after the switch-over are made by a thread of their own,
 * `record`, while pages move: GIVING during a last pass, or while the destination reads what is on
 * its way to it; GIVEN and HERE while pages are pushed. In the downtime lies TAKING alone, and
 * only what of it lasts longer than the loading of the device state, beside which it is written.
 * One record (write, fsync, rename, fsync of the directory; 450 bytes, median of 40) took 12 ms on
 * ext4 on a virtual disk and 14 us on tmpfs: on such a disk the guest stands up to 12 ms longer. A
 * directory on tmpfs outlives the processes, but not the host, which takes the guest along anyway.
 * Not chosen: one write before the switch-over alone, which costs nothing in the downtime, because
 * a destination that died could not tell then whether it ever ran the guest.
 */
#ifndef FAULTLINE_OWNER_H
#define FAULTLINE_OWNER_H

#include "guest.h"

typedef struct Faultline Faultline;

/* What a side knows of where the guest is: X(name, text). */
#define FAULTLINE_OWNER_LIST(X)                                                                    \
    X(HERE, "here")       /* this side's: nobody else runs it */                                   \
    X(GIVING, "giving")   /* source: from here on the destination may come to own it */            \
    X(GIVEN, "given")     /* source: the destination was sent all that it needs to run it */       \
    X(THERE, "there")     /* source: the destination has said that it loaded it */                 \
    X(COMING, "coming")   /* destination: the source's, it has not run here */                     \
    X(TAKING, "taking")   /* destination: all is here; it runs any moment, or did */               \
    X(REFUSED, "refused") /* destination: the source's, it never ran here and never will */

typedef enum {
#define FAULTLINE_OWNER_ENUM(name, text) FAULTLINE_OWNER_##name,
    FAULTLINE_OWNER_LIST(FAULTLINE_OWNER_ENUM)
#undef FAULTLINE_OWNER_ENUM
        FAULTLINE_OWNER_COUNT
} FaultlineOwner;

/* Never NULL. */
const char *faultline_owner_name(FaultlineOwner owner);

/* Where the guest is, by the last words of one side or both. */
typedef enum {
    FAULTLINE_PLACE_SOURCE,
    FAULTLINE_PLACE_DESTINATION,
    FAULTLINE_PLACE_EITHER,   /* these words do not tell; the other side's may */
    FAULTLINE_PLACE_CONFLICT, /* both claim it: not words of one migration, or a defect */
} FaultlinePlace;

/* NULL: nothing is known of that side. A side whose last word is old because it died still tells
 * the truth: it never says that a guest is where it is not. Pure. */
FaultlinePlace faultline_locate(const FaultlineOwner *source, const FaultlineOwner *destination);

/* One record. Pointers are valid during the call. */
typedef struct FaultlineOwnership {
    FaultlineOwner owner;
    const char *status;     /* of the migration, faultline_status_name() */
    bool incoming;          /* the destination's */
    uint64_t migration;     /* equal on both sides from TAKING on; 0: not known (yet) */
    uint64_t missing_pages; /* destination: not received; source: not sent, at the last count */
    const char *address;    /* where to, or where it listens */
    bool may_refuse; /* false: it goes on in any case; a VMM that cannot write warns somebody */
} FaultlineOwnership;

/* Makes the record durable: on return true it survives a crash. It may take as long as a disk does.
 * Never called by two threads at once. Thread: record; migration, listen at an end; and the caller
 * of faultline_migrate() and faultline_incoming(). Errors: any; the VMM's words say what to do. */
typedef bool (*FaultlineRecordWrite)(void *opaque, const FaultlineOwnership *ownership,
                                     GError **error);

/* From the next migration on; NULL: none is kept (the preset). opaque: handed to it, must outlive
 * the Faultline. Call it while no migration is under way. */
void faultline_set_record(Faultline *faultline, FaultlineRecordWrite write, void *opaque);

/* What is known of a destination that cannot be asked. */
typedef struct FaultlineLastWords {
    FaultlineOwner owner; /* of its record */
    uint64_t migration;   /* its number; 0: it had not heard it */
    bool has_ended;       /* its process is gone for certain, and the record is the last */
} FaultlineLastWords;

/*
 * Takes back a guest that was given away to a destination which cannot be asked any more, as its
 * words prove that it never ran it: REFUSED, or COMING of a process that is gone. The guest goes on
 * here as it was before the switch-over, and the status becomes failed. Waits for the record of
 * this side. Thread: control. Errors: STATE unless a migration from here stands in postcopy-paused,
 * or failed, with the guest given away, or when the words prove nothing; ARGUMENT for words of
 * another migration; HOST when the record cannot be written (the guest stays stopped here), or the
 * guest's own from its resume callback (it is here, paused).
 */
bool faultline_take_back(Faultline *faultline, const FaultlineLastWords *words, GError **error);

/* Pages of one block, one behind the other. */
typedef struct FaultlineRange {
    const char *block; /* its name; NULL: before the first */
    uint64_t page, count_pages;
} FaultlineRange;

/* Moves *range on to the next one that is missing: at a destination not received, at a source not
 * sent; {NULL} begins. Once the source is gone, the pages that are lost. false: there is none.
 * Thread: control. */
bool faultline_next_missing(const Faultline *faultline, FaultlineRange *range);

#endif
