/* SPDX-License-Identifier: MIT */
/*
 * Round trips and local faults. Both run in forked processes on the places of the migration's two
 * sides and write what they measured into shared memory.
 */
#include "bench/floor.h"
#include "bench/clock.h"
#include "uffd/uffd.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct Floor {
    const FloorPlan *plan;
    /* shared memory */
    char *error;
    uint64_t *count;
    double *us;
    size_t bytes;
} Floor;

int
floor_hold_latency(void)
{
    const int32_t none = 0;
    int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, &none, sizeof none) != sizeof none) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static bool
floor_init(Floor *floor, const FloorPlan *plan, GError **error)
{
    floor->plan = plan;
    floor->bytes = 4096 + plan->count * sizeof(double);
    char *memory = bench_shared_memory(floor->bytes, error);
    if (!memory)
        return false;
    floor->error = memory;
    floor->count = (uint64_t *)(void *)(memory + 2048);
    floor->us = (double *)(void *)(memory + 4096);
    return true;
}

static GArray *
floor_run(Floor *floor, ForkedBody source, ForkedBody destination, GError **error)
{
    const FloorPlan *plan = floor->plan;
    const Placement *placement = plan->placement;
    ForkedChild children[2] = {
        {"floor, source", source, floor, &placement->source, plan->netns, 0, floor->error},
        {"floor, destination", destination, floor, &placement->destination, plan->netns, 1,
         floor->error + 1024},
    };
    int latency_fd = plan->holds_latency ? floor_hold_latency() : -1;
    GArray *result = NULL;

    if (forked_pair_run(children, plan->limit_s, error)) {
        result = g_array_new(FALSE, FALSE, sizeof(double));
        g_array_append_vals(result, floor->us, (guint)*floor->count);
    }
    if (latency_fd >= 0)
        close(latency_fd);
    munmap(floor->error, floor->bytes);
    return result;
}

/* ---- Round trips
 * --------------------------------------------------------------------------------------------- */

/* All `length` bytes; it asks without waiting for spin_ns first. */
static bool
receive(int fd, char *bytes, size_t length, uint64_t spin_ns)
{
    uint64_t end_ns = spin_ns ? bench_now_ns() + spin_ns : 0;

    while (length) {
        bool waits = !spin_ns || bench_now_ns() >= end_ns;
        ssize_t got = recv(fd, bytes, length, waits ? 0 : MSG_DONTWAIT);
        if (got == 0 || (got < 0 && errno != EAGAIN && errno != EINTR))
            return false;
        if (got < 0)
            continue;
        bytes += got;
        length -= (size_t)got;
    }
    return true;
}

static bool
answer_round_trips(void *context, int link_fd, GError **error)
{
    const Floor *floor = context;
    char request[FLOOR_REQUEST_BYTES], page[FAULTLINE_PAGE_BYTES];
    int fd = bench_socket_connect(floor->plan->is_unix, floor->plan->netns, link_fd, error);

    if (fd < 0)
        return false;
    memset(page, 1, sizeof page);
    while (receive(fd, request, sizeof request, floor->plan->spin_ns))
        if (send(fd, page, sizeof page, MSG_NOSIGNAL) != sizeof page)
            break;
    close(fd);
    return true;
}

static bool
ask_round_trips(void *context, int link_fd, GError **error)
{
    Floor *floor = context;
    char request[FLOOR_REQUEST_BYTES] = {0}, page[FAULTLINE_PAGE_BYTES];
    int fd = bench_socket_accept(floor->plan->is_unix, floor->plan->netns, link_fd, error);

    if (fd < 0)
        return false;
    for (uint64_t i = 0; i < floor->plan->count; i++) {
        uint64_t begin = bench_ticks();
        if (send(fd, request, sizeof request, MSG_NOSIGNAL) != sizeof request ||
            !receive(fd, page, sizeof page, floor->plan->spin_ns)) {
            g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                                "measure round trips: the connection broke");
            close(fd);
            return false;
        }
        floor->us[i] = (double)(bench_ticks() - begin) * bench_ns_per_tick() * 1e-3;
    }
    *floor->count = floor->plan->count;
    close(fd);
    return true;
}

GArray *
floor_round_trips(const FloorPlan *plan, GError **error)
{
    Floor floor;
    if (!floor_init(&floor, plan, error))
        return NULL;
    return floor_run(&floor, answer_round_trips, ask_round_trips, error);
}

static bool
answer_ring(void *context, int link_fd, GError **error)
{
    const Floor *floor = context;
    return floor_answer_ring(floor->plan, link_fd, error);
}

static bool
ask_ring(void *context, int link_fd, GError **error)
{
    Floor *floor = context;
    *floor->count = floor->plan->count;
    return floor_ask_ring(floor->plan, link_fd, floor->us, error);
}

