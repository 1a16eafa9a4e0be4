/* SPDX-License-Identifier: MIT */
/*
 * One bit a page, changed by several threads at once as long as they change different pages: two
 * pages may share a word, so all changes are atomic. No order is implied (relaxed): what one thread
 * must know of another's page the caller hands over by its own received bitmap.
 */
#ifndef UFFD_PAGE_BITS_H
#define UFFD_PAGE_BITS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

static inline uint64_t *
page_bits_new(uint64_t count_pages)
{
    return g_new0(uint64_t, (count_pages + 63) / 64);
}

static inline bool
page_bits_is_set(const uint64_t *words, uint64_t page)
{
    return __atomic_load_n(&words[page / 64], __ATOMIC_RELAXED) >> (page % 64) & 1;
}

/* The bits of [page, page + count) that lie in page's word; *ret_count says how many. */
static inline uint64_t
page_bits_mask(uint64_t page, uint64_t count, uint64_t *ret_count)
{
    uint64_t first = page % 64;

    *ret_count = MIN(count, 64 - first);
    return (UINT64_MAX >> (64 - *ret_count)) << first;
}

static inline void
page_bits_set(uint64_t *words, uint64_t page, uint64_t count)
{
    for (uint64_t taken; count > 0; page += taken, count -= taken) {
        uint64_t mask = page_bits_mask(page, count, &taken);

        __atomic_fetch_or(&words[page / 64], mask, __ATOMIC_RELAXED);
    }
}

static inline void
page_bits_clear(uint64_t *words, uint64_t page, uint64_t count)
{
    for (uint64_t taken; count > 0; page += taken, count -= taken) {
        uint64_t mask = page_bits_mask(page, count, &taken);

        __atomic_fetch_and(&words[page / 64], ~mask, __ATOMIC_RELAXED);
    }
}

/* How many pages from page on, at most count, have the same bit as page. */
static inline uint64_t
page_bits_run(const uint64_t *words, uint64_t page, uint64_t count)
{
    bool set = page_bits_is_set(words, page);
    uint64_t run = 0;

    while (run < count) {
        uint64_t taken;
        uint64_t mask = page_bits_mask(page + run, count - run, &taken);
        uint64_t word = __atomic_load_n(&words[(page + run) / 64], __ATOMIC_RELAXED);
        uint64_t other = (set ? ~word : word) & mask;

        if (other != 0) {
            return run + (uint64_t)__builtin_ctzll(other) - (page + run) % 64;
        }
        run += taken;
    }
    return run;
}

#endif
