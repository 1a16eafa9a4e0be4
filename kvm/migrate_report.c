/* SPDX-License-Identifier: MIT */
/*
 * Lines of `faultline migrate`. At a terminal the line of the progress is written over and over;
 * elsewhere each line stays. A failure is told on standard error too, also with JSON. One thread.
 */
#include "kvm/migrate_report.h"

#include <stdio.h>
#include <unistd.h>

#define TERMINAL_US (100 * 1000)
#define MIB         1048576.0
#define PAGE_BYTES  4096

void
migrate_report_begin(MigrateReport *report, bool json)
{
    *report =
        (MigrateReport){.json = json, .terminal = !json && isatty(STDOUT_FILENO), .phase = ""};
}

static const char *
line_begin(const MigrateReport *report)
{
    return report->terminal ? "\r\033[K" : "";
}

void
migrate_report_object(MigrateReport *report, JsonObject *object)
{
    g_autoptr(JsonNode) node = json_node_new(JSON_NODE_OBJECT);

    json_object_set_string_member(object, "phase", report->phase);
    json_node_take_object(node, object);
    g_autofree char *text = json_to_string(node, FALSE);
    puts(text);
    fflush(stdout);
}

void
migrate_report_phase(MigrateReport *report, const char *phase)
{
    report->phase = phase;
    report->printed_us = 0;
    if (report->json)
        migrate_report_object(report, json_object_new());
}

void
migrate_report_say(MigrateReport *report, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    if (report->json) {
        JsonObject *object = json_object_new();
        json_object_set_string_member(object, "text", text);
        migrate_report_object(report, object);
        return;
    }
    printf("%s%-8s %s\n", line_begin(report), report->phase, text);
    fflush(stdout);
}

/* ---- Progress -------------------------------------------------------------------------------- */

static double
percent_of(const MigrateLook *look)
{
    double part = 1 - (double)look->remaining_bytes / (double)MAX(look->total_bytes, 1);

    return 100 * CLAMP(part, 0, 1);
}

/* Leaves out what is not told. */
static void
put_number(JsonObject *object, const char *name, int64_t value)
{
    if (value >= 0 && value != INT64_MAX)
        json_object_set_int_member(object, name, value);
}

static void
put_figures(JsonObject *object, const MigrateLook *look)
{
    json_object_set_string_member(object, "status", look->status);
    put_number(object, "pass", look->pass);
    put_number(object, "total-bytes", look->total_bytes);
    put_number(object, "remaining-bytes", look->remaining_bytes);
    put_number(object, "transferred-bytes", look->transferred_bytes);
    put_number(object, "bytes-per-second", look->bytes_per_s);
    put_number(object, "dirty-bytes-per-second",
               look->dirty_pages_per_s < 0 ? -1 : look->dirty_pages_per_s * PAGE_BYTES);
    put_number(object, "predicted-downtime-ms", look->expected_downtime_ms);
    put_number(object, "downtime-ms", look->downtime_ms);
    put_number(object, "total-ms", look->total_ms);
}

static double
mib(int64_t bytes)
{
    return (double)MAX(bytes, 0) / MIB;
}

/* Before the switch: what it would take now, and what is allowed. After it: what it took. */
static char *
downtime_text(const MigrateLook *look, uint64_t allowed_ms)
{
    if (look->downtime_ms >= 0)
        return g_strdup_printf("stood %" G_GINT64_FORMAT " ms", look->downtime_ms);
    if (look->expected_downtime_ms < 0 || look->expected_downtime_ms == INT64_MAX)
        return g_strdup_printf("?/%" G_GUINT64_FORMAT " ms", allowed_ms);
    return g_strdup_printf("%" G_GINT64_FORMAT "/%" G_GUINT64_FORMAT " ms",
                           look->expected_downtime_ms, allowed_ms);
}

void
migrate_report_progress(MigrateReport *report, const MigrateLook *look, uint64_t allowed_ms)
{
    int64_t now_us = g_get_monotonic_time();
    int64_t period_us = report->terminal ? TERMINAL_US : G_USEC_PER_SEC;

    if (look->total_bytes <= 0 || now_us - report->printed_us < period_us)
        return;
    report->printed_us = now_us;
    if (report->json) {
        JsonObject *object = json_object_new();
        put_figures(object, look);
        json_object_set_double_member(object, "percent", percent_of(look));
        put_number(object, "allowed-downtime-ms", (int64_t)allowed_ms);
        migrate_report_object(report, object);
        return;
    }
    g_autofree char *downtime = downtime_text(look, allowed_ms);
    printf("%s%-8s %s %" G_GINT64_FORMAT " %3.0f%% %.1f MiB/s dirty %.1f left %.1f %s%s",
           line_begin(report), report->phase, look->status, MAX(look->pass, 0), percent_of(look),
           mib(look->bytes_per_s), mib(look->dirty_pages_per_s * PAGE_BYTES),
           mib(look->remaining_bytes), downtime, report->terminal ? "" : "\n");
    fflush(stdout);
}

/* ---- Outcome --------------------------------------------------------------------------------- */

void
migrate_report_outcome(MigrateReport *report, const MigrateOutcome *outcome)
{
    if (report->json) {
        JsonObject *object = json_object_new();
        if (outcome->figures)
            put_figures(object, outcome->figures);
        json_object_set_string_member(object, "outcome", outcome->name);
        json_object_set_string_member(object, "guest", outcome->guest);
        json_object_set_string_member(object, "text", outcome->text);
        json_object_set_int_member(object, "exit-code", outcome->exit_code);
        migrate_report_object(report, object);
    } else if (outcome->exit_code == 0) {
        printf("%s%s\n", line_begin(report), outcome->text);
        fflush(stdout);
    }
    if (outcome->exit_code != 0)
        fprintf(stderr, "%sfaultline migrate: %s\n", line_begin(report), outcome->text);
}
