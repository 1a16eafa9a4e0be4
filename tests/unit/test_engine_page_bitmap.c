/* SPDX-License-Identifier: MIT */
/*
 * Page bitmaps: every function at the edges of words, thousands of random operations against a
 * plain array, and threads that claim the same pages, of which each finds exactly one owner.
 */
#include "engine/page_bitmap.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const uint64_t edges[] = {0, 1, 31, 62, 63, 64, 65, 126, 127, 128, 129, 190, 191, 192, 199};
#define PAGES 200u /* three words and a piece */

static void
single_bit_at_word_edges_tells_its_value_before(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(edges); i++) {
        PageBitmap *bitmap = page_bitmap_new(PAGES);
        assert_int_equal(page_bitmap_count(bitmap), 0);
        assert_false(page_bitmap_test_and_clear(bitmap, edges[i]));
        assert_false(page_bitmap_test_and_set(bitmap, edges[i]));
        assert_true(page_bitmap_test_and_set(bitmap, edges[i]));
        assert_int_equal(page_bitmap_count(bitmap), 1);
        for (uint64_t page = 0; page < PAGES; page++)
            assert_int_equal(page_bitmap_is_set(bitmap, page), page == edges[i]);
        assert_true(page_bitmap_test_and_clear(bitmap, edges[i]));
        assert_int_equal(page_bitmap_count(bitmap), 0);
        page_bitmap_free(bitmap);
    }
}

static void
range_between_any_two_edges_is_exact(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(edges); i++) {
        for (unsigned j = i; j < G_N_ELEMENTS(edges); j++) {
            uint64_t from = edges[i], count = edges[j] - from;
            PageBitmap *bitmap = page_bitmap_new(PAGES);
            page_bitmap_set_range(bitmap, from, count);
            for (uint64_t page = 0; page < PAGES; page++)
                assert_int_equal(page_bitmap_is_set(bitmap, page),
                                 page >= from && page < from + count);
            assert_int_equal(page_bitmap_count(bitmap), count);
            assert_int_equal(page_bitmap_next_set(bitmap, 0, PAGES), count ? from : PAGES);
            assert_int_equal(page_bitmap_next_clear(bitmap, from, PAGES), from + count);
            /* Of which the half is gone already. */
            page_bitmap_clear_range(bitmap, from, count / 2);
            assert_int_equal(page_bitmap_clear_range(bitmap, from, count), count - count / 2);
            assert_int_equal(page_bitmap_count(bitmap), 0);
            page_bitmap_free(bitmap);
        }
    }
}

static void
next_clear_of_a_full_bitmap_is_its_end(void **state)
{
    (void)state;
    for (uint64_t pages = 1; pages <= 130; pages++) {
        PageBitmap *bitmap = page_bitmap_new(pages);
        assert_int_equal(page_bitmap_next_set(bitmap, 0, pages), pages);
        page_bitmap_set_range(bitmap, 0, pages);
        assert_int_equal(page_bitmap_next_clear(bitmap, 0, pages), pages);
        assert_int_equal(page_bitmap_next_set(bitmap, pages, pages), pages);
        assert_int_equal(page_bitmap_next_set(bitmap, pages - 1, pages), pages - 1);
        assert_int_equal(page_bitmap_count(bitmap), pages);
        page_bitmap_free(bitmap);
    }
}

static void
next_beyond_the_end_asked_for_is_not_looked_at(void **state)
{
    (void)state;
    PageBitmap *bitmap = page_bitmap_new(PAGES);
    page_bitmap_set_range(bitmap, 70, 1);
    assert_int_equal(page_bitmap_next_set(bitmap, 3, 70), 70);
    assert_int_equal(page_bitmap_next_set(bitmap, 3, 69), 69);
    assert_int_equal(page_bitmap_next_set(bitmap, 71, 128), 128);
    assert_int_equal(page_bitmap_next_clear(bitmap, 70, 71), 71);
    page_bitmap_free(bitmap);
}

static void
or_counts_new_bits_and_ignores_those_past_the_end(void **state)
{
    (void)state;
    uint64_t words[4] = {0x8000000000000001, 0, 3, UINT64_MAX};
    PageBitmap *bitmap = page_bitmap_new(PAGES); /* 8 pages in the last word */
    page_bitmap_set_range(bitmap, 63, 1);
    page_bitmap_set_range(bitmap, 100, 1);
    assert_int_equal(page_bitmap_or(bitmap, words), 1 + 2 + 8);
    assert_int_equal(page_bitmap_count(bitmap), 2 + 2 + 8 + 1);
    assert_int_equal(page_bitmap_or(bitmap, words), 0);
    assert_int_equal(page_bitmap_next_clear(bitmap, 192, PAGES), PAGES);
    assert_int_equal(bitmap->words[3], 0xff);
    page_bitmap_free(bitmap);
}

