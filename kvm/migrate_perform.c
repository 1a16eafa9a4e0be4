/* SPDX-License-Identifier: MIT */
/*
 * The phase perform of `faultline migrate`: the source migrates, and is steered until it says
 * completed. Only the source is asked: a destination whose monitor is gone may be well, and the
 * engine knows what it needs of it. One thread.
 */
#include "kvm/migrate.h"

#define POLL_US       20000
#define STALL_POLL_US 5000 /* the beginning of a pass is to be seen at its beginning */

typedef struct Perform {
    Migrate *migrate;
    int64_t began_us;
    int64_t looked_us;   /* the look before this one */
    uint64_t allowed_ms; /* downtime, as the source was told last */
    MigrateWatch watch;
    bool is_switching; /* migrate-start-postcopy was said */
    bool is_cancelling;
    bool is_continued; /* migrate-continue was said */
    bool said_healing; /* of the last pause */
} Perform;

static uint64_t
elapsed_ms(const Perform *perform)
{
    return (uint64_t)(g_get_monotonic_time() - perform->began_us) / 1000;
}

static bool
is_postcopy(const MigrateLook *look)
{
    return g_str_has_prefix(look->status, "postcopy-");
}

static bool
fail_with(const MigrateLook *look, GError **error)
{
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "the migration is %s: %s", look->status,
                *look->error ? look->error : "the source gives no reason");
    return false;
}

/* ---- Ctrl-C ---------------------------------------------------------------------------------- */

static void
refuse_interrupt(const Perform *perform)
{
    const Migrate *migrate = perform->migrate;

    migrate_report_say(&perform->migrate->report,
                       "cannot cancel in postcopy: the guest runs at the destination, and some of "
                       "its pages are only at the source. To pause it, with everything kept: "
                       "faultline monitor %s migrate_pause. The migration also goes on without "
                       "this program (Ctrl-\\ ends it).",
                       migrate->source.path);
}

static void
take_interrupt(Perform *perform, const MigrateLook *look)
{
    Migrate *migrate = perform->migrate;
    g_autoptr(GError) error = NULL;

    if (is_postcopy(look)) {
        refuse_interrupt(perform);
        return;
    }
    if (perform->is_cancelling)
        return;
    if (migrate_side_do(&migrate->source, "migrate_cancel", NULL, &error)) {
        perform->is_cancelling = migrate->is_cancelled = true;
        migrate_report_say(&migrate->report, "cancelling: the guest goes on at the source");
    } else {
        migrate_report_say(&migrate->report, "cannot cancel any more: %s", error->message);
    }
}

/* ---- Steering -------------------------------------------------------------------------------- */

static bool
raise_downtime(Perform *perform, GError **error)
{
    Migrate *migrate = perform->migrate;
    uint64_t allowed_ms = migrate_downtime_at(&migrate->downtime, elapsed_ms(perform));

    if (allowed_ms == perform->allowed_ms)
        return true;
    JsonObject *arguments = json_object_new();
    migrate_side_put_parameter(arguments, "downtime-limit", allowed_ms);
    perform->allowed_ms = allowed_ms;
    return migrate_side_do(&migrate->source, "migrate-set-parameters", arguments, error);
}

/* What was left at the beginning of the pass: something was sent since, for as long as nobody
 * looked at most. */
static uint64_t
pass_bytes(const Perform *perform, const MigrateLook *look)
{
    int64_t since_us = g_get_monotonic_time() - perform->looked_us;
    double sent = (double)MAX(look->bytes_per_s, 0) * (double)since_us / 1e6;
    double bytes = (double)look->remaining_bytes + sent;

    return (uint64_t)(look->pass == 1 ? (double)look->total_bytes
                                      : CLAMP(bytes, 0, (double)look->total_bytes));
}

static bool
switch_if_wanted(Perform *perform, const MigrateLook *look, GError **error)
{
    Migrate *migrate = perform->migrate;

    if (perform->is_switching || look->pass < 1 ||
        !migrate_policy_wants_postcopy(&migrate->options->policy, &perform->watch,
                                       elapsed_ms(perform), (uint64_t)look->pass,
                                       pass_bytes(perform, look)))
        return true;
    perform->is_switching = true;
    migrate_report_say(&migrate->report,
                       "switching to postcopy in pass %" G_GINT64_FORMAT
                       ", %.1f MiB are left of it",
                       look->pass, (double)look->remaining_bytes / 1048576);
    return migrate_side_do(&migrate->source, "migrate-start-postcopy", NULL, error);
}

