/* SPDX-License-Identifier: MIT */
/*
 * What a seed decides, and what happens when a seed finds a bug.
 *
 * One generator (SplitMix64) feeds the plan and then every choice of the run, so that a seed and
 * the code determine all of it. Points at which calls can be made to fail are counted here too, by
 * the phase in which they hit.
 */
#include "tests/sim/sim.h"
#include "tests/sim/sim_table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

Sim sim;

static const char *const point_names[] = {
#define SIM_POINT_NAME(name, text) text,
    SIM_POINT_LIST(SIM_POINT_NAME)
#undef SIM_POINT_NAME
};
static_assert(G_N_ELEMENTS(point_names) == SIM_POINT_COUNT, "a name for each point");

static const char *const phase_names[] = {
#define SIM_PHASE_NAME(name, text) text,
    SIM_PHASE_LIST(SIM_PHASE_NAME)
#undef SIM_PHASE_NAME
};
static_assert(G_N_ELEMENTS(phase_names) == SIM_PHASE_COUNT, "a name for each phase");

static const char *const outcome_names[] = {
#define SIM_OUTCOME_NAME(name, text) text,
    SIM_OUTCOME_LIST(SIM_OUTCOME_NAME)
#undef SIM_OUTCOME_NAME
};
static_assert(G_N_ELEMENTS(outcome_names) == SIM_OUTCOME_COUNT, "a name for each outcome");

const char *
sim_outcome_name(SimOutcome outcome)
{
    return outcome_names[outcome];
}

const char *
sim_point_name(SimPoint point)
{
    return point_names[point];
}

const char *
sim_phase_name(SimPhase phase)
{
    return phase_names[phase];
}

/* ---- Chance ------------------------------------------------------------------------------------
 */

