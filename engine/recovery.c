/* SPDX-License-Identifier: MIT */
/*
 * The commands of a recovery, and what pauses have cost. Control thread; engine/source/recover.c
 * and engine/destination/recover.c do the rest.
 */
#include "engine/destination/destination.h"
#include "engine/error.h"
#include "engine/migration.h"
#include "engine/source/source.h"

static bool
refuse(GError **error, const char *text)
{
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, text);
    return false;
}

bool
faultline_migrate_resume(Faultline *faultline, const char *uri, GError **error)
{
    static const char *const not_paused =
        "migrate: cannot resume, as there is no paused migration; 'resume' goes on with one from "
        "here whose status is postcopy-paused";

    if (!faultline->source || context_status(faultline) != FAULTLINE_STATUS_POSTCOPY_PAUSED)
        return refuse(error, not_paused);
    if (faultline->source->releases_ram)
        return refuse(error, "migrate: postcopy recovery cannot work when release-ram is set: the "
                             "pages that were sent are gone here");
    if (!transport_check_uri(uri, false, error))
        return error_translate(error);
    if (!migration_check_connections(faultline, uri, error) ||
        !security_take(faultline, uri, false, error))
        return false;
    if (!context_move_from(faultline, FAULTLINE_STATUS_POSTCOPY_PAUSED,
                           FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP))
        return refuse(error, not_paused);
    context_forget_error(faultline);
    source_set_flag(&faultline->source->has_command);
    source_resume(faultline->source, uri);
    return true;
}

bool
faultline_recover(Faultline *faultline, const char *uri, GError **error)
{
    if (!faultline->destination || context_status(faultline) != FAULTLINE_STATUS_POSTCOPY_PAUSED)
        return refuse(error, "migrate-recover: it can only be run at a destination, and when "
                             "postcopy is paused");
    if (!transport_check_uri(uri, true, error))
        return error_translate(error);
    if (!security_take(faultline, uri, true, error))
        return false;
    return destination_recover(faultline->destination, uri, error) || error_translate(error);
}

void
faultline_query_pauses(const Faultline *faultline, FaultlinePauses *ret_pauses)
{
    const Progress *progress = &faultline->progress;
    uint64_t now_ns = clock_now_ns(), began_ns = progress_get(&progress->pause_began_ns);
    uint64_t lasts_ns = began_ns && now_ns > began_ns ? now_ns - began_ns : 0;

    *ret_pauses = (FaultlinePauses){
        .count = progress_get(&progress->pauses),
        .total_us = (progress_get(&progress->paused_ns) + lasts_ns) / 1000u,
        .longest_us = MAX(progress_get(&progress->longest_pause_ns), lasts_ns) / 1000u,
        .attempts = progress_get(&progress->recover_attempts),
    };
    uint64_t next_ns = progress_get(&progress->recover_next_ns);
    if (!faultline->source || !next_ns ||
        context_status(faultline) != FAULTLINE_STATUS_POSTCOPY_PAUSED)
        return;
    uint64_t next = progress_get(&progress->recover_address);
    ret_pauses->will_retry = true;
    ret_pauses->next_us = next_ns > now_ns ? (next_ns - now_ns) / 1000u : 0;
    g_strlcpy(ret_pauses->next_uri, faultline->source->addresses[next % SOURCE_ADDRESSES_MAX],
              sizeof ret_pauses->next_uri);
}
