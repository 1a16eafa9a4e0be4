/* SPDX-License-Identifier: MIT */
/* See migration.h: whether what both sides say is true. */
#include "tests/chaos/memory.h"
#include "tests/chaos/records.h"

#include <glib/gstdio.h>
#include <string.h>

#define POLL_US  5000
#define STILL_US 30000

/* As the manual page says. */
#define EXIT_SOURCE_LOST      3
#define EXIT_DESTINATION_LOST 4

/* A guest that is given up does not move; one that runs does. The still one is read twice around a
 * move of the other. */
static bool
await_move(Side *side, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;
    uint64_t first, now;

    if (!memory_digest(side, &first, error))
        return false;
    do {
        g_usleep(POLL_US);
        if (!memory_digest(side, &now, error))
            return false;
        if (g_get_monotonic_time() > until_us)
            return migration_refuse(error, "%s: the guest does not move", side->role);
    } while (now == first);
    return true;
}

static bool
check_one_owner(Side *owner, Side *other, bool can_read, GError **error)
{
    uint64_t before = 0, after = 0;
    bool is_there = can_read && side_is_alive(other);

    if (is_there && !memory_digest(other, &before, error))
        return false;
    if (owner && !await_move(owner, error))
        return false;
    g_usleep(STILL_US);
    if (is_there && !memory_digest(other, &after, error))
        return false;
    if (before != after)
        return migration_refuse(error, "two owners: the guest moves at the %s, which gave it up",
                                other->role);
    return true;
}

/* ---- Its bytes ------------------------------------------------------------------------------- */

/* The guest of threads looks at every byte in each pass. */
static bool
await_pass(Side *side, uint64_t passes_before, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;
    uint64_t checks, passes = 0;

    while (passes <= passes_before) {
        g_autoptr(GError) reason = NULL;
        if (!side_verdict(side, &checks, &passes, &reason) && reason) {
            g_propagate_error(error, g_steal_pointer(&reason));
            return false;
        }
        if (!side_is_alive(side) || g_get_monotonic_time() > until_us)
            return migration_refuse(error, "%s: the guest makes no pass over its memory",
                                    side->role);
        g_usleep(POLL_US);
    }
    return true;
}

static bool
check_bytes(Migration *migration, Side *owner, GError **error)
{
    if (!migration->plan->is_kvm)
        return await_pass(owner, owner == &migration->source ? migration->passes_before + 1 : 0,
                          error);
    return side_do(owner, "stop", NULL, error) && memory_check_kvm(owner, error) &&
           side_do(owner, "cont", NULL, error) && await_move(owner, error);
}

/* ---- The ends of the processes --------------------------------------------------------------- */

/* expected: -1: 0 or 1. */
static bool
quit(Side *side, int expected, GError **error)
{
    int code = 0;

    if (!side_is_alive(side))
        return true;
    if (!side_do(side, "quit", NULL, error) || !side_await_end(side, &code, error))
        return false;
    if (code == expected || (expected < 0 && code <= 1))
        return true;
    return migration_refuse(error, "%s: exit status %d after quit", side->role, code);
}

/* Nobody but the test may end a process by a signal; one that gave up says so by 1. */
static bool
check_ended(Migration *migration, Side *side, GError **error)
{
    int code = 0;

    if (side_is_alive(side) || migration_was_killed(migration, side))
        return true;
    if (!side_await_end(side, &code, error))
        return false;
    return code == 1 ||
           migration_refuse(error, "%s: ended by itself with exit status %d", side->role, code);
}

/* Its last word. The KVM guest may not have had the time for one: its bytes were read instead. */
static bool
check_verdict(Side *side, GError **error)
{
    uint64_t checks, passes;
    g_autoptr(GError) reason = NULL;

    side_verdict(side, &checks, &passes, &reason);
    if (reason)
        g_propagate_error(error, g_steal_pointer(&reason));
    return !*error;
}

/* ---- Each outcome ---------------------------------------------------------------------------- */

/* With checksums there is a verdict over all memory at the end, unless it broke right before. */
static bool
check_integrity(Migration *migration, GError **error)
{
    const Side *destination = &migration->destination;
    bool must_pass = migration->plan->checksums && migration->outcome == OUTCOME_MOVED;

    if (must_pass ? g_str_equal(destination->integrity, "passed")
                  : !g_str_equal(destination->integrity, "failed"))
        return true;
    return migration_refuse(error, "the verdict over all memory is '%s'", destination->integrity);
}

