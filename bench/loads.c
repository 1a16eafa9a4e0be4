/* SPDX-License-Identifier: MIT */
/*
 * Loads of guest memory at random, for what its mappings are worth. Destination process, when the
 * migration is over.
 *
 * Each load's address depends on the value of the one before, so that none hides behind another.
 * Pages tell their number (bench_fill), which is what the next address is made of.
 */
#include "bench/clock.h"
#include "bench/guest.h"

#include <stdio.h>
#include <string.h>

/* Bytes of the mapping that pages of 2 MiB map, from /proc/self/smaps. */
static uint64_t
mapped_huge(const void *address)
{
    g_autofree char *text = NULL;
    g_autofree char *begin = g_strdup_printf("%" G_GINTPTR_MODIFIER "x-", (uintptr_t)address);

    if (!g_file_get_contents("/proc/self/smaps", &text, NULL, NULL))
        return 0;
    const char *entry = strstr(text, begin);
    const char *huge = entry ? strstr(entry, "ShmemPmdMapped:") : NULL;
    return huge ? g_ascii_strtoull(huge + strlen("ShmemPmdMapped:"), NULL, 10) * 1024 : 0;
}

static uint64_t
load_pages(const FaultlineBlock *block, uint64_t count, uint64_t seed)
{
    const char *memory = block->host_address;
    uint64_t pages = block->length_bytes / FAULTLINE_PAGE_BYTES, state = seed;

    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = (uint64_t)((unsigned __int128)state * pages >> 64);
        /* Another line of each page, or they would all meet in the same few sets of the caches. */
        const volatile uint64_t *word =
            (const volatile uint64_t *)(const void *)(memory + page * FAULTLINE_PAGE_BYTES +
                                                      page % 64 * 64);
        state = state * 6364136223846793005u + *word;
    }
    return state;
}

void
bench_load_at_random(const FaultlineBlock *block, uint64_t count, Board *board)
{
    uint64_t pages = block->length_bytes / FAULTLINE_PAGE_BYTES;
    volatile uint64_t sink = load_pages(block, pages, 1);

    board->huge_bytes = mapped_huge(block->host_address);
    uint64_t begin_ns = bench_now_ns();
    sink = load_pages(block, count, 2);
    (void)sink;
    board->load_ns = (double)(bench_now_ns() - begin_ns) / (double)count;
}
