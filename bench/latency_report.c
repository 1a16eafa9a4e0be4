/* SPDX-License-Identifier: MIT */
/*
 * What fault-latency tells. Coordinating process, at the end.
 */
#include "bench/latency_report.h"
#include "bench/clock.h"
#include "bench/host.h"
#include "bench/report.h"

#include <stdio.h>

#define CDF_POINTS 400u

static char *
cell_name(const Cell *cell)
{
    g_autofree char *push = push_text(cell->push_bytes_per_s);
    return g_strdup_printf("push %s, %u thread%s, %s%s%s", push, cell->count_threads,
                           cell->count_threads == 1 ? "" : "s", pattern_names[cell->pattern],
                           cell->uses_tls ? ", TLS" : "", cell->has_checksums ? ", checksums" : "");
}

static double
ratio(double value, double to)
{
    return to > 0 ? value / to : 0;
}

/* Of the engine's own histogram. */
static double
engine_us(const Cell *cell, double percent)
{
    return (double)faultline_latency_percentile(&cell->engine, percent) * 1e-3;
}

/* Share of the threads' time in which they waited for pages. */
static double
stalled_share(const Cell *cell)
{
    return ratio(cell->waited_s, cell->count_threads_s);
}

/* Locality: 1 means that each page that was touched had to be waited for. */
static double
faults_a_page(const Cell *cell)
{
    return ratio((double)cell->count_faults, (double)cell->count_pages);
}

/* What a touch without a fault takes in a KVM guest, its reading of the clock with it. */
static double
local_us(const Cell *cell)
{
    return (double)cell->local_ticks * bench_ns_per_tick() * 1e-3;
}

/* ---- Markdown
 * -----------------------------------------------------------------------------------------------
 */

static void
print_samples(const char *name, Samples *samples)
{
    Quantiles least, greatest, pooled = samples_quantiles(samples);
    samples_range(samples, &least, &greatest);
    printf("| %s | %zu |", name, samples_count(samples));
    for (unsigned i = 0; i < QUANTILE_COUNT; i++) {
        g_autofree char *text =
            report_with_range(pooled.value[i], least.value[i], greatest.value[i]);
        printf(" %s |", text);
    }
    printf("\n");
}

static void
print_ratios(const char *name, Samples *samples, const Quantiles *floor)
{
    Quantiles pooled = samples_quantiles(samples);
    printf("| %s |", name);
    for (unsigned i = 0; i < QUANTILE_COUNT; i++)
        printf(" %.2f |", ratio(pooled.value[i], floor->value[i]));
    printf("\n");
}

static void
print_floor_ratios(LatencyRun *run, bool by_ring)
{
    Quantiles sum = floor_figures_sum(&run->floor, by_ring);

    printf("\nRatio to the floor (round trip%s, %s, and local fault together)\n\n"
           "| | p50 | p90 | p99 | p99.9 | max |\n|---|---|---|---|---|---|\n",
           by_ring ? " by io_uring" : "", run->floor.uses_spinning ? "spinning" : "sleeping");
    for (unsigned i = 0; i < run->count_cells; i++) {
        g_autofree char *name = cell_name(&run->cells[i]);
        print_ratios(name, &run->cells[i].latency_us, &sum);
    }
}

static void
print_checksum_ratios(LatencyRun *run)
{
    printf("\nRatio to the same without checksums\n\n"
           "| | p50 | p90 | p99 | p99.9 | max |\n|---|---|---|---|---|---|\n");
    for (unsigned i = 1; i < run->count_cells; i++) {
        Cell *cell = &run->cells[i];
        if (!cell->has_checksums)
            continue;
        Quantiles without = samples_quantiles(&run->cells[i - 1].latency_us);
        g_autofree char *name = cell_name(cell);
        print_ratios(name, &cell->latency_us, &without);
    }
}

