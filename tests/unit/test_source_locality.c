/* SPDX-License-Identifier: MIT */
/*
 * Streams of requests: what is recognised, what is handed out, and that nothing is handed out twice
 * or outside of the block. A guest is played that has what it was given and asks for the rest.
 */
#include "engine/source/locality.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define COUNT_PAGES 65536u
#define MOST        16u

typedef struct Play {
    Locality locality;
    LocalityBounds bounds;
    GHashTable *here; /* block << 32 | page */
    uint64_t count_requests, count_neighbours, count_twice;
} Play;

static gpointer
key(unsigned block, uint64_t page)
{
    return GSIZE_TO_POINTER((gsize)block << 32 | page | (gsize)1 << 62);
}

static void
play_init(Play *play, uint64_t most)
{
    *play = (Play){.bounds = {COUNT_PAGES, most, UINT64_MAX}};
    locality_init(&play->locality);
    play->here = g_hash_table_new(NULL, NULL);
}

static void
play_clear(Play *play)
{
    g_hash_table_unref(play->here);
}

static void
take_window(Play *play, const LocalityWindow *window)
{
    assert_true(window->count > 0);
    assert_true(window->count <= play->bounds.window);
    for (uint64_t i = 0; i < window->count; i++) {
        uint64_t page = window->page + (uint64_t)((int64_t)i * window->step);
        assert_true(page < play->bounds.count_pages);
        if (g_hash_table_add(play->here, key(window->block, page)))
            play->count_neighbours++;
        else
            play->count_twice++;
    }
}

static LocalityResult
ask(Play *play, unsigned block, uint64_t page, LocalityWindow *ret_window)
{
    play->count_requests++;
    g_hash_table_add(play->here, key(block, page));
    LocalityResult result = locality_note(&play->locality, block, page, &play->bounds, ret_window);
    if (result == LOCALITY_WINDOW) {
        assert_int_equal(ret_window->block, block);
        take_window(play, ret_window);
    }
    return result;
}

/* The guest touches a page: asks for it if it is not here. */
static void
touch(Play *play, unsigned block, uint64_t page)
{
    LocalityWindow window;
    if (!g_hash_table_contains(play->here, key(block, page)))
        ask(play, block, page, &window);
}

static void
expect_window(Play *play, uint64_t page, uint64_t first, int64_t step, uint64_t count)
{
    LocalityWindow window;
    assert_int_equal(ask(play, 0, page, &window), LOCALITY_WINDOW);
    assert_int_equal(window.page, first);
    assert_int_equal(window.step, step);
    assert_int_equal(window.count, count);
}

static void
expect(Play *play, uint64_t page, LocalityResult result)
{
    LocalityWindow window;
    assert_int_equal(ask(play, 0, page, &window), result);
}

/* ---- One stream ------------------------------------------------------------------------------ */

static void
note_third_page_of_a_stream_opens_a_window(void **state)
{
    const int64_t steps[] = {1, -1, 2, 8, -8, 64, -64};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        Play play;
        uint64_t page = 10000;
        play_init(&play, MOST);
        expect(&play, page, LOCALITY_NONE);
        expect(&play, page += (uint64_t)steps[i], LOCALITY_NONE);
        page += (uint64_t)steps[i];
        expect_window(&play, page, page + (uint64_t)steps[i], steps[i], LOCALITY_FIRST);
        play_clear(&play);
    }
}

static void
note_steps_beyond_the_longest_stride_open_nothing(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    for (unsigned i = 0; i < 200; i++)
        expect(&play, i * 65, LOCALITY_NONE);
    play_clear(&play);
}

static void
note_page_behind_the_window_grows_it(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    expect(&play, 100, LOCALITY_NONE);
    expect(&play, 101, LOCALITY_NONE);
    expect_window(&play, 102, 103, 1, 4);
    expect_window(&play, 107, 108, 1, 8);
    expect_window(&play, 116, 117, 1, 16);
    expect_window(&play, 133, 134, 1, 16);
    play_clear(&play);
}

static void
note_page_inside_the_window_goes_on_without_sending_twice(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    expect(&play, 100, LOCALITY_NONE);
    expect(&play, 101, LOCALITY_NONE);
    expect_window(&play, 102, 103, 1, 4);
    /* Asked for while it was on its way, in whatever order. */
    expect(&play, 104, LOCALITY_INSIDE);
    expect(&play, 103, LOCALITY_INSIDE);
    expect(&play, 104, LOCALITY_INSIDE);
    /* Past the middle: what is ahead is filled up. */
    expect_window(&play, 105, 107, 1, 7);
    expect_window(&play, 114, 115, 1, 16);
    assert_int_equal(play.count_twice, 0);
    play_clear(&play);
}

