/* SPDX-License-Identifier: MIT */
/* One seed's migration: two Faultlines, and what their control threads do. sim_end.c ends it. */
#include "engine/destination/destination.h"
#include "engine/source/source.h"
#include "tests/sim/sim_record.h"
#include "tests/sim/sim_schedule.h"

#include <string.h>

#define KILL_TRIES    50u
#define KILL_LATER_NS 2000u

SimRun run;
static FaultlineInfo info;

/* ---- The control thread's wishes ---------------------------------------------------------------
 */

static void
wish_postcopy(void)
{
    g_autoptr(GError) error = NULL;
    sim.side = SIM_SOURCE;
    bool ok = faultline_start_postcopy(run.sides[SIM_SOURCE], &error);
    sim_trace("control: start postcopy: %s", ok ? "yes" : error->message);
    run.wish_ns =
        ++run.count_wishes < 2 && sim.plan.two_wishes ? sim.now_ns + sim_below(1000000) : NEVER;
}

static void
wish_switchover(void)
{
    g_autoptr(GError) error = NULL;
    sim.side = SIM_SOURCE;
    bool ok = faultline_continue(run.sides[SIM_SOURCE], FAULTLINE_STATUS_PRE_SWITCHOVER, &error);
    sim_trace("control: continue: %s", ok ? "yes" : error->message);
    run.continue_ns = NEVER;
}

/* Breaks the connection from one side; false: that side is not in postcopy. */
static bool
break_by_command(const SimFault *fault)
{
    g_autoptr(GError) error = NULL;
    sim.side = fault->way & 1 ? SIM_SOURCE : SIM_DESTINATION;
    bool ok = sim.plan.breaks_by_command && !sim.dead[sim.side] &&
              faultline_pause(run.sides[sim.side], &error);
    sim_trace("control: pause: %s", ok ? "yes" : error ? error->message : "not wanted");
    return ok;
}

static bool
is_kill(const SimFault *fault)
{
    return fault->point == SIM_POINT_KILL_SOURCE || fault->point == SIM_POINT_KILL_DESTINATION;
}

static uint64_t
fault_ns(const SimFault *fault)
{
    uint64_t began_ns = sim.phase_ns[fault->phase];
    return began_ns == NEVER ? NEVER : began_ns + fault->at;
}

/* At once, or a little later if that is in the midst of a call; given up when that does not end. */
static void
do_kill(SimFault *fault)
{
    SimSide side = fault->point == SIM_POINT_KILL_SOURCE ? SIM_SOURCE : SIM_DESTINATION;

    if (sim_process_can_die(side)) {
        sim_count(fault->point);
        sim_process_die(side);
    } else if (++fault->countdown < KILL_TRIES) {
        fault->at += sim.now_ns - fault_ns(fault) + KILL_LATER_NS;
    } else {
        fault->fired = true;
    }
}

static void
do_fault(SimFault *fault)
{
    g_autoptr(GError) error = NULL;
    sim.side = SIM_SOURCE;
    if (is_kill(fault)) {
        do_kill(fault);
        return;
    }
    sim_count(fault->point);
    fault->fired = true;
    if (fault->point == SIM_POINT_HANG) {
        sim_network_hang(fault->way);
        return;
    }
    if (fault->point == SIM_POINT_CUT_TIME) {
        if (!break_by_command(fault))
            sim_network_cut(fault->way == 0 ? UINT_MAX : fault->way / 2);
        return;
    }
    if (sim.dead[SIM_SOURCE])
        return;
    faultline_query(run.sides[SIM_SOURCE], &info);
    bool ok = faultline_cancel(run.sides[SIM_SOURCE], &error);
    run.cancelled |= ok && !sim_status_is_final(info.status);
    sim_trace("control: cancel: %s", ok ? "yes" : error->message);
}

static SimFault *
next_timed_fault(void)
{
    SimFault *next = NULL;
    for (unsigned i = 0; i < sim.plan.count_faults; i++) {
        SimFault *fault = &sim.plan.faults[i];
        bool timed = fault->point == SIM_POINT_CUT_TIME || fault->point == SIM_POINT_HANG ||
                     fault->point == SIM_POINT_CANCEL || is_kill(fault);
        if (timed && !fault->fired && (!next || fault_ns(fault) < fault_ns(next)))
            next = fault;
    }
    return next;
}

uint64_t
sim_control_next_ns(void)
{
    if (sim.over) /* the sides are being freed */
        return NEVER;
    SimFault *fault = next_timed_fault();
    bool waits = sim.plan.waits_before_switch && run.continue_ns == NEVER &&
                 context_status(run.sides[SIM_SOURCE]) == FAULTLINE_STATUS_PRE_SWITCHOVER &&
                 !source_flag(&run.sides[SIM_SOURCE]->source->wants_switchover);
    if (waits)
        run.continue_ns = sim.now_ns + sim.plan.wait_ns;
    uint64_t next_ns = MIN(MIN(run.wish_ns, run.continue_ns), fault ? fault_ns(fault) : NEVER);
    return MIN(next_ns, sim_operator_next_ns());
}

void
sim_control_step(void)
{
    SimFault *fault = next_timed_fault();
    if (fault && fault_ns(fault) <= sim.now_ns)
        do_fault(fault);
    else if (run.continue_ns <= sim.now_ns)
        wish_switchover();
    else if (run.wish_ns <= sim.now_ns)
        wish_postcopy();
    else
        sim_operator_step();
}

