/* SPDX-License-Identifier: MIT */
/*
 * 4 KiB out of 2 MiB: with shared huge pages on (advise; saved and restored here) memory is filled
 * by 2 MiB, shown to the guest by 4 KiB, and mapped by 2 MiB at the end. The same for anonymous
 * memory: no huge page while pages are missing, and the advice back at the end.
 */
#include "tests/unit/uffd_case.h"

#define LENGTH (8u << 20)
#define PAGES  (LENGTH / TARGET_PAGE_BYTES)

static bool thp_usable;

static int
thp_allow(void **state)
{
    (void)state;
    thp_usable = shmem_thp_allow();
    return 0;
}

static int
thp_restore(void **state)
{
    (void)state;
    return shmem_thp_restore() ? 0 : -1;
}

/* A number of the mapping at address, in KiB: "ShmemPmdMapped"; or whether VmFlags has a flag. */
static uint64_t
smaps_value(const void *address, const char *name, const char *flag)
{
    g_autofree char *text = NULL;
    g_autofree char *head = g_strdup_printf("%lx-", (unsigned long)address);

    assert_true(g_file_get_contents("/proc/self/smaps", &text, NULL, NULL));
    const char *mapping = strstr(text, head);

    assert_non_null(mapping);
    const char *value = strstr(mapping, name);

    assert_non_null(value);
    value += strlen(name) + 1;
    if (flag == NULL) {
        return strtoull(value, NULL, 10);
    }
    g_autofree char *line = g_strndup(value, strcspn(value, "\n"));

    return strstr(line, flag) != NULL;
}

