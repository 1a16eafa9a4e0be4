/* SPDX-License-Identifier: MIT */
/*
 * The fields of query-migrate as QEMU's clients know them, each with its unit. Which of them is
 * there when is in test_query_migrate.c.
 */
#include "engine/monitor/monitor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdlib.h>

/* A snapshot in which each figure is another; what QMP has to make of it, in its own unit. */
static FaultlineInfo *
snapshot(FaultlineStatus status, bool incoming)
{
    FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    *info = (FaultlineInfo){
        .status = status,
        .incoming = incoming,
        .total_time_ms = 11,
        .setup_time_ms = 12,
        .downtime_us = 13999,
        .expected_downtime_ms = 14,
        .ram_total_bytes = 15,
        .ram_remaining_bytes = 16,
        .ram_transferred_bytes = 17,
        .precopy_bytes = 18,
        .downtime_bytes = 19,
        .postcopy_bytes = 20,
        .normal_pages = 21,
        .zero_pages = 22,
        .dirty_sync_count = 23,
        .dirty_pages_per_s = 24,
        .pages_per_s = 25,
        .bandwidth_bytes_per_s = 26000000,
        .postcopy_requests = 27,
        .cpu_throttle_percent = 32,
        .blocktime_ns = 28999999,
        .count_vcpus = 2,
        .vcpu_blocktime_ns = {29999999, 0},
        .vcpu_faults = {3, 0},
        .latency = {.count = 4, .total_ns = 30 * 4},
        .non_vcpu_faults = 5,
        .non_vcpu_total_ns = 31 * 5,
    };
    return info;
}

static const struct {
    bool incoming;
    FaultlineStatus status;
    const char *path; /* "." between object and member, number of an element */
    double value;
} fields[] = {
    {false, FAULTLINE_STATUS_COMPLETED, "total-time", 11},
    {false, FAULTLINE_STATUS_COMPLETED, "setup-time", 12},
    {false, FAULTLINE_STATUS_COMPLETED, "downtime", 13},
    {false, FAULTLINE_STATUS_ACTIVE, "expected-downtime", 14},
    {false, FAULTLINE_STATUS_ACTIVE, "remaining", 16},
    {false, FAULTLINE_STATUS_ACTIVE, "cpu-throttle-percentage", 32},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.total", 15},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.remaining", 16},
    {false, FAULTLINE_STATUS_COMPLETED, "ram.remaining", 0},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.transferred", 17},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.precopy-bytes", 18},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.downtime-bytes", 19},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.postcopy-bytes", 20},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.normal", 21},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.normal-bytes", 21 * 4096},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.duplicate", 22},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.dirty-sync-count", 23},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.dirty-pages-rate", 24},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.pages-per-second", 25},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.mbps", 208},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.postcopy-requests", 27},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.page-size", 4096},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.multifd-bytes", 0},
    {false, FAULTLINE_STATUS_ACTIVE, "ram.dirty-sync-missed-zero-copy", 0},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-blocktime", 28},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-vcpu-blocktime.0", 29},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-vcpu-blocktime.1", 0},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-latency", 30},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-vcpu-latency.0", 9999999},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-vcpu-latency.1", 0},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-non-vcpu-latency", 31},
    {true, FAULTLINE_STATUS_COMPLETED, "postcopy-latency-dist.23", 0},
};

static double
find_field(JsonNode *reply, const char *path)
{
    g_auto(GStrv) names = g_strsplit(path, ".", -1);
    for (unsigned i = 0; names[i]; i++) {
        if (JSON_NODE_HOLDS_ARRAY(reply))
            reply = json_array_get_element(json_node_get_array(reply), (guint)atoi(names[i]));
        else
            reply = json_object_get_member(json_node_get_object(reply), names[i]);
        if (!reply)
            fail_msg("there is no %s", path);
    }
    return json_node_get_double(reply);
}

static void
each_field_of_query_migrate_has_its_unit(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(fields); i++) {
        g_autofree FaultlineInfo *info = snapshot(fields[i].status, fields[i].incoming);
        g_autoptr(JsonNode) reply = query_migrate_reply(info, true, NULL);
        double value = find_field(reply, fields[i].path);
        if (value != fields[i].value)
            fail_msg("%s is %g, not %g", fields[i].path, value, fields[i].value);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_field_of_query_migrate_has_its_unit)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
