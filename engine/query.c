/* SPDX-License-Identifier: MIT */
/*
 * The figures of a migration as one snapshot. Control thread; each figure is read whole while the
 * roles go on.
 */
#include "engine/context.h"
#include "engine/destination/destination.h"
#include "engine/figures.h"

static uint64_t
elapsed_ms(const Progress *progress, bool is_busy)
{
    uint64_t started_ns = progress_get(&progress->started_ns);
    uint64_t ended_ns = is_busy ? clock_now_ns() : progress_get(&progress->ended_ns);
    return started_ns && ended_ns > started_ns ? (ended_ns - started_ns) / 1000000u : 0;
}

static void
read_times(const Faultline *faultline, FaultlineInfo *info)
{
    const Progress *progress = &faultline->progress;
    uint64_t started_ns = progress_get(&progress->started_ns);
    uint64_t active_ns = progress_get(&progress->active_ns);

    info->total_time_ms = elapsed_ms(progress, context_is_busy(faultline));
    info->setup_time_ms = active_ns > started_ns ? (active_ns - started_ns) / 1000000u : 0;
    info->downtime_us = progress_get(&progress->downtime_ns) / 1000u;
    info->expected_downtime_ms = progress_get(&progress->expected_downtime_ms);
    for (unsigned i = 0; i < FAULTLINE_MOMENT_COUNT; i++)
        info->moment_ns[i] = progress_get(&progress->moment_ns[i]);
}

static void
read_pages(const Faultline *faultline, FaultlineInfo *info)
{
    const Progress *progress = &faultline->progress;
    uint64_t urgent_bytes = progress_get(&progress->urgent_bytes);

    info->ram_total_bytes = faultline->blocks.total_bytes;
    info->ram_remaining_bytes = progress_get(&progress->remaining_bytes);
    info->precopy_bytes = progress_get(&progress->precopy_bytes);
    info->downtime_bytes = progress_get(&progress->downtime_bytes);
    info->postcopy_bytes = progress_get(&progress->postcopy_bytes) + urgent_bytes;
    info->ram_transferred_bytes = info->precopy_bytes + info->downtime_bytes + info->postcopy_bytes;
    info->normal_pages =
        progress_get(&progress->normal_pages) + progress_get(&progress->urgent_normal_pages);
    info->zero_pages =
        progress_get(&progress->zero_pages) + progress_get(&progress->urgent_zero_pages);
    info->precopy_pages = progress_get(&progress->precopy_pages);
    info->pushed_pages = progress_get(&progress->pushed_pages);
    info->requested_pages =
        progress_get(&progress->requested_pages) + progress_get(&progress->requested_main_pages);
    info->neighbour_pages = progress_get(&progress->neighbour_pages);
    info->postcopy_requests = progress_get(&progress->postcopy_requests);
    info->local_faults = progress_get(&progress->local_faults);
}

static void
read_rates(const Faultline *faultline, FaultlineInfo *info)
{
    const Progress *progress = &faultline->progress;

    info->dirty_sync_count = progress_get(&progress->dirty_sync_count);
    info->dirty_pages_per_s = progress_get(&progress->dirty_pages_per_s);
    info->bandwidth_bytes_per_s = progress_get(&progress->bandwidth_bytes_per_s);
    info->cpu_throttle_percent = progress_get(&progress->throttle_percent);
    if (!context_is_busy(faultline) && info->total_time_ms)
        info->bandwidth_bytes_per_s = info->ram_transferred_bytes * 1000 / info->total_time_ms;
    if (info->total_time_ms)
        info->pages_per_s = (info->normal_pages + info->zero_pages) * 1000 / info->total_time_ms;
}

const char *
faultline_verdict_name(FaultlineVerdict verdict)
{
    static const char *const names[] = {
        [FAULTLINE_VERDICT_UNCHECKED] = "unchecked",
        [FAULTLINE_VERDICT_PENDING] = "pending",
        [FAULTLINE_VERDICT_PASSED] = "passed",
        [FAULTLINE_VERDICT_FAILED] = "failed",
    };
    G_STATIC_ASSERT(G_N_ELEMENTS(names) == FAULTLINE_VERDICT_COUNT);

    return (unsigned)verdict < FAULTLINE_VERDICT_COUNT ? names[verdict] : "unknown";
}

/* Nothing is sent unchecked where checksums are on, so that pages need not be counted twice; a
 * destination counts those as received that it took. */
static void
read_integrity(const Faultline *faultline, FaultlineInfo *info)
{
    const Progress *progress = &faultline->progress;
    FaultlineIntegrity *integrity = &info->integrity;

    integrity->verdict = (FaultlineVerdict)progress_get(&progress->verdict);
    integrity->damaged_pages = progress_get(&progress->damaged_pages);
    integrity->asked_again = progress_get(&progress->asked_again);
    if (integrity->verdict == FAULTLINE_VERDICT_UNCHECKED)
        return;
    integrity->checked_pages = info->normal_pages + info->zero_pages;
    if (info->incoming)
        integrity->checked_pages += integrity->damaged_pages;
}

void
faultline_query(const Faultline *faultline, FaultlineInfo *ret_info)
{
    *ret_info = (FaultlineInfo){
        .status = context_status(faultline),
        .run_state = faultline_run_state(faultline),
        .incoming = faultline->destination != NULL,
        .is_unheard = progress_get(&faultline->progress.is_unheard),
    };
    read_times(faultline, ret_info);
    read_pages(faultline, ret_info);
    read_rates(faultline, ret_info);
    read_integrity(faultline, ret_info);
    uint64_t now_ns = clock_now_ns();
    Faultline *locked =
        (Faultline *)faultline; /* only for its lock, and for the marks of queries */
    figures_read_channels(locked, ret_info, now_ns);
    const Destination *destination = faultline->destination;
    if (destination) {
        ret_info->missing_pages = __atomic_load_n(&destination->missing_pages, __ATOMIC_ACQUIRE);
        if (destination->accounts)
            account_read(&destination->account, now_ns, ret_info);
    }
    figures_read_residence(faultline, ret_info, now_ns);
    pthread_mutex_lock(&locked->lock);
    ret_info->refused_connections = faultline->refused_connections;
    if (faultline->refusal)
        g_strlcpy(ret_info->refusal, faultline->refusal, sizeof ret_info->refusal);
    if (faultline->error)
        g_strlcpy(ret_info->error, faultline->error->message, sizeof ret_info->error);
    pthread_mutex_unlock(&locked->lock);
}