static bool
check_moved(Migration *migration, GError **error)
{
    Side *source = &migration->source, *destination = &migration->destination;

    if (!check_integrity(migration, error))
        return false;
    if (migration->plan->arrives_stopped && side_is_alive(source) &&
        !memory_compare(source, destination, error))
        return false;
    if (migration->plan->arrives_stopped && !side_do(destination, "cont", NULL, error))
        return false;
    if (side_is_alive(source) && side_do(source, "cont", NULL, NULL))
        return migration_refuse(error, "the source, which gave the guest up, let it be started");
    return check_one_owner(destination, source, true, error) &&
           check_bytes(migration, destination, error) &&
           quit(source, migration->outcome == OUTCOME_MOVED ? 0 : -1, error) &&
           await_move(destination, error) && quit(destination, 0, error) &&
           check_verdict(destination, error);
}

/* The guest can be moved afterwards as if nothing had been. */
static bool
check_moves_on(Migration *migration, GError **error)
{
    Side *source = &migration->source, *destination = &migration->destination;
    g_autofree char *directory = g_build_filename(migration->directory, "again", NULL);
    g_autoptr(GPtrArray) arguments = migration_arguments(migration, "tcp:127.0.0.1:0");

    side_clear(destination);
    records_make_room(migration);
    g_mkdir(directory, 0700);
    side_init(destination, "destination", directory);
    if (!side_start(destination, arguments, error))
        return false;
    g_autofree char *uri = side_listening_at(destination, error);
    if (!uri)
        return false;
    g_autofree char *where = g_strdup_printf("{\"uri\": \"%s\"}", uri);
    if (!side_do(source, "migrate", where, error) ||
        (migration->plan->is_postcopy && !side_do(source, "migrate-start-postcopy", NULL, error)))
        return false;
    int64_t until_us = g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;
    while (!g_str_equal(source->status, "completed") ||
           !g_str_equal(destination->status, "completed")) {
        g_autoptr(GError) reason = NULL;
        if (!side_look(source, &reason) || !side_look(destination, &reason) ||
            g_get_monotonic_time() > until_us)
            return migration_refuse(error, "the guest that stayed cannot be moved: %s, %s: %s",
                                    source->status, destination->status,
                                    reason ? reason->message : "a side ended, or time is over");
        g_usleep(POLL_US);
    }
    migration->outcome = OUTCOME_MOVED; /* that one */
    bool good = check_moved(migration, error);
    migration->outcome = OUTCOME_STAYED;
    g_prefix_error(error, "moved on after it had stayed: ");
    return good;
}

static bool
check_stayed(Migration *migration, GError **error)
{
    return check_one_owner(&migration->source, &migration->destination, false, error) &&
           check_bytes(migration, &migration->source, error) && check_moves_on(migration, error);
}

/* The source does not take back what it gave up, and its pages stand. */
static bool
check_kept(Migration *migration, GError **error)
{
    Side *source = &migration->source;

    if (side_do(source, "cont", NULL, NULL) || (g_str_equal(source->status, "postcopy-paused") &&
                                                side_do(source, "migrate_cancel", NULL, NULL)))
        return migration_refuse(error, "the source took the guest back, which is away");
    return check_one_owner(NULL, source, true, error);
}

/* The source says that it is not its guest, and that the destination has to be looked at. */
static bool
check_held(Migration *migration, GError **error)
{
    Side *source = &migration->source;

    if (g_str_equal(source->run_state, "running"))
        return migration_refuse(error, "the guest runs at the source, which gave it up");
    if (!source->error_text)
        return migration_refuse(error, "the source does not say what happened");
    if (!check_kept(migration, error))
        return false;
    bool is_told = g_str_equal(source->status, "postcopy-paused");
    if (is_told && !side_do(source, "x-peer-lost", NULL, error))
        return false;
    return quit(source, is_told && source->remaining_bytes ? EXIT_DESTINATION_LOST : -1, error);
}

/* The destination died before it ran the guest, or just as it was about to: its record tells which,
 * and with the first the guest comes back. */