static void
note_stream_over_clean_pages_goes_on(void **state)
{
    const uint64_t pages[] = {100, 103, 104};
    Play play;
    (void)state;
    play_init(&play, MOST);
    expect(&play, pages[0], LOCALITY_NONE);
    expect(&play, pages[1], LOCALITY_NONE);
    expect_window(&play, pages[2], 105, 1, 4);
    expect_window(&play, 112, 113, 1, 8); /* 109 to 111 are clean */
    play_clear(&play);
}

static void
note_jump_out_of_the_stream_is_a_page_like_any_other(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    expect(&play, 100, LOCALITY_NONE);
    expect(&play, 101, LOCALITY_NONE);
    expect_window(&play, 102, 103, 1, 4);
    expect(&play, 5000, LOCALITY_NONE);
    expect(&play, 70, LOCALITY_NONE);
    expect(&play, 130, LOCALITY_NONE);
    expect_window(&play, 107, 108, 1, 8);
    play_clear(&play);
}

static void
note_stream_after_a_long_time_begins_small(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    for (uint64_t page = 100; page < 200; page++)
        touch(&play, 0, page);
    uint64_t next = 100;
    while (g_hash_table_contains(play.here, key(0, next)))
        next++;
    for (uint64_t i = 0; i < 300; i++)
        expect(&play, 1000 + i * 100, LOCALITY_NONE);
    expect_window(&play, next, next + 1, 1, LOCALITY_FIRST);
    play_clear(&play);
}

/* ---- Pages under way ------------------------------------------------------------------------- */

static void
note_streams_share_what_may_be_under_way(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    play.bounds.flight = 10;
    for (uint64_t page = 1; page < 3; page++)
        for (uint64_t stream = 1; stream < 5; stream++)
            expect(&play, stream * 1000 + page, LOCALITY_NONE);
    expect_window(&play, 1003, 1004, 1, 4);
    expect_window(&play, 2003, 2004, 1, 4);
    expect_window(&play, 3003, 3004, 1, 2);
    expect(&play, 4003, LOCALITY_INSIDE);
    /* Past its window: it is there, and so is all that left before it. */
    expect_window(&play, 2008, 2009, 1, 8);
    /* Once more: what left before its last page is there. */
    expect_window(&play, 4004, 4005, 1, 2);
    play_clear(&play);
}

static void
note_window_that_nobody_used_is_forgotten(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    play.bounds.flight = 4;
    expect(&play, 100, LOCALITY_NONE);
    expect(&play, 101, LOCALITY_NONE);
    expect_window(&play, 102, 103, 1, 4);
    for (uint64_t i = 1; i < 40; i++)
        expect(&play, i * 1000, LOCALITY_NONE);
    expect(&play, 501, LOCALITY_NONE);
    expect(&play, 502, LOCALITY_NONE);
    expect_window(&play, 503, 504, 1, 4);
    play_clear(&play);
}

/* ---- The ends of a block --------------------------------------------------------------------- */

static void
note_stream_at_the_end_of_the_block_stays_inside(void **state)
{
    Play play;
    (void)state;
    play_init(&play, MOST);
    expect(&play, COUNT_PAGES - 5, LOCALITY_NONE);
    expect(&play, COUNT_PAGES - 4, LOCALITY_NONE);
    expect_window(&play, COUNT_PAGES - 3, COUNT_PAGES - 2, 1, 2);
    expect(&play, COUNT_PAGES - 1, LOCALITY_INSIDE);
    expect(&play, 20, LOCALITY_NONE);
    expect(&play, 12, LOCALITY_NONE);
    expect(&play, 4, LOCALITY_INSIDE); /* recognised, and nothing is left */
    expect(&play, 1002, LOCALITY_NONE);
    expect(&play, 1001, LOCALITY_NONE);
    play.bounds.count_pages = 1003;
    expect_window(&play, 1000, 999, -1, 4);
    play_clear(&play);
}

static void
note_block_of_few_host_pages_is_gone_through_to_its_end(void **state)
{
    Play play;
    (void)state;
    for (unsigned count = 1; count < 12; count++) {
        for (int down = 0; down < 2; down++) {
            play_init(&play, 4);
            play.bounds.count_pages = count;
            for (uint64_t i = 0; i < count; i++)
                touch(&play, 0, down ? count - 1 - i : i);
            assert_int_equal(g_hash_table_size(play.here), count);
            assert_int_equal(play.count_twice, 0);
            play_clear(&play);
        }
    }
}

