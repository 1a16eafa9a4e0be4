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

static const char *const moment_names[] = {"connecting", "a pass", "the switch-over", "postcopy",
                                           "recovery"};
G_STATIC_ASSERT(G_N_ELEMENTS(moment_names) == MOMENT_COUNT);

/* How often each is drawn. */
static const unsigned fault_weights[] = {
    [FAULT_NONE] = 1,        [FAULT_CLOSE] = 4,
    [FAULT_RESET] = 5,       [FAULT_TRUNCATE] = 5,
    [FAULT_HANG] = 4,        [FAULT_DELAY] = 3,
    [FAULT_SPLIT] = 3,       [FAULT_FLIP] = 4,
    [FAULT_KILL_SOURCE] = 4, [FAULT_KILL_DESTINATION] = 4,
    [FAULT_STOP_SOURCE] = 2, [FAULT_STOP_DESTINATION] = 2,
    [FAULT_FILL_SOURCE] = 2, [FAULT_FILL_DESTINATION] = 2,
};
G_STATIC_ASSERT(G_N_ELEMENTS(fault_weights) == FAULT_COUNT);

static const char *const lost_policies[] = {"stall", "pause", "end"};

static const RelayAct acts[] = {
    [FAULT_NONE] = RELAY_NOTHING,     [FAULT_CLOSE] = RELAY_CLOSE,
    [FAULT_RESET] = RELAY_RESET,      [FAULT_TRUNCATE] = RELAY_TRUNCATE,
    [FAULT_HANG] = RELAY_HANG,        [FAULT_DELAY] = RELAY_DELAY,
    [FAULT_SPLIT] = RELAY_SPLIT,      [FAULT_FLIP] = RELAY_FLIP,
    [FAULT_KILL_SOURCE] = RELAY_CALL, [FAULT_KILL_DESTINATION] = RELAY_CALL,
    [FAULT_STOP_SOURCE] = RELAY_CALL, [FAULT_STOP_DESTINATION] = RELAY_CALL,
    [FAULT_FILL_SOURCE] = RELAY_CALL, [FAULT_FILL_DESTINATION] = RELAY_CALL,
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

static bool
is_fill(Fault fault)
{
    return fault == FAULT_FILL_SOURCE || fault == FAULT_FILL_DESTINATION;
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
    return is_fill((Fault)fault) && !limits->with_fills ? FAULT_TRUNCATE : (Fault)fault;
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
    plan->queue_bytes = draw_of(random, 60) ? 16384 : 0;
    plan->recovers_elsewhere = draw_of(random, 30);
    plan->is_auto = draw_of(random, 50);
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
draw_strike(Blow *blow, GRand *random, const Plan *plan)
{
    RelayStrike *strike = &blow->strike;
    uint64_t all = (uint64_t)plan->memory_mib << 20;

    if (blow->moment == MOMENT_SWITCHOVER || blow->moment == MOMENT_RECOVERY)
        all = 512 * 1024;
    strike->act = acts[blow->fault];
    strike->connection = plan->preempt && draw_of(random, 30);
    strike->way = draw_of(random, 70) ? RELAY_THERE : RELAY_BACK;
    strike->on_all = draw_of(random, 60);
    strike->after_bytes = draw_scale(random, strike->way == RELAY_BACK ? 512 : all);
    strike->after_ms = 1 + draw_below(random, 400);
    strike->length_ms = 20 + draw_below(random, 300);
    strike->length_bytes = 1000 + draw_below(random, 8000);
    strike->bit = draw_below(random, 8);
}

static void
draw_blow(Blow *blow, GRand *random, const Plan *plan, const PlanLimits *limits)
{
    static const unsigned paces[] = {0, 0, 256, 2048, 16384};

    blow->fault = draw_fault(random, limits);
    blow->moment = draw_moment(random, plan->is_postcopy);
    if (blow->fault == FAULT_FLIP && blow->moment == MOMENT_CONNECT)
        blow->moment = MOMENT_PASS; /* what comes before is not sealed */
    if (blow > plan->blows)
        blow->moment = MOMENT_RECOVERY;
    draw_strike(blow, random, plan);
    blow->arms_early = draw_of(random, 40);
    if (blow->moment >= MOMENT_SWITCHOVER)
        blow->pace_bytes = paces[draw_below(random, G_N_ELEMENTS(paces))];
}

void
plan_draw(Plan *ret_plan, uint64_t seed, const PlanLimits *limits)
{
    const guint32 seeds[] = {(guint32)seed, (guint32)(seed >> 32), 0xfa17};
    g_autoptr(GRand) random = g_rand_new_with_seed_array(seeds, G_N_ELEMENTS(seeds));

    *ret_plan = (Plan){.seed = seed};
    draw_migration(ret_plan, random, limits);
    ret_plan->count_blows = 1 + draw_of(random, 35);
    for (unsigned i = 0; i < BLOWS_MAX; i++)
        draw_blow(&ret_plan->blows[i], random, ret_plan, limits);
    ret_plan->can_fill = limits->with_fills;
    ret_plan->has_records = draw_of(random, 70) || is_fill(ret_plan->blows[0].fault) ||
                            is_fill(ret_plan->blows[1].fault);
    ret_plan->checksums = draw_of(random, 30) || ret_plan->blows[0].fault == FAULT_FLIP ||
                          (ret_plan->count_blows > 1 && ret_plan->blows[1].fault == FAULT_FLIP);
    ret_plan->has_tls = draw_of(random, 30);
    ret_plan->addresses = 1 + (draw_of(random, 40) && !ret_plan->is_unix);
    ret_plan->lost_policy = lost_policies[draw_below(random, G_N_ELEMENTS(lost_policies))];
    if (ret_plan->blows[1].fault == FAULT_NONE)
        ret_plan->count_blows = 1;
    if (ret_plan->blows[0].fault == FAULT_NONE)
        ret_plan->count_blows = 0;
}

static void
describe_blow(const Blow *blow, GString *text)
{
    const RelayStrike *strike = &blow->strike;

    g_string_append_printf(
        text,
        "; %s from %s on%s, %s %s after %" G_GUINT64_FORMAT
        " bytes or %u ms, on %s, pace %u, for %u ms or %u bytes",
        fault_name(blow->fault), moment_names[blow->moment], blow->arms_early ? " (early)" : "",
        strike->connection ? "urgent" : "main", strike->way == RELAY_THERE ? "there" : "back",
        strike->after_bytes, strike->after_ms, strike->on_all ? "all" : "it", blow->pace_bytes,
        strike->length_ms, strike->length_bytes);
}

char *
plan_describe(const Plan *plan)
{
    GString *text = g_string_new(NULL);

    g_string_append_printf(
        text, "%s %u MiB, %u cpus, %s%s, %s%s, %u passes%s%s%s%s, push %u MiB/s",
        plan->is_kvm ? "kvm" : "threads", plan->memory_mib, plan->cpus,
        plan->is_unix ? "unix" : "tcp", plan->recovers_elsewhere ? " (then elsewhere)" : "",
        plan->is_postcopy ? "postcopy" : "precopy", plan->preempt ? " preempt" : "", plan->passes,
        plan->no_runs ? ", no runs" : "", plan->no_words ? ", no words" : "",
        plan->no_urgent_requests ? ", no urgent requests" : "",
        plan->arrives_stopped ? ", arrives stopped" : "", plan->push_mib_per_s);
    g_string_append_printf(text, "%s%s%s", plan->is_auto ? ", by itself" : "",
                           plan->has_records ? ", records" : "",
                           plan->checksums ? ", checksums" : "");
    g_string_append_printf(text, "%s, %u addresses, on-source-lost %s",
                           plan->has_tls ? ", tls" : "", plan->addresses, plan->lost_policy);
    for (unsigned i = 0; i < plan->count_blows; i++)
        describe_blow(&plan->blows[i], text);
    return g_string_free(text, FALSE);
}
