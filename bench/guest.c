/* SPDX-License-Identifier: MIT */
/*
 * The bench's guest: its memory, what it answers to the engine, and its threads. Threads start to
 * touch when the engine resumes the guest, and each writes its own part of the board.
 *
 * Whether a touch waited for its page is asked of the kernel, thread by thread, outside the timed
 * part: the thread slept. Latency alone cannot tell, because the scheduler makes any touch slow now
 * and then, and a count of faults cannot, because the kernel solves some of them alone.
 */
#include "bench/guest.h"
#include "bench/clock.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#define THINK_SLEEP_NS 100000u /* longer pauses sleep, shorter ones spin */

#define BACKING_NAME(name, text) text,
const char *const backing_names[BACKING_COUNT] = {BACKING_LIST(BACKING_NAME)};

typedef struct Toucher {
    BenchGuest *guest;
    GThread *thread;
    unsigned index;
    pid_t id;
    GArray *pages;
} Toucher;

struct BenchGuest {
    /* set before any thread starts */
    FaultlineBlock block;
    uint64_t *dirty; /* words of the answer to every sync; NULL at a destination */
    TouchPlan plan;
    Board *board;
    int finished_fd;
    cpu_set_t cpus;
    unsigned count_touchers;
    Toucher *touchers;

    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned count_ready;       /* under lock: have their id */
    bool is_running, is_ending; /* under lock */
    uint64_t began_ns;          /* under lock: the first thread sets it */
    unsigned count_finished;    /* atomic */
};

/* ---- Memory
 * --------------------------------------------------------------------------------------------------
 */

MachineMemory
bench_memory_kind(Backing backing)
{
    return backing == BACKING_HUGETLB   ? MACHINE_MEMORY_HUGETLB
           : backing == BACKING_PRIVATE ? MACHINE_MEMORY_PRIVATE
                                        : MACHINE_MEMORY_MEMFD;
}

bool
bench_map(Backing backing, uint64_t bytes, FaultlineBlock *ret_block, GError **error)
{
    return ram_map(bench_memory_kind(backing), "ram", 0, bytes, false, ret_block, error);
}

void
bench_warm_host(Backing backing, uint64_t bytes)
{
    FaultlineBlock block;

    if (backing == BACKING_HUGETLB || !bench_map(backing, bytes, &block, NULL))
        return;
    volatile char *memory = block.host_address;
    for (uint64_t at = 0; at < bytes; at += FAULTLINE_PAGE_BYTES)
        memory[at] = 1;
    ram_unmap(&block);
}

void
bench_map_source(const FaultlineBlock *block)
{
    (void)madvise(block->host_address, block->length_bytes, MADV_POPULATE_READ);
}

static uint64_t
word_of_page(uint64_t page)
{
    return (page + 1) * 0x9e3779b97f4a7c15u;
}

void
bench_fill(const FaultlineBlock *block)
{
    uint64_t words_a_page = FAULTLINE_PAGE_BYTES / sizeof(uint64_t);
    uint64_t *words = block->host_address;

    for (uint64_t page = 0; page < block->length_bytes / FAULTLINE_PAGE_BYTES; page++)
        for (uint64_t i = 0; i < words_a_page; i++)
            words[page * words_a_page + i] = word_of_page(page) + i;
}

/* ---- What the engine asks
 * ------------------------------------------------------------------------------------ */

static bool
pause_guest(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return true;
}

static bool
resume_guest(void *opaque, GError **error)
{
    BenchGuest *guest = opaque;
    (void)error;

    pthread_mutex_lock(&guest->lock);
    guest->is_running = true;
    pthread_cond_broadcast(&guest->changed);
    pthread_mutex_unlock(&guest->lock);
    return true;
}

static bool
start_log(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return true;
}

static bool
sync_log(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    const BenchGuest *guest = opaque;
    (void)block;
    (void)error;

    for (uint64_t i = 0; i < (count_pages + 63) / 64; i++)
        words[i] |= guest->dirty[i];
    return true;
}

static void
stop_log(void *opaque)
{
    (void)opaque;
}

static bool
save_state(void *opaque, FaultlineState *state, GError **error)
{
    static const char nothing[64];
    (void)opaque;
    (void)error;
    faultline_state_add(state, "bench/guest", 0, 1, nothing, sizeof nothing);
    return true;
}

