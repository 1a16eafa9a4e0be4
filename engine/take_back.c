/* SPDX-License-Identifier: MIT */
/*
 * A guest that was given away is taken back on the word of the destination's record, when the
 * destination itself cannot speak any more. Control thread.
 */
#include "engine/error.h"
#include "engine/record.h"
#include "engine/source/source.h"

static bool
refuse(GError **error, FaultlineError code, const char *text)
{
    g_set_error(error, FAULTLINE_ERROR, code, "take back: %s", text);
    return false;
}

static bool
check_away(const Faultline *faultline, GError **error)
{
    FaultlineStatus status = context_status(faultline);
    bool is_open = status == FAULTLINE_STATUS_POSTCOPY_PAUSED || status == FAULTLINE_STATUS_FAILED;

    return (faultline->source && is_open &&
            faultline_run_state(faultline) == FAULTLINE_RUN_POSTMIGRATE) ||
           refuse(error, FAULTLINE_ERROR_STATE,
                  "only a guest that was given away, in a migration from here that stands in "
                  "postcopy-paused or failed, can come back");
}

/* What the destination wrote, and what it said itself. */
static bool
check_words(const Faultline *faultline, const FaultlineLastWords *words, GError **error)
{
    const Source *source = faultline->source;
    uint64_t migration = record_migration((Faultline *)faultline);
    bool has_loaded = source_flag(&source->has_loaded);

    if (words->owner != FAULTLINE_OWNER_COMING && words->owner != FAULTLINE_OWNER_REFUSED)
        return refuse(error, FAULTLINE_ERROR_STATE,
                      "the destination's record does not say that it never ran the guest, so it "
                      "stays stopped here; start it from its disk, where it ran last");
    if (words->migration && migration && words->migration != migration)
        return refuse(error, FAULTLINE_ERROR_ARGUMENT,
                      "the destination's record is of another migration; look for the one that the "
                      "destination of this one kept");
    if (words->owner == FAULTLINE_OWNER_COMING && has_loaded)
        return refuse(error, FAULTLINE_ERROR_ARGUMENT,
                      "the destination said that it had loaded the guest, and this record is older "
                      "than that or another's; look for its record on its own host");
    if (words->owner == FAULTLINE_OWNER_COMING && !words->has_ended)
        return refuse(error, FAULTLINE_ERROR_STATE,
                      "the destination's process may still live, and then may still run the guest; "
                      "make sure that it is gone, and say so");
    if (source->releases_ram && has_loaded)
        return refuse(error, FAULTLINE_ERROR_STATE,
                      "with release-ram, pages that were sent are not here any more");
    return true;
}

/* The roles only wait, and would come again. False: the destination has spoken in the last moment.
 */
static bool
end_roles(Faultline *faultline)
{
    source_stop(faultline->source);
    g_clear_pointer(&faultline->threads, role_threads_join);
    if (context_status(faultline) == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP)
        context_move(faultline, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    return context_status(faultline) != FAULTLINE_STATUS_COMPLETED;
}

bool
faultline_take_back(Faultline *faultline, const FaultlineLastWords *words, GError **error)
{
    if (!check_away(faultline, error) || !check_words(faultline, words, error))
        return false;
    if (!record_write(faultline, FAULTLINE_OWNER_HERE, FAULTLINE_STATUS_FAILED))
        return refuse(error, FAULTLINE_ERROR_HOST,
                      "the record here still says that the guest was given away, and cannot be "
                      "written; mend its place, and say it again. The guest stays stopped here, "
                      "whole");
    if (faultline->threads && !end_roles(faultline)) {
        record_write(faultline, FAULTLINE_OWNER_THERE, FAULTLINE_STATUS_COMPLETED);
        return refuse(error, FAULTLINE_ERROR_STATE,
                      "the destination has just said that it has the guest, whole");
    }
    context_forget_error(faultline);
    context_keep_error(faultline,
                       g_error_new_literal(FAULTLINE_ERROR, FAULTLINE_ERROR_CANCELLED,
                                           "migrate: the guest was taken back, as the "
                                           "destination's record says that it never ran there. It "
                                           "is at the source, whole"));
    bool is_settled = context_settle_guest(faultline, faultline->source->was_running, error);
    if (context_status(faultline) != FAULTLINE_STATUS_FAILED)
        context_move(faultline, FAULTLINE_STATUS_FAILED);
    if (!is_settled)
        g_prefix_error(error, "taken back, and it stands paused here, whole; try 'cont': ");
    return is_settled || error_translate(error);
}
