/* SPDX-License-Identifier: MIT */
/*
 * The bench measures what it says: ranks, patterns, and small migrations whose faults are counted
 * by the touching threads, by the kernel and by the engine alike. No case looks at a time.
 */
#include "bench/bulk_cases.h"
#include "bench/cell.h"
#include "bench/clock.h"
#include "bench/latency_options.h"
#include "bench/report.h"
#include "tests/bench/recovery.h"
#include "tests/bench/system_calls.h"
#include "uffd/uffd.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEMORY_BYTES (16u << 20)
#define PAGES        (MEMORY_BYTES / FAULTLINE_PAGE_BYTES)
#define TOUCHES      2000u

/* ---- Ranks
 * ---------------------------------------------------------------------------------------------------
 */

static void
percentile_of_known_values_is_nearest_rank(void **state)
{
    double values[1000];
    (void)state;

    for (unsigned i = 0; i < 1000; i++)
        values[i] = (double)((i * 7919 + 13) % 1000 + 1);
    sort_values(values, 1000);
    assert_true(sorted_percentile(values, 1000, 50) == 500);
    assert_true(sorted_percentile(values, 1000, 99) == 990);
    assert_true(sorted_percentile(values, 1000, 99.9) == 999);
    assert_true(sorted_percentile(values, 1000, 100) == 1000);
    assert_true(sorted_percentile(values, 1, 99.9) == 1);
    assert_true(sorted_percentile(values, 0, 50) == 0);
}

static void
samples_of_two_repeats_pool_and_range(void **state)
{
    double first[] = {3, 1, 2}, second[] = {30, 10, 20};
    Quantiles least, greatest;
    Samples samples;
    (void)state;

    samples_init(&samples);
    samples_add_repeat(&samples, first, 3);
    samples_add_repeat(&samples, second, 3);
    samples_add_repeat(&samples, NULL, 0);
    samples_range(&samples, &least, &greatest);
    assert_int_equal(samples_count(&samples), 6);
    assert_true(samples_percentile(&samples, 50) == 3);
    assert_true(least.value[0] == 2 && greatest.value[0] == 20);
    samples_clear(&samples);
}

/* ---- Patterns
 * ------------------------------------------------------------------------------------------------
 */

/* How often each page is touched by all threads together. */
static unsigned *
count_touches(const Pattern *pattern, unsigned threads, uint64_t touches)
{
    unsigned *counts = g_new0(unsigned, pattern->count_pages);

    for (unsigned thread = 0; thread < threads; thread++) {
        g_autoptr(GError) error = NULL;
        g_autoptr(GArray) pages = pattern_make(pattern, thread, threads, touches, &error);
        assert_null(error);
        for (guint i = 0; i < pages->len; i++) {
            uint32_t page = g_array_index(pages, uint32_t, i);
            assert_true(page < pattern->count_pages);
            counts[page]++;
        }
    }
    return counts;
}

static void
pattern_over_all_pages_touches_each_once(void **state)
{
    const PatternKind kinds[] = {PATTERN_RANDOM, PATTERN_SEQUENTIAL, PATTERN_REVERSE,
                                 PATTERN_STRIDE};
    (void)state;

    for (unsigned k = 0; k < G_N_ELEMENTS(kinds); k++) {
        for (unsigned threads = 1; threads <= 4; threads *= 2) {
            const Pattern pattern = {.kind = kinds[k], .count_pages = 1024, .stride = 7, .seed = 5};
            g_autofree unsigned *counts = count_touches(&pattern, threads, 1024);
            for (unsigned i = 0; i < 1024; i++)
                assert_int_equal(counts[i], 1);
        }
    }
}

static void
pattern_with_a_hot_set_comes_back_to_few_pages(void **state)
{
    const Pattern pattern = {.kind = PATTERN_ZIPF, .count_pages = 4096, .seed = 3};
    g_autofree unsigned *counts = count_touches(&pattern, 2, 20000);
    unsigned hottest = 0, untouched = 0;
    (void)state;

    for (unsigned i = 0; i < 4096; i++) {
        hottest = MAX(hottest, counts[i]);
        untouched += counts[i] == 0;
    }
    /* Of 20,000 uniform draws the hottest page would have about 15 and 31 would have none. */
    assert_true(hottest > 500);
    assert_true(untouched > 500);
}

