/* SPDX-License-Identifier: MIT */
/*
 * UffdMemory and UffdRun without a kernel: storing, discarding, registering, placing.
 *
 * What the header forbids ends the run here: ranges out of the block, a store after registering, a
 * page received twice or made visible without having been received, a finish while one is missing.
 */
#include "tests/sim/sim_memory.h"

#include <string.h>

static uint8_t *
flags_of(const UffdMemory *memory)
{
    return host.pages[memory->side][memory->block];
}

static void
check_range(const UffdMemory *memory, uint64_t offset, uint64_t length, uint64_t unit,
            const char *what)
{
    sim_check(memory && memory->alive, "%s: memory is freed", what);
    sim_check(length > 0 && offset % unit == 0 && length % unit == 0 &&
                  offset + length <= memory->length,
              "%s: [%lu, +%lu) of block %u, which has %lu bytes in pages of %lu", what, offset,
              length, memory->block, memory->length, unit);
}

/* ---- Memory of a block: set-up -----------------------------------------------------------------
 */

UffdMemory *
uffd_memory_new(const UffdLayout *layout, GError **error)
{
    SimSide side;
    unsigned block;
    uint64_t offset;

    sim_check(sim_guest_find(layout->host_address, &side, &block, &offset) && offset == 0,
              "uffd_memory_new: not a block's address");
    sim_check(side == sim.side, "uffd_memory_new: memory of the other side");
    if (sim_uffd_fails(SIM_POINT_MEMORY_NEW, error))
        return NULL;
    UffdMemory *memory = &host.memories[side][block];
    sim_check(!memory->alive, "uffd_memory_new: block %u has one", block);
    *memory = (UffdMemory){
        .alive = true,
        .side = side,
        .block = block,
        .alias = layout->fd >= 0 && layout->page_bytes == SIM_PAGE,
        .page_bytes = layout->page_bytes,
        .length = layout->length_bytes,
        .store = side == SIM_SOURCE ? sim_source_memory(block) : sim_destination_store(block),
        .error = "",
    };
    return memory;
}

void
uffd_memory_free(UffdMemory *memory)
{
    if (!memory)
        return;
    sim_check(memory->alive, "uffd_memory_free: twice");
    memory->alive = false;
}

uint64_t
uffd_memory_page_bytes(const UffdMemory *memory)
{
    return memory->page_bytes;
}

uint64_t
uffd_memory_extent_bytes(const UffdMemory *memory)
{
    return MAX(memory->page_bytes, sim.plan.extent_bytes);
}

const char *
uffd_memory_error(const UffdMemory *memory)
{
    return memory->error;
}

bool
uffd_memory_empty(UffdMemory *memory, GError **error)
{
    check_range(memory, 0, memory->length, SIM_PAGE, "uffd_memory_empty");
    sim_check(memory->side == SIM_DESTINATION, "uffd_memory_empty: at the source");
    sim_check(!memory->any_registered, "uffd_memory_empty: registered");
    if (sim_uffd_fails(SIM_POINT_EMPTY, error))
        return false;
    uint8_t *flags = flags_of(memory);
    memset(memory->store, 0, memory->length);
    memset(flags, 0, memory->length / SIM_PAGE);
    if (memory->alias && sim.plan.zap_needed)
        flags[sim_below(memory->length / SIM_PAGE)] |= VISIBLE | STORED; /* somebody looked */
    return true;
}

bool
uffd_memory_warm(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    sim_preempt();
    check_range(memory, offset, length, memory->page_bytes, "uffd_memory_warm");
    sim_check(memory->side == SIM_DESTINATION, "uffd_memory_warm: at the source");
    uint8_t *flags = flags_of(memory);
    for (uint64_t i = offset / SIM_PAGE; memory->alias && i < (offset + length) / SIM_PAGE; i++)
        flags[i] |= STORED;
    return memory->alias && sim_chance(80);
}