uint64_t
sim_random(void)
{
    uint64_t z = sim.random += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

uint64_t
sim_below(uint64_t below)
{
    return sim_random() % below;
}

bool
sim_chance(unsigned percent)
{
    return sim_below(100) < percent;
}

/* 2^low .. 2^high, every octave as likely as any other. */
static uint64_t
octaves(unsigned low, unsigned high)
{
    uint64_t base = UINT64_C(1) << (low + sim_below(high - low));
    return base + sim_below(base);
}

/* ---- The plan ----------------------------------------------------------------------------------
 */

static SimFault
plan_fault(void)
{
    SimFault fault = {.point = (SimPoint)sim_below(SIM_POINT_RECORD - 1)};
    fault.point += fault.point >= SIM_POINT_HANG; /* which is planned apart */
    static const SimPoint late[] = {SIM_POINT_CUT_BYTE, SIM_POINT_CUT_TIME, SIM_POINT_CANCEL,
                                    SIM_POINT_LOAD,     SIM_POINT_PLACE,    SIM_POINT_REGISTER,
                                    SIM_POINT_DISCARD,  SIM_POINT_ZAP,      SIM_POINT_WATCH};
    if (sim_chance(60)) /* so that most migrations get beyond their set-up */
        fault.point = late[sim_below(G_N_ELEMENTS(late))];
    fault.countdown = (unsigned)(sim_chance(50) ? 0 : octaves(0, 5));
    fault.way = (unsigned)sim_below(4);
    switch (fault.point) {
    case SIM_POINT_CUT_BYTE:
        if (sim_chance(60))
            fault.way = 0;
        fault.at = octaves(0, fault.way == 0 ? 19 : 14);
        break;
    case SIM_POINT_CUT_TIME:
    case SIM_POINT_CANCEL:
        fault.phase = (SimPhase)sim_below(SIM_PHASE_OVER);
        fault.at = octaves(4, 21);
        break;
    case SIM_POINT_RING_NEW:
    case SIM_POINT_MEMORY_NEW:
    case SIM_POINT_EMPTY:
        fault.countdown = (unsigned)sim_below(5);
        break;
    default:
        break;
    }
    return fault;
}

static void
plan_blocks(SimPlan *plan)
{
    bool many = sim_chance(8); /* more pages than one frame takes */
    plan->count_blocks = many ? SIM_BLOCKS_MAX : 1 + (unsigned)sim_below(SIM_BLOCKS_MAX);
    for (unsigned i = 0; i < plan->count_blocks; i++) {
        SimBlockPlan *block = &plan->blocks[i];
        bool huge = sim_chance(25);
        block->page_bytes = huge ? 4 * SIM_PAGE : SIM_PAGE;
        block->count_pages = (unsigned)octaves(many ? 5 : 2, 6);
        if (huge)
            block->count_pages = (block->count_pages + 3) / 4 * 4;
        block->alias = !huge && sim_chance(60);
    }
}

/* Drawn beside the generator, so that what other seeds found stays with them. */
static void
plan_commands(SimPlan *plan, uint64_t seed)
{
    uint64_t bits = (seed + 1) * 0x9e3779b97f4a7c15u;
    bits ^= bits >> 29;
    plan->waits_before_switch = (bits & 7) == 0;
    plan->breaks_by_command = (bits >> 3 & 1) != 0;
    plan->wait_ns = UINT64_C(1) << (bits >> 4 & 15) << (bits >> 8 & 7);
    plan->auto_converge = (bits >> 11 & 3) == 0;
    plan->throttle_initial = 1 + (bits >> 13) % 99;
    plan->throttle_tailslow = bits >> 20 & 1;
    plan->recoveries = (bits >> 21 & 7) == 0 ? 0 : (bits >> 24 & 7) == 0 ? 1 : SIM_RECOVERIES_MAX;
    plan->operator_ns = UINT64_C(1) << (10 + (bits >> 27) % 16);
    plan->careless_percent = bits >> 31 & 1 ? 0 : 30;
    plan->again_percent = bits >> 32 & 1 ? 0 : 50;
    plan->break_percent = (bits >> 33 & 3) == 0 ? 40 : 0;
    plan->quit_ns = (bits >> 35 & 15) == 0 ? UINT64_C(1) << (bits >> 39) % 26 : UINT64_MAX;
}

/* As above; an early hang is as good as no connection at all. */
static void
plan_heartbeat(SimPlan *plan, uint64_t seed)
{
    uint64_t bits = (seed + 3) * 0xd1342543de82ef95u;
    bits ^= bits >> 31;
    bool has_word = plan->postcopy || plan->return_path;
    for (unsigned side = 0; side < SIM_SIDES; side++)
        plan->heartbeat_ms[side] = 2 + (bits >> (4 * side) & 7);
    if ((bits >> 32 & 31) == 0) { /* so slow that one beat is late by the time of many pages */
        plan->byte_ps = UINT64_C(1) << (18 + (bits >> 37 & 1));
        plan->capacity_bytes = UINT64_C(64) << (bits >> 38 & 3);
    }
    bool is_auto = bits >> 40 & 1;
    for (unsigned side = 0; side < SIM_SIDES; side++)
        plan->auto_recover[side] = is_auto || (bits >> (41 + side) & 3) == 0;
    plan->deadline_ms = UINT64_C(16) << (bits >> 44) % 6;
    plan->retry_ms = UINT64_C(16) << (bits >> 47 & 3);
    if (is_auto && (bits >> 50 & 3)) /* nobody types a command */
        plan->recoveries = 0;
    plan->hole_ns = bits >> 52 & 3 ? 0 : UINT64_C(1) << (20 + (bits >> 54) % 8);
    if (!has_word || (bits >> 8 & 3)) {
        if ((bits >> 10 & 7) == 0)
            plan->heartbeat_ms[bits >> 13 & 1] = 0;
        return;
    }
    plan->faults[plan->count_faults++] =
        (SimFault){.point = SIM_POINT_HANG,
                   .phase = (SimPhase)((bits >> 14 & 0xff) % SIM_PHASE_OVER),
                   .at = UINT64_C(1) << (4 + (bits >> 22 & 15)),
                   .way = (unsigned)(bits >> 27 & 7)};
    SimFault *hang = &plan->faults[plan->count_faults - 1];
    if (plan->preempt && (bits >> 57 & 3) == 0) { /* nobody hears of it on main */
        hang->phase = SIM_PHASE_POSTCOPY;
        hang->way = bits >> 59 & 1 ? SIM_WAY_ANSWERS : SIM_WAY_REQUESTS;
    }
}

/* Beside the generator too. */
static void
plan_records(SimPlan *plan, uint64_t seed)
{
    uint64_t bits = (seed + 3) * 0xbf58476d1ce4e5b9u;
    bits ^= bits >> 31;
    bits *= 0x94d049bb133111ebu;
    bits ^= bits >> 30;
    plan->records[SIM_SOURCE] = (bits & 3) != 0;
    plan->records[SIM_DESTINATION] = (bits >> 2 & 3) != 0;
    if ((bits >> 4 & 3) == 0)
        plan->faults[plan->count_faults++] =
            (SimFault){.point = SIM_POINT_RECORD, .countdown = (unsigned)(bits >> 6 & 7)};
    if ((bits >> 9 & 3) != 0)
        return;
    SimPoint point = bits >> 11 & 1 ? SIM_POINT_KILL_SOURCE : SIM_POINT_KILL_DESTINATION;
    plan->faults[plan->count_faults++] = (SimFault){
        .point = point,
        .phase = (SimPhase)((bits >> 12 & 0xff) % SIM_PHASE_COUNT),
        .at = (UINT64_C(1) << (bits >> 20 & 0xff) % 21) + (bits >> 28 & 0xfff),
    };
}

/* Another generator beside, for the same reason. */
static uint64_t
mix(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 32)) * 0xd6e8feb86659fd93u;
    return z ^ (z >> 32);
}

