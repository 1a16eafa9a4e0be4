/* SPDX-License-Identifier: MIT */
/*
 * Threads, clocks and event descriptors: the engine's only system calls.
 *
 * role_threads_start() is called by the control thread; each role's loop runs on the thread made
 * for it. A role's ring is made by its own thread, because only that thread may submit to it, and
 * freed by the joining one after all threads are gone, because roles notify each other's rings.
 */
#include "engine/role.h"
#include "engine/faultline.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <time.h>
#include <unistd.h>

typedef struct RoleThread {
    Role *role;
    RoleThreads *all;
    GThread *thread;
    GError *error;
} RoleThread;

struct RoleThreads {
    pthread_mutex_t lock; /* guards the next four */
    pthread_cond_t changed;
    unsigned count_ready; /* threads that have tried to make their ring */
    bool go, give_up;

    /* set before any thread starts */
    unsigned count;
    bool can_spin; /* on one processor nobody could bring the news meanwhile */

    unsigned count_done; /* atomic */
    RoleThread threads[];
};

/* Looks for news for as long as the role wants and experience allows; false: none came, sleep. News
 * that others brought while they had our CPU would have come as soon to a sleeper: a miss too. */
static bool
has_spun(Role *role, bool *ret_was_worth_it)
{
    uint64_t spin_ns = role->spin_ns ? spin_allow(&role->spin, role->spin_ns) : 0;
    bool was_interrupted;

    *ret_was_worth_it = false;
    if (!spin_ns)
        return false;
    bool is_hit = transport_ring_spin(role->ring, spin_ns, &was_interrupted);
    if (!is_hit || was_interrupted)
        spin_learn(&role->spin, false);
    *ret_was_worth_it = is_hit && !was_interrupted;
    return is_hit;
}

static void
run_role(Role *role, bool can_spin)
{
    bool was_worth_it = false;
    for (;;) {
        role->wake_ns = role->spin_ns = 0;
        StepResult result = role->step(role->self);
        if (result == STEP_DONE)
            break;
        if (result == STEP_AGAIN) {
            /* News that is of no use, for instance that a frame has left, is no hit. */
            if (was_worth_it)
                spin_learn(&role->spin, true);
            was_worth_it = false;
            continue;
        }
        if (!can_spin || !has_spun(role, &was_worth_it))
            transport_ring_wait(role->ring, role->wake_ns);
    }
    if (role->close)
        role->close(role->self);
}

static gpointer
thread_main(gpointer data)
{
    RoleThread *self = data;
    RoleThreads *all = self->all;

    TransportRing *ring = transport_ring_new(&self->error);
    pthread_mutex_lock(&all->lock);
    self->role->ring = ring;
    all->count_ready++;
    pthread_cond_broadcast(&all->changed);
    while (!all->go && !all->give_up)
        pthread_cond_wait(&all->changed, &all->lock);
    bool go = all->go;
    pthread_mutex_unlock(&all->lock);

    if (go)
        run_role(self->role, all->can_spin);
    __atomic_add_fetch(&all->count_done, 1, __ATOMIC_RELEASE);
    return NULL;
}

/* Waits for `count` threads to have a ring, and lets them go only if all of them have. */
static bool
release_threads(RoleThreads *all, unsigned count, GError **error)
{
    const GError *failed = NULL;

    pthread_mutex_lock(&all->lock);
    while (all->count_ready < count)
        pthread_cond_wait(&all->changed, &all->lock);
    for (unsigned i = 0; i < count && !failed; i++)
        failed = all->threads[i].error;
    bool go = !failed && count == all->count;
    all->go = go;
    all->give_up = !go;
    pthread_cond_broadcast(&all->changed);
    pthread_mutex_unlock(&all->lock);
    if (failed)
        g_propagate_error(error, g_error_copy(failed));
    return go;
}

RoleThreads *
role_threads_start(Role *const *roles, unsigned count, GError **error)
{
    RoleThreads *all = g_malloc0(sizeof *all + count * sizeof all->threads[0]);
    pthread_mutex_init(&all->lock, NULL);
    pthread_cond_init(&all->changed, NULL);
    all->count = count;
    all->can_spin = g_get_num_processors() > 1;

    unsigned started = 0;
    for (; started < count; started++) {
        RoleThread *thread = &all->threads[started];
        *thread = (RoleThread){.role = roles[started], .all = all};
        g_autoptr(GError) failed = NULL;
        thread->thread = g_thread_try_new(roles[started]->name, thread_main, thread, &failed);
        if (!thread->thread) {
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                        "start migration: cannot make thread '%s': %s; raise the limit of threads. "
                        "The guest is untouched",
                        roles[started]->name, failed->message);
            break;
        }
    }
    if (!release_threads(all, started, started == count ? error : NULL)) {
        all->count = started;
        role_threads_join(all);
        return NULL;
    }
    return all;
}

