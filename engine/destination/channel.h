/* SPDX-License-Identifier: MIT */
/*
 * A channel that brings pages, as far as they have come. Thread: the role that reads it.
 */
#ifndef ENGINE_DESTINATION_CHANNEL_H
#define ENGINE_DESTINATION_CHANNEL_H

#include "engine/block.h"
#include "engine/context.h"
#include "engine/stream/stream.h"
#include "uffd/uffd.h"

typedef struct PageChannel PageChannel;

/* The pages of a run whose header was read: nothing else comes before their bytes. */
typedef struct ComingRun {
    RamBlock *block;
    uint64_t page, count; /* next one to be taken, and how many are left; 0: no run */
    uint64_t taken;
    uint8_t *memory; /* where the first of the taken ones was received to, and all others are; NULL:
                        they come through the channel's buffer */
} ComingRun;

/* Takes pages that lie one behind the other. bytes: of all of them; NULL: zeros. */
typedef bool TakePages(Destination *destination, PageChannel *channel, RamBlock *block,
                       uint64_t page, uint64_t count, const uint8_t *bytes, GError **error);

struct PageChannel {
    const char *name; /* "main", "urgent" */
    bool takes_runs;  /* atomic: set by listen or package, whoever answers the hello */
    RamBlock *block;  /* last one named */
    ComingRun coming;
    FaultlineWalkTrace *walk; /* of the role that reads it */
    UffdRun *run;             /* single pages gathered, not yet visible; main only */
    RamBlock *run_block;
    uint64_t run_page, run_count; /* which: they are not marked received yet */
    /* a host page of several target pages, being put together */
    uint8_t *staging; /* as large as the largest host page; NULL if all are one target page */
    RamBlock *staged_block;
    uint64_t staged_page, staged_count;
    bool staged_is_zero, staged_is_damaged;
    /* whether pages are compared with their checksums first; set with the hello's answer */
    TakePages *take, *take_in_place;          /* from a buffer; received to where they belong */
    uint64_t checksums[STREAM_RUN_PAGES_MAX]; /* of the run that is coming */
    unsigned next_checksum;
};

#endif
