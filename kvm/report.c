/* SPDX-License-Identifier: MIT */
/*
 * The guest's verdict on its data, taken from its serial output. Runs on vCPU threads (bytes) and
 * on the main thread (verdict). The bytes themselves go where serial.c sends them.
 */
#include "kvm/report.h"

#include <string.h>

void
report_init(Report *report)
{
    memset(report, 0, sizeof *report);
    pthread_mutex_init(&report->lock, NULL);
}

void
report_clear(Report *report)
{
    pthread_mutex_destroy(&report->lock);
}

static void
judge_line(Report *report)
{
    if (g_str_has_prefix(report->verdict, "bad"))
        return;
    if (g_str_has_prefix(report->line, "BAD ")) {
        g_snprintf(report->verdict, sizeof report->verdict, "bad: %s", report->line + 4);
    } else if (g_str_has_prefix(report->line, "ok ")) {
        g_snprintf(report->verdict, sizeof report->verdict, "ok, %s checks", report->line + 3);
    } else if (strcmp(report->line, "ready") == 0) {
        g_strlcpy(report->verdict, "ok, 0 checks", sizeof report->verdict);
    }
}

void
report_byte(Report *report, char byte)
{
    pthread_mutex_lock(&report->lock);
    if (byte == '\n') {
        judge_line(report);
        report->length = 0;
    } else if (byte != '\r' && report->length + 1 < sizeof report->line) {
        report->line[report->length++] = byte;
    }
    report->line[report->length] = '\0';
    pthread_mutex_unlock(&report->lock);
}

const char *
report_verdict(Report *report)
{
    pthread_mutex_lock(&report->lock);
    memcpy(report->shown, report->verdict, sizeof report->shown);
    pthread_mutex_unlock(&report->lock);
    return report->shown[0] ? report->shown : NULL;
}
