/* SPDX-License-Identifier: MIT */
/*
 * The memory of a block: made, its way of placing chosen, watched, unwatched, given back. Set-up
 * calls, before and after the placing threads, except the one-line calls into the way's functions
 * at the end, which placing threads use. What differs between the ways is place_alias.c's and
 * place_copy.c's.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "uffd/abi.h"
#include "uffd/page_bits.h"

#define CACHE_LINE_BYTES 64u

static bool
is_shmem(int fd)
{
    struct statfs file_system;

    return fd >= 0 && fstatfs(fd, &file_system) == 0 && file_system.f_type == TMPFS_MAGIC;
}

/* A source without the right to userfaultfd has memory too: it never registers, any way will do. */
static bool
kernel_has_minor_shmem(void)
{
    uint64_t features = 0;
    int fd = uffd_descriptor_open(UFFD_FEATURE_MINOR_SHMEM, &features, NULL);

    if (fd >= 0) {
        close(fd);
    }
    return features & UFFD_FEATURE_MINOR_SHMEM;
}

UffdMemory *
uffd_memory_new(const UffdLayout *layout, GError **error)
{
    g_assert(layout->page_bytes >= TARGET_PAGE_BYTES);
    if (layout->length_bytes == 0 || layout->length_bytes % layout->page_bytes != 0 ||
        (uintptr_t)layout->host_address % layout->page_bytes != 0 ||
        layout->fd_offset_bytes % layout->page_bytes != 0) {
        g_set_error(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED,
                    "guest memory at %p: its address, length (0x%" PRIx64
                    ") or offset in the file is no multiple of its page size of %" PRIu64
                    " bytes; align the block",
                    layout->host_address, layout->length_bytes, layout->page_bytes);
        return NULL;
    }
    UffdMemory *memory = g_new0(UffdMemory, 1);
    bool alias = layout->page_bytes == TARGET_PAGE_BYTES && layout->shared &&
                 is_shmem(layout->fd) && kernel_has_minor_shmem();

    memory->layout = *layout;
    memory->way = alias ? &uffd_way_alias : &uffd_way_copy;
    memory->guest = layout->host_address;
    memory->uffd = -1;
    memory->count_pages = layout->length_bytes / layout->page_bytes;
    memory->ranges = g_array_new(FALSE, FALSE, sizeof(UffdRange));
    memory->stored = page_bits_new(memory->count_pages);
    memory->visible = page_bits_new(memory->count_pages);
    return memory;
}

void
uffd_memory_use_copy_way(UffdMemory *memory)
{
    g_assert(memory->alias == NULL);
    memory->way = &uffd_way_copy;
}

void
uffd_memory_free(UffdMemory *memory)
{
    if (memory == NULL) {
        return;
    }
    if (memory->alias != NULL) {
        munmap(memory->alias, memory->layout.length_bytes);
    }
    if (memory->zeros != NULL) {
        munmap(memory->zeros, memory->layout.page_bytes);
    }
    uffd_forget_error(memory);
    g_array_unref(memory->ranges);
    g_free(memory->stored);
    g_free(memory->visible);
    g_free(memory);
}

bool
uffd_memory_unmap(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    return madvise(memory->guest + offset, length, MADV_DONTNEED) == 0 ||
           madvise(memory->guest + offset, length, MADV_DONTNEED_LOCKED) == 0;
}

/* Of a private mapping of a file both: its own pages, and those that its writes brought into the
 * file, which the kernel would map without a word to the userfaultfd. */
bool
uffd_memory_drop(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error)
{
    const UffdLayout *layout = &memory->layout;
    bool done = true;

    if (!layout->shared) {
        done = uffd_memory_unmap(memory, offset, length);
    } else if (layout->fd < 0) {
        done = madvise(memory->guest + offset, length, MADV_REMOVE) == 0;
    }
    if (done && layout->fd >= 0) {
        done = fallocate(layout->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                         (off_t)(layout->fd_offset_bytes + offset), (off_t)length) == 0;
    }
    if (!done) {
        return uffd_fail(error, UFFD_ERROR_HOST, errno,
                         "cannot drop 0x%" PRIx64 " bytes at offset 0x%" PRIx64
                         " of the guest memory at %p (a memfd must be open for writing and not "
                         "sealed)",
                         length, offset, layout->host_address);
    }
    return true;
}

static bool
fail_register(const UffdMemory *memory, uint64_t offset, uint64_t length, int error_number,
              GError **error)
{
    const char *reason = "";
    UffdErrorCode code = UFFD_ERROR_HOST;

    if (error_number == EINVAL) {
        code = UFFD_ERROR_UNSUPPORTED;
        reason = " (it watches private anonymous memory, memfd and hugetlbfs only)";
    } else if (error_number == EBUSY) {
        reason = " (another userfaultfd watches it)";
    } else if (error_number == EPERM) {
        code = UFFD_ERROR_UNSUPPORTED;
        reason = " (its file must be open for writing and not sealed)";
    }
    return uffd_fail(error, code, error_number,
                     "userfaultfd cannot watch 0x%" PRIx64 " bytes at offset 0x%" PRIx64
                     " of the guest memory at %p%s",
                     length, offset, memory->layout.host_address, reason);
}

