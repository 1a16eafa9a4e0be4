/* SPDX-License-Identifier: MIT */
/*
 * One bit for each target page of a block; every operation is atomic, so several threads may share
 * a bitmap. Who changes a bit from set to clear (or back) is told so: that is how a page finds its
 * one owner. Page numbers are indexes in the block; the caller has checked them.
 */
#ifndef ENGINE_PAGE_BITMAP_H
#define ENGINE_PAGE_BITMAP_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct PageBitmap {
    uint64_t count_pages, count_words;
    uint64_t words[]; /* atomic; bits past count_pages stay 0 */
} PageBitmap;

/* All clear. Thread: any. */
PageBitmap *page_bitmap_new(uint64_t count_pages);
void page_bitmap_free(PageBitmap *bitmap);

/* The value before; acquire and release: what the other side did before it changed the bit is seen.
 */
bool page_bitmap_test_and_set(PageBitmap *bitmap, uint64_t page);
bool page_bitmap_test_and_clear(PageBitmap *bitmap, uint64_t page);

/* Sequentially consistent, for the "mark, then look at the other's mark" of received and requested.
 */
bool page_bitmap_is_set(const PageBitmap *bitmap, uint64_t page);

/* How many of them were clear before. */
uint64_t page_bitmap_set_range(PageBitmap *bitmap, uint64_t page, uint64_t count);

/* How many of them were set before. */
uint64_t page_bitmap_clear_range(PageBitmap *bitmap, uint64_t page, uint64_t count);

/* Clears the run of set bits that begins with page, as far as it goes on below end and in page's
 * word of 64; how many that were. Each of them is the caller's alone. 0: page was clear. */
uint64_t page_bitmap_claim_run(PageBitmap *bitmap, uint64_t page, uint64_t end);

/* First page >= page and < end that is set (clear); end when there is none. */
uint64_t page_bitmap_next_set(const PageBitmap *bitmap, uint64_t page, uint64_t end);
uint64_t page_bitmap_next_clear(const PageBitmap *bitmap, uint64_t page, uint64_t end);

uint64_t page_bitmap_count(const PageBitmap *bitmap);

/* Of [page, end): bits that are set, and if `without` is given, clear in it. */
uint64_t page_bitmap_count_range(const PageBitmap *bitmap, const PageBitmap *without, uint64_t page,
                                 uint64_t end);

/* Copies count words, from the first one on. */
void page_bitmap_read(const PageBitmap *bitmap, uint64_t first_word, uint64_t *ret_words,
                      unsigned count);

/* Gives a word of 64 pages this value; bits past the end are ignored. */
void page_bitmap_write_word(PageBitmap *bitmap, uint64_t word, uint64_t value);

/* Clears the bits of mask in a word; returns how many were set before. */
uint64_t page_bitmap_clear_word(PageBitmap *bitmap, uint64_t word, uint64_t mask);

/* Sets in `to` what is set of [page, page + count) in `from`. */
void page_bitmap_copy_range(PageBitmap *to, const PageBitmap *from, uint64_t page, uint64_t count);

/* Adds the bits of words (as guest.h lays them out); returns how many were not set before. Bits
 * past the end are ignored. */
uint64_t page_bitmap_or(PageBitmap *bitmap, const uint64_t *words);

#endif
