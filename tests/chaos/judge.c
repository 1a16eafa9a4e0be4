/* SPDX-License-Identifier: MIT */
/* See migration.h: the phase by the clock of the events, and the outcome by what both sides say. */
#include "tests/chaos/migration.h"

static int64_t
event_us(Side *side, const char *event)
{
    return side->qmp ? qmp_event_first_us(side->qmp, event) : 0;
}

static bool
came_before(int64_t event, int64_t moment_us)
{
    return event && event <= moment_us;
}

/* A process that is killed takes events with it that nobody has read: what its peer did afterwards
 * tells of them. */
static Phase
find_phase(Migration *migration, int64_t struck_us)
{
    Side *source = &migration->source, *destination = &migration->destination;

    qmp_events(source->qmp);
    qmp_events(destination->qmp);
    int64_t resumed = event_us(destination, "RESUME");
    bool ran_there = resumed || event_us(destination, "MIGRATION:completed");

    if (!struck_us || (came_before(event_us(source, "MIGRATION:completed"), struck_us) &&
                       came_before(event_us(destination, "MIGRATION:completed"), struck_us)))
        return PHASE_UNHIT;
    if (migration->plan->is_postcopy &&
        came_before(event_us(destination, "MIGRATION:postcopy-active"), struck_us) &&
        (came_before(resumed, struck_us) || migration->plan->arrives_stopped))
        return PHASE_POSTCOPY;
    if (came_before(event_us(source, "STOP"), struck_us))
        return PHASE_SWITCHOVER;
    if (migration->plan->fault == FAULT_KILL_SOURCE && ran_there)
        return PHASE_SWITCHOVER;
    return came_before(event_us(source, "MIGRATION:active"), struck_us) ? PHASE_PRECOPY
                                                                        : PHASE_SETUP;
}

static bool
has_status(Side *side, const char *status)
{
    return side->pid && g_str_equal(side->status, status);
}

static bool
runs(Side *side)
{
    return side->pid && g_str_equal(side->run_state, "running");
}

/* The destination says that it has all of the guest. */
static bool
is_whole_there(const Migration *migration, Side *destination)
{
    return has_status(destination, "completed") && destination->missing_pages == 0 &&
           (runs(destination) || migration->plan->arrives_stopped);
}

static Outcome
find_outcome(Migration *migration)
{
    Side *source = &migration->source, *destination = &migration->destination;
    bool killed_destination = migration->plan->fault == FAULT_KILL_DESTINATION &&
                              relay_struck_us(migration->relay) && !destination->pid;

    if (runs(source))
        return runs(destination) || has_status(source, "completed") ||
                       has_status(source, "postcopy-paused")
                   ? OUTCOME_WRONG
                   : OUTCOME_STAYED;
    if (is_whole_there(migration, destination))
        return has_status(source, "completed") ? OUTCOME_MOVED : OUTCOME_UNCONFIRMED;
    if (!source->pid)
        return has_status(destination, "postcopy-paused") ? OUTCOME_STALLED
               : !destination->pid                        ? OUTCOME_GONE
                                                          : OUTCOME_WRONG;
    if (has_status(source, "postcopy-paused") && has_status(destination, "postcopy-paused"))
        return OUTCOME_PAUSED;
    if (killed_destination)
        return has_status(source, "completed") ? OUTCOME_GONE : OUTCOME_HELD;
    if (!destination->pid && !has_status(source, "completed"))
        return OUTCOME_UNDECIDED;
    return OUTCOME_WRONG;
}

void
migration_judge(Migration *migration)
{
    int64_t struck_us = relay_struck_us(migration->relay);

    migration->phase = find_phase(migration, struck_us);
    migration->outcome = find_outcome(migration);
    g_autofree char *passed = relay_describe(migration->relay);
    if (struck_us)
        migration_note(
            migration, "struck at %.3f s",
            (double)(struck_us - g_get_real_time() + g_get_monotonic_time() - migration->began_us) /
                1e6);
    migration_note(migration, "%s in phase %s: %s; %s", fault_name(migration->plan->fault),
                   phase_name(migration->phase), outcome_name(migration->outcome), passed);
}