/* Bits change only where both sides have checksums: elsewhere nobody could know. */
static void
plan_damage(SimPlan *plan, uint64_t seed)
{
    uint64_t state = seed * 0xaef17502108ef2d9u + 7;
    unsigned chance = mix(&state) % 100;

    plan->checksums[SIM_SOURCE] = chance < 50;
    plan->checksums[SIM_DESTINATION] = chance < 45 || chance >= 95;
    if (chance >= 45 || !plan->return_path || chance % 4 == 0)
        return;
    plan->count_flips = 1 + (unsigned)(mix(&state) % SIM_FLIPS_MAX);
    for (unsigned i = 0; i < plan->count_flips; i++) {
        bool is_header = mix(&state) % 100 < 30;
        unsigned octave = (unsigned)(mix(&state) % (is_header ? 8 : 12));
        uint64_t base = UINT64_C(1) << (is_header ? octave : octave + 8);
        plan->flips[i] = (SimFlip){
            .point = is_header ? SIM_POINT_FLIP_HEADER : SIM_POINT_FLIP_PAGE,
            .way = mix(&state) % 100 < 60 ? 0 : (unsigned)(mix(&state) % 10),
            .at = base + mix(&state) % base - is_header,
            .bit = (unsigned)(mix(&state) % 8),
            .byte = (unsigned)(mix(&state) % 4096),
        };
    }
}

