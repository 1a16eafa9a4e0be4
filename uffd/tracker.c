/* SPDX-License-Identifier: MIT */
/*
 * Which pages a plain process has written: a userfaultfd of its own write-protects the range, the
 * kernel lifts the protection at the first write by itself (WP_ASYNC, no message, nobody waits),
 * and PAGEMAP_SCAN lists the pages without protection and protects each again in the same step. One
 * thread at a time. Pages that a transparent huge page maps are reported 2 MiB at a time.
 * Source: Documentation/admin-guide/mm/pagemap.rst, PAGEMAP_SCAN; Linux 6.7.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <unistd.h>

#include "uffd/abi.h"

#define REGIONS 512u
/* Anonymous memory must be protected where there is no page yet, and shmem and hugetlbfs at all. */
#define NEEDED                                                                                     \
    ((uint64_t)(UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED |                              \
                UFFD_FEATURE_WP_HUGETLBFS_SHMEM))

struct UffdTracker {
    int uffd;
    int pagemap;
    GArray *ranges; /* of struct uffdio_range */
    struct page_region regions[REGIONS];
};

UffdTracker *
uffd_tracker_new(GError **error)
{
    uint64_t features = 0;
    int uffd = uffd_descriptor_open(NEEDED, &features, error);

    if (uffd < 0) {
        return NULL;
    }
    if (features != NEEDED) {
        g_set_error(
            error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED,
            "this kernel cannot track writes of a process: userfaultfd lacks %s. Use Linux 6.7 "
            "or later",
            features & UFFD_FEATURE_WP_ASYNC ? "WP_UNPOPULATED or WP_HUGETLBFS_SHMEM" : "WP_ASYNC");
        close(uffd);
        return NULL;
    }
    int pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

    if (pagemap < 0) {
        uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot open /proc/self/pagemap");
        close(uffd);
        return NULL;
    }
    UffdTracker *tracker = g_new0(UffdTracker, 1);

    tracker->uffd = uffd;
    tracker->pagemap = pagemap;
    tracker->ranges = g_array_new(FALSE, FALSE, sizeof(struct uffdio_range));
    return tracker;
}

/* Unregistering first lifts the protection from every page; closing alone may leave it for each
 * page's next write to find. */
void
uffd_tracker_free(UffdTracker *tracker)
{
    if (tracker == NULL) {
        return;
    }
    for (guint i = 0; i < tracker->ranges->len; i++) {
        ioctl(tracker->uffd, UFFDIO_UNREGISTER,
              &g_array_index(tracker->ranges, struct uffdio_range, i));
    }
    g_array_unref(tracker->ranges);
    close(tracker->pagemap);
    close(tracker->uffd);
    g_free(tracker);
}

bool
uffd_tracker_add(UffdTracker *tracker, void *address, uint64_t length, GError **error)
{
    struct uffdio_register watch = {
        .range = {.start = (uintptr_t)address, .len = length},
        .mode = UFFDIO_REGISTER_MODE_WP,
    };
    struct uffdio_writeprotect protect = {
        .range = watch.range,
        .mode = UFFDIO_WRITEPROTECT_MODE_WP,
    };

    if (ioctl(tracker->uffd, UFFDIO_REGISTER, &watch) != 0) {
        UffdErrorCode code = errno == EINVAL ? UFFD_ERROR_UNSUPPORTED : UFFD_ERROR_HOST;

        return uffd_fail(error, code, errno,
                         "cannot track writes to 0x%" PRIx64 " bytes at %p (anonymous memory, "
                         "memfd and hugetlbfs only, whole pages, one userfaultfd a range)",
                         length, address);
    }
    g_array_append_val(tracker->ranges, watch.range);
    while (ioctl(tracker->uffd, UFFDIO_WRITEPROTECT, &protect) != 0) {
        if (errno != EAGAIN && errno != EINTR) {
            return uffd_fail(error, UFFD_ERROR_HOST, errno,
                             "cannot write-protect 0x%" PRIx64 " bytes at %p to track writes",
                             length, address);
        }
    }
    return true;
}

static void
mark(uint64_t *words, uint64_t page, uint64_t end)
{
    for (; page < end; page++) {
        words[page / 64] |= UINT64_C(1) << (page % 64);
    }
}

bool
uffd_tracker_sync(UffdTracker *tracker, void *address, uint64_t length, uint64_t *words,
                  bool is_last, GError **error)
{
    uint64_t start = (uintptr_t)address;
    struct pm_scan_arg scan = {
        .size = sizeof(scan),
        .flags = PM_SCAN_CHECK_WPASYNC | (is_last ? 0 : PM_SCAN_WP_MATCHING),
        .start = start,
        .end = start + length,
        .vec = (uintptr_t)tracker->regions,
        .vec_len = REGIONS,
        .category_mask = PAGE_IS_WRITTEN,
        .return_mask = PAGE_IS_WRITTEN,
    };

    while (scan.start < scan.end) {
        int count = ioctl(tracker->pagemap, PAGEMAP_SCAN, &scan);

        if (count < 0) {
            return uffd_fail(error, errno == ENOTTY ? UFFD_ERROR_UNSUPPORTED : UFFD_ERROR_HOST,
                             errno,
                             "cannot read which of 0x%" PRIx64 " bytes at %p were written (was the "
                             "range added? Linux 6.7 or later is needed)",
                             length, address);
        }
        for (int i = 0; i < count; i++) {
            mark(words, (tracker->regions[i].start - start) / TARGET_PAGE_BYTES,
                 (tracker->regions[i].end - start) / TARGET_PAGE_BYTES);
        }
        scan.start = scan.walk_end;
    }
    return true;
}
