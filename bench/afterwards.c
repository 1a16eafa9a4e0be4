/* SPDX-License-Identifier: MIT */
/*
 * bench/afterwards: what memory on 2 MiB mappings is worth to a guest when its migration is over.
 * The same postcopy into memory of 4 KiB pages and into shmem THP, which arrives page by page and
 * is collapsed at the end; then a thread loads at random. Coordinating process.
 */
#include "bench/clock.h"
#include "bench/host.h"
#include "bench/latency_options.h"
#include "bench/report.h"

#include <stdio.h>

#define LOADS   5000000u
#define LIMIT_S 300u

static const Backing kinds[] = {BACKING_SMALL, BACKING_THP};

typedef struct Figures {
    Samples load_ns;
    uint64_t huge_bytes; /* of the last repeat */
} Figures;

typedef struct Afterwards {
    uint64_t memory_bytes;
    unsigned count_repeats;
    Placement placement;
    Figures figures[G_N_ELEMENTS(kinds)];
} Afterwards;

static bool
run_once(Afterwards *run, unsigned kind, Board *board, GError **error)
{
    FaultlineBlock block;
    Figures *figures = &run->figures[kind];

    if (!host_prepare_backing(kinds[kind], 2 * run->memory_bytes, error) ||
        !bench_map(kinds[kind], run->memory_bytes, &block, error))
        return false;
    bench_fill(&block);
    const MovePlan plan = {.source_block = &block,
                           .backing = kinds[kind],
                           .is_postcopy = true,
                           .preempt = true,
                           .placement = &run->placement,
                           .push_bytes_per_s = PUSH_FULL,
                           .dirty = {.count_pages = UINT64_MAX},
                           .count_loads = LOADS,
                           .limit_s = LIMIT_S};
    bool done = move_run(&plan, board, error);
    if (done)
        samples_add_repeat(&figures->load_ns, &board->load_ns, 1);
    figures->huge_bytes = board->huge_bytes;
    ram_unmap(&block);
    return done;
}

static void
print(Afterwards *run)
{
    g_autofree char *host = host_summary();
    double small = samples_percentile(&run->figures[0].load_ns, 50);

    printf("# Memory after a migration\n\n%s.\nMemory %" G_GUINT64_FORMAT
           " MiB, moved by postcopy, "
           "then %u loads at random, one a page; medians of %u repeats.\n\n"
           "| backing | mapped by 2 MiB | ns a load | of 4k |\n|---|---|---|---|\n",
           host, run->memory_bytes >> 20, LOADS, run->count_repeats);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        Figures *figures = &run->figures[i];
        Quantiles least, greatest;
        double ns = samples_percentile(&figures->load_ns, 50);
        samples_range(&figures->load_ns, &least, &greatest);
        g_autofree char *text = report_with_range(ns, least.value[0], greatest.value[0]);
        printf("| %s | %.0f%% | %s | %.2f |\n", backing_names[kinds[i]],
               100.0 * (double)figures->huge_bytes / (double)run->memory_bytes, text,
               small > 0 ? ns / small : 0);
    }
}

static bool
write_json(Afterwards *run, const char *path, GError **error)
{
    g_autoptr(JsonBuilder) json = report_new("afterwards");

    report_count(json, "memory-bytes", run->memory_bytes);
    report_count(json, "loads", LOADS);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        report_open(json, backing_names[kinds[i]]);
        report_samples(json, "load-ns", &run->figures[i].load_ns);
        report_count(json, "mapped-by-2-mib-bytes", run->figures[i].huge_bytes);
        report_close(json);
    }
    return report_write(json, path, error);
}

static bool
measure(Afterwards *run, const char *json_path, GError **error)
{
    Board *board = bench_clock_calibrate(error) ? board_new(1, 1, error) : NULL;
    bool done = board != NULL;

    for (unsigned repeat = 0; done && repeat < run->count_repeats; repeat++)
        for (unsigned i = 0; done && i < G_N_ELEMENTS(kinds); i++)
            done = run_once(run, i, board, error);
    host_restore();
    if (board)
        board_free(board, 1);
    if (!done)
        return false;
    print(run);
    return !json_path || write_json(run, json_path, error);
}

int
main(int argc, char **argv)
{
    g_autofree char *memory = NULL, *json_path = NULL;
    gint repeats = 3;
    const GOptionEntry entries[] = {
        {"memory", 0, 0, G_OPTION_ARG_STRING, &memory, "guest memory (512M)", "BYTES"},
        {"repeats", 0, 0, G_OPTION_ARG_INT, &repeats, "interleaved", "N"},
        {"json", 0, 0, G_OPTION_ARG_FILENAME, &json_path, "write FILE", "FILE"},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);
    g_autoptr(GError) error = NULL;
    Afterwards run = {.memory_bytes = 512u << 20};

    g_option_context_set_summary(context, "What 2 MiB mappings are worth after a migration.");
    g_option_context_add_main_entries(context, entries, NULL);
    bool done = g_option_context_parse(context, &argc, &argv, &error);
    if (done && ((memory && !bench_parse_bytes(memory, &run.memory_bytes)) ||
                 run.memory_bytes < 2u << 20 || run.memory_bytes % (2u << 20) || repeats < 1)) {
        g_set_error(&error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "--memory takes a multiple of 2M, --repeats at least 1");
        done = false;
    }
    run.count_repeats = (unsigned)repeats;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        samples_init(&run.figures[i].load_ns);
    done = done && placement_parse(&run.placement, NULL, NULL, NULL, &error) &&
           measure(&run, json_path, &error);
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        samples_clear(&run.figures[i].load_ns);
    if (!done)
        fprintf(stderr, "afterwards: %s\n", error ? error->message : "failed");
    return done ? 0 : 1;
}
