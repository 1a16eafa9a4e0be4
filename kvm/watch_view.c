/* SPDX-License-Identifier: MIT */
/*
 * The picture of a migration as lines of text, from what a machine answers to query-migrate and
 * x-query-memory-map. What an answer lacks is left out or 0; nothing here asks or draws.
 */
#include "kvm/watch.h"

#include <math.h>
#include <stdint.h>
#include <string.h>

#define ROWS_BESIDE_MAP 19u
#define MAP_ROWS_LEAST  2u
#define MAP_ROWS_MOST   24u
#define BAR_COLUMNS     40u
#define PAGE_BYTES      4096.0
/* Of the histogram, whose octaves begin at 1 us: two a row, and both ends gathered. */
#define OCTAVES_A_ROW  2u
#define QUERY_ROWS_MAX 12u
#define ROW_FIRST      1u
#define ROW_LAST       7u

unsigned
watch_count_cells(unsigned rows)
{
    unsigned map_rows = rows > ROWS_BESIDE_MAP ? rows - ROWS_BESIDE_MAP : 0;
    return CLAMP(map_rows, MAP_ROWS_LEAST, MAP_ROWS_MOST) * WATCH_MAP_COLUMNS;
}

static void
line_free(gpointer data)
{
    WatchLine *line = data;
    g_free(line->text);
    g_free(line);
}

/* Takes text; what a terminal may not get becomes '?'. */
static void
add_line(GPtrArray *lines, char *text, bool is_map, unsigned columns)
{
    WatchLine *line = g_new0(WatchLine, 1);
    for (char *at = text; *at; at++)
        if (!g_ascii_isprint(*at))
            *at = '?';
    if (strlen(text) > columns)
        text[columns] = '\0';
    *line = (WatchLine){.text = text, .is_map = is_map};
    g_ptr_array_add(lines, line);
}

/* 0 for what is not there. */
static double
figure(JsonObject *object, const char *name)
{
    return object ? (double)json_object_get_int_member_with_default(object, name, 0) : 0;
}

static const char *
word(JsonObject *object, const char *name, const char *otherwise)
{
    return object ? json_object_get_string_member_with_default(object, name, otherwise) : otherwise;
}