static void
copy_of_a_range_leaves_what_is_outside(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(edges); i++) {
        for (unsigned j = i; j < G_N_ELEMENTS(edges); j++) {
            PageBitmap *from = page_bitmap_new(PAGES), *to = page_bitmap_new(PAGES);
            for (uint64_t page = 0; page < PAGES; page += 3)
                page_bitmap_test_and_set(from, page);
            page_bitmap_test_and_set(to, 1);
            page_bitmap_copy_range(to, from, edges[i], edges[j] - edges[i]);
            for (uint64_t page = 0; page < PAGES; page++)
                assert_int_equal(page_bitmap_is_set(to, page),
                                 page == 1 ||
                                     (page % 3 == 0 && page >= edges[i] && page < edges[j]));
            page_bitmap_free(from);
            page_bitmap_free(to);
        }
    }
}

static void
clear_of_a_word_counts_what_was_set(void **state)
{
    (void)state;
    uint64_t words[2];
    PageBitmap *bitmap = page_bitmap_new(PAGES);
    page_bitmap_set_range(bitmap, 60, 10);
    assert_int_equal(page_bitmap_clear_word(bitmap, 1, 0x105), 2);
    assert_int_equal(page_bitmap_clear_word(bitmap, 1, 0x105), 0);
    assert_int_equal(page_bitmap_clear_word(bitmap, 0, 0), 0);
    page_bitmap_read(bitmap, 0, words, 2);
    assert_true(words[0] == 0xf000000000000000 && words[1] == 0x3a);
    page_bitmap_free(bitmap);
}

/* ---- Against a plain array --------------------------------------------------------------------
 */

#define MODEL_PAGES 1000u
#define MODEL_STEPS 60000u

typedef struct Model {
    GRand *rand;
    PageBitmap *bitmap;
    bool bits[MODEL_PAGES];
} Model;

static uint64_t
model_count(const Model *model)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < MODEL_PAGES; i++)
        count += model->bits[i];
    return count;
}

static uint64_t
model_next(const Model *model, uint64_t page, uint64_t end, bool value)
{
    while (page < end && model->bits[page] != value)
        page++;
    return page;
}

static void
model_ranges(Model *model, uint64_t page, uint64_t count)
{
    uint64_t before = 0;

    if (g_rand_boolean(model->rand)) {
        page_bitmap_set_range(model->bitmap, page, count);
        for (uint64_t i = page; i < page + count; i++)
            model->bits[i] = true;
        return;
    }
    for (uint64_t i = page; i < page + count; i++) {
        before += model->bits[i];
        model->bits[i] = false;
    }
    assert_int_equal(page_bitmap_clear_range(model->bitmap, page, count), before);
}

static void
model_or(Model *model)
{
    uint64_t words[(MODEL_PAGES + 63) / 64], count_new = 0;
    for (unsigned i = 0; i < G_N_ELEMENTS(words); i++)
        words[i] = (uint64_t)g_rand_int(model->rand) << 32 & g_rand_int(model->rand);
    for (unsigned i = 0; i < MODEL_PAGES; i++) {
        bool bit = words[i / 64] >> (i % 64) & 1;
        count_new += bit && !model->bits[i];
        model->bits[i] |= bit;
    }
    assert_int_equal(page_bitmap_or(model->bitmap, words), count_new);
}

static void
model_step(Model *model)
{
    uint64_t page = (uint64_t)g_rand_int_range(model->rand, 0, MODEL_PAGES);
    uint64_t count = (uint64_t)g_rand_int_range(model->rand, 0, (gint32)(MODEL_PAGES - page + 1));
    switch (g_rand_int_range(model->rand, 0, 7)) {
    case 0:
        assert_int_equal(page_bitmap_test_and_set(model->bitmap, page), model->bits[page]);
        model->bits[page] = true;
        break;
    case 1:
        assert_int_equal(page_bitmap_test_and_clear(model->bitmap, page), model->bits[page]);
        model->bits[page] = false;
        break;
    case 2:
        model_ranges(model, page, MIN(count, 150));
        break;
    case 3:
        assert_int_equal(page_bitmap_next_set(model->bitmap, page, page + count),
                         model_next(model, page, page + count, true));
        break;
    case 4:
        assert_int_equal(page_bitmap_next_clear(model->bitmap, page, page + count),
                         model_next(model, page, page + count, false));
        break;
    case 5:
        if (g_rand_int_range(model->rand, 0, 100) == 0)
            model_or(model);
        break;
    default:
        assert_int_equal(page_bitmap_is_set(model->bitmap, page), model->bits[page]);
        assert_int_equal(page_bitmap_count(model->bitmap), model_count(model));
    }
}

static void
random_operations_agree_with_a_plain_array(void **state)
{
    (void)state;
    for (guint32 seed = 1; seed <= 4; seed++) {
        Model model = {.rand = g_rand_new_with_seed(seed), .bitmap = page_bitmap_new(MODEL_PAGES)};
        print_message("seed %u\n", seed);
        for (unsigned step = 0; step < MODEL_STEPS; step++)
            model_step(&model);
        g_rand_free(model.rand);
        page_bitmap_free(model.bitmap);
    }
}

/* ---- Threads --------------------------------------------------------------------------------- */

