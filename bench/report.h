/* SPDX-License-Identifier: MIT */
/*
 * Pieces of a report: JSON by json-glib, tables in Markdown, columns for gnuplot.
 */
#ifndef BENCH_REPORT_H
#define BENCH_REPORT_H

#include "bench/samples.h"

#include <json-glib/json-glib.h>
#include <stdbool.h>

/* Opens the root object and describes the machine; the caller adds members. */
JsonBuilder *report_new(const char *name);
/* Closes the root object and writes it to path. */
bool report_write(JsonBuilder *builder, const char *path, GError **error);

void report_number(JsonBuilder *builder, const char *name, double value);
void report_count(JsonBuilder *builder, const char *name, uint64_t value);
void report_text(JsonBuilder *builder, const char *name, const char *value);
void report_flag(JsonBuilder *builder, const char *name, bool value);
void report_open(JsonBuilder *builder, const char *name);
void report_close(JsonBuilder *builder);

/* {"samples": n, "repeats": n, "p50": {"value", "least", "greatest"}, ...} */
void report_samples(JsonBuilder *builder, const char *name, Samples *samples);
void report_quantiles(JsonBuilder *builder, const char *name, const Quantiles *quantiles);

/* On a terminal, over the last such line. */
void report_progress(const char *format, ...) G_GNUC_PRINTF(1, 2);

/* "12.3 (11.0..14.2)" */
char *report_with_range(double value, double least, double greatest);

/* path with its ending .json replaced. */
char *report_path(const char *json_path, const char *ending);

#endif
