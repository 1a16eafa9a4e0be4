/* SPDX-License-Identifier: MIT */
/*
 * The alias way: bytes are written through a second mapping of the memfd, UFFDIO_CONTINUE shows
 * them in the guest mapping. Placing functions run in any placing thread, on different pages.
 *
 * No stale byte can show: bytes other than zero come into the memfd by the alias alone, which sets
 * the page's stored bit first; only pages without it are placed as the zeros the kernel made. No
 * write of the guest can be lost: a page that was made visible has its visible bit, and is never
 * written through the alias again.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "uffd/abi.h"
#include "uffd/page_bits.h"

#define SHMEM_ENABLED "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static bool
kernel_gives_shmem_thp(void)
{
    g_autofree char *text = NULL;

    return g_file_get_contents(SHMEM_ENABLED, &text, NULL, NULL) &&
           strstr(text, "[never]") == NULL && strstr(text, "[deny]") == NULL;
}

/* 2 MiB pages map only where address and file offset are equal modulo 2 MiB: a larger hole in the
 * address space first, then the alias at the right place in it. */
static bool
map_alias(UffdMemory *memory, GError **error)
{
    const UffdLayout *layout = &memory->layout;
    uint64_t room_bytes = layout->length_bytes + THP_BYTES;
    uint8_t *room =
        mmap(NULL, room_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (room == MAP_FAILED) {
        return uffd_fail(error, UFFD_ERROR_HOST, errno,
                         "cannot reserve 0x%" PRIx64 " bytes for a second mapping of guest memory",
                         room_bytes);
    }
    uint64_t before = (layout->fd_offset_bytes - (uintptr_t)room) % THP_BYTES;
    uint8_t *alias = mmap(room + before, layout->length_bytes, PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_FIXED, layout->fd, (off_t)layout->fd_offset_bytes);

    if (alias == MAP_FAILED) {
        uffd_fail(error, UFFD_ERROR_HOST, errno,
                  "cannot map 0x%" PRIx64 " bytes of guest memory a second time (its memfd must be "
                  "open for reading and writing)",
                  layout->length_bytes);
        munmap(room, room_bytes);
        return false;
    }
    if (before > 0) {
        munmap(room, before);
    }
    munmap(alias + layout->length_bytes, THP_BYTES - before);
    memory->alias = alias;
    return true;
}

static bool
alias_empty(UffdMemory *memory, GError **error)
{
    uint64_t length = memory->layout.length_bytes;

    if (!uffd_memory_drop(memory, 0, length, error)) {
        return false;
    }
    if (memory->alias == NULL && !map_alias(memory, error)) {
        return false;
    }
    memory->thp = kernel_gives_shmem_thp();
    /* Only advice: a kernel without huge pages works too. */
    madvise(memory->alias, length, MADV_HUGEPAGE);
    madvise(memory->guest, length, MADV_HUGEPAGE);
    madvise(memory->alias, length, MADV_DONTDUMP);
    return true;
}

/* A warm page counts as stored, because there it is CONTINUE that shows it, and not ZEROPAGE. */
static bool
alias_warm(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    if (!memory->thp || madvise(memory->alias + offset, length, MADV_POPULATE_WRITE) != 0) {
        return false;
    }
    page_bits_set(memory->stored, offset / TARGET_PAGE_BYTES, length / TARGET_PAGE_BYTES);
    return true;
}

static void
alias_store(UffdMemory *memory, uint64_t offset, const void *bytes)
{
    uint64_t page = offset / TARGET_PAGE_BYTES;

    if (bytes != NULL) {
        page_bits_set(memory->stored, page, 1);
        memcpy(memory->alias + offset, bytes, TARGET_PAGE_BYTES);
    } else if (page_bits_is_set(memory->stored, page)) {
        memset(memory->alias + offset, 0, TARGET_PAGE_BYTES);
    }
}

/* Marked as stored before the first byte is there, so that none can show as a zero page of the
 * kernel's. */
static void *
alias_receive_address(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    uint64_t page = offset / TARGET_PAGE_BYTES;
    uint64_t count = length / TARGET_PAGE_BYTES;

    if (page_bits_is_set(memory->visible, page) ||
        page_bits_run(memory->visible, page, count) < count) {
        return NULL;
    }
    page_bits_set(memory->stored, page, count);
    return memory->alias + offset;
}

/* Old bytes stay in the memfd until they are overwritten: by place, whose zeros are then written.
 */
static bool
alias_discard(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error)
{
    (void)memory, (void)offset, (void)length, (void)error;
    return true;
}

static bool
alias_zap(UffdMemory *memory, GError **error)
{
    if (!uffd_memory_unmap(memory, 0, memory->layout.length_bytes)) {
        return uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot unmap the guest memory at %p",
                         memory->layout.host_address);
    }
    /* Nobody places yet, so that it need not be atomic. */
    memset(memory->visible, 0, (memory->count_pages + 63) / 64 * sizeof memory->visible[0]);
    return true;
}

