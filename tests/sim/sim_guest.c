/* SPDX-License-Identifier: MIT */
/*
 * A guest whose every byte is known.
 *
 * Beside the memories of both sides the simulator keeps the truth: what each page must read as, and
 * the registers of each vCPU. Whoever runs writes both and checks what it reads against the truth,
 * so a wrong, stale or lost byte is found at the access, and what nobody looked at is compared at
 * the end. The destination's guest mapping has no memory behind it at all: the engine, which must
 * not touch it, would crash.
 */
#include "tests/sim/sim_guest.h"
#include "tests/sim/sim_record.h"

#include <stdio.h>
#include <string.h>

#define DEVICE_BYTES 6000u
#define FD_FIRST     2000000 /* no descriptor: says only that there is one */

SimGuest guest;

bool
sim_guest_running(SimSide side)
{
    return guest.running[side];
}

bool
sim_guest_ever_ran(SimSide side)
{
    return guest.ever_ran[side];
}

const FaultlineBlock *
sim_guest_blocks(SimSide side)
{
    return guest.blocks[side];
}

void
sim_guest_kill(void)
{
    guest.running[SIM_SOURCE] = guest.running[SIM_DESTINATION] = false;
}

SimPhase
sim_guest_phase(void)
{
    if (sim_is_recovering() || sim_is_paused())
        return sim_is_paused() ? SIM_PHASE_PAUSED : SIM_PHASE_RECOVER;
    if (guest.ever_ran[SIM_DESTINATION])
        return sim_guest_whole() ? SIM_PHASE_OVER : SIM_PHASE_POSTCOPY;
    if (sim.phase_ns[SIM_PHASE_PRECOPY] == UINT64_MAX)
        return SIM_PHASE_SETUP;
    if (sim.phase_ns[SIM_PHASE_SWITCH] == UINT64_MAX)
        return SIM_PHASE_PRECOPY;
    return guest.running[SIM_SOURCE] ? SIM_PHASE_OVER : SIM_PHASE_SWITCH;
}

/* ---- vCPUs -------------------------------------------------------------------------------------
 */

static uint64_t
vcpu_pause_ns(const Vcpu *vcpu)
{
    uint64_t slow = 1 + vcpu->count_steps / 300;
    uint64_t pause_ns = 1 + sim_below(2 * sim.plan.touch_ns * slow * slow);
    return pause_ns * 100 / (100 - guest.throttle_percent);
}

static void
write_page(uint8_t *bytes, unsigned block, unsigned page)
{
    uint8_t *truth = sim_truth_page(block, page);
    unsigned kind = (unsigned)sim_below(10);
    if (kind == 0) {
        memset(truth, 0, SIM_PAGE);
        memset(bytes, 0, SIM_PAGE);
    } else if (kind == 1) {
        sim_truth_fill(truth);
        memcpy(bytes, truth, SIM_PAGE);
    } else {
        unsigned at = (unsigned)sim_below(SIM_PAGE / 8) * 8;
        uint64_t value = sim_random();
        memcpy(truth + at, &value, 8);
        memcpy(bytes + at, &value, 8);
    }
    if (guest.running[SIM_SOURCE]) {
        guest.dirty[block] |= UINT64_C(1) << page;
        sim_tracker_written(bytes);
    }
}

static void
vcpu_access(Vcpu *vcpu, SimSide side)
{
    uint8_t *bytes = sim_source_memory(vcpu->block) + vcpu->page * (size_t)SIM_PAGE;
    unsigned index = (unsigned)(vcpu - guest.vcpus);

    if (side == SIM_DESTINATION && sim_uffd_touch(vcpu->block, vcpu->page, 200 + index, vcpu->write,
                                                  &bytes) == SIM_TOUCH_WAIT) {
        sim_trace("vcpu %u waits for block %u page %u", index, vcpu->block, vcpu->page);
        sim.outcomes[SIM_OUTCOME_WAITS]++;
        vcpu->waits = vcpu->must_retry = true;
        return;
    }
    sim_truth_check(bytes, vcpu->block, vcpu->page, "read by a vCPU");
    if (vcpu->write)
        write_page(bytes, vcpu->block, vcpu->page);
    guest.registers[index] += 1 + vcpu->page;
    vcpu->must_retry = false;
}

