/* SPDX-License-Identifier: MIT */
/*
 * The thread guest: threads of this process that write and check their share of guest memory at
 * native speed, for hosts without KVM, for tests and for benches. The engine tracks their writes by
 * userfaultfd and sees a machine like any other.
 *
 * A thread parks between two pages, so a paused guest has no page half-written. It is made at once,
 * parked, with its memory untouched: at a destination nothing is read before the state came. What
 * is in the pages: thread_share.h.
 *
 * Threads: the callbacks as engine/guest.h says; make, free and verdict on the main thread.
 */
#include "kvm/machine.h"
#include "kvm/thread_share.h"
#include "kvm/throttle_clock.h"

#include <pthread.h>
#include <time.h>
#include <unistd.h>

#define LOW_LIMIT_BYTES   (3ull << 30) /* like a PC: the rest lies above 4 GiB */
#define HIGH_ADDRESS      (4ull << 30)
#define THREADS_MAX       FAULTLINE_VCPUS_MAX
#define STRANDED_LIMIT_US G_USEC_PER_SEC
#define PAUSE_LIMIT_US    (20 * G_USEC_PER_SEC)
#define TICK_US           1000
#define BACKLOG_US        (100 * 1000)
#define SWEEP_PER_SECOND  50000 /* least pages checked a second by a thread with a write rate */

typedef struct Worker {
    Machine *machine;
    GThread *thread;
    pid_t id;
    ThreadShare share;
    int64_t due_us;                  /* since when writes and checks are owed; the thread's own */
    uint64_t due_writes, due_checks; /* done since then */
    bool parked;                     /* under machine->lock */
    bool loaded;                     /* under machine->lock: its state came */
    bool wrong;                      /* set with release by the thread, read with acquire */
} Worker;

struct Machine {
    /* Set before any thread starts. */
    ThreadMemory memory;
    bool incoming;
    unsigned count_workers;
    Worker *workers;
    ThrottleClock *clock;

    pthread_mutex_t lock;   /* innermost: nothing is called under it */
    pthread_cond_t changed; /* by the monotonic clock */
    bool ending;            /* under lock */
    /* Written under lock, read by the threads without, relaxed: seen a page later. */
    bool running;
    bool held;     /* by the throttle clock */
    bool stranded; /* under lock: pause does not wait for a thread that waits for a page */

    /* Main thread. */
    char *verdict;
};

static void
release_lock(pthread_mutex_t **lock)
{
    pthread_mutex_unlock(*lock);
}

static pthread_mutex_t *
take_lock(Machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    return &machine->lock;
}

/* Holds the lock until the end of the scope. Not a GMutex: the thread sanitizer cannot see those.
 */
#define HOLD_LOCK(machine)                                                                         \
    __attribute__((cleanup(release_lock), unused)) pthread_mutex_t *held_lock = take_lock(machine)

