/* SPDX-License-Identifier: MIT */
/*
 * Atomic bitmaps over the pages of a block: dirty at the source, received and requested at the
 * destination. Any thread; a bit's change is the hand-over of its page.
 */
#include "engine/page_bitmap.h"

#define WORD_BITS 64u

static uint64_t
load_word(const PageBitmap *bitmap, uint64_t word)
{
    return __atomic_load_n(&bitmap->words[word], __ATOMIC_SEQ_CST);
}

PageBitmap *
page_bitmap_new(uint64_t count_pages)
{
    uint64_t count_words = (count_pages + WORD_BITS - 1) / WORD_BITS;
    PageBitmap *bitmap = g_malloc0(sizeof *bitmap + count_words * sizeof bitmap->words[0]);
    bitmap->count_pages = count_pages;
    bitmap->count_words = count_words;
    /* Fresh memory is slow at its first touch, which may be while the guest waits. */
    for (uint64_t i = 0; i < count_words; i++)
        __atomic_store_n(&bitmap->words[i], 0, __ATOMIC_RELAXED);
    return bitmap;
}

void
page_bitmap_free(PageBitmap *bitmap)
{
    g_free(bitmap);
}

bool
page_bitmap_test_and_set(PageBitmap *bitmap, uint64_t page)
{
    uint64_t bit = 1ull << (page % WORD_BITS);
    return __atomic_fetch_or(&bitmap->words[page / WORD_BITS], bit, __ATOMIC_SEQ_CST) & bit;
}

bool
page_bitmap_test_and_clear(PageBitmap *bitmap, uint64_t page)
{
    uint64_t bit = 1ull << (page % WORD_BITS);
    return __atomic_fetch_and(&bitmap->words[page / WORD_BITS], ~bit, __ATOMIC_SEQ_CST) & bit;
}

bool
page_bitmap_is_set(const PageBitmap *bitmap, uint64_t page)
{
    return load_word(bitmap, page / WORD_BITS) & (1ull << (page % WORD_BITS));
}

/* The bits of [page, end) that lie in page's word. */
static uint64_t
mask_of(uint64_t page, uint64_t end)
{
    uint64_t first = page % WORD_BITS;
    uint64_t count = MIN(end - page, WORD_BITS - first);
    uint64_t ones = count == WORD_BITS ? UINT64_MAX : (1ull << count) - 1;
    return ones << first;
}

static uint64_t
next_word(uint64_t page)
{
    return (page / WORD_BITS + 1) * WORD_BITS;
}

uint64_t
page_bitmap_set_range(PageBitmap *bitmap, uint64_t page, uint64_t count)
{
    uint64_t end = page + count, count_set = 0;
    for (; page < end; page = next_word(page)) {
        uint64_t mask = mask_of(page, end);
        uint64_t before =
            __atomic_fetch_or(&bitmap->words[page / WORD_BITS], mask, __ATOMIC_SEQ_CST);
        count_set += (uint64_t)__builtin_popcountll(~before & mask);
    }
    return count_set;
}

uint64_t
page_bitmap_clear_range(PageBitmap *bitmap, uint64_t page, uint64_t count)
{
    uint64_t end = page + count, count_cleared = 0;
    for (; page < end; page = next_word(page)) {
        uint64_t mask = mask_of(page, end);
        uint64_t before =
            __atomic_fetch_and(&bitmap->words[page / WORD_BITS], ~mask, __ATOMIC_SEQ_CST);
        count_cleared += (uint64_t)__builtin_popcountll(before & mask);
    }
    return count_cleared;
}

uint64_t
page_bitmap_claim_run(PageBitmap *bitmap, uint64_t page, uint64_t end)
{
    uint64_t *word = &bitmap->words[page / WORD_BITS];
    uint64_t found = __atomic_load_n(word, __ATOMIC_SEQ_CST);
    uint64_t run;

    do {
        uint64_t wanted = mask_of(page, end);
        uint64_t gap = ~found & wanted;
        run = gap ? wanted & ((gap & -gap) - 1) : wanted;
    } while (run && !__atomic_compare_exchange_n(word, &found, found & ~run, false,
                                                 __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
    return (uint64_t)__builtin_popcountll(run);
}

/* First page of [page, end) whose bit, after `invert`, is set. */
static uint64_t
next_bit(const PageBitmap *bitmap, uint64_t page, uint64_t end, uint64_t invert)
{
    for (; page < end; page = next_word(page)) {
        uint64_t word = (load_word(bitmap, page / WORD_BITS) ^ invert) & mask_of(page, end);
        if (word)
            return page / WORD_BITS * WORD_BITS + (uint64_t)__builtin_ctzll(word);
    }
    return end;
}

uint64_t
page_bitmap_next_set(const PageBitmap *bitmap, uint64_t page, uint64_t end)
{
    return next_bit(bitmap, page, end, 0);
}

uint64_t
page_bitmap_next_clear(const PageBitmap *bitmap, uint64_t page, uint64_t end)
{
    return next_bit(bitmap, page, end, UINT64_MAX);
}

uint64_t
page_bitmap_count(const PageBitmap *bitmap)
{
    uint64_t count = 0;
    for (uint64_t i = 0; i < bitmap->count_words; i++)
        count += (uint64_t)__builtin_popcountll(load_word(bitmap, i));
    return count;
}

void
page_bitmap_read(const PageBitmap *bitmap, uint64_t first_word, uint64_t *ret_words, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        ret_words[i] = load_word(bitmap, first_word + i);
}

void
page_bitmap_write_word(PageBitmap *bitmap, uint64_t word, uint64_t value)
{
    __atomic_store_n(&bitmap->words[word], value & mask_of(word * WORD_BITS, bitmap->count_pages),
                     __ATOMIC_SEQ_CST);
}

uint64_t
page_bitmap_clear_word(PageBitmap *bitmap, uint64_t word, uint64_t mask)
{
    if (!mask)
        return 0;
    uint64_t before = __atomic_fetch_and(&bitmap->words[word], ~mask, __ATOMIC_SEQ_CST);
    return (uint64_t)__builtin_popcountll(before & mask);
}

void
page_bitmap_copy_range(PageBitmap *to, const PageBitmap *from, uint64_t page, uint64_t count)
{
    for (uint64_t end = page + count; page < end; page = next_word(page)) {
        uint64_t set = load_word(from, page / WORD_BITS) & mask_of(page, end);
        if (set)
            __atomic_fetch_or(&to->words[page / WORD_BITS], set, __ATOMIC_SEQ_CST);
    }
}

uint64_t
page_bitmap_count_range(const PageBitmap *bitmap, const PageBitmap *without, uint64_t page,
                        uint64_t end)
{
    uint64_t count = 0;
    for (; page < end; page = next_word(page)) {
        uint64_t word = load_word(bitmap, page / WORD_BITS) & mask_of(page, end);
        if (word && without)
            word &= ~load_word(without, page / WORD_BITS);
        count += (uint64_t)__builtin_popcountll(word);
    }
    return count;
}

uint64_t
page_bitmap_or(PageBitmap *bitmap, const uint64_t *words)
{
    uint64_t count_new = 0;
    for (uint64_t i = 0; i < bitmap->count_words; i++) {
        uint64_t mask = mask_of(i * WORD_BITS, bitmap->count_pages);
        uint64_t add = words[i] & mask;
        if (!add)
            continue;
        uint64_t before = __atomic_fetch_or(&bitmap->words[i], add, __ATOMIC_SEQ_CST);
        count_new += (uint64_t)__builtin_popcountll(add & ~before);
    }
    return count_new;
}