/* Anywhere, or on by the step that began there. */
static void
choose_page(Vcpu *vcpu)
{
    unsigned next = vcpu->page + (unsigned)vcpu->step;
    if (vcpu->step && next < sim.plan.blocks[vcpu->block].count_pages &&
        sim_chance(sim.plan.walk_percent)) {
        vcpu->page = next;
        return;
    }
    vcpu->block = (unsigned)sim_below(sim.plan.count_blocks);
    vcpu->page = (unsigned)sim_below(sim.plan.blocks[vcpu->block].count_pages);
    vcpu->step = sim.plan.walk_percent ? (int)sim_below(7) - 3 : 0;
}

void
sim_vcpu_step(void)
{
    SimSide side = guest.running[SIM_SOURCE] ? SIM_SOURCE : SIM_DESTINATION;
    unsigned first = (unsigned)sim_below(sim.plan.count_vcpus);
    for (unsigned i = 0; i < sim.plan.count_vcpus; i++) {
        Vcpu *vcpu = &guest.vcpus[(first + i) % sim.plan.count_vcpus];
        if (vcpu->waits || vcpu->next_ns > sim.now_ns)
            continue;
        sim.side = side;
        if (!vcpu->must_retry) {
            choose_page(vcpu);
            vcpu->write =
                sim_chance(60) && (side == SIM_DESTINATION || sim.now_ns < sim.plan.idle_ns);
        }
        vcpu->count_steps++;
        vcpu_access(vcpu, side);
        vcpu->next_ns = sim.now_ns + vcpu_pause_ns(vcpu);
        return;
    }
}

uint64_t
sim_vcpu_next_ns(void)
{
    uint64_t next_ns = UINT64_MAX;
    if (!guest.running[SIM_SOURCE] && !guest.running[SIM_DESTINATION])
        return next_ns;
    for (unsigned i = 0; i < sim.plan.count_vcpus; i++)
        if (!guest.vcpus[i].waits)
            next_ns = MIN(next_ns, guest.vcpus[i].next_ns);
    return next_ns;
}

void
sim_guest_wake(unsigned block, unsigned first_page, unsigned count_pages)
{
    for (unsigned i = 0; i < sim.plan.count_vcpus; i++) {
        Vcpu *vcpu = &guest.vcpus[i];
        if (vcpu->waits && vcpu->block == block && vcpu->page - first_page < count_pages) {
            vcpu->waits = false;
            vcpu->next_ns = sim.now_ns;
        }
    }
    if (guest.loader_waits && guest.loader_block == block &&
        guest.loader_page - first_page < count_pages)
        guest.loader_waits = false;
}

/* ---- Callbacks ---------------------------------------------------------------------------------
 */

static bool
fails(SimPoint point, GError **error)
{
    if (!sim_inject(point))
        return false;
    g_set_error(error, g_quark_from_static_string("sim-guest"), 0, "simulated: %s failed",
                sim_point_name(point));
    return true;
}

static SimSide
side_of(void *opaque)
{
    SimSide side = opaque == &guest.blocks[SIM_SOURCE] ? SIM_SOURCE : SIM_DESTINATION;
    sim_check(side == sim.side, "a callback of the other side's guest is called");
    return side;
}

static bool
guest_pause(void *opaque, GError **error)
{
    SimSide side = side_of(opaque);
    if (fails(SIM_POINT_PAUSE, error))
        return false;
    sim_trace("guest is paused");
    sim_check(guest.throttle_percent == 0, "the guest is stopped throttled");
    sim_enter(SIM_PHASE_SWITCH);
    guest.running[side] = false;
    return true;
}

void
sim_guest_die(SimSide side)
{
    guest.running[side] = false;
}

static void
guest_throttle(void *opaque, unsigned percent)
{
    sim_check(side_of(opaque) == SIM_SOURCE && sim.plan.auto_converge, "throttle of %u%%", percent);
    sim_check(percent <= 99 && percent != guest.throttle_percent, "throttle: %u%% after %u%%",
              percent, guest.throttle_percent);
    sim_check(percent == 0 || guest.logging || sim.plan.tracker, "throttle outside precopy");
    sim_trace("guest is throttled by %u%%", percent);
    guest.throttle_percent = percent;
    sim.outcomes[SIM_OUTCOME_THROTTLES] += percent != 0;
}

