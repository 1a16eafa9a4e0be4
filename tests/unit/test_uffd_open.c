/* SPDX-License-Identifier: MIT */
/*
 * Opening, reading faults, registering: what is promised, and the words when it is not allowed.
 */
#include "tests/unit/uffd_case.h"

#include <sys/wait.h>

#include "uffd/abi.h"

#define SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"

static void
open_allowed_has_features_and_no_fault(void **state)
{
    g_autoptr(GError) error = NULL;
    Uffd *uffd = uffd_open(&error);
    UffdFault fault;

    (void)state;
    assert_non_null(uffd);
    assert_true(uffd_features(uffd) & UFFD_FEATURE_THREAD_ID);
    assert_true(fcntl(uffd_fd(uffd), F_GETFL) & O_NONBLOCK);
    assert_true(fcntl(uffd_fd(uffd), F_GETFD) & FD_CLOEXEC);
    assert_int_equal(uffd_read_faults(uffd, &fault, 1), 0);
    uffd_free(uffd);
}

static void
feature_table_rows_are_distinct_bits(void **state)
{
    uint64_t seen = 0;

    (void)state;
    for (const UffdFeatureRow *row = uffd_feature_table(); row->name != NULL; row++) {
        assert_int_equal(__builtin_popcountll(row->bit), 1);
        assert_false(seen & row->bit);
        assert_non_null(row->reason);
        assert_non_null(row->kernel);
        seen |= row->bit;
    }
    assert_true(seen & UFFD_FEATURE_MINOR_SHMEM);
}

/* Runs as nobody. Exit 0: refused with the right words; 1: other words; 2: allowed. */
static int
open_as_nobody(void)
{
    g_autoptr(GError) error = NULL;

    if (setgid(65534) != 0 || setuid(65534) != 0) {
        return 3;
    }
    if (uffd_open(&error) != NULL) {
        return 2;
    }
    return g_error_matches(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED) &&
                   strstr(error->message, "/dev/userfaultfd") != NULL &&
                   strstr(error->message, "vm.unprivileged_userfaultfd") != NULL &&
                   strstr(error->message, "CAP_SYS_PTRACE") != NULL
               ? 0
               : 1;
}

static void
open_not_permitted_names_device_sysctl_and_capability(void **state)
{
    int status;

    (void)state;
    if (getuid() != 0 || sysfs_number(SYSCTL) != 0) {
        print_message("skipped: needs root and " SYSCTL " = 0\n");
        skip();
    }
    pid_t child = fork();

    if (child == 0) {
        _exit(open_as_nobody());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2) {
        print_message("skipped: everybody may open /dev/userfaultfd here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
new_misaligned_block_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    UffdLayout layout = {
        .host_address = (void *)UINT64_C(0x10000),
        .length_bytes = 5000,
        .fd = -1,
        .page_bytes = TARGET_PAGE_BYTES,
    };

    (void)state;
    assert_null(uffd_memory_new(&layout, &error));
    assert_true(g_error_matches(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED));
}

static void
register_file_mapping_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
    UffdLayout layout = {
        .host_address = mmap(NULL, TARGET_PAGE_BYTES, PROT_READ, MAP_SHARED, fd, 0),
        .length_bytes = TARGET_PAGE_BYTES,
        .fd = fd,
        .page_bytes = TARGET_PAGE_BYTES,
        .shared = true,
    };
    Uffd *uffd = uffd_open(&error);
    UffdMemory *memory = uffd_memory_new(&layout, &error);

    (void)state;
    assert_non_null(memory);
    assert_false(uffd_memory_register(memory, uffd, 0, TARGET_PAGE_BYTES, &error));
    assert_non_null(strstr(error->message, "cannot watch"));
    g_clear_error(&error);
    assert_false(uffd_memory_empty(memory, &error));
    assert_non_null(strstr(error->message, "cannot drop"));
    assert_int_equal(uffd_place(memory, 0, TARGET_PAGE_BYTES, NULL), UFFD_GONE);
    uffd_memory_free(memory);
    uffd_free(uffd);
    munmap(layout.host_address, TARGET_PAGE_BYTES);
    close(fd);
}

/* The page cache has the page, the guest mapping has not: minor, only in the alias way. */
static void
read_faults_stored_page_is_minor(void **state)
{
    g_autoptr(Fixture) fixture = fixture_new(&kinds[0]);
    Toucher touchers[3] = {0};
    UffdFault faults[16];
    unsigned count = 0;

    (void)state;
    store(fixture, 9, 9);
    watch(fixture);
    for (unsigned i = 0; i < 3; i++) {
        toucher_start(&touchers[i], fixture, 9 + i, false);
    }
    while (count < 3) {
        struct pollfd wait = {.fd = uffd_fd(fixture->uffd), .events = POLLIN};

        assert_int_equal(poll(&wait, 1, -1), 1);
        count += uffd_read_faults(fixture->uffd, faults + count, 16 - count);
    }
    assert_int_equal(count, 3);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(faults[i].minor, fault_page(fixture, &faults[i]) == 9);
    }
    assert_int_equal(place_received(fixture, 9, 3), UFFD_PLACED);
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(touchers[i].thread, NULL);
    }
    assert_true(guest_has(fixture, 9, 9));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(open_allowed_has_features_and_no_fault),
        cmocka_unit_test(feature_table_rows_are_distinct_bits),
        cmocka_unit_test(open_not_permitted_names_device_sysctl_and_capability),
        cmocka_unit_test(new_misaligned_block_is_refused),
        cmocka_unit_test(register_file_mapping_is_refused),
        cmocka_unit_test(read_faults_stored_page_is_minor),
    };

    return cmocka_run_group_tests_name("uffd open", tests, NULL, NULL);
}