bool
role_threads_are_done(const RoleThreads *threads)
{
    return __atomic_load_n(&threads->count_done, __ATOMIC_ACQUIRE) == threads->count;
}

void
role_threads_join(RoleThreads *threads)
{
    for (unsigned i = 0; i < threads->count; i++)
        g_thread_join(threads->threads[i].thread);
    for (unsigned i = 0; i < threads->count; i++) {
        RoleThread *thread = &threads->threads[i];
        g_clear_pointer(&thread->role->ring, transport_ring_free);
        g_clear_error(&thread->error);
    }
    pthread_mutex_destroy(&threads->lock);
    pthread_cond_destroy(&threads->changed);
    g_free(threads);
}

/* ---- Among others on the same CPUs ----------------------------------------------------------- */

/* struct sched_attr of <linux/sched/types.h>, which C libraries define too, but not all. */
typedef struct SchedulingAttributes {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime_ns, deadline_ns, period_ns;
} SchedulingAttributes;
G_STATIC_ASSERT(sizeof(SchedulingAttributes) == 48);

#define SLICE_NS        100000u /* the least that the kernel takes */
#define NICE_ON_ONE_CPU 10
#define NICE_ON_SEVERAL 5

static int
choose_nice(uint64_t bulk_nice)
{
    cpu_set_t cpus;

    if (bulk_nice != THREAD_NICE_AUTO)
        return (int)bulk_nice;
    /* It fails where there are more CPUs than the set has room for. */
    bool is_alone = sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) == 1;
    return is_alone ? NICE_ON_ONE_CPU : NICE_ON_SEVERAL;
}

void
thread_set_urgency(ThreadUrgency urgency, uint64_t bulk_nice)
{
    SchedulingAttributes attributes = {.size = sizeof attributes};

    if (syscall(SYS_sched_getattr, 0, &attributes, sizeof attributes, 0) != 0 ||
        (attributes.policy != SCHED_OTHER && attributes.policy != SCHED_BATCH))
        return;
    if (urgency == URGENCY_BULK)
        attributes.nice = MAX(attributes.nice, choose_nice(bulk_nice));
    attributes.runtime_ns = SLICE_NS;
    syscall(SYS_sched_setattr, 0, &attributes, 0);
}

int
cpu_latency_hold(void)
{
    int32_t longest_us = 0;
    int fd = open("/dev/cpu_dma_latency", O_WRONLY | O_CLOEXEC);
    if (fd >= 0 && write(fd, &longest_us, sizeof longest_us) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

void
cpu_latency_release(int hold)
{
    if (hold >= 0)
        close(hold);
}

uint64_t
host_spare_bytes(void)
{
    struct sysinfo host;

    if (sysinfo(&host) != 0)
        return 0;
    unsigned long reserve = host.totalram / 8;
    return host.freeram > reserve ? (uint64_t)(host.freeram - reserve) * host.mem_unit : 0;
}

bool
random_fill(void *bytes, size_t length, GError **error)
{
    ssize_t got;
    do
        got = getrandom(bytes, length, 0);
    while (got < 0 && errno == EINTR);
    if (got == (ssize_t)length)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "make a token: getrandom: %s; permit the system call, or switch recovery-token off",
                got < 0 ? strerror(errno) : "too few bytes");
    return false;
}

/* ---- Clocks and wake-ups --------------------------------------------------------------------- */

uint64_t
clock_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

int64_t
clock_wall_us(void)
{
    return g_get_real_time();
}

int
wakeup_open(GError **error)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (fd < 0)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "make event descriptor: eventfd: %s; raise the limit of open files",
                    strerror(errno));
    return fd;
}

void
wakeup_signal(int fd)
{
    uint64_t one = 1;
    ssize_t written;
    do
        written = write(fd, &one, sizeof one);
    while (written < 0 && errno == EINTR);
}

void
wakeup_clear(int fd)
{
    uint64_t count;
    ssize_t taken;
    do
        taken = read(fd, &count, sizeof count);
    while (taken < 0 && errno == EINTR);
}

void
wakeup_close(int fd)
{
    if (fd >= 0)
        close(fd);
}
