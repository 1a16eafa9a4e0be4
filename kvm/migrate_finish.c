/* SPDX-License-Identifier: MIT */
/*
 * The phases finish and confirm of `faultline migrate`: the destination has everything and runs;
 * then, and not before, the source's process is told to end. One thread.
 */
#include "kvm/migrate.h"

#define POLL_US         20000
#define FINISH_LIMIT_US (120 * G_USEC_PER_SEC)
#define END_LIMIT_US    (20 * G_USEC_PER_SEC)

/* ---- Finish ---------------------------------------------------------------------------------- */

static bool
look_at_destination(Migrate *migrate, MigrateLook *ret_look, GError **error)
{
    return migrate_side_look(&migrate->destination, ret_look, NULL) ||
           migrate_side_look(&migrate->destination, ret_look, error);
}

static bool
await_completion(Migrate *migrate, MigrateLook *ret_look, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + FINISH_LIMIT_US;

    while (look_at_destination(migrate, ret_look, error)) {
        if (migrate_look_is(ret_look, "completed"))
            return true;
        bool is_late = g_get_monotonic_time() > until_us;
        if (is_late || !migrate_look_is_under_way(ret_look)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "the source has sent everything, but the destination is %s: %s",
                        ret_look->status,
                        *ret_look->error ? ret_look->error : "it gives no reason");
            return false;
        }
        if (migrate_take_interrupt())
            migrate_report_say(&migrate->report,
                               "cannot cancel any more: the guest is at the destination");
        migrate_pause_us(POLL_US);
    }
    return false;
}

/* Until the guest runs there; `cont` for one that was told to wait (run --paused). */
static bool
await_guest(Migrate *migrate, MigrateLook *look, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + END_LIMIT_US;
    bool was_told = false;

    while (!migrate_look_runs(look, "running")) {
        if (migrate_look_runs(look, "paused") && !was_told &&
            !migrate_side_do(&migrate->destination, "cont", NULL, error))
            return false;
        was_told = was_told || migrate_look_runs(look, "paused");
        if (g_get_monotonic_time() > until_us) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "the destination has the guest, but does not run it: its state is %s",
                        look->run_state);
            return false;
        }
        migrate_pause_us(POLL_US);
        if (!look_at_destination(migrate, look, error))
            return false;
    }
    return true;
}

bool
migrate_finish(Migrate *migrate, GError **error)
{
    MigrateLook look;

    if (!await_completion(migrate, &look, error))
        return false;
    if (look.missing_pages > 0) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                    "the destination says completed, and that %" G_GINT64_FORMAT
                    " pages are missing",
                    look.missing_pages);
        return false;
    }
    if (migrate->was_running && !await_guest(migrate, &look, error))
        return false;
    migrate_report_say(&migrate->report, "the destination has every page, and its guest is %s",
                       look.run_state);
    return true;
}

/* ---- Confirm --------------------------------------------------------------------------------- */

/* It has ended when nobody listens at its socket. */
static bool
await_end(Migrate *migrate)
{
    int64_t until_us = g_get_monotonic_time() + END_LIMIT_US;

    migrate_side_close(&migrate->source);
    while (g_get_monotonic_time() < until_us) {
        g_autoptr(GError) error = NULL;
        g_autoptr(QmpClient) client = qmp_client_open_within(migrate->source.path, 1, &error);
        if (!client && !g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT))
            return true;
        migrate_pause_us(POLL_US);
    }
    return false;
}

/* The one failure here: the guest's own side is gone. The source gave the guest away and refuses to
 * run it; while its process lives, its memory can still be looked at. */
static bool
destination_answers(Migrate *migrate, GError **error)
{
    MigrateLook look;

    return migrate_side_look(&migrate->destination, &look, NULL) ||
           migrate_side_look(&migrate->destination, &look, error);
}

bool
migrate_confirm(Migrate *migrate, GError **error)
{
    g_autoptr(GError) reason = NULL;
    MigrateLook look;

    if (!destination_answers(migrate, error))
        return false;
    if (!migrate_side_look(&migrate->source, &look, NULL) &&
        !migrate_side_look(&migrate->source, &look, &reason)) {
        migrate_report_say(&migrate->report, "the source has ended by itself: %s", reason->message);
        return true;
    }
    if (migrate->options->keep_source) {
        migrate_report_say(&migrate->report, "the source's process stays, in state %s",
                           look.run_state);
        return true;
    }
    /* It may be gone before its answer is out. */
    migrate_side_do(&migrate->source, "quit", NULL, NULL);
    migrate_report_say(&migrate->report, await_end(migrate)
                                             ? "the source has ended"
                                             : "the source was told to end, and has not yet");
    return destination_answers(migrate, error);
}
