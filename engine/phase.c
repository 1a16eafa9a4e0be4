/* SPDX-License-Identifier: MIT */
/*
 * The phases of a migration: their names, their legal moves, and the one function that moves.
 * Called by the phase's owner (context.h); read by any thread.
 */
#include "engine/context.h"

static const char *const status_names[] = {
#define STATUS_NAME(name, text) text,
    FAULTLINE_STATUS_LIST(STATUS_NAME)
#undef STATUS_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(status_names) == FAULTLINE_STATUS_COUNT);

static const char *const run_state_names[] = {
    "prelaunch", "inmigrate", "running", "paused", "finish-migrate", "postmigrate",
};
G_STATIC_ASSERT(G_N_ELEMENTS(run_state_names) == FAULTLINE_RUN_COUNT);

static const char *const moment_names[] = {
#define MOMENT_NAME(name, text) text,
    FAULTLINE_MOMENT_LIST(MOMENT_NAME)
#undef MOMENT_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(moment_names) == FAULTLINE_MOMENT_COUNT);

#define TO(name) (1u << FAULTLINE_STATUS_##name)

/* From each status, where it may go. Both sides: a destination goes from ACTIVE straight to
 * POSTCOPY_DEVICE or COMPLETED. A source leaves POSTCOPY_DEVICE, and with a faultline peer
 * POSTCOPY_ACTIVE, for FAILED only when the destination says that the guest never ran there. A
 * destination leaves POSTCOPY_PAUSED and POSTCOPY_RECOVER when the last page was in another role's
 * hands as the link broke, or when the device state could not be loaded. In a recovery a source
 * goes by RECOVER_SETUP, a destination straight to RECOVER. */
static const unsigned moves[FAULTLINE_STATUS_COUNT] = {
    [FAULTLINE_STATUS_NONE] = TO(SETUP),
    [FAULTLINE_STATUS_SETUP] = TO(ACTIVE) | TO(CANCELLING) | TO(FAILED),
    [FAULTLINE_STATUS_ACTIVE] = TO(PRE_SWITCHOVER) | TO(DEVICE) | TO(POSTCOPY_DEVICE) |
                                TO(COMPLETED) | TO(CANCELLING) | TO(FAILED),
    [FAULTLINE_STATUS_PRE_SWITCHOVER] = TO(DEVICE) | TO(CANCELLING) | TO(FAILED),
    [FAULTLINE_STATUS_DEVICE] = TO(POSTCOPY_DEVICE) | TO(COMPLETED) | TO(CANCELLING) | TO(FAILED),
    [FAULTLINE_STATUS_POSTCOPY_DEVICE] = TO(POSTCOPY_ACTIVE) | TO(POSTCOPY_PAUSED) | TO(FAILED),
    [FAULTLINE_STATUS_POSTCOPY_ACTIVE] = TO(POSTCOPY_PAUSED) | TO(COMPLETED) | TO(FAILED),
    [FAULTLINE_STATUS_POSTCOPY_PAUSED] =
        TO(POSTCOPY_RECOVER_SETUP) | TO(POSTCOPY_RECOVER) | TO(COMPLETED) | TO(FAILED),
    [FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP] = TO(POSTCOPY_PAUSED) | TO(POSTCOPY_RECOVER),
    [FAULTLINE_STATUS_POSTCOPY_RECOVER] =
        TO(POSTCOPY_PAUSED) | TO(POSTCOPY_ACTIVE) | TO(COMPLETED) | TO(FAILED),
    [FAULTLINE_STATUS_CANCELLING] = TO(CANCELLED) | TO(FAILED),
    [FAULTLINE_STATUS_COMPLETED] = TO(SETUP),
    [FAULTLINE_STATUS_CANCELLED] = TO(SETUP),
    [FAULTLINE_STATUS_FAILED] = TO(SETUP),
};

#define ENDED (TO(NONE) | TO(COMPLETED) | TO(CANCELLED) | TO(FAILED) | TO(POSTCOPY_PAUSED))

const char *
faultline_status_name(FaultlineStatus status)
{
    return (unsigned)status < FAULTLINE_STATUS_COUNT ? status_names[status] : "unknown";
}

const char *
faultline_run_state_name(FaultlineRunState state)
{
    return (unsigned)state < FAULTLINE_RUN_COUNT ? run_state_names[state] : "unknown";
}

const char *
faultline_moment_name(FaultlineMoment moment)
{
    return (unsigned)moment < FAULTLINE_MOMENT_COUNT ? moment_names[moment] : "unknown";
}

FaultlineStatus
context_status(const Faultline *faultline)
{
    return __atomic_load_n(&faultline->status, __ATOMIC_ACQUIRE);
}

bool
context_is_connected(const Faultline *faultline)
{
    FaultlineStatus status = context_status(faultline);
    return status == FAULTLINE_STATUS_POSTCOPY_ACTIVE ||
           status == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP ||
           status == FAULTLINE_STATUS_POSTCOPY_RECOVER;
}

bool
context_is_busy(const Faultline *faultline)
{
    FaultlineStatus status = context_status(faultline);
    return status == FAULTLINE_STATUS_POSTCOPY_PAUSED || !(ENDED & (1u << status));
}

/* A pause lasts from its break to POSTCOPY_ACTIVE, however often it was tried to end it. */
static void
account_pause_locked(Progress *progress, FaultlineStatus to)
{
    uint64_t now_ns = clock_now_ns(), began_ns = progress_get(&progress->pause_began_ns);

    if (to == FAULTLINE_STATUS_POSTCOPY_PAUSED && !began_ns) {
        progress_add(&progress->pauses, 1);
        progress_set(&progress->pause_began_ns, now_ns);
    } else if (began_ns && (to == FAULTLINE_STATUS_POSTCOPY_ACTIVE ||
                            to == FAULTLINE_STATUS_COMPLETED || to == FAULTLINE_STATUS_FAILED)) {
        progress_add(&progress->paused_ns, now_ns - began_ns);
        progress_set(&progress->longest_pause_ns,
                     MAX(progress_get(&progress->longest_pause_ns), now_ns - began_ns));
        progress_set(&progress->pause_began_ns, 0);
    }
}

static void
move_locked(Faultline *faultline, FaultlineStatus from, FaultlineStatus to)
{
    g_assert(moves[from] & (1u << to));
    if (ENDED & (1u << to))
        progress_set(&faultline->progress.ended_ns, clock_now_ns());
    account_pause_locked(&faultline->progress, to);
    /* Together: whoever sees the status finds the event, and the other way round. */
    __atomic_store_n(&faultline->status, to, __ATOMIC_RELEASE);
    context_event_locked(faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_STATUS, .status = to});
    pthread_cond_broadcast(&faultline->changed);
}

void
context_move(Faultline *faultline, FaultlineStatus to)
{
    pthread_mutex_lock(&faultline->lock);
    move_locked(faultline, context_status(faultline), to);
    pthread_mutex_unlock(&faultline->lock);
    if (to == FAULTLINE_STATUS_POSTCOPY_PAUSED || to == FAULTLINE_STATUS_POSTCOPY_ACTIVE)
        record_refresh(faultline); /* paused, or recovered */
}

bool
context_move_from(Faultline *faultline, FaultlineStatus from, FaultlineStatus to)
{
    pthread_mutex_lock(&faultline->lock);
    bool is_there = context_status(faultline) == from;
    if (is_there)
        move_locked(faultline, from, to);
    pthread_mutex_unlock(&faultline->lock);
    return is_there;
}

FaultlineStatus
faultline_wait(Faultline *faultline, int64_t timeout_ms)
{
    uint64_t end_ns =
        clock_now_ns() + (uint64_t)CLAMP(timeout_ms, 0, INT64_MAX / 2000000) * 1000000u;
    struct timespec end = {.tv_sec = (time_t)(end_ns / 1000000000u),
                           .tv_nsec = (long)(end_ns % 1000000000u)};
    int failed = 0;

    pthread_mutex_lock(&faultline->lock);
    while (!failed && !(ENDED & (1u << context_status(faultline)))) {
        if (timeout_ms < 0)
            failed = pthread_cond_wait(&faultline->changed, &faultline->lock);
        else
            failed = pthread_cond_clockwait(&faultline->changed, &faultline->lock, CLOCK_MONOTONIC,
                                            &end);
    }
    pthread_mutex_unlock(&faultline->lock);
    return context_status(faultline);
}
