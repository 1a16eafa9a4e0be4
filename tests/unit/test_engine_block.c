/* SPDX-License-Identifier: MIT */
/*
 * The table of RAM blocks and the description of the guest: each way to be wrong is refused with a
 * text that says so, and its nearest good twin is taken.
 */
#include "engine/block.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE_BYTES (2u << 20)

static char host[1]; /* never touched, only its address is looked at */

static FaultlineBlock
good_block(void)
{
    return (FaultlineBlock){.name = "ram",
                            .host_address = (void *)((uintptr_t)host & -(uintptr_t)HUGE_BYTES),
                            .length_bytes = 4 * HUGE_BYTES,
                            .fd = 5,
                            .page_size_bytes = 4096,
                            .shared = true};
}

typedef struct Refusal {
    const char *name;
    void (*spoil)(FaultlineBlock *block);
    const char *says;
    void (*mend)(FaultlineBlock *block); /* the same, just good enough */
} Refusal;

static char long_name[257];

static void
name_missing(FaultlineBlock *block)
{
    block->name = NULL;
}

static void
name_empty(FaultlineBlock *block)
{
    block->name = "";
}

static void
name_of_256_bytes(FaultlineBlock *block)
{
    block->name = long_name;
}

static void
name_of_255_bytes(FaultlineBlock *block)
{
    block->name = long_name + 1;
}

static void
name_of_other_bytes(FaultlineBlock *block)
{
    block->name = "r\xc3\xa4m";
}

static void
page_size_of_2_gib(FaultlineBlock *block)
{
    block->page_size_bytes = block->length_bytes = 2ull << 30;
}

static void
page_size_of_2048(FaultlineBlock *block)
{
    block->page_size_bytes = 2048;
}

static void
page_size_of_0(FaultlineBlock *block)
{
    block->page_size_bytes = 0;
}

static void
page_size_of_12288(FaultlineBlock *block)
{
    block->page_size_bytes = 12288;
    block->length_bytes = 12288;
}

static void
page_size_of_2_mib(FaultlineBlock *block)
{
    block->page_size_bytes = HUGE_BYTES;
}

static void
length_of_0(FaultlineBlock *block)
{
    block->length_bytes = 0;
}

static void
length_of_half_a_page(FaultlineBlock *block)
{
    block->length_bytes = 4096 + 2048;
}

static void
length_of_one_page(FaultlineBlock *block)
{
    block->length_bytes = 4096;
}

static void
length_of_half_a_huge_page(FaultlineBlock *block)
{
    block->page_size_bytes = HUGE_BYTES;
    block->length_bytes = HUGE_BYTES + HUGE_BYTES / 2;
}

static void
address_missing(FaultlineBlock *block)
{
    block->host_address = NULL;
}

static void
address_inside_a_page(FaultlineBlock *block)
{
    block->host_address = (char *)block->host_address + 8;
}

static void
address_inside_a_huge_page(FaultlineBlock *block)
{
    block->page_size_bytes = HUGE_BYTES;
    block->host_address = (char *)block->host_address + 4096;
}

static void
address_of_a_small_page(FaultlineBlock *block)
{
    block->host_address = (char *)block->host_address + 4096;
}

static void
offset_inside_a_page(FaultlineBlock *block)
{
    block->fd_offset_bytes = 100;
}

static void
offset_of_a_page(FaultlineBlock *block)
{
    block->fd_offset_bytes = 4096;
}

static void
offset_without_fd(FaultlineBlock *block)
{
    block->fd_offset_bytes = 100;
    block->fd = -1;
    block->shared = false;
}

static void
shared_without_fd(FaultlineBlock *block)
{
    block->fd = -1;
}

static void
private_without_fd(FaultlineBlock *block)
{
    block->fd = -1;
    block->shared = false;
}

static void
guest_address_too_high(FaultlineBlock *block)
{
    block->guest_address = (uint64_t)INT64_MAX - block->length_bytes + 1;
}

static void
guest_address_highest(FaultlineBlock *block)
{
    block->guest_address = (uint64_t)INT64_MAX - block->length_bytes;
}

static void
guest_address_beyond_all(FaultlineBlock *block)
{
    block->guest_address = UINT64_MAX - 4095;
}