static bool
check_undecided(Migration *migration, GError **error)
{
    if (!migration->plan->has_records)
        return check_held(migration, error);
    Side *source = &migration->source;
    g_autofree char *directory = records_directory(migration, &migration->destination);
    g_autofree char *where = g_strdup_printf("{\"directory\": \"%s\"}", directory);
    g_autoptr(GError) reason = NULL;

    if (!side_do(source, "x-take-back", where, &reason)) {
        if (strstr(reason->message, "does not say that it never ran the guest"))
            return check_held(migration, error);
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    migration_note(migration, "taken back");
    if (!side_look(source, error) || !g_str_equal(source->run_state, "running"))
        return *error ? false : migration_refuse(error, "taken back, and it does not run");
    return check_stayed(migration, error);
}

static bool
await_exit(Side *side, int expected, GError **error)
{
    int code = 0;

    return side_await_end(side, &code, error) &&
           (code == expected || migration_refuse(error,
                                                 "%s: ended with exit status %d, and %d was "
                                                 "its policy's",
                                                 side->role, code, expected));
}

static bool
await_paused(Side *side, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;

    while (g_str_equal(side->run_state, "running")) {
        if (!side_look(side, error))
            return *error ? false : migration_refuse(error, "%s: ended", side->role);
        if (g_get_monotonic_time() > until_us)
            return migration_refuse(error, "%s: the guest runs on without its source", side->role);
        g_usleep(POLL_US);
    }
    return true;
}

static bool
check_stalled(Migration *migration, GError **error)
{
    Side *destination = &migration->destination;
    uint64_t checks, passes;
    g_autoptr(GError) reason = NULL;

    if (!destination->error_text)
        return migration_refuse(error, "the destination does not say what happened");
    if (!side_verdict(destination, &checks, &passes, &reason) && reason) {
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    if (!side_do(destination, "x-peer-lost", NULL, error))
        return false;
    if (g_str_equal(migration->plan->lost_policy, "end"))
        return await_exit(destination, EXIT_SOURCE_LOST, error);
    if (g_str_equal(migration->plan->lost_policy, "pause") && !await_paused(destination, error))
        return false;
    return quit(destination, 1, error);
}

typedef bool Check(Migration *migration, GError **error);

static bool
check_nothing(Migration *migration, GError **error)
{
    (void)migration;
    (void)error;
    return true;
}

static Check *const checks[OUTCOME_COUNT] = {
    [OUTCOME_MOVED] = check_moved,         [OUTCOME_RECOVERED] = check_moved,
    [OUTCOME_UNCONFIRMED] = check_moved,   [OUTCOME_STAYED] = check_stayed,
    [OUTCOME_HELD] = check_held,           [OUTCOME_STALLED] = check_stalled,
    [OUTCOME_UNDECIDED] = check_undecided, [OUTCOME_GONE] = check_nothing,
    [OUTCOME_WRONG] = check_nothing,
};

/* A blow that did not come leaves what the others allow, and so does one that came after the end,
 * but for what a process that was killed then takes with it. Without any the guest moves. */
static unsigned
defined_outcomes(const Migration *migration)
{
    const Plan *plan = migration->plan;
    const unsigned moved = 1u << OUTCOME_MOVED;
    unsigned mask = plan->count_blows ? 0 : moved;

    for (unsigned i = 0; i < plan->count_blows; i++) {
        unsigned of_blow = outcome_mask(plan, &plan->blows[i], migration->phases[i]);
        if (i == 0 || migration->phases[i] != PHASE_UNHIT)
            mask |= of_blow;
        else if (migration->struck_us[i])
            mask |= of_blow & ~moved;
    }
    return mask;
}

bool
migration_check(Migration *migration, GError **error)
{
    unsigned mask = defined_outcomes(migration);

    if (!(mask >> migration->outcome & 1)) {
        g_autofree char *defined = outcome_describe(mask);
        return migration_refuse(error,
                                "'%s' is not defined here; defined: %s (source %s, destination %s)",
                                outcome_name(migration->outcome), defined, migration->source.status,
                                migration->destination.status);
    }
    return check_ended(migration, &migration->source, error) &&
           check_ended(migration, &migration->destination, error) &&
           records_check(migration, error) && checks[migration->outcome](migration, error);
}