static JsonObject *
part(JsonObject *object, const char *name)
{
    JsonNode *node = json_object_get_member(object, name);
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

static JsonArray *
list(JsonObject *object, const char *name)
{
    JsonNode *node = object ? json_object_get_member(object, name) : NULL;
    return node && JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
}

/* ---- The map --------------------------------------------------------------------------------- */

typedef struct Cell {
    double pages, left, waiting;
} Cell;

static Cell
cell_of(JsonArray *cells, guint index)
{
    JsonNode *node = json_array_get_element(cells, index);
    JsonArray *values = JSON_NODE_HOLDS_ARRAY(node) ? json_node_get_array(node) : NULL;
    if (!values || json_array_get_length(values) < 3)
        return (Cell){0};
    return (Cell){.pages = (double)json_array_get_int_element(values, 0),
                  .left = (double)json_array_get_int_element(values, 1),
                  .waiting = (double)json_array_get_int_element(values, 2)};
}

static Cell
sum_cells(JsonArray *cells)
{
    Cell sum = {0};
    for (guint i = 0; cells && i < json_array_get_length(cells); i++) {
        Cell cell = cell_of(cells, i);
        sum.pages += cell.pages;
        sum.left += cell.left;
        sum.waiting += cell.waiting;
    }
    return sum;
}

static char
mark_of(Cell cell)
{
    if (cell.pages <= 0)
        return ' ';
    if (cell.waiting > 0)
        return '!';
    if (cell.left <= 0)
        return '.';
    return cell.left < cell.pages ? 'o' : 'x';
}

static void
add_map(GPtrArray *lines, JsonArray *cells, bool incoming, unsigned columns)
{
    guint count = cells ? json_array_get_length(cells) : 0;
    if (!count)
        return;
    add_line(lines, g_strdup(""), false, columns);
    add_line(lines,
             g_strdup_printf("map        %.0f KiB each:  . %s  o in part  x %s%s",
                             ceil(sum_cells(cells).pages / count) * PAGE_BYTES / 1024,
                             incoming ? "received" : "sent", incoming ? "missing" : "to be sent",
                             incoming ? "  ! requested" : ""),
             false, columns);
    for (guint begin = 0; begin < count; begin += WATCH_MAP_COLUMNS) {
        GString *row = g_string_new("  ");
        for (guint i = begin; i < MIN(begin + WATCH_MAP_COLUMNS, count); i++)
            g_string_append_c(row, mark_of(cell_of(cells, i)));
        add_line(lines, g_string_free(row, FALSE), true, columns);
    }
}

/* ---- Figures --------------------------------------------------------------------------------- */

static char *
bar(double share)
{
    char *text = g_strnfill(BAR_COLUMNS, '.');
    memset(text, '#', (size_t)(CLAMP(share, 0.0, 1.0) * BAR_COLUMNS));
    return text;
}

static void
add_memory(GPtrArray *lines, JsonArray *cells, unsigned columns)
{
    Cell sum = sum_cells(cells);
    if (sum.pages <= 0)
        return;
    double share = 1 - sum.left / sum.pages;
    g_autofree char *done = bar(share);
    add_line(lines,
             g_strdup_printf("memory     [%s] %5.1f%%  %.1f MiB left", done, share * 100,
                             sum.left * PAGE_BYTES / (1 << 20)),
             false, columns);
}

static void
add_channel(GPtrArray *lines, JsonObject *ours, const char *name, unsigned columns)
{
    g_autofree char *bytes = g_strconcat(name, "-bytes", NULL);
    g_autofree char *rate = g_strconcat(name, "-bytes-per-second", NULL);
    add_line(lines,
             g_strdup_printf("%-10s %8.1f MB/s  %10.1f MiB", name, figure(ours, rate) / 1e6,
                             figure(ours, bytes) / (1 << 20)),
             false, columns);
}

static void
add_pages(GPtrArray *lines, JsonObject *ours, unsigned columns)
{
    add_line(
        lines,
        g_strdup_printf("pages      precopy %.0f  pushed %.0f  requested %.0f  neighbours %.0f",
                        figure(ours, "precopy-pages"), figure(ours, "pushed-pages"),
                        figure(ours, "requested-pages"), figure(ours, "neighbour-pages")),
        false, columns);
}

static void
add_source(GPtrArray *lines, JsonObject *migrate, unsigned columns)
{
    JsonObject *ram = part(migrate, "ram");
    if (!ram)
        return;
    bool has_downtime = json_object_has_member(migrate, "downtime");
    double downtime_ms = figure(migrate, has_downtime ? "downtime" : "expected-downtime");
    g_autofree char *downtime = downtime_ms >= (double)INT64_MAX
                                    ? g_strdup("not known")
                                    : g_strdup_printf("%.0f ms", downtime_ms);
    add_line(lines,
             g_strdup_printf("guest      pass %.0f, writes %.0f pages/s, %sdowntime %s",
                             figure(ram, "dirty-sync-count"), figure(ram, "dirty-pages-rate"),
                             has_downtime ? "" : "expected ", downtime),
             false, columns);
}

static void
add_histogram(GPtrArray *lines, JsonArray *counts, unsigned columns)
{
    double rows[QUERY_ROWS_MAX] = {0}, most = 1;
    guint count = counts ? MIN(json_array_get_length(counts), QUERY_ROWS_MAX * OCTAVES_A_ROW) : 0;

    for (guint i = 0; i < count; i++) {
        double *row = &rows[CLAMP(i / OCTAVES_A_ROW, ROW_FIRST, ROW_LAST)];
        *row += (double)json_array_get_int_element(counts, i);
        most = MAX(most, *row);
    }
    for (unsigned i = ROW_FIRST; i <= ROW_LAST; i++) {
        double end_us = (double)(1u << ((i + 1) * OCTAVES_A_ROW));
        g_autofree char *end = i == ROW_LAST     ? g_strdup("more")
                               : end_us < 1000.0 ? g_strdup_printf("< %.0f us", end_us)
                                                 : g_strdup_printf("< %.0f ms", end_us / 1024);
        g_autofree char *full = g_strnfill((gsize)(rows[i] / most * BAR_COLUMNS), '#');
        add_line(lines, g_strdup_printf("%10s %-*s %10.0f", end, (int)BAR_COLUMNS, full, rows[i]),
                 false, columns);
    }
}

static void
add_destination(GPtrArray *lines, JsonObject *ours, unsigned columns)
{
    add_line(lines,
             g_strdup_printf("faults     %.0f remote, %.0f local, %.0f in flight, the oldest waits "
                             "%.2f ms",
                             figure(ours, "faults"), figure(ours, "local-faults"),
                             figure(ours, "faults-in-flight"),
                             figure(ours, "longest-stall-ns") / 1e6),
             false, columns);
    add_line(lines,
             g_strdup_printf("latency us p50 %.0f  p90 %.0f  p99 %.0f  p99.9 %.0f  max %.0f",
                             figure(ours, "fault-p50-ns") / 1e3, figure(ours, "fault-p90-ns") / 1e3,
                             figure(ours, "fault-p99-ns") / 1e3,
                             figure(ours, "fault-p999-ns") / 1e3,
                             figure(ours, "fault-max-ns") / 1e3),
             false, columns);
    double expected_ms = figure(ours, "expected-resident-ms");
    g_autofree char *expected = expected_ms >= (double)INT64_MAX
                                    ? g_strdup("not known")
                                    : g_strdup_printf("%.0f ms", expected_ms);
    add_line(lines,
             g_strdup_printf("resident   %.0f ms so far, expected %s; all vCPUs waited %.1f ms",
                             figure(ours, "resident-us") / 1e3, expected,
                             figure(ours, "blocktime-ns") / 1e6),
             false, columns);
    add_histogram(lines, list(ours, "fault-histogram"), columns);
}

GPtrArray *
watch_render(const char *name, JsonObject *migrate, JsonObject *map, unsigned columns)
{
    GPtrArray *lines = g_ptr_array_new_with_free_func(line_free);
    JsonObject *ours = part(migrate, "faultline");
    JsonArray *cells = list(map, "cells");
    bool incoming = g_str_equal(word(ours, "side", "source"), "destination");

    add_line(lines, g_strdup_printf("faultline  %s", name), false, columns);
    add_line(lines,
             g_strdup_printf("phase      %s%s%s%s%s", word(migrate, "status", "none"),
                             ours ? " (" : "", ours ? word(ours, "side", "") : "",
                             ours ? "), guest " : "", ours ? word(ours, "run-state", "") : ""),
             false, columns);
    const char *error = word(migrate, "error-desc", NULL);
    if (error)
        add_line(lines, g_strdup_printf("error      %s", error), false, columns);
    if (!ours)
        return lines;
    add_memory(lines, cells, columns);
    add_channel(lines, ours, "main", columns);
    add_channel(lines, ours, "urgent", columns);
    add_pages(lines, ours, columns);
    if (incoming)
        add_destination(lines, ours, columns);
    else
        add_source(lines, migrate, columns);
    add_map(lines, cells, incoming, columns);
    return lines;
}
