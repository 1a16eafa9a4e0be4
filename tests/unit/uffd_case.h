/* SPDX-License-Identifier: MIT */
/*
 * Guest memory of every kind for the tests of uffd/: mapped, filled with a pattern, watched,
 * touched by threads of its own. The test's main thread is the fault thread.
 */
#ifndef TESTS_UNIT_UFFD_CASE_H
#define TESTS_UNIT_UFFD_CASE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cmocka.h>

#include "uffd/memory.h"

#define HUGE_BYTES  (2u << 20)
#define HUGE_SYSFS  "/sys/kernel/mm/hugepages/hugepages-2048kB/"
#define HUGE_NEEDED 24
#define SMALL_PAGES 1536u
#define HUGE_PAGES  8u

typedef struct Kind {
    const char *name;
    bool memfd, shared, huge, copy_forced, thp;
} Kind;

static const Kind kinds[] = {
    {.name = "memfd_alias", .memfd = true, .shared = true},
    {.name = "memfd_alias_thp", .memfd = true, .shared = true, .thp = true},
    {.name = "memfd_without_minor", .memfd = true, .shared = true, .copy_forced = true},
    {.name = "memfd_private", .memfd = true},
    {.name = "anonymous"},
    {.name = "hugetlb_shared", .memfd = true, .shared = true, .huge = true},
    {.name = "hugetlb_private", .memfd = true, .huge = true},
    {.name = "hugetlb_anonymous", .huge = true},
};

typedef struct Fixture {
    const Kind *kind;
    UffdLayout layout;
    UffdMemory *memory;
    Uffd *uffd;
    uint64_t page_bytes;
    uint64_t count_pages;
    uint8_t *guest;
    uint8_t *scratch; /* one page */
} Fixture;

static int huge_before = -1;
static bool huge_usable;

static inline int
sysfs_number(const char *path)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(path, &text, NULL, NULL) ? atoi(text) : -1;
}

static inline bool
sysfs_write(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    bool done = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

    if (fd >= 0) {
        close(fd);
    }
    return done;
}

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static char *shmem_before;

/* Shared huge pages for those who ask; false: not writable here. */
static inline bool
shmem_thp_allow(void)
{
    g_autofree char *text = NULL;

    if (shmem_before == NULL && g_file_get_contents(SHMEM_ENABLED, &text, NULL, NULL) &&
        strchr(text, '[') != NULL) {
        const char *word = strchr(text, '[') + 1;

        shmem_before = g_strndup(word, strcspn(word, "]"));
    }
    return shmem_before != NULL && sysfs_write(SHMEM_ENABLED, "advise");
}

static inline bool
shmem_thp_restore(void)
{
    bool done = shmem_before == NULL || sysfs_write(SHMEM_ENABLED, shmem_before);

    g_clear_pointer(&shmem_before, g_free);
    return done;
}

static inline int
huge_pages_raise(void **state)
{
    char text[16];

    (void)state;
    huge_before = sysfs_number(HUGE_SYSFS "nr_hugepages");
    snprintf(text, sizeof(text), "%d", huge_before + HUGE_NEEDED);
    sysfs_write(HUGE_SYSFS "nr_hugepages", text);
    huge_usable = sysfs_number(HUGE_SYSFS "free_hugepages") >= HUGE_NEEDED;
    return 0;
}

static inline int
huge_pages_restore(void **state)
{
    char text[16];

    (void)state;
    snprintf(text, sizeof(text), "%d", huge_before);
    bool shmem_done = shmem_thp_restore();

    return shmem_done && (huge_before < 0 || sysfs_write(HUGE_SYSFS "nr_hugepages", text)) ? 0 : -1;
}

static inline void
fill(uint8_t *bytes, uint64_t length, uint64_t seed)
{
    for (uint64_t at = 0; at < length; at += 8) {
        uint64_t word = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) + at;

        memcpy(bytes + at, &word, 8);
    }
}

static inline bool
map_kind(Fixture *fixture)
{
    const Kind *kind = fixture->kind;
    uint64_t length = fixture->page_bytes * fixture->count_pages;
    unsigned huge_flag = kind->huge ? MFD_HUGETLB : 0;
    int flags = (kind->shared ? MAP_SHARED : MAP_PRIVATE) |
                (kind->memfd ? 0 : MAP_ANONYMOUS | (kind->huge ? MAP_HUGETLB : 0));
    uint64_t skip = kind->memfd ? fixture->page_bytes : 0;
    int fd = -1;

    if (kind->memfd) {
        fd = memfd_create("guest", MFD_CLOEXEC | huge_flag);
        if (fd < 0 || ftruncate(fd, (off_t)(length + skip)) != 0) {
            return false;
        }
    }
    fixture->guest = mmap(NULL, length, PROT_READ | PROT_WRITE, flags, fd, (off_t)skip);
    if (fixture->guest == MAP_FAILED) {
        return false;
    }
    fixture->layout = (UffdLayout){
        .host_address = fixture->guest,
        .length_bytes = length,
        .fd = fd,
        .fd_offset_bytes = skip,
        .page_bytes = fixture->page_bytes,
        .shared = kind->shared,
    };
    return true;
}

