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
#include "tests/sim/sim_schedule.h"

#include <stdio.h>
#include <string.h>

#define STEPS_MAX  400000u
#define QUIET_VCPU 60u /* accesses that wake nobody, after which nothing else will */

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
cpu_latency_hold(void)
{
    return -1;
}

void
cpu_latency_release(int hold G_GNUC_UNUSED)
{
}

void
thread_set_urgency(ThreadUrgency urgency G_GNUC_UNUSED, uint64_t bulk_nice G_GNUC_UNUSED)
{
    sim_check(sim.thread, "thread_set_urgency: not by a role");
}

uint64_t
host_spare_bytes(void)
{
    return sim_chance(90) ? UINT64_MAX : 0;
}

bool
random_fill(void *bytes, size_t length, GError **error G_GNUC_UNUSED)
{
    uint8_t *at = bytes;
    for (size_t i = 0; i < length; i++)
        at[i] = (uint8_t)sim_random();
    return true;
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

/* Loading the devices may sleep, on top of whom it preempted, who then could not go on. */
static bool
may_not_sleep(const Task *task)
{
    return run.is_preempted && task->side == SIM_DESTINATION && !sim_guest_loaded() &&
           strcmp(task->role->name, "package") == 0;
}

static uint64_t
task_next_ns(const Task *task)
{
    if (task->done || task->in_kernel || may_not_sleep(task) || sim.dead[task->side])
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
    if (result == STEP_WAIT)
        sim_trace("%s waits", role->name);
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
    consider(choice, RUN_CONTROL, sim_control_next_ns());
}

static void
run_spurious(void)
{
    SimSide side = (SimSide)sim_below(SIM_SIDES);
    if (!run.used[side] || sim.dead[side])
        return;
    Task *task = &run.threads[side].tasks[sim_below(run.threads[side].count)];
    if (!task->done && !task->in_kernel && !may_not_sleep(task))
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
        sim_control_step();
    else if (what < RUN_NETWORK)
        step_task(task_number(what));
    else
        sim_vcpu_step();
}

/* Runs one task, or moves the clock to where one can run. false: nothing will ever happen again,
 * except that vCPUs touch what they have. */
bool
sim_schedule_once(void)
{
    Choice choice;

    sim_check(++sim.steps < STEPS_MAX, "no end after %u steps", STEPS_MAX);
    sim.now_ns += sim_below(400);
    consider_all(&choice);
    if (choice.count == 0 && choice.next_ns != NEVER && !run.is_preempted) {
        sim.now_ns = choice.next_ns;
        consider_all(&choice);
    }
    bool is_quiet =
        choice.other_next_ns > sim.now_ns && !run.is_preempted && ++run.quiet_accesses > QUIET_VCPU;
    if (is_quiet && choice.other_next_ns == NEVER)
        return false;
    /* Nothing but a time that comes: what the vCPUs touch until then is of no interest. */
    if (is_quiet) {
        sim.now_ns = choice.other_next_ns;
        consider_all(&choice);
    }
    if (choice.count == 0)
        return false;
    if (sim.plan.spurious_percent && sim_chance(sim.plan.spurious_percent))
        run_spurious();
    else
        run_choice(choice.due[sim_below(choice.count)]);
    return true;
}

/* The role that runs now; NULL: control. */
static Task *
current_task(void)
{
    RoleThreads *threads = &run.threads[sim.side];
    for (unsigned i = 0; sim.thread && i < threads->count; i++)
        if (threads->tasks[i].role == sim.thread)
            return &threads->tasks[i];
    return NULL;
}

bool
sim_sleep_until(bool (*condition)(void *opaque), void *opaque)
{
    SimSide side = sim.side;
    const void *thread = sim.thread;
    Task *sleeper = current_task();

    if (sim.over)
        return false;
    sim_check(sleeper, "a guest callback sleeps outside of a role");
    sleeper->in_kernel = true;
    sim.thread = NULL;
    while (!sim.over && !condition(opaque))
        if (!sim_schedule_once())
            sim_check_end();
    sleeper->in_kernel = false;
    sim.side = side;
    sim.thread = thread;
    return condition(opaque);
}

void
sim_preempt(void)
{
    SimSide side = sim.side;
    const void *thread = sim.thread;
    Task *task;

    if (!sim.plan.preempt_percent || sim.over || run.is_preempted ||
        !sim_chance(sim.plan.preempt_percent) || !(task = current_task()))
        return;
    task->in_kernel = run.is_preempted = true;
    sim.thread = NULL;
    for (uint64_t count = 1 + sim_below(30); count > 0 && !sim.over; count--)
        if (!sim_schedule_once())
            break;
    task->in_kernel = run.is_preempted = false;
    sim.side = side;
    sim.thread = thread;
}

void
role_threads_join(RoleThreads *threads)
{
    sim_check(sim.thread == NULL, "role_threads_join: by a role");
    while (!role_threads_are_done(threads))
        sim_check(sim_schedule_once() || role_threads_are_done(threads),
                  "role_threads_join: '%s' does not end", threads->tasks[0].role->name);
    for (unsigned i = 0; i < threads->count; i++)
        g_clear_pointer(&threads->tasks[i].role->ring, transport_ring_free);
    run.used[threads->side] = false;
}