/* A refusal (the state has changed since the look) shows in the next look. */
static bool
steer(Perform *perform, const MigrateLook *look, GError **error)
{
    Migrate *migrate = perform->migrate;
    g_autoptr(GError) reason = NULL;
    bool good = true;

    if (perform->is_cancelling)
        return true;
    if (migrate_look_is(look, "pre-switchover") && !perform->is_continued) {
        JsonObject *arguments = json_object_new();
        json_object_set_string_member(arguments, "state", "pre-switchover");
        perform->is_continued = true;
        good = migrate_side_do(&migrate->source, "migrate-continue", arguments, &reason);
    } else if (migrate_look_is(look, "active")) {
        good = raise_downtime(perform, &reason) && switch_if_wanted(perform, look, &reason);
    }
    if (good || g_error_matches(reason, G_IO_ERROR, G_IO_ERROR_FAILED))
        return true;
    g_propagate_error(error, g_steal_pointer(&reason));
    return false;
}

/* A broken connection is tried anew once: the monitor is not the migration. */
static bool
look_at_source(Migrate *migrate, GError **error)
{
    return migrate_side_look(&migrate->source, &migrate->last, NULL) ||
           migrate_side_look(&migrate->source, &migrate->last, error);
}

/* The source comes again by itself, and there is somebody to come to. */
static bool
heals(Perform *perform, const MigrateLook *look)
{
    Migrate *migrate = perform->migrate;
    MigrateLook there;
    bool is_paused = migrate_look_is(look, "postcopy-paused");

    if (!is_paused || !look->will_retry ||
        (!migrate_side_look(&migrate->destination, &there, NULL) &&
         !migrate_side_look(&migrate->destination, &there, NULL)))
        return false;
    if (!perform->said_healing)
        migrate_report_say(&migrate->report,
                           "the connection is lost, with everything kept; the source connects "
                           "again by itself: %s",
                           look->error);
    perform->said_healing = true;
    return true;
}

static bool
follow(Perform *perform, GError **error)
{
    Migrate *migrate = perform->migrate;
    const MigrateLook *look = &migrate->last;
    bool is_stall = migrate->options->policy.kind == MIGRATE_POSTCOPY_STALL;

    while (look_at_source(migrate, error)) {
        if (migrate_look_is(look, "completed"))
            return true;
        if (!migrate_look_is_under_way(look) && !heals(perform, look))
            return fail_with(look, error);
        if (migrate_take_interrupt())
            take_interrupt(perform, look);
        perform->said_healing &= migrate_look_is(look, "postcopy-paused") ||
                                 g_str_has_prefix(look->status, "postcopy-recover");
        if (!steer(perform, look, error))
            return false;
        migrate_report_progress(&migrate->report, look, perform->allowed_ms);
        perform->looked_us = g_get_monotonic_time();
        migrate_pause_us(is_stall && !perform->is_switching ? STALL_POLL_US : POLL_US);
    }
    return false;
}

bool
migrate_perform(Migrate *migrate, GError **error)
{
    Perform perform = {
        .migrate = migrate,
        .began_us = g_get_monotonic_time(),
        .looked_us = g_get_monotonic_time(),
        .allowed_ms = migrate_downtime_at(&migrate->downtime, 0),
    };

    migrate->has_begun = true;
    if (!migrate_side_do(&migrate->source, "migrate", migrate_uri_arguments(migrate->uri), error) ||
        !follow(&perform, error))
        return false;
    migrate_report_say(&migrate->report,
                       "all is sent: %" G_GINT64_FORMAT " whole passes, %.1f s; the guest stood "
                       "still for %" G_GINT64_FORMAT " ms",
                       MAX(migrate->last.pass - 2, 0), (double)migrate->last.total_ms / 1000,
                       migrate->last.downtime_ms);
    return true;
}
