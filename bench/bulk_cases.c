/* SPDX-License-Identifier: MIT */
/*
 * One repeat of each bulk case. Coordinating process; the work is done by forked ones.
 */
#include "bench/bulk_cases.h"
#include "bench/report.h"

#include <string.h>

#define GIB ((double)(1u << 30))
#define MIB ((double)(1u << 20))

#define TRANSFER_NAME(name, text) text,
const char *const transfer_names[TRANSFER_COUNT] = {TRANSFER_LIST(TRANSFER_NAME)};

#define PART_NAME(name, text) text,
const char *const bulk_part_names[BULK_PART_COUNT] = {BULK_PART_LIST(PART_NAME)};

bool
bulk_has(const Bulk *bulk, BulkPart part)
{
    return bulk->options->only == part || bulk->options->only == BULK_PART_ALL;
}

/* The same without what makes it slower. */
static TransferKind
bare(TransferKind kind)
{
    switch (kind) {
    case TRANSFER_PRECOPY_TLS:
    case TRANSFER_PRECOPY_CHECKED:
        return TRANSFER_PRECOPY;
    case TRANSFER_DRAIN_TLS:
    case TRANSFER_DRAIN_CHECKED:
        return TRANSFER_DRAIN_ALLOCATED;
    default:
        return kind;
    }
}

static bool
uses_tls(TransferKind kind)
{
    return kind == TRANSFER_PRECOPY_TLS || kind == TRANSFER_DRAIN_TLS;
}

static bool
has_checksums(TransferKind kind)
{
    return kind == TRANSFER_PRECOPY_CHECKED || kind == TRANSFER_DRAIN_CHECKED;
}

TransferKind
transfer_unchecked(TransferKind kind)
{
    return has_checksums(kind) ? bare(kind) : kind;
}

bool
bulk_has_transfer(const Bulk *bulk, TransferKind kind)
{
    return bulk_has(bulk, BULK_PART_TRANSFERS) && (bulk->options->uses_tls || !uses_tls(kind)) &&
           (bulk->options->with_checksums || !has_checksums(kind));
}

TransferKind
transfer_floor(TransferKind kind)
{
    switch (transfer_unchecked(kind)) {
    case TRANSFER_PLAIN_FRESH:
    case TRANSFER_PRECOPY: /* the engine empties the destination's memory first */
    case TRANSFER_DRAIN_FRESH:
    case TRANSFER_PRECOPY_TLS:
        return TRANSFER_PLAIN_FRESH;
    default:
        return TRANSFER_PLAIN_ALLOCATED;
    }
}

uint64_t
bulk_largest_size(const BulkOptions *options)
{
    uint64_t largest = 0;
    for (guint i = 0; i < options->sizes->len; i++)
        largest = MAX(largest, g_array_index(options->sizes, uint64_t, i));
    return largest;
}

/* ---- Life
 * ---------------------------------------------------------------------------------------------------
 */

void
bulk_init(Bulk *bulk, const BulkOptions *options)
{
    *bulk = (Bulk){.options = options};
    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        Transfer *one = &bulk->transfers[i];
        samples_init(&one->gib_per_s);
        samples_init(&one->source_cpu);
        samples_init(&one->destination_cpu);
        samples_init(&one->source_overhead);
        samples_init(&one->destination_overhead);
    }
    uint64_t largest = bulk_largest_size(options);
    for (guint i = 0; i < options->sizes->len; i++)
        bulk_switch_add(bulk, g_array_index(options->sizes, uint64_t, i), options->dirty_by_size,
                        true);
    for (unsigned scattered = 0; scattered < 2; scattered++)
        for (guint i = 0; i < options->dirty->len; i++)
            bulk_switch_add(bulk, largest, g_array_index(options->dirty, uint64_t, i), scattered);
    for (unsigned by_command = 0; by_command < 2; by_command++)
        for (guint i = 0; i < options->sizes->len; i++)
            bulk_recovery_add(bulk, g_array_index(options->sizes, uint64_t, i), !by_command);
    bulk_syncs_init(bulk);
}

void
bulk_clear(Bulk *bulk)
{
    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        Transfer *one = &bulk->transfers[i];
        samples_clear(&one->gib_per_s);
        samples_clear(&one->source_cpu);
        samples_clear(&one->destination_cpu);
        samples_clear(&one->source_overhead);
        samples_clear(&one->destination_overhead);
    }
    bulk_switches_clear(bulk);
    bulk_recoveries_clear(bulk);
    bulk_syncs_clear(bulk);
}

void
bulk_add_value(Samples *samples, double value)
{
    samples_add_repeat(samples, &value, 1);
}

/* ---- Transfers
 * -----------------------------------------------------------------------------------------------
 */

static FaultlineBlock
part_of(const FaultlineBlock *block, uint64_t bytes)
{
    FaultlineBlock part = *block;
    part.length_bytes = bytes;
    return part;
}

