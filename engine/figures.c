/* SPDX-License-Identifier: MIT */
/*
 * Figures that are reckoned when somebody asks: what goes over each channel, how long until all of
 * guest memory is here, latencies of one vCPU, the map of guest memory. Control thread; the roles
 * go on and pay nothing for it.
 */
#include "engine/figures.h"
#include "engine/destination/destination.h"
#include "engine/source/source.h"

#define NS_PER_S 1000000000ull

/* ---- Channels -------------------------------------------------------------------------------- */

static uint64_t
rate_of(uint64_t bytes, uint64_t before, uint64_t took_ns)
{
    return (uint64_t)((double)(bytes - before) * (double)NS_PER_S / (double)took_ns);
}

/* Both marks are of this migration, and the older one at least a second old where that can be. */
static void
move_marks(ChannelMark *marks, uint64_t started_ns, const ChannelMark *now)
{
    for (unsigned i = 0; i < 2; i++)
        if (marks[i].when_ns < started_ns)
            marks[i] = (ChannelMark){.when_ns = started_ns};
    if (now->when_ns - marks[1].when_ns < NS_PER_S)
        return;
    marks[0] = marks[1];
    marks[1] = *now;
}

static void
read_rates(Faultline *faultline, FaultlineInfo *info, uint64_t now_ns)
{
    const Progress *progress = &faultline->progress;
    /* A destination may have waited long for its source. */
    uint64_t started_ns =
        MAX(progress_get(&progress->started_ns), progress_get(&progress->active_ns));
    uint64_t ended_ns = progress_get(&progress->ended_ns);
    ChannelMark mark = {.when_ns = started_ns}; /* when it is over: the whole of it */

    if (!started_ns)
        return;
    if (context_is_busy(faultline) || ended_ns < started_ns) {
        const ChannelMark now = {now_ns, info->main_bytes, info->urgent_bytes};
        move_marks(faultline->marks, started_ns, &now);
        mark = faultline->marks[0];
        ended_ns = now_ns;
    }
    if (ended_ns <= mark.when_ns)
        return;
    info->main_bytes_per_s = rate_of(info->main_bytes, mark.main_bytes, ended_ns - mark.when_ns);
    info->urgent_bytes_per_s =
        rate_of(info->urgent_bytes, mark.urgent_bytes, ended_ns - mark.when_ns);
}

void
figures_read_channels(Faultline *faultline, FaultlineInfo *info, uint64_t now_ns)
{
    const Progress *progress = &faultline->progress;

    if (info->incoming) {
        info->main_bytes = progress_get(&progress->received_main_bytes);
        info->urgent_bytes = progress_get(&progress->received_urgent_bytes);
    } else {
        info->urgent_bytes = progress_get(&progress->urgent_bytes);
        info->main_bytes = info->ram_transferred_bytes - info->urgent_bytes;
    }
    read_rates(faultline, info, now_ns);
}

/* ---- Residence ------------------------------------------------------------------------------- */

void
figures_read_residence(const Faultline *faultline, FaultlineInfo *info, uint64_t now_ns)
{
    uint64_t running_ns = info->moment_ns[FAULTLINE_MOMENT_RUNNING];
    uint64_t resident_ns = info->moment_ns[FAULTLINE_MOMENT_RESIDENT];
    uint64_t rate = info->main_bytes_per_s + info->urgent_bytes_per_s;

    info->expected_resident_ms = UINT64_MAX;
    if (!faultline->destination || !running_ns)
        return;
    if (!info->missing_pages) {
        info->resident_time_us = resident_ns > running_ns ? (resident_ns - running_ns) / 1000u : 0;
        info->expected_resident_ms = info->resident_time_us / 1000u;
        return;
    }
    info->resident_time_us = (now_ns - running_ns) / 1000u;
    if (rate && context_is_busy(faultline))
        info->expected_resident_ms =
            info->resident_time_us / 1000u +
            (uint64_t)((double)info->missing_pages * FAULTLINE_PAGE_BYTES * 1000.0 / (double)rate);
}

/* ---- One vCPU -------------------------------------------------------------------------------- */

bool
faultline_query_vcpu(const Faultline *faultline, unsigned index, FaultlineLatency *ret_latency)
{
    const Destination *destination = faultline->destination;
    return destination && destination->accounts &&
           account_read_vcpu(&destination->account, index, ret_latency);
}

/* ---- The map --------------------------------------------------------------------------------- */

static void
add_pages(const Faultline *faultline, const RamBlock *block, uint64_t page, uint64_t end,
          FaultlineMapCell *cell)
{
    cell->pages += end - page;
    if (!faultline->destination) {
        cell->left += page_bitmap_count_range(block->dirty, NULL, page, end);
        return;
    }
    cell->left += end - page - page_bitmap_count_range(block->received, NULL, page, end);
    cell->waiting +=
        block->host_pages * page_bitmap_count_range(block->requested, block->received, page, end);
}

/* Where in all of memory a cell begins. */
static uint64_t
begin_of(uint64_t cell, uint64_t count_cells, uint64_t count_pages)
{
    return count_pages / count_cells * cell + count_pages % count_cells * cell / count_cells;
}

bool
faultline_query_map(const Faultline *faultline, FaultlineMapCell *cells, unsigned count_cells)
{
    const RamBlocks *blocks = &faultline->blocks;
    uint64_t count_pages = blocks->total_bytes / FAULTLINE_PAGE_BYTES;
    uint64_t before = 0; /* pages of the blocks before this one */
    unsigned cell = 0;

    if (!count_cells || (!faultline->source && !faultline->destination))
        return false;
    memset(cells, 0, count_cells * sizeof *cells);
    for (unsigned i = 0; i < blocks->count; i++) {
        const RamBlock *block = &blocks->blocks[i];
        for (uint64_t page = 0; page < block->count_pages;) {
            uint64_t cell_end = begin_of(cell + 1, count_cells, count_pages);
            uint64_t end = MIN(cell_end - before, block->count_pages);
            if (end > page)
                add_pages(faultline, block, page, end, &cells[cell]);
            page = MAX(page, end);
            cell += before + page == cell_end;
        }
        before += block->count_pages;
    }
    return true;
}