/* Aligned to 2 MiB, between pages that keep it a mapping of its own. */
static void
map_aligned(UffdLayout *layout, int fd, bool shared)
{
    uint8_t *room =
        mmap(NULL, LENGTH + 2 * THP_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint8_t *start = room + THP_BYTES - (uintptr_t)room % THP_BYTES;
    int flags = MAP_FIXED | (shared ? MAP_SHARED : MAP_PRIVATE) | (fd < 0 ? MAP_ANONYMOUS : 0);

    assert_ptr_not_equal(room, MAP_FAILED);
    *layout = (UffdLayout){
        .host_address = mmap(start, LENGTH, PROT_READ | PROT_WRITE, flags, fd, 0),
        .length_bytes = LENGTH,
        .fd = fd,
        .page_bytes = TARGET_PAGE_BYTES,
        .shared = shared,
    };
    assert_ptr_equal(layout->host_address, start);
}

static void
place_and_check(UffdMemory *memory, uint8_t *guest, uint64_t page, const uint8_t *bytes)
{
    static const uint8_t zeros[TARGET_PAGE_BYTES];

    assert_int_equal(uffd_place(memory, page * TARGET_PAGE_BYTES, TARGET_PAGE_BYTES, bytes),
                     UFFD_PLACED);
    assert_memory_equal(guest + page * TARGET_PAGE_BYTES, bytes != NULL ? bytes : zeros,
                        TARGET_PAGE_BYTES);
}

/* Every fourth page stored in precopy, then discarded or not; the rest by demand. */
static void
store_fourths(UffdMemory *memory)
{
    uint8_t bytes[TARGET_PAGE_BYTES];

    for (uint64_t page = 0; page < PAGES; page += 4) {
        fill(bytes, sizeof(bytes), page);
        uffd_store(memory, page * TARGET_PAGE_BYTES, bytes);
    }
}

static void
alias_of_2_mib_pages_places_4_kib_and_maps_2_mib_at_end(void **state)
{
    g_autoptr(GError) error = NULL;
    UffdLayout layout;
    uint8_t bytes[TARGET_PAGE_BYTES];
    unsigned char resident[PAGES];

    (void)state;
    if (!thp_usable) {
        print_message("skipped: " SHMEM_ENABLED " is not writable\n");
        skip();
    }
    map_aligned(&layout, memfd_create("guest", MFD_CLOEXEC), true);
    assert_int_equal(ftruncate(layout.fd, LENGTH), 0);
    uint8_t *guest = layout.host_address;
    Uffd *uffd = uffd_open(&error);
    UffdMemory *memory = uffd_memory_new(&layout, &error);

    assert_true(uffd_memory_empty(memory, &error));
    store_fourths(memory);
    assert_true(smaps_value(memory->alias, "ShmemPmdMapped:", NULL) > 0);
    assert_true(uffd_memory_zap(memory, &error));
    assert_true(uffd_memory_register(memory, uffd, 0, LENGTH, &error));
    /* Each page, one at a time, with none of its neighbours: the next read would hang for ever if
     * its page were not placed, and the page after it must not be there yet. */
    for (uint64_t page = 0; page < PAGES; page++) {
        fill(bytes, sizeof(bytes), page);
        if (page % 4 == 0) {
            assert_int_equal(
                uffd_place_received(memory, page * TARGET_PAGE_BYTES, TARGET_PAGE_BYTES),
                UFFD_PLACED);
            assert_memory_equal(guest + page * TARGET_PAGE_BYTES, bytes, sizeof(bytes));
        } else {
            place_and_check(memory, guest, page, page % 4 == 3 ? NULL : bytes);
        }
        assert_int_equal(smaps_value(guest, "Rss:", NULL), (page + 1) * 4);
    }
    assert_int_equal(smaps_value(guest, "ShmemPmdMapped:", NULL), 0);
    assert_int_equal(mincore(guest, LENGTH, resident), 0);
    assert_true(uffd_memory_finish(memory, true, &error));
    assert_true(smaps_value(guest, "ShmemPmdMapped:", NULL) > 0);
    for (uint64_t page = 0; page < PAGES; page++) {
        fill(bytes, sizeof(bytes), page);
        if (page % 4 == 3) {
            memset(bytes, 0, sizeof(bytes));
        }
        assert_memory_equal(guest + page * TARGET_PAGE_BYTES, bytes, sizeof(bytes));
    }
    uffd_memory_free(memory);
    uffd_free(uffd);
    munmap(guest, LENGTH);
    close(layout.fd);
}

static void
place_zeros_beside_2_mib_neighbour_shows_zeros(void **state)
{
    g_autoptr(GError) error = NULL;
    UffdLayout layout;
    uint8_t bytes[TARGET_PAGE_BYTES];

    (void)state;
    if (!thp_usable) {
        print_message("skipped: " SHMEM_ENABLED " is not writable\n");
        skip();
    }
    map_aligned(&layout, memfd_create("guest", MFD_CLOEXEC), true);
    assert_int_equal(ftruncate(layout.fd, LENGTH), 0);
    /* What the memfd held before must not come back through a 2 MiB page. */
    memset(layout.host_address, 0xee, LENGTH);
    Uffd *uffd = uffd_open(&error);
    UffdMemory *memory = uffd_memory_new(&layout, &error);

    assert_true(uffd_memory_empty(memory, &error));
    fill(bytes, sizeof(bytes), 1);
    uffd_store(memory, 5 * TARGET_PAGE_BYTES, bytes);
    uffd_store(memory, 6 * TARGET_PAGE_BYTES, bytes);
    assert_true(uffd_memory_discard(memory, 6 * TARGET_PAGE_BYTES, TARGET_PAGE_BYTES, &error));
    assert_true(uffd_memory_zap(memory, &error));
    assert_true(uffd_memory_register(memory, uffd, 0, LENGTH, &error));
    place_and_check(memory, layout.host_address, 4, NULL);
    place_and_check(memory, layout.host_address, 6, NULL);
    place_and_check(memory, layout.host_address, 700, NULL);
    place_and_check(memory, layout.host_address, 701, bytes);
    assert_int_equal(uffd_place_received(memory, 0, LENGTH), UFFD_PLACED);
    assert_memory_equal((uint8_t *)layout.host_address + 5 * TARGET_PAGE_BYTES, bytes,
                        sizeof(bytes));
    for (uint64_t page = 0; page < PAGES; page++) {
        const uint64_t *words =
            (const uint64_t *)((uint8_t *)layout.host_address + page * TARGET_PAGE_BYTES);

        assert_true(page == 5 || page == 701 || (words[0] == 0 && words[511] == 0));
    }
    assert_true(uffd_memory_finish(memory, true, &error));
    uffd_memory_free(memory);
    uffd_free(uffd);
    munmap(layout.host_address, LENGTH);
    close(layout.fd);
}

static void
copy_way_forbids_thp_until_finish(void **state)
{
    g_autoptr(GError) error = NULL;
    UffdLayout layout;

    (void)state;
    map_aligned(&layout, -1, false);
    if (madvise(layout.host_address, LENGTH, MADV_HUGEPAGE) != 0) {
        print_message("skipped: the kernel has no transparent huge pages\n");
        skip();
    }
    Uffd *uffd = uffd_open(&error);
    UffdMemory *memory = uffd_memory_new(&layout, &error);

    assert_true(uffd_memory_empty(memory, &error));
    store_fourths(memory);
    assert_int_equal(smaps_value(layout.host_address, "AnonHugePages:", NULL), 0);
    assert_true(smaps_value(layout.host_address, "VmFlags:", " nh"));
    assert_true(uffd_memory_register(memory, uffd, 0, LENGTH, &error));
    assert_int_equal(uffd_place_received(memory, 0, LENGTH), UFFD_PLACED);
    assert_true(uffd_memory_finish(memory, false, &error));
    assert_true(smaps_value(layout.host_address, "VmFlags:", " nh"));
    assert_true(uffd_memory_finish(memory, true, &error));
    assert_true(smaps_value(layout.host_address, "VmFlags:", " hg"));
    uffd_memory_free(memory);
    uffd_free(uffd);
    munmap(layout.host_address, LENGTH);
}

static void
warm_memory_has_huge_pages_and_shows_zeros_or_what_came(void **state)
{
    g_autoptr(GError) error = NULL;
    UffdLayout layout;
    uint8_t bytes[TARGET_PAGE_BYTES];

    (void)state;
    if (!thp_usable) {
        print_message("skipped: " SHMEM_ENABLED " is not writable\n");
        skip();
    }
    map_aligned(&layout, memfd_create("guest", MFD_CLOEXEC), true);
    assert_int_equal(ftruncate(layout.fd, LENGTH), 0);
    Uffd *uffd = uffd_open(&error);
    UffdMemory *memory = uffd_memory_new(&layout, &error);

    assert_true(uffd_memory_empty(memory, &error));
    assert_true(uffd_memory_warm(memory, 0, THP_BYTES));
    assert_true(smaps_value(memory->alias, "ShmemPmdMapped:", NULL) > 0);
    assert_int_equal(smaps_value(layout.host_address, "Rss:", NULL), 0);
    fill(bytes, sizeof(bytes), 1);
    uffd_store(memory, TARGET_PAGE_BYTES, bytes);
    uffd_store(memory, 0, NULL);
    assert_true(uffd_memory_warm(memory, 0, THP_BYTES));
    assert_true(uffd_memory_register(memory, uffd, 0, LENGTH, &error));
    assert_int_equal(uffd_place_received(memory, 0, 2 * TARGET_PAGE_BYTES), UFFD_PLACED);
    assert_memory_equal((uint8_t *)layout.host_address + TARGET_PAGE_BYTES, bytes, sizeof(bytes));
    place_and_check(memory, layout.host_address, 2, NULL);
    memset(bytes, 0, sizeof(bytes));
    assert_memory_equal(layout.host_address, bytes, sizeof(bytes));
    assert_true(uffd_memory_finish(memory, false, &error));
    uffd_memory_free(memory);
    uffd_free(uffd);
    munmap(layout.host_address, LENGTH);
    close(layout.fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alias_of_2_mib_pages_places_4_kib_and_maps_2_mib_at_end),
        cmocka_unit_test(place_zeros_beside_2_mib_neighbour_shows_zeros),
        cmocka_unit_test(warm_memory_has_huge_pages_and_shows_zeros_or_what_came),
        cmocka_unit_test(copy_way_forbids_thp_until_finish),
    };

    return cmocka_run_group_tests_name("uffd thp", tests, thp_allow, thp_restore);
}