/* ---- One seed ----------------------------------------------------------------------------------
 */

static void
set_capability(SimSide side, const char *name, bool on)
{
    g_autoptr(GError) error = NULL;
    sim_check(faultline_set_capability(run.sides[side], name, on, &error), "%s: %s", name,
              error ? error->message : "");
}

static void
set_parameter(SimSide side, const char *name, uint64_t value)
{
    g_autoptr(GError) error = NULL;
    sim_check(faultline_set_parameter(run.sides[side], name, value, &error), "%s: %s", name,
              error ? error->message : "");
}

static void
make_side(SimSide side)
{
    g_autoptr(GError) error = NULL;
    const SimPlan *plan = &sim.plan;

    sim.side = side;
    run.sides[side] = faultline_new(sim_guest_callbacks(side), sim_guest_opaque(side),
                                    sim_guest_blocks(side), plan->count_blocks, &error);
    sim_check(run.sides[side], "faultline_new: %s", error ? error->message : "no error is set");
    sim_record_attach(side, run.sides[side]);
    set_capability(side, "postcopy-ram", plan->postcopy);
    set_capability(side, "postcopy-preempt", plan->preempt);
    set_capability(side, "return-path", plan->return_path);
    set_capability(side, "page-runs", plan->runs[side]);
    set_capability(side, "page-checksums", plan->checksums[side]);
    if (side == SIM_SOURCE)
        set_capability(side, "release-ram", plan->release);
    if (side == SIM_SOURCE) {
        set_capability(side, "pause-before-switchover", plan->waits_before_switch);
        set_capability(side, "auto-converge", plan->auto_converge);
        set_parameter(side, "cpu-throttle-initial", plan->throttle_initial);
        set_parameter(side, "cpu-throttle-tailslow", plan->throttle_tailslow);
    } else
        set_capability(side, "postcopy-blocktime", plan->blocktime);
    set_parameter(side, "heartbeat-timeout", plan->heartbeat_ms[side]);
    set_capability(side, "auto-recover", plan->auto_recover[side]);
    set_parameter(side, "recover-deadline", plan->deadline_ms);
    set_parameter(side, "recover-retry", plan->retry_ms);
    set_parameter(side, "downtime-limit", plan->downtime_ms);
    set_parameter(side, "max-bandwidth", plan->bandwidth_bytes_per_s);
    set_parameter(side, "max-postcopy-bandwidth", plan->push_bytes_per_s);
    set_parameter(side, "neighbour-pages", plan->neighbour_pages);
}

/* What the control threads do at first. false: something was refused, so nothing goes on. */
static bool
start(void)
{
    g_autoptr(GError) error = NULL;

    sim.side = SIM_SOURCE;
    if (!sim.plan.start_paused && !faultline_cont(run.sides[SIM_SOURCE], &error)) {
        sim_trace("cont: %s", error->message);
        return false;
    }
    sim.side = SIM_DESTINATION;
    if (!faultline_incoming(run.sides[SIM_DESTINATION], SIM_URI, &error)) {
        sim_trace("incoming: %s", error->message);
        sim_check(sim_any_fault_fired(), "incoming: %s", error->message);
        g_clear_error(&error);
    }
    sim.side = SIM_SOURCE;
    if (!faultline_migrate(run.sides[SIM_SOURCE], SIM_URI, &error)) {
        sim_trace("migrate: %s", error->message);
        sim_check(sim_any_fault_fired(), "migrate: %s", error->message);
        return false;
    }
    return true;
}

static void
finish(void)
{
    unsigned first = (unsigned)sim_below(SIM_SIDES);
    sim.over = true;
    sim.dead[SIM_SOURCE] = sim.dead[SIM_DESTINATION] = false;
    for (unsigned i = 0; i < SIM_SIDES; i++) {
        SimSide side = (SimSide)((first + i) % SIM_SIDES);
        sim.side = side;
        faultline_free(run.sides[side]);
        run.sides[side] = NULL; /* the other one's last words may still look at it */
    }
    sim_transport_check_freed();
    sim_uffd_check_freed();
}

void
sim_run(uint64_t seed)
{
    sim.now_ns = 1000000;
    sim.steps = 0;
    sim.over = false;
    sim.side = SIM_SOURCE;
    sim.thread = NULL;
    memset(sim.phase_ns, 0xff, sizeof sim.phase_ns);
    sim_enter(SIM_PHASE_SETUP);
    memset(&run, 0, sizeof run);
    sim_plan_make(seed);
    sim.plan.idle_ns += sim.now_ns;
    sim_transport_reset();
    sim_uffd_reset();
    sim_guest_reset();
    sim_record_reset();
    run.continue_ns = run.operator_ns = run.break_ns = run.back_ns = NEVER;
    run.wish_ns = sim.plan.want_postcopy ? sim.now_ns + sim.plan.postcopy_ns : NEVER;
    make_side(SIM_SOURCE);
    make_side(SIM_DESTINATION);
    if (!start())
        sim.outcomes[SIM_OUTCOME_REFUSED]++;
    else
        while (!sim.over)
            if (!sim_schedule_once())
                sim_check_end();
    finish();
}
