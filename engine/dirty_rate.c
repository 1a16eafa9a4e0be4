/* SPDX-License-Identifier: MIT */
/*
 * The dirty rate without a migration: the log is switched on, read once when the time is over, and
 * switched off; what counts is each page that was written at least once.
 *
 * One role on one thread, which owns the log meanwhile. The control thread starts it, asks, and
 * gives it up when a migration needs the log.
 */
#include "engine/dirty_rate.h"
#include "engine/error.h"
#include "uffd/uffd.h"

#define NS_PER_MS 1000000u

struct DirtyRate {
    /* set before the thread starts */
    Faultline *faultline;
    RoleThreads *threads;
    Role role;
    UffdTracker *tracker; /* when the guest has no dirty log of its own */
    uint64_t time_ms;
    int64_t started_s;

    /* the role's */
    uint64_t began_ns; /* 0: not yet */
    bool is_logging;

    /* shared: set before `state` is stored with release, read after it was loaded with acquire */
    uint64_t pages, took_ns;
    GError *error;
    unsigned state; /* FaultlineMeasure */

    bool is_stopping; /* control thread */
};

static bool
start_log(DirtyRate *rate, GError **error)
{
    Faultline *faultline = rate->faultline;

    for (unsigned i = 0; rate->tracker && i < faultline->blocks.count; i++) {
        const FaultlineBlock *block = &faultline->blocks.blocks[i].is;
        if (!uffd_tracker_add(rate->tracker, block->host_address, block->length_bytes, error))
            return false;
    }
    rate->is_logging = rate->tracker || faultline->guest.dirty_log_start(faultline->opaque, error);
    return rate->is_logging;
}

static void
stop_log(DirtyRate *rate)
{
    if (rate->tracker)
        g_clear_pointer(&rate->tracker, uffd_tracker_free);
    else if (rate->is_logging)
        rate->faultline->guest.dirty_log_stop(rate->faultline->opaque);
    rate->is_logging = false;
}

static bool
count_block(DirtyRate *rate, const RamBlock *block, GError **error)
{
    const Faultline *faultline = rate->faultline;
    uint64_t count_words = (block->count_pages + 63) / 64;
    g_autofree uint64_t *words = g_new0(uint64_t, count_words);
    bool synced;

    if (rate->tracker)
        synced = uffd_tracker_sync(rate->tracker, block->is.host_address, block->is.length_bytes,
                                   words, false, error);
    else
        synced = faultline->guest.dirty_log_sync(faultline->opaque, block->index, words,
                                                 block->count_pages, error);
    for (uint64_t i = 0; synced && i < count_words; i++)
        rate->pages += (unsigned)__builtin_popcountll(words[i]);
    return synced;
}

static bool
count_pages(DirtyRate *rate, GError **error)
{
    const RamBlocks *blocks = &rate->faultline->blocks;

    rate->took_ns = clock_now_ns() - rate->began_ns;
    for (unsigned i = 0; i < blocks->count; i++)
        if (!count_block(rate, &blocks->blocks[i], error))
            return false;
    return true;
}

static StepResult
end(DirtyRate *rate, FaultlineMeasure state)
{
    stop_log(rate);
    if (rate->error)
        error_translate(&rate->error);
    __atomic_store_n(&rate->state, rate->error ? FAULTLINE_MEASURE_UNSTARTED : state,
                     __ATOMIC_RELEASE);
    return STEP_DONE;
}

static StepResult
measure_step(void *self)
{
    DirtyRate *rate = self;
    uint64_t now_ns = clock_now_ns();

    if (__atomic_load_n(&rate->is_stopping, __ATOMIC_ACQUIRE))
        return end(rate, FAULTLINE_MEASURE_UNSTARTED);
    if (!rate->began_ns) {
        if (!start_log(rate, &rate->error))
            return end(rate, FAULTLINE_MEASURE_UNSTARTED);
        rate->began_ns = clock_now_ns();
        return STEP_AGAIN;
    }
    uint64_t end_ns = rate->began_ns + rate->time_ms * NS_PER_MS;
    if (now_ns < end_ns) {
        rate->role.wake_ns = end_ns;
        return STEP_WAIT;
    }
    count_pages(rate, &rate->error);
    return end(rate, FAULTLINE_MEASURE_DONE);
}

