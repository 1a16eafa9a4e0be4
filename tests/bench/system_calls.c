/* SPDX-License-Identifier: MIT */
/*
 * The walk of a page, counted in system calls: this program runs itself under strace, which writes
 * a file a thread, and the calls of the two threads that a page walks through are counted there.
 *
 * strace makes each call some hundred us slow, so spins miss, and what came apart comes together.
 * A spin itself makes no call, and ends in one call whether it hit or missed, so the bounds hold
 * whatever the timing; what they hold for is all calls of a thread, with some room for those
 * before the first fault and after the last. Only a thread that had to wait for a processor makes
 * more of them, so a move that is out of bounds is made again: a walk that costs more does so each
 * time.
 */
#include "tests/bench/system_calls.h"
#include "bench/clock.h"
#include "bench/move.h"
#include "uffd/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MEMORY_BYTES (16u << 20)
#define FAULTS       2000u
#define THREADS      16u
#define ROOM         150u /* calls of a thread that no fault causes */
#define ATTEMPTS     3u

/* At most so many a remote fault. */
typedef struct Bounds {
    const char *thread;
    double reads, ioctls, enters, receives;
} Bounds;

/* The fault thread looks for the next fault once it has placed a page, and again when the ring
 * tells of that fault, which is while the answer is on its way: one of these reads finds nothing.
 * Likewise one look for an answer, or for a request, may find nothing. */
static const Bounds bounds[] = {
    {.thread = "fault", .reads = 2, .ioctls = 1, .enters = 2, .receives = 3},
    {.thread = "request", .reads = 0, .ioctls = 0, .enters = 2, .receives = 4},
};

/* ---- Under strace -----------------------------------------------------------------------------
 */

