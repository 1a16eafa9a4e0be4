/* SPDX-License-Identifier: MIT */
/*
 * After a failure, or when the user cancelled: brings both sides to rest, finds out where the guest
 * is, and sees to it that it runs there if it ran before. Commands only what a side can refuse
 * without harm: migrate_cancel and cont, which a source that gave its guest away refuses. One
 * thread.
 */
#include "kvm/migrate.h"

#include "kvm/command.h"

#define POLL_US       50000
#define REST_LIMIT_US (30 * G_USEC_PER_SEC)

/* ---- To rest --------------------------------------------------------------------------------- */

/* Can still be cancelled, or is on its way to an end. */
static bool
is_moving(const MigrateLook *look)
{
    return migrate_look_is_under_way(look) && !g_str_has_prefix(look->status, "postcopy-");
}

static bool
rest_source(Migrate *migrate, MigrateLook *ret_look)
{
    int64_t until_us = g_get_monotonic_time() + REST_LIMIT_US;
    bool was_told = false, reached;

    while ((reached = migrate_side_look(&migrate->source, ret_look, NULL)) && migrate->has_begun &&
           is_moving(ret_look) && g_get_monotonic_time() < until_us) {
        if (!was_told)
            migrate_side_do(&migrate->source, "migrate_cancel", NULL, NULL);
        was_told = true;
        migrate_pause_us(POLL_US);
    }
    return reached;
}

/* With a source that is gone it takes the destination a moment to notice. */
static bool
rest_destination(Migrate *migrate, MigrateLook *ret_look)
{
    int64_t until_us = g_get_monotonic_time() + REST_LIMIT_US;
    bool reached;

    while ((reached = migrate_side_look(&migrate->destination, ret_look, NULL)) &&
           migrate->has_begun && migrate_look_is_under_way(ret_look) &&
           !migrate_look_is(ret_look, "setup") && g_get_monotonic_time() < until_us)
        migrate_pause_us(POLL_US);
    return reached;
}

/* A source that failed runs its guest on by itself; this is for one that did not. */
static bool
resume_source(Migrate *migrate, MigrateLook *look)
{
    return migrate_look_runs(look, "paused") && migrate->was_running &&
           migrate_side_do(&migrate->source, "cont", NULL, NULL) &&
           migrate_side_look(&migrate->source, look, NULL);
}

/* ---- What to say ----------------------------------------------------------------------------- */

static const struct {
    const char *name, *guest;
    int exit_code;
} outcomes[] = {
    [MIGRATE_GUEST_AT_SOURCE] = {"failed", "source", EXIT_FAILED},
    [MIGRATE_GUEST_AT_DESTINATION] = {"unfinished", "destination", MIGRATE_EXIT_UNFINISHED},
    [MIGRATE_GUEST_WAITS] = {"paused", "destination", MIGRATE_EXIT_PAUSED},
    [MIGRATE_GUEST_LOST] = {"lost", "none", MIGRATE_EXIT_LOST},
    [MIGRATE_GUEST_UNKNOWN] = {"lost", "unknown", MIGRATE_EXIT_LOST},
};

static char *
source_text(const Migrate *migrate, const MigrateLook *source, const MigrateLook *destination,
            bool resumed)
{
    const char *left = !destination ? "the destination does not answer: start another"
                       : migrate_look_is(destination, "setup")
                           ? "the destination listens on, with the settings it has got"
                           : "the destination can be given again";

    return g_strdup_printf("The guest %s at the source%s; %s.",
                           migrate_look_runs(source, "running") ? "runs" : "stands",
                           resumed              ? ", where it was resumed"
                           : migrate->has_begun ? ", as before"
                                                : ", and nothing had begun",
                           left);
}

static char *
guest_text(const Migrate *migrate, MigrateGuest guest, const MigrateLook *source,
           const MigrateLook *destination, bool resumed)
{
    switch (guest) {
    case MIGRATE_GUEST_AT_SOURCE:
        return source_text(migrate, source, destination, resumed);
    case MIGRATE_GUEST_AT_DESTINATION:
        return g_strdup_printf("The guest is at the destination, in state %s; the source will not "
                               "run it again.",
                               destination->run_state);
    case MIGRATE_GUEST_WAITS:
        return g_strdup("The guest is at the destination and waits for pages that only the source "
                        "has: keep both machines.");
    case MIGRATE_GUEST_LOST:
        return g_strdup_printf("The guest is lost: %s.",
                               source        ? "the destination ended with the pages it had"
                               : destination ? "the source ended with pages that were only there"
                                             : "both sides have ended");
    default:
        return g_strdup_printf("Nobody says where the guest is: %s. Ask query-status at both sides "
                               "before you start it anywhere.",
                               source ? "the source gave it away, and the destination does not say "
                                        "that it has it"
                                      : "no side answers");
    }
}

/* A source that never answered is none that ended. */
static int
settle_unreached(Migrate *migrate, const GError *failure)
{
    g_autofree char *text =
        g_strdup_printf("%s: %s. Nothing had begun; give the PATH that faultline run --qmp "
                        "unix:PATH got.",
                        migrate->report.phase, failure->message);
    const MigrateOutcome outcome = {
        .name = "failed", .guest = "unknown", .text = text, .exit_code = EXIT_FAILED};

    migrate_report_outcome(&migrate->report, &outcome);
    return outcome.exit_code;
}

int
migrate_settle(Migrate *migrate, const GError *failure)
{
    MigrateLook looks[2], *source = NULL, *destination = NULL;

    if (rest_source(migrate, &looks[0]))
        source = &looks[0];
    if (!source && !migrate->has_begun && !migrate->source.capabilities)
        return settle_unreached(migrate, failure);
    if (migrate->destination.path && rest_destination(migrate, &looks[1]))
        destination = &looks[1];
    bool resumed = source && resume_source(migrate, source);
    MigrateGuest guest = migrate_locate(source, destination);
    g_autofree char *where = guest_text(migrate, guest, source, destination, resumed);
    bool cancelled = migrate->is_cancelled && guest == MIGRATE_GUEST_AT_SOURCE;
    g_autofree char *text =
        cancelled ? g_strdup_printf("%s: cancelled. %s", migrate->report.phase, where)
                  : g_strdup_printf("%s: %s. %s", migrate->report.phase, failure->message, where);
    const MigrateOutcome outcome = {
        .name = cancelled ? "cancelled" : outcomes[guest].name,
        .guest = outcomes[guest].guest,
        .text = text,
        .exit_code = cancelled ? MIGRATE_EXIT_CANCELLED : outcomes[guest].exit_code,
        .figures = migrate->last.total_bytes > 0 ? &migrate->last : NULL,
    };
    migrate_report_outcome(&migrate->report, &outcome);
    return outcome.exit_code;
}
