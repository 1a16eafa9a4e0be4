/* SPDX-License-Identifier: MIT */
/*
 * The report of bench/fault-latency: JSON, a Markdown table on stdout, columns for gnuplot.
 */
#ifndef BENCH_LATENCY_REPORT_H
#define BENCH_LATENCY_REPORT_H

#include "bench/cell.h"
#include "bench/latency_options.h"

typedef struct LatencyRun {
    const LatencyOptions *options;
    KvmPlan kvm; /* with --guest kvm */
    FloorFigures floor;
    Cell *cells;
    unsigned count_cells;
} LatencyRun;

void latency_report_print(LatencyRun *run);
/* To options->json_path and beside it. */
bool latency_report_write(LatencyRun *run, GError **error);

#endif