static void
note_most_of_one_hands_out_single_pages(void **state)
{
    Play play;
    (void)state;
    play_init(&play, 1);
    for (uint64_t page = 0; page < 100; page++)
        touch(&play, 0, page);
    assert_int_equal(play.count_requests, 2 + 49);
    play_clear(&play);
}

/* ---- Whole patterns -------------------------------------------------------------------------- */

static void
note_long_streams_ask_for_few_pages(void **state)
{
    const int64_t steps[] = {1, -1, 8, -8};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(steps); i++) {
        Play play;
        uint64_t page = COUNT_PAGES / 2;
        play_init(&play, MOST);
        for (unsigned touches = 0; touches < 3400; touches++, page += (uint64_t)steps[i])
            touch(&play, 0, page);
        assert_true(play.count_requests <= 3400 / (MOST + 1) + 5);
        assert_int_equal(play.count_twice, 0);
        play_clear(&play);
    }
}

static void
note_streams_that_take_turns_are_all_recognised(void **state)
{
    (void)state;
    for (unsigned count = 2; count <= LOCALITY_STREAMS; count++) {
        Play play;
        play_init(&play, MOST);
        for (uint64_t i = 0; i < 340; i++) {
            for (unsigned stream = 0; stream < count; stream++) {
                uint64_t first = (stream + 1) * 3000 + stream * 7;
                touch(&play, stream % 3, stream % 2 ? first - i : first + i * (1 + stream % 4));
            }
        }
        assert_true(play.count_requests <= count * (340 / (MOST + 1) + 5));
        assert_int_equal(play.count_twice, 0);
        play_clear(&play);
    }
}

/* Some are served, and none takes another's place. */
static void
note_more_streams_than_places_keeps_some(void **state)
{
    const unsigned count = LOCALITY_STREAMS + 4;
    uint64_t served = 0;
    Play play;
    (void)state;
    play_init(&play, MOST);
    for (uint64_t i = 0; i < 1000; i++)
        for (unsigned stream = 0; stream < count; stream++)
            touch(&play, 0, stream * 3000 + i);
    served = play.count_neighbours;
    assert_true(served >= LOCALITY_STREAMS / 2 * 900);
    play_clear(&play);
}

static void
note_random_pages_open_nothing(void **state)
{
    (void)state;
    for (unsigned seed = 1; seed <= 20; seed++) {
        Play play;
        GRand *random = g_rand_new_with_seed(seed);
        play_init(&play, MOST);
        play.bounds.count_pages = 1u << 24; /* chance finds streams in small memory, if rarely */
        for (unsigned i = 0; i < 20000; i++)
            touch(&play, 0, (uint64_t)g_rand_int_range(random, 0, 1 << 24));
        assert_int_equal(play.count_neighbours, 0);
        play_clear(&play);
        g_rand_free(random);
    }
}

static void
note_stream_among_random_pages_goes_on(void **state)
{
    GRand *random = g_rand_new_with_seed(7);
    Play play;
    (void)state;
    play_init(&play, MOST);
    play.bounds.count_pages = 1u << 24;
    for (uint64_t i = 0; i < 1700; i++) {
        touch(&play, 1, 500 + i);
        for (unsigned other = 0; other < 10; other++)
            touch(&play, 0, (uint64_t)g_rand_int_range(random, 0, 1 << 24));
    }
    assert_true(play.count_neighbours >= 1700 - 1700 / (MOST + 1) - 20);
    play_clear(&play);
    g_rand_free(random);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(note_third_page_of_a_stream_opens_a_window),
        cmocka_unit_test(note_steps_beyond_the_longest_stride_open_nothing),
        cmocka_unit_test(note_page_behind_the_window_grows_it),
        cmocka_unit_test(note_page_inside_the_window_goes_on_without_sending_twice),
        cmocka_unit_test(note_stream_over_clean_pages_goes_on),
        cmocka_unit_test(note_jump_out_of_the_stream_is_a_page_like_any_other),
        cmocka_unit_test(note_stream_after_a_long_time_begins_small),
        cmocka_unit_test(note_streams_share_what_may_be_under_way),
        cmocka_unit_test(note_window_that_nobody_used_is_forgotten),
        cmocka_unit_test(note_stream_at_the_end_of_the_block_stays_inside),
        cmocka_unit_test(note_block_of_few_host_pages_is_gone_through_to_its_end),
        cmocka_unit_test(note_most_of_one_hands_out_single_pages),
        cmocka_unit_test(note_long_streams_ask_for_few_pages),
        cmocka_unit_test(note_streams_that_take_turns_are_all_recognised),
        cmocka_unit_test(note_more_streams_than_places_keeps_some),
        cmocka_unit_test(note_random_pages_open_nothing),
        cmocka_unit_test(note_stream_among_random_pages_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