#define CLAIM_PAGES   4099u
#define CLAIM_THREADS 4u

typedef struct Claim {
    PageBitmap *bitmap;
    pthread_barrier_t *start;
    unsigned way; /* how this one claims */
    bool sets;    /* claims by setting */
    uint64_t wins;
    uint8_t won[CLAIM_PAGES];
} Claim;

static void *
claim_pages(void *data)
{
    Claim *claim = data;
    pthread_barrier_wait(claim->start);
    for (uint64_t i = 0; i < CLAIM_PAGES; i++) {
        uint64_t page = claim->way % 2 ? CLAIM_PAGES - 1 - i : i;
        bool is_won = claim->sets ? !page_bitmap_test_and_set(claim->bitmap, page)
                                  : page_bitmap_test_and_clear(claim->bitmap, page);
        claim->won[page] += is_won;
        claim->wins += is_won;
    }
    /* What is claimed by ranges is counted, not named. */
    if (!claim->sets)
        claim->wins += page_bitmap_clear_range(claim->bitmap, 0, CLAIM_PAGES);
    return NULL;
}

static void
claim_by_threads(bool sets)
{
    static Claim claims[CLAIM_THREADS];
    pthread_t threads[CLAIM_THREADS];
    pthread_barrier_t start;
    PageBitmap *bitmap = page_bitmap_new(CLAIM_PAGES);

    if (!sets)
        page_bitmap_set_range(bitmap, 0, CLAIM_PAGES);
    pthread_barrier_init(&start, NULL, CLAIM_THREADS);
    for (unsigned i = 0; i < CLAIM_THREADS; i++) {
        claims[i] = (Claim){.bitmap = bitmap, .start = &start, .way = i, .sets = sets};
        assert_int_equal(pthread_create(&threads[i], NULL, claim_pages, &claims[i]), 0);
    }
    uint64_t wins = 0;
    for (unsigned i = 0; i < CLAIM_THREADS; i++) {
        pthread_join(threads[i], NULL);
        wins += claims[i].wins;
    }
    assert_int_equal(wins, CLAIM_PAGES);
    for (uint64_t page = 0; page < CLAIM_PAGES; page++) {
        unsigned owners = 0;
        for (unsigned i = 0; i < CLAIM_THREADS; i++)
            owners += claims[i].won[page];
        assert_int_equal(owners, 1);
    }
    assert_int_equal(page_bitmap_count(bitmap), sets ? CLAIM_PAGES : 0);
    pthread_barrier_destroy(&start);
    page_bitmap_free(bitmap);
}

static void
claim_run_takes_what_is_set_up_to_word_gap_and_end(void **state)
{
    PageBitmap *bitmap = page_bitmap_new(200);
    (void)state;

    page_bitmap_set_range(bitmap, 0, 200);
    assert_true(page_bitmap_test_and_clear(bitmap, 20));
    assert_int_equal(page_bitmap_claim_run(bitmap, 20, 200), 0);
    assert_int_equal(page_bitmap_claim_run(bitmap, 5, 200), 15); /* the gap */
    assert_int_equal(page_bitmap_claim_run(bitmap, 5, 200), 0);
    assert_int_equal(page_bitmap_claim_run(bitmap, 21, 30), 9);  /* the end asked for */
    assert_int_equal(page_bitmap_claim_run(bitmap, 60, 200), 4); /* the word */
    assert_int_equal(page_bitmap_claim_run(bitmap, 64, 200), 64);
    assert_int_equal(page_bitmap_claim_run(bitmap, 192, 200), 8);
    assert_int_equal(page_bitmap_claim_run(bitmap, 199, 200), 0);
    assert_int_equal(page_bitmap_count(bitmap), 200 - 1 - 15 - 9 - 4 - 64 - 8);
    assert_true(page_bitmap_is_set(bitmap, 4));
    assert_true(page_bitmap_is_set(bitmap, 30));
    page_bitmap_free(bitmap);
}

static void
claim_by_clearing_finds_each_page_one_owner(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        claim_by_threads(false);
}

static void
claim_by_setting_finds_each_page_one_owner(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 20; i++)
        claim_by_threads(true);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_bit_at_word_edges_tells_its_value_before),
        cmocka_unit_test(range_between_any_two_edges_is_exact),
        cmocka_unit_test(next_clear_of_a_full_bitmap_is_its_end),
        cmocka_unit_test(next_beyond_the_end_asked_for_is_not_looked_at),
        cmocka_unit_test(or_counts_new_bits_and_ignores_those_past_the_end),
        cmocka_unit_test(copy_of_a_range_leaves_what_is_outside),
        cmocka_unit_test(clear_of_a_word_counts_what_was_set),
        cmocka_unit_test(random_operations_agree_with_a_plain_array),
        cmocka_unit_test(claim_run_takes_what_is_set_up_to_word_gap_and_end),
        cmocka_unit_test(claim_by_clearing_finds_each_page_one_owner),
        cmocka_unit_test(claim_by_setting_finds_each_page_one_owner),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
