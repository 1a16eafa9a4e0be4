/* SPDX-License-Identifier: MIT */
/*
 * What must hold at the end, which is when nothing will happen any more. Then the guest runs at one
 * side that has all of it, or is paused with every page at one side or the other; both statuses say
 * so; and if nothing was made to fail, the migration has completed.
 */
#include "engine/destination/destination.h"
#include "tests/sim/sim_record.h"
#include "tests/sim/sim_schedule.h"

static FaultlineInfo info[SIM_SIDES];

bool
sim_status_is_final(FaultlineStatus status)
{
    return status == FAULTLINE_STATUS_COMPLETED || status == FAULTLINE_STATUS_FAILED ||
           status == FAULTLINE_STATUS_CANCELLED || status == FAULTLINE_STATUS_POSTCOPY_PAUSED;
}

static void
describe_roles(GString *text)
{
    for (unsigned side = 0; side < SIM_SIDES; side++)
        for (unsigned i = 0; run.used[side] && i < run.threads[side].count; i++) {
            const Task *task = &run.threads[side].tasks[i];
            g_string_append_printf(text, " %s:%s", task->role->name,
                                   task->done        ? "done"
                                   : task->in_kernel ? "in kernel"
                                                     : "waits");
        }
}

static char *
describe_end(void)
{
    GString *text = g_string_new(NULL);
    for (unsigned side = 0; side < SIM_SIDES; side++)
        g_string_append_printf(text, "%s: %s, guest %s%s, error '%s'; ",
                               side == SIM_SOURCE ? "source" : "destination",
                               faultline_status_name(info[side].status),
                               faultline_run_state_name(info[side].run_state),
                               sim_guest_running((SimSide)side) ? " (runs)" : "", info[side].error);
    describe_roles(text);
    return g_string_free(text, FALSE);
}

static void
check_completed(void)
{
    bool source_runs = sim_guest_running(SIM_SOURCE);
    if (info[SIM_SOURCE].status == FAULTLINE_STATUS_COMPLETED)
        sim_check(!source_runs, "completed, and the guest runs at the source");
    if (info[SIM_DESTINATION].status == FAULTLINE_STATUS_COMPLETED)
        sim_check(sim_guest_whole() && sim_guest_loaded() &&
                      (sim_guest_ever_ran(SIM_DESTINATION) || sim.plan.start_paused ||
                       sim_fault_fired(SIM_POINT_RESUME)),
                  "destination says completed, and has not the whole guest: %s", describe_end());
}

static bool
has_paused(void)
{
    FaultlinePauses pauses;
    faultline_query_pauses(run.sides[SIM_SOURCE], &pauses);
    return pauses.count != 0;
}

/* A migration with checksums does not end before all of memory was compared, but for a destination
 * that has all pages when it loses the source: it is whole, and does not wait to be told. */
static void
check_verdict(void)
{
    const SimPlan *plan = &sim.plan;
    bool has_checksums =
        plan->checksums[SIM_SOURCE] && plan->checksums[SIM_DESTINATION] && plan->return_path;

    for (unsigned side = 0; side < SIM_SIDES; side++) {
        bool is_lost = sim_any_fault_fired() &&
                       info[SIM_DESTINATION].integrity.verdict == FAULTLINE_VERDICT_UNCHECKED &&
                       (info[SIM_SOURCE].status != FAULTLINE_STATUS_COMPLETED || has_paused());
        bool must_pass =
            has_checksums && info[side].status == FAULTLINE_STATUS_COMPLETED && !is_lost;
        sim_check(!must_pass || info[side].integrity.verdict == FAULTLINE_VERDICT_PASSED,
                  "completed with checksums, and the verdict is %s: %s",
                  faultline_verdict_name(info[side].integrity.verdict), describe_end());
        sim_check(info[side].integrity.verdict != FAULTLINE_VERDICT_FAILED,
                  "the verdict is failed: %s", describe_end());
    }
}