int
system_calls_move(const char *count_threads)
{
    unsigned threads = (unsigned)strtoul(count_threads, NULL, 10);
    g_autoptr(GError) error = NULL;
    FaultlineBlock block;
    Placement placement;
    Board *board = board_new(threads, FAULTS, &error);

    if (!board || !bench_clock_calibrate(&error) ||
        !placement_parse(&placement, NULL, NULL, NULL, &error) ||
        !bench_map(BACKING_SMALL, MEMORY_BYTES, &block, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    bench_fill(&block);
    const MovePlan plan = {
        .source_block = &block,
        .backing = BACKING_SMALL,
        .is_postcopy = true,
        .is_warm = true,
        .preempt = true,
        .placement = &placement,
        .push_bytes_per_s = PUSH_OFF,
        .dirty = {.count_pages = UINT64_MAX},
        .touch = {.count_threads = threads,
                  .count_touches = FAULTS,
                  .pattern = {.kind = PATTERN_RANDOM,
                              .count_pages = MEMORY_BYTES / FAULTLINE_PAGE_BYTES,
                              .seed = 7},
                  .limit_ns = 300000000000ull},
        .limit_s = 400,
        /* In so little memory random touches happen to make streams. */
        .settings = {{.name = "neighbour-pages", .value = 0}},
        .count_settings = 1,
    };
    bool done = move_run(&plan, board, &error);
    if (done)
        printf("%" G_GUINT64_FORMAT "\n", board->destination.at_last.postcopy_requests);
    else
        fprintf(stderr, "%s\n", error->message);
    board_free(board, threads);
    ram_unmap(&block);
    return done ? 0 : 1;
}

/* ---- Counting ---------------------------------------------------------------------------------
 */

typedef struct Calls {
    unsigned count_threads; /* of that name */
    uint64_t reads, ioctls, enters, receives;
} Calls;

static uint64_t
count_text(const char *text, const char *what)
{
    uint64_t count = 0;
    while ((text = strstr(text, what))) {
        count++;
        text += strlen(what);
    }
    return count;
}

static Calls
count_calls(const char *folder, const char *thread)
{
    g_autofree char *named = g_strdup_printf("PR_SET_NAME, \"%s\"", thread);
    g_autoptr(GDir) files = g_dir_open(folder, 0, NULL);
    Calls calls = {0};
    const char *name;

    assert_non_null(files);
    while ((name = g_dir_read_name(files))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_autofree char *text = NULL;
        assert_true(g_file_get_contents(path, &text, NULL, NULL));
        if (!strstr(text, named))
            continue;
        calls.count_threads++;
        calls.reads += count_text(text, "read(");
        calls.ioctls += count_text(text, "ioctl(");
        calls.enters += count_text(text, "io_uring_enter(");
        calls.receives += count_text(text, "recvfrom(");
    }
    return calls;
}

static void
remove_folder(const char *folder)
{
    g_autoptr(GDir) files = g_dir_open(folder, 0, NULL);
    const char *name;

    while (files && (name = g_dir_read_name(files))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        remove(path);
    }
    remove(folder);
}

static char *
strace(const char *options, const char *program, const char *arguments)
{
    char *out = NULL;
    g_autofree char *line = g_strdup_printf("strace -qq %s -E ASAN_OPTIONS=detect_leaks=0 %s %s",
                                            options, program, arguments);
    int status = 0;
    g_autoptr(GError) error = NULL;

    if (g_spawn_command_line_sync(line, &out, NULL, &status, &error) && status == 0)
        return out;
    g_free(out);
    return NULL;
}

static void
need_strace(void)
{
    g_autofree char *answer = strace("-o /dev/null", "echo", "here");
    g_autoptr(GError) error = NULL;
    Uffd *uffd = uffd_open(&error);

    if (uffd)
        uffd_free(uffd);
    else
        print_message("skipped: %s\n", error->message);
    if (!answer)
        print_message("skipped: strace is not installed, or may not trace here\n");
    if (!answer || !uffd)
        skip();
}

static bool
is_within(const Calls *calls, const Bounds *most, uint64_t count_faults)
{
    double faults = (double)count_faults;

    return calls->count_threads == 1 && (double)calls->reads <= most->reads * faults + ROOM &&
           (double)calls->ioctls <= most->ioctls * faults + ROOM &&
           (double)calls->enters <= most->enters * faults + ROOM &&
           (double)calls->receives <= most->receives * faults + ROOM;
}

static bool
takes_few_calls(unsigned threads)
{
    bool is_few = true;
    g_autofree char *folder = g_dir_make_tmp("faultline-calls-XXXXXX", NULL);
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *options = g_strdup_printf(
        "-ff -e trace=read,ioctl,io_uring_enter,recvfrom,prctl --seccomp-bpf -o %s/t", folder);
    g_autofree char *arguments = g_strdup_printf("--move %u", threads);
    g_autofree char *out = strace(options, program, arguments);

    assert_non_null(out);
    uint64_t faults = g_ascii_strtoull(out, NULL, 10);
    assert_true(faults >= FAULTS / 2);
    for (unsigned i = 0; i < G_N_ELEMENTS(bounds); i++) {
        const Bounds *most = &bounds[i];
        Calls calls = count_calls(folder, most->thread);
        print_message(
            "%s, %u touching: %.2f read, %.2f ioctl, %.2f io_uring_enter, %.2f recv a fault\n",
            most->thread, threads, (double)calls.reads / (double)faults,
            (double)calls.ioctls / (double)faults, (double)calls.enters / (double)faults,
            (double)calls.receives / (double)faults);
        is_few = is_few && is_within(&calls, most, faults);
    }
    remove_folder(folder);
    return is_few;
}

static void
expect_few_calls(unsigned threads)
{
    bool is_few = false;

    need_strace();
    for (unsigned i = 0; i < ATTEMPTS && !is_few; i++)
        is_few = takes_few_calls(threads);
    assert_true(is_few);
}

void
lone_faults_take_few_system_calls(void **state)
{
    (void)state;
    expect_few_calls(1);
}

void
batches_of_faults_take_few_system_calls(void **state)
{
    (void)state;
    expect_few_calls(THREADS);
}
