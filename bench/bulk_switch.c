/* SPDX-License-Identifier: MIT */
/*
 * Switch-overs: how long the guest stands, part by part, by memory size and dirty pages.
 * Coordinating process; the moments are the engine's own, by the clock that both sides share.
 */
#include "bench/bulk_cases.h"
#include "bench/report.h"

#include <stdio.h>

/* One ends where the next begins: together they are the time from the wish to stop to running. */
#define AT(side, moment) offsetof(Board, side.at_end.moment_ns[FAULTLINE_MOMENT_##moment])
#define SOURCE(moment)   AT(source, moment)
#define THERE(moment)    AT(destination, moment)
static const struct {
    const char *name;
    size_t from, to;
} parts[SWITCH_PARTS] = {
    {"pause", SOURCE(STOPPING), SOURCE(STOPPED)}, {"last sync", SOURCE(STOPPED), SOURCE(SYNCED)},
    {"discard", SOURCE(SYNCED), THERE(TOLD)},     {"package", THERE(TOLD), THERE(ARRIVED)},
    {"listen", THERE(ARRIVED), THERE(LISTENING)}, {"load", THERE(LISTENING), THERE(LOADED)},
    {"resume", THERE(LOADED), THERE(RUNNING)},
};

static double
ms_between(const Board *board, size_t from, size_t to)
{
    const uint64_t *begin_ns = G_STRUCT_MEMBER_P(board, from);
    const uint64_t *end_ns = G_STRUCT_MEMBER_P(board, to);
    return ((double)*end_ns - (double)*begin_ns) * 1e-6;
}

void
bulk_switch_add(Bulk *bulk, uint64_t memory_bytes, uint64_t dirty_pages, bool is_scattered)
{
    bulk->switches = g_renew(Switch, bulk->switches, bulk->count_switches + 1);
    Switch *one = &bulk->switches[bulk->count_switches++];
    *one = (Switch){.memory_bytes = memory_bytes,
                    .dirty_pages = MIN(dirty_pages, memory_bytes / FAULTLINE_PAGE_BYTES),
                    .is_scattered = is_scattered};
    samples_init(&one->downtime_ms);
    samples_init(&one->source_ms);
    for (unsigned i = 0; i < SWITCH_PARTS; i++)
        samples_init(&one->parts_ms[i]);
}

void
bulk_switches_clear(Bulk *bulk)
{
    for (unsigned i = 0; i < bulk->count_switches; i++) {
        samples_clear(&bulk->switches[i].downtime_ms);
        samples_clear(&bulk->switches[i].source_ms);
        for (unsigned part = 0; part < SWITCH_PARTS; part++)
            samples_clear(&bulk->switches[i].parts_ms[part]);
    }
    g_clear_pointer(&bulk->switches, g_free);
}

bool
bulk_switch_run(Bulk *bulk, Switch *one, GError **error)
{
    FaultlineBlock block = bulk->switch_block;
    block.length_bytes = one->memory_bytes;
    MovePlan plan = bulk_plan_move(bulk, &block);

    plan.is_postcopy = true;
    plan.is_warm = true;
    plan.warms_host = bulk->options->is_filled;
    plan.dirty = (DirtyPlan){.count_pages = one->dirty_pages, .is_scattered = one->is_scattered};
    if (!move_run(&plan, bulk->board, error))
        return false;
    const Board *board = bulk->board;
    bulk_add_value(&one->downtime_ms, ms_between(board, SOURCE(STOPPED), THERE(RUNNING)));
    bulk_add_value(&one->source_ms, ms_between(board, SOURCE(STOPPED), SOURCE(GIVEN)));
    for (unsigned i = 0; i < SWITCH_PARTS; i++)
        bulk_add_value(&one->parts_ms[i], ms_between(board, parts[i].from, parts[i].to));
    return true;
}

void
bulk_switches_print(Bulk *bulk)
{
    printf(
        "\nms from the stop at the source to the start at the destination; the guest's own share "
        "is nothing\n\n| MiB | dirty pages | | downtime | source's share |");
    for (unsigned i = 0; i < SWITCH_PARTS; i++)
        printf(" %s |", parts[i].name);
    printf("\n|---|---|---|---|---|");
    for (unsigned i = 0; i < SWITCH_PARTS; i++)
        printf("---|");
    printf("\n");
    for (unsigned i = 0; i < bulk->count_switches; i++) {
        Switch *one = &bulk->switches[i];
        g_autofree char *downtime = bulk_text(&one->downtime_ms);
        g_autofree char *source = bulk_text(&one->source_ms);
        printf("| %" G_GUINT64_FORMAT " | %" G_GUINT64_FORMAT " | %s | %s | %s |",
               one->memory_bytes >> 20, one->dirty_pages, one->is_scattered ? "scattered" : "dense",
               downtime, source);
        for (unsigned part = 0; part < SWITCH_PARTS; part++)
            printf(" %.2f |", samples_percentile(&one->parts_ms[part], 50));
        printf("\n");
    }
}

void
bulk_switches_write(JsonBuilder *json, Bulk *bulk)
{
    json_builder_set_member_name(json, "switch-overs");
    json_builder_begin_array(json);
    for (unsigned i = 0; i < bulk->count_switches; i++) {
        Switch *one = &bulk->switches[i];
        json_builder_begin_object(json);
        report_count(json, "memory-bytes", one->memory_bytes);
        report_count(json, "dirty-pages", one->dirty_pages);
        report_flag(json, "scattered", one->is_scattered);
        bulk_write_figure(json, "downtime-ms", &one->downtime_ms);
        bulk_write_figure(json, "source-share-ms", &one->source_ms);
        report_open(json, "parts-ms");
        for (unsigned part = 0; part < SWITCH_PARTS; part++)
            bulk_write_figure(json, parts[part].name, &one->parts_ms[part]);
        report_close(json);
        json_builder_end_object(json);
    }
    json_builder_end_array(json);
}
