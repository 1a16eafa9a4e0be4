/* SPDX-License-Identifier: MIT */
/*
 * Recoveries: how long after the path is back the first page comes, by memory size, by itself and
 * by command. Coordinating process.
 */
#include "bench/bulk_cases.h"
#include "bench/recovery.h"
#include "bench/report.h"

#include <stdio.h>
#include <sys/mman.h>

void
bulk_recovery_add(Bulk *bulk, uint64_t memory_bytes, bool is_automatic)
{
    bulk->recoveries = g_renew(Recovery, bulk->recoveries, bulk->count_recoveries + 1);
    Recovery *one = &bulk->recoveries[bulk->count_recoveries++];
    *one = (Recovery){.memory_bytes = memory_bytes, .is_automatic = is_automatic};
    samples_init(&one->page_ms);
    samples_init(&one->attempt_ms);
    samples_init(&one->floor_ms);
}

void
bulk_recoveries_clear(Bulk *bulk)
{
    for (unsigned i = 0; i < bulk->count_recoveries; i++) {
        samples_clear(&bulk->recoveries[i].page_ms);
        samples_clear(&bulk->recoveries[i].attempt_ms);
        samples_clear(&bulk->recoveries[i].floor_ms);
    }
    g_clear_pointer(&bulk->recoveries, g_free);
}

static bool
is_unix(const Bulk *bulk, const Recovery *one)
{
    return one->is_automatic || bulk->options->is_unix;
}

bool
bulk_recovery_run(Bulk *bulk, Recovery *one, GError **error)
{
    const BulkOptions *options = bulk->options;
    FaultlineBlock block = bulk->switch_block;
    RecoveryFigures *figures = bench_shared_memory(sizeof *figures, error);

    if (!figures)
        return false;
    block.length_bytes = one->memory_bytes;
    const RecoveryPlan plan = {.source_block = &block,
                               .backing = options->backing,
                               .is_automatic = one->is_automatic,
                               .is_unix = is_unix(bulk, one),
                               .preempt = options->preempt,
                               .retry_ms = options->retry_ms,
                               .count_breaks = options->count_breaks,
                               .limit_s = options->limit_s,
                               .placement = &options->placement};
    bool done = recovery_run(&plan, figures, error);
    if (done) {
        for (unsigned i = 0; i < RECOVERY_FLOOR; i++)
            figures->floor_us[i] *= 1e-3;
        samples_add_repeat(&one->page_ms, figures->page_ms, plan.count_breaks);
        samples_add_repeat(&one->attempt_ms, figures->attempt_ms, plan.count_breaks);
        samples_add_repeat(&one->floor_ms, figures->floor_us, RECOVERY_FLOOR);
    }
    munmap(figures, sizeof *figures);
    return done;
}

static double
ratio(Samples *samples, Samples *floor)
{
    double below = samples_percentile(floor, 50);
    return below > 0 ? samples_percentile(samples, 50) / below : 0;
}

void
bulk_recoveries_print(Bulk *bulk)
{
    printf("\nms from the path being back after a break in postcopy to the first page; %u breaks a "
           "repeat, recover-retry %u ms; the floor is a page over a new plain connection\n\n"
           "| MiB | | socket | path to page, p50 | p90 | max | attempt to page, p50 | max "
           "| floor | attempt / floor | path / floor "
           "|\n|---|---|---|---|---|---|---|---|---|---|---|\n",
           bulk->options->count_breaks, bulk->options->retry_ms);
    for (unsigned i = 0; i < bulk->count_recoveries; i++) {
        Recovery *one = &bulk->recoveries[i];
        printf("| %" G_GUINT64_FORMAT " | %s | %s | %.2f | %.2f | %.2f | %.2f | %.2f | %.3f | %.1f "
               "| %.1f |\n",
               one->memory_bytes >> 20, one->is_automatic ? "by itself" : "by command",
               is_unix(bulk, one) ? "unix" : "tcp", samples_percentile(&one->page_ms, 50),
               samples_percentile(&one->page_ms, 90), samples_percentile(&one->page_ms, 100),
               samples_percentile(&one->attempt_ms, 50), samples_percentile(&one->attempt_ms, 100),
               samples_percentile(&one->floor_ms, 50), ratio(&one->attempt_ms, &one->floor_ms),
               ratio(&one->page_ms, &one->floor_ms));
    }
}

void
bulk_recoveries_write(JsonBuilder *json, Bulk *bulk)
{
    json_builder_set_member_name(json, "recoveries");
    json_builder_begin_array(json);
    for (unsigned i = 0; i < bulk->count_recoveries; i++) {
        Recovery *one = &bulk->recoveries[i];
        json_builder_begin_object(json);
        report_count(json, "memory-bytes", one->memory_bytes);
        report_flag(json, "auto-recover", one->is_automatic);
        report_text(json, "transport", is_unix(bulk, one) ? "unix" : "tcp");
        report_count(json, "recover-retry-ms", bulk->options->retry_ms);
        report_samples(json, "path-to-page-ms", &one->page_ms);
        report_samples(json, "attempt-to-page-ms", &one->attempt_ms);
        report_samples(json, "floor-ms", &one->floor_ms);
        report_number(json, "path-to-page-ratio-to-floor", ratio(&one->page_ms, &one->floor_ms));
        report_number(json, "attempt-to-page-ratio-to-floor",
                      ratio(&one->attempt_ms, &one->floor_ms));
        json_builder_end_object(json);
    }
    json_builder_end_array(json);
}
