/* SPDX-License-Identifier: MIT */
/*
 * Random operations on every kind of memory against a shadow copy: precopy, discard, placing in
 * every form, doubled pages and a guest that writes. The seed is printed; the first argument sets
 * it.
 */
#include "tests/unit/uffd_case.h"

#define MODEL_PAGES 1024u
#define HUGE_MODEL  8u
#define STORES      2500u
#define PLACINGS    7500u
#define HUGE_STORES 200u
#define HUGE_PLACES 400u

typedef enum {
    PAGE_MISSING,
    PAGE_RECEIVED, /* stored, perhaps not visible */
    PAGE_VISIBLE,
} PageState;

typedef struct Model {
    Fixture *fixture;
    GRand *random;
    UffdRun *run;
    uint64_t count_pages;
    uint64_t page_bytes;
    uint8_t *shadow;
    PageState *states;
    uint8_t *buffer; /* 16 pages */
} Model;

static guint32 seed;

static uint64_t
random_below(Model *model, uint64_t bound)
{
    return (uint64_t)g_rand_int_range(model->random, 0, (gint32)bound);
}

static uint8_t *
shadow_page(Model *model, uint64_t page)
{
    return model->shadow + page * model->page_bytes;
}

/* New bytes, or NULL for zeros, also into the shadow. */
static const uint8_t *
new_content(Model *model, uint64_t page, uint64_t count)
{
    if (random_below(model, 3) == 0) {
        memset(shadow_page(model, page), 0, count * model->page_bytes);
        return NULL;
    }
    fill(model->buffer, count * model->page_bytes, g_rand_int(model->random));
    memcpy(shadow_page(model, page), model->buffer, count * model->page_bytes);
    return model->buffer;
}

static void
check(Model *model, uint64_t page)
{
    assert_memory_equal(model->fixture->guest + page * model->page_bytes, shadow_page(model, page),
                        model->page_bytes);
}

/* From page on, at most 16 of one state. */
static uint64_t
same_state(Model *model, uint64_t page)
{
    uint64_t most = 1 + random_below(model, model->fixture->kind->huge ? 2 : 16);
    uint64_t count = 1;

    while (count < most && page + count < model->count_pages &&
           model->states[page + count] == model->states[page]) {
        count++;
    }
    return count;
}

static void
set_states(Model *model, uint64_t page, uint64_t count, PageState state)
{
    for (uint64_t i = page; i < page + count; i++) {
        model->states[i] = state;
    }
}

static void
precopy_step(Model *model)
{
    uint64_t page = random_below(model, model->count_pages);

    if (random_below(model, 20) == 0) {
        uint64_t count = same_state(model, page);

        discard(model->fixture, page, count);
        set_states(model, page, count, PAGE_MISSING);
        return;
    }
    if (model->states[page] == PAGE_MISSING && model->fixture->kind->huge) {
        memset(shadow_page(model, page), 0, model->page_bytes);
        for (uint64_t at = 0; at < model->page_bytes; at += TARGET_PAGE_BYTES) {
            uffd_store(model->fixture->memory, page * model->page_bytes + at, NULL);
        }
    }
    uint64_t at = random_below(model, model->page_bytes / TARGET_PAGE_BYTES) * TARGET_PAGE_BYTES;
    bool zeros = random_below(model, 3) == 0;

    fill(model->buffer, TARGET_PAGE_BYTES, g_rand_int(model->random));
    if (zeros) {
        memset(model->buffer, 0, TARGET_PAGE_BYTES);
    }
    memcpy(shadow_page(model, page) + at, model->buffer, TARGET_PAGE_BYTES);
    uffd_store(model->fixture->memory, page * model->page_bytes + at, zeros ? NULL : model->buffer);
    model->states[page] = PAGE_RECEIVED;
}

static void
place_missing(Model *model, uint64_t page)
{
    uint64_t count = same_state(model, page);
    const uint8_t *bytes = new_content(model, page, count);

    assert_int_equal(uffd_place(model->fixture->memory, page * model->page_bytes,
                                count * model->page_bytes, bytes),
                     UFFD_PLACED);
    set_states(model, page, count, PAGE_VISIBLE);
}

