/* SPDX-License-Identifier: MIT */
/*
 * The account of remote faults, with a clock that the test sets: who waited how long, what of it
 * was all vCPUs at once, and what happens at the edges of its table.
 */
#include "engine/destination/account.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define NOW_NS 100000u /* when the figures are read */

static const pid_t vcpus[] = {101, 102, 103};

static pid_t
vcpu_thread(void *opaque, unsigned index)
{
    return index < *(unsigned *)opaque ? vcpus[index] : 0;
}

typedef struct Fixture {
    Faultline faultline;
    FaultAccount account;
    FaultlineInfo info;
    unsigned count_vcpus;
} Fixture;

static Fixture *
fixture_new(unsigned count_vcpus)
{
    Fixture *fixture = g_new0(Fixture, 1);
    fixture->count_vcpus = count_vcpus;
    fixture->faultline.guest.vcpu_thread = vcpu_thread;
    fixture->faultline.opaque = &fixture->count_vcpus;
    account_start(&fixture->account, &fixture->faultline);
    return fixture;
}

static void
fixture_free(Fixture *fixture)
{
    account_clear(&fixture->account);
    g_free(fixture);
}

static const FaultlineInfo *
read_info(Fixture *fixture)
{
    memset(&fixture->info, 0, sizeof fixture->info);
    account_read(&fixture->account, NOW_NS, &fixture->info);
    return &fixture->info;
}

static void
one_vcpu_waits_and_its_time_is_told(void **state)
{
    Fixture *fixture = fixture_new(2);
    (void)state;

    account_begin(&fixture->account, 0, 7, 102, 1000);
    assert_int_equal(read_info(fixture)->faults_in_flight, 1);
    account_end(&fixture->account, 0, 7, 1600);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->faults_in_flight, 0);
    assert_int_equal(info->count_vcpus, 2);
    assert_int_equal(info->vcpu_blocktime_ns[1], 600);
    assert_int_equal(info->vcpu_faults[1], 1);
    assert_int_equal(info->vcpu_blocktime_ns[0] + info->vcpu_faults[0], 0);
    assert_int_equal(info->latency.count, 1);
    assert_int_equal(info->latency.total_ns, 600);
    assert_int_equal(info->latency.max_ns, 600);
    assert_int_equal(info->non_vcpu_faults, 0);
    assert_int_equal(info->blocktime_ns, 0); /* the other one ran */
    fixture_free(fixture);
}

static void
all_vcpus_blocked_at_once_counts_their_overlap(void **state)
{
    Fixture *fixture = fixture_new(3);
    (void)state;

    account_begin(&fixture->account, 0, 1, 101, 100);
    account_begin(&fixture->account, 0, 2, 102, 200);
    account_begin(&fixture->account, 1, 1, 103, 350); /* from here on none runs */
    account_end(&fixture->account, 0, 2, 500);        /* until here: 150 */
    account_begin(&fixture->account, 0, 9, 102, 600); /* and again */
    account_end(&fixture->account, 0, 1, 640);        /* 40 more */
    account_end(&fixture->account, 1, 1, 700);
    account_end(&fixture->account, 0, 9, 900);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->blocktime_ns, 190);
    assert_int_equal(info->vcpu_blocktime_ns[0], 540);
    assert_int_equal(info->vcpu_blocktime_ns[1], 300 + 300);
    assert_int_equal(info->vcpu_blocktime_ns[2], 350);
    assert_int_equal(info->vcpu_faults[1], 2);
    assert_int_equal(info->latency.count, 4);
    assert_int_equal(info->latency.total_ns, 540 + 300 + 350 + 300);
    fixture_free(fixture);
}

static void
overlapping_faults_of_one_vcpu_count_its_time_once(void **state)
{
    Fixture *fixture = fixture_new(1);
    (void)state;

    /* KVM's asynchronous page faults: one vCPU, two pages. */
    account_begin(&fixture->account, 0, 1, 101, 100);
    account_begin(&fixture->account, 0, 2, 101, 150);
    account_end(&fixture->account, 0, 1, 300);
    account_end(&fixture->account, 0, 2, 400);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->vcpu_blocktime_ns[0], 300);
    assert_int_equal(info->vcpu_faults[0], 2);
    assert_int_equal(info->blocktime_ns, 300);
    assert_int_equal(info->latency.total_ns, 200 + 250);
    fixture_free(fixture);
}