static void
init_lock(Machine *machine)
{
    pthread_condattr_t attributes;

    pthread_mutex_init(&machine->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&machine->changed, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* false: it is end_us and nothing changed. */
static bool
wait_until_locked(Machine *machine, int64_t end_us)
{
    const struct timespec end = {.tv_sec = end_us / G_USEC_PER_SEC,
                                 .tv_nsec = end_us % G_USEC_PER_SEC * 1000};
    return pthread_cond_timedwait(&machine->changed, &machine->lock, &end) == 0;
}

static bool
may_run(const Machine *machine)
{
    return __atomic_load_n(&machine->running, __ATOMIC_RELAXED) &&
           !__atomic_load_n(&machine->held, __ATOMIC_RELAXED);
}

/* Waits while the guest is paused or held; false when the thread shall end. What it owed by its
 * rate is forgiven: a held thread that caught up later would not have been slowed down. */
static bool
park(Worker *worker)
{
    Machine *machine = worker->machine;
    HOLD_LOCK(machine);

    worker->parked = true;
    pthread_cond_broadcast(&machine->changed);
    while (!machine->ending && (!may_run(machine) || worker->share.wrong[0]))
        pthread_cond_wait(&machine->changed, &machine->lock);
    worker->parked = false;
    worker->due_us = g_get_monotonic_time();
    worker->due_writes = worker->due_checks = 0;
    return !machine->ending;
}

static void
wait_tick(Worker *worker)
{
    Machine *machine = worker->machine;
    HOLD_LOCK(machine);

    if (may_run(machine) && !machine->ending)
        wait_until_locked(machine, g_get_monotonic_time() + TICK_US);
}

static bool
step_full_speed(ThreadShare *share)
{
    return thread_share_write(share) && thread_share_check(share);
}

/* One page, or a short wait when none is due. */
static bool
step_at_rate(Worker *worker)
{
    ThreadShare *share = &worker->share;
    uint64_t check_rate = MAX(4 * share->write_rate, (uint64_t)SWEEP_PER_SECOND);
    int64_t now_us = g_get_monotonic_time();
    double elapsed_s = (double)(now_us - worker->due_us) / G_USEC_PER_SEC;

    if ((double)worker->due_writes < elapsed_s * (double)share->write_rate) {
        worker->due_writes++;
        return thread_share_write(share);
    }
    if ((double)worker->due_checks < elapsed_s * (double)check_rate) {
        worker->due_checks++;
        return thread_share_check(share);
    }
    if (now_us - worker->due_us > BACKLOG_US) {
        /* A new account now and then: no burst after a long wait for a page. */
        worker->due_us = now_us;
        worker->due_writes = worker->due_checks = 0;
    }
    wait_tick(worker);
    return true;
}

static gpointer
run_worker(gpointer data)
{
    Worker *worker = data;
    ThreadShare *share = &worker->share;

    worker->id = gettid();
    while (park(worker)) {
        bool right = true;
        while (right && may_run(worker->machine)) {
            if (share->write_rate && share->count_full == share->count_working)
                right = step_at_rate(worker);
            else
                right = step_full_speed(share);
        }
        if (!right)
            __atomic_store_n(&worker->wrong, true, __ATOMIC_RELEASE);
    }
    return NULL;
}

static bool
all_parked_locked(const Machine *machine)
{
    for (unsigned i = 0; i < machine->count_workers; i++)
        if (!machine->workers[i].parked)
            return false;
    return true;
}

static bool
pause_guest(void *opaque, GError **error)
{
    Machine *machine = opaque;
    HOLD_LOCK(machine);
    int64_t end_us =
        g_get_monotonic_time() + (machine->stranded ? STRANDED_LIMIT_US : PAUSE_LIMIT_US);
    bool before = machine->running;

    __atomic_store_n(&machine->running, false, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&machine->changed);
    while (!all_parked_locked(machine)) {
        if (!wait_until_locked(machine, end_us)) {
            if (machine->stranded)
                break; /* it stands in its fault, and parks as it comes out */
            __atomic_store_n(&machine->running, before, __ATOMIC_RELAXED);
            pthread_cond_broadcast(&machine->changed);
            g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                                "pausing the guest: a guest thread did not stop within 20 s, it "
                                "waits for a page; the guest runs on, try again when the missing "
                                "pages have come");
            return false;
        }
    }
    return true;
}

static bool
resume_guest(void *opaque, GError **error)
{
    Machine *machine = opaque;
    HOLD_LOCK(machine);

    for (unsigned i = 0; machine->incoming && i < machine->count_workers; i++) {
        if (!machine->workers[i].loaded) {
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                        "starting the guest: the state of guest thread %u never came; start both "
                        "sides with the same --cpus",
                        i);
            return false;
        }
    }
    __atomic_store_n(&machine->running, true, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&machine->changed);
    return true;
}

static void
hold_guest(void *opaque, bool held)
{
    Machine *machine = opaque;
    HOLD_LOCK(machine);

    __atomic_store_n(&machine->held, held, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&machine->changed);
}

static void
throttle_guest(void *opaque, unsigned percent)
{
    throttle_clock_set(((Machine *)opaque)->clock, percent);
}

static bool
save_guest(void *opaque, FaultlineState *state, GError **error)
{
    Machine *machine = opaque;
    (void)error;

    for (unsigned i = 0; i < machine->count_workers; i++) {
        g_autoptr(GByteArray) bytes = thread_share_save(&machine->workers[i].share);
        faultline_state_add(state, THREAD_STATE_NAME, i, THREAD_STATE_VERSION, bytes->data,
                            bytes->len);
    }
    return true;
}

static bool
load_guest(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
           size_t length_bytes, GError **error)
{
    Machine *machine = opaque;

    if (g_strcmp0(name, THREAD_STATE_NAME) != 0 || instance >= machine->count_workers) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "loading device section %s/%u: this guest has %u threads and no such device; "
                    "start both sides with the same --guest and --cpus",
                    name, instance, machine->count_workers);
        return false;
    }

    Worker *worker = &machine->workers[instance];
    HOLD_LOCK(machine);
    if (!thread_share_load(&worker->share, version, bytes, length_bytes, error))
        return false;
    worker->loaded = true;
    __atomic_store_n(&worker->wrong, worker->share.wrong[0] != 0, __ATOMIC_RELEASE);
    return true;
}

static pid_t
worker_id(void *opaque, unsigned index)
{
    const Machine *machine = opaque;
    return index < machine->count_workers ? machine->workers[index].id : 0;
}

static bool
options_fit(const MachineOptions *options, GError **error)
{
    uint64_t pages = options->memory_bytes / FAULTLINE_PAGE_BYTES;

    if (options->cpus < 1 || options->cpus > THREADS_MAX) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "making the thread guest: %u threads; give 1 to %d by --cpus", options->cpus,
                    THREADS_MAX);
        return false;
    }
    if (options->memory_bytes % FAULTLINE_PAGE_BYTES || pages < 2ull * options->cpus) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "making the thread guest: %" G_GUINT64_FORMAT
                    " bytes of memory; give a multiple of 4K, and at least 8K for each of the %u "
                    "threads, by --memory",
                    options->memory_bytes, options->cpus);
        return false;
    }
    return true;
}

