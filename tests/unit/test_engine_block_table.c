/* SPDX-License-Identifier: MIT */
/*
 * Tables of several RAM blocks: how many there may be, and what two of them may not share.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "engine/block.h"

#define HUGE_BYTES (2u << 20)

/* Behind those before it, with its own part of the file. Nobody looks at the memory. */
static FaultlineBlock
nth_block(unsigned number)
{
    uint64_t length = 4 * HUGE_BYTES, before = number * length;

    return (FaultlineBlock){.name = number ? "ram2" : "ram",
                            .guest_address = before,
                            .host_address =
                                (void *)(uintptr_t)(1024 * (uint64_t)HUGE_BYTES + before),
                            .length_bytes = length,
                            .fd = 5,
                            .fd_offset_bytes = before,
                            .page_size_bytes = 4096,
                            .shared = true};
}

static void
table_with_too_many_blocks_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree FaultlineBlock *many = g_new(FaultlineBlock, RAM_BLOCKS_MAX + 1);
    char names[RAM_BLOCKS_MAX + 1][8];
    RamBlocks blocks;
    (void)state;

    for (unsigned i = 0; i <= RAM_BLOCKS_MAX; i++) {
        many[i] = nth_block(i);
        many[i].name = names[i];
        g_snprintf(names[i], sizeof names[i], "ram%u", i);
    }
    assert_true(ram_blocks_init(&blocks, many, RAM_BLOCKS_MAX, NULL));
    ram_blocks_clear(&blocks);
    assert_false(ram_blocks_init(&blocks, many, RAM_BLOCKS_MAX + 1, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    assert_non_null(strstr(error->message, "65 blocks"));
}

static void
table_without_blocks_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    RamBlocks blocks;
    (void)state;

    assert_false(ram_blocks_init(&blocks, NULL, 0, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    assert_non_null(strstr(error->message, "there is no block"));
}

static void
two_blocks_of_one_name_are_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    FaultlineBlock two[] = {nth_block(0), nth_block(1)};
    RamBlocks blocks;
    (void)state;

    two[1].name = "ram";
    assert_false(ram_blocks_init(&blocks, two, 2, &error));
    assert_non_null(strstr(error->message, "another block has this name"));
    g_clear_error(&error);

    two[1].name = "ram2";
    two[1].page_size_bytes = HUGE_BYTES;
    assert_true(ram_blocks_init(&blocks, two, 2, &error));
    assert_int_equal(blocks.page_sizes, 4096 | HUGE_BYTES);
    assert_ptr_equal(ram_blocks_find(&blocks, "ram2"), &blocks.blocks[1]);
    assert_ptr_equal(ram_blocks_find(&blocks, "ram"), &blocks.blocks[0]);
    assert_null(ram_blocks_find(&blocks, "ram3"));
    assert_null(ram_blocks_find(&blocks, ""));
    ram_blocks_clear(&blocks);
}

/* As they are, and the other way round. */
static void
expect_refusal(const FaultlineBlock *two, const char *says)
{
    const FaultlineBlock turned[] = {two[1], two[0]};
    g_autoptr(GError) error = NULL;
    RamBlocks blocks;

    assert_false(ram_blocks_init(&blocks, turned, 2, NULL));
    assert_false(ram_blocks_init(&blocks, two, 2, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    if (!strstr(error->message, says))
        fail_msg("'%s' lacks '%s'", error->message, says);
}

static void
two_blocks_that_overlap_by_a_page_are_refused(void **state)
{
    FaultlineBlock two[] = {nth_block(0), nth_block(1)};
    (void)state;

    two[1].host_address = (char *)two[1].host_address - 4096;
    expect_refusal(two, "'ram2': it is in the host memory of block 'ram'");
    two[1] = nth_block(1);
    two[1].guest_address -= 4096;
    expect_refusal(two, "'ram2': it has guest addresses of block 'ram'");
    two[1] = nth_block(1);
    two[1].fd_offset_bytes -= 4096;
    expect_refusal(two, "'ram2': it has a range of the file of block 'ram'");
}

static void
two_blocks_of_one_range_in_two_files_are_taken(void **state)
{
    FaultlineBlock two[] = {nth_block(0), nth_block(1)};
    RamBlocks blocks;
    (void)state;

    two[1].fd_offset_bytes = 0;
    two[1].fd = 6;
    assert_true(ram_blocks_init(&blocks, two, 2, NULL));
    ram_blocks_clear(&blocks);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_with_too_many_blocks_is_refused),
        cmocka_unit_test(table_without_blocks_is_refused),
        cmocka_unit_test(two_blocks_of_one_name_are_refused),
        cmocka_unit_test(two_blocks_that_overlap_by_a_page_are_refused),
        cmocka_unit_test(two_blocks_of_one_range_in_two_files_are_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