static bool
load_state(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
           size_t length_bytes, GError **error)
{
    (void)opaque;
    (void)bytes;
    if (g_str_equal(name, "bench/guest") && instance == 0 && version == 1 && length_bytes == 64)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                "load device section %s/%u: the bench's guest has no such device", name, instance);
    return false;
}

static pid_t
vcpu_thread(void *opaque, unsigned index)
{
    const BenchGuest *guest = opaque;
    return index < guest->count_touchers ? guest->touchers[index].id : 0;
}

const FaultlineGuest *
bench_guest_calls(void)
{
    static const FaultlineGuest calls = {
        .version = FAULTLINE_GUEST_VERSION,
        .machine = "faultline-bench-1.0",
        .pause = pause_guest,
        .resume = resume_guest,
        .dirty_log_start = start_log,
        .dirty_log_sync = sync_log,
        .dirty_log_stop = stop_log,
        .save_state = save_state,
        .load_state = load_state,
        .vcpu_thread = vcpu_thread,
    };
    return &calls;
}

/* ---- Threads that touch
 * -------------------------------------------------------------------------------------- */

/* false: the thread shall end without a touch. */
static bool
wait_for_start(Toucher *toucher)
{
    BenchGuest *guest = toucher->guest;

    pthread_mutex_lock(&guest->lock);
    guest->count_ready++;
    pthread_cond_broadcast(&guest->changed);
    while (!guest->is_running && !guest->is_ending)
        pthread_cond_wait(&guest->changed, &guest->lock);
    bool starts = guest->is_running && !guest->is_ending;
    if (starts && !guest->began_ns) {
        thread_uses_read(&guest->board->destination.first);
        guest->began_ns = bench_now_ns();
    }
    pthread_mutex_unlock(&guest->lock);
    return starts;
}

static TouchKind
kind_of(const struct rusage *before, const struct rusage *after)
{
    if (after->ru_nvcsw != before->ru_nvcsw)
        return TOUCH_WAITED;
    bool has_fault = after->ru_minflt != before->ru_minflt || after->ru_majflt != before->ru_majflt;
    return has_fault ? TOUCH_MAPPED : TOUCH_PRESENT;
}

/* Words: 0 tells the page, 1 is the guest's to write. */
static bool
touch_page(const BenchGuest *guest, uint64_t page, Touch *touch)
{
    uint64_t page_bytes = guest->block.page_size_bytes;
    volatile uint64_t *words =
        (uint64_t *)(void *)((char *)guest->block.host_address + page * page_bytes);
    struct rusage before, after;

    getrusage(RUSAGE_THREAD, &before);
    touch->begin_ns = bench_now_ns();
    touch->begin_ticks = bench_ticks();
    if (guest->plan.writes)
        words[1] = page;
    else
        (void)words[0];
    touch->ticks = bench_ticks() - touch->begin_ticks;
    touch->page = (uint32_t)page;
    getrusage(RUSAGE_THREAD, &after);
    touch->kind = kind_of(&before, &after);
    return words[0] == word_of_page(page * (page_bytes / FAULTLINE_PAGE_BYTES));
}

static void
think(uint64_t ns)
{
    if (ns >= THINK_SLEEP_NS)
        g_usleep(ns / 1000);
    else if (ns)
        bench_spin_ns(ns);
}

static void
finish(BenchGuest *guest)
{
    const uint64_t one = 1;
    unsigned count = __atomic_add_fetch(&guest->count_finished, 1, __ATOMIC_ACQ_REL);

    if (count < guest->count_touchers)
        return;
    guest->board->touch_ns = bench_now_ns() - guest->began_ns;
    ssize_t written = write(guest->finished_fd, &one, sizeof one);
    g_assert(written == sizeof one);
}

/* What a thread used can be read as long as it is there. */
static void
wait_for_end(BenchGuest *guest)
{
    pthread_mutex_lock(&guest->lock);
    while (!guest->is_ending)
        pthread_cond_wait(&guest->changed, &guest->lock);
    pthread_mutex_unlock(&guest->lock);
}

