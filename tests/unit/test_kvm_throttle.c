/* SPDX-License-Identifier: MIT */
/*
 * Machines whose vCPUs are held for a part of their time: the clock that does it, and that a held
 * guest still goes on, pauses, and is let go. By how much a guest is slowed down is nowhere
 * measured here: tests/pair has one that converges by nothing else.
 */
#include "tests/unit/kvm_fixture.h"

#define LIMIT_US (60 * G_USEC_PER_SEC) /* bounds every wait, so that a hang fails */

/* ---- The clock ---------------------------------------------------------------------------------
 */

typedef struct Held {
    _Atomic unsigned holds, releases;
    atomic_bool is_held;
} Held;

static void
note(void *opaque, bool held)
{
    Held *counts = opaque;

    assert_true(held != counts->is_held);
    counts->is_held = held;
    (held ? &counts->holds : &counts->releases)[0]++;
}

static ThrottleClock *
new_clock(Held *counts)
{
    g_autoptr(GError) error = NULL;
    *counts = (Held){0};
    ThrottleClock *clock = throttle_clock_new(note, counts, &error);
    assert_no_error(error);
    return clock;
}

static void
wait_releases(const Held *counts, unsigned more)
{
    unsigned before = counts->releases;
    int64_t end = g_get_monotonic_time() + LIMIT_US;

    while (counts->releases < before + more && g_get_monotonic_time() < end)
        g_usleep(100);
    assert_true(counts->releases >= before + more);
}

static void
wait_held(const Held *counts)
{
    int64_t end = g_get_monotonic_time() + LIMIT_US;

    while (!counts->is_held && g_get_monotonic_time() < end)
        g_usleep(10);
}

static void
clock_that_is_not_set_holds_nobody(void **state)
{
    Held counts;
    (void)state;

    ThrottleClock *clock = new_clock(&counts);
    throttle_clock_set(clock, 0);
    throttle_clock_free(clock);
    assert_int_equal(counts.holds, 0);
    throttle_clock_free(NULL);
}

static void
clock_at_each_percentage_holds_and_releases_in_turn(void **state)
{
    static const unsigned percents[] = {1, 20, 50, 99, 7};
    Held counts;
    (void)state;

    ThrottleClock *clock = new_clock(&counts);
    for (unsigned i = 0; i < G_N_ELEMENTS(percents); i++) {
        throttle_clock_set(clock, percents[i]);
        wait_releases(&counts, 5);
    }
    throttle_clock_free(clock);
    assert_false(counts.is_held);
    assert_int_equal(counts.holds, counts.releases);
}

static void
clock_set_to_zero_has_released_on_return(void **state)
{
    Held counts;
    (void)state;

    ThrottleClock *clock = new_clock(&counts);
    for (unsigned i = 0; i < 20; i++) {
        throttle_clock_set(clock, 90);
        wait_held(&counts);
        throttle_clock_set(clock, 0);
        assert_false(counts.is_held);
        assert_int_equal(counts.holds, i + 1);
        assert_int_equal(counts.releases, i + 1);
    }
    throttle_clock_free(clock);
    assert_int_equal(counts.holds, 20);
}

static void
clock_freed_while_it_holds_releases(void **state)
{
    Held counts;
    (void)state;

    ThrottleClock *clock = new_clock(&counts);
    throttle_clock_set(clock, 99);
    wait_held(&counts);
    throttle_clock_free(clock);
    assert_false(counts.is_held);
    assert_int_equal(counts.holds, counts.releases);
}

/* ---- Machines ----------------------------------------------------------------------------------
 */

static uint64_t
checks_of(const MachineKind *kind, Machine *machine)
{
    const char *verdict = kind->verdict(machine);
    unsigned long long checks = 0;

    if (verdict)
        assert_int_equal(sscanf(verdict, "ok, %llu checks", &checks), 1);
    return checks;
}

static void
expect_goes_on(const MachineKind *kind, Machine *machine)
{
    uint64_t before = checks_of(kind, machine);
    int64_t end = g_get_monotonic_time() + LIMIT_US;

    while (checks_of(kind, machine) <= before && g_get_monotonic_time() < end)
        g_usleep(1000);
    assert_true(checks_of(kind, machine) > before);
}

static void
expect_pauses(const MachineKind *kind, Machine *machine)
{
    g_autoptr(GError) error = NULL;

    kind->guest->pause(machine, &error);
    assert_no_error(error);
    uint64_t checks = checks_of(kind, machine);
    g_usleep(30000); /* some periods */
    assert_int_equal(checks_of(kind, machine), checks);
    kind->guest->resume(machine, &error);
    assert_no_error(error);
}

static void
throttle_guest(const MachineKind *kind, uint64_t write_rate)
{
    const MachineOptions options = {
        .memory_bytes = 16 * MIB, .cpus = 2, .serial = "none", .write_rate = write_rate};
    g_autoptr(GError) error = NULL;

    Machine *machine = kind->make(&options, &error);
    assert_no_error(error);
    kind->guest->throttle(machine, 0);
    kind->guest->resume(machine, &error);
    assert_no_error(error);
    expect_goes_on(kind, machine);
    for (unsigned percent = 30; percent < 100; percent += 23) {
        kind->guest->throttle(machine, percent);
        expect_goes_on(kind, machine);
        expect_pauses(kind, machine);
    }
    kind->guest->throttle(machine, 99);
    expect_goes_on(kind, machine);
    kind->guest->throttle(machine, 0);
    expect_goes_on(kind, machine);
    expect_pauses(kind, machine);
    expect_goes_on(kind, machine);
    kind->guest->throttle(machine, 99); /* freed so */
    kind->free(machine);
}

static void
throttled_thread_guest_goes_on_and_pauses(void **state)
{
    (void)state;
    throttle_guest(&machine_threads, 0);
    throttle_guest(&machine_threads, 20000);
}

static void
throttled_kvm_guest_goes_on_and_pauses(void **state)
{
    (void)state;
    skip_without_kvm();
    throttle_guest(&machine_kvm, 0);
}

/* Held first, it stands until it is let go. */
static void
guest_resumed_while_throttled_goes_on(void **state)
{
    const MachineOptions options = {.memory_bytes = 4 * MIB, .cpus = 1, .serial = "none"};
    g_autoptr(GError) error = NULL;
    (void)state;

    Machine *machine = machine_threads.make(&options, &error);
    assert_no_error(error);
    machine_threads.guest->throttle(machine, 95);
    machine_threads.guest->resume(machine, &error);
    assert_no_error(error);
    expect_goes_on(&machine_threads, machine);
    machine_threads.free(machine);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clock_that_is_not_set_holds_nobody),
        cmocka_unit_test(clock_at_each_percentage_holds_and_releases_in_turn),
        cmocka_unit_test(clock_set_to_zero_has_released_on_return),
        cmocka_unit_test(clock_freed_while_it_holds_releases),
        cmocka_unit_test(throttled_thread_guest_goes_on_and_pauses),
        cmocka_unit_test(throttled_kvm_guest_goes_on_and_pauses),
        cmocka_unit_test(guest_resumed_while_throttled_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
