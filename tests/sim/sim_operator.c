/* SPDX-License-Identifier: MIT */
/*
 * Who does something about a pause: an operator at both sides, who looks at the statuses, listens
 * again at the destination, resumes at the source, at one of a few addresses; now and then too
 * early, now and then breaking it again, and in some seeds ending everything in the midst. When the
 * destination is dead, the guest is taken back if its record allows that.
 */
#include "engine/context.h"
#include "tests/sim/sim_record.h"
#include "tests/sim/sim_schedule.h"

static FaultlineStatus
status_of(SimSide side)
{
    return run.sides[side] ? context_status(run.sides[side]) : FAULTLINE_STATUS_NONE;
}

static bool
any_is(FaultlineStatus status)
{
    return status_of(SIM_SOURCE) == status || status_of(SIM_DESTINATION) == status;
}

bool
sim_is_paused(void)
{
    return any_is(FAULTLINE_STATUS_POSTCOPY_PAUSED) && !sim_is_recovering();
}

bool
sim_is_recovering(void)
{
    return any_is(FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP) ||
           any_is(FAULTLINE_STATUS_POSTCOPY_RECOVER);
}

/* The destination still needs its source. */
static bool
is_of_use(void)
{
    FaultlineStatus status = status_of(SIM_DESTINATION);
    return status == FAULTLINE_STATUS_POSTCOPY_ACTIVE ||
           status == FAULTLINE_STATUS_POSTCOPY_PAUSED ||
           status == FAULTLINE_STATUS_POSTCOPY_RECOVER;
}

bool
sim_operator_has_given_up(void)
{
    return run.recoveries >= sim.plan.recoveries || sim.plan.release || sim.dead[SIM_SOURCE] ||
           sim.dead[SIM_DESTINATION];
}

static bool
can_listen(void)
{
    return status_of(SIM_DESTINATION) == FAULTLINE_STATUS_POSTCOPY_PAUSED && !run.listens;
}

/* It is over, and stays to say so. */
static bool
is_unheard(void)
{
    return run.sides[SIM_DESTINATION] &&
           progress_get(&run.sides[SIM_DESTINATION]->progress.is_unheard);
}

static bool
can_resume(void)
{
    return status_of(SIM_SOURCE) == FAULTLINE_STATUS_POSTCOPY_PAUSED &&
           (is_of_use() || is_unheard());
}

/* Before the destination listens. */
static bool
may_be_careless(void)
{
    return sim.plan.careless_percent && run.recoveries + 4 < sim.plan.recoveries;
}

static uint64_t
soon_ns(void)
{
    return sim.now_ns + 1 + sim_below(sim.plan.operator_ns);
}

/* Something else was made to fail than connections. */
static bool
is_excused(void)
{
    for (unsigned i = 0; i < sim.plan.count_faults; i++) {
        SimPoint point = sim.plan.faults[i].point;
        bool is_break =
            point == SIM_POINT_CUT_BYTE || point == SIM_POINT_CUT_TIME || point == SIM_POINT_HANG;
        if (sim.plan.faults[i].fired && !is_break)
            return true;
    }
    return sim.plan.count_flips != 0;
}

/* A side that finds fault with what the other one says would get over it by another recovery, and
 * nobody would notice. */
static void
check_reason(SimSide side)
{
    const GError *error = run.sides[side] ? run.sides[side]->error : NULL;

    if (status_of(side) == FAULTLINE_STATUS_POSTCOPY_PAUSED &&
        g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER))
        sim_check(is_excused(), "nothing but connections failed, and it paused for: %s",
                  error->message);
}

/* ---- A guest that comes back ------------------------------------------------------------------
 */

static bool
can_take_back(void)
{
    FaultlineLastWords words;
    FaultlineStatus status = status_of(SIM_SOURCE);
    bool is_open = status == FAULTLINE_STATUS_POSTCOPY_PAUSED || status == FAULTLINE_STATUS_FAILED;

    return is_open && !run.has_tried_back && run.used[SIM_SOURCE] && !sim.dead[SIM_SOURCE] &&
           sim.dead[SIM_DESTINATION] && sim_record_last_words(SIM_DESTINATION, &words) &&
           faultline_run_state(run.sides[SIM_SOURCE]) == FAULTLINE_RUN_POSTMIGRATE;
}

