/* SPDX-License-Identifier: MIT */
/* See plan.h. The same seed and limits give the same plan; what the two processes make of it
 * differs a little each time. */
#include "tests/chaos/plan.h"

#include <string.h>

static const char *const fault_names[] = {
#define FAULT_NAME(name, text) text,
    FAULT_LIST(FAULT_NAME)
#undef FAULT_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(fault_names) == FAULT_COUNT);

static const char *const moment_names[] = {"connecting", "a pass", "the switch-over", "postcopy"};
G_STATIC_ASSERT(G_N_ELEMENTS(moment_names) == MOMENT_COUNT);

/* How often each is drawn. */
static const unsigned fault_weights[] = {
    [FAULT_NONE] = 1,        [FAULT_CLOSE] = 4,
    [FAULT_RESET] = 5,       [FAULT_TRUNCATE] = 5,
    [FAULT_HANG] = 4,        [FAULT_DELAY] = 3,
    [FAULT_SPLIT] = 3,       [FAULT_FLIP] = 4,
    [FAULT_KILL_SOURCE] = 4, [FAULT_KILL_DESTINATION] = 4,
    [FAULT_STOP_SOURCE] = 2, [FAULT_STOP_DESTINATION] = 2,
};
G_STATIC_ASSERT(G_N_ELEMENTS(fault_weights) == FAULT_COUNT);

static const RelayAct acts[] = {
    [FAULT_NONE] = RELAY_NOTHING,     [FAULT_CLOSE] = RELAY_CLOSE,
    [FAULT_RESET] = RELAY_RESET,      [FAULT_TRUNCATE] = RELAY_TRUNCATE,
    [FAULT_HANG] = RELAY_HANG,        [FAULT_DELAY] = RELAY_DELAY,
    [FAULT_SPLIT] = RELAY_SPLIT,      [FAULT_FLIP] = RELAY_FLIP,
    [FAULT_KILL_SOURCE] = RELAY_CALL, [FAULT_KILL_DESTINATION] = RELAY_CALL,
    [FAULT_STOP_SOURCE] = RELAY_CALL, [FAULT_STOP_DESTINATION] = RELAY_CALL,
};
G_STATIC_ASSERT(G_N_ELEMENTS(acts) == FAULT_COUNT);

const char *
fault_name(Fault fault)
{
    return fault_names[fault];
}

Fault
fault_of(const char *name)
{
    unsigned i = 0;

    while (i < FAULT_COUNT && strcmp(fault_names[i], name) != 0)
        i++;
    return (Fault)i;
}

static unsigned
draw_below(GRand *random, unsigned limit)
{
    return (unsigned)g_rand_int_range(random, 0, (gint32)limit);
}

static bool
draw_of(GRand *random, unsigned percent)
{
    return draw_below(random, 100) < percent;
}

/* 0 .. limit, small ones as often as large ones. */
static uint64_t
draw_scale(GRand *random, uint64_t limit)
{
    uint64_t top = (uint64_t)2 << draw_below(random, 30);
    return MIN((uint64_t)(g_rand_double(random) * (double)top), limit);
}

static Fault
draw_fault(GRand *random, const PlanLimits *limits)
{
    unsigned sum = 0;

    for (unsigned i = 0; i < FAULT_COUNT; i++)
        sum += fault_weights[i];
    unsigned at = draw_below(random, sum);
    unsigned fault = 0;
    while (at >= fault_weights[fault])
        at -= fault_weights[fault++];
    if (limits->only >= 0)
        return (Fault)limits->only;
    return fault == FAULT_FLIP && !limits->with_flips ? FAULT_TRUNCATE : (Fault)fault;
}

static void
draw_migration(Plan *plan, GRand *random, const PlanLimits *limits)
{
    static const unsigned pushes[] = {0, 8, 16, 64}, sizes[] = {8, 12, 16};
    bool wants_kvm = draw_of(random, 50);

    plan->is_kvm = limits->with_kvm && (wants_kvm || !limits->with_threads);
    plan->is_unix = draw_of(random, 35);
    plan->memory_mib = sizes[draw_below(random, G_N_ELEMENTS(sizes))];
    plan->cpus = 1 + draw_of(random, 25);
    plan->write_rate = draw_of(random, 50) ? 20000 : 0;
    plan->is_postcopy = draw_of(random, 80);
    plan->preempt = draw_of(random, 60) && plan->is_postcopy;
    plan->passes = draw_below(random, 3);
    plan->max_mib_per_s = 4 * plan->memory_mib;
    plan->push_mib_per_s = pushes[draw_below(random, G_N_ELEMENTS(pushes))];
    plan->no_runs = draw_of(random, 20);
    plan->no_words = draw_of(random, 20);
    plan->no_urgent_requests = draw_of(random, 30);
    plan->arrives_stopped = draw_of(random, 15);
}

static Moment
draw_moment(GRand *random, bool is_postcopy)
{
    unsigned at = draw_below(random, 100);

    if (at < 8)
        return MOMENT_CONNECT;
    if (!is_postcopy)
        return at < 40 ? MOMENT_PASS : MOMENT_SWITCHOVER;
    return at < 25 ? MOMENT_PASS : at < 60 ? MOMENT_SWITCHOVER : MOMENT_POSTCOPY;
}

static void
draw_strike(Plan *plan, GRand *random)
{
    static const unsigned paces[] = {0, 0, 256, 2048, 16384};
    RelayStrike *strike = &plan->strike;
    uint64_t all = (uint64_t)plan->memory_mib << 20;

    plan->moment = draw_moment(random, plan->is_postcopy);
    strike->act = acts[plan->fault];
    strike->connection = plan->preempt && draw_of(random, 30);
    strike->way = draw_of(random, 70) ? RELAY_THERE : RELAY_BACK;
    strike->on_all = draw_of(random, 60);
    if (plan->moment == MOMENT_SWITCHOVER)
        all = 512 * 1024;
    strike->after_bytes = draw_scale(random, strike->way == RELAY_BACK ? 512 : all);
    strike->after_ms = 1 + draw_below(random, 400);
    strike->length_ms = 20 + draw_below(random, 300);
    strike->length_bytes = 1000 + draw_below(random, 8000);
    strike->bit = draw_below(random, 8);
    plan->arms_early = draw_of(random, 40);
    plan->queue_bytes = draw_of(random, 60) ? 16384 : 0;
    if (plan->moment >= MOMENT_SWITCHOVER)
        plan->pace_bytes = paces[draw_below(random, G_N_ELEMENTS(paces))];
}

void
plan_draw(Plan *ret_plan, uint64_t seed, const PlanLimits *limits)
{
    const guint32 seeds[] = {(guint32)seed, (guint32)(seed >> 32), 0xfa17};
    g_autoptr(GRand) random = g_rand_new_with_seed_array(seeds, G_N_ELEMENTS(seeds));

    *ret_plan = (Plan){.seed = seed};
    ret_plan->fault = draw_fault(random, limits);
    draw_migration(ret_plan, random, limits);
    draw_strike(ret_plan, random);
}

char *
plan_describe(const Plan *plan)
{
    const RelayStrike *strike = &plan->strike;
    GString *text = g_string_new(NULL);

    g_string_append_printf(
        text, "%s %u MiB, %u cpus, %s, %s%s, %u passes%s%s%s%s, push %u MiB/s: ",
        plan->is_kvm ? "kvm" : "threads", plan->memory_mib, plan->cpus,
        plan->is_unix ? "unix" : "tcp", plan->is_postcopy ? "postcopy" : "precopy",
        plan->preempt ? " preempt" : "", plan->passes, plan->no_runs ? ", no runs" : "",
        plan->no_words ? ", no words" : "", plan->no_urgent_requests ? ", no urgent requests" : "",
        plan->arrives_stopped ? ", arrives stopped" : "", plan->push_mib_per_s);
    g_string_append_printf(text, "%s", fault_name(plan->fault));
    if (plan->fault != FAULT_NONE)
        g_string_append_printf(text,
                               " from %s on%s, %s %s after %" G_GUINT64_FORMAT
                               " bytes or %u ms, on %s, pace %u, queue %u, for %u ms or %u bytes",
                               moment_names[plan->moment], plan->arms_early ? " (early)" : "",
                               strike->connection ? "urgent" : "main",
                               strike->way == RELAY_THERE ? "there" : "back", strike->after_bytes,
                               strike->after_ms, strike->on_all ? "all" : "it", plan->pace_bytes,
                               plan->queue_bytes, strike->length_ms, strike->length_bytes);
    return g_string_free(text, FALSE);
}