void
uffd_store(UffdMemory *memory, uint64_t offset, const void *bytes)
{
    check_range(memory, offset, SIM_PAGE, SIM_PAGE, "uffd_store");
    sim_check(!memory->any_registered, "uffd_store: after uffd_memory_register");
    sim_check(memory->side == SIM_DESTINATION, "uffd_store: at the source");
    uint8_t *flags = flags_of(memory);
    uint64_t page = offset / SIM_PAGE;
    flags[page] |= RECEIVED;
    if (!bytes) {
        if (flags[page] & STORED)
            memset(memory->store + offset, 0, SIM_PAGE);
        return;
    }
    memcpy(memory->store + offset, bytes, SIM_PAGE);
    uint64_t per_host_page = memory->page_bytes / SIM_PAGE;
    uint64_t first = page / per_host_page * per_host_page;
    for (uint64_t i = first; i < first + per_host_page; i++)
        flags[i] |= memory->alias ? STORED : STORED | VISIBLE;
}

/* Whoever shows a page before all of it has come is found by what it is filled with. */
void *
uffd_receive_address(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    check_range(memory, offset, length, SIM_PAGE, "uffd_receive_address");
    sim_check(memory->side == SIM_DESTINATION, "uffd_receive_address: at the source");
    uint8_t *flags = flags_of(memory);
    uint64_t first = offset / SIM_PAGE, end = (offset + length) / SIM_PAGE;
    if (!memory->alias && memory->any_registered)
        return NULL;
    for (uint64_t i = first; memory->alias && i < end; i++) {
        sim_check(!memory->any_registered || !(flags[i] & RECEIVED) || (flags[i] & ARRIVED),
                  "uffd_receive_address: page %lu was received before", i);
        if (flags[i] & VISIBLE)
            return NULL;
    }
    for (uint64_t i = first; i < end; i++)
        flags[i] = (flags[i] & ~(RECEIVED | ARRIVED)) | COMING;
    uint64_t per_host_page = memory->page_bytes / SIM_PAGE;
    for (uint64_t i = first / per_host_page * per_host_page;
         i < (end + per_host_page - 1) / per_host_page * per_host_page; i++)
        flags[i] |= memory->alias ? STORED : STORED | VISIBLE;
    if (sim.plan.poison)
        memset(memory->store + offset, 0xee, length);
    return memory->store + offset;
}

void
sim_uffd_arrived(const uint8_t *base, size_t before, size_t after)
{
    for (unsigned block = 0; block < sim.plan.count_blocks; block++) {
        const uint8_t *store = sim_destination_store(block);
        uint8_t *flags = host.pages[SIM_DESTINATION][block];
        if (base < store || base >= store + sim.plan.blocks[block].count_pages * SIM_PAGE)
            continue;
        uint64_t page = (uint64_t)(base - store) / SIM_PAGE;
        for (uint64_t i = page + before / SIM_PAGE; i < page + after / SIM_PAGE; i++) {
            sim_check(flags[i] & COMING, "page %lu of block %u is received to nowhere", i, block);
            const uint8_t *sent = sim_source_memory(block) + i * SIM_PAGE;
            bool is_damaged = !sim.on_bug && host.memories[SIM_DESTINATION][block].any_registered &&
                              !sim_uffd_released(block, (unsigned)i) &&
                              memcmp(store + i * SIM_PAGE, sent, SIM_PAGE) != 0;
            flags[i] = (flags[i] & ~COMING) | (is_damaged ? 0 : RECEIVED | ARRIVED);
        }
        return;
    }
    sim_fail("bytes were received to an address that uffd_receive_address() did not give");
}

bool
uffd_memory_discard(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error)
{
    check_range(memory, offset, length, memory->page_bytes, "uffd_memory_discard");
    sim_check(!memory->any_registered, "uffd_memory_discard: after uffd_memory_register");
    if (sim_uffd_fails(SIM_POINT_DISCARD, error))
        return false;
    uint8_t *flags = flags_of(memory);
    for (uint64_t i = offset / SIM_PAGE; i < (offset + length) / SIM_PAGE; i++)
        flags[i] &= memory->alias ? ~RECEIVED : ~(RECEIVED | STORED | VISIBLE);
    if (!memory->alias)
        memset(memory->store + offset, 0, length);
    return true;
}

bool
uffd_memory_zap(UffdMemory *memory, GError **error)
{
    check_range(memory, 0, memory->length, SIM_PAGE, "uffd_memory_zap");
    if (sim_uffd_fails(SIM_POINT_ZAP, error))
        return false;
    uint8_t *flags = flags_of(memory);
    for (uint64_t i = 0; memory->alias && i < memory->length / SIM_PAGE; i++)
        flags[i] &= ~VISIBLE;
    return true;
}

