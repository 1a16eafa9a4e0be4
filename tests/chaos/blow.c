/* SPDX-License-Identifier: MIT */
/* See migration.h: when the blow whose turn it is falls, and what it does to a process. Links are
 * the relay's. */
#include "tests/chaos/records.h"

#include <signal.h>

static Side *
victim(Migration *migration, Fault fault)
{
    return fault == FAULT_KILL_SOURCE || fault == FAULT_STOP_SOURCE || fault == FAULT_FILL_SOURCE
               ? &migration->source
               : &migration->destination;
}

/* A process that was stopped. */
typedef struct Stopped {
    Side *side;
    unsigned length_ms;
} Stopped;

static void *
let_go_on(void *opaque)
{
    g_autofree Stopped *stopped = opaque;

    g_usleep(stopped->length_ms * 1000);
    side_signal(stopped->side, SIGCONT);
    return NULL;
}

/* On the relay's thread. */
static void
strike_victim(void *opaque)
{
    Migration *migration = opaque;
    const Blow *blow = migration->blow;
    Side *side = victim(migration, blow->fault);

    if (blow->fault == FAULT_KILL_SOURCE || blow->fault == FAULT_KILL_DESTINATION) {
        side_signal(side, SIGKILL);
        return;
    }
    if (blow->fault == FAULT_FILL_SOURCE || blow->fault == FAULT_FILL_DESTINATION) {
        records_fill(migration, side);
        return;
    }
    Stopped *stopped = g_new(Stopped, 1);
    *stopped = (Stopped){.side = side, .length_ms = blow->strike.length_ms};
    side_signal(side, SIGSTOP);
    migration->wakers[blow - migration->plan->blows] = g_thread_new("go-on", let_go_on, stopped);
}

bool
migration_was_killed(const Migration *migration, const Side *side)
{
    Fault kills = side == &migration->source ? FAULT_KILL_SOURCE : FAULT_KILL_DESTINATION;

    for (unsigned i = 0; i < migration->plan->count_blows; i++)
        if (migration->plan->blows[i].fault == kills && migration->struck_us[i])
            return true;
    return false;
}

static bool
is_near_switchover(const Migration *migration)
{
    return migration->plan->is_postcopy ? migration->wished : migration->source.passes >= 2;
}

static bool
is_moment(const Migration *migration, const Blow *blow)
{
    const char *status = migration->source.status;
    bool stands = !g_str_equal(status, "active") && !g_str_equal(status, "setup") &&
                  !g_str_equal(status, "none");

    switch (blow->moment) {
    case MOMENT_CONNECT:
        return true;
    case MOMENT_PASS:
        return migration->source.passes >= 1;
    case MOMENT_SWITCHOVER:
        return stands || (blow->arms_early && is_near_switchover(migration));
    case MOMENT_POSTCOPY:
        return g_str_equal(status, "postcopy-active") || g_str_equal(status, "completed");
    default:
        return migration->recoveries > 0 ||
               (migration->plan->is_auto && g_str_has_prefix(status, "postcopy-") &&
                !g_str_equal(status, "postcopy-active"));
    }
}

void
migration_arm_if_moment(Migration *migration)
{
    const Blow *blow = migration->blow;

    if (!blow || migration->is_armed)
        return;
    /* A slow link would keep a precopy from ever coming to its switch-over. */
    if (migration->plan->is_postcopy && blow->moment == MOMENT_SWITCHOVER &&
        is_near_switchover(migration))
        relay_pace(migration->relay, blow->pace_bytes);
    if (!is_moment(migration, blow))
        return;
    RelayStrike strike = blow->strike;
    strike.call = strike_victim;
    strike.opaque = migration;
    migration->is_armed = true;
    relay_pace(migration->relay, blow->pace_bytes);
    relay_arm(migration->relay, &strike);
    migration_note(migration, "armed: %s; source %s, destination %s", fault_name(blow->fault),
                   migration->source.status, migration->destination.status);
}
