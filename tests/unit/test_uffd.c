/* SPDX-License-Identifier: MIT */
/*
 * Placing, by every way and on every kind of memory: each case below runs on each kind.
 */
#include "tests/unit/uffd_case.h"

#include "uffd/abi.h"

typedef struct Case {
    const char *name;
    void (*run)(Fixture *fixture);
} Case;

static void
place_bytes_wakes_thread(Fixture *fixture)
{
    Toucher toucher = {0};
    uint64_t want;

    watch(fixture);
    toucher_start(&toucher, fixture, 3, false);
    UffdFault fault = next_fault(fixture);

    assert_int_equal(fault_page(fixture, &fault), 3);
    assert_int_equal(fault.address % TARGET_PAGE_BYTES, 0);
    assert_int_equal(fault.thread, __atomic_load_n(&toucher.id, __ATOMIC_ACQUIRE));
    assert_false(fault.write);
    assert_false(fault.minor);
    assert_int_equal(place(fixture, 3, 30), UFFD_PLACED);
    pthread_join(toucher.thread, NULL);
    memcpy(&want, pattern(fixture, 30) + 8, 8);
    assert_int_equal(toucher.seen, want);
    assert_true(guest_has(fixture, 3, 30));
}

static void
place_zeros_wakes_writer(Fixture *fixture)
{
    Toucher toucher = {0};

    watch(fixture);
    toucher_start(&toucher, fixture, 2, true);
    UffdFault fault = next_fault(fixture);

    assert_true(fault.write);
    assert_int_equal(place_zeros_at(fixture, 2, 1), UFFD_PLACED);
    pthread_join(toucher.thread, NULL);
    assert_int_equal(toucher.seen, 7);
    assert_int_equal(fixture->guest[2 * fixture->page_bytes], 0);
}

static void
place_zeros_over_stale_bytes_shows_zeros(Fixture *fixture)
{
    store(fixture, 1, 10);
    store(fixture, 2, 20);
    discard(fixture, 1, 2);
    watch(fixture);
    assert_int_equal(place_zeros_at(fixture, 0, 4), UFFD_PLACED);
    for (uint64_t page = 0; page < 4; page++) {
        assert_true(guest_has_zeros(fixture, page));
    }
}

static void
place_after_discard_shows_new_bytes(Fixture *fixture)
{
    store(fixture, 1, 10);
    store(fixture, 2, 20);
    discard(fixture, 1, 1);
    watch(fixture);
    assert_int_equal(place(fixture, 1, 11), UFFD_PLACED);
    assert_int_not_equal(place_received(fixture, 2, 1), UFFD_FAILED);
    assert_true(guest_has(fixture, 1, 11));
    assert_true(guest_has(fixture, 2, 20));
}

static void
place_twice_reports_already_keeps_guest_writes(Fixture *fixture)
{
    watch(fixture);
    assert_int_equal(place(fixture, 1, 10), UFFD_PLACED);
    fill(fixture->guest + fixture->page_bytes, fixture->page_bytes, 99);
    assert_int_equal(place(fixture, 1, 11), UFFD_ALREADY);
    assert_true(guest_has(fixture, 1, 99));
    assert_int_equal(place_zeros_at(fixture, 1, 1), UFFD_ALREADY);
    assert_true(guest_has(fixture, 1, 99));
    assert_int_equal(place_zeros_at(fixture, 5, 1), UFFD_PLACED);
    fill(fixture->guest + 5 * fixture->page_bytes, fixture->page_bytes, 98);
    assert_int_equal(place_zeros_at(fixture, 5, 1), UFFD_ALREADY);
    assert_int_equal(place(fixture, 5, 11), UFFD_ALREADY);
    assert_true(guest_has(fixture, 5, 98));
}

/* A page put there behind our back, its waiter left asleep: as when two placings cross. */
static void
put_without_wake(Fixture *fixture, uint64_t page)
{
    struct uffdio_copy copy = {
        .dst = (uintptr_t)fixture->guest + page * fixture->page_bytes,
        .src = (uintptr_t)pattern(fixture, page),
        .len = fixture->page_bytes,
        .mode = UFFDIO_COPY_MODE_DONTWAKE,
    };

    assert_int_equal(ioctl(uffd_fd(fixture->uffd), UFFDIO_COPY, &copy), 0);
}

