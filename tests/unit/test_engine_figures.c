/* SPDX-License-Identifier: MIT */
/*
 * Figures that are reckoned for a query: rates of the channels, time to resident, the map of guest
 * memory, with bitmaps and a clock that the test sets.
 */
#include "engine/destination/destination.h"
#include "engine/figures.h"
#include "engine/source/source.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define SECOND 1000000000ull

typedef struct Fixture {
    Faultline faultline;
    FaultlineInfo info;
} Fixture;

/* Blocks of 100 and 28 pages; nothing is looked at but their bitmaps. */
static Fixture *
fixture_new(bool incoming)
{
    static const uint64_t lengths[] = {100, 28};
    Fixture *fixture = g_new0(Fixture, 1);
    RamBlocks *blocks = &fixture->faultline.blocks;

    blocks->blocks = g_new0(RamBlock, G_N_ELEMENTS(lengths));
    blocks->count = G_N_ELEMENTS(lengths);
    for (unsigned i = 0; i < blocks->count; i++) {
        RamBlock *block = &blocks->blocks[i];
        *block = (RamBlock){.index = i, .count_pages = lengths[i], .host_pages = 1};
        block->dirty = page_bitmap_new(lengths[i]);
        block->received = page_bitmap_new(lengths[i]);
        block->requested = page_bitmap_new(lengths[i]);
        blocks->total_bytes += lengths[i] * FAULTLINE_PAGE_BYTES;
    }
    if (incoming)
        fixture->faultline.destination = g_new0(Destination, 1);
    else
        fixture->faultline.source = g_new0(Source, 1);
    fixture->info.incoming = incoming;
    return fixture;
}

static void
fixture_free(Fixture *fixture)
{
    RamBlocks *blocks = &fixture->faultline.blocks;
    for (unsigned i = 0; i < blocks->count; i++) {
        page_bitmap_free(blocks->blocks[i].dirty);
        page_bitmap_free(blocks->blocks[i].received);
        page_bitmap_free(blocks->blocks[i].requested);
    }
    g_free(blocks->blocks);
    g_free(fixture->faultline.destination);
    g_free(fixture->faultline.source);
    g_free(fixture);
}

/* ---- The map --------------------------------------------------------------------------------- */

static void
expect_cell(const FaultlineMapCell *cell, uint64_t pages, uint64_t left, uint64_t waiting)
{
    assert_int_equal(cell->pages, pages);
    assert_int_equal(cell->left, left);
    assert_int_equal(cell->waiting, waiting);
}

static void
map_of_a_destination_counts_missing_and_waited_for(void **state)
{
    Fixture *fixture = fixture_new(true);
    RamBlock *blocks = fixture->faultline.blocks.blocks;
    FaultlineMapCell cells[4];
    (void)state;

    page_bitmap_set_range(blocks[0].received, 0, 40);
    page_bitmap_set_range(blocks[0].requested, 39, 2); /* one of them has come */
    page_bitmap_set_range(blocks[1].received, 0, 28);
    assert_true(faultline_query_map(&fixture->faultline, cells, 4));
    expect_cell(&cells[0], 32, 0, 0);
    expect_cell(&cells[1], 32, 24, 1);
    expect_cell(&cells[2], 32, 32, 0);
    expect_cell(&cells[3], 32, 4, 0); /* of both blocks */
    fixture_free(fixture);
}

static void
map_of_a_source_counts_what_is_to_be_sent(void **state)
{
    Fixture *fixture = fixture_new(false);
    FaultlineMapCell cells[2];
    (void)state;

    page_bitmap_set_range(fixture->faultline.blocks.blocks[0].dirty, 60, 10);
    assert_true(faultline_query_map(&fixture->faultline, cells, 2));
    expect_cell(&cells[0], 64, 4, 0);
    expect_cell(&cells[1], 64, 6, 0);
    fixture_free(fixture);
}

static void
map_of_any_number_of_cells_has_each_page_once(void **state)
{
    Fixture *fixture = fixture_new(true);
    (void)state;

    for (unsigned count = 1; count <= 300; count++) {
        g_autofree FaultlineMapCell *cells = g_new0(FaultlineMapCell, count);
        uint64_t pages = 0, left = 0;
        assert_true(faultline_query_map(&fixture->faultline, cells, count));
        for (unsigned i = 0; i < count; i++) {
            pages += cells[i].pages;
            left += cells[i].left;
        }
        assert_int_equal(pages, 128);
        assert_int_equal(left, 128);
    }
    fixture_free(fixture);
}

static void
map_of_large_pages_counts_a_waited_for_one_whole(void **state)
{
    Fixture *fixture = fixture_new(true);
    FaultlineMapCell cell;
    (void)state;

    fixture->faultline.blocks.blocks[0].host_pages = 4;
    page_bitmap_set_range(fixture->faultline.blocks.blocks[0].requested, 8, 1);
    assert_true(faultline_query_map(&fixture->faultline, &cell, 1));
    expect_cell(&cell, 128, 128, 4);
    fixture_free(fixture);
}

static void
map_without_a_migration_is_none(void **state)
{
    Fixture *fixture = fixture_new(true);
    FaultlineMapCell cell;
    (void)state;

    assert_false(faultline_query_map(&fixture->faultline, &cell, 0));
    g_clear_pointer(&fixture->faultline.destination, g_free);
    assert_false(faultline_query_map(&fixture->faultline, &cell, 1));
    fixture_free(fixture);
}

/* ---- Channels and residence ------------------------------------------------------------------ */

