/* SPDX-License-Identifier: MIT */
/*
 * `info migrate`: a FaultlineInfo as text for a person, with the figures of query-migrate.
 *
 * Figures that say nothing at this side or in this phase are left out. Control thread.
 */
#include "engine/monitor/monitor.h"

static void
render_times(const FaultlineInfo *info, GString *output)
{
    g_string_append_printf(output, "total time: %" G_GUINT64_FORMAT " ms\n", info->total_time_ms);
    g_string_append_printf(output, "setup time: %" G_GUINT64_FORMAT " ms\n", info->setup_time_ms);
    bool has_switched = info->status == FAULTLINE_STATUS_COMPLETED ||
                        info->status == FAULTLINE_STATUS_POSTCOPY_DEVICE ||
                        info->status == FAULTLINE_STATUS_POSTCOPY_ACTIVE ||
                        info->status == FAULTLINE_STATUS_POSTCOPY_PAUSED ||
                        info->status == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP ||
                        info->status == FAULTLINE_STATUS_POSTCOPY_RECOVER;
    if (has_switched)
        g_string_append_printf(output, "downtime: %.3f ms\n", (double)info->downtime_us / 1e3);
    else if (info->expected_downtime_ms != UINT64_MAX)
        g_string_append_printf(output, "expected downtime: %" G_GUINT64_FORMAT " ms\n",
                               info->expected_downtime_ms);
    if (info->cpu_throttle_percent != 0)
        g_string_append_printf(output, "cpu throttle percentage: %" G_GUINT64_FORMAT "\n",
                               info->cpu_throttle_percent);
}

