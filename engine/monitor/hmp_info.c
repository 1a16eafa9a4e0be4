/* SPDX-License-Identifier: MIT */
/*
 * HMP's `info` lines: what there is to know, as text for a person.
 *
 * `info migrate` itself is rendered by info.c. Control thread.
 */
#include "engine/monitor/monitor.h"

static void
render_pauses(const FaultlineMonitor *monitor, GString *output)
{
    FaultlinePauses pauses;
    faultline_query_pauses(monitor->faultline, &pauses);
    if (pauses.count)
        g_string_append_printf(
            output, "pauses: %" G_GUINT64_FORMAT ", %.3f ms in all, longest %.3f ms\n",
            pauses.count, (double)pauses.total_us / 1e3, (double)pauses.longest_us / 1e3);
}

bool
hmp_info_migrate(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
                 GError **error)
{
    (void)command, (void)words, (void)error;
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    faultline_query(monitor->faultline, info);
    g_autofree char *listening = faultline_incoming_address(monitor->faultline);
    info_migrate_render(info, listening, output);
    render_pauses(monitor, output);
    g_autofree FaultlineLatency *latency = g_new(FaultlineLatency, 1);
    for (unsigned i = 0; faultline_query_vcpu(monitor->faultline, i, latency); i++)
        info_vcpu_render(i, latency, output);
    return true;
}

bool
hmp_info_capabilities(FaultlineMonitor *monitor, const Command *command, char **words,
                      GString *output, GError **error)
{
    (void)command, (void)words, (void)error;
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++)
        g_string_append_printf(output, "%s: %s\n", row->name,
                               faultline_get_capability(monitor->faultline, row->name) ? "on"
                                                                                       : "off");
    return true;
}

bool
hmp_info_parameters(FaultlineMonitor *monitor, const Command *command, char **words,
                    GString *output, GError **error)
{
    (void)command, (void)words, (void)error;
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        uint64_t value = faultline_get_parameter(monitor->faultline, row->name);
        if (row->type == FAULTLINE_TYPE_TEXT)
            g_string_append_printf(output, "%s: '%s'\n", row->name,
                                   faultline_get_text_parameter(monitor->faultline, row->name));
        else if (row->type == FAULTLINE_TYPE_BOOLEAN)
            g_string_append_printf(output, "%s: %s\n", row->name, value != 0 ? "on" : "off");
        else
            g_string_append_printf(output, "%s: %" G_GUINT64_FORMAT "%s%s\n", row->name, value,
                                   row->unit != NULL && *row->unit != '\0' ? " " : "",
                                   row->unit != NULL ? row->unit : "");
    }
    return true;
}

bool
hmp_info_status(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
                GError **error)
{
    (void)command, (void)words, (void)error;
    bool is_running;
    const char *name = command_status(monitor, &is_running);
    if (is_running || g_str_equal(name, "paused"))
        g_string_append_printf(output, "VM status: %s\n", name);
    else
        g_string_append_printf(output, "VM status: paused (%s)\n", name);
    return true;
}

bool
hmp_info_version(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
                 GError **error)
{
    (void)monitor, (void)command, (void)words, (void)error;
    g_string_append_printf(output, "%s %d.%d.%d\n", MONITOR_PACKAGE, MONITOR_VERSION_MAJOR,
                           MONITOR_VERSION_MINOR, MONITOR_VERSION_MICRO);
    return true;
}

bool
hmp_info_name(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
              GError **error)
{
    (void)command, (void)words, (void)error;
    if (monitor->name != NULL)
        g_string_append_printf(output, "%s\n", monitor->name);
    return true;
}

bool
hmp_info_cpus(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,
              GError **error)
{
    (void)command, (void)words, (void)error;
    pid_t thread;
    for (unsigned i = 0; (thread = faultline_vcpu_thread(monitor->faultline, i)) != 0; i++)
        g_string_append_printf(output, "CPU #%u: thread_id=%d\n", i, (int)thread);
    return true;
}

bool
hmp_info_dirty_rate(FaultlineMonitor *monitor, const Command *command, char **words,
                    GString *output, GError **error)
{
    (void)command, (void)words;
    FaultlineDirtyRate rate;
    faultline_query_dirty_rate(monitor->faultline, &rate);
    if (rate.error[0] != '\0')
        return hmp_refuse(error, rate.error);
    static const char *const names[] = {"unstarted", "measuring", "measured"};
    g_string_append_printf(output, "Status: %s\n", names[rate.state]);
    if (rate.started_s != 0)
        g_string_append_printf(output, "Period: %" G_GUINT64_FORMAT " ms\n", rate.time_ms);
    if (rate.state == FAULTLINE_MEASURE_DONE)
        g_string_append_printf(output,
                               "Dirty rate: %" G_GUINT64_FORMAT " (MiB/s); %" G_GUINT64_FORMAT
                               " pages were written\n",
                               rate_mib_per_s(&rate), rate.pages);
    return true;
}