static void
pattern_of_a_trace_follows_the_file(void **state)
{
    g_autofree char *path = g_strdup_printf("%s/bench-trace-%d", g_get_tmp_dir(), (int)getpid());
    const Pattern pattern = {.kind = PATTERN_TRACE, .count_pages = 16, .trace = path};
    g_autoptr(GError) error = NULL;
    (void)state;

    assert_true(g_file_set_contents(path, "# pages\n3\n0x11\n\n5\n", -1, NULL));
    g_autoptr(GArray) pages = pattern_make(&pattern, 0, 1, 100, &error);
    assert_int_equal(pages->len, 3);
    assert_int_equal(g_array_index(pages, uint32_t, 1), 1);

    assert_true(g_file_set_contents(path, "3\nhello\n", -1, NULL));
    assert_null(pattern_make(&pattern, 0, 1, 100, &error));
    assert_non_null(strstr(error->message, "line 2"));
    unlink(path);
}

/* ---- The command line
 * ---------------------------------------------------------------------------------------- */

static void
options_that_are_wrong_are_refused_by_name(void **state)
{
    static const char *const wrong[][3] = {
        {"--push", "fast", "--push fast"},
        {"--threads", "0", "--threads 0"},
        {"--pattern", "chaos", "--pattern chaos"},
        {"--memory", "1000", "--memory 1000"},
        {"--guest", "toaster", "--guest toaster"},
        {"--pattern", "trace", "--trace FILE"},
        {"--source-cpus", "x", "'x'"},
        {"--spin", "maybe", "--spin maybe"},
        {"--repeats", "0", "--repeats"},
        {"--backing", "paper", "--backing paper"},
    };
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        char *words[] = {(char *)"fault-latency", (char *)wrong[i][0], (char *)wrong[i][1], NULL};
        char **argv = words;
        int argc = 3;
        LatencyOptions options;
        g_autoptr(GError) error = NULL;

        assert_false(latency_options_parse(&options, &argc, &argv, &error));
        if (!strstr(error->message, wrong[i][2]))
            fail_msg("'%s' does not name %s", error->message, wrong[i][2]);
        latency_options_clear(&options);
    }
}

/* ---- Migrations
 * -----------------------------------------------------------------------------------------------
 */

static bool
can_watch_memory(void)
{
    g_autoptr(GError) error = NULL;
    Uffd *uffd = uffd_open(&error);

    if (uffd)
        uffd_free(uffd);
    else
        print_message("skipped: %s\n", error->message);
    return uffd != NULL;
}

typedef struct Scene {
    FaultlineBlock block;
    Placement placement;
    Board *board;
    MovePlan plan;
} Scene;

static void
scene_init(Scene *scene, Backing backing, uint64_t push, unsigned threads)
{
    g_autoptr(GError) error = NULL;

    assert_true(bench_map(backing, MEMORY_BYTES, &scene->block, &error));
    bench_fill(&scene->block);
    assert_true(placement_parse(&scene->placement, NULL, NULL, NULL, &error));
    scene->board = board_new(threads, TOUCHES, &error);
    assert_non_null(scene->board);
    assert_true(board_trace(scene->board, 6 * TOUCHES, &error));
    scene->plan = (MovePlan){
        .source_block = &scene->block,
        .backing = backing,
        .is_postcopy = true,
        .is_warm = true,
        .preempt = true,
        .accounts = true,
        .placement = &scene->placement,
        .push_bytes_per_s = push,
        .dirty = {.count_pages = UINT64_MAX},
        .touch = {.count_threads = threads,
                  .count_touches = TOUCHES,
                  .pattern = {.kind = PATTERN_RANDOM, .count_pages = PAGES, .seed = 7},
                  .limit_ns = 60000000000ull},
        .limit_s = 120,
    };
}

static void
scene_clear(Scene *scene, unsigned threads)
{
    board_free(scene->board, threads);
    ram_unmap(&scene->block);
}

typedef struct MoveCase {
    const char *name;
    Backing backing;
    uint64_t push;
    unsigned threads;
    bool is_unix, writes, is_fresh, no_preempt;
} MoveCase;

/* Every fault whose page was asked for is told from touch to resume, if there is a channel on which
 * the answer can be seen. */
static void
check_stages(const Cell *cell, const MoveCase *one)
{
    const Stages *stages = &cell->stages;

    assert_int_equal(stages->count_lost, 0);
    assert_true(stages->count_whole + stages->count_other <= cell->count_faults);
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        if (!one->no_preempt)
            assert_int_equal(samples_count(&stages->us[i]), stages->count_whole);
    if (one->push == PUSH_OFF && !one->is_fresh)
        assert_true(stages->count_whole >= TOUCHES / 2);
    if (one->no_preempt)
        assert_int_equal(stages->count_whole, 0);
}