static void
print_latencies(LatencyRun *run)
{
    FloorFigures *floor = &run->floor;

    printf("\nus, over all repeats (least..greatest of the repeats)\n\n"
           "| | samples | p50 | p90 | p99 | p99.9 | max |\n|---|---|---|---|---|---|---|\n");
    print_samples("floor: round trip, sleeping", &floor->sleeping_us);
    if (floor->has_spinning)
        print_samples("floor: round trip, spinning", &floor->spinning_us);
    print_samples(floor->uses_spinning ? "floor: round trip by io_uring, spinning"
                                       : "floor: round trip by io_uring, sleeping",
                  &floor->ring_us);
    print_samples("floor: local fault", &floor->local_us);
    for (unsigned i = 0; i < run->count_cells; i++) {
        g_autofree char *name = cell_name(&run->cells[i]);
        print_samples(name, &run->cells[i].latency_us);
    }
    print_floor_ratios(run, false);
    print_floor_ratios(run, true);
    if (run->options->with_checksums)
        print_checksum_ratios(run);
}

static void
print_uses(const char *side, const RoleUses *uses, double faults)
{
    for (unsigned i = 0; i < uses->count; i++)
        if (uses->roles[i].cpu_us > 0 || uses->roles[i].switches > 0)
            printf(" %s %s %.1f us, %.2f sleeps;", side, uses->roles[i].name,
                   ratio(uses->roles[i].cpu_us, faults), ratio(uses->roles[i].switches, faults));
}

static void
print_cells(LatencyRun *run)
{
    printf("\n| | touches | faults | a page touched | requests | pages urgent / pushed | stalled | "
           "engine p50 us | p99 us | faults/s |\n|---|---|---|---|---|---|---|---|---|---|\n");
    for (unsigned i = 0; i < run->count_cells; i++) {
        const Cell *cell = &run->cells[i];
        g_autofree char *name = cell_name(cell);
        printf("| %s | %" G_GUINT64_FORMAT " | %" G_GUINT64_FORMAT " | %.3f | %" G_GUINT64_FORMAT
               " | %" G_GUINT64_FORMAT " / %" G_GUINT64_FORMAT " | %.0f%% | %.1f | %.1f | %.0f |\n",
               name, cell->count_touches, cell->count_faults, faults_a_page(cell),
               cell->count_requests, cell->requested_pages, cell->pushed_pages,
               stalled_share(cell) * 100, engine_us(cell, 50), engine_us(cell, 99),
               ratio((double)cell->count_faults, cell->touch_s));
    }
    stages_print_head();
    for (unsigned i = 0; i < run->count_cells; i++) {
        g_autofree char *name = cell_name(&run->cells[i]);
        stages_print(name, &run->cells[i].stages);
    }
    for (unsigned i = 0; i < run->count_cells; i++)
        if (run->cells[i].local_ticks)
            printf("\nIn the guest a touch without a fault takes %.2f us (configuration %u).\n",
                   local_us(&run->cells[i]), i + 1);
    printf("\nCPU time and sleeps of each thread, a fault:\n\n");
    for (unsigned i = 0; i < run->count_cells; i++) {
        const Cell *cell = &run->cells[i];
        g_autofree char *name = cell_name(cell);
        printf("- %s:", name);
        print_uses("source", &cell->source, (double)cell->count_faults);
        print_uses("destination", &cell->destination, (double)cell->count_faults);
        printf("\n");
    }
}

void
latency_report_print(LatencyRun *run)
{
    const LatencyOptions *options = run->options;
    g_autofree char *host = host_summary();
    g_autofree char *source = placement_text(&options->placement.source);
    g_autofree char *destination = placement_text(&options->placement.destination);
    g_autofree char *touch = placement_text(&options->placement.touch);

    printf("# Fault latency\n\n%s.\nGuest %s, memory %" G_GUINT64_FORMAT
           " MiB %s, %s, %s%s, preempt %s, spin %s, low-latency %s, %s, CPUs: source %s, "
           "destination %s, guest %s, %u repeats.\n",
           host, options->is_kvm ? "kvm" : "threads", options->memory_bytes >> 20,
           backing_names[options->backing], options->is_warm ? "warm" : "fresh",
           options->is_unix ? "unix" : "tcp", options->uses_netns ? " over veth" : "",
           options->preempt ? "on" : "off", options->spin_is, options->low_latency_is,
           options->writes ? "writes" : "reads", source, destination, touch,
           options->count_repeats);
    print_latencies(run);
    print_cells(run);
}

/* ---- JSON
 * --------------------------------------------------------------------------------------------------
 */