static bool
run_plain(Bulk *bulk, TransferKind kind, GError **error)
{
    const BulkOptions *options = bulk->options;
    Transfer *transfer = &bulk->transfers[kind];
    FaultlineBlock block = part_of(&bulk->block, options->memory_bytes);
    const PlainPlan plan = {.source_block = &block,
                            .backing = options->backing,
                            .is_allocated = kind == TRANSFER_PLAIN_ALLOCATED,
                            .is_unix = options->is_unix,
                            .netns = bulk->netns,
                            .placement = &options->placement,
                            .limit_s = options->limit_s};
    double gib = (double)options->memory_bytes / GIB;
    PlainFigures figures;

    if (!plain_run(&plan, &figures, error))
        return false;
    bulk_add_value(&transfer->gib_per_s, gib / figures.seconds);
    bulk_add_value(&transfer->source_cpu, figures.source_cpu_s / gib);
    bulk_add_value(&transfer->destination_cpu, figures.destination_cpu_s / gib);
    return true;
}

MovePlan
bulk_plan_move(const Bulk *bulk, const FaultlineBlock *block)
{
    const BulkOptions *options = bulk->options;
    return (MovePlan){.source_block = block,
                      .backing = options->backing,
                      .preempt = options->preempt,
                      .warms_host = true,
                      .is_unix = options->is_unix,
                      .netns = bulk->netns,
                      .placement = &options->placement,
                      .push_bytes_per_s = PUSH_FULL,
                      .limit_s = options->limit_s};
}

/* From the first page to STOP, or from the moment the source may push until everything is there. */
static double
transfer_seconds(const Board *board, TransferKind kind)
{
    const SideBoard *source = &board->source, *destination = &board->destination;
    int64_t us = bare(kind) == TRANSFER_PRECOPY ? source->stop_us - source->active_us
                                                : destination->ended_us - source->postcopy_us;
    return (double)MAX(us, 1) * 1e-6;
}

static void
take_transfer(Bulk *bulk, TransferKind kind)
{
    const SideBoard *source = &bulk->board->source, *destination = &bulk->board->destination;
    Transfer *transfer = &bulk->transfers[kind];
    bool is_precopy = bare(kind) == TRANSFER_PRECOPY;
    double gib = (double)bulk->options->memory_bytes / GIB;
    const SideBoard *sides[2] = {source, destination};
    Samples *cpu[2] = {&transfer->source_cpu, &transfer->destination_cpu};
    Samples *overhead[2] = {&transfer->source_overhead, &transfer->destination_overhead};

    bulk_add_value(&transfer->gib_per_s, gib / transfer_seconds(bulk->board, kind));
    for (unsigned i = 0; i < 2; i++) {
        const SideBoard *side = sides[i];
        double used = is_precopy ? side->cpu_switch_s - side->cpu_begin_s
                                 : side->cpu_end_s - side->cpu_switch_s;
        double more = (double)side->anonymous_during_bytes - (double)side->anonymous_before_bytes;
        bulk_add_value(cpu[i], used / gib);
        bulk_add_value(overhead[i], more / MIB / gib);
    }
}

static bool
run_transfer(Bulk *bulk, TransferKind kind, GError **error)
{
    if (kind == TRANSFER_PLAIN_ALLOCATED || kind == TRANSFER_PLAIN_FRESH)
        return run_plain(bulk, kind, error);
    FaultlineBlock block = part_of(&bulk->block, bulk->options->memory_bytes);
    MovePlan plan = bulk_plan_move(bulk, &block);
    plan.is_postcopy = bare(kind) != TRANSFER_PRECOPY;
    plan.is_warm = bare(kind) == TRANSFER_DRAIN_ALLOCATED;
    plan.uses_tls = uses_tls(kind);
    if (has_checksums(kind))
        plan.settings[plan.count_settings++] = (MoveSetting){"page-checksums", 1};
    plan.dirty.count_pages = plan.is_postcopy ? UINT64_MAX : 0;
    if (!move_run(&plan, bulk->board, error))
        return false;
    take_transfer(bulk, kind);
    return true;
}

bool
bulk_run_repeat(Bulk *bulk, GError **error)
{
    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        if (!bulk_has_transfer(bulk, (TransferKind)i))
            continue;
        report_progress("%s", transfer_names[i]);
        if (!run_transfer(bulk, (TransferKind)i, error))
            return false;
    }
    for (unsigned i = 0; i < bulk->count_switches && bulk_has(bulk, BULK_PART_SWITCHES); i++) {
        report_progress("switch-over %u of %u", i + 1, bulk->count_switches);
        if (!bulk_switch_run(bulk, &bulk->switches[i], error))
            return false;
    }
    for (unsigned i = 0; i < bulk->count_recoveries && bulk_has(bulk, BULK_PART_RECOVERIES); i++) {
        report_progress("recovery %u of %u", i + 1, bulk->count_recoveries);
        if (!bulk_recovery_run(bulk, &bulk->recoveries[i], error))
            return false;
    }
    if (bulk_has(bulk, BULK_PART_SYNCS))
        bulk_syncs_run(bulk);
    return true;
}