static void
run_case(const MoveCase *one)
{
    g_autoptr(GError) error = NULL;
    Scene scene;
    Cell cell = {.count_threads = one->threads, .host_pages = 1, .has_urgent = !one->no_preempt};

    scene_init(&scene, one->backing, one->push, one->threads);
    scene.plan.is_unix = one->is_unix;
    scene.plan.is_warm = !one->is_fresh;
    scene.plan.preempt = !one->no_preempt;
    scene.plan.touch.writes = one->writes;
    scene.plan.count_loads = 1000;
    if (!move_run(&scene.plan, scene.board, &error))
        fail_msg("%s: %s", one->name, error->message);
    cell_init(&cell);
    cell_add_repeat(&cell, scene.board);

    const FaultlineInfo *end = &scene.board->destination.at_end;
    assert_int_equal(cell.count_wrong, 0);
    assert_int_equal(cell.count_touches, TOUCHES);
    assert_int_equal(end->missing_pages, 0);
    assert_int_equal(end->requested_pages + end->neighbour_pages + end->pushed_pages, PAGES);
    assert_int_equal(samples_count(&cell.latency_us), cell.count_faults);
    assert_true(cell.count_faults <= TOUCHES);
    assert_int_equal(cell.count_pages, TOUCHES);
    check_stages(&cell, one);
    assert_true(scene.board->load_ns > 0);
    /* Who asks for a page faults on it, and waits for it unless it came in that very moment. */
    assert_true(cell.count_requests <= cell.count_faults + cell.count_mapped);
    if (one->push == PUSH_OFF && !one->is_fresh && !one->no_preempt) {
        /* All but what the first frames brought. */
        assert_true(cell.count_faults >= TOUCHES / 2);
        assert_true(cell.requested_pages >= TOUCHES / 2);
    }
    assert_true(scene.board->source.stop_us > 0);
    assert_true(scene.board->destination.resume_us >= scene.board->source.stop_us);
    cell_clear(&cell);
    scene_clear(&scene, one->threads);
}

static void
move_of_each_kind_accounts_for_every_touch(void **state)
{
    static const MoveCase cases[] = {
        {"push off", BACKING_SMALL, PUSH_OFF, 1, false, false, false, false},
        {"push full", BACKING_SMALL, PUSH_FULL, 1, false, false, false, false},
        {"limited, four threads, writes", BACKING_SMALL, 20u << 20, 4, false, true, false, false},
        {"private, unix", BACKING_PRIVATE, PUSH_OFF, 1, true, false, false, false},
        {"fresh memory", BACKING_SMALL, PUSH_FULL, 1, false, false, true, false},
        {"one channel", BACKING_SMALL, PUSH_FULL, 1, false, false, false, true},
    };
    (void)state;

    if (!can_watch_memory())
        skip();
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        run_case(&cases[i]);
}

static void
move_of_a_kvm_guest_tells_the_touches_that_waited(void **state)
{
    g_autoptr(GError) error = NULL;
    KvmPlan kvm;
    Scene scene;
    Cell cell = {.count_threads = 1, .host_pages = 1, .has_urgent = true};
    (void)state;

    if (access("/dev/kvm", R_OK | W_OK) != 0 || g_getenv("FAULTLINE_TEST_NO_KVM"))
        print_message("skipped: no /dev/kvm here\n");
    if (access("/dev/kvm", R_OK | W_OK) != 0 || g_getenv("FAULTLINE_TEST_NO_KVM") ||
        !can_watch_memory())
        skip();
    scene_init(&scene, BACKING_SMALL, PUSH_OFF, 1);
    if (!kvm_plan_init(&kvm, MEMORY_BYTES, &error))
        fail_msg("%s", error->message);
    scene.plan.kvm = &kvm;
    scene.plan.touch.count_touches = TOUCHES / 4;
    if (!move_run(&scene.plan, scene.board, &error))
        fail_msg("%s", error->message);
    cell_init(&cell);
    cell_add_repeat(&cell, scene.board);
    assert_int_equal(cell.count_wrong, 0);
    assert_true(cell.count_requests >= TOUCHES / 4);
    /* It stops between a fault and its log, and other pages of its are missing, too. */
    assert_true(cell.count_faults >= TOUCHES / 8);
    assert_true(cell.count_faults <= cell.count_requests + 1);
    assert_true(cell.stages.count_whole >= TOUCHES / 8);
    assert_true(cell.local_ticks > 0);
    kvm_plan_clear(&kvm);
    cell_clear(&cell);
    scene_clear(&scene, 1);
}

