/* SPDX-License-Identifier: MIT */
/* See migration.h: the phase by the clock of the events, and the outcome by what both sides say. */
#include "tests/chaos/migration.h"

#include <string.h>

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
 * tells of them. And what the source had not noticed by the time it stopped the guest befell the
 * switch-over. */
static Phase
find_phase(Migration *migration, const Blow *blow, int64_t struck_us)
{
    Side *source = &migration->source, *destination = &migration->destination;

    qmp_events(source->qmp);
    qmp_events(destination->qmp);
    int64_t resumed = event_us(destination, "RESUME");
    bool hurts = blow->fault != FAULT_DELAY && blow->fault != FAULT_SPLIT &&
                 blow->fault != FAULT_FILL_SOURCE && blow->fault != FAULT_FILL_DESTINATION &&
                 blow->fault != FAULT_STOP_SOURCE && blow->fault != FAULT_STOP_DESTINATION;
    bool ran_there = resumed || event_us(destination, "MIGRATION:completed");

    if (!struck_us || (came_before(event_us(source, "MIGRATION:completed"), struck_us) &&
                       came_before(event_us(destination, "MIGRATION:completed"), struck_us)))
        return PHASE_UNHIT;
    if (blow->moment == MOMENT_RECOVERY)
        return PHASE_RECOVERY;
    if (migration->plan->is_postcopy &&
        came_before(event_us(destination, "MIGRATION:postcopy-active"), struck_us) &&
        (came_before(resumed, struck_us) || migration->plan->arrives_stopped))
        return PHASE_POSTCOPY;
    if (event_us(source, "STOP") && (came_before(event_us(source, "STOP"), struck_us) || hurts))
        return PHASE_SWITCHOVER;
    if (blow->fault == FAULT_KILL_SOURCE && ran_there)
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
is_waiting(Side *side)
{
    return has_status(side, "postcopy-paused") || has_status(side, "postcopy-recover-setup");
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
    bool killed_destination = migration_was_killed(migration, destination);

    if (runs(source))
        return runs(destination) || has_status(source, "completed") ||
                       has_status(source, "postcopy-paused")
                   ? OUTCOME_WRONG
                   : OUTCOME_STAYED;
    bool has_paused = event_us(source, "MIGRATION:postcopy-paused") ||
                      event_us(destination, "MIGRATION:postcopy-paused");
    if (is_whole_there(migration, destination))
        return !has_status(source, "completed") ? OUTCOME_UNCONFIRMED
               : has_paused                     ? OUTCOME_RECOVERED
                                                : OUTCOME_MOVED;
    bool nobody_came = has_status(destination, "none") || has_status(destination, "setup");
    if (!source->pid)
        return is_waiting(destination)            ? OUTCOME_STALLED
               : destination->is_unheard          ? OUTCOME_GONE /* and waits for the source */
               : !destination->pid || nobody_came ? OUTCOME_GONE
                                                  : OUTCOME_WRONG;
    qmp_events(destination->qmp);
    if (has_status(source, "completed"))
        return killed_destination ? OUTCOME_GONE : OUTCOME_WRONG;
    /* What it said last may have come to the source alone. */
    bool has_loaded = event_us(destination, "MIGRATION:postcopy-active") ||
                      (source->error_text && strstr(source->error_text, "runs at the destination"));
    if (killed_destination && has_loaded)
        return OUTCOME_HELD;
    if (!destination->pid)
        return OUTCOME_UNDECIDED;
    return OUTCOME_WRONG;
}

static void
note_error(Migration *migration, const Side *side)
{
    if (side->error_text)
        migration_note(migration, "%s: %s", side->role, side->error_text);
}

void
migration_judge(Migration *migration)
{
    int64_t to_story_us = g_get_monotonic_time() - g_get_real_time() - migration->began_us;
    g_autofree char *passed = relay_describe(migration->relay);

    migration->outcome = find_outcome(migration);
    for (unsigned i = 0; i < migration->plan->count_blows; i++) {
        const Blow *blow = &migration->plan->blows[i];
        int64_t struck_us = migration->struck_us[i];

        migration->phases[i] = find_phase(migration, blow, struck_us);
        migration_note(migration, "%s at %.3f s, in phase %s", fault_name(blow->fault),
                       struck_us ? (double)(struck_us + to_story_us) / 1e6 : 0,
                       phase_name(migration->phases[i]));
    }
    note_error(migration, &migration->source);
    note_error(migration, &migration->destination);
    migration_note(migration, "%s; last link: %s", outcome_name(migration->outcome), passed);
}
