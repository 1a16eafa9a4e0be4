/* SPDX-License-Identifier: MIT */
/*
 * Guest RAM of both kinds of machine: memfd, private or huge pages, aligned to 2 MiB so that huge
 * pages can map it, and spread over the NUMA nodes. Main thread. Moving it is the engine's.
 */
#include <errno.h>
#include <numa.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm/machine.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif

#define HUGE_PAGE_BYTES (2ull << 20)

static bool
fail_map(const FaultlineBlock *block, const char *what, GError **error)
{
    int reason = errno;
    if (block->page_size_bytes == HUGE_PAGE_BYTES) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "Cannot %s %" G_GUINT64_FORMAT " bytes of huge pages for %s: %s. Reserve them: "
                    "sysctl vm.nr_hugepages=%" G_GUINT64_FORMAT " (or more)",
                    what, block->length_bytes, block->name, g_strerror(reason),
                    (guint64)(block->length_bytes / HUGE_PAGE_BYTES));
    } else {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "Cannot %s %" G_GUINT64_FORMAT " bytes of guest memory for %s: %s. Give the "
                    "guest less memory or this host more",
                    what, block->length_bytes, block->name, g_strerror(reason));
    }
    return false;
}

/* Reserves room for an aligned mapping; the caller maps over the part it gets. */
static void *
reserve_aligned(uint64_t length_bytes)
{
    uint64_t room = length_bytes + HUGE_PAGE_BYTES;
    char *start = mmap(NULL, room, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED)
        return MAP_FAILED;
    char *aligned = (char *)(((uintptr_t)start + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1));
    if (aligned > start)
        munmap(start, (size_t)(aligned - start));
    munmap(aligned + length_bytes, room - length_bytes - (size_t)(aligned - start));
    return aligned;
}

static bool
open_file(MachineMemory memory, FaultlineBlock *block, GError **error)
{
    unsigned flags = MFD_CLOEXEC;
    if (memory == MACHINE_MEMORY_HUGETLB)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    block->fd = memfd_create(block->name, flags);
    if (block->fd < 0 || ftruncate(block->fd, (off_t)block->length_bytes) < 0)
        return fail_map(block, "make", error);
    return true;
}

static bool
map_block(FaultlineBlock *block, GError **error)
{
    void *room = reserve_aligned(block->length_bytes);
    if (room == MAP_FAILED)
        return fail_map(block, "find room for", error);
    int flags = MAP_FIXED | (block->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    if (block->page_size_bytes != HUGE_PAGE_BYTES)
        flags |= MAP_NORESERVE;
    void *mapped = mmap(room, block->length_bytes, PROT_READ | PROT_WRITE, flags, block->fd, 0);
    if (mapped == MAP_FAILED) {
        fail_map(block, "map", error);
        munmap(room, block->length_bytes);
        return false;
    }
    block->host_address = mapped;
    return true;
}

unsigned
ram_count_nodes(void)
{
    return numa_available() < 0 ? 0 : (unsigned)MAX(numa_num_configured_nodes(), 1);
}

/* The guest is not told of nodes, so every part of its memory gets the same mixture of them. */
static bool
bind_nodes(const FaultlineBlock *block, bool fault_in, GError **error)
{
    if (ram_count_nodes() < 2)
        return true;
    numa_interleave_memory(block->host_address, block->length_bytes, numa_all_nodes_ptr);
    if (fault_in && madvise(block->host_address, block->length_bytes, MADV_POPULATE_WRITE) < 0 &&
        errno != EINVAL) /* EINVAL: Linux before 5.14 faults it in as the guest runs */
        return fail_map(block, "fault in", error);
    return true;
}

bool
ram_map(MachineMemory memory, const char *name, uint64_t guest_address, uint64_t length_bytes,
        bool fault_in, FaultlineBlock *ret_block, GError **error)
{
    FaultlineBlock block = {
        .name = name,
        .guest_address = guest_address,
        .length_bytes = length_bytes,
        .fd = -1,
        .page_size_bytes =
            memory == MACHINE_MEMORY_HUGETLB ? HUGE_PAGE_BYTES : FAULTLINE_PAGE_BYTES,
        .shared = memory != MACHINE_MEMORY_PRIVATE,
    };
    if (length_bytes == 0 || length_bytes % block.page_size_bytes != 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot map %s: its %" G_GUINT64_FORMAT
                    " bytes are not a multiple of its pages' %" G_GUINT64_FORMAT,
                    name, length_bytes, block.page_size_bytes);
        return false;
    }
    if ((block.shared && !open_file(memory, &block, error)) || !map_block(&block, error)) {
        if (block.fd >= 0)
            close(block.fd);
        return false;
    }
    /* Best effort: without huge pages the guest is slower, not wrong. */
    if (memory != MACHINE_MEMORY_HUGETLB)
        (void)madvise(block.host_address, length_bytes, MADV_HUGEPAGE);
    (void)madvise(block.host_address, length_bytes, MADV_DONTDUMP);
    if (!bind_nodes(&block, fault_in, error)) {
        ram_unmap(&block);
        return false;
    }
    *ret_block = block;
    return true;
}

void
ram_unmap(FaultlineBlock *block)
{
    if (block->host_address)
        munmap(block->host_address, block->length_bytes);
    if (block->fd >= 0)
        close(block->fd);
    *block = (FaultlineBlock){.fd = -1};
}