static bool
map_memory(Machine *machine, const MachineOptions *options, GError **error)
{
    ThreadMemory *memory = &machine->memory;
    uint64_t low_bytes = MIN(options->memory_bytes, LOW_LIMIT_BYTES);
    uint64_t high_bytes = options->memory_bytes - low_bytes;

    if (!ram_map(options->memory, "ram-low", 0, low_bytes, !options->incoming, &memory->blocks[0],
                 error))
        return false;
    memory->count_blocks = 1;
    if (high_bytes == 0)
        return true;
    if (!ram_map(options->memory, "ram-high", HIGH_ADDRESS, high_bytes, !options->incoming,
                 &memory->blocks[1], error))
        return false;
    memory->count_blocks = 2;
    return true;
}

static void
free_machine(Machine *machine)
{
    throttle_clock_free(machine->clock);
    pthread_mutex_lock(&machine->lock);
    machine->ending = true;
    __atomic_store_n(&machine->running, false, __ATOMIC_RELAXED);
    pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);

    for (unsigned i = 0; i < machine->count_workers; i++) {
        g_thread_join(machine->workers[i].thread);
        thread_share_clear(&machine->workers[i].share);
    }
    for (unsigned i = 0; i < machine->memory.count_blocks; i++)
        ram_unmap(&machine->memory.blocks[i]);
    pthread_mutex_destroy(&machine->lock);
    pthread_cond_destroy(&machine->changed);
    g_free(machine->workers);
    g_free(machine->verdict);
    g_free(machine);
}

static bool
start_workers(Machine *machine, const MachineOptions *options, GError **error)
{
    for (unsigned i = 0; i < options->cpus; i++) {
        Worker *worker = &machine->workers[i];
        g_autofree char *name = g_strdup_printf("guest-%u", i);

        worker->machine = machine;
        thread_share_init(&worker->share, &machine->memory, i, options->cpus, options->write_bytes,
                          options->write_rate);
        worker->thread = g_thread_try_new(name, run_worker, worker, error);
        if (!worker->thread) {
            g_prefix_error(error, "starting guest thread %u: ", i);
            thread_share_clear(&worker->share);
            return false;
        }
        pthread_mutex_lock(&machine->lock);
        machine->count_workers = i + 1;
        while (!worker->parked)
            pthread_cond_wait(&machine->changed, &machine->lock);
        pthread_mutex_unlock(&machine->lock);
    }
    return true;
}

static Machine *
make_machine(const MachineOptions *options, GError **error)
{
    if (!options_fit(options, error))
        return NULL;

    Machine *machine = g_new0(Machine, 1);
    init_lock(machine);
    machine->incoming = options->incoming;
    machine->workers = g_new0(Worker, options->cpus);
    machine->clock = throttle_clock_new(hold_guest, machine, error);
    if (!machine->clock || !map_memory(machine, options, error) ||
        !start_workers(machine, options, error))
        g_clear_pointer(&machine, free_machine);
    return machine;
}

static const FaultlineBlock *
machine_blocks(Machine *machine, unsigned *ret_count)
{
    *ret_count = machine->memory.count_blocks;
    return machine->memory.blocks;
}

static const char *
machine_verdict(Machine *machine)
{
    uint64_t checks = 0, writes = 0, passes = UINT64_MAX;

    HOLD_LOCK(machine);
    g_clear_pointer(&machine->verdict, g_free);
    for (unsigned i = 0; i < machine->count_workers; i++) {
        const ThreadShare *share = &machine->workers[i].share;

        if (__atomic_load_n(&machine->workers[i].wrong, __ATOMIC_ACQUIRE))
            return machine->verdict = g_strdup_printf("bad: %s", share->wrong);
        checks += __atomic_load_n(&share->count_checks, __ATOMIC_RELAXED);
        writes += __atomic_load_n(&share->count_writes, __ATOMIC_RELAXED);
        uint64_t swept = __atomic_load_n(&share->swept_pages, __ATOMIC_RELAXED);
        passes = MIN(passes, swept / share->count_pages);
    }
    machine->verdict = g_strdup_printf("ok, %" G_GUINT64_FORMAT " checks, %" G_GUINT64_FORMAT
                                       " writes, %" G_GUINT64_FORMAT " passes here",
                                       checks, writes, passes);
    return machine->verdict;
}

static const FaultlineGuest guest = {
    .version = FAULTLINE_GUEST_VERSION,
    .machine = "faultline-threads-1.0",
    .pause = pause_guest,
    .resume = resume_guest,
    .save_state = save_guest,
    .load_state = load_guest,
    .throttle = throttle_guest,
    .vcpu_thread = worker_id,
};

static void
strand(Machine *machine, bool is_stranded)
{
    HOLD_LOCK(machine);
    machine->stranded = is_stranded;
}

const MachineKind machine_threads = {
    .name = "threads",
    .make = make_machine,
    .free = free_machine,
    .guest = &guest,
    .blocks = machine_blocks,
    .verdict = machine_verdict,
    .strand = strand,
};
