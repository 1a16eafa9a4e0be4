/* SPDX-License-Identifier: MIT */
/*
 * query-migrate and `info migrate` from snapshots: which field is present when, and its unit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "engine/monitor/monitor.h"

static FaultlineInfo *
sample(FaultlineStatus status, bool incoming)
{
    FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    info->status = status;
    info->incoming = incoming;
    info->total_time_ms = 1000;
    info->setup_time_ms = 3;
    info->downtime_us = 7900;
    info->expected_downtime_ms = UINT64_MAX;
    info->ram_total_bytes = 1 << 30;
    info->ram_remaining_bytes = 4096;
    info->normal_pages = 10;
    info->zero_pages = 5;
    info->bandwidth_bytes_per_s = 125000000;
    info->count_vcpus = 2;
    info->blocktime_ns = 2500000;
    info->vcpu_blocktime_ns[0] = 9000000;
    info->vcpu_faults[0] = 3;
    info->non_vcpu_faults = 2;
    info->non_vcpu_total_ns = 5000;
    return info;
}

/* Fills `count` faults into the bucket that stands for about value_us. */
static void
put_faults(FaultlineLatency *latency, double value_us, uint32_t count)
{
    g_autofree FaultlineLatency *one = g_new0(FaultlineLatency, 1);
    one->max_ns = UINT64_MAX;
    unsigned i = 0;
    for (; i < FAULTLINE_LATENCY_BUCKETS; i++) {
        memset(one->buckets, 0, sizeof one->buckets);
        one->buckets[i] = 1;
        if ((double)faultline_latency_percentile(one, 100) >= value_us * 1000)
            break;
    }
    assert_true(i < FAULTLINE_LATENCY_BUCKETS);
    latency->buckets[i] += count;
    latency->count += count;
    latency->total_ns += (uint64_t)(value_us * 1000) * count;
    latency->max_ns = MAX(latency->max_ns, (uint64_t)(value_us * 1000));
}

static JsonObject *
reply_of(FaultlineInfo *info, bool has_blocktime, const char *listening)
{
    g_autofree FaultlineInfo *owned = info;
    g_autoptr(JsonNode) node = query_migrate_reply(owned, has_blocktime, listening);
    return json_node_dup_object(node);
}

static void
query_migrate_of_each_source_status_has_its_fields(void **state)
{
    (void)state;
    static const struct {
        FaultlineStatus status;
        bool times, ram, remaining, expected, downtime;
    } cases[] = {
        {FAULTLINE_STATUS_SETUP, 0, 0, 0, 0, 0},
        {FAULTLINE_STATUS_ACTIVE, 1, 1, 1, 1, 0},
        {FAULTLINE_STATUS_DEVICE, 1, 1, 0, 1, 0},
        {FAULTLINE_STATUS_PRE_SWITCHOVER, 1, 1, 1, 1, 0},
        {FAULTLINE_STATUS_CANCELLING, 1, 1, 0, 1, 0},
        {FAULTLINE_STATUS_CANCELLED, 0, 0, 0, 0, 0},
        {FAULTLINE_STATUS_POSTCOPY_DEVICE, 1, 1, 0, 1, 1},
        {FAULTLINE_STATUS_POSTCOPY_ACTIVE, 1, 1, 0, 1, 1},
        {FAULTLINE_STATUS_POSTCOPY_PAUSED, 1, 1, 0, 1, 1},
        {FAULTLINE_STATUS_COMPLETED, 1, 1, 0, 0, 1},
        {FAULTLINE_STATUS_FAILED, 0, 0, 0, 0, 0},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(JsonObject) reply = reply_of(sample(cases[i].status, false), true, NULL);
        assert_int_equal(json_object_has_member(reply, "total-time"), cases[i].times);
        assert_int_equal(json_object_has_member(reply, "setup-time"), cases[i].times);
        assert_int_equal(json_object_has_member(reply, "ram"), cases[i].ram);
        assert_int_equal(json_object_has_member(reply, "remaining"), cases[i].remaining);
        assert_int_equal(json_object_has_member(reply, "expected-downtime"), cases[i].expected);
        assert_int_equal(json_object_has_member(reply, "downtime"), cases[i].downtime);
        assert_false(json_object_has_member(reply, "postcopy-blocktime"));
        assert_false(json_object_has_member(reply, "cpu-throttle-percentage"));
        assert_false(json_object_has_member(reply, "error-desc"));
        assert_true(json_object_has_member(reply, "faultline"));
    }
}

