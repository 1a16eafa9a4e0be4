/* SPDX-License-Identifier: MIT */
/*
 * uffd.h without a kernel: what a page of the destination's memory is, as flags.
 *
 * Both ways of placing are modelled: in the alias way a page can be in the page cache and not in
 * the guest mapping, old bytes survive a discard, and a mapping that somebody touched keeps showing
 * them unless it was zapped; in the copy way a discard really drops. A touch of a registered page
 * that is not visible sleeps until somebody places it. Whatever the header forbids ends the run: a
 * page placed twice or made visible without having been received, a store after registering, a
 * finish while something is missing.
 */
#include "tests/sim/sim_memory.h"

#include <string.h>

G_DEFINE_QUARK(sim - uffd - error, uffd_error)

SimHost host;

bool
sim_uffd_fails(SimPoint point, GError **error)
{
    if (!sim_inject(point))
        return false;
    g_set_error(error, UFFD_ERROR, UFFD_ERROR_HOST, "simulated: %s failed", sim_point_name(point));
    return true;
}

/* ---- Opening -----------------------------------------------------------------------------------
 */

const UffdFeatureRow *
uffd_feature_table(void)
{
    static const UffdFeatureRow table[] = {{.name = NULL}};
    return table;
}

Uffd *
uffd_open(GError **error)
{
    if (sim_uffd_fails(SIM_POINT_UFFD_OPEN, error))
        return NULL;
    sim_check(!host.uffd.alive, "uffd_open: twice");
    host.uffd = (Uffd){.alive = true};
    return &host.uffd;
}

void
uffd_free(Uffd *uffd)
{
    if (!uffd)
        return;
    sim_check(uffd->alive, "uffd_free: twice");
    uffd->alive = false;
    for (unsigned block = 0; block < sim.plan.count_blocks; block++)
        for (unsigned page = 0; page < sim.plan.blocks[block].count_pages; page++) {
            uint8_t *flags = &host.pages[SIM_DESTINATION][block][page];
            sim_check(sim.over || !(*flags & REGISTERED) || (*flags & RECEIVED) ||
                          !sim_guest_ever_ran(SIM_DESTINATION),
                      "uffd_free: page %u of block %u is missing and the guest would see zeros",
                      page, block);
            *flags &= ~REGISTERED;
        }
}

int
uffd_fd(const Uffd *uffd G_GNUC_UNUSED)
{
    return UFFD_FD;
}

uint64_t
uffd_features(const Uffd *uffd G_GNUC_UNUSED)
{
    return UINT64_MAX;
}

unsigned
uffd_read_faults(Uffd *uffd, UffdFault *ret_faults, unsigned capacity)
{
    sim_check(uffd && uffd->alive, "uffd_read_faults: freed");
    sim_preempt();
    unsigned count = MIN(MIN(capacity, 16), uffd->count);
    memcpy(ret_faults, uffd->faults, count * sizeof *ret_faults);
    memmove(uffd->faults, uffd->faults + count, (uffd->count - count) * sizeof *ret_faults);
    uffd->count -= count;
    return count;
}

/* ---- Write tracking ----------------------------------------------------------------------------
 */

UffdTracker *
uffd_tracker_new(GError **error)
{
    if (sim_uffd_fails(SIM_POINT_TRACKER, error))
        return NULL;
    sim_check(!host.tracker.alive, "uffd_tracker_new: twice");
    host.tracker = (UffdTracker){.alive = true};
    return &host.tracker;
}

void
uffd_tracker_free(UffdTracker *tracker)
{
    if (!tracker)
        return;
    sim_check(tracker->alive, "uffd_tracker_free: twice");
    tracker->alive = false;
}

static unsigned
tracked_block(const void *address, uint64_t length)
{
    SimSide side;
    unsigned block;
    uint64_t offset;
    sim_check(sim_guest_find(address, &side, &block, &offset) && side == SIM_SOURCE &&
                  offset == 0 && length == sim.plan.blocks[block].count_pages * SIM_PAGE,
              "a tracker is given something else than a source's block");
    return block;
}

bool
uffd_tracker_add(UffdTracker *tracker, void *address, uint64_t length, GError **error)
{
    unsigned block = tracked_block(address, length);
    if (sim_uffd_fails(SIM_POINT_TRACKER, error))
        return false;
    tracker->added[block] = true;
    sim_enter(SIM_PHASE_PRECOPY);
    tracker->dirty[block] = 0;
    return true;
}

bool
uffd_tracker_sync(UffdTracker *tracker, void *address, uint64_t length, uint64_t *words,
                  bool is_last, GError **error)
{
    unsigned block = tracked_block(address, length);
    sim_check(tracker->alive && tracker->added[block], "uffd_tracker_sync: block was not added");
    if (sim_uffd_fails(SIM_POINT_TRACKER, error))
        return false;
    words[0] |= tracker->dirty[block];
    if (!is_last)
        tracker->dirty[block] = 0;
    return true;
}

void
sim_tracker_written(const void *address)
{
    SimSide side;
    unsigned block;
    uint64_t offset;
    if (host.tracker.alive && sim_guest_find(address, &side, &block, &offset))
        host.tracker.dirty[block] |= UINT64_C(1) << (offset / SIM_PAGE);
}

/* ---- The guest's view --------------------------------------------------------------------------
 */

SimTouch
sim_uffd_touch(unsigned block, unsigned page, uint32_t thread, bool write, uint8_t **ret_bytes)
{
    uint8_t *flags = &host.pages[SIM_DESTINATION][block][page];

    if ((*flags & REGISTERED) && !(*flags & VISIBLE)) {
        Uffd *uffd = &host.uffd;
        sim_check(uffd->alive && uffd->count < FAULTS_MAX, "no room for a fault");
        uffd->faults[uffd->count++] = (UffdFault){
            .address =
                (uintptr_t)sim_guest_blocks(SIM_DESTINATION)[block].host_address + page * SIM_PAGE,
            .thread = thread,
            .write = write,
            .minor = *flags & STORED,
        };
        sim_fd_readable(UFFD_FD);
        return SIM_TOUCH_WAIT;
    }
    *flags |= STORED | VISIBLE;
    *ret_bytes = sim_destination_store(block) + page * SIM_PAGE;
    return SIM_TOUCH_OK;
}

bool
sim_uffd_has(unsigned block, unsigned page, const uint8_t **ret_bytes)
{
    *ret_bytes = sim_destination_store(block) + page * SIM_PAGE;
    return host.pages[SIM_DESTINATION][block][page] & RECEIVED;
}

bool
sim_uffd_released(unsigned block, unsigned page)
{
    return host.pages[SIM_SOURCE][block][page] & RELEASED;
}

void
sim_uffd_reset(void)
{
    memset(host.memories, 0, sizeof host.memories);
    memset(host.pages, 0, sizeof host.pages);
    host.uffd.alive = host.tracker.alive = false;
    for (unsigned i = 0; i < G_N_ELEMENTS(host.runs); i++)
        host.runs[i].alive = false;
}

void
sim_uffd_check_freed(void)
{
    sim_check(!host.uffd.alive, "the userfaultfd was not freed");
    sim_check(!host.tracker.alive, "the tracker was not freed");
    for (unsigned i = 0; i < SIM_BLOCKS_MAX; i++)
        sim_check(!host.memories[0][i].alive && !host.memories[1][i].alive,
                  "memory of block %u was not freed", i);
    for (unsigned i = 0; i < G_N_ELEMENTS(host.runs); i++)
        sim_check(!host.runs[i].alive, "a run was not freed");
}
