/* SPDX-License-Identifier: MIT */
/*
 * The copy way, for private anonymous memory, hugetlbfs, private mappings of a memfd, and a shared
 * memfd on kernels without MINOR faults for it. Precopy writes into the guest mapping itself, which
 * nobody watches yet; afterwards the kernel copies whole pages. A stored bit means that the page is
 * in the guest mapping. Placing functions run in any placing thread, on different pages.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "uffd/abi.h"
#include "uffd/page_bits.h"

/* Without huge pages until the end: one would appear whole at the first page stored in it, and its
 * other 511 pages would never be missing. hugetlbfs takes no such advice. */
static void
forbid_thp(UffdMemory *memory)
{
    if (memory->layout.page_bytes == TARGET_PAGE_BYTES &&
        madvise(memory->guest, memory->layout.length_bytes, MADV_NOHUGEPAGE) == 0) {
        memory->no_thp = true;
    }
}

/* Never written, so all of it is the kernel's one zero page. */
static bool
map_zeros(UffdMemory *memory, GError **error)
{
    uint64_t page_bytes = memory->layout.page_bytes;

    if (page_bytes == TARGET_PAGE_BYTES || memory->zeros != NULL) {
        return true;
    }
    void *zeros =
        mmap(NULL, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (zeros == MAP_FAILED) {
        return uffd_fail(error, UFFD_ERROR_HOST, errno,
                         "cannot map a zero page of %" PRIu64 " bytes", page_bytes);
    }
    memory->zeros = zeros;
    return true;
}

static bool
copy_empty(UffdMemory *memory, GError **error)
{
    forbid_thp(memory);
    return map_zeros(memory, error) &&
           uffd_memory_drop(memory, 0, memory->layout.length_bytes, error);
}

static void
copy_store(UffdMemory *memory, uint64_t offset, const void *bytes)
{
    uint64_t page = offset / memory->layout.page_bytes;

    if (bytes != NULL) {
        memcpy(memory->guest + offset, bytes, TARGET_PAGE_BYTES);
        page_bits_set(memory->stored, page, 1);
    } else if (page_bits_is_set(memory->stored, page)) {
        memset(memory->guest + offset, 0, TARGET_PAGE_BYTES);
    }
}

static void *
copy_receive_address(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    uint64_t page = offset / memory->layout.page_bytes;
    uint64_t last = (offset + length - 1) / memory->layout.page_bytes;

    if (memory->ranges->len > 0) {
        return NULL;
    }
    page_bits_set(memory->stored, page, last - page + 1);
    return memory->guest + offset;
}

static bool
copy_discard(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error)
{
    uint64_t page_bytes = memory->layout.page_bytes;

    if (!uffd_memory_drop(memory, offset, length, error)) {
        return false;
    }
    page_bits_clear(memory->stored, offset / page_bytes, length / page_bytes);
    return true;
}

static bool
copy_zap(UffdMemory *memory, GError **error)
{
    (void)memory, (void)error;
    return true;
}

static UffdResult
place_zeros(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    uint64_t page_bytes = memory->layout.page_bytes;
    UffdResult result = UFFD_ALREADY;

    if (memory->zeros == NULL) {
        return uffd_walk(memory, uffd_call_zeropage, NULL, offset, length, NULL);
    }
    for (uint64_t at = 0; at < length; at += page_bytes) {
        UffdResult page =
            uffd_walk(memory, uffd_call_copy, NULL, offset + at, page_bytes, memory->zeros);

        if (page == UFFD_GONE || page == UFFD_FAILED) {
            return page;
        }
        result = uffd_result_join(result, page);
    }
    return result;
}

static UffdResult
copy_place(UffdMemory *memory, uint64_t offset, uint64_t length, const void *bytes)
{
    uint64_t page_bytes = memory->layout.page_bytes;
    UffdResult result = bytes != NULL
                            ? uffd_walk(memory, uffd_call_copy, NULL, offset, length, bytes)
                            : place_zeros(memory, offset, length);

    if (result == UFFD_PLACED || result == UFFD_ALREADY) {
        page_bits_set(memory->stored, offset / page_bytes, length / page_bytes);
    }
    return result;
}

/* Pages known to be there need no call; the rest are zero pages that were left as holes. */
static UffdResult
copy_place_received(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    uint64_t page_bytes = memory->layout.page_bytes;
    uint64_t page = offset / page_bytes;
    uint64_t end = page + length / page_bytes;
    UffdResult result = UFFD_ALREADY;

    while (page < end) {
        uint64_t count = page_bits_run(memory->stored, page, end - page);

        if (page_bits_is_set(memory->stored, page)) {
            uffd_wake(memory, page * page_bytes, count * page_bytes);
        } else {
            UffdResult part = copy_place(memory, page * page_bytes, count * page_bytes, NULL);

            if (part == UFFD_GONE || part == UFFD_FAILED) {
                return part;
            }
            result = uffd_result_join(result, part);
        }
        page += count;
    }
    return result;
}

static void
copy_gather(UffdMemory *memory, uint64_t offset, const void *bytes, uint8_t *stage)
{
    (void)memory, (void)offset;
    if (bytes != NULL) {
        memcpy(stage, bytes, TARGET_PAGE_BYTES);
    }
}

/* How many pages from page on have the same bit in zeros. */
static uint64_t
zeros_run(uint64_t zeros, uint64_t page, uint64_t count_pages)
{
    return page_bits_run(&zeros, page, count_pages - page);
}

static UffdResult
copy_place_run(UffdMemory *memory, uint64_t offset, uint64_t length, const uint8_t *stage,
               uint64_t zeros)
{
    uint64_t count_pages = length / TARGET_PAGE_BYTES;
    UffdResult result = UFFD_ALREADY;

    for (uint64_t page = 0; page < count_pages;) {
        uint64_t count = zeros_run(zeros, page, count_pages);
        uint64_t at = page * TARGET_PAGE_BYTES;
        UffdResult part = copy_place(memory, offset + at, count * TARGET_PAGE_BYTES,
                                     zeros >> page & 1 ? NULL : stage + at);

        if (part == UFFD_GONE || part == UFFD_FAILED) {
            return part;
        }
        result = uffd_result_join(result, part);
        page += count;
    }
    return result;
}

static void
copy_give_thp_back(UffdMemory *memory)
{
    if (memory->no_thp) {
        madvise(memory->guest, memory->layout.length_bytes, MADV_HUGEPAGE);
        memory->no_thp = false;
    }
}

const UffdWay uffd_way_copy = {
    .register_mode = UFFDIO_REGISTER_MODE_MISSING,
    .needed_ioctls =
        UINT64_C(1) << _UFFDIO_COPY | UINT64_C(1) << _UFFDIO_ZEROPAGE | UINT64_C(1) << _UFFDIO_WAKE,
    .empty = copy_empty,
    .store = copy_store,
    .receive_address = copy_receive_address,
    .discard = copy_discard,
    .zap = copy_zap,
    .place = copy_place,
    .place_received = copy_place_received,
    .gather = copy_gather,
    .place_run = copy_place_run,
    .give_thp_back = copy_give_thp_back,
};