static void
query_migrate_of_a_source_uses_qemu_units(void **state)
{
    (void)state;
    g_autoptr(JsonObject) done = reply_of(sample(FAULTLINE_STATUS_COMPLETED, false), false, NULL);
    assert_int_equal(json_object_get_int_member(done, "downtime"), 7);
    JsonObject *ram = json_object_get_object_member(done, "ram");
    assert_int_equal(json_object_get_int_member(ram, "remaining"), 0);
    assert_int_equal(json_object_get_int_member(ram, "normal-bytes"), 10 * 4096);
    assert_int_equal(json_object_get_int_member(ram, "duplicate"), 5);
    assert_true(json_object_get_double_member(ram, "mbps") == 1000.0);
    JsonObject *ours = json_object_get_object_member(done, "faultline");
    assert_int_equal(json_object_get_int_member(ours, "downtime-us"), 7900);
    g_autoptr(JsonObject) active = reply_of(sample(FAULTLINE_STATUS_ACTIVE, false), false, NULL);
    assert_true(json_object_get_int_member(active, "expected-downtime") == INT64_MAX);
}

static void
query_migrate_of_a_destination_has_blocktime_only_when_completed_and_on(void **state)
{
    (void)state;
    static const struct {
        FaultlineStatus status;
        bool is_on, is_present;
    } cases[] = {
        {FAULTLINE_STATUS_POSTCOPY_ACTIVE, true, false},
        {FAULTLINE_STATUS_COMPLETED, false, false},
        {FAULTLINE_STATUS_COMPLETED, true, true},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(JsonObject) reply = reply_of(sample(cases[i].status, true), cases[i].is_on, NULL);
        assert_int_equal(json_object_has_member(reply, "postcopy-blocktime"), cases[i].is_present);
        assert_false(json_object_has_member(reply, "ram"));
        assert_false(json_object_has_member(reply, "total-time"));
    }
}

static void
query_migrate_blocktime_is_ms_and_latency_is_ns(void **state)
{
    (void)state;
    FaultlineInfo *info = sample(FAULTLINE_STATUS_COMPLETED, true);
    put_faults(&info->latency, 100, 4);
    g_autoptr(JsonObject) reply = reply_of(info, true, NULL);
    assert_int_equal(json_object_get_int_member(reply, "postcopy-blocktime"), 2);
    JsonArray *blocktimes = json_object_get_array_member(reply, "postcopy-vcpu-blocktime");
    assert_int_equal(json_array_get_length(blocktimes), 2);
    assert_int_equal(json_array_get_int_element(blocktimes, 0), 9);
    assert_int_equal(json_array_get_int_element(blocktimes, 1), 0);
    JsonArray *latencies = json_object_get_array_member(reply, "postcopy-vcpu-latency");
    assert_int_equal(json_array_get_int_element(latencies, 0), 3000000);
    assert_int_equal(json_array_get_int_element(latencies, 1), 0);
    assert_int_equal(json_object_get_int_member(reply, "postcopy-latency"), 100000);
    assert_int_equal(json_object_get_int_member(reply, "postcopy-non-vcpu-latency"), 2500);
}

static void
latency_distribution_counts_by_octaves_of_us(void **state)
{
    (void)state;
    g_autofree FaultlineLatency *latency = g_new0(FaultlineLatency, 1);
    put_faults(latency, 0.5, 1);
    put_faults(latency, 1.5, 2);
    put_faults(latency, 3, 4);
    put_faults(latency, 100, 8);
    put_faults(latency, 30e6, 16);
    uint64_t counts[QUERY_LATENCY_COUNTS];
    query_latency_distribution(latency, counts);
    assert_int_equal(counts[0], 3);
    assert_int_equal(counts[1], 4);
    assert_int_equal(counts[6], 8);
    assert_int_equal(counts[23], 16);
    uint64_t sum = 0;
    for (unsigned i = 0; i < QUERY_LATENCY_COUNTS; i++)
        sum += counts[i];
    assert_int_equal(sum, 31);
}