static void
place_present_page_wakes_thread(Fixture *fixture)
{
    Toucher touchers[2] = {0};

    watch(fixture);
    toucher_start(&touchers[0], fixture, 1, false);
    next_fault(fixture);
    put_without_wake(fixture, 1);
    assert_int_equal(place(fixture, 1, 1), UFFD_ALREADY);
    pthread_join(touchers[0].thread, NULL);
    toucher_start(&touchers[1], fixture, 2, true);
    next_fault(fixture);
    put_without_wake(fixture, 2);
    assert_int_equal(place_received(fixture, 2, 1), UFFD_ALREADY);
    pthread_join(touchers[1].thread, NULL);
    assert_true(guest_has(fixture, 1, 1));
    assert_int_equal(touchers[1].seen, 7);
}

/* The kernel refuses one call over two mappings. */
static void
place_range_over_two_mappings_places_all(Fixture *fixture)
{
    uint64_t half = fixture->count_pages / 2;
    g_autofree uint8_t *bytes = g_malloc(4 * fixture->page_bytes);

    assert_int_equal(madvise(fixture->guest, half * fixture->page_bytes, MADV_DONTDUMP), 0);
    store(fixture, half - 3, 4);
    watch(fixture);
    for (uint64_t page = 0; page < 4; page++) {
        fill(bytes + page * fixture->page_bytes, fixture->page_bytes, page);
    }
    assert_int_equal(uffd_place(fixture->memory, (half - 2) * fixture->page_bytes,
                                4 * fixture->page_bytes, bytes),
                     UFFD_PLACED);
    assert_int_equal(place_received(fixture, 0, fixture->count_pages), UFFD_PLACED);
    for (uint64_t page = 0; page < 4; page++) {
        assert_true(guest_has(fixture, half - 2 + page, page));
    }
    assert_true(guest_has(fixture, half - 3, 4));
    assert_true(guest_has_zeros(fixture, 0));
    assert_true(guest_has_zeros(fixture, fixture->count_pages - 1));
}

static void
place_range_over_present_pages_places_rest(Fixture *fixture)
{
    g_autofree uint8_t *bytes = g_malloc(6 * fixture->page_bytes);

    watch(fixture);
    assert_int_equal(place(fixture, 3, 33), UFFD_PLACED);
    assert_int_equal(place_zeros_at(fixture, 4, 1), UFFD_PLACED);
    for (uint64_t page = 0; page < 6; page++) {
        fill(bytes + page * fixture->page_bytes, fixture->page_bytes, page);
    }
    assert_int_equal(
        uffd_place(fixture->memory, fixture->page_bytes, 6 * fixture->page_bytes, bytes),
        UFFD_PLACED);
    assert_true(guest_has(fixture, 1, 0));
    assert_true(guest_has(fixture, 2, 1));
    assert_true(guest_has(fixture, 3, 33));
    assert_true(guest_has_zeros(fixture, 4));
    assert_true(guest_has(fixture, 5, 4));
    assert_true(guest_has(fixture, 6, 5));
}

static void
store_again_last_bytes_win(Fixture *fixture)
{
    store(fixture, 1, 10);
    store(fixture, 1, 11);
    store(fixture, 2, 20);
    store_zeros(fixture, 2);
    store_zeros(fixture, 3);
    store(fixture, 3, 30);
    watch(fixture);
    assert_int_not_equal(place_received(fixture, 1, 3), UFFD_FAILED);
    assert_true(guest_has(fixture, 1, 11));
    assert_true(guest_has_zeros(fixture, 2));
    assert_true(guest_has(fixture, 3, 30));
}

static void
place_received_hole_wakes_thread_with_zeros(Fixture *fixture)
{
    Toucher toucher = {.seen = 1};

    store_zeros(fixture, 4);
    watch(fixture);
    toucher_start(&toucher, fixture, 4, false);
    UffdFault fault = next_fault(fixture);

    assert_int_equal(fault_page(fixture, &fault), 4);
    assert_int_equal(place_received(fixture, 4, 1), UFFD_PLACED);
    pthread_join(toucher.thread, NULL);
    assert_int_equal(toucher.seen, 0);
}

static void
place_received_mixed_range_shows_all(Fixture *fixture)
{
    for (uint64_t page = 0; page < 8; page += 2) {
        store(fixture, page, page);
        store_zeros(fixture, page + 1);
    }
    discard(fixture, 2, 1);
    watch(fixture);
    assert_int_equal(place(fixture, 2, 77), UFFD_PLACED);
    assert_int_equal(place_received(fixture, 0, 8), UFFD_PLACED);
    assert_int_equal(place_received(fixture, 0, 8), UFFD_ALREADY);
    for (uint64_t page = 0; page < 8; page += 2) {
        assert_true(guest_has(fixture, page, page == 2 ? 77 : page));
        assert_true(guest_has_zeros(fixture, page + 1));
    }
}

