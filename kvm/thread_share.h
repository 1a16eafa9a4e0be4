/* SPDX-License-Identifier: MIT */
/*
 * One thread's share of the thread guest's memory: what it writes there, and how it finds out that
 * a byte is wrong. Knows no thread and no engine; thread_guest.c runs it.
 *
 * All pages of all blocks are numbered through; a share is a run of them. Its first pages are a
 * table with the generation (4 bytes, in host order) of each page behind them, the data pages.
 *
 *   data page, generation 0    never written: all zero
 *   data page, generation g    its number, g, and 510 words that follow from both
 *   table page                 has a digest in the share itself, which travels as device state:
 *                              the sum over its pages of mix(page, generation), modulo 2^64
 *
 * So a page that is zero, of another page, flipped in a bit or older than its table entry is found
 * when it is checked, which is before each rewrite and once in each sweep over the whole share. A
 * table page that is old finds itself by its digest, also when the data pages behind it are equally
 * old, and also after more writes, because each write moves sum and digest by the same amount.
 *
 * Threads: one at a time; count_writes, count_checks and swept_pages may be read by others.
 */
#ifndef KVM_THREAD_SHARE_H
#define KVM_THREAD_SHARE_H

#include "engine/guest.h"

#define THREAD_STATE_NAME    "faultline/thread"
#define THREAD_STATE_VERSION 1

typedef struct ThreadMemory {
    FaultlineBlock blocks[2];
    unsigned count_blocks;
} ThreadMemory;

typedef struct ThreadShare {
    /* Set before the guest runs. */
    const ThreadMemory *memory;
    uint32_t index, count_shares;
    uint64_t first_page, count_pages; /* table pages, then data pages */
    uint64_t count_tables;
    uint64_t count_working; /* data pages that are written; those behind stay zero */
    uint64_t write_rate;    /* pages a second; 0: as fast as it goes */

    /* The thread that steps. */
    uint64_t *digests;   /* of each table page */
    uint64_t random;     /* xorshift, never 0 */
    uint64_t count_full; /* working pages written at least once, in order */
    uint64_t sweep;      /* page of the share that is checked next */
    char wrong[160];     /* what was found, "" while all is well */

    /* Written by the thread that steps, read by any with relaxed atomics. */
    uint64_t count_writes, count_checks; /* of the guest's whole life */
    uint64_t swept_pages;                /* since it came to this process */
} ThreadShare;

/* Cuts memory into count_shares and describes share index. memory must outlive it. working_bytes
 * and write_rate: see MachineOptions. */
void thread_share_init(ThreadShare *share, const ThreadMemory *memory, uint32_t index,
                       uint32_t count_shares, uint64_t working_bytes, uint64_t write_rate);
void thread_share_clear(ThreadShare *share);

/* Each returns false when a byte is wrong; share->wrong then says which, and nothing is written. */

/* Checks one page and writes its next generation: in order until all were written once, then at
 * random. */
bool thread_share_write(ThreadShare *share);

/* Checks the next page of the sweep. */
bool thread_share_check(ThreadShare *share);

/* Device state, big-endian, version THREAD_STATE_VERSION. */
GByteArray *thread_share_save(const ThreadShare *share);

/* Refuses, with an error of FAULTLINE_ERROR and share unchanged, what does not fit this share. */
bool thread_share_load(ThreadShare *share, uint32_t version, const void *bytes, size_t length_bytes,
                       GError **error);

#endif