static void
options_of_a_kvm_guest_are_refused_where_it_has_none(void **state)
{
    const char *wrong[][2] = {
        {"--threads", "4"}, {"--pattern", "zipf"}, {"--think", "5"}, {"--stages", "off"}};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        char *words[] = {(char *)"fault-latency", (char *)"--guest",   (char *)"kvm",
                         (char *)wrong[i][0],     (char *)wrong[i][1], NULL};
        char **argv = words;
        int argc = 5;
        LatencyOptions options;
        g_autoptr(GError) error = NULL;

        assert_false(latency_options_parse(&options, &argc, &argv, &error));
        assert_non_null(strstr(error->message, wrong[i][0]));
        latency_options_clear(&options);
    }
}

static void
move_whose_side_dies_reports_it(void **state)
{
    g_autoptr(GError) error = NULL;
    Scene scene;
    (void)state;

    if (!can_watch_memory())
        skip();
    scene_init(&scene, BACKING_SMALL, PUSH_OFF, 1);
    CPU_ZERO(&scene.placement.source); /* cannot be pinned to */
    assert_false(move_run(&scene.plan, scene.board, &error));
    assert_non_null(strstr(error->message, "source"));
    scene_clear(&scene, 1);
}

/* ---- The floor
 * ------------------------------------------------------------------------------------------------
 */

static void
floor_of_each_kind_has_all_samples(void **state)
{
    g_autoptr(GError) error = NULL;
    Placement placement;
    (void)state;

    if (!can_watch_memory())
        skip();
    assert_true(bench_clock_calibrate(&error));
    assert_true(placement_parse(&placement, NULL, NULL, NULL, &error));
    for (unsigned i = 0; i < 4; i++) {
        const FloorPlan plan = {.is_unix = i & 1,
                                .spin_ns = i & 2 ? 50000 : 0,
                                .placement = &placement,
                                .backing = i & 1 ? BACKING_PRIVATE : BACKING_SMALL,
                                .count = 500,
                                .limit_s = 60};
        g_autoptr(GArray) trips = floor_round_trips(&plan, &error);
        g_autoptr(GArray) faults = floor_local_faults(&plan, &error);
        g_autoptr(GArray) by_ring = floor_ring_trips(&plan, &error);
        assert_null(error);
        assert_int_equal(trips->len, 500);
        assert_int_equal(by_ring->len, 500);
        assert_int_equal(faults->len, 500);
        for (guint j = 0; j < 500; j++)
            assert_true(g_array_index(faults, double, j) > 0);
    }
}

static void
plain_transfer_takes_all_bytes(void **state)
{
    g_autoptr(GError) error = NULL;
    FaultlineBlock block;
    Placement placement;
    PlainFigures figures;
    (void)state;

    assert_true(placement_parse(&placement, NULL, NULL, NULL, &error));
    assert_true(bench_map(BACKING_SMALL, MEMORY_BYTES, &block, &error));
    bench_fill(&block);
    for (unsigned i = 0; i < 4; i++) {
        const PlainPlan plan = {.source_block = &block,
                                .backing = BACKING_SMALL,
                                .is_allocated = i & 1,
                                .is_unix = i & 2,
                                .placement = &placement,
                                .limit_s = 60};
        assert_true(plain_run(&plan, &figures, &error));
        assert_true(figures.seconds > 0);
    }
    ram_unmap(&block);
}

int
main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "--move") == 0)
        return system_calls_move(argv[2]);

    const struct CMUnitTest tests[] = {
        cmocka_unit_test(percentile_of_known_values_is_nearest_rank),
        cmocka_unit_test(samples_of_two_repeats_pool_and_range),
        cmocka_unit_test(pattern_over_all_pages_touches_each_once),
        cmocka_unit_test(pattern_with_a_hot_set_comes_back_to_few_pages),
        cmocka_unit_test(pattern_of_a_trace_follows_the_file),
        cmocka_unit_test(options_that_are_wrong_are_refused_by_name),
        cmocka_unit_test(move_of_each_kind_accounts_for_every_touch),
        cmocka_unit_test(move_of_a_kvm_guest_tells_the_touches_that_waited),
        cmocka_unit_test(options_of_a_kvm_guest_are_refused_where_it_has_none),
        cmocka_unit_test(move_whose_side_dies_reports_it),
        cmocka_unit_test(floor_of_each_kind_has_all_samples),
        cmocka_unit_test(lone_faults_take_few_system_calls),
        cmocka_unit_test(batches_of_faults_take_few_system_calls),
        cmocka_unit_test(plain_transfer_takes_all_bytes),
        cmocka_unit_test(recovery_by_itself_and_by_command_times_every_break),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