/* ---- Control thread -------------------------------------------------------------------------- */

void
dirty_rate_give_up(Faultline *faultline)
{
    DirtyRate *rate = g_steal_pointer(&faultline->dirty_rate);

    if (!rate)
        return;
    if (rate->threads) {
        __atomic_store_n(&rate->is_stopping, true, __ATOMIC_RELEASE);
        if (rate->role.ring)
            transport_ring_notify(rate->role.ring);
        role_threads_join(rate->threads);
    }
    g_clear_pointer(&rate->tracker, uffd_tracker_free);
    g_clear_error(&rate->error);
    g_free(rate);
}

static FaultlineMeasure
state_of(const DirtyRate *rate)
{
    return rate ? __atomic_load_n(&rate->state, __ATOMIC_ACQUIRE) : FAULTLINE_MEASURE_UNSTARTED;
}

static bool
check(const Faultline *faultline, uint64_t time_ms, GError **error)
{
    FaultlineRunState state = faultline_run_state(faultline);
    const char *reason = NULL;

    if (time_ms < FAULTLINE_MEASURE_LEAST_MS || time_ms > FAULTLINE_MEASURE_GREATEST_MS) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "calc-dirty-rate: %" G_GUINT64_FORMAT " ms is out of range; it takes %u to %u",
                    time_ms, FAULTLINE_MEASURE_LEAST_MS, FAULTLINE_MEASURE_GREATEST_MS);
        return false;
    }
    if (context_is_busy(faultline))
        reason = "there's a migration process in progress, which needs the dirty log; "
                 "query-migrate has its dirty-pages-rate";
    else if (state_of(faultline->dirty_rate) == FAULTLINE_MEASURE_RUNNING)
        reason = "the dirty rate is already being measured; query-dirty-rate tells when it is done";
    else if (state == FAULTLINE_RUN_INMIGRATE || state == FAULTLINE_RUN_POSTMIGRATE)
        reason = "there is no guest here; ask the other side";
    if (reason)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, "calc-dirty-rate: %s", reason);
    return !reason;
}

bool
faultline_measure_dirty_rate(Faultline *faultline, uint64_t time_ms, GError **error)
{
    if (!check(faultline, time_ms, error))
        return false;
    if (!transport_probe(error))
        return error_translate(error);
    dirty_rate_give_up(faultline);
    DirtyRate *rate = g_new0(DirtyRate, 1);
    faultline->dirty_rate = rate;
    rate->faultline = faultline;
    rate->time_ms = time_ms;
    rate->started_s = clock_wall_us() / G_USEC_PER_SEC;
    rate->state = FAULTLINE_MEASURE_RUNNING;
    rate->role = (Role){.name = "dirty-rate", .step = measure_step, .self = rate};
    bool can_track = faultline->guest.dirty_log_start != NULL;
    if (!can_track) {
        rate->tracker = uffd_tracker_new(error);
        can_track = rate->tracker != NULL;
    }
    Role *const roles[] = {&rate->role};
    if (can_track)
        rate->threads = role_threads_start(roles, G_N_ELEMENTS(roles), error);
    if (rate->threads)
        return true;
    dirty_rate_give_up(faultline);
    return error_translate(error);
}

void
faultline_query_dirty_rate(const Faultline *faultline, FaultlineDirtyRate *ret_rate)
{
    const DirtyRate *rate = faultline->dirty_rate;

    *ret_rate = (FaultlineDirtyRate){.state = state_of(rate)};
    if (!rate)
        return;
    ret_rate->started_s = rate->started_s;
    ret_rate->time_ms = rate->time_ms;
    if (ret_rate->state == FAULTLINE_MEASURE_DONE) {
        ret_rate->pages = rate->pages;
        ret_rate->took_ns = rate->took_ns;
    } else if (ret_rate->state == FAULTLINE_MEASURE_UNSTARTED && rate->error) {
        g_strlcpy(ret_rate->error, rate->error->message, sizeof ret_rate->error);
    }
}
