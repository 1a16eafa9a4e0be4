/* SPDX-License-Identifier: MIT */
/*
 * query-migrate: a FaultlineInfo as QMP's MigrationInfo, with QEMU's units (milliseconds, bytes,
 * pages) and its rules for which field is present when; and our own figures in "faultline".
 *
 * Reads one snapshot; computes nothing but means, percentiles and units. Control thread.
 */
#include "engine/monitor/monitor.h"

#define NS_PER_US 1000u
#define NS_PER_MS 1000000u

enum {
    HAS_TIMES = 1,       /* total-time, setup-time */
    HAS_RAM = 2,         /* ram */
    HAS_EXPECTATION = 4, /* expected-downtime */
    HAS_DOWNTIME = 8,    /* downtime */
    HAS_REMAINING = 16,  /* remaining, at the top */
    HAS_UNDER_WAY = HAS_TIMES | HAS_RAM | HAS_EXPECTATION,
};

static const unsigned source_fields[] = {
    [FAULTLINE_STATUS_NONE] = 0,
    [FAULTLINE_STATUS_SETUP] = 0,
    [FAULTLINE_STATUS_CANCELLING] = HAS_UNDER_WAY,
    [FAULTLINE_STATUS_CANCELLED] = 0,
    [FAULTLINE_STATUS_ACTIVE] = HAS_UNDER_WAY | HAS_REMAINING,
    [FAULTLINE_STATUS_DEVICE] = HAS_UNDER_WAY,
    [FAULTLINE_STATUS_PRE_SWITCHOVER] = HAS_UNDER_WAY | HAS_REMAINING,
    [FAULTLINE_STATUS_POSTCOPY_DEVICE] = HAS_UNDER_WAY | HAS_DOWNTIME,
    [FAULTLINE_STATUS_POSTCOPY_ACTIVE] = HAS_UNDER_WAY | HAS_DOWNTIME,
    [FAULTLINE_STATUS_POSTCOPY_PAUSED] = HAS_UNDER_WAY | HAS_DOWNTIME,
    [FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP] = HAS_UNDER_WAY | HAS_DOWNTIME,
    [FAULTLINE_STATUS_POSTCOPY_RECOVER] = HAS_UNDER_WAY | HAS_DOWNTIME,
    [FAULTLINE_STATUS_COMPLETED] = HAS_TIMES | HAS_RAM | HAS_DOWNTIME,
    [FAULTLINE_STATUS_FAILED] = 0,
};
G_STATIC_ASSERT(G_N_ELEMENTS(source_fields) == FAULTLINE_STATUS_COUNT);

static void
set_count(JsonObject *object, const char *name, uint64_t value)
{
    json_object_set_int_member(object, name, (int64_t)MIN(value, (uint64_t)INT64_MAX));
}

static uint64_t
mean(uint64_t total, uint64_t count)
{
    return count == 0 ? 0 : total / count;
}

static JsonObject *
ram_object(const FaultlineInfo *info)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"transferred", info->ram_transferred_bytes},
        {"remaining", info->status == FAULTLINE_STATUS_COMPLETED ? 0 : info->ram_remaining_bytes},
        {"total", info->ram_total_bytes},
        {"duplicate", info->zero_pages},
        {"normal", info->normal_pages},
        {"normal-bytes", info->normal_pages * FAULTLINE_PAGE_BYTES},
        {"dirty-pages-rate", info->dirty_pages_per_s},
        {"dirty-sync-count", info->dirty_sync_count},
        {"postcopy-requests", info->postcopy_requests},
        {"page-size", FAULTLINE_PAGE_BYTES},
        {"multifd-bytes", 0},
        {"pages-per-second", info->pages_per_s},
        {"precopy-bytes", info->precopy_bytes},
        {"downtime-bytes", info->downtime_bytes},
        {"postcopy-bytes", info->postcopy_bytes},
        {"dirty-sync-missed-zero-copy", 0},
    };
    JsonObject *ram = json_object_new();
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        set_count(ram, rows[i].name, rows[i].value);
    json_object_set_double_member(ram, "mbps", (double)info->bandwidth_bytes_per_s * 8 / 1e6);
    return ram;
}

static void
add_source(JsonObject *reply, const FaultlineInfo *info, unsigned fields)
{
    if (fields & HAS_TIMES) {
        set_count(reply, "total-time", info->total_time_ms);
        set_count(reply, "setup-time", info->setup_time_ms);
    }
    if (fields & HAS_RAM)
        json_object_set_object_member(reply, "ram", ram_object(info));
    if (fields & HAS_REMAINING)
        set_count(reply, "remaining", info->ram_remaining_bytes);
    if (fields & HAS_EXPECTATION)
        set_count(reply, "expected-downtime", info->expected_downtime_ms);
    if (info->cpu_throttle_percent != 0)
        set_count(reply, "cpu-throttle-percentage", info->cpu_throttle_percent);
    if (fields & HAS_DOWNTIME)
        set_count(reply, "downtime", info->downtime_us / 1000);
}