static gpointer
touch_all(gpointer data)
{
    Toucher *toucher = data;
    BenchGuest *guest = toucher->guest;
    Touch *touches = board_touches(guest->board, toucher->index);
    uint64_t count = 0, wrong = 0;

    toucher->id = gettid();
    g_autoptr(GError) failed = NULL;
    if (!placement_pin(&guest->cpus, &failed))
        g_printerr("bench: %s\n", failed->message);
    if (!wait_for_start(toucher))
        return NULL;
    uint64_t end_ns = guest->began_ns + guest->plan.limit_ns;
    while (count < toucher->pages->len && count < guest->board->room && bench_now_ns() < end_ns) {
        wrong +=
            !touch_page(guest, g_array_index(toucher->pages, uint32_t, count), &touches[count]);
        count++;
        think(guest->plan.think_ns);
    }
    guest->board->count_touches[toucher->index] = count;
    __atomic_add_fetch(&guest->board->count_wrong, wrong, __ATOMIC_RELAXED);
    finish(guest);
    wait_for_end(guest);
    return NULL;
}

static bool
start_touchers(BenchGuest *guest, GError **error)
{
    for (unsigned i = 0; i < guest->plan.count_threads; i++) {
        Toucher *toucher = &guest->touchers[i];
        g_autofree char *name = g_strdup_printf("touch-%u", i);
        toucher->guest = guest;
        toucher->index = i;
        toucher->pages = pattern_make(&guest->plan.pattern, i, guest->plan.count_threads,
                                      guest->plan.count_touches, error);
        if (toucher->pages)
            toucher->thread = g_thread_try_new(name, touch_all, toucher, error);
        if (!toucher->thread)
            return false;
        guest->count_touchers++;
    }
    pthread_mutex_lock(&guest->lock);
    while (guest->count_ready < guest->count_touchers)
        pthread_cond_wait(&guest->changed, &guest->lock);
    pthread_mutex_unlock(&guest->lock);
    return true;
}

/* ---- Life
 * ---------------------------------------------------------------------------------------------------
 */

static BenchGuest *
new_guest(const FaultlineBlock *block)
{
    BenchGuest *guest = g_new0(BenchGuest, 1);
    guest->block = *block;
    pthread_mutex_init(&guest->lock, NULL);
    pthread_cond_init(&guest->changed, NULL);
    return guest;
}

BenchGuest *
bench_guest_new_source(const FaultlineBlock *block, const DirtyPlan *dirty)
{
    BenchGuest *guest = new_guest(block);
    uint64_t total = block->length_bytes / FAULTLINE_PAGE_BYTES;
    uint64_t count = MIN(dirty->count_pages, total);

    guest->dirty = g_new0(uint64_t, (total + 63) / 64);
    for (uint64_t i = 0; i < count; i++) {
        uint64_t page = dirty->is_scattered ? i * total / count : i;
        guest->dirty[page / 64] |= 1ull << page % 64;
    }
    return guest;
}

BenchGuest *
bench_guest_new_destination(const FaultlineBlock *block, const TouchPlan *plan,
                            const cpu_set_t *cpus, Board *board, int finished_fd, GError **error)
{
    BenchGuest *guest = new_guest(block);

    guest->plan = *plan;
    guest->board = board;
    guest->finished_fd = finished_fd;
    guest->cpus = *cpus;
    guest->touchers = g_new0(Toucher, MAX(plan->count_threads, 1));
    if (!start_touchers(guest, error)) {
        bench_guest_free(guest);
        return NULL;
    }
    return guest;
}

void
bench_guest_free(BenchGuest *guest)
{
    pthread_mutex_lock(&guest->lock);
    guest->is_ending = true;
    pthread_cond_broadcast(&guest->changed);
    pthread_mutex_unlock(&guest->lock);
    for (unsigned i = 0; i < guest->count_touchers; i++)
        g_thread_join(guest->touchers[i].thread);
    for (unsigned i = 0; i < guest->plan.count_threads; i++)
        g_clear_pointer(&guest->touchers[i].pages, g_array_unref);
    pthread_mutex_destroy(&guest->lock);
    pthread_cond_destroy(&guest->changed);
    g_free(guest->touchers);
    g_free(guest->dirty);
    g_free(guest);
}