/* A whole guest, touched in different orders by eight threads that all check what they read. */
typedef struct Reader {
    pthread_t thread;
    Fixture *fixture;
    uint64_t stride;
    uint64_t wrong;
} Reader;

static void *
read_all(void *opaque)
{
    Reader *reader = opaque;
    Fixture *fixture = reader->fixture;

    for (uint64_t i = 0; i < fixture->count_pages; i++) {
        uint64_t page = i * reader->stride % fixture->count_pages;
        uint64_t word;
        uint64_t want;
        uint8_t head[8];

        fill(head, 8, page);
        memcpy(&want, head, 8);
        word = *(volatile uint64_t *)(fixture->guest + page * fixture->page_bytes);
        reader->wrong += word != want;
    }
    return NULL;
}

static void
place_on_faults_many_threads_read_right_bytes(Fixture *fixture)
{
    static const uint64_t strides[] = {1, 5, 7, 11, 13, 17, 19, 23}; /* prime to both counts */
    Reader readers[8];
    uint64_t left = fixture->count_pages;
    g_autofree bool *placed = g_new0(bool, fixture->count_pages);

    watch(fixture);
    for (unsigned i = 0; i < 8; i++) {
        readers[i] = (Reader){.fixture = fixture, .stride = strides[i]};
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_all, &readers[i]), 0);
    }
    while (left > 0) {
        UffdFault fault = next_fault(fixture);
        uint64_t page = fault_page(fixture, &fault);

        assert_int_equal(place(fixture, page, page), placed[page] ? UFFD_ALREADY : UFFD_PLACED);
        left -= !placed[page];
        placed[page] = true;
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(readers[i].thread, NULL);
        assert_int_equal(readers[i].wrong, 0);
    }
}

/* Three threads place what is theirs of each word of the page bits, bytes and zeros, with stale
 * bytes beneath; the guest reads behind them. */
typedef struct Placer {
    pthread_t thread;
    Fixture *fixture;
    uint64_t first;
    uint64_t failed;
} Placer;

static void *
place_thirds(void *opaque)
{
    Placer *placer = opaque;
    Fixture *fixture = placer->fixture;
    uint8_t *bytes = g_malloc(fixture->page_bytes);

    for (uint64_t page = placer->first; page < fixture->count_pages; page += 3) {
        bool zeros = page / 3 % 2 == 0;

        fill(bytes, fixture->page_bytes, page);
        placer->failed += uffd_place(fixture->memory, page * fixture->page_bytes,
                                     fixture->page_bytes, zeros ? NULL : bytes) != UFFD_PLACED;
    }
    g_free(bytes);
    return NULL;
}

static void
place_from_three_threads_at_once_all_right(Fixture *fixture)
{
    Placer placers[3];

    for (uint64_t page = 0; page < fixture->count_pages; page += 4) {
        store(fixture, page, 1000 + page);
    }
    discard(fixture, 0, fixture->count_pages);
    watch(fixture);
    for (unsigned i = 0; i < 3; i++) {
        placers[i] = (Placer){.fixture = fixture, .first = i};
        assert_int_equal(pthread_create(&placers[i].thread, NULL, place_thirds, &placers[i]), 0);
    }
    for (uint64_t page = 0; page < fixture->count_pages; page++) {
        assert_true(page / 3 % 2 == 0 ? guest_has_zeros(fixture, page)
                                      : guest_has(fixture, page, page));
    }
    for (unsigned i = 0; i < 3; i++) {
        pthread_join(placers[i].thread, NULL);
        assert_int_equal(placers[i].failed, 0);
    }
}

static void
finish_memory_is_normal_again(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    struct pollfd wait = {.fd = uffd_fd(fixture->uffd), .events = POLLIN};

    store(fixture, 0, 5);
    watch(fixture);
    assert_int_not_equal(place_received(fixture, 0, fixture->count_pages), UFFD_FAILED);
    assert_true(uffd_memory_finish(fixture->memory, false, &error));
    assert_true(uffd_memory_finish(fixture->memory, true, &error));
    assert_true(guest_has(fixture, 0, 5));
    uffd_memory_release(fixture->memory, 0, fixture->page_bytes);
    assert_true(guest_has_zeros(fixture, 0));
    assert_int_equal(poll(&wait, 1, 0), 0);
    assert_int_equal(place(fixture, 1, 1), UFFD_GONE);
    assert_string_equal(uffd_memory_error(fixture->memory), "");
}