static void
remember_range(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    GArray *ranges = memory->ranges;
    UffdRange range = {.offset = offset, .length = length};

    if (ranges->len > 0) {
        UffdRange *last = &g_array_index(ranges, UffdRange, ranges->len - 1);

        if (last->offset + last->length == offset) {
            last->length += length;
            return;
        }
    }
    g_array_append_val(ranges, range);
}

bool
uffd_memory_register(UffdMemory *memory, Uffd *uffd, uint64_t offset, uint64_t length,
                     GError **error)
{
    struct uffdio_register watch = {
        .range = {.start = (uintptr_t)memory->guest + offset, .len = length},
        .mode = memory->way->register_mode,
    };
    uint64_t needed = memory->way->needed_ioctls;

    if (ioctl(uffd->fd, UFFDIO_REGISTER, &watch) != 0) {
        return fail_register(memory, offset, length, errno, error);
    }
    memory->uffd = uffd->fd;
    remember_range(memory, offset, length);
    if (memory->layout.page_bytes != TARGET_PAGE_BYTES) {
        needed &= ~(UINT64_C(1) << _UFFDIO_ZEROPAGE); /* hugetlbfs has none: we copy zeros */
    }
    if ((watch.ioctls & needed) != needed) {
        g_set_error(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED,
                    "userfaultfd cannot place pages in the guest memory at %p: it needs the calls "
                    "0x%" PRIx64 ", the kernel has 0x%" PRIx64 "; use another kind of memory",
                    memory->layout.host_address, needed, (uint64_t)watch.ioctls);
        return false;
    }
    return true;
}

static bool
unregister_all(UffdMemory *memory, GError **error)
{
    while (memory->ranges->len > 0) {
        guint last = memory->ranges->len - 1;
        const UffdRange *range = &g_array_index(memory->ranges, UffdRange, last);
        struct uffdio_range watched = {
            .start = (uintptr_t)memory->guest + range->offset,
            .len = range->length,
        };

        if (ioctl(memory->uffd, UFFDIO_UNREGISTER, &watched) != 0) {
            return uffd_fail(error, UFFD_ERROR_HOST, errno,
                             "cannot end watching 0x%" PRIx64 " bytes at offset 0x%" PRIx64
                             " of the guest memory at %p",
                             range->length, range->offset, memory->layout.host_address);
        }
        g_array_set_size(memory->ranges, last);
    }
    return true;
}

bool
uffd_memory_finish(UffdMemory *memory, bool collapse, GError **error)
{
    if (!unregister_all(memory, error)) {
        return false;
    }
    if (!collapse) {
        return true;
    }
    memory->way->give_thp_back(memory);
    if (memory->alias != NULL) {
        munmap(memory->alias, memory->layout.length_bytes);
        memory->alias = NULL;
    }
    return true;
}

/* A failure leaves memory allocated, which is what was before. */
void
uffd_memory_release(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    if (memory->layout.shared) {
        uffd_memory_drop(memory, offset, length, NULL);
    } else {
        /* Its file, if any, may be a template of other guests: at the source it stays whole. */
        uffd_memory_unmap(memory, offset, length);
    }
}

uint64_t
uffd_memory_page_bytes(const UffdMemory *memory)
{
    return memory->layout.page_bytes;
}

uint64_t
uffd_memory_extent_bytes(const UffdMemory *memory)
{
    return MAX(memory->way->extent_bytes, memory->layout.page_bytes);
}

bool
uffd_memory_empty(UffdMemory *memory, GError **error)
{
    if (!memory->way->empty(memory, error)) {
        return false;
    }
    page_bits_clear(memory->stored, 0, memory->count_pages);
    page_bits_clear(memory->visible, 0, memory->count_pages);
    return true;
}

bool
uffd_memory_discard(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error)
{
    return memory->way->discard(memory, offset, length, error);
}

bool
uffd_memory_zap(UffdMemory *memory, GError **error)
{
    return memory->way->zap(memory, error);
}

bool
uffd_memory_warm(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    return memory->way->warm != NULL && memory->way->warm(memory, offset, length);
}

void
uffd_store(UffdMemory *memory, uint64_t offset, const void *bytes)
{
    memory->way->store(memory, offset, bytes);
}

void
uffd_expect(const UffdMemory *memory, uint64_t offset)
{
    for (unsigned at = 0; memory->alias != NULL && at < TARGET_PAGE_BYTES; at += CACHE_LINE_BYTES) {
        __builtin_prefetch(memory->alias + offset + at, 1);
    }
}

UffdResult
uffd_place(UffdMemory *memory, uint64_t offset, uint64_t length, const void *bytes)
{
    return memory->way->place(memory, offset, length, bytes);
}

void *
uffd_receive_address(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    return memory->way->receive_address(memory, offset, length);
}

UffdResult
uffd_place_received(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    return memory->way->place_received(memory, offset, length);
}