void
query_latency_distribution(const FaultlineLatency *latency,
                           uint64_t ret_counts[QUERY_LATENCY_COUNTS])
{
    uint64_t before = 0;
    for (unsigned i = 0; i < QUERY_LATENCY_COUNTS; i++) {
        uint64_t limit_ns = (UINT64_C(2) << i) * NS_PER_US;
        bool is_last = i == QUERY_LATENCY_COUNTS - 1;
        uint64_t below = faultline_latency_count_below(latency, is_last ? UINT64_MAX : limit_ns);
        ret_counts[i] = below - before;
        before = below;
    }
}

static void
set_distribution(JsonObject *object, const char *name, const FaultlineLatency *latency)
{
    uint64_t counts[QUERY_LATENCY_COUNTS];
    query_latency_distribution(latency, counts);
    JsonArray *list = json_array_sized_new(QUERY_LATENCY_COUNTS);
    for (unsigned i = 0; i < QUERY_LATENCY_COUNTS; i++)
        json_array_add_int_element(list, (int64_t)counts[i]);
    json_object_set_array_member(object, name, list);
}

static void
add_blocktime(JsonObject *reply, const FaultlineInfo *info)
{
    JsonArray *blocktimes = json_array_new(), *latencies = json_array_new();
    for (unsigned i = 0; i < MIN(info->count_vcpus, FAULTLINE_VCPUS_MAX); i++) {
        uint64_t blocktime_ns = info->vcpu_blocktime_ns[i];
        json_array_add_int_element(blocktimes, (int64_t)(blocktime_ns / NS_PER_MS));
        json_array_add_int_element(latencies, (int64_t)mean(blocktime_ns, info->vcpu_faults[i]));
    }
    set_count(reply, "postcopy-blocktime", info->blocktime_ns / NS_PER_MS);
    json_object_set_array_member(reply, "postcopy-vcpu-blocktime", blocktimes);
    set_count(reply, "postcopy-latency", mean(info->latency.total_ns, info->latency.count));
    set_distribution(reply, "postcopy-latency-dist", &info->latency);
    json_object_set_array_member(reply, "postcopy-vcpu-latency", latencies);
    set_count(reply, "postcopy-non-vcpu-latency",
              mean(info->non_vcpu_total_ns, info->non_vcpu_faults));
}

/* CLOCK_MONOTONIC of the host. */
static void
add_moments(JsonObject *object, const FaultlineInfo *info)
{
    JsonObject *moments = json_object_new();
    for (unsigned i = 0; i < FAULTLINE_MOMENT_COUNT; i++)
        if (info->moment_ns[i])
            set_count(moments, faultline_moment_name((FaultlineMoment)i), info->moment_ns[i]);
    json_object_set_object_member(object, "switch-over-ns", moments);
}

static void
set_latency(JsonObject *object, const FaultlineLatency *latency)
{
    set_count(object, "faults", latency->count);
    set_count(object, "fault-mean-ns", mean(latency->total_ns, latency->count));
    set_count(object, "fault-p50-ns", faultline_latency_percentile(latency, 50));
    set_count(object, "fault-p90-ns", faultline_latency_percentile(latency, 90));
    set_count(object, "fault-p99-ns", faultline_latency_percentile(latency, 99));
    set_count(object, "fault-p999-ns", faultline_latency_percentile(latency, 99.9));
    set_count(object, "fault-max-ns", latency->max_ns);
}

static JsonObject *
integrity_object(const FaultlineIntegrity *integrity)
{
    JsonObject *object = json_object_new();
    json_object_set_string_member(object, "verdict", faultline_verdict_name(integrity->verdict));
    set_count(object, "checked-pages", integrity->checked_pages);
    set_count(object, "damaged-pages", integrity->damaged_pages);
    set_count(object, "asked-again", integrity->asked_again);
    return object;
}

