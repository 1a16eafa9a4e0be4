/* SPDX-License-Identifier: MIT */
/*
 * One migration that something happens to, from two new processes to a judged end:
 *
 *   migration_drive    starts it, arms the strike at its moment, does what an operator would do
 *                      afterwards, until both sides have come to rest
 *   migration_judge    in which phase the strike came, and what has become of the guest
 *   migration_check    whether that is true: one owner, the right bytes, processes that end well
 *
 * One thread, besides the relay's.
 */
#ifndef TESTS_CHAOS_MIGRATION_H
#define TESTS_CHAOS_MIGRATION_H

#include "tests/chaos/outcome.h"
#include "tests/chaos/side.h"

typedef struct Migration {
    const Plan *plan;
    const char *directory;
    Side source, destination;
    Relay *relay;
    GThread *wakers[BLOWS_MAX]; /* each lets a stopped process go on */

    const Blow *blow; /* the one whose turn it is; NULL: no more of them */
    bool is_armed, wished, operated;
    unsigned recoveries;
    uint64_t passes_before; /* of the guest of threads at the source */

    int64_t struck_us[BLOWS_MAX]; /* wall clock; 0: it did not come */
    Phase phases[BLOWS_MAX];
    Outcome outcome;
    GString *story; /* what was seen and done, a line each */
    int64_t began_us;
} Migration;

/* directory: of this migration alone. */
void migration_init(Migration *migration, const Plan *plan, const char *directory);
bool migration_drive(Migration *migration, GError **error);
void migration_judge(Migration *migration);
bool migration_check(Migration *migration, GError **error);

/* Part of driving: an operator takes up the paused migration, and the second blow is armed. */
bool migration_recover(Migration *migration, GError **error);

/* Says migrate at the source; fine if the blow has killed it just now. */
bool migration_do_migrate(Migration *migration, const char *arguments, GError **error);

/* Arms the blow whose turn it is, when its moment has come. */
void migration_arm_if_moment(Migration *migration);

/* Whether a blow killed it. */
bool migration_was_killed(const Migration *migration, const Side *side);
void migration_clear(Migration *migration);

/* Appends a line to the story, with the time. */
void migration_note(Migration *migration, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Arguments of `faultline run`: incoming is a URI to listen at, or NULL for a source. */
GPtrArray *migration_arguments(const Migration *migration, const char *incoming);

/* Fails an operation; format as printf. */
bool migration_refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

#endif
