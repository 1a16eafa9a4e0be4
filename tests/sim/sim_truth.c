/* SPDX-License-Identifier: MIT */
/*
 * The memories of both sides, and beside them the truth: what each page must read as.
 *
 * Whoever runs the guest writes both, so that a wrong, stale or lost byte is found when it is read,
 * and what nobody read is compared at the end. The destination's guest mapping has no memory behind
 * it at all: the engine, which must not touch it, would crash.
 */
#include "tests/sim/sim_guest.h"

#include <string.h>
#include <sys/mman.h>

#define GUEST_BYTES (SIM_BLOCKS_MAX * (size_t)SIM_BLOCK_BYTES)

uint8_t *
sim_truth_page(unsigned block, unsigned page)
{
    return guest.truth + block * (size_t)SIM_BLOCK_BYTES + page * (size_t)SIM_PAGE;
}

uint8_t *
sim_source_memory(unsigned block)
{
    return guest.source + block * (size_t)SIM_BLOCK_BYTES;
}

uint8_t *
sim_destination_store(unsigned block)
{
    return guest.store + block * (size_t)SIM_BLOCK_BYTES;
}

bool
sim_guest_find(const void *address, SimSide *ret_side, unsigned *ret_block, uint64_t *ret_offset)
{
    uintptr_t at = (uintptr_t)address;
    for (unsigned side = 0; side < SIM_SIDES; side++) {
        uintptr_t base = (uintptr_t)(side == SIM_SOURCE ? guest.source : guest.destination);
        if (at < base || at >= base + GUEST_BYTES)
            continue;
        *ret_side = (SimSide)side;
        *ret_block = (unsigned)((at - base) / SIM_BLOCK_BYTES);
        *ret_offset = (at - base) % SIM_BLOCK_BYTES;
        return true;
    }
    return false;
}

void
sim_truth_fill(uint8_t *bytes)
{
    uint64_t value = sim_random();
    for (unsigned i = 0; i < SIM_PAGE; i += 8) {
        memcpy(bytes + i, &value, 8);
        value = value * 6364136223846793005u + 1442695040888963407u;
    }
}

void
sim_truth_check(const uint8_t *bytes, unsigned block, unsigned page, const char *where)
{
    const uint8_t *truth = sim_truth_page(block, page);
    if (memcmp(bytes, truth, SIM_PAGE) == 0)
        return;
    unsigned i = 0;
    while (bytes[i] == truth[i])
        i++;
    sim_fail("wrong byte %s: block %u page %u byte %u is %02x, must be %02x", where, block, page, i,
             bytes[i], truth[i]);
}

void
sim_truth_begin(unsigned index)
{
    for (unsigned page = 0; page < sim.plan.blocks[index].count_pages; page++) {
        uint8_t *truth = sim_truth_page(index, page);
        if (sim_chance(20))
            memset(truth, 0, SIM_PAGE);
        else
            sim_truth_fill(truth);
    }
    memcpy(sim_source_memory(index), sim_truth_page(index, 0),
           sim.plan.blocks[index].count_pages * (size_t)SIM_PAGE);
}

void
sim_truth_map(void)
{
    size_t align = 1 << 20;
    uint8_t *base = mmap(NULL, 4 * GUEST_BYTES + align, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    sim_check(base != MAP_FAILED, "no memory");
    base += align - (uintptr_t)base % align;
    guest.source = base;
    guest.store = base + GUEST_BYTES;
    guest.truth = base + 2 * GUEST_BYTES;
    guest.destination = base + 3 * GUEST_BYTES;
    sim_check(mprotect(guest.destination, GUEST_BYTES, PROT_NONE) == 0, "mprotect");
}

bool
sim_guest_whole(void)
{
    const uint8_t *bytes;
    for (unsigned block = 0; block < sim.plan.count_blocks; block++)
        for (unsigned page = 0; page < sim.plan.blocks[block].count_pages; page++)
            if (!sim_uffd_has(block, page, &bytes))
                return false;
    return true;
}

static void
check_page_end(unsigned block, unsigned page)
{
    const uint8_t *received;
    bool has = sim_uffd_has(block, page, &received);
    bool released = sim_uffd_released(block, page);
    const uint8_t *source = sim_source_memory(block) + page * (size_t)SIM_PAGE;

    if (guest.running[SIM_SOURCE]) {
        sim_check(!released, "block %u page %u was released and the source runs", block, page);
        sim_truth_check(source, block, page, "at the source, which runs");
    }
    if (guest.ever_ran[SIM_DESTINATION] && has)
        sim_truth_check(received, block, page, "at the destination, which ran");
    if (!has && !released)
        sim_truth_check(source, block, page, "at the source, the only one to have it");
    if (!guest.ever_ran[SIM_DESTINATION] && !released)
        sim_truth_check(source, block, page, "at the source, whose guest it still is");
    sim_check(has || !released || sim_any_fault_fired(), "block %u page %u is nowhere", block,
              page);
}

void
sim_guest_check_end(void)
{
    sim_check(guest.throttle_percent == 0 || sim.dead[SIM_SOURCE],
              "the guest is still throttled by %u%%", guest.throttle_percent);
    for (unsigned block = 0; block < sim.plan.count_blocks; block++)
        for (unsigned page = 0; page < sim.plan.blocks[block].count_pages; page++)
            check_page_end(block, page);
}