static void
two_threads_on_one_page_end_together(void **state)
{
    Fixture *fixture = fixture_new(2);
    (void)state;

    account_begin(&fixture->account, 0, 5, 101, 10);
    account_begin(&fixture->account, 0, 5, 777, 30); /* no vCPU */
    account_begin(&fixture->account, 0, 5, 102, 60);
    account_begin(&fixture->account, 1, 5, 102, 70); /* same page number, another block */
    account_end(&fixture->account, 0, 5, 110);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->faults_in_flight, 1);
    assert_int_equal(info->latency.count, 3);
    assert_int_equal(info->latency.total_ns, 100 + 80 + 50);
    assert_int_equal(info->non_vcpu_faults, 1);
    assert_int_equal(info->non_vcpu_total_ns, 80);
    assert_int_equal(info->blocktime_ns, 50);
    assert_int_equal(info->vcpu_blocktime_ns[0], 100);
    assert_int_equal(info->vcpu_blocktime_ns[1], 0); /* waits on */
    account_end(&fixture->account, 1, 5, 160);
    assert_int_equal(read_info(fixture)->vcpu_blocktime_ns[1], 100);
    fixture_free(fixture);
}

static void
other_threads_only_touch_no_vcpu_figure(void **state)
{
    Fixture *fixture = fixture_new(0);
    (void)state;

    account_begin(&fixture->account, 0, 3, 555, 1000);
    account_end(&fixture->account, 0, 3, 4000);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->count_vcpus, 0);
    assert_int_equal(info->non_vcpu_faults, 1);
    assert_int_equal(info->non_vcpu_total_ns, 3000);
    assert_int_equal(info->blocktime_ns, 0);
    fixture_free(fixture);
}

static void
end_of_a_page_nobody_waits_for_changes_nothing(void **state)
{
    Fixture *fixture = fixture_new(1);
    (void)state;

    account_begin(&fixture->account, 0, 3, 101, 5);
    account_end(&fixture->account, 0, 4, 50);
    account_end(&fixture->account, 1, 3, 50);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->faults_in_flight, 1);
    assert_int_equal(info->latency.count, 0);
    fixture_free(fixture);
}

static void
clock_that_stands_still_gives_no_negative_time(void **state)
{
    Fixture *fixture = fixture_new(1);
    (void)state;

    account_begin(&fixture->account, 0, 3, 101, 500);
    account_end(&fixture->account, 0, 3, 500);
    account_begin(&fixture->account, 0, 4, 101, 600);
    account_end(&fixture->account, 0, 4, 590);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->latency.count, 2);
    assert_int_equal(info->latency.max_ns, 0);
    assert_int_equal(info->vcpu_blocktime_ns[0], 0);
    assert_int_equal(info->blocktime_ns, 0);
    fixture_free(fixture);
}

static void
table_full_drops_the_next_and_goes_on_after(void **state)
{
    Fixture *fixture = fixture_new(1);
    (void)state;

    for (uint64_t page = 0; page < ACCOUNT_FAULTS_MAX; page++)
        account_begin(&fixture->account, 0, page, 900, page);
    account_begin(&fixture->account, 0, 5000, 101, 2000); /* not accounted */
    assert_int_equal(read_info(fixture)->faults_in_flight, ACCOUNT_FAULTS_MAX);
    account_end(&fixture->account, 0, 5000, 3000);
    assert_int_equal(read_info(fixture)->vcpu_faults[0], 0);
    assert_int_equal(read_info(fixture)->latency.count, 0);

    account_end(&fixture->account, 0, 17, 3000);
    account_begin(&fixture->account, 0, 5001, 101, 4000);
    for (uint64_t page = 0; page < ACCOUNT_FAULTS_MAX; page++)
        account_end(&fixture->account, 0, page, 5000);
    account_end(&fixture->account, 0, 5001, 5000);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->faults_in_flight, 0);
    assert_int_equal(info->non_vcpu_faults, ACCOUNT_FAULTS_MAX);
    assert_int_equal(info->vcpu_faults[0], 1);
    assert_int_equal(info->vcpu_blocktime_ns[0], 1000);
    assert_int_equal(info->latency.count, ACCOUNT_FAULTS_MAX + 1);
    fixture_free(fixture);
}