static void
run_missing(Model *model, uint64_t page)
{
    uint64_t count = same_state(model, page);
    uint64_t offset;
    uint64_t length;

    for (uint64_t i = page; i < page + count; i++) {
        assert_int_equal(uffd_run_add(model->run, model->fixture->memory, i * model->page_bytes,
                                      new_content(model, i, 1), &offset, &length),
                         UFFD_PLACED);
        assert_int_equal(length, 0);
    }
    assert_int_equal(uffd_run_flush(model->run, &offset, &length), UFFD_PLACED);
    assert_int_equal(offset, page * model->page_bytes);
    assert_int_equal(length, count * model->page_bytes);
    set_states(model, page, count, PAGE_VISIBLE);
}

/* The guest has the page: reads, writes, and gets it once more. */
static void
visit_visible(Model *model, uint64_t page)
{
    check(model, page);
    if (random_below(model, 2) == 0) {
        fill(shadow_page(model, page), model->page_bytes, g_rand_int(model->random));
        memcpy(model->fixture->guest + page * model->page_bytes, shadow_page(model, page),
               model->page_bytes);
    }
    fill(model->buffer, model->page_bytes, 1);
    assert_int_equal(uffd_place(model->fixture->memory, page * model->page_bytes, model->page_bytes,
                                random_below(model, 2) == 0 ? NULL : model->buffer),
                     UFFD_ALREADY);
    check(model, page);
}

static void
postcopy_step(Model *model)
{
    uint64_t page = random_below(model, model->count_pages);
    uint64_t count;

    switch (model->states[page]) {
    case PAGE_MISSING:
        if (model->fixture->kind->huge || random_below(model, 2) == 0) {
            place_missing(model, page);
        } else {
            run_missing(model, page);
        }
        break;
    case PAGE_RECEIVED:
        count = same_state(model, page);
        assert_true(place_received(model->fixture, page, count) <= UFFD_ALREADY);
        set_states(model, page, count, PAGE_VISIBLE);
        break;
    case PAGE_VISIBLE:
        visit_visible(model, page);
        break;
    }
}

static void
finish_and_compare(Model *model)
{
    for (uint64_t page = 0; page < model->count_pages; page++) {
        if (model->states[page] == PAGE_MISSING) {
            place_missing(model, page);
        }
    }
    assert_true(place_received(model->fixture, 0, model->count_pages) <= UFFD_ALREADY);
    for (int finished = 0; finished < 2; finished++) {
        for (uint64_t page = 0; page < model->count_pages; page++) {
            check(model, page);
        }
        assert_true(uffd_memory_finish(model->fixture->memory, true, NULL));
    }
}

static void
random_operations_match_shadow(void **state)
{
    const Kind *kind = *state;
    g_autoptr(Fixture) fixture = fixture_new(kind);
    Model model = {
        .fixture = fixture,
        .random = g_rand_new_with_seed(seed),
        .run = uffd_run_new(),
        .count_pages = kind->huge ? HUGE_MODEL : MODEL_PAGES,
        .page_bytes = fixture->page_bytes,
        .states = g_new0(PageState, fixture->count_pages),
        .buffer = g_malloc(16 * fixture->page_bytes),
    };

    model.shadow = g_malloc0(model.count_pages * model.page_bytes);
    for (unsigned i = 0; i < (kind->huge ? HUGE_STORES : STORES); i++) {
        precopy_step(&model);
    }
    watch(fixture);
    for (unsigned i = 0; i < (kind->huge ? HUGE_PLACES : PLACINGS); i++) {
        postcopy_step(&model);
    }
    finish_and_compare(&model);
    g_rand_free(model.random);
    uffd_run_free(model.run);
    g_free(model.shadow);
    g_free(model.states);
    g_free(model.buffer);
}

int
main(int argc, char **argv)
{
    static struct CMUnitTest tests[G_N_ELEMENTS(kinds)];

    seed = argc > 1 ? (guint32)strtoul(argv[1], NULL, 0) : g_random_int();
    print_message("seed %u\n", seed);
    for (size_t i = 0; i < G_N_ELEMENTS(kinds); i++) {
        tests[i] = (struct CMUnitTest){
            .name = g_strdup_printf("random_operations_match_shadow/%s", kinds[i].name),
            .test_func = random_operations_match_shadow,
            .initial_state = (void *)&kinds[i],
        };
    }
    return cmocka_run_group_tests_name("uffd model", tests, huge_pages_raise, huge_pages_restore);
}