static const Refusal refusals[] = {
    {"no name", name_missing, "1 to 255 bytes", NULL},
    {"empty name", name_empty, "1 to 255 bytes", NULL},
    {"long name", name_of_256_bytes, "1 to 255 bytes", name_of_255_bytes},
    {"name of umlauts", name_of_other_bytes, "printable ASCII", NULL},
    {"gigantic page", page_size_of_2_gib, "page size 2147483648", page_size_of_2_mib},
    {"small page", page_size_of_2048, "page size 2048", NULL},
    {"no page size", page_size_of_0, "page size 0", NULL},
    {"odd page", page_size_of_12288, "page size 12288", page_size_of_2_mib},
    {"no length", length_of_0, "length 0", length_of_one_page},
    {"half a page", length_of_half_a_page, "length 6144", length_of_one_page},
    {"half a huge page", length_of_half_a_huge_page, "page size 2097152", page_size_of_2_mib},
    {"no address", address_missing, "host address", NULL},
    {"crooked address", address_inside_a_page, "host address", address_of_a_small_page},
    {"crooked huge", address_inside_a_huge_page, "host address", address_of_a_small_page},
    {"crooked offset", offset_inside_a_page, "file offset", offset_of_a_page},
    {"shared, no fd", shared_without_fd, "descriptor", private_without_fd},
    {"too high", guest_address_too_high, "address space", guest_address_highest},
    {"far too high", guest_address_beyond_all, "address space", offset_without_fd},
};

static void
block_that_is_wrong_is_refused_with_its_reason(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        g_autoptr(GError) error = NULL;
        FaultlineBlock block = good_block();
        RamBlocks blocks;
        refusals[i].spoil(&block);
        if (ram_blocks_init(&blocks, &block, 1, &error))
            fail_msg("%s was taken", refusals[i].name);
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        if (!strstr(error->message, refusals[i].says) ||
            !strstr(error->message, "describe RAM block") || !strstr(error->message, "correct"))
            fail_msg("%s: %s", refusals[i].name, error->message);
    }
}

static void
block_that_is_just_good_enough_is_taken(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        g_autoptr(GError) error = NULL;
        FaultlineBlock block = good_block();
        RamBlocks blocks;
        if (refusals[i].mend)
            refusals[i].mend(&block);
        if (!ram_blocks_init(&blocks, &block, 1, &error))
            fail_msg("twin of %s: %s", refusals[i].name, error->message);
        assert_int_equal(blocks.count, 1);
        assert_int_equal(blocks.total_bytes, block.length_bytes);
        assert_int_equal(blocks.page_sizes, block.page_size_bytes);
        assert_int_equal(blocks.blocks[0].count_pages, block.length_bytes / 4096);
        assert_int_equal(blocks.blocks[0].host_pages, block.page_size_bytes / 4096);
        assert_string_equal(blocks.blocks[0].is.name, block.name);
        assert_ptr_not_equal(blocks.blocks[0].is.name, block.name);
        ram_blocks_clear(&blocks);
    }
}

static void
locate_at_the_ends_of_blocks_finds_page_or_none(void **state)
{
    FaultlineBlock two[] = {good_block(), good_block()};
    RamBlocks blocks;
    uint64_t page = 99;
    (void)state;

    uintptr_t first = (uintptr_t)two[0].host_address, length = two[0].length_bytes;
    two[1].name = "far";
    two[1].host_address = (char *)two[0].host_address + 3 * length;
    two[1].guest_address = two[1].fd_offset_bytes = length;
    assert_true(ram_blocks_init(&blocks, two, 2, NULL));
    assert_null(ram_blocks_locate(&blocks, first - 1, &page));
    assert_int_equal(page, 99);
    assert_ptr_equal(ram_blocks_locate(&blocks, first, &page), &blocks.blocks[0]);
    assert_int_equal(page, 0);
    assert_ptr_equal(ram_blocks_locate(&blocks, first + length - 1, &page), &blocks.blocks[0]);
    assert_int_equal(page, length / 4096 - 1);
    assert_null(ram_blocks_locate(&blocks, first + length, &page));
    assert_ptr_equal(ram_blocks_locate(&blocks, first + 3 * length + 4096, &page),
                     &blocks.blocks[1]);
    assert_int_equal(page, 1);
    ram_blocks_clear(&blocks);
}

/* ---- The guest's description ------------------------------------------------------------------
 */

static bool
step(void *opaque, GError **error)
{
    (void)opaque, (void)error;
    return true;
}

static bool
dirty_sync(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    (void)opaque, (void)block, (void)words, (void)count_pages, (void)error;
    return true;
}

static void
dirty_stop(void *opaque)
{
    (void)opaque;
}

