/* SPDX-License-Identifier: MIT */
/*
 * One seed: two Faultlines, one scheduler, one clock.
 *
 * Defines what engine/threads.c defines in the program (threads, clocks, wake-ups), so that every
 * role of both sides is a task here, beside the vCPUs, the network and the wishes of the control
 * thread. A role that said WAIT runs again when its ring has an event or its time has come, and in
 * some seeds for no reason: a wake-up that the engine forgot ends as "stuck". A callback that
 * sleeps in the kernel (load_state on a missing page) runs the others from inside, its own role
 * excepted.
 */
#include "engine/role.h"
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#define ROLES_MAX  12u
#define STEPS_MAX  400000u
#define QUIET_VCPU 60u /* accesses that wake nobody, after which nothing else will */
#define NEVER      UINT64_MAX

typedef struct Task {
    Role *role;
    SimSide side;
    bool asleep, done, in_kernel;
} Task;

struct RoleThreads {
    SimSide side;
    Task tasks[ROLES_MAX / 2];
    unsigned count;
};

static struct {
    RoleThreads threads[SIM_SIDES];
    bool used[SIM_SIDES];
    Faultline *sides[SIM_SIDES];
    uint64_t wish_ns;
    unsigned count_wishes, quiet_accesses;
    bool cancelled; /* faultline_cancel() has agreed */
} run;

/* ---- What engine/role.h promises ---------------------------------------------------------------
 */

static bool
make_rings(RoleThreads *threads, GError **error)
{
    for (unsigned i = 0; i < threads->count; i++) {
        Role *role = threads->tasks[i].role;
        sim.thread = role;
        role->ring = transport_ring_new(error);
        sim.thread = NULL;
        if (role->ring)
            continue;
        while (i-- > 0)
            g_clear_pointer(&threads->tasks[i].role->ring, transport_ring_free);
        return false;
    }
    return true;
}

RoleThreads *
role_threads_start(Role *const *roles, unsigned count, GError **error)
{
    RoleThreads *threads = &run.threads[sim.side];
    sim_check(!run.used[sim.side], "role_threads_start: the side has threads");
    sim_check(count <= G_N_ELEMENTS(threads->tasks), "role_threads_start: %u roles", count);
    threads->side = sim.side;
    threads->count = count;
    for (unsigned i = 0; i < count; i++)
        threads->tasks[i] = (Task){.role = roles[i], .side = sim.side};
    if (!make_rings(threads, error))
        return NULL;
    run.used[sim.side] = true;
    return threads;
}

bool
role_threads_are_done(const RoleThreads *threads)
{
    for (unsigned i = 0; i < threads->count; i++)
        if (!threads->tasks[i].done)
            return false;
    return true;
}

uint64_t
clock_now_ns(void)
{
    return sim.now_ns;
}

int64_t
clock_wall_us(void)
{
    return (int64_t)(sim.now_ns / 1000);
}

int
wakeup_open(GError **error G_GNUC_UNUSED)
{
    return 3000000 + (int)sim.side;
}

void
wakeup_signal(int fd G_GNUC_UNUSED)
{
}

void
wakeup_clear(int fd G_GNUC_UNUSED)
{
}

void
wakeup_close(int fd G_GNUC_UNUSED)
{
}

/* ---- Tasks -------------------------------------------------------------------------------------
 */

static uint64_t
task_next_ns(const Task *task)
{
    if (task->done || task->in_kernel)
        return NEVER;
    if (!task->asleep || sim_ring_has_event(task->role->ring))
        return 0;
    return task->role->wake_ns ? task->role->wake_ns : NEVER;
}

static void
step_task(Task *task)
{
    Role *role = task->role;
    SimSide side = sim.side;
    const void *thread = sim.thread;

    sim.side = task->side;
    sim.thread = role;
    if (task->asleep)
        sim_ring_take_event(role->ring);
    task->asleep = false;
    role->wake_ns = 0;
    StepResult result = role->step(role->self);
    if (result == STEP_DONE) {
        sim_trace("%s is done", role->name);
        if (role->close)
            role->close(role->self);
        task->done = true;
    }
    task->asleep = result == STEP_WAIT;
    sim.side = side;
    sim.thread = thread;
}

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
do_fault(SimFault *fault)
{
    g_autoptr(GError) error = NULL;
    sim.side = SIM_SOURCE;
    sim_count(fault->point);
    fault->fired = true;
    if (fault->point == SIM_POINT_CUT_TIME) {
        sim_network_cut(fault->way == 0 ? UINT_MAX : fault->way / 2);
        return;
    }
    bool ok = faultline_cancel(run.sides[SIM_SOURCE], &error);
    run.cancelled |= ok;
    sim_trace("control: cancel: %s", ok ? "yes" : error->message);
}

