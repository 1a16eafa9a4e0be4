/* SPDX-License-Identifier: MIT */
/*
 * What tests of one whole Faultline against a scripted or recorded peer need: a small guest that
 * counts what is done to it, and the peer's end of the connections.
 *
 * A guest has two blocks, one of each way to place pages, the first longer than 2 MiB. Its
 * callbacks are called by the engine's threads, everything else by the test's own.
 */
#ifndef TESTS_UNIT_SUPPORT_PEER_H
#define TESTS_UNIT_SUPPORT_PEER_H

#include <pthread.h>

#include "engine/faultline.h"

#define PEER_MACHINE     "faultline-test-1.0"
#define PEER_DEVICE      "test/device"
#define PEER_STATE       "state"
#define PEER_STATE_LIMIT 4096u
#define PEER_RAM0_PAGES  600u /* memfd, shared */
#define PEER_RAM1_PAGES  40u  /* private */
#define PEER_PAGES(n)    ((uint64_t)(n)*FAULTLINE_PAGE_BYTES)
#define PEER_WAIT_MS     20000
#define PEER_BLOCKS_MAX  8u

typedef struct PeerGuest {
    Faultline *faultline;
    FaultlineBlock blocks[PEER_BLOCKS_MAX];
    unsigned count_blocks;

    /* set by the test before the migration */
    bool refuses_state;   /* load_state fails */
    int64_t touches_page; /* load_state reads this page of ram0; -1: none */
    bool has_no_device;   /* save_state saves none */
    bool is_always_dirty; /* every sync says that every page was written */
    bool reads_all;       /* once it runs, a thread reads every page, last ones first */

    /* atomic */
    unsigned count_resumes, count_pauses, count_loads;
    uint64_t sum; /* of the pages' first bytes, read by the thread */

    pthread_t reader;
    bool has_reader;
} PeerGuest;

/* capability: NULL ends; switched on in this order. */
PeerGuest *peer_guest_new(const char *const *capabilities);
/* The same with a machine and blocks of another size: names NULL ends, a length each in pages. All
 * texts are kept by the caller. */
PeerGuest *peer_guest_new_sized(const char *machine, const char *const *names,
                                const uint64_t *counts, const char *const *capabilities);
/* Joins the reader, then frees the Faultline: only with a guest whose memory is whole. */
void peer_guest_free(PeerGuest *guest);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PeerGuest, peer_guest_free)

unsigned peer_count(const unsigned *count);
/* Fills a source's memory: page i of a block is all zeroes if i % 3 == 0, else its own pattern. */
void peer_guest_fill(PeerGuest *guest);
/* Whether a guest holds what peer_guest_fill() writes. */
bool peer_guest_is_filled(const PeerGuest *guest);

/* Resident memory of this process in bytes. */
uint64_t peer_resident_bytes(void);

/* Starts listening; the case is skipped, with a reason, where the host has no userfaultfd. */
void peer_incoming(PeerGuest *guest, const char *uri);

/* ---- The peer's end of one connection, never blocking ------------------------------------------
 */

typedef struct PeerLink {
    int fd;
    bool is_closed;      /* the other side closed, or broke it */
    bool is_deaf;        /* reads nothing */
    GByteArray *to_send; /* what is written as the other side takes it */
    size_t sent;
    GByteArray *received;
} PeerLink;

PeerLink *peer_link_new(int fd);
void peer_link_free(PeerLink *link);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PeerLink, peer_link_free)
/* Writes and reads what can be, waiting at most wait_ms for the first of it; true: something was
 * done. */
bool peer_link_pump(PeerLink *link, int wait_ms);
bool peer_link_is_sent(const PeerLink *link);
/* No more will be written; nothing, if that is known already. */
void peer_link_half_close(PeerLink *link);

/* A folder of its own for sockets and files; removed with all in it. */
char *peer_folder_new(void);
void peer_folder_free(char *folder);

int peer_connect(const char *path);
int peer_listen(const char *path);

#endif
