/* SPDX-License-Identifier: MIT */
/*
 * A FaultlineInfo as Prometheus text. Base units (seconds, bytes), counters end in _total, and what
 * is not known is NaN. Counters begin again with the next migration, which Prometheus knows how to
 * read. Computes nothing else; main thread.
 */
#include "kvm/metrics.h"

#include <math.h>

/* Bounds of the histogram's buckets are powers of two ns, where counts are exact: 4 us to 8.6 s. */
#define BUCKET_LEAST_BIT    12u
#define BUCKET_GREATEST_BIT 33u

typedef struct Sample {
    const char *labels; /* "" or {name="value",...} */
    double value;
} Sample;

/* The C locale's, whatever the program's is. */
static void
put_value(GString *text, const char *name, const char *labels, double value)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];

    if (isnan(value))
        g_strlcpy(number, "NaN", sizeof number);
    else
        g_ascii_formatd(number, sizeof number, "%.15g", value);
    g_string_append_printf(text, "%s%s %s\n", name, labels, number);
}

static void
put_head(GString *text, const char *name, const char *type, const char *help)
{
    g_string_append_printf(text, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static double
seconds_of_ns(uint64_t ns)
{
    return (double)ns / 1e9;
}

/* UINT64_MAX is what the engine does not know. */
static double
seconds_of_ms(uint64_t ms)
{
    return ms == UINT64_MAX ? (double)NAN : (double)ms / 1e3;
}

/* ---- Label values ---------------------------------------------------------------------------- */

static char *
escape(const char *value)
{
    GString *escaped = g_string_new(NULL);
    g_autofree char *valid = g_utf8_make_valid(value, -1);
    for (const char *at = valid; *at; at++) {
        if (*at == '\\' || *at == '"')
            g_string_append_c(escaped, '\\');
        if (*at == '\n')
            g_string_append(escaped, "\\n");
        else
            g_string_append_c(escaped, *at);
    }
    return g_string_free(escaped, FALSE);
}

static void
put_machine(GString *text, const FaultlineInfo *info, const char *name)
{
    g_autofree char *escaped = escape(name);
    g_autofree char *labels = g_strdup_printf("{name=\"%s\",side=\"%s\"}", escaped,
                                              info->incoming ? "destination" : "source");

    put_head(text, "faultline_machine_info", "gauge",
             "Name of the guest, and which side of the last migration this is.");
    put_value(text, "faultline_machine_info", labels, 1);
}

static void
put_phase(GString *text, const FaultlineInfo *info)
{
    put_head(text, "faultline_migration_phase", "gauge",
             "1 for the phase that the migration is in, 0 for all others.");
    for (unsigned i = 0; i < FAULTLINE_STATUS_COUNT; i++) {
        g_autofree char *labels =
            g_strdup_printf("{phase=\"%s\"}", faultline_status_name((FaultlineStatus)i));
        put_value(text, "faultline_migration_phase", labels, i == (unsigned)info->status);
    }
}

/* ---- Families -------------------------------------------------------------------------------- */

static void
put_channels(GString *text, const FaultlineInfo *info)
{
    put_head(text, "faultline_channel_bytes_total", "counter",
             "Bytes of the stream: sent at a source, received at a destination.");
    put_value(text, "faultline_channel_bytes_total", "{channel=\"main\"}",
              (double)info->main_bytes);
    put_value(text, "faultline_channel_bytes_total", "{channel=\"urgent\"}",
              (double)info->urgent_bytes);
}

static void
put_pages(GString *text, const FaultlineInfo *info)
{
    const Sample samples[] = {
        {"{way=\"precopy\"}", (double)info->precopy_pages},
        {"{way=\"pushed\"}", (double)info->pushed_pages},
        {"{way=\"requested\"}", (double)info->requested_pages},
        {"{way=\"neighbour\"}", (double)info->neighbour_pages},
    };
    put_head(text, "faultline_pages_total", "counter",
             "Pages of 4096 bytes: sent at a source, received at a destination.");
    for (unsigned i = 0; i < G_N_ELEMENTS(samples); i++)
        put_value(text, "faultline_pages_total", samples[i].labels, samples[i].value);
}

static void
put_latency(GString *text, const FaultlineLatency *latency)
{
    static const char name[] = "faultline_fault_latency_seconds";
    uint64_t count = faultline_latency_count_below(latency, UINT64_MAX);

    put_head(text, name, "histogram", "Time from a remote fault until its page was placed.");
    for (unsigned bit = BUCKET_LEAST_BIT; bit <= BUCKET_GREATEST_BIT; bit++) {
        char bound[G_ASCII_DTOSTR_BUF_SIZE];
        uint64_t limit_ns = UINT64_C(1) << bit;
        g_ascii_formatd(bound, sizeof bound, "%.10g", seconds_of_ns(limit_ns));
        g_string_append_printf(text, "%s_bucket{le=\"%s\"} %" G_GUINT64_FORMAT "\n", name, bound,
                               faultline_latency_count_below(latency, limit_ns));
    }
    g_string_append_printf(text, "%s_bucket{le=\"+Inf\"} %" G_GUINT64_FORMAT "\n", name, count);
    g_autofree char *sum = g_strconcat(name, "_sum", NULL);
    put_value(text, sum, "", seconds_of_ns(latency->total_ns));
    g_string_append_printf(text, "%s_count %" G_GUINT64_FORMAT "\n", name, count);
}

static void
put_vcpus(GString *text, const FaultlineInfo *info)
{
    put_head(text, "faultline_vcpu_blocktime_seconds_total", "counter",
             "Time in which a vCPU waited for pages.");
    for (unsigned i = 0; i < MIN(info->count_vcpus, FAULTLINE_VCPUS_MAX); i++) {
        g_autofree char *labels = g_strdup_printf("{vcpu=\"%u\"}", i);
        put_value(text, "faultline_vcpu_blocktime_seconds_total", labels,
                  seconds_of_ns(info->vcpu_blocktime_ns[i]));
    }
    put_head(text, "faultline_vcpu_remote_faults_total", "counter",
             "Faults of a vCPU on pages that had to come.");
    for (unsigned i = 0; i < MIN(info->count_vcpus, FAULTLINE_VCPUS_MAX); i++) {
        g_autofree char *labels = g_strdup_printf("{vcpu=\"%u\"}", i);
        put_value(text, "faultline_vcpu_remote_faults_total", labels, (double)info->vcpu_faults[i]);
    }
}

static void
put_singles(GString *text, const FaultlineInfo *info)
{
    const struct {
        const char *name, *type, *help;
        double value;
    } rows[] = {
        {"faultline_guest_running", "gauge", "1 while the guest runs here.",
         info->run_state == FAULTLINE_RUN_RUNNING},
        {"faultline_migration_duration_seconds", "gauge", "Since the migration began.",
         seconds_of_ms(info->total_time_ms)},
        {"faultline_downtime_seconds", "gauge",
         "Source: from the stop of the guest until all was handed over that it needs to run.",
         (double)info->downtime_us / 1e6},
        {"faultline_expected_downtime_seconds", "gauge",
         "Source: what the downtime would be if the guest stopped now.",
         seconds_of_ms(info->expected_downtime_ms)},
        {"faultline_ram_bytes", "gauge", "Guest memory.", (double)info->ram_total_bytes},
        {"faultline_remaining_bytes", "gauge", "Memory that has yet to move.",
         (double)info->ram_remaining_bytes},
        {"faultline_missing_pages", "gauge", "Destination: pages that are not here.",
         (double)info->missing_pages},
        {"faultline_damaged_pages_total", "counter",
         "With page-checksums: pages that came damaged and were asked for again.",
         (double)info->integrity.damaged_pages},
        {"faultline_dirty_pages_per_second", "gauge", "Source: pages written in the last pass.",
         (double)info->dirty_pages_per_s},
        {"faultline_passes_total", "counter", "Source: syncs of the dirty log.",
         (double)info->dirty_sync_count},
        {"faultline_zero_pages_total", "counter", "Pages that were all zero, of any way.",
         (double)info->zero_pages},
        {"faultline_page_requests_total", "counter", "Requests: received by a source, or sent.",
         (double)info->postcopy_requests},
        {"faultline_local_faults_total", "counter", "Destination: faults on pages that were here.",
         (double)info->local_faults},
        {"faultline_faults_in_flight", "gauge", "Destination: remote faults that wait now.",
         (double)info->faults_in_flight},
        {"faultline_longest_stall_seconds", "gauge",
         "Destination: how long the oldest of them has waited.",
         seconds_of_ns(info->longest_stall_ns)},
        {"faultline_blocktime_seconds_total", "counter",
         "Destination: time in which all vCPUs waited at once.", seconds_of_ns(info->blocktime_ns)},
        {"faultline_resident_seconds", "gauge",
         "Destination: from the start of the guest until all pages were here, or until now.",
         (double)info->resident_time_us / 1e6},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        put_head(text, rows[i].name, rows[i].type, rows[i].help);
        put_value(text, rows[i].name, "", rows[i].value);
    }
}

void
metrics_render(const FaultlineInfo *info, const char *name, GString *text)
{
    put_machine(text, info, name);
    put_phase(text, info);
    put_singles(text, info);
    put_channels(text, info);
    put_pages(text, info);
    put_vcpus(text, info);
    put_latency(text, &info->latency);
}