static SimFault *
next_timed_fault(void)
{
    SimFault *next = NULL;
    for (unsigned i = 0; i < sim.plan.count_faults; i++) {
        SimFault *fault = &sim.plan.faults[i];
        bool timed = fault->point == SIM_POINT_CUT_TIME || fault->point == SIM_POINT_CANCEL;
        if (timed && !fault->fired && (!next || fault->at < next->at))
            next = fault;
    }
    return next;
}

static uint64_t
control_next_ns(void)
{
    SimFault *fault = next_timed_fault();
    return MIN(run.wish_ns, fault ? fault->at : NEVER);
}

static void
control_step(void)
{
    SimFault *fault = next_timed_fault();
    if (fault && fault->at <= sim.now_ns)
        do_fault(fault);
    else
        wish_postcopy();
}

/* ---- The scheduler -----------------------------------------------------------------------------
 */

typedef enum { RUN_NETWORK = ROLES_MAX, RUN_VCPU, RUN_CONTROL, RUN_COUNT } RunKind;

typedef struct Choice {
    unsigned due[RUN_COUNT];
    unsigned count;
    uint64_t next_ns;       /* of all */
    uint64_t other_next_ns; /* of all but the vCPUs */
} Choice;

static void
consider(Choice *choice, unsigned what, uint64_t at_ns)
{
    choice->next_ns = MIN(choice->next_ns, at_ns);
    if (what != RUN_VCPU)
        choice->other_next_ns = MIN(choice->other_next_ns, at_ns);
    if (at_ns <= sim.now_ns)
        choice->due[choice->count++] = what;
}

static Task *
task_number(unsigned number)
{
    return &run.threads[number / (ROLES_MAX / 2)].tasks[number % (ROLES_MAX / 2)];
}

static void
consider_all(Choice *choice)
{
    *choice = (Choice){.next_ns = NEVER, .other_next_ns = NEVER};
    for (unsigned side = 0; side < SIM_SIDES; side++)
        for (unsigned i = 0; run.used[side] && i < run.threads[side].count; i++) {
            unsigned number = side * (ROLES_MAX / 2) + i;
            consider(choice, number, task_next_ns(task_number(number)));
        }
    consider(choice, RUN_NETWORK, sim_network_next_ns());
    consider(choice, RUN_VCPU, sim_vcpu_next_ns());
    consider(choice, RUN_CONTROL, control_next_ns());
}

static void
run_spurious(void)
{
    SimSide side = (SimSide)sim_below(SIM_SIDES);
    if (!run.used[side])
        return;
    Task *task = &run.threads[side].tasks[sim_below(run.threads[side].count)];
    if (!task->done && !task->in_kernel)
        step_task(task);
}

static void
run_choice(unsigned what)
{
    if (what != RUN_VCPU)
        run.quiet_accesses = 0;
    if (what == RUN_NETWORK)
        sim_network_step();
    else if (what == RUN_CONTROL)
        control_step();
    else if (what < RUN_NETWORK)
        step_task(task_number(what));
    else
        sim_vcpu_step();
}

/* Runs one task, or moves the clock to where one can run. false: nothing will ever happen again,
 * except that vCPUs touch what they have. */
static bool
schedule_once(void)
{
    Choice choice;

    sim_check(++sim.steps < STEPS_MAX, "no end after %u steps", STEPS_MAX);
    sim.now_ns += sim_below(400);
    consider_all(&choice);
    if (choice.count == 0 && choice.next_ns != NEVER) {
        sim.now_ns = choice.next_ns;
        consider_all(&choice);
    }
    if (choice.other_next_ns == NEVER && ++run.quiet_accesses > QUIET_VCPU)
        return false;
    if (choice.count == 0)
        return false;
    if (sim.plan.spurious_percent && sim_chance(sim.plan.spurious_percent))
        run_spurious();
    else
        run_choice(choice.due[sim_below(choice.count)]);
    return true;
}

static void check_end(void);