static JsonObject *
faultline_object(const FaultlineInfo *info)
{
    const struct {
        const char *name;
        uint64_t value;
    } rows[] = {
        {"precopy-pages", info->precopy_pages},
        {"pushed-pages", info->pushed_pages},
        {"requested-pages", info->requested_pages},
        {"neighbour-pages", info->neighbour_pages},
        {"zero-pages", info->zero_pages},
        {"missing-pages", info->missing_pages},
        {"local-faults", info->local_faults},
        {"main-bytes", info->main_bytes},
        {"urgent-bytes", info->urgent_bytes},
        {"main-bytes-per-second", info->main_bytes_per_s},
        {"urgent-bytes-per-second", info->urgent_bytes_per_s},
        {"resident-us", info->resident_time_us},
        {"expected-resident-ms", info->expected_resident_ms},
        {"downtime-us", info->downtime_us},
        {"faults-in-flight", info->faults_in_flight},
        {"longest-stall-ns", info->longest_stall_ns},
        {"blocktime-ns", info->blocktime_ns},
    };
    JsonObject *object = json_object_new();
    for (size_t i = 0; i < G_N_ELEMENTS(rows); i++)
        set_count(object, rows[i].name, rows[i].value);
    set_latency(object, &info->latency);
    set_distribution(object, "fault-histogram", &info->latency);
    add_moments(object, info);
    json_object_set_object_member(object, "integrity", integrity_object(&info->integrity));
    json_object_set_string_member(object, "side", info->incoming ? "destination" : "source");
    json_object_set_string_member(object, "run-state", faultline_run_state_name(info->run_state));
    json_object_set_boolean_member(object, "unheard", info->is_unheard);
    return object;
}

static void
add_socket_address(JsonObject *reply, const char *listening)
{
    JsonObject *address = channels_socket_address(listening);
    if (address == NULL)
        return;
    JsonArray *list = json_array_new();
    json_array_add_object_element(list, address);
    json_object_set_array_member(reply, "socket-address", list);
}

/* The engine cuts error texts to its field, maybe within a character, which JSON cannot hold. */
static void
add_error(JsonObject *reply, const FaultlineInfo *info)
{
    if (info->error[0] == '\0')
        return;
    g_autofree char *text = g_utf8_make_valid(info->error, -1);
    json_object_set_string_member(reply, "error-desc", text);
}

JsonNode *
query_migrate_reply(const FaultlineInfo *info, bool has_blocktime, const char *listening)
{
    JsonObject *reply = json_object_new();
    if (info->status != FAULTLINE_STATUS_NONE) {
        json_object_set_string_member(reply, "status", faultline_status_name(info->status));
        if (!info->incoming)
            add_source(reply, info, source_fields[info->status]);
        else if (info->status == FAULTLINE_STATUS_COMPLETED && has_blocktime)
            add_blocktime(reply, info);
        add_error(reply, info);
        json_object_set_object_member(reply, "faultline", faultline_object(info));
    }
    if (listening != NULL)
        add_socket_address(reply, listening);
    JsonNode *node = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(node, reply);
    return node;
}

/* Each vCPU's own faults, while it runs as well as afterwards. */
static void
add_vcpus(FaultlineMonitor *monitor, JsonObject *object, const FaultlineInfo *info)
{
    g_autofree FaultlineLatency *latency = g_new(FaultlineLatency, 1);
    JsonArray *list = json_array_new();
    for (unsigned i = 0; faultline_query_vcpu(monitor->faultline, i, latency); i++) {
        JsonObject *vcpu = json_object_new();
        set_count(vcpu, "blocktime-ns", info->vcpu_blocktime_ns[i]);
        set_latency(vcpu, latency);
        json_array_add_object_element(list, vcpu);
    }
    json_object_set_array_member(object, "vcpus", list);
}

/* What breaks have cost, and what is done about the one that lasts. */
static void
add_pauses(const FaultlineMonitor *monitor, JsonObject *object)
{
    g_autofree FaultlinePauses *pauses = g_new0(FaultlinePauses, 1);

    faultline_query_pauses(monitor->faultline, pauses);
    set_count(object, "pauses", pauses->count);
    set_count(object, "paused-us", pauses->total_us);
    set_count(object, "longest-pause-us", pauses->longest_us);
    set_count(object, "recover-attempts", pauses->attempts);
    if (!pauses->will_retry)
        return;
    set_count(object, "recover-next-us", pauses->next_us);
    json_object_set_string_member(object, "recover-next-uri", pauses->next_uri);
}

JsonNode *
query_migrate_run(FaultlineMonitor *monitor, JsonObject *object, GError **error)
{
    (void)object, (void)error;
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    faultline_query(monitor->faultline, info);
    g_autofree char *listening = faultline_incoming_address(monitor->faultline);
    bool has_blocktime = faultline_get_capability(monitor->faultline, "postcopy-blocktime");
    JsonNode *reply = query_migrate_reply(info, has_blocktime, listening);
    JsonObject *members = json_node_get_object(reply);
    if (!json_object_has_member(members, "faultline"))
        return reply;
    JsonObject *ours = json_object_get_object_member(members, "faultline");
    add_pauses(monitor, ours);
    if (info->incoming)
        add_vcpus(monitor, ours, info);
    return reply;
}