static pid_t
endless_vcpu_thread(void *opaque, unsigned index)
{
    (void)opaque;
    return (pid_t)index + 1;
}

static void
more_vcpus_than_the_table_holds_are_not_vcpus(void **state)
{
    Fixture *fixture = g_new0(Fixture, 1);
    (void)state;

    fixture->faultline.guest.vcpu_thread = endless_vcpu_thread;
    account_start(&fixture->account, &fixture->faultline);
    account_begin(&fixture->account, 0, 1, FAULTLINE_VCPUS_MAX, 10);
    account_begin(&fixture->account, 0, 2, FAULTLINE_VCPUS_MAX + 1, 10);
    account_end(&fixture->account, 0, 1, 20);
    account_end(&fixture->account, 0, 2, 20);
    const FaultlineInfo *info = read_info(fixture);
    assert_int_equal(info->count_vcpus, FAULTLINE_VCPUS_MAX);
    assert_int_equal(info->vcpu_faults[FAULTLINE_VCPUS_MAX - 1], 1);
    assert_int_equal(info->non_vcpu_faults, 1);
    fixture_free(fixture);
}

static void
longest_stall_is_the_oldest_of_those_that_wait(void **state)
{
    Fixture *fixture = fixture_new(2);
    (void)state;

    assert_int_equal(read_info(fixture)->longest_stall_ns, 0);
    account_begin(&fixture->account, 0, 1, 101, NOW_NS - 500);
    account_begin(&fixture->account, 0, 2, 102, NOW_NS - 300);
    assert_int_equal(read_info(fixture)->longest_stall_ns, 500);
    account_end(&fixture->account, 0, 1, NOW_NS - 100);
    assert_int_equal(read_info(fixture)->longest_stall_ns, 300);
    account_begin(&fixture->account, 0, 3, 101, NOW_NS - 50);
    account_end(&fixture->account, 0, 2, NOW_NS);
    assert_int_equal(read_info(fixture)->longest_stall_ns, 50);
    account_end(&fixture->account, 0, 3, NOW_NS);
    assert_int_equal(read_info(fixture)->longest_stall_ns, 0);
    fixture_free(fixture);
}

static void
latency_of_each_vcpu_is_its_own(void **state)
{
    Fixture *fixture = fixture_new(2);
    g_autofree FaultlineLatency *latency = g_new0(FaultlineLatency, 1);
    (void)state;

    account_begin(&fixture->account, 0, 1, 102, 100);
    account_begin(&fixture->account, 0, 2, 777, 100); /* no vCPU */
    account_end(&fixture->account, 0, 1, 400);
    account_end(&fixture->account, 0, 2, 900);
    assert_true(account_read_vcpu(&fixture->account, 0, latency));
    assert_int_equal(latency->count, 0);
    assert_true(account_read_vcpu(&fixture->account, 1, latency));
    assert_int_equal(latency->count, 1);
    assert_int_equal(latency->max_ns, 300);
    assert_false(account_read_vcpu(&fixture->account, 2, latency));
    fixture_free(fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_vcpu_waits_and_its_time_is_told),
        cmocka_unit_test(all_vcpus_blocked_at_once_counts_their_overlap),
        cmocka_unit_test(overlapping_faults_of_one_vcpu_count_its_time_once),
        cmocka_unit_test(two_threads_on_one_page_end_together),
        cmocka_unit_test(other_threads_only_touch_no_vcpu_figure),
        cmocka_unit_test(end_of_a_page_nobody_waits_for_changes_nothing),
        cmocka_unit_test(clock_that_stands_still_gives_no_negative_time),
        cmocka_unit_test(table_full_drops_the_next_and_goes_on_after),
        cmocka_unit_test(more_vcpus_than_the_table_holds_are_not_vcpus),
        cmocka_unit_test(longest_stall_is_the_oldest_of_those_that_wait),
        cmocka_unit_test(latency_of_each_vcpu_is_its_own),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