static void
check_resume(SimSide side)
{
    sim_check(!guest.running[!side], "two owners: the guest runs at both sides");
    if (side == SIM_SOURCE) {
        sim_check(!guest.ever_ran[SIM_DESTINATION], "the source runs a guest it gave away");
        return;
    }
    sim_check(sim_guest_loaded(), "the destination runs the guest before its state is loaded");
    for (unsigned i = 0; i < sim.plan.count_vcpus; i++)
        sim_check(guest.loaded_registers[i] == guest.registers[i], "registers of vCPU %u are old",
                  i);
}

static bool
guest_resume(void *opaque, GError **error)
{
    SimSide side = side_of(opaque);
    if (fails(SIM_POINT_RESUME, error))
        return false;
    sim_trace("guest runs");
    check_resume(side);
    guest.running[side] = guest.ever_ran[side] = true;
    sim_record_check();
    if (side == SIM_DESTINATION)
        sim_enter(SIM_PHASE_POSTCOPY);
    for (unsigned i = 0; i < sim.plan.count_vcpus; i++) {
        guest.vcpus[i].waits = guest.vcpus[i].must_retry = false;
        guest.vcpus[i].next_ns = sim.now_ns + sim_below(sim.plan.touch_ns);
    }
    return true;
}

static bool
guest_log_start(void *opaque, GError **error)
{
    sim_check(side_of(opaque) == SIM_SOURCE, "dirty_log_start at the destination");
    if (fails(SIM_POINT_LOG_START, error))
        return false;
    guest.logging = true;
    sim_enter(SIM_PHASE_PRECOPY);
    memset(guest.dirty, 0, sizeof guest.dirty);
    return true;
}

static bool
guest_log_sync(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    sim_check(side_of(opaque) == SIM_SOURCE && guest.logging, "dirty_log_sync without a log");
    sim_check(block < sim.plan.count_blocks && count_pages == sim.plan.blocks[block].count_pages,
              "dirty_log_sync: block %u with %lu pages", block, count_pages);
    if (fails(SIM_POINT_LOG_SYNC, error))
        return false;
    words[0] |= guest.dirty[block];
    guest.dirty[block] = 0;
    return true;
}

static void
guest_log_stop(void *opaque)
{
    sim_check(side_of(opaque) == SIM_SOURCE, "dirty_log_stop at the destination");
    guest.logging = false;
}

static bool
guest_save(void *opaque, FaultlineState *state, GError **error)
{
    uint8_t bytes[DEVICE_BYTES];
    sim_check(side_of(opaque) == SIM_SOURCE, "save_state at the destination");
    sim_check(!guest.running[SIM_SOURCE], "save_state of a running guest");
    if (fails(SIM_POINT_SAVE, error))
        return false;
    memset(bytes, 0x5a, guest.device_bytes);
    for (unsigned i = 0; i < sim.plan.count_vcpus; i++) {
        memcpy(bytes, &guest.registers[i], 8);
        faultline_state_add(state, "sim/vcpu", i, 1, bytes, guest.device_bytes);
    }
    return true;
}

static bool
loader_goes_on(void *opaque G_GNUC_UNUSED)
{
    return !guest.loader_waits;
}

/* Loading touches guest memory, like a device that looks into its rings, and may so sleep. */
static bool
loader_touch(GError **error)
{
    unsigned block = (unsigned)sim_below(sim.plan.count_blocks);
    unsigned page = (unsigned)sim_below(sim.plan.blocks[block].count_pages);
    uint8_t *bytes;

    while (sim_uffd_touch(block, page, 300, false, &bytes) == SIM_TOUCH_WAIT) {
        sim_trace("load_state waits for block %u page %u", block, page);
        guest.loader_block = block;
        guest.loader_page = page;
        guest.loader_waits = true;
        if (!sim_sleep_until(loader_goes_on, NULL)) {
            g_set_error(error, g_quark_from_static_string("sim-guest"), 0, "simulated: the end");
            return false;
        }
    }
    /* The source may have taken the guest back: then nobody will run what is loaded here. */
    if (!guest.running[SIM_SOURCE])
        sim_truth_check(bytes, block, page, "read by load_state");
    return true;
}

