/* SPDX-License-Identifier: MIT */
/*
 * Adds up the repeats of a configuration, and of the floor. Coordinating process.
 */
#include "bench/cell.h"
#include "bench/clock.h"

#include <string.h>

void
cell_init(Cell *cell)
{
    samples_init(&cell->latency_us);
    stages_init(&cell->stages);
}

void
cell_clear(Cell *cell)
{
    samples_clear(&cell->latency_us);
    stages_clear(&cell->stages);
}

static void
add_touches(Cell *cell, Board *board)
{
    g_autoptr(GArray) values = g_array_new(FALSE, FALSE, sizeof(double));
    g_autoptr(GHashTable) pages = g_hash_table_new(g_direct_hash, g_direct_equal);

    for (unsigned thread = 0; thread < cell->count_threads; thread++) {
        const Touch *touches = board_touches(board, thread);
        for (uint64_t i = 0; i < board->count_touches[thread]; i++) {
            double us = (double)touches[i].ticks * bench_ns_per_tick() * 1e-3;
            g_hash_table_add(pages, GSIZE_TO_POINTER((gsize)touches[i].page + 1));
            cell->count_mapped += touches[i].kind == TOUCH_MAPPED;
            if (touches[i].kind != TOUCH_WAITED)
                continue;
            g_array_append_val(values, us);
            cell->waited_s += us * 1e-6;
        }
        cell->count_touches += board->count_touches[thread];
    }
    cell->count_faults += values->len;
    cell->count_pages += g_hash_table_size(pages);
    samples_add_repeat(&cell->latency_us, (double *)(void *)values->data, values->len);
}

static void
add_engine(FaultlineLatency *sum, const FaultlineLatency *one)
{
    sum->count += one->count;
    sum->total_ns += one->total_ns;
    sum->max_ns = MAX(sum->max_ns, one->max_ns);
    for (unsigned i = 0; i < FAULTLINE_LATENCY_BUCKETS; i++)
        sum->buckets[i] += one->buckets[i];
}

static RoleUse *
role_of(RoleUses *uses, const char *name)
{
    for (unsigned i = 0; i < uses->count; i++)
        if (strcmp(uses->roles[i].name, name) == 0)
            return &uses->roles[i];
    if (uses->count == CELL_ROLES_MAX)
        return NULL;
    RoleUse *role = &uses->roles[uses->count++];
    *role = (RoleUse){0};
    g_strlcpy(role->name, name, sizeof role->name);
    return role;
}

/* "touch-3" counts for "touch". */
static void
add_uses(RoleUses *uses, const SideBoard *side)
{
    for (unsigned i = 0; i < side->last.count; i++) {
        const ThreadUse *last = &side->last.threads[i];
        char name[16];
        g_strlcpy(name, last->name, sizeof name);
        if (g_str_has_prefix(name, "touch-"))
            name[strlen("touch")] = 0;
        for (unsigned j = 0; j < side->first.count; j++) {
            const ThreadUse *first = &side->first.threads[j];
            RoleUse *role = first->id == last->id ? role_of(uses, name) : NULL;
            /* A thread that ended while it was read has no figures. */
            if (!role || last->cpu_ns < first->cpu_ns || last->switches < first->switches)
                continue;
            role->cpu_us += (double)(last->cpu_ns - first->cpu_ns) * 1e-3;
            role->switches += (double)(last->switches - first->switches);
        }
    }
}

void
cell_add_repeat(Cell *cell, Board *board)
{
    const FaultlineInfo *info = &board->destination.at_last;

    add_touches(cell, board);
    if (board->walk_records)
        stages_add_repeat(&cell->stages, board, cell->count_threads, cell->host_pages,
                          cell->has_urgent);
    add_engine(&cell->engine, &info->latency);
    if (board->local_ticks && (!cell->local_ticks || board->local_ticks < cell->local_ticks))
        cell->local_ticks = board->local_ticks;
    cell->count_wrong += board->count_wrong;
    cell->count_requests += info->postcopy_requests;
    cell->requested_pages += info->requested_pages;
    cell->pushed_pages += info->pushed_pages;
    cell->touch_s += (double)board->touch_ns * 1e-9;
    cell->count_threads_s += (double)board->touch_ns * 1e-9 * cell->count_threads;
    add_uses(&cell->source, &board->source);
    add_uses(&cell->destination, &board->destination);
}

/* ---- The floor
 * -----------------------------------------------------------------------------------------------
 */

void
floor_figures_init(FloorFigures *floor)
{
    samples_init(&floor->sleeping_us);
    samples_init(&floor->spinning_us);
    samples_init(&floor->ring_us);
    samples_init(&floor->local_us);
}

void
floor_figures_clear(FloorFigures *floor)
{
    samples_clear(&floor->sleeping_us);
    samples_clear(&floor->spinning_us);
    samples_clear(&floor->ring_us);
    samples_clear(&floor->local_us);
}

static bool
add_repeat(Samples *samples, GArray *us)
{
    if (us)
        samples_add_repeat(samples, (double *)(void *)us->data, us->len);
    return us != NULL;
}

bool
floor_figures_add_repeat(FloorFigures *floor, const FloorPlan *plan, GError **error)
{
    FloorPlan sleeping = *plan;
    sleeping.spin_ns = 0;

    g_autoptr(GArray) slept = floor_round_trips(&sleeping, error);
    if (!add_repeat(&floor->sleeping_us, slept))
        return false;
    if (floor->has_spinning) {
        g_autoptr(GArray) spun = floor_round_trips(plan, error);
        if (!add_repeat(&floor->spinning_us, spun))
            return false;
    }
    g_autoptr(GArray) ring = floor_ring_trips(floor->uses_spinning ? plan : &sleeping, error);
    if (!add_repeat(&floor->ring_us, ring))
        return false;
    g_autoptr(GArray) local = floor_local_faults(plan, error);
    return add_repeat(&floor->local_us, local);
}

Quantiles
floor_figures_sum(FloorFigures *floor, bool by_ring)
{
    Samples *plain = floor->uses_spinning ? &floor->spinning_us : &floor->sleeping_us;
    Quantiles sum = samples_quantiles(by_ring ? &floor->ring_us : plain);
    Quantiles local = samples_quantiles(&floor->local_us);
    for (unsigned i = 0; i < QUANTILE_COUNT; i++)
        sum.value[i] += local.value[i];
    return sum;
}