static void
render_ram(const FaultlineInfo *info, GString *output)
{
    const struct {
        const char *name, *unit;
        uint64_t value;
    } rows[] = {
        {"transferred ram", "KiB", info->ram_transferred_bytes / 1024},
        {"remaining ram", "KiB", info->ram_remaining_bytes / 1024},
        {"total ram", "KiB", info->ram_total_bytes / 1024},
        {"precopy ram", "KiB", info->precopy_bytes / 1024},
        {"downtime ram", "KiB", info->downtime_bytes / 1024},
        {"postcopy ram", "KiB", info->postcopy_bytes / 1024},
        {"normal", "pages", info->normal_pages},
        {"duplicate", "pages", info->zero_pages},
        {"page size", "bytes", FAULTLINE_PAGE_BYTES},
        {"dirty sync count", "", info->dirty_sync_count},
        {"dirty pages rate", "pages/s", info->dirty_pages_per_s},
        {"pages per second", "pages/s", info->pages_per_s},
        {"postcopy requests", "", info->postcopy_requests},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        g_string_append_printf(output, "%s: %" G_GUINT64_FORMAT "%s%s\n", rows[i].name,
                               rows[i].value, rows[i].unit[0] != '\0' ? " " : "", rows[i].unit);
    g_string_append_printf(output, "throughput: %.2f mbps\n",
                           (double)info->bandwidth_bytes_per_s * 8 / 1e6);
}

static void
render_ways(const FaultlineInfo *info, GString *output)
{
    g_string_append_printf(output,
                           "pages %s: precopy %" G_GUINT64_FORMAT ", pushed %" G_GUINT64_FORMAT
                           ", requested %" G_GUINT64_FORMAT ", neighbours %" G_GUINT64_FORMAT
                           ", zero %" G_GUINT64_FORMAT "\n",
                           info->incoming ? "received" : "sent", info->precopy_pages,
                           info->pushed_pages, info->requested_pages, info->neighbour_pages,
                           info->zero_pages);
    if (info->incoming)
        g_string_append_printf(output,
                               "pages missing: %" G_GUINT64_FORMAT
                               "; faults on pages that were here: %" G_GUINT64_FORMAT "\n",
                               info->missing_pages, info->local_faults);
}

static void
render_integrity(const FaultlineIntegrity *integrity, GString *output)
{
    if (integrity->verdict == FAULTLINE_VERDICT_UNCHECKED && !integrity->damaged_pages)
        return;
    g_string_append_printf(output,
                           "integrity: %s; pages checked %" G_GUINT64_FORMAT
                           ", damaged %" G_GUINT64_FORMAT ", asked again %" G_GUINT64_FORMAT "\n",
                           faultline_verdict_name(integrity->verdict), integrity->checked_pages,
                           integrity->damaged_pages, integrity->asked_again);
}

static void
render_channels(const FaultlineInfo *info, GString *output)
{
    const struct {
        const char *name;
        uint64_t bytes, bytes_per_s;
    } rows[] = {
        {"main", info->main_bytes, info->main_bytes_per_s},
        {"urgent", info->urgent_bytes, info->urgent_bytes_per_s},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        g_string_append_printf(output, "%s channel: %" G_GUINT64_FORMAT " KiB, %.2f mbps\n",
                               rows[i].name, rows[i].bytes / 1024,
                               (double)rows[i].bytes_per_s * 8 / 1e6);
}

static void
render_residence(const FaultlineInfo *info, GString *output)
{
    if (!info->moment_ns[FAULTLINE_MOMENT_RUNNING])
        return;
    g_string_append_printf(output, "time to resident: %.3f ms%s",
                           (double)info->resident_time_us / 1e3,
                           info->missing_pages ? " so far" : "");
    if (info->missing_pages && info->expected_resident_ms != UINT64_MAX)
        g_string_append_printf(output, ", expected %" G_GUINT64_FORMAT " ms",
                               info->expected_resident_ms);
    g_string_append_c(output, '\n');
}

static void
render_histogram(const FaultlineLatency *latency, GString *output)
{
    uint64_t counts[QUERY_LATENCY_COUNTS];
    query_latency_distribution(latency, counts);
    g_string_append(output, "fault latency distribution:\n");
    for (unsigned i = 0; i < QUERY_LATENCY_COUNTS; i++) {
        if (counts[i] == 0)
            continue;
        uint64_t low_us = i == 0 ? 0 : UINT64_C(1) << i;
        g_string_append_printf(output,
                               "  %8" G_GUINT64_FORMAT " .. %8" G_GUINT64_FORMAT
                               " us: %" G_GUINT64_FORMAT "\n",
                               low_us, UINT64_C(2) << i, counts[i]);
    }
}

static void
render_faults(const FaultlineInfo *info, GString *output)
{
    const FaultlineLatency *latency = &info->latency;
    if (latency->count == 0 && info->faults_in_flight == 0)
        return;
    g_string_append_printf(output,
                           "remote faults: %" G_GUINT64_FORMAT ", in flight %" G_GUINT64_FORMAT
                           ", longest waits %.3f ms\n",
                           latency->count, info->faults_in_flight,
                           (double)info->longest_stall_ns / 1e6);
    g_string_append_printf(output,
                           "fault latency: mean %.1f us, p50 %.1f, p90 %.1f, p99 %.1f, p99.9 %.1f, "
                           "max %.1f\n",
                           (double)latency->total_ns / (double)MAX(latency->count, 1) / 1e3,
                           (double)faultline_latency_percentile(latency, 50) / 1e3,
                           (double)faultline_latency_percentile(latency, 90) / 1e3,
                           (double)faultline_latency_percentile(latency, 99) / 1e3,
                           (double)faultline_latency_percentile(latency, 99.9) / 1e3,
                           (double)latency->max_ns / 1e3);
    render_histogram(latency, output);
    g_string_append_printf(
        output, "postcopy blocktime: %.3f ms; of each vcpu:", (double)info->blocktime_ns / 1e6);
    for (unsigned i = 0; i < MIN(info->count_vcpus, FAULTLINE_VCPUS_MAX); i++)
        g_string_append_printf(output, " %.3f", (double)info->vcpu_blocktime_ns[i] / 1e6);
    g_string_append(output, " ms\n");
}

void
info_migrate_render(const FaultlineInfo *info, const char *listening, GString *output)
{
    if (info->status == FAULTLINE_STATUS_NONE) {
        g_string_append(output, "Migration status: none\n");
        return;
    }
    g_string_append_printf(output, "Migration status: %s (%s)\n",
                           faultline_status_name(info->status),
                           info->incoming ? "destination" : "source");
    g_string_append_printf(output, "guest: %s\n", faultline_run_state_name(info->run_state));
    if (info->error[0] != '\0')
        g_string_append_printf(output, "error: %s\n", info->error);
    if (listening != NULL)
        g_string_append_printf(output, "listening at: %s\n", listening);
    if (info->is_unheard)
        g_string_append(output, "the source may not have heard so; this side stays to tell it\n");
    if (info->refused_connections != 0)
        g_string_append_printf(output, "refused connections: %" G_GUINT64_FORMAT "; the last: %s\n",
                               info->refused_connections, info->refusal);
    if (info->status == FAULTLINE_STATUS_SETUP)
        return;
    if (!info->incoming) {
        render_times(info, output);
        render_ram(info, output);
    }
    render_ways(info, output);
    render_integrity(&info->integrity, output);
    render_channels(info, output);
    if (info->incoming)
        render_residence(info, output);
    render_faults(info, output);
}

void
info_vcpu_render(unsigned index, const FaultlineLatency *latency, GString *output)
{
    g_string_append_printf(
        output,
        "vcpu %u: faults %" G_GUINT64_FORMAT ", p50 %.1f us, p99 %.1f, p99.9 %.1f, max %.1f\n",
        index, latency->count, (double)faultline_latency_percentile(latency, 50) / 1e3,
        (double)faultline_latency_percentile(latency, 99) / 1e3,
        (double)faultline_latency_percentile(latency, 99.9) / 1e3, (double)latency->max_ns / 1e3);
}