static void
query_migrate_listening_shows_each_kind_of_address(void **state)
{
    (void)state;
    static const struct {
        const char *uri, *text;
    } cases[] = {
        {"tcp:127.0.0.1:4444", "[{\"type\":\"inet\",\"host\":\"127.0.0.1\",\"port\":\"4444\"}]"},
        {"tcp:[::1]:4444", "[{\"type\":\"inet\",\"host\":\"::1\",\"port\":\"4444\"}]"},
        {"unix:/run/a:b", "[{\"type\":\"unix\",\"path\":\"/run/a:b\"}]"},
        {"fd:7", "[{\"type\":\"fd\",\"str\":\"7\"}]"},
    };
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(JsonObject) reply =
            reply_of(sample(FAULTLINE_STATUS_SETUP, true), false, cases[i].uri);
        g_autofree char *text =
            json_to_string(json_object_get_member(reply, "socket-address"), FALSE);
        assert_string_equal(text, cases[i].text);
    }
}

static void
query_migrate_error_text_cut_within_a_character_is_made_valid(void **state)
{
    (void)state;
    FaultlineInfo *info = sample(FAULTLINE_STATUS_FAILED, false);
    strcpy(info->error, "connect: caf\xc3");
    g_autoptr(JsonObject) reply = reply_of(info, false, NULL);
    const char *text = json_object_get_string_member(reply, "error-desc");
    assert_true(g_utf8_validate(text, -1, NULL));
    assert_true(g_str_has_prefix(text, "connect: caf"));
}

static void
info_migrate_of_a_destination_shows_latency_percentiles(void **state)
{
    (void)state;
    g_autofree FaultlineInfo *info = sample(FAULTLINE_STATUS_COMPLETED, true);
    put_faults(&info->latency, 100, 99);
    put_faults(&info->latency, 5000, 1);
    g_autoptr(GString) output = g_string_new(NULL);
    info_migrate_render(info, NULL, output);
    assert_non_null(strstr(output->str, "Migration status: completed (destination)\n"));
    assert_non_null(
        strstr(output->str, "remote faults: 100, in flight 0, longest waits 0.000 ms\n"));
    assert_non_null(strstr(output->str, "max 5000.0"));
    assert_non_null(strstr(output->str, "64 ..      128 us: 99\n"));
    assert_non_null(strstr(output->str, "blocktime: 2.500 ms; of each vcpu: 9.000 0.000 ms\n"));
    assert_null(strstr(output->str, "total time"));
}

static void
info_migrate_of_a_source_shows_ram_and_downtime(void **state)
{
    (void)state;
    g_autofree FaultlineInfo *info = sample(FAULTLINE_STATUS_COMPLETED, false);
    g_autoptr(GString) output = g_string_new(NULL);
    info_migrate_render(info, NULL, output);
    assert_non_null(strstr(output->str, "downtime: 7.900 ms\n"));
    assert_non_null(strstr(output->str, "total ram: 1048576 KiB\n"));
    assert_non_null(strstr(output->str, "throughput: 1000.00 mbps\n"));
    assert_null(strstr(output->str, "remote faults"));
    assert_null(strstr(output->str, "throttle"));
}

static void
info_migrate_of_a_throttled_source_shows_the_percentage(void **state)
{
    (void)state;
    g_autofree FaultlineInfo *info = sample(FAULTLINE_STATUS_ACTIVE, false);
    info->cpu_throttle_percent = 40;
    g_autoptr(GString) output = g_string_new(NULL);
    info_migrate_render(info, NULL, output);
    assert_non_null(strstr(output->str, "cpu throttle percentage: 40\n"));
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(query_migrate_of_each_source_status_has_its_fields),
        cmocka_unit_test(query_migrate_of_a_source_uses_qemu_units),
        cmocka_unit_test(query_migrate_of_a_destination_has_blocktime_only_when_completed_and_on),
        cmocka_unit_test(query_migrate_blocktime_is_ms_and_latency_is_ns),
        cmocka_unit_test(latency_distribution_counts_by_octaves_of_us),
        cmocka_unit_test(query_migrate_listening_shows_each_kind_of_address),
        cmocka_unit_test(query_migrate_error_text_cut_within_a_character_is_made_valid),
        cmocka_unit_test(info_migrate_of_a_destination_shows_latency_percentiles),
        cmocka_unit_test(info_migrate_of_a_source_shows_ram_and_downtime),
        cmocka_unit_test(info_migrate_of_a_throttled_source_shows_the_percentage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