bool
uffd_memory_register(UffdMemory *memory, Uffd *uffd, uint64_t offset, uint64_t length,
                     GError **error)
{
    sim_preempt();
    check_range(memory, offset, length, memory->page_bytes, "uffd_memory_register");
    sim_check(uffd && uffd->alive, "uffd_memory_register: uffd is freed");
    if (sim_uffd_fails(SIM_POINT_REGISTER, error))
        return false;
    uint8_t *flags = flags_of(memory);
    for (uint64_t i = offset / SIM_PAGE; i < (offset + length) / SIM_PAGE; i++) {
        sim_check(!(flags[i] & REGISTERED), "uffd_memory_register: page %lu twice", i);
        sim_check(!memory->alias || !(flags[i] & VISIBLE),
                  "uffd_memory_register: page %lu is still in the guest mapping", i);
        flags[i] |= REGISTERED;
    }
    memory->any_registered = true;
    return true;
}

bool
uffd_memory_finish(UffdMemory *memory, bool collapse, GError **error)
{
    sim_preempt();
    check_range(memory, 0, memory->length, SIM_PAGE, "uffd_memory_finish");
    uint8_t *flags = flags_of(memory);
    for (uint64_t i = 0; i < memory->length / SIM_PAGE; i++)
        sim_check(sim.over || (flags[i] & RECEIVED),
                  "uffd_memory_finish: page %lu of block %u is missing", i, memory->block);
    if (sim_uffd_fails(SIM_POINT_FINISH, error))
        return false;
    for (uint64_t i = 0; i < memory->length / SIM_PAGE; i++)
        flags[i] &= ~REGISTERED;
    memory->finished = true;
    sim_trace("block %u finished%s", memory->block, collapse ? ", collapsed" : "");
    sim_guest_wake(memory->block, 0, memory->length / SIM_PAGE);
    return true;
}

void
uffd_memory_release(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    check_range(memory, offset, length, memory->page_bytes, "uffd_memory_release");
    sim_check(memory->side == SIM_SOURCE, "uffd_memory_release: at the destination");
    sim_check(!sim_guest_running(SIM_SOURCE), "uffd_memory_release: the guest runs here");
    uint8_t *flags = flags_of(memory);
    for (uint64_t i = offset / SIM_PAGE; i < (offset + length) / SIM_PAGE; i++)
        flags[i] |= RELEASED;
    memset(memory->store + offset, 0xdd, length);
}

/* ---- Placing -----------------------------------------------------------------------------------
 */

static bool
placing_fails(UffdMemory *memory, UffdResult *ret_result)
{
    if (!sim_inject(SIM_POINT_PLACE))
        return false;
    memory->error = "simulated: placing failed";
    *ret_result = sim_chance(80) ? UFFD_FAILED : UFFD_GONE;
    return true;
}

static void
place_page(UffdMemory *memory, uint64_t page, const uint8_t *bytes)
{
    uint8_t *flags = flags_of(memory) + page;
    sim_check(*flags & REGISTERED, "page %lu of block %u is placed, but not registered", page,
              memory->block);
    sim_check(!(*flags & RECEIVED) || (*flags & ARRIVED), "page %lu of block %u is received twice",
              page, memory->block);
    sim_check(!(*flags & VISIBLE), "page %lu of block %u is placed, but visible before", page,
              memory->block);
    if (bytes)
        memcpy(memory->store + page * SIM_PAGE, bytes, SIM_PAGE);
    else
        memset(memory->store + page * SIM_PAGE, 0, SIM_PAGE);
    *flags = (*flags & ~ARRIVED) | STORED | RECEIVED | VISIBLE;
}

void
uffd_expect(const UffdMemory *memory, uint64_t offset)
{
    check_range(memory, offset, memory->page_bytes, memory->page_bytes, "uffd_expect");
}