bool
sim_sleep_until(bool (*condition)(void *opaque), void *opaque)
{
    Task *sleeper = NULL;
    SimSide side = sim.side;
    const void *thread = sim.thread;

    if (sim.over)
        return false;
    for (unsigned i = 0; i < run.threads[side].count; i++)
        if (run.threads[side].tasks[i].role == thread)
            sleeper = &run.threads[side].tasks[i];
    sim_check(sleeper, "a guest callback sleeps outside of a role");
    sleeper->in_kernel = true;
    sim.thread = NULL;
    while (!sim.over && !condition(opaque))
        if (!schedule_once())
            check_end();
    sleeper->in_kernel = false;
    sim.side = side;
    sim.thread = thread;
    return condition(opaque);
}

void
role_threads_join(RoleThreads *threads)
{
    sim_check(sim.thread == NULL, "role_threads_join: by a role");
    while (!role_threads_are_done(threads))
        sim_check(schedule_once() || role_threads_are_done(threads),
                  "role_threads_join: '%s' does not end", threads->tasks[0].role->name);
    for (unsigned i = 0; i < threads->count; i++)
        g_clear_pointer(&threads->tasks[i].role->ring, transport_ring_free);
    run.used[threads->side] = false;
}

/* ---- What must hold at the end -----------------------------------------------------------------
 */

static bool
status_is_final(FaultlineStatus status)
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

static FaultlineInfo info[SIM_SIDES];

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

/* Nobody runs the guest: is there a reason? */
static void
check_nobody_runs(void)
{
    FaultlineStatus source = info[SIM_SOURCE].status;
    bool paused = source == FAULTLINE_STATUS_POSTCOPY_PAUSED;
    bool given_up = info[SIM_SOURCE].run_state == FAULTLINE_RUN_POSTMIGRATE;
    bool excused = sim.plan.start_paused || sim_fault_fired(SIM_POINT_RESUME) ||
                   sim_fault_fired(SIM_POINT_PAUSE);
    sim_check(excused || paused || given_up, "the guest runs nowhere without a reason: %s",
              describe_end());
}

static void
check_end(void)
{
    for (unsigned side = 0; side < SIM_SIDES; side++)
        faultline_query(run.sides[side], &info[side]);
    if (sim.trace) {
        g_autofree char *text = describe_end();
        sim_trace("end: %s", text);
    }
    bool started = run.used[SIM_SOURCE];
    sim_check(!started || status_is_final(info[SIM_SOURCE].status), "stuck: %s", describe_end());
    bool arrived = started && sim_guest_loaded();
    sim_check(!arrived || status_is_final(info[SIM_DESTINATION].status), "stuck: %s",
              describe_end());
    sim_guest_check_end();
    check_completed();
    if (!sim_guest_running(SIM_SOURCE) && !sim_guest_running(SIM_DESTINATION))
        check_nobody_runs();
    if (!sim_any_fault_fired())
        sim_check(info[SIM_SOURCE].status == FAULTLINE_STATUS_COMPLETED &&
                      info[SIM_DESTINATION].status == FAULTLINE_STATUS_COMPLETED,
                  "nothing failed, and the migration did not complete: %s", describe_end());
    sim.over = true;
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
    set_capability(side, "postcopy-ram", plan->postcopy);
    set_capability(side, "postcopy-preempt", plan->preempt);
    set_capability(side, "return-path", plan->return_path);
    if (side == SIM_SOURCE)
        set_capability(side, "release-ram", plan->release);
    else
        set_capability(side, "postcopy-blocktime", plan->blocktime);
    set_parameter(side, "downtime-limit", plan->downtime_ms);
    set_parameter(side, "max-bandwidth", plan->bandwidth_bytes_per_s);
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
    for (unsigned i = 0; i < SIM_SIDES; i++) {
        sim.side = (SimSide)((first + i) % SIM_SIDES);
        faultline_free(run.sides[sim.side]);
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
    memset(&run, 0, sizeof run);
    sim_plan_make(seed);
    sim_transport_reset();
    sim_uffd_reset();
    sim_guest_reset();
    run.wish_ns = sim.plan.want_postcopy ? sim.now_ns + sim.plan.postcopy_ns : NEVER;
    make_side(SIM_SOURCE);
    make_side(SIM_DESTINATION);
    if (start())
        while (!sim.over)
            if (!schedule_once())
                check_end();
    finish();
}