static bool
save(void *opaque, FaultlineState *devices, GError **error)
{
    (void)opaque, (void)devices, (void)error;
    return true;
}

static bool
load(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
     size_t length_bytes, GError **error)
{
    (void)opaque, (void)name, (void)instance, (void)version, (void)bytes, (void)length_bytes;
    (void)error;
    return true;
}

static FaultlineGuest
good_guest(void)
{
    return (FaultlineGuest){.version = FAULTLINE_GUEST_VERSION,
                            .machine = "test-1.0",
                            .pause = step,
                            .resume = step,
                            .dirty_log_start = step,
                            .dirty_log_sync = dirty_sync,
                            .dirty_log_stop = dirty_stop,
                            .save_state = save,
                            .load_state = load};
}

static pid_t
thread_of(void *opaque, unsigned index)
{
    return opaque ? -1 : (pid_t)index + 100;
}

/* What lies behind an earlier struct is not the VMM's: a sanitizer sees it looked at. */
static void
guest_of_version_1_is_read_as_far_as_it_goes(void **state)
{
    size_t length = offsetof(FaultlineGuest, vcpu_thread) + sizeof(void *);
    FaultlineBlock block = good_block();
    FaultlineGuest guest = good_guest();
    (void)state;

    guest.version = 1;
    guest.vcpu_thread = thread_of;
    g_autofree FaultlineGuest *earlier = g_memdup2(&guest, length);
    Faultline *faultline = faultline_new(earlier, NULL, &block, 1, NULL);
    assert_non_null(faultline);
    assert_int_equal(faultline_vcpu_thread(faultline, 7), 107);
    assert_false(faultline_set_capability(faultline, "auto-converge", true, NULL));
    faultline_free(faultline);
}

static void
refuse_guest(const FaultlineGuest *guest, const char *says)
{
    g_autoptr(GError) error = NULL;
    FaultlineBlock block = good_block();
    Faultline *faultline = faultline_new(guest, NULL, &block, 1, &error);

    if (faultline)
        fail_msg("a guest was taken that should be refused with '%s'", says);
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    if (!strstr(error->message, says))
        fail_msg("'%s' is not in '%s'", says, error->message);
}

static void
guest_that_lacks_something_is_refused(void **state)
{
    FaultlineGuest guest;
    (void)state;

#define REFUSE(field, value, says)                                                                 \
    guest = good_guest();                                                                          \
    guest.field = value;                                                                           \
    refuse_guest(&guest, says)
    REFUSE(version, 0, "version");
    REFUSE(version, FAULTLINE_GUEST_VERSION + 1, "version");
    REFUSE(machine, NULL, "machine type");
    REFUSE(machine, "", "machine type");
    REFUSE(machine, long_name, "machine type");
    REFUSE(pause, NULL, "are needed");
    REFUSE(resume, NULL, "are needed");
    REFUSE(save_state, NULL, "are needed");
    REFUSE(load_state, NULL, "are needed");
    REFUSE(dirty_log_start, NULL, "all three");
    REFUSE(dirty_log_sync, NULL, "all three");
    REFUSE(dirty_log_stop, NULL, "all three");
#undef REFUSE
}

static void
guest_that_has_all_is_taken(void **state)
{
    FaultlineBlock block = good_block();
    FaultlineGuest guests[3] = {good_guest(), good_guest(), good_guest()};
    (void)state;

    guests[1].machine = long_name + 1;
    guests[2].dirty_log_start = NULL;
    guests[2].dirty_log_sync = NULL;
    guests[2].dirty_log_stop = NULL;
    for (unsigned i = 0; i < G_N_ELEMENTS(guests); i++) {
        g_autoptr(GError) error = NULL;
        Faultline *faultline = faultline_new(&guests[i], NULL, &block, 1, &error);
        if (!faultline)
            fail_msg("%s", error->message);
        assert_int_equal(faultline_run_state(faultline), FAULTLINE_RUN_PRELAUNCH);
        faultline_free(faultline);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_that_is_wrong_is_refused_with_its_reason),
        cmocka_unit_test(block_that_is_just_good_enough_is_taken),
        cmocka_unit_test(locate_at_the_ends_of_blocks_finds_page_or_none),
        cmocka_unit_test(guest_of_version_1_is_read_as_far_as_it_goes),
        cmocka_unit_test(guest_that_lacks_something_is_refused),
        cmocka_unit_test(guest_that_has_all_is_taken),
    };
    memset(long_name, 'n', sizeof long_name - 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