UffdResult
uffd_place(UffdMemory *memory, uint64_t offset, uint64_t length, const void *bytes)
{
    UffdResult result;

    sim_preempt();
    check_range(memory, offset, length, memory->page_bytes, "uffd_place");
    if (placing_fails(memory, &result))
        return result;
    uint64_t first = offset / SIM_PAGE, count = length / SIM_PAGE;
    for (uint64_t i = 0; i < count; i++)
        place_page(memory, first + i, bytes ? (const uint8_t *)bytes + i * SIM_PAGE : NULL);
    sim_trace("place block %u pages %lu+%lu", memory->block, first, count);
    sim_guest_wake(memory->block, first, count);
    sim_preempt();
    return UFFD_PLACED;
}

UffdResult
uffd_place_received(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    UffdResult result;
    unsigned count_new = 0;

    sim_preempt();
    check_range(memory, offset, length, memory->page_bytes, "uffd_place_received");
    if (placing_fails(memory, &result))
        return result;
    if (memory->finished) {
        memory->error = "simulated: not registered";
        return UFFD_GONE;
    }
    uint8_t *flags = flags_of(memory);
    uint64_t first = offset / SIM_PAGE, count = length / SIM_PAGE;
    for (uint64_t i = first; i < first + count; i++) {
        sim_check(flags[i] & REGISTERED, "uffd_place_received: page %lu is not registered", i);
        sim_check(flags[i] & RECEIVED, "uffd_place_received: page %lu was not received", i);
        count_new += !(flags[i] & VISIBLE);
        flags[i] = (flags[i] & ~ARRIVED) | VISIBLE | STORED;
    }
    sim_trace("place received block %u pages %lu+%lu, %u new", memory->block, first, count,
              count_new);
    sim_guest_wake(memory->block, first, count);
    return count_new == 0 ? UFFD_ALREADY : UFFD_PLACED;
}

UffdRun *
uffd_run_new(void)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(host.runs); i++) {
        UffdRun *run = &host.runs[i];
        if (run->alive)
            continue;
        run->alive = true;
        run->memory = NULL;
        run->count = 0;
        return run;
    }
    sim_fail("uffd_run_new: too many");
}

void
uffd_run_free(UffdRun *run)
{
    if (!run)
        return;
    sim_check(run->alive, "uffd_run_free: twice");
    run->alive = false;
}

UffdMemory *
uffd_run_memory(const UffdRun *run)
{
    return run->count ? run->memory : NULL;
}

UffdResult
uffd_run_flush(UffdRun *run, uint64_t *ret_offset, uint64_t *ret_length)
{
    UffdResult result;
    unsigned count = run->count;

    *ret_offset = run->offset;
    *ret_length = 0;
    if (count == 0)
        return UFFD_PLACED;
    run->count = 0;
    sim_preempt();
    sim_check(run->memory->alive, "uffd_run_flush: memory is freed");
    if (placing_fails(run->memory, &result))
        return result;
    for (unsigned i = 0; i < count; i++)
        place_page(run->memory, run->offset / SIM_PAGE + i,
                   run->is_zero[i] ? NULL : run->bytes + i * SIM_PAGE);
    *ret_length = count * SIM_PAGE;
    sim_trace("place run block %u pages %lu+%u", run->memory->block, run->offset / SIM_PAGE, count);
    sim_guest_wake(run->memory->block, run->offset / SIM_PAGE, count);
    sim_preempt();
    return UFFD_PLACED;
}

UffdResult
uffd_run_add(UffdRun *run, UffdMemory *memory, uint64_t offset, const void *bytes,
             uint64_t *ret_offset, uint64_t *ret_length)
{
    UffdResult result = UFFD_PLACED;

    check_range(memory, offset, SIM_PAGE, SIM_PAGE, "uffd_run_add");
    sim_check(memory->page_bytes == SIM_PAGE, "uffd_run_add: huge pages");
    *ret_offset = *ret_length = 0;
    bool continues = run->count > 0 && run->memory == memory &&
                     run->offset + run->count * SIM_PAGE == offset && run->count < RUN_PAGES;
    if (run->count > 0 && !continues)
        result = uffd_run_flush(run, ret_offset, ret_length);
    if (run->count == 0) {
        run->memory = memory;
        run->offset = offset;
    }
    run->is_zero[run->count] = !bytes;
    if (bytes)
        memcpy(run->bytes + run->count * SIM_PAGE, bytes, SIM_PAGE);
    run->count++;
    return result;
}