void
sim_plan_make(uint64_t seed)
{
    SimPlan *plan = &sim.plan;
    sim.seed = seed;
    sim.random = seed * 0x2545f4914f6cdd1du + 1;
    memset(plan, 0, sizeof *plan);
    plan_commands(plan, seed);
    plan_blocks(plan);
    plan->count_vcpus = 1 + (unsigned)sim_below(SIM_VCPUS_MAX);
    plan->postcopy = sim_chance(75);
    plan->want_postcopy = plan->postcopy && sim_chance(85);
    plan->preempt = plan->postcopy && sim_chance(50);
    plan->release = plan->postcopy && sim_chance(20);
    plan->return_path = sim_chance(75);
    plan->blocktime = sim_chance(50);
    plan->tracker = sim_chance(20);
    plan->zap_needed = sim_chance(30);
    plan->start_paused = sim_chance(5);
    plan->two_wishes = sim_chance(10);
    plan->poison = sim_chance(15);
    plan->postcopy_ns = sim_chance(20) ? octaves(4, 10) : octaves(10, sim_chance(70) ? 17 : 21);
    plan->idle_ns = octaves(10, 22);
    plan->touch_ns = octaves(7, 14);
    plan->preempt_percent = sim_chance(50) ? 0 : (unsigned)sim_below(8);
    plan->byte_ps = octaves(5, 14);
    plan->delay_ns = octaves(6, 18);
    plan->capacity_bytes = octaves(sim_chance(20) ? 6 : 10, 16);
    plan->extent_bytes = 4 * SIM_PAGE << sim_below(4);
    plan->spurious_percent = sim_chance(50) ? 0 : (unsigned)sim_below(20);
    bool goes_on = plan->want_postcopy && sim_chance(70); /* precopy alone would not end soon */
    if (goes_on) {
        plan->idle_ns = octaves(21, 23);
        plan->touch_ns = octaves(6, 10);
    }
    plan->downtime_ms = goes_on || sim_chance(50) ? 0 : octaves(0, 9);
    plan->bandwidth_bytes_per_s = sim_chance(70) ? 0 : octaves(20, 30);
    plan->walk_percent = sim_chance(50) ? 0 : 70 + (unsigned)sim_below(31);
    plan->neighbour_pages = sim_chance(20) ? 0 : octaves(0, 5);
    plan->push_bytes_per_s = sim_chance(60) ? 0 : octaves(24, 30);
    for (unsigned side = 0; side < SIM_SIDES; side++)
        plan->runs[side] = !sim_chance(15);
    plan->count_faults = sim_chance(30) ? 0 : 1 + (unsigned)sim_below(SIM_FAULTS_DRAWN);
    for (unsigned i = 0; i < plan->count_faults; i++)
        plan->faults[i] = plan_fault();
    plan_records(plan, seed);
    plan_damage(plan, seed);
    plan_heartbeat(plan, seed);
}

void
sim_enter(SimPhase phase)
{
    sim.phase_ns[phase] = MIN(sim.phase_ns[phase], sim.now_ns);
}

void
sim_count(SimPoint point)
{
    SimPhase phase = sim_guest_phase();
    sim_trace("fault: %s, in phase %s", sim_point_name(point), sim_phase_name(phase));
    sim.coverage[phase][point]++;
    sim_table_count(point);
    for (unsigned i = 0; i < sim.plan.count_faults; i++)
        if (sim.plan.faults[i].point == point)
            sim.plan.faults[i].fired = true;
}

bool
sim_inject(SimPoint point)
{
    for (unsigned i = 0; i < sim.plan.count_faults; i++) {
        SimFault *fault = &sim.plan.faults[i];
        if (fault->point != point || fault->fired)
            continue;
        if (fault->countdown-- > 0)
            continue;
        fault->fired = true;
        sim_count(point);
        return true;
    }
    return false;
}

bool
sim_fault_fired(SimPoint point)
{
    for (unsigned i = 0; i < sim.plan.count_faults; i++)
        if (sim.plan.faults[i].fired && sim.plan.faults[i].point == point)
            return true;
    for (unsigned i = 0; i < sim.plan.count_flips; i++)
        if (sim.plan.flips[i].fired && sim.plan.flips[i].point == point)
            return true;
    return false;
}

bool
sim_any_fault_fired(void)
{
    for (unsigned i = 0; i < sim.plan.count_faults; i++)
        if (sim.plan.faults[i].fired)
            return true;
    for (unsigned i = 0; i < sim.plan.count_flips; i++)
        if (sim.plan.flips[i].fired)
            return true;
    return false;
}

/* ---- Telling -----------------------------------------------------------------------------------
 */

void
sim_trace(const char *format, ...)
{
    if (!sim.trace)
        return;
    va_list arguments;
    printf("%10.3f us  %-11s  ", (double)sim.now_ns / 1000.0,
           sim.side == SIM_SOURCE ? "source" : "destination");
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
}

void
sim_fail(const char *format, ...)
{
    va_list arguments;
    char text[1024];

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    sim_trace("BUG: %s", text);
    fflush(stdout);
    if (sim.on_bug) {
        dprintf(STDERR_FILENO, "sim: %s\n", text);
        sim.on_bug();
    }
    dprintf(STDERR_FILENO,
            "seed %lu failed at %.3f us, phase %s: %s\nreplay: build/tests/sim/sim --seed %lu "
            "--trace\n",
            sim.seed, (double)sim.now_ns / 1000.0, sim_phase_name(sim_guest_phase()), text,
            sim.seed);
    _exit(1);
}
