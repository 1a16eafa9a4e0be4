/* SPDX-License-Identifier: MIT */
/*
 * Receiving to where pages belong, on every kind of memory: the test writes to the address as a
 * receive of the kernel's would.
 */
#include "tests/unit/uffd_case.h"

typedef struct Case {
    const char *name;
    void (*run)(Fixture *fixture);
} Case;

static void
receive_address_in_precopy_is_the_memory(Fixture *fixture)
{
    uint64_t bytes = 2 * fixture->page_bytes;
    uint8_t *at = uffd_receive_address(fixture->memory, fixture->page_bytes, bytes);

    assert_non_null(at);
    store(fixture, 4, 40);
    fill(at, fixture->page_bytes, 10);
    fill(at + fixture->page_bytes, fixture->page_bytes, 20);
    fill(at, fixture->page_bytes, 11); /* it comes again */
    watch(fixture);
    assert_int_not_equal(place_received(fixture, 0, 5), UFFD_FAILED);
    assert_true(guest_has_zeros(fixture, 0));
    assert_true(guest_has(fixture, 1, 11));
    assert_true(guest_has(fixture, 2, 20));
    assert_true(guest_has_zeros(fixture, 3));
    assert_true(guest_has(fixture, 4, 40));
}

/* Half of a huge page as well. */
static void
receive_address_of_target_pages_is_the_memory(Fixture *fixture)
{
    uint64_t offset = fixture->page_bytes - TARGET_PAGE_BYTES;
    uint8_t *at = uffd_receive_address(fixture->memory, offset, 2 * TARGET_PAGE_BYTES);
    uint8_t want[2 * TARGET_PAGE_BYTES];

    assert_non_null(at);
    fill(want, sizeof want, 5);
    memcpy(at, want, sizeof want);
    watch(fixture);
    assert_int_not_equal(place_received(fixture, 0, 2), UFFD_FAILED);
    assert_memory_equal(fixture->guest + offset, want, sizeof want);
}

static void
receive_address_when_registered_hides_until_shown(Fixture *fixture)
{
    Toucher toucher = {0};

    store(fixture, 5, 50);
    discard(fixture, 5, 1);
    watch(fixture);
    uint8_t *at =
        uffd_receive_address(fixture->memory, 4 * fixture->page_bytes, 3 * fixture->page_bytes);
    if (fixture->memory->alias == NULL) {
        assert_null(at); /* the guest mapping is the only one */
        return;
    }
    fill(at, fixture->page_bytes, 40);
    toucher_start(&toucher, fixture, 4, false);
    UffdFault fault = next_fault(fixture);
    assert_int_equal(fault_page(fixture, &fault), 4);
    assert_int_equal(place_received(fixture, 4, 1), UFFD_PLACED);
    pthread_join(toucher.thread, NULL);
    fill(at + fixture->page_bytes, fixture->page_bytes, 51);
    fill(at + 2 * fixture->page_bytes, fixture->page_bytes, 60);
    assert_int_equal(place_received(fixture, 5, 2), UFFD_PLACED);
    assert_true(guest_has(fixture, 4, 40));
    assert_true(guest_has(fixture, 5, 51));
    assert_true(guest_has(fixture, 6, 60));
}

static void
receive_address_over_a_visible_page_is_refused(Fixture *fixture)
{
    uint64_t bytes = fixture->page_bytes;

    watch(fixture);
    assert_int_equal(place(fixture, 3, 30), UFFD_PLACED);
    assert_null(uffd_receive_address(fixture->memory, 3 * bytes, bytes));
    assert_null(uffd_receive_address(fixture->memory, bytes, 3 * bytes));
    assert_null(uffd_receive_address(fixture->memory, 3 * bytes, 3 * bytes));
}

static const Case cases[] = {
    {"receive_address_in_precopy_is_the_memory", receive_address_in_precopy_is_the_memory},
    {"receive_address_of_target_pages_is_the_memory",
     receive_address_of_target_pages_is_the_memory},
    {"receive_address_when_registered_hides_until_shown",
     receive_address_when_registered_hides_until_shown},
    {"receive_address_over_a_visible_page_is_refused",
     receive_address_over_a_visible_page_is_refused},
};

typedef struct Pair {
    const Case *what;
    const Kind *kind;
} Pair;

static void
run_pair(void **state)
{
    const Pair *pair = *state;
    g_autoptr(Fixture) fixture = fixture_new(pair->kind);

    pair->what->run(fixture);
}

int
main(void)
{
    static Pair pairs[G_N_ELEMENTS(kinds) * G_N_ELEMENTS(cases)];
    static struct CMUnitTest tests[G_N_ELEMENTS(pairs)];

    for (size_t i = 0; i < G_N_ELEMENTS(pairs); i++) {
        pairs[i] = (Pair){&cases[i / G_N_ELEMENTS(kinds)], &kinds[i % G_N_ELEMENTS(kinds)]};
        tests[i] = (struct CMUnitTest){
            .name = g_strdup_printf("%s/%s", pairs[i].what->name, pairs[i].kind->name),
            .test_func = run_pair,
            .initial_state = &pairs[i],
        };
    }
    return cmocka_run_group_tests_name("uffd", tests, huge_pages_raise, huge_pages_restore);
}