GArray *
floor_ring_trips(const FloorPlan *plan, GError **error)
{
    Floor floor;
    if (!floor_init(&floor, plan, error))
        return NULL;
    return floor_run(&floor, answer_ring, ask_ring, error);
}

/* ---- Local faults
 * -------------------------------------------------------------------------------------------- */

typedef struct LocalFaults {
    Floor *floor;
    FaultlineBlock block;
    Uffd *uffd;
    UffdMemory *memory;
    char *page; /* what is placed */
    uint64_t page_bytes, count_pages;
} LocalFaults;

/* Memory that was there before, as after a warming pass, and is watched now. */
static bool
prepare(LocalFaults *local, GError **error)
{
    const FaultlineBlock *block = &local->block;
    const UffdLayout layout = {.host_address = block->host_address,
                               .length_bytes = block->length_bytes,
                               .fd = block->fd,
                               .page_bytes = block->page_size_bytes,
                               .shared = block->shared};

    local->uffd = uffd_open(error);
    local->memory = local->uffd ? uffd_memory_new(&layout, error) : NULL;
    if (!local->memory || !uffd_memory_empty(local->memory, error))
        return false;
    for (uint64_t at = 0; at < block->length_bytes; at += FAULTLINE_PAGE_BYTES)
        uffd_store(local->memory, at, local->page);
    return uffd_memory_discard(local->memory, 0, block->length_bytes, error) &&
           uffd_memory_zap(local->memory, error) &&
           uffd_memory_register(local->memory, local->uffd, 0, block->length_bytes, error);
}

static gpointer
handle_faults(gpointer data)
{
    LocalFaults *local = data;
    UffdFault faults[16];
    uint64_t count_placed = 0;

    while (count_placed < local->count_pages) {
        struct pollfd fd = {.fd = uffd_fd(local->uffd), .events = POLLIN};
        poll(&fd, 1, -1);
        unsigned count = uffd_read_faults(local->uffd, faults, G_N_ELEMENTS(faults));
        for (unsigned i = 0; i < count; i++) {
            uint64_t offset = faults[i].address - (uintptr_t)local->block.host_address;
            UffdResult result = uffd_place(local->memory, offset - offset % local->page_bytes,
                                           local->page_bytes, local->page);
            if (result == UFFD_FAILED || result == UFFD_GONE)
                g_error("bench: answer a local fault: %s", uffd_memory_error(local->memory));
            count_placed++;
        }
    }
    return NULL;
}

static bool
touch_pages(LocalFaults *local, GError **error)
{
    Floor *floor = local->floor;
    const Pattern pattern = {.kind = PATTERN_RANDOM, .count_pages = local->count_pages, .seed = 1};
    g_autoptr(GArray) pages = pattern_make(&pattern, 0, 1, local->count_pages, error);
    g_autoptr(GThread) handler = g_thread_try_new("handler", handle_faults, local, error);

    if (!pages || !handler || !placement_pin(&floor->plan->placement->touch, error))
        return false;
    for (guint i = 0; i < pages->len; i++) {
        uint64_t offset = g_array_index(pages, uint32_t, i) * local->page_bytes;
        const volatile char *at = (char *)local->block.host_address + offset;
        uint64_t begin = bench_ticks();
        (void)*at;
        floor->us[i] = (double)(bench_ticks() - begin) * bench_ns_per_tick() * 1e-3;
    }
    *floor->count = pages->len;
    g_thread_join(g_steal_pointer(&handler));
    return true;
}

static bool
fault_locally(void *context, int link_fd, GError **error)
{
    Floor *floor = context;
    LocalFaults local = {.floor = floor};
    uint64_t huge = floor->plan->backing == BACKING_HUGETLB ? 512 : 1;
    (void)link_fd;

    local.page_bytes = huge * FAULTLINE_PAGE_BYTES;
    local.count_pages = floor->plan->count;
    local.page = g_malloc(local.page_bytes);
    memset(local.page, 1, local.page_bytes);
    if (!bench_map(floor->plan->backing, local.count_pages * local.page_bytes, &local.block,
                   error) ||
        !prepare(&local, error) || !touch_pages(&local, error))
        return false;
    uffd_memory_free(local.memory);
    uffd_free(local.uffd);
    ram_unmap(&local.block);
    g_free(local.page);
    return true;
}

static bool
do_nothing(void *context, int link_fd, GError **error)
{
    (void)context;
    (void)link_fd;
    (void)error;
    return true;
}

GArray *
floor_local_faults(const FloorPlan *plan, GError **error)
{
    Floor floor;
    if (!floor_init(&floor, plan, error))
        return NULL;
    return floor_run(&floor, do_nothing, fault_locally, error);
}