static void
place_unreadable_bytes_says_where_and_why(Fixture *fixture)
{
    uint8_t *nowhere =
        mmap(NULL, fixture->page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    watch(fixture);
    assert_string_equal(uffd_memory_error(fixture->memory), "");
    if (fixture->memory->way == &uffd_way_copy) { /* the alias way reads bytes itself */
        assert_int_equal(uffd_place(fixture->memory, 0, fixture->page_bytes, nowhere), UFFD_FAILED);
        assert_non_null(strstr(uffd_memory_error(fixture->memory), "offset 0x0"));
    }
    munmap(nowhere, fixture->page_bytes);
}

static void
run_gathers_and_places_consecutive_pages(Fixture *fixture)
{
    UffdRun *run = uffd_run_new();
    uint64_t offset;
    uint64_t length;

    if (fixture->kind->huge) {
        uffd_run_free(run);
        return; /* runs are of 4096-byte pages */
    }
    watch(fixture);
    for (uint64_t page = 10; page < 10 + RUN_PAGES + 5; page++) {
        const uint8_t *bytes = page % 5 == 0 ? NULL : pattern(fixture, page);

        assert_int_equal(
            uffd_run_add(run, fixture->memory, page * TARGET_PAGE_BYTES, bytes, &offset, &length),
            UFFD_PLACED);
        assert_int_equal(length, page == 10 + RUN_PAGES ? RUN_PAGES * TARGET_PAGE_BYTES : 0);
    }
    assert_int_equal(uffd_run_add(run, fixture->memory, 500 * TARGET_PAGE_BYTES,
                                  pattern(fixture, 500), &offset, &length),
                     UFFD_PLACED);
    assert_int_equal(offset, (10 + RUN_PAGES) * TARGET_PAGE_BYTES);
    assert_int_equal(length, 5 * TARGET_PAGE_BYTES);
    assert_ptr_equal(uffd_run_memory(run), fixture->memory);
    assert_int_equal(uffd_run_flush(run, &offset, &length), UFFD_PLACED);
    assert_int_equal(offset, 500 * TARGET_PAGE_BYTES);
    assert_null(uffd_run_memory(run));
    for (uint64_t page = 10; page < 10 + RUN_PAGES + 5; page++) {
        assert_true(page % 5 == 0 ? guest_has_zeros(fixture, page)
                                  : guest_has(fixture, page, page));
    }
    /* What comes a second time leaves what the guest wrote. */
    fill(fixture->guest + 500 * TARGET_PAGE_BYTES, TARGET_PAGE_BYTES, 1);
    uffd_run_add(run, fixture->memory, 500 * TARGET_PAGE_BYTES, pattern(fixture, 2), &offset,
                 &length);
    assert_int_equal(uffd_run_flush(run, &offset, &length), UFFD_ALREADY);
    assert_int_equal(length, TARGET_PAGE_BYTES);
    assert_true(guest_has(fixture, 500, 1));
    uffd_run_free(run);
}

static const Case cases[] = {
    {"place_bytes_wakes_thread", place_bytes_wakes_thread},
    {"place_zeros_wakes_writer", place_zeros_wakes_writer},
    {"place_zeros_over_stale_bytes_shows_zeros", place_zeros_over_stale_bytes_shows_zeros},
    {"place_after_discard_shows_new_bytes", place_after_discard_shows_new_bytes},
    {"place_twice_reports_already_keeps_guest_writes",
     place_twice_reports_already_keeps_guest_writes},
    {"place_present_page_wakes_thread", place_present_page_wakes_thread},
    {"place_range_over_two_mappings_places_all", place_range_over_two_mappings_places_all},
    {"place_from_three_threads_at_once_all_right", place_from_three_threads_at_once_all_right},
    {"place_range_over_present_pages_places_rest", place_range_over_present_pages_places_rest},
    {"store_again_last_bytes_win", store_again_last_bytes_win},
    {"place_received_hole_wakes_thread_with_zeros", place_received_hole_wakes_thread_with_zeros},
    {"place_received_mixed_range_shows_all", place_received_mixed_range_shows_all},
    {"place_on_faults_many_threads_read_right_bytes",
     place_on_faults_many_threads_read_right_bytes},
    {"finish_memory_is_normal_again", finish_memory_is_normal_again},
    {"place_unreadable_bytes_says_where_and_why", place_unreadable_bytes_says_where_and_why},
    {"run_gathers_and_places_consecutive_pages", run_gathers_and_places_consecutive_pages},
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
