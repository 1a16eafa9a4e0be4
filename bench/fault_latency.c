/* SPDX-License-Identifier: MIT */
/*
 * bench/fault-latency: how long a touch of a missing page takes, measured by the thread that
 * touches, beside what this machine takes for its parts. The coordinating process: it makes the
 * source's memory, forks floor and migrations one after the other, repeat by repeat, so that a
 * disturbance hits all configurations alike, and reports.
 */
#include "bench/clock.h"
#include "bench/host.h"
#include "bench/latency_report.h"
#include "bench/report.h"

#include <stdio.h>
#include <string.h>

static FloorPlan
plan_floor(const LatencyOptions *options, const Netns *netns)
{
    uint64_t count = MAX(options->count_faults / options->count_repeats, 1);
    uint64_t page_bytes = options->backing == BACKING_HUGETLB ? 2u << 20 : FAULTLINE_PAGE_BYTES;
    uint64_t room = options->memory_bytes / page_bytes;

    return (FloorPlan){.is_unix = options->is_unix,
                       .spin_ns = options->spin_us * 1000,
                       .holds_latency = g_str_equal(options->low_latency_is, "on"),
                       .netns = netns,
                       .placement = &options->placement,
                       .backing = options->backing,
                       .count = MIN(count, room),
                       .limit_s = options->limit_s};
}

static MovePlan
plan_move(const LatencyRun *run, const Cell *cell, const FaultlineBlock *block, const Netns *netns,
          uint64_t seed)
{
    const LatencyOptions *options = run->options;
    MovePlan plan = {
        .source_block = block,
        .kvm = options->is_kvm ? &run->kvm : NULL,
        .backing = options->backing,
        .is_postcopy = true,
        .is_warm = options->is_warm,
        .warms_host = true,
        .preempt = options->preempt,
        .accounts = options->accounts,
        .is_unix = options->is_unix,
        .uses_tls = cell->uses_tls,
        .netns = netns,
        .placement = &options->placement,
        .push_bytes_per_s = cell->push_bytes_per_s,
        .dirty = {.count_pages = UINT64_MAX},
        .touch = {.count_threads = cell->count_threads,
                  .count_touches = MAX(options->count_faults / options->count_repeats, 1),
                  .pattern = {.kind = cell->pattern,
                              .count_pages = options->memory_bytes / block->page_size_bytes,
                              .stride = options->stride,
                              .trace = options->trace,
                              .seed = seed},
                  .writes = options->writes,
                  .think_ns = (uint64_t)(options->think_us * 1e3),
                  .limit_ns = options->run_s * 1000000000ull},
        .limit_s = options->limit_s,
        .count_settings = options->count_settings,
    };
    memcpy(plan.settings, options->settings, sizeof plan.settings);
    if (cell->has_checksums)
        plan.settings[plan.count_settings++] = (MoveSetting){"page-checksums", 1};
    return plan;
}

static bool
run_repeat(LatencyRun *run, unsigned repeat, Board *board, const FaultlineBlock *block,
           const Netns *netns, GError **error)
{
    const LatencyOptions *options = run->options;
    FloorPlan floor = plan_floor(options, netns);

    if (!floor_figures_add_repeat(&run->floor, &floor, error))
        return false;
    for (unsigned i = 0; i < run->count_cells; i++) {
        Cell *cell = &run->cells[i];
        MovePlan plan = plan_move(run, cell, block, netns, options->seed + repeat);
        report_progress("repeat %u of %u, configuration %u of %u", repeat + 1,
                        options->count_repeats, i + 1, run->count_cells);
        if (!move_run(&plan, board, error))
            return false;
        cell_add_repeat(cell, board);
        if (!cell->count_wrong)
            continue;
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "%" G_GUINT64_FORMAT " touches read another page's bytes", cell->count_wrong);
        return false;
    }
    return true;
}

/* Records of one thread and repeat: at most three a request, and two a page of the answer. */
static uint64_t
walk_room(const LatencyOptions *options)
{
    uint64_t touches = options->count_faults / options->count_repeats + 1;
    uint64_t pages = options->memory_bytes / FAULTLINE_PAGE_BYTES;
    bool is_huge = options->backing == BACKING_HUGETLB;
    return 3 * touches + 2 * (is_huge ? pages : MIN(touches, pages)) + 1024;
}