static void
write_options(JsonBuilder *json, const LatencyOptions *options)
{
    g_autofree char *source = placement_text(&options->placement.source);
    g_autofree char *destination = placement_text(&options->placement.destination);
    g_autofree char *touch = placement_text(&options->placement.touch);

    report_open(json, "options");
    report_text(json, "guest", options->is_kvm ? "kvm" : "threads");
    report_count(json, "memory-bytes", options->memory_bytes);
    report_text(json, "backing", backing_names[options->backing]);
    report_flag(json, "warm", options->is_warm);
    report_text(json, "transport", options->is_unix ? "unix" : "tcp");
    report_flag(json, "netns", options->uses_netns);
    report_flag(json, "preempt", options->preempt);
    report_text(json, "spin", options->spin_is);
    report_count(json, "spin-us", options->spin_us);
    report_text(json, "low-latency", options->low_latency_is);
    report_flag(json, "account", options->accounts);
    report_flag(json, "stages", options->traces);
    report_flag(json, "write", options->writes);
    report_number(json, "think-us", options->think_us);
    report_count(json, "stride", options->stride);
    report_count(json, "faults", options->count_faults);
    report_count(json, "repeats", options->count_repeats);
    report_count(json, "seed", options->seed);
    report_text(json, "source-cpus", source);
    report_text(json, "destination-cpus", destination);
    report_text(json, "touch-cpus", touch);
    report_close(json);
}

static void
write_floor(JsonBuilder *json, FloorFigures *floor)
{
    Quantiles sum = floor_figures_sum(floor, false), ring = floor_figures_sum(floor, true);

    report_open(json, "floor");
    report_samples(json, "round-trip-sleeping-us", &floor->sleeping_us);
    if (floor->has_spinning)
        report_samples(json, "round-trip-spinning-us", &floor->spinning_us);
    report_samples(json, "round-trip-io-uring-us", &floor->ring_us);
    report_samples(json, "local-fault-us", &floor->local_us);
    report_text(json, "round-trip-used", floor->uses_spinning ? "spinning" : "sleeping");
    report_quantiles(json, "sum-us", &sum);
    report_quantiles(json, "sum-io-uring-us", &ring);
    report_close(json);
}

/* The engine's own histogram, so within 3.2%. */
static void
write_engine(JsonBuilder *json, const Cell *cell)
{
    report_open(json, "fault-read-to-placed-us");
    report_count(json, "samples", cell->engine.count);
    report_number(json, "p50", engine_us(cell, 50));
    report_number(json, "p99", engine_us(cell, 99));
    report_number(json, "p99.9", engine_us(cell, 99.9));
    report_number(json, "max", (double)cell->engine.max_ns * 1e-3);
    report_close(json);
}

static void
write_uses(JsonBuilder *json, const char *name, const RoleUses *uses, double faults)
{
    report_open(json, name);
    for (unsigned i = 0; i < uses->count; i++) {
        report_open(json, uses->roles[i].name);
        report_number(json, "cpu-us", ratio(uses->roles[i].cpu_us, faults));
        report_number(json, "sleeps", ratio(uses->roles[i].switches, faults));
        report_close(json);
    }
    report_close(json);
}

static void
write_ratios(JsonBuilder *json, const char *name, Cell *cell, FloorFigures *floor, bool by_ring)
{
    Quantiles ratios = samples_quantiles(&cell->latency_us);
    Quantiles sum = floor_figures_sum(floor, by_ring);

    for (unsigned i = 0; i < QUANTILE_COUNT; i++)
        ratios.value[i] = ratio(ratios.value[i], sum.value[i]);
    report_quantiles(json, name, &ratios);
}