/* Nobody runs the guest: is there a reason? */
static void
check_nobody_runs(void)
{
    FaultlineStatus source = info[SIM_SOURCE].status;
    bool paused = source == FAULTLINE_STATUS_POSTCOPY_PAUSED;
    bool given_up = info[SIM_SOURCE].run_state == FAULTLINE_RUN_POSTMIGRATE;
    bool excused = sim.plan.start_paused || sim_fault_fired(SIM_POINT_RESUME) ||
                   sim_fault_fired(SIM_POINT_PAUSE);
    bool was_cut = sim_fault_fired(SIM_POINT_CUT_BYTE) || sim_fault_fired(SIM_POINT_CUT_TIME) ||
                   sim_fault_fired(SIM_POINT_HANG) || sim_fault_fired(SIM_POINT_FLIP_PAGE);
    /* A destination that fails says SHUT 1. It cannot when its fault role is gone or it closed the
     * links before, for a page that could not be placed; and a source
     * whose urgent channel breaks first has stopped to listen. */
    bool could_tell = sim.plan.return_path && !sim.plan.preempt && !was_cut && !sim.plan.release &&
                      !sim_fault_fired(SIM_POINT_WATCH) && !sim_fault_fired(SIM_POINT_PLACE) &&
                      !sim_network_has_reset();
    if (sim_network_met() && !sim_guest_ever_ran(SIM_DESTINATION) && could_tell && !excused)
        sim_check(info[SIM_DESTINATION].status != FAULTLINE_STATUS_FAILED,
                  "the destination failed and could say so, and the guest runs nowhere: %s",
                  describe_end());
    sim_check(excused || paused || given_up, "the guest runs nowhere without a reason: %s",
              describe_end());
}

static void
count_outcome(void)
{
    SimOutcome outcome = SIM_OUTCOME_REFUSED;
    switch (info[SIM_SOURCE].status) {
    case FAULTLINE_STATUS_COMPLETED:
        outcome = info[SIM_DESTINATION].postcopy_requests || info[SIM_SOURCE].pushed_pages
                      ? SIM_OUTCOME_POSTCOPY
                      : SIM_OUTCOME_PRECOPY;
        break;
    case FAULTLINE_STATUS_POSTCOPY_PAUSED:
        outcome = SIM_OUTCOME_PAUSED;
        break;
    case FAULTLINE_STATUS_CANCELLED:
        outcome = SIM_OUTCOME_CANCELLED;
        break;
    default:
        outcome = SIM_OUTCOME_FAILED;
    }
    sim.outcomes[outcome]++;
    for (unsigned side = 0; side < SIM_SIDES; side++) {
        FaultlinePauses pauses;
        faultline_query_pauses(run.sides[side], &pauses);
        sim.outcomes[SIM_OUTCOME_PAUSES] += pauses.count;
    }
    FaultlinePauses pauses;
    faultline_query_pauses(run.sides[SIM_SOURCE], &pauses);
    bool by_itself = pauses.count && !run.recoveries;
    sim.outcomes[SIM_OUTCOME_BY_ITSELF] +=
        by_itself && info[SIM_SOURCE].status == FAULTLINE_STATUS_COMPLETED;
    sim.outcomes[SIM_OUTCOME_REQUESTS] += info[SIM_DESTINATION].postcopy_requests;
    sim.outcomes[SIM_OUTCOME_NEIGHBOURS] += info[SIM_DESTINATION].neighbour_pages;
    const FaultlineIntegrity *integrity = &info[SIM_DESTINATION].integrity;
    sim.outcomes[SIM_OUTCOME_DAMAGED] += integrity->damaged_pages;
    sim.outcomes[SIM_OUTCOME_REPAIRED] +=
        integrity->damaged_pages && info[SIM_SOURCE].status == FAULTLINE_STATUS_COMPLETED;
    sim.outcomes[SIM_OUTCOME_VERDICTS] += integrity->verdict == FAULTLINE_VERDICT_PASSED;
}

/* Two that recover by themselves, of which neither was hindered but by the network, do not end in a
 * pause, and both know how it ended. */
static void
check_healed(void)
{
    bool is_auto = sim.plan.auto_recover[SIM_SOURCE] && sim.plan.auto_recover[SIM_DESTINATION] &&
                   !sim.plan.release && sim.plan.heartbeat_ms[SIM_SOURCE] &&
                   sim.plan.heartbeat_ms[SIM_DESTINATION] && sim.plan.quit_ns == NEVER;
    bool was_hindered = sim.plan.breaks_by_command || run.recoveries || sim.plan.count_flips;
    for (unsigned i = 0; i < sim.plan.count_faults; i++) {
        const SimFault *fault = &sim.plan.faults[i];
        bool is_network = fault->point == SIM_POINT_CUT_BYTE ||
                          fault->point == SIM_POINT_CUT_TIME || fault->point == SIM_POINT_HANG;
        was_hindered |= fault->fired && !is_network;
    }
    uint64_t needs_ns = sim.plan.hole_ns + 3 * sim.plan.retry_ms * 1000000u;
    FaultlinePauses pauses;
    faultline_query_pauses(run.sides[SIM_SOURCE], &pauses);
    /* What breaks again and again while it is taken up is waited for longer each time. */
    bool has_time = sim.plan.deadline_ms >= 256 && sim.plan.deadline_ms * 1000000u > needs_ns &&
                    pauses.count + pauses.attempts < 6;
    if (!is_auto || was_hindered || !has_time || !sim.plan.postcopy)
        return; /* without postcopy-ram nobody comes again */
    sim_check(info[SIM_SOURCE].status != FAULTLINE_STATUS_POSTCOPY_PAUSED,
              "it did not recover by itself: %s", describe_end());
    const Destination *destination = run.sides[SIM_DESTINATION]->destination;
    /* A farewell that is lost costs one that completed nothing. */
    sim_check(!destination || !destination->is_over || destination->has_farewell ||
                  destination->last_word == 0 || sim.plan.count_faults > 1 ||
                  sim_network_count_broken() > 1,
              "the destination stayed, and nobody came: %s", describe_end());
    sim_check(!info[SIM_DESTINATION].is_unheard &&
                  (info[SIM_DESTINATION].status != FAULTLINE_STATUS_COMPLETED ||
                   info[SIM_SOURCE].status == FAULTLINE_STATUS_COMPLETED),
              "the source has not heard how it ended: %s", describe_end());
}