static bool
guest_load(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
           size_t length, GError **error)
{
    sim_check(side_of(opaque) == SIM_DESTINATION, "load_state at the source");
    sim_check(strcmp(name, "sim/vcpu") == 0 && instance < sim.plan.count_vcpus && version == 1 &&
                  length == guest.device_bytes,
              "load_state: '%s' %u version %u, %zu bytes", name, instance, version, length);
    sim_check(!guest.running[SIM_DESTINATION], "load_state while the guest runs");
    if (fails(SIM_POINT_LOAD, error))
        return false;
    if (sim_chance(40) && !loader_touch(error))
        return false;
    sim_trace("vcpu %u loaded", instance);
    guest.loaded |= 1u << instance;
    memcpy(&guest.loaded_registers[instance], bytes, 8);
    return true;
}

bool
sim_guest_loaded(void)
{
    return guest.loaded == (1u << sim.plan.count_vcpus) - 1;
}

static pid_t
guest_vcpu_thread(void *opaque, unsigned index)
{
    pid_t first = opaque == &guest.blocks[SIM_SOURCE] ? 100 : 200;
    return index < sim.plan.count_vcpus ? first + (pid_t)index : 0;
}

const FaultlineGuest *
sim_guest_callbacks(SimSide side G_GNUC_UNUSED)
{
    static FaultlineGuest callbacks;
    callbacks = (FaultlineGuest){
        .version = FAULTLINE_GUEST_VERSION,
        .machine = "sim-1.0",
        .pause = guest_pause,
        .resume = guest_resume,
        .save_state = guest_save,
        .load_state = guest_load,
        .throttle = guest_throttle,
        .vcpu_thread = guest_vcpu_thread,
    };
    if (!sim.plan.tracker) {
        callbacks.dirty_log_start = guest_log_start;
        callbacks.dirty_log_sync = guest_log_sync;
        callbacks.dirty_log_stop = guest_log_stop;
    }
    return &callbacks;
}

void *
sim_guest_opaque(SimSide side)
{
    return &guest.blocks[side];
}

/* ---- Begin and end -----------------------------------------------------------------------------
 */

static void
describe_block(SimSide side, unsigned index)
{
    const SimBlockPlan *plan = &sim.plan.blocks[index];
    uint8_t *base = side == SIM_SOURCE ? guest.source : guest.destination;
    guest.blocks[side][index] = (FaultlineBlock){
        .name = guest.names[index],
        .guest_address = index * (uint64_t)SIM_BLOCK_BYTES,
        .host_address = base + index * (size_t)SIM_BLOCK_BYTES,
        .length_bytes = plan->count_pages * (uint64_t)SIM_PAGE,
        .fd = plan->alias || plan->page_bytes != SIM_PAGE ? FD_FIRST + (int)index : -1,
        .page_size_bytes = plan->page_bytes,
        .shared = plan->alias || plan->page_bytes != SIM_PAGE,
    };
}

void
sim_guest_reset(void)
{
    if (!guest.source)
        sim_truth_map();
    memset(guest.vcpus, 0, sizeof guest.vcpus);
    memset(guest.running, 0, sizeof guest.running);
    memset(guest.ever_ran, 0, sizeof guest.ever_ran);
    guest.logging = guest.loader_waits = false;
    guest.throttle_percent = 0;
    guest.loaded = 0;
    guest.device_bytes = sim_chance(80) ? 8 + sim_below(300) : 8 + sim_below(DEVICE_BYTES - 8);
    for (unsigned i = 0; i < SIM_VCPUS_MAX; i++)
        guest.registers[i] = sim_random();
    for (unsigned i = 0; i < sim.plan.count_blocks; i++) {
        snprintf(guest.names[i], sizeof guest.names[i], "ram-%u", i);
        describe_block(SIM_SOURCE, i);
        describe_block(SIM_DESTINATION, i);
        sim_truth_begin(i);
    }
}