static void
write_cell(JsonBuilder *json, Cell *cell, FloorFigures *floor)
{
    g_autofree char *push = push_text(cell->push_bytes_per_s);
    double faults = (double)cell->count_faults;

    json_builder_begin_object(json);
    report_text(json, "push", push);
    report_count(json, "threads", cell->count_threads);
    report_text(json, "pattern", pattern_names[cell->pattern]);
    report_text(json, "tls", cell->uses_tls ? "psk" : "off");
    report_flag(json, "checksums", cell->has_checksums);
    report_samples(json, "touch-to-resume-us", &cell->latency_us);
    write_ratios(json, "ratio-to-floor", cell, floor, false);
    write_ratios(json, "ratio-to-io-uring-floor", cell, floor, true);
    stages_write(json, &cell->stages);
    write_engine(json, cell);
    if (cell->local_ticks)
        report_number(json, "touch-without-fault-us", local_us(cell));
    report_count(json, "touches", cell->count_touches);
    report_count(json, "faults", cell->count_faults);
    report_count(json, "faults-solved-by-the-kernel", cell->count_mapped);
    report_count(json, "requests", cell->count_requests);
    report_count(json, "urgent-pages", cell->requested_pages);
    report_count(json, "pushed-pages", cell->pushed_pages);
    report_count(json, "wrong-pages", cell->count_wrong);
    report_count(json, "pages-touched", cell->count_pages);
    report_number(json, "faults-a-page-touched", faults_a_page(cell));
    report_number(json, "stalled-share", stalled_share(cell));
    report_number(json, "faults-per-s", ratio(faults, cell->touch_s));
    write_uses(json, "source-threads-per-fault", &cell->source, faults);
    write_uses(json, "destination-threads-per-fault", &cell->destination, faults);
    json_builder_end_object(json);
}

/* ---- Columns
 * -----------------------------------------------------------------------------------------------
 */

/* One block a curve, its name first: latency us, share of the faults below. */
static void
add_curve(GString *text, const char *name, Samples *samples)
{
    if (!samples_count(samples))
        return;
    g_string_append_printf(text, "\"%s\"\n", name);
    for (unsigned i = 1; i < CDF_POINTS; i++) {
        double percent = 100.0 * i / CDF_POINTS;
        g_string_append_printf(text, "%.3f %.5f\n", samples_percentile(samples, percent),
                               percent / 100.0);
    }
    const double tail[] = {99.9, 99.99, 100.0};
    for (unsigned i = 0; i < G_N_ELEMENTS(tail); i++)
        g_string_append_printf(text, "%.3f %.5f\n", samples_percentile(samples, tail[i]),
                               tail[i] / 100.0);
    g_string_append(text, "\n\n");
}

static bool
write_columns(LatencyRun *run, GError **error)
{
    g_autoptr(GString) cdf = g_string_new(NULL);
    g_autoptr(GString) push = g_string_new("push threads pattern p50 p99 p99.9\n");
    g_autoptr(GString) stages = g_string_new(NULL);
    g_autofree char *stages_path = report_path(run->options->json_path, ".stages.dat");
    g_autofree char *cdf_path = report_path(run->options->json_path, ".cdf.dat");
    g_autofree char *push_path = report_path(run->options->json_path, ".push.dat");

    stages_add_column_names(stages);
    add_curve(cdf, "round trip, sleeping", &run->floor.sleeping_us);
    add_curve(cdf, "round trip, spinning", &run->floor.spinning_us);
    add_curve(cdf, "round trip by io_uring", &run->floor.ring_us);
    add_curve(cdf, "local fault", &run->floor.local_us);
    for (unsigned i = 0; i < run->count_cells; i++) {
        Cell *cell = &run->cells[i];
        g_autofree char *name = cell_name(cell);
        g_autofree char *rate = push_text(cell->push_bytes_per_s);
        Quantiles q = samples_quantiles(&cell->latency_us);
        add_curve(cdf, name, &cell->latency_us);
        stages_add_columns(stages, name, &cell->stages);
        g_string_append_printf(push, "%s %u %s %.3f %.3f %.3f\n", rate, cell->count_threads,
                               pattern_names[cell->pattern], q.value[0], q.value[2], q.value[3]);
    }
    return g_file_set_contents(cdf_path, cdf->str, -1, error) &&
           g_file_set_contents(push_path, push->str, -1, error) &&
           g_file_set_contents(stages_path, stages->str, -1, error);
}

bool
latency_report_write(LatencyRun *run, GError **error)
{
    g_autoptr(JsonBuilder) json = report_new("fault-latency");

    write_options(json, run->options);
    write_floor(json, &run->floor);
    json_builder_set_member_name(json, "configurations");
    json_builder_begin_array(json);
    for (unsigned i = 0; i < run->count_cells; i++)
        write_cell(json, &run->cells[i], &run->floor);
    json_builder_end_array(json);
    return report_write(json, run->options->json_path, error) && write_columns(run, error);
}