/* What an operator does who sees a source paused leads to the same, as long as the destination
 * listens somewhere. */
static void
check_told(void)
{
    const Destination *destination = run.sides[SIM_DESTINATION]->destination;
    bool is_paused = run.used[SIM_SOURCE] && !sim.dead[SIM_SOURCE] &&
                     info[SIM_SOURCE].status == FAULTLINE_STATUS_POSTCOPY_PAUSED;

    if (!is_paused || sim_operator_has_given_up() || sim.plan.quit_ns != NEVER || !destination ||
        !(destination->features & STREAM_FEATURE_FAREWELL) ||
        destination_flag(&destination->is_held))
        return;
    sim_check(info[SIM_DESTINATION].status != FAULTLINE_STATUS_COMPLETED &&
                  info[SIM_DESTINATION].status != FAULTLINE_STATUS_FAILED,
              "the source is paused beside a destination that is over: %s", describe_end());
}

/* sim hands out a connection on which nothing has come, as only a descriptor does in reality: that
 * is waited for. */
static bool
waits_for_first_byte(void)
{
    const Destination *destination = run.sides[SIM_DESTINATION]->destination;
    return sim_fault_fired(SIM_POINT_HANG) && destination->receiver &&
           !transport_receiver_count_bytes(destination->receiver);
}

void
sim_check_end(void)
{
    for (unsigned side = 0; side < SIM_SIDES; side++)
        faultline_query(run.sides[side], &info[side]);
    if (sim.trace) {
        g_autofree char *text = describe_end();
        sim_trace("end: %s", text);
    }
    bool started = run.used[SIM_SOURCE];
    sim_check(!started || sim.dead[SIM_SOURCE] || sim_status_is_final(info[SIM_SOURCE].status),
              "stuck: %s", describe_end());
    sim_check(!started || !sim_network_met() || sim.dead[SIM_DESTINATION] ||
                  sim_status_is_final(info[SIM_DESTINATION].status) || waits_for_first_byte(),
              "stuck: %s", describe_end());
    sim_guest_check_end();
    sim_record_check_end();
    check_completed();
    check_healed();
    check_told();
    check_verdict();
    sim_check(sim_operator_has_given_up() ||
                  info[SIM_SOURCE].status != info[SIM_DESTINATION].status ||
                  info[SIM_SOURCE].status != FAULTLINE_STATUS_POSTCOPY_PAUSED,
              "paused, and nobody does anything: %s", describe_end());
    sim_check(sim_operator_has_given_up() || sim.plan.recoveries < SIM_RECOVERIES_MAX ||
                  info[SIM_DESTINATION].status != FAULTLINE_STATUS_POSTCOPY_PAUSED,
              "the destination stays paused: %s", describe_end());
    bool has_died = sim.dead[SIM_SOURCE] || sim.dead[SIM_DESTINATION];
    if (!has_died && !sim_guest_running(SIM_SOURCE) && !sim_guest_running(SIM_DESTINATION))
        check_nobody_runs();
    sim_check(!run.cancelled || !sim_guest_ever_ran(SIM_DESTINATION),
              "cancel was agreed to, and the guest ran at the destination: %s", describe_end());
    if (!sim_any_fault_fired())
        sim_check(info[SIM_SOURCE].status == FAULTLINE_STATUS_COMPLETED &&
                      info[SIM_DESTINATION].status == FAULTLINE_STATUS_COMPLETED,
                  "nothing failed, and the migration did not complete: %s", describe_end());
    count_outcome();
    sim.over = true;
}