static inline Fixture *
fixture_new(const Kind *kind)
{
    Fixture *fixture = g_new0(Fixture, 1);
    g_autoptr(GError) error = NULL;

    if (kind->huge && !huge_usable) {
        print_message("skipped: no %d free 2 MiB pages, and nr_hugepages cannot be raised\n",
                      HUGE_NEEDED);
        skip();
    }
    if (kind->thp && !shmem_thp_allow()) {
        print_message("skipped: " SHMEM_ENABLED " is not writable\n");
        skip();
    }
    fixture->kind = kind;
    fixture->page_bytes = kind->huge ? HUGE_BYTES : TARGET_PAGE_BYTES;
    fixture->count_pages = kind->huge ? HUGE_PAGES : SMALL_PAGES;
    assert_true(map_kind(fixture));
    fixture->scratch = g_malloc0(fixture->page_bytes);
    fixture->uffd = uffd_open(&error);
    assert_null(error);
    fixture->memory = uffd_memory_new(&fixture->layout, &error);
    assert_non_null(fixture->memory);
    if (kind->copy_forced) {
        uffd_memory_use_copy_way(fixture->memory);
    }
    /* What was there before must not survive. */
    memset(fixture->guest, 0xee, fixture->page_bytes * 2);
    assert_true(uffd_memory_empty(fixture->memory, &error));
    return fixture;
}

static inline void
fixture_free(Fixture *fixture)
{
    uffd_memory_free(fixture->memory);
    uffd_free(fixture->uffd);
    munmap(fixture->guest, fixture->layout.length_bytes);
    if (fixture->layout.fd >= 0) {
        close(fixture->layout.fd);
    }
    if (fixture->kind->thp) {
        shmem_thp_restore();
    }
    g_free(fixture->scratch);
    g_free(fixture);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Fixture, fixture_free)

static inline const uint8_t *
pattern(Fixture *fixture, uint64_t seed)
{
    fill(fixture->scratch, fixture->page_bytes, seed);
    return fixture->scratch;
}

static inline void
store(Fixture *fixture, uint64_t page, uint64_t seed)
{
    const uint8_t *bytes = pattern(fixture, seed);

    for (uint64_t at = 0; at < fixture->page_bytes; at += TARGET_PAGE_BYTES) {
        uffd_store(fixture->memory, page * fixture->page_bytes + at, bytes + at);
    }
}

static inline void
store_zeros(Fixture *fixture, uint64_t page)
{
    for (uint64_t at = 0; at < fixture->page_bytes; at += TARGET_PAGE_BYTES) {
        uffd_store(fixture->memory, page * fixture->page_bytes + at, NULL);
    }
}

static inline void
discard(Fixture *fixture, uint64_t page, uint64_t count)
{
    assert_true(uffd_memory_discard(fixture->memory, page * fixture->page_bytes,
                                    count * fixture->page_bytes, NULL));
}

static inline void
watch(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;

    assert_true(uffd_memory_zap(fixture->memory, &error));
    assert_true(uffd_memory_register(fixture->memory, fixture->uffd, 0,
                                     fixture->layout.length_bytes, &error));
}

static inline UffdResult
place(Fixture *fixture, uint64_t page, uint64_t seed)
{
    return uffd_place(fixture->memory, page * fixture->page_bytes, fixture->page_bytes,
                      pattern(fixture, seed));
}

static inline UffdResult
place_zeros_at(Fixture *fixture, uint64_t page, uint64_t count)
{
    return uffd_place(fixture->memory, page * fixture->page_bytes, count * fixture->page_bytes,
                      NULL);
}

static inline UffdResult
place_received(Fixture *fixture, uint64_t page, uint64_t count)
{
    return uffd_place_received(fixture->memory, page * fixture->page_bytes,
                               count * fixture->page_bytes);
}

static inline bool
guest_has(Fixture *fixture, uint64_t page, uint64_t seed)
{
    return memcmp(fixture->guest + page * fixture->page_bytes, pattern(fixture, seed),
                  fixture->page_bytes) == 0;
}

static inline bool
guest_has_zeros(Fixture *fixture, uint64_t page)
{
    memset(fixture->scratch, 0, fixture->page_bytes);
    return memcmp(fixture->guest + page * fixture->page_bytes, fixture->scratch,
                  fixture->page_bytes) == 0;
}

/* ---- A vCPU ------------------------------------------------------------------------------------
 */

typedef struct Toucher {
    pthread_t thread;
    volatile uint64_t *address;
    uint64_t seen;
    pid_t id;
    bool write;
} Toucher;

static inline void *
touch(void *opaque)
{
    Toucher *toucher = opaque;

    __atomic_store_n(&toucher->id, (pid_t)syscall(SYS_gettid), __ATOMIC_RELEASE);
    if (toucher->write) {
        *toucher->address = 7;
    }
    toucher->seen = *toucher->address;
    return NULL;
}

static inline void
toucher_start(Toucher *toucher, Fixture *fixture, uint64_t page, bool write)
{
    toucher->address = (volatile uint64_t *)(fixture->guest + page * fixture->page_bytes + 8);
    toucher->write = write;
    assert_int_equal(pthread_create(&toucher->thread, NULL, touch, toucher), 0);
}

/* Waits until a fault is there. */
static inline UffdFault
next_fault(Fixture *fixture)
{
    UffdFault faults[16];
    struct pollfd wait = {.fd = uffd_fd(fixture->uffd), .events = POLLIN};
    unsigned count = 0;

    while (count == 0) {
        assert_int_equal(poll(&wait, 1, -1), 1);
        count = uffd_read_faults(fixture->uffd, faults, 1);
    }
    return faults[0];
}

static inline uint64_t
fault_page(const Fixture *fixture, const UffdFault *fault)
{
    return (fault->address - (uintptr_t)fixture->guest) / fixture->page_bytes;
}

#endif