static void
take_back(void)
{
    g_autoptr(GError) error = NULL;
    FaultlineLastWords words;

    sim.side = SIM_SOURCE;
    sim_record_last_words(SIM_DESTINATION, &words);
    bool is_proof = words.owner == FAULTLINE_OWNER_COMING || words.owner == FAULTLINE_OWNER_REFUSED;
    if (words.owner == FAULTLINE_OWNER_COMING) {
        words.has_ended = false;
        sim_check(!faultline_take_back(run.sides[SIM_SOURCE], &words, NULL),
                  "taken back from a destination that may live");
        words.has_ended = true;
    }
    bool ok = faultline_take_back(run.sides[SIM_SOURCE], &words, &error);
    bool may_fail =
        sim.plan.release || sim_fault_fired(SIM_POINT_RESUME) || sim_fault_fired(SIM_POINT_RECORD);
    sim_trace("control: take back: %s", ok ? "yes" : error->message);
    sim_check(ok || !is_proof || may_fail, "take back: %s", ok ? "" : error->message);
    sim_check(!ok || (is_proof && !sim_guest_ever_ran(SIM_DESTINATION)),
              "taken back on the word '%s'", faultline_owner_name(words.owner));
    sim_check(!ok || sim_guest_running(SIM_SOURCE) || sim.plan.start_paused || may_fail,
              "taken back, and the guest does not run");
    run.has_tried_back = ok || ++run.count_refused > 2; /* a disk that was full */
    sim.outcomes[SIM_OUTCOME_TAKEN_BACK] += ok;
}

uint64_t
sim_operator_next_ns(void)
{
    check_reason(SIM_SOURCE);
    check_reason(SIM_DESTINATION);
    if (sim_is_paused())
        sim_enter(SIM_PHASE_PAUSED);
    uint64_t quit_ns = sim.phase_ns[SIM_PHASE_PAUSED] == NEVER || sim.plan.quit_ns == NEVER
                           ? NEVER
                           : sim.phase_ns[SIM_PHASE_PAUSED] + sim.plan.quit_ns;
    if (status_of(SIM_DESTINATION) != FAULTLINE_STATUS_POSTCOPY_PAUSED)
        run.listens = false;
    bool has_work =
        !sim_operator_has_given_up() &&
        (can_listen() || (can_resume() && (run.listens || is_unheard() || may_be_careless())));
    if (has_work && run.operator_ns == NEVER)
        run.operator_ns = soon_ns();
    if (!has_work)
        run.operator_ns = NEVER;
    if (sim_operator_has_given_up())
        run.break_ns = NEVER;
    if (!can_take_back())
        run.back_ns = NEVER;
    else if (run.back_ns == NEVER)
        run.back_ns = soon_ns();
    return MIN(MIN(quit_ns, run.back_ns), MIN(run.operator_ns, run.break_ns));
}

static void
listen_again(void)
{
    g_autoptr(GError) error = NULL;
    sim.side = SIM_DESTINATION;
    run.address = (unsigned)sim_below(4);
    run.listens = faultline_recover(run.sides[SIM_DESTINATION], sim_address(run.address), &error);
    sim_trace("control: recover: %s", run.listens ? "yes" : error->message);
    /* Who keeps on listening, and is told another address meanwhile, lets go of the first soon. */
    bool is_busy = sim.plan.auto_recover[SIM_DESTINATION];
    sim_check(run.listens || is_busy || sim_fault_fired(SIM_POINT_LISTEN), "recover: %s",
              run.listens ? "" : error->message);
}

static void
resume(void)
{
    g_autoptr(GError) error = NULL;
    sim.side = SIM_SOURCE;
    run.recoveries++;
    bool ok = faultline_migrate_resume(run.sides[SIM_SOURCE], sim_address(run.address), &error);
    sim_trace("control: resume: %s", ok ? "yes" : error->message);
    sim_check(ok, "resume: %s", ok ? "" : error->message);
    sim_enter(SIM_PHASE_RECOVER);
    sim.outcomes[SIM_OUTCOME_RECOVERIES]++;
    if (run.break_ns == NEVER && sim_chance(sim.plan.break_percent))
        run.break_ns = soon_ns();
}

static void
break_again(void)
{
    g_autoptr(GError) error = NULL;
    sim.side = sim_chance(50) ? SIM_SOURCE : SIM_DESTINATION;
    bool ok = faultline_pause(run.sides[sim.side], &error);
    sim_trace("control: pause: %s", ok ? "yes" : error->message);
    run.break_ns = NEVER;
}

void
sim_operator_step(void)
{
    if (sim.plan.quit_ns != NEVER && sim.phase_ns[SIM_PHASE_PAUSED] != NEVER &&
        sim.phase_ns[SIM_PHASE_PAUSED] + sim.plan.quit_ns <= sim.now_ns) {
        sim_trace("control: ends everything");
        sim.outcomes[SIM_OUTCOME_QUITS]++;
        sim_guest_kill();
        sim.over = true;
        return;
    }
    if (run.back_ns <= sim.now_ns) {
        take_back();
        return;
    }
    if (run.break_ns <= sim.now_ns) {
        break_again();
        return;
    }
    run.operator_ns = NEVER;
    bool is_careless = may_be_careless() && sim_chance(sim.plan.careless_percent);
    if (can_resume() && (run.listens || is_unheard() || is_careless))
        resume();
    else if (can_listen())
        listen_again();
}
