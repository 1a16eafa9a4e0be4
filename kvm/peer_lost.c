/* SPDX-License-Identifier: MIT */
/*
 * The policy for a lost peer: when it counts as lost, the list of pages, the event, and the deed.
 */
#include "kvm/peer_lost.h"
#include "kvm/log.h"

#include <inttypes.h>

static const char *const policy_names[] = {"stall", "pause", "end"};
G_STATIC_ASSERT(G_N_ELEMENTS(policy_names) == PEER_LOST_COUNT);

bool
peer_lost_parse(const char *text, PeerLostPolicy *ret_policy)
{
    for (unsigned i = 0; i < PEER_LOST_COUNT; i++)
        if (g_str_equal(text, policy_names[i])) {
            *ret_policy = (PeerLostPolicy)i;
            return true;
        }
    return false;
}

/* One line a range: block, offset and length in bytes. */
static uint64_t
list_missing(const Faultline *faultline, GString *list)
{
    FaultlineRange range = {0};
    uint64_t pages = 0;

    while (faultline_next_missing(faultline, &range)) {
        pages += range.count_pages;
        g_string_append_printf(list, "%s 0x%" PRIx64 " 0x%" PRIx64 "\n", range.block,
                               range.page * FAULTLINE_PAGE_BYTES,
                               range.count_pages * FAULTLINE_PAGE_BYTES);
    }
    return pages;
}

static void
write_list(const PeerLost *lost, const char *list)
{
    g_autoptr(GError) error = NULL;

    if (lost->state && !state_dir_write_beside(lost->state, STATE_LIST, list, &error))
        log_say(LOG_WARNING, "the list of missing pages: %s", error->message);
}

static void
tell(const PeerLost *lost, const FaultlineInfo *info)
{
    g_autoptr(GString) list = g_string_new(NULL);
    uint64_t pages = list_missing(lost->faultline, list);
    const char *policy = policy_names[lost->policy];
    g_autofree char *data =
        info->incoming
            ? g_strdup_printf("{\"missing-pages\": %" PRIu64 ", \"policy\": \"%s\"}", pages, policy)
            : g_strdup_printf("{\"unsent-pages\": %" PRIu64 "}", pages);

    write_list(lost, list->str);
    faultline_monitor_send_event(
        lost->monitor, info->incoming ? "MIGRATION_SOURCE_LOST" : "MIGRATION_DESTINATION_LOST",
        data);
    if (info->incoming)
        log_say(LOG_WARNING,
                "the source is lost, and %" PRIu64 " pages of the guest with it (x-query-missing-"
                "pages lists them); policy: %s",
                pages, policy);
    else
        log_say(LOG_WARNING,
                "the destination is lost; kept here are %" PRIu64
                " pages that were never sent, and all others as they were when the guest left: "
                "what it wrote at the destination is not here, so it must not be started from this",
                pages);
}

static void
pause_guest(PeerLost *lost)
{
    g_autoptr(GError) error = NULL;

    if (faultline_run_state(lost->faultline) != FAULTLINE_RUN_RUNNING)
        return;
    lost->kind->strand(lost->machine, true);
    lost->has_paused_guest = faultline_stop(lost->faultline, &error);
    if (!lost->has_paused_guest)
        log_say(LOG_WARNING, "%s", error->message);
}

/* The source is there again, or all pages are. */
static void
come_back(PeerLost *lost)
{
    g_autoptr(GError) error = NULL;

    lost->kind->strand(lost->machine, false);
    if (lost->state)
        state_dir_remove_beside(lost->state, STATE_LIST);
    if (lost->has_paused_guest && !faultline_cont(lost->faultline, &error))
        log_say(LOG_WARNING, "%s", error->message);
    lost->is_lost = lost->has_paused_guest = false;
}

static void
declare(PeerLost *lost, const FaultlineInfo *info)
{
    lost->is_lost = true;
    tell(lost, info);
    if (!info->incoming)
        return;
    if (lost->policy == PEER_LOST_PAUSE)
        pause_guest(lost);
    lost->must_end = lost->policy == PEER_LOST_END;
}

/* A recovery that is tried ends no pause: it may be the operator's hundredth. */
static bool
is_cut_off(const FaultlineInfo *info)
{
    return info->status == FAULTLINE_STATUS_POSTCOPY_PAUSED ||
           info->status == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP ||
           info->status == FAULTLINE_STATUS_POSTCOPY_RECOVER;
}

void
peer_lost_look(PeerLost *lost, const FaultlineInfo *info)
{
    if (!is_cut_off(info)) {
        lost->paused_us = 0;
        if (lost->is_lost)
            come_back(lost);
        return;
    }
    int64_t now_us = g_get_monotonic_time();
    if (!lost->paused_us)
        lost->paused_us = now_us;
    int64_t limit_us = (int64_t)MIN(lost->after_s, INT64_MAX / G_USEC_PER_SEC / 2) * G_USEC_PER_SEC;
    if (!lost->is_lost && lost->after_s && now_us - lost->paused_us >= limit_us)
        declare(lost, info);
}

bool
peer_lost_declare(PeerLost *lost, GError **error)
{
    g_autofree FaultlineInfo *info = g_new(FaultlineInfo, 1);

    faultline_query(lost->faultline, info);
    if (!is_cut_off(info)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "x-peer-lost: the migration is in state '%s'; it only works in "
                    "postcopy-paused, where the connection is lost already",
                    faultline_status_name(info->status));
        return false;
    }
    if (!lost->is_lost)
        declare(lost, info);
    return true;
}