static const FaultlineInfo *
read_at(Fixture *fixture, uint64_t now_ns, uint64_t main_bytes, uint64_t urgent_bytes)
{
    Progress *progress = &fixture->faultline.progress;
    progress->received_main_bytes = main_bytes;
    progress->received_urgent_bytes = urgent_bytes;
    figures_read_channels(&fixture->faultline, &fixture->info, now_ns);
    return &fixture->info;
}

static void
rates_are_of_the_last_second_or_more(void **state)
{
    Fixture *fixture = fixture_new(true);
    (void)state;

    fixture->faultline.status = FAULTLINE_STATUS_ACTIVE;
    fixture->faultline.progress.started_ns = 10 * SECOND;
    const FaultlineInfo *info = read_at(fixture, 10 * SECOND, 0, 0);
    assert_int_equal(info->main_bytes_per_s, 0);
    info = read_at(fixture, 10 * SECOND + SECOND / 2, 500, 0); /* from the beginning on */
    assert_int_equal(info->main_bytes_per_s, 1000);
    info = read_at(fixture, 12 * SECOND, 2000, 10); /* a mark is set */
    assert_int_equal(info->main_bytes_per_s, 1000);
    assert_int_equal(info->urgent_bytes_per_s, 5);
    info = read_at(fixture, 13 * SECOND, 2000, 110); /* and another one */
    assert_int_equal(info->main_bytes_per_s, 0);
    assert_int_equal(info->urgent_bytes_per_s, 100);
    info = read_at(fixture, 13 * SECOND + SECOND / 2, 2000, 110);
    assert_int_equal(info->urgent_bytes_per_s, 66);
    fixture_free(fixture);
}

static void
rates_of_the_next_migration_do_not_look_at_the_last(void **state)
{
    Fixture *fixture = fixture_new(true);
    (void)state;

    fixture->faultline.status = FAULTLINE_STATUS_ACTIVE;
    fixture->faultline.progress.started_ns = SECOND;
    read_at(fixture, 5 * SECOND, 1 << 30, 1 << 20);
    fixture->faultline.progress.started_ns = 6 * SECOND;
    const FaultlineInfo *info = read_at(fixture, 7 * SECOND, 300, 0);
    assert_int_equal(info->main_bytes_per_s, 300);
    assert_int_equal(info->urgent_bytes_per_s, 0);
    fixture_free(fixture);
}

static void
rates_at_the_end_are_of_the_whole(void **state)
{
    Fixture *fixture = fixture_new(true);
    (void)state;

    fixture->faultline.status = FAULTLINE_STATUS_COMPLETED;
    fixture->faultline.progress.started_ns = SECOND;
    fixture->faultline.progress.ended_ns = 5 * SECOND;
    const FaultlineInfo *info = read_at(fixture, 100 * SECOND, 4000, 8);
    assert_int_equal(info->main_bytes_per_s, 1000);
    assert_int_equal(info->urgent_bytes_per_s, 2);
    fixture_free(fixture);
}

static void
residence_counts_from_the_start_of_the_guest(void **state)
{
    Fixture *fixture = fixture_new(true);
    FaultlineInfo *info = &fixture->info;
    (void)state;

    fixture->faultline.status = FAULTLINE_STATUS_POSTCOPY_ACTIVE;
    figures_read_residence(&fixture->faultline, info, 9 * SECOND);
    assert_int_equal(info->resident_time_us, 0);
    assert_true(info->expected_resident_ms == UINT64_MAX);

    info->moment_ns[FAULTLINE_MOMENT_RUNNING] = 10 * SECOND;
    info->missing_pages = 100;
    info->main_bytes_per_s = 50 * FAULTLINE_PAGE_BYTES;
    figures_read_residence(&fixture->faultline, info, 11 * SECOND);
    assert_int_equal(info->resident_time_us, 1000000);
    assert_int_equal(info->expected_resident_ms, 3000);

    info->missing_pages = 0;
    info->moment_ns[FAULTLINE_MOMENT_RESIDENT] = 14 * SECOND;
    figures_read_residence(&fixture->faultline, info, 99 * SECOND);
    assert_int_equal(info->resident_time_us, 4000000);
    assert_int_equal(info->expected_resident_ms, 4000);
    fixture_free(fixture);
}

static void
count_below_is_exact_at_powers_of_two(void **state)
{
    g_autofree FaultlineLatency *latency = g_new0(FaultlineLatency, 1);
    (void)state;

    for (unsigned i = 0; i < FAULTLINE_LATENCY_BUCKETS; i++)
        latency->buckets[i] = 1;
    uint64_t before = 32;
    assert_int_equal(faultline_latency_count_below(latency, 32), 32);
    for (unsigned bit = 6; bit < 30; bit++) {
        uint64_t count = faultline_latency_count_below(latency, 1ull << bit);
        assert_int_equal(count - before, 32); /* an octave */
        before = count;
    }
    assert_int_equal(faultline_latency_count_below(latency, 0), 0);
    assert_int_equal(faultline_latency_count_below(latency, UINT64_MAX), FAULTLINE_LATENCY_BUCKETS);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(map_of_a_destination_counts_missing_and_waited_for),
        cmocka_unit_test(map_of_a_source_counts_what_is_to_be_sent),
        cmocka_unit_test(map_of_any_number_of_cells_has_each_page_once),
        cmocka_unit_test(map_of_large_pages_counts_a_waited_for_one_whole),
        cmocka_unit_test(map_without_a_migration_is_none),
        cmocka_unit_test(rates_are_of_the_last_second_or_more),
        cmocka_unit_test(rates_of_the_next_migration_do_not_look_at_the_last),
        cmocka_unit_test(rates_at_the_end_are_of_the_whole),
        cmocka_unit_test(residence_counts_from_the_start_of_the_guest),
        cmocka_unit_test(count_below_is_exact_at_powers_of_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