/* Shows a range as it is stored: pages by CONTINUE, never stored ones as zero pages. Either may
 * find what the other expects: a stored page whose memory was freed since (balloon), and a page
 * that was never stored inside a neighbour's 2 MiB. */
static UffdResult
alias_place_received(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    UffdResult result = UFFD_ALREADY;
    uint64_t page = offset / TARGET_PAGE_BYTES;
    uint64_t end = page + length / TARGET_PAGE_BYTES;

    page_bits_set(memory->visible, page, end - page);
    while (page < end) {
        uint64_t count = page_bits_run(memory->stored, page, end - page);
        bool stored = page_bits_is_set(memory->stored, page);
        UffdResult part = uffd_walk(memory, stored ? uffd_call_continue : uffd_call_zeropage,
                                    stored ? uffd_call_zeropage : uffd_call_continue,
                                    page * TARGET_PAGE_BYTES, count * TARGET_PAGE_BYTES, NULL);

        if (part == UFFD_GONE || part == UFFD_FAILED) {
            return part;
        }
        result = uffd_result_join(result, part);
        page += count;
    }
    return result;
}

/* A page that the guest has seen is the guest's: what comes again for it is dropped. */
static void
store_unseen(UffdMemory *memory, uint64_t offset, const void *bytes)
{
    if (!page_bits_is_set(memory->visible, offset / TARGET_PAGE_BYTES)) {
        alias_store(memory, offset, bytes);
    }
}

static UffdResult
alias_place(UffdMemory *memory, uint64_t offset, uint64_t length, const void *bytes)
{
    for (uint64_t at = 0; at < length; at += TARGET_PAGE_BYTES) {
        store_unseen(memory, offset + at, bytes != NULL ? (const uint8_t *)bytes + at : NULL);
    }
    return alias_place_received(memory, offset, length);
}

static void
alias_gather(UffdMemory *memory, uint64_t offset, const void *bytes, uint8_t *stage)
{
    (void)stage;
    store_unseen(memory, offset, bytes);
}

/* Zero pages are shown as well: were they left as holes, a thread that waits on one could be woken,
 * fault and be asked for again before the engine has marked the page received, and wait for ever.
 */
static UffdResult
alias_place_run(UffdMemory *memory, uint64_t offset, uint64_t length, const uint8_t *stage,
                uint64_t zeros)
{
    (void)stage, (void)zeros;
    return alias_place_received(memory, offset, length);
}

/* Pieces that cannot be mapped by one entry stay as they are: nothing is lost but speed. */
static void
alias_give_thp_back(UffdMemory *memory)
{
    uintptr_t start = ((uintptr_t)memory->guest + THP_BYTES - 1) & ~(uintptr_t)(THP_BYTES - 1);
    uintptr_t end = (uintptr_t)memory->guest + memory->layout.length_bytes;
    uint64_t skew = (memory->layout.fd_offset_bytes - (uintptr_t)memory->guest) % THP_BYTES;

    if (!memory->thp || skew != 0) {
        return;
    }
    for (uintptr_t piece = start; piece + THP_BYTES <= end; piece += THP_BYTES) {
        madvise((void *)piece, THP_BYTES, MADV_COLLAPSE);
    }
}

const UffdWay uffd_way_alias = {
    .register_mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR,
    .extent_bytes = THP_BYTES,
    .needed_ioctls = UINT64_C(1) << _UFFDIO_CONTINUE | UINT64_C(1) << _UFFDIO_ZEROPAGE |
                     UINT64_C(1) << _UFFDIO_WAKE,
    .empty = alias_empty,
    .warm = alias_warm,
    .store = alias_store,
    .receive_address = alias_receive_address,
    .discard = alias_discard,
    .zap = alias_zap,
    .place = alias_place,
    .place_received = alias_place_received,
    .gather = alias_gather,
    .place_run = alias_place_run,
    .give_thp_back = alias_give_thp_back,
};
