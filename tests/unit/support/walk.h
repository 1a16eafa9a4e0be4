/* SPDX-License-Identifier: MIT */
/*
 * A reader of whole recorded migrations for tests: walks over every byte of every channel with the
 * decoders of engine/stream and checks the rules that need more than one message: order, section
 * numbers, what CONTINUE continues, which pages are held. Host pages are 4096 bytes.
 *
 * A Walk is one migration: walk_main, walk_urgent, walk_return in the order in which the bytes were
 * made, as far as one channel's content depends on another's; after a break walk_return, then
 * walk_main with is_resumed.
 */
#ifndef TESTS_UNIT_SUPPORT_WALK_H
#define TESTS_UNIT_SUPPORT_WALK_H

#include "engine/stream/stream.h"

#define WALK_BLOCKS_MAX      16
#define WALK_BLOCK_BYTES_MAX (1u << 30)
#define WALK_PINGS_MAX       16
#define WALK_CHANNELS_MAX    4

typedef struct WalkBlock {
    char name[STREAM_NAME_MAX + 1];
    uint64_t count_pages;
    uint8_t *held;  /* a byte a page */
    uint8_t *image; /* what the pages hold; with keeps_image */
} WalkBlock;

typedef struct WalkBytes {
    const uint8_t *bytes;
    size_t length, at;
} WalkBytes;

typedef enum {
    WALK_NONE,
    WALK_ADVISE,
    WALK_DISCARD,
    WALK_LISTENING,
    WALK_RUNNING,
    WALK_END
} WalkPhase;

typedef struct WalkSection {
    uint32_t id, instance;
    char name[STREAM_NAME_MAX + 1];
    size_t length; /* FULL */
} WalkSection;

typedef struct Walk {
    StreamConfiguration configuration;
    WalkBlock blocks[WALK_BLOCKS_MAX];
    unsigned count_blocks;
    GArray *sections; /* of WalkSection, in stream order */
    WalkPhase phase;
    bool has_return_path, has_started, has_ended, has_switched, is_cut, reached_cut, is_resumed;
    bool was_running, takes_runs; /* the latter: set by who knows what was agreed */
    bool keeps_image;             /* set before the block list is walked; not with runs */
    uint32_t pings[WALK_PINGS_MAX];
    unsigned count_pings, count_pongs, count_requests, count_bitmaps, count_asked;
    WalkBlock *last_main, *last_urgent, *last_request;
    WalkBytes multifd[WALK_CHANNELS_MAX];
    unsigned count_multifd, count_syncs;
    uint64_t count_discarded, count_postcopy, count_zero, count_page, count_lost,
        count_multifd_pages;
    uint64_t count_urgent, count_runs;
    bool has_description, has_shut, has_resume_ack;
} Walk;

Walk *walk_new(void);
void walk_free(Walk *walk);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Walk, walk_free)

/* All of them: false and an error for a broken rule or a byte left over. */
bool walk_main(Walk *walk, const uint8_t *bytes, size_t length, GError **error);
bool walk_urgent(Walk *walk, const uint8_t *bytes, size_t length, GError **error);
bool walk_return(Walk *walk, const uint8_t *bytes, size_t length, GError **error);

/* Adds a channel; call for all before walk_main. Its packets are read as main's flushes need. */
bool walk_add_multifd(Walk *walk, const uint8_t *bytes, size_t length, GError **error);
bool walk_sync_multifd(Walk *walk, GError **error);
bool walk_finish_multifd(Walk *walk, GError **error);

/* Every page of every block is held. */
bool walk_is_whole(const Walk *walk);

WalkBlock *walk_find_block(Walk *walk, const char *name);
bool walk_store(Walk *walk, WalkBlock *block, uint64_t offset, GError **error);
bool walk_fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

bool walk_discard(Walk *walk, const StreamElement *element, GError **error);
bool walk_discard_words(Walk *walk, const StreamElement *element, GError **error);

/* The description at the end of a precopy stream agrees with the sections walked. */
bool walk_description(Walk *walk, const char *json, size_t length, GError **error);

/* tests/captures/NAME.gz, decompressed. */
GBytes *walk_load(const char *name);

#endif
