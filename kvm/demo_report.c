/* SPDX-License-Identifier: MIT */
/*
 * The demo's output: progress line, figures, histogram. Reads replies to query-migrate, prints to
 * standard output, decides nothing. One thread.
 */
#include "kvm/demo_report.h"

#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_TERMINAL_US (100 * 1000)
#define LINE_PLAIN_US    G_USEC_PER_SEC
#define RATE_US          (250 * 1000)
#define GAUGE_WIDTH      24
#define BAR_WIDTH        40
#define BUCKETS          24 /* bucket n: [2^n, 2^(n+1)) us; the first also what is shorter */
#define MIB              (1024.0 * 1024.0)

static JsonObject *
object_of(JsonObject *reply, const char *group)
{
    JsonNode *node = group ? json_object_get_member(reply, group) : NULL;

    if (!group)
        return reply;
    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

int64_t
demo_report_number(JsonObject *reply, const char *group, const char *member)
{
    JsonObject *object = object_of(reply, group);
    JsonNode *node = object ? json_object_get_member(object, member) : NULL;

    return node && JSON_NODE_HOLDS_VALUE(node) ? json_node_get_int(node) : -1;
}

void
demo_progress_begin(DemoProgress *progress)
{
    *progress = (DemoProgress){.terminal = isatty(STDOUT_FILENO)};
}

void
demo_progress_say(DemoProgress *progress, const char *text)
{
    printf("%s%s\n", progress->terminal ? "\r\033[K" : "", text);
    fflush(stdout);
}

static void
measure_rate(DemoProgress *progress, int64_t now_us, int64_t transferred)
{
    int64_t elapsed_us = now_us - progress->rate_us;

    if (transferred < 0 || elapsed_us < RATE_US)
        return;
    if (progress->rate_us)
        progress->bytes_per_s =
            (double)(transferred - progress->rate_bytes) * G_USEC_PER_SEC / (double)elapsed_us;
    progress->rate_us = now_us;
    progress->rate_bytes = transferred;
}

void
demo_progress_show(DemoProgress *progress, JsonObject *source, bool last)
{
    int64_t now_us = g_get_monotonic_time();
    int64_t total = demo_report_number(source, "ram", "total");
    int64_t remaining = demo_report_number(source, "ram", "remaining");
    int64_t period_us = progress->terminal ? LINE_TERMINAL_US : LINE_PLAIN_US;

    measure_rate(progress, now_us, demo_report_number(source, "ram", "transferred"));
    if (total <= 0 || remaining < 0 || (!last && now_us - progress->printed_us < period_us))
        return;
    progress->printed_us = now_us;

    double part = CLAMP(1.0 - (double)remaining / (double)total, 0.0, 1.0);
    char gauge[GAUGE_WIDTH + 1] = "";
    memset(gauge, '.', GAUGE_WIDTH);
    memset(gauge, '#', (size_t)(part * GAUGE_WIDTH));
    printf("%s[%s] %-15s %3.0f%%  %7.1f MiB/s  %8.1f MiB left%s",
           progress->terminal ? "\r\033[K" : "", gauge,
           json_object_get_string_member_with_default(source, "status", "none"), part * 100,
           progress->bytes_per_s / MIB, (double)remaining / MIB,
           progress->terminal && !last ? "" : "\n");
    fflush(stdout);
}

/* A time in a fitting unit; "unknown" for -1. */
static char *
time_text(int64_t ns)
{
    if (ns < 0)
        return g_strdup("unknown");
    if (ns < 10 * 1000)
        return g_strdup_printf("%.2f us", (double)ns / 1e3);
    if (ns < 1000 * 1000)
        return g_strdup_printf("%.0f us", (double)ns / 1e3);
    if (ns < 1000 * 1000 * 1000)
        return g_strdup_printf("%.2f ms", (double)ns / 1e6);
    return g_strdup_printf("%.2f s", (double)ns / 1e9);
}

static void
print_time(const char *title, int64_t ns)
{
    g_autofree char *text = time_text(ns);
    printf("  %-22s %s\n", title, text);
}

static void
print_count(const char *title, int64_t count)
{
    if (count < 0)
        printf("  %-22s unknown\n", title);
    else
        printf("  %-22s %" G_GINT64_FORMAT "\n", title, count);
}

/* Fills counts from the list; false when the reply has none. */
static bool
histogram_counts(JsonObject *reply, int64_t *ret_counts)
{
    JsonObject *object = object_of(reply, "faultline");
    JsonNode *node = object ? json_object_get_member(object, "fault-histogram") : NULL;

    if (!node || !JSON_NODE_HOLDS_ARRAY(node))
        return false;
    JsonArray *array = json_node_get_array(node);
    for (guint i = 0; i < MIN(json_array_get_length(array), BUCKETS); i++)
        ret_counts[i] = json_array_get_int_element(array, i);
    return true;
}

static void
print_histogram(JsonObject *reply)
{
    int64_t counts[BUCKETS] = {0}, most = 0;
    int first = BUCKETS, last = -1;

    if (!histogram_counts(reply, counts))
        return;
    for (int i = 0; i < BUCKETS; i++) {
        if (counts[i] <= 0)
            continue;
        first = MIN(first, i);
        last = i;
        most = MAX(most, counts[i]);
    }
    for (int i = first; i <= last; i++) {
        int width = (int)((counts[i] * BAR_WIDTH + most - 1) / most);
        printf("    from %8d us  %9" G_GINT64_FORMAT "  ", i ? 1 << i : 0, counts[i]);
        for (int column = 0; column < width; column++)
            putchar('#');
        putchar('\n');
    }
}

static void
print_pages(JsonObject *source)
{
    int64_t zero = demo_report_number(source, "faultline", "zero-pages");

    if (zero < 0)
        zero = demo_report_number(source, "ram", "duplicate");
    print_count("pages by precopy", demo_report_number(source, "faultline", "precopy-pages"));
    print_count("pages pushed", demo_report_number(source, "faultline", "pushed-pages"));
    print_count("pages requested", demo_report_number(source, "faultline", "requested-pages"));
    print_count("of them zero pages", zero);
}

static void
print_faults(JsonObject *destination)
{
    int64_t faults = demo_report_number(destination, "faultline", "faults");

    print_count("remote faults", faults);
    if (faults <= 0)
        return;
    print_time("  latency p50", demo_report_number(destination, "faultline", "fault-p50-ns"));
    print_time("  latency p99", demo_report_number(destination, "faultline", "fault-p99-ns"));
    print_time("  latency max", demo_report_number(destination, "faultline", "fault-max-ns"));
    print_histogram(destination);
}

void
demo_report_print(JsonObject *source, JsonObject *destination, const char *verdict)
{
    int64_t downtime_us = demo_report_number(source, "faultline", "downtime-us");
    int64_t total_ms = demo_report_number(source, NULL, "total-time");

    if (downtime_us < 0 && demo_report_number(source, NULL, "downtime") >= 0)
        downtime_us = demo_report_number(source, NULL, "downtime") * 1000;
    printf("\n");
    print_time("downtime", downtime_us < 0 ? -1 : downtime_us * 1000);
    print_time("total time", total_ms < 0 ? -1 : total_ms * 1000 * 1000);
    print_pages(source);
    print_faults(destination);
    printf("  %-22s %s\n", "the guest's verdict", verdict ? verdict : "none");
    fflush(stdout);
}
