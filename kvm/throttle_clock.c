/* SPDX-License-Identifier: MIT */
/*
 * Holding vCPUs for a part of their time. A period is short, so that a guest at one percent still
 * answers; as the clock's own thread may be late on a busy host, vCPUs are held for as long as the
 * slice that they really ran for demands.
 *
 * Threads: the clock's own runs the periods; any other sets.
 */
#include "kvm/throttle_clock.h"
#include "engine/faultline.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define PERIOD_US    10000
#define HOLD_MOST_US 1000000 /* however late the thread was */

struct ThrottleClock {
    /* set before the thread starts */
    void (*hold)(void *opaque, bool held);
    void *opaque;
    pthread_t thread;

    pthread_mutex_t lock;   /* before the machine's */
    pthread_cond_t changed; /* percent or ending; by the monotonic clock */
    unsigned percent;       /* under lock */
    bool is_holding, ending;
};

static void
set_hold_locked(ThrottleClock *clock, bool held)
{
    if (clock->is_holding == held)
        return;
    clock->is_holding = held;
    clock->hold(clock->opaque, held);
}

/* false: something else was set before the time was over. */
static bool
sleep_locked(ThrottleClock *clock, int64_t time_us)
{
    int64_t end_us = g_get_monotonic_time() + time_us;
    const struct timespec end = {.tv_sec = end_us / G_USEC_PER_SEC,
                                 .tv_nsec = end_us % G_USEC_PER_SEC * 1000};
    unsigned percent = clock->percent;

    while (clock->percent == percent && !clock->ending)
        if (pthread_cond_timedwait(&clock->changed, &clock->lock, &end) != 0)
            return true;
    return false;
}

static void
run_period_locked(ThrottleClock *clock)
{
    int64_t percent = clock->percent, began_us = g_get_monotonic_time();

    if (!sleep_locked(clock, PERIOD_US * (100 - percent) / 100))
        return;
    int64_t ran_us = g_get_monotonic_time() - began_us;
    set_hold_locked(clock, true);
    sleep_locked(clock, MIN(ran_us * percent / (100 - percent), HOLD_MOST_US));
    set_hold_locked(clock, false);
}

static void *
run_clock(void *data)
{
    ThrottleClock *clock = data;

    pthread_setname_np(pthread_self(), "throttle");
    pthread_mutex_lock(&clock->lock);
    while (!clock->ending) {
        if (clock->percent)
            run_period_locked(clock);
        else
            pthread_cond_wait(&clock->changed, &clock->lock);
    }
    pthread_mutex_unlock(&clock->lock);
    return NULL;
}

static void
clock_clear(ThrottleClock *clock)
{
    pthread_cond_destroy(&clock->changed);
    pthread_mutex_destroy(&clock->lock);
    g_free(clock);
}

ThrottleClock *
throttle_clock_new(void (*hold)(void *opaque, bool held), void *opaque, GError **error)
{
    ThrottleClock *clock = g_new0(ThrottleClock, 1);
    pthread_condattr_t attributes;
    sigset_t all, before;

    clock->hold = hold;
    clock->opaque = opaque;
    pthread_mutex_init(&clock->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&clock->changed, &attributes);
    pthread_condattr_destroy(&attributes);

    sigfillset(&all); /* signals are for the program's own threads */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&clock->thread, NULL, run_clock, clock);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed == 0)
        return clock;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "making the machine: cannot make the thread that slows vCPUs down: %s; raise the "
                "limit of threads",
                g_strerror(failed));
    clock_clear(clock);
    return NULL;
}

void
throttle_clock_free(ThrottleClock *clock)
{
    if (!clock)
        return;
    pthread_mutex_lock(&clock->lock);
    clock->ending = true;
    pthread_cond_broadcast(&clock->changed);
    pthread_mutex_unlock(&clock->lock);
    pthread_join(clock->thread, NULL);
    clock_clear(clock);
}

void
throttle_clock_set(ThrottleClock *clock, unsigned percent)
{
    pthread_mutex_lock(&clock->lock);
    clock->percent = MIN(percent, 99u);
    if (percent == 0)
        set_hold_locked(clock, false);
    pthread_cond_broadcast(&clock->changed);
    pthread_mutex_unlock(&clock->lock);
}
