/* SPDX-License-Identifier: MIT */
/*
 * calc-dirty-rate and query-dirty-rate, with QEMU's units: time in seconds or milliseconds, the
 * rate in MiB/s.
 *
 * Every page counts, by the guest's dirty log: that is mode dirty-bitmap, and what no mode means.
 * The others, which QEMU has, are refused, and so is `sample-pages`, which belongs to one of them.
 * Control thread; the engine measures on a thread of its own.
 */
#include "engine/monitor/monitor.h"

#define MIB 1048576.0

static const struct {
    const char *name;
    uint64_t ms;
} units[] = {
    {"second", 1000},
    {"millisecond", 1},
};

#define MODE "dirty-bitmap"
static const char *const other_modes[] = {"page-sampling", "dirty-ring"};

static const char *const state_names[] = {
    [FAULTLINE_MEASURE_UNSTARTED] = "unstarted",
    [FAULTLINE_MEASURE_RUNNING] = "measuring",
    [FAULTLINE_MEASURE_DONE] = "measured",
};

static bool
refuse_value(const char *name, const char *value, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "Parameter '%s' does not accept value '%s'", name, value);
    return false;
}

/* Index in units; the first when the argument is absent. */
static bool
read_unit(JsonObject *object, unsigned *ret_unit, GError **error)
{
    const char *name = arguments_string(object, "calc-time-unit");
    for (*ret_unit = 0; *ret_unit < G_N_ELEMENTS(units); ++*ret_unit)
        if (name == NULL || g_str_equal(units[*ret_unit].name, name))
            return true;
    return refuse_value("calc-time-unit", name, error);
}

static bool
refuse_mode(const char *what, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "calc-dirty-rate: %s is not supported: every page is counted by the dirty log; "
                "leave it out, or give mode " MODE,
                what);
    return false;
}

static bool
check_mode(JsonObject *object, GError **error)
{
    const char *mode = arguments_string(object, "mode");

    for (unsigned i = 0; mode && i < G_N_ELEMENTS(other_modes); i++)
        if (g_str_equal(other_modes[i], mode)) {
            g_autofree char *what = g_strdup_printf("mode '%s'", mode);
            return refuse_mode(what, error);
        }
    if (mode && !g_str_equal(mode, MODE))
        return refuse_value("mode", mode, error);
    return !json_object_has_member(object, "sample-pages") || refuse_mode("sample-pages", error);
}

JsonNode *
rate_calc_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    unsigned unit;
    if (!read_unit(object, &unit, error) || !check_mode(object, error))
        return NULL;
    uint64_t time = (uint64_t)json_object_get_int_member(object, "calc-time");
    uint64_t time_ms = time > UINT64_MAX / units[unit].ms ? UINT64_MAX : time * units[unit].ms;
    if (!faultline_measure_dirty_rate(monitor->faultline, time_ms, error))
        return NULL;
    return command_done();
}

uint64_t
rate_mib_per_s(const FaultlineDirtyRate *rate)
{
    double bytes = (double)rate->pages * FAULTLINE_PAGE_BYTES;
    return (uint64_t)(bytes / MIB / ((double)MAX(rate->took_ns, 1) / 1e9));
}

JsonNode *
rate_query_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    FaultlineDirtyRate rate;
    unsigned unit;
    if (!read_unit(object, &unit, error))
        return NULL;
    faultline_query_dirty_rate(monitor->faultline, &rate);
    if (rate.error[0] != '\0') {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "query-dirty-rate: %s",
                    rate.error);
        return NULL;
    }
    JsonObject *reply = json_object_new();
    json_object_set_string_member(reply, "status", state_names[rate.state]);
    json_object_set_int_member(reply, "start-time", rate.started_s);
    json_object_set_int_member(reply, "calc-time", (int64_t)(rate.time_ms / units[unit].ms));
    json_object_set_string_member(reply, "calc-time-unit", units[unit].name);
    json_object_set_int_member(reply, "sample-pages", 0);
    json_object_set_string_member(reply, "mode", MODE);
    if (rate.state == FAULTLINE_MEASURE_DONE)
        json_object_set_int_member(reply, "dirty-rate", (int64_t)rate_mib_per_s(&rate));
    return command_reply(reply);
}