static bool
run_repeats(LatencyRun *run, const FaultlineBlock *block, GError **error)
{
    const LatencyOptions *options = run->options;
    uint64_t room = options->count_faults / options->count_repeats + 1;
    Netns *netns = NULL;

    if (options->uses_netns && !(netns = netns_new(error)))
        return false;
    /* One thread may have all of the touches. */
    Board *board = board_new(BOARD_THREADS_MAX / 2, room, error);
    bool done = board && (!options->traces || board_trace(board, walk_room(options), error));
    for (unsigned repeat = 0; done && repeat < options->count_repeats; repeat++)
        done = run_repeat(run, repeat, board, block, netns, error);
    if (board)
        board_free(board, BOARD_THREADS_MAX / 2);
    if (netns)
        netns_free(netns);
    return done;
}

static void
make_cells(LatencyRun *run)
{
    const LatencyOptions *options = run->options;
    const GArray *pushes = options->pushes, *threads = options->threads;
    const GArray *patterns = options->patterns, *tls = options->tls;
    guint count = pushes->len * threads->len * patterns->len * tls->len;

    guint ways = options->with_checksums ? 2 : 1;
    count *= ways;
    run->cells = g_new0(Cell, count);
    while (run->count_cells < count) {
        /* those that are compared stand one behind the other */
        guint n = run->count_cells / ways, i = n / tls->len, rest = i / pushes->len;
        Cell *cell = &run->cells[run->count_cells];
        cell->has_checksums = run->count_cells++ % ways != 0;
        cell_init(cell);
        cell->uses_tls = g_array_index(tls, uint64_t, n % tls->len) != 0;
        cell->has_urgent = options->preempt;
        cell->host_pages = options->backing == BACKING_HUGETLB ? 512 : 1;
        cell->push_bytes_per_s = g_array_index(pushes, uint64_t, i % pushes->len);
        cell->count_threads = (unsigned)g_array_index(threads, uint64_t, rest % threads->len);
        cell->pattern = (PatternKind)g_array_index(patterns, uint64_t, rest / threads->len);
    }
    floor_figures_init(&run->floor);
    run->floor.has_spinning = !options->placement.shares_cpus;
    run->floor.uses_spinning = run->floor.has_spinning && g_str_equal(options->spin_is, "on");
}

static bool
measure(LatencyRun *run, GError **error)
{
    const LatencyOptions *options = run->options;
    FaultlineBlock block = {.page_size_bytes = FAULTLINE_PAGE_BYTES,
                            .length_bytes = options->memory_bytes};

    if (!bench_clock_calibrate(error) ||
        !host_prepare_backing(options->backing, 2 * options->memory_bytes, error))
        return false;
    /* A guest in a machine fills memory of its own. */
    if (options->is_kvm ? !kvm_plan_init(&run->kvm, options->memory_bytes, error)
                        : !bench_map(options->backing, options->memory_bytes, &block, error))
        return false;
    if (!options->is_kvm)
        bench_fill(&block);
    bool done = run_repeats(run, &block, error);
    if (!options->is_kvm)
        ram_unmap(&block);
    kvm_plan_clear(&run->kvm);
    host_restore();
    if (!done)
        return false;
    latency_report_print(run);
    return !options->json_path || latency_report_write(run, error);
}

int
main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    LatencyOptions options;
    LatencyRun run = {.options = &options};
    bool done = latency_options_parse(&options, &argc, &argv, &error);

    if (done) {
        make_cells(&run);
        done = measure(&run, &error);
        for (unsigned i = 0; i < run.count_cells; i++)
            cell_clear(&run.cells[i]);
        floor_figures_clear(&run.floor);
        g_free(run.cells);
    }
    latency_options_clear(&options);
    if (!done)
        fprintf(stderr, "fault-latency: %s\n", error ? error->message : "failed");
    return done ? 0 : 1;
}
