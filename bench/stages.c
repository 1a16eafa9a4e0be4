/* SPDX-License-Identifier: MIT */
/*
 * Matches records of the engine's trace with touches, page by page of a repeat, and tells the time
 * between neighbouring moments. Coordinating process.
 *
 * A moment is the first record of its step for a page: each page comes once in a repeat. A thread
 * that touches a page while another one waits for it joins a walk under way; it is left out.
 */
#include "bench/stages.h"
#include "bench/clock.h"
#include "bench/report.h"
#include "engine/walk.h"

#include <stdio.h>

#define STAGE_NAME(name) name,
const char *const stage_names[STAGE_COUNT] = {STAGE_LIST(STAGE_NAME)};

/* Moments of a page between touch and resume: ns, 0: did not happen. */
typedef struct Walk {
    uint64_t at_ns[STAGE_COUNT - 1];
} Walk;

static int
moment_of(unsigned step)
{
    switch (step) {
    case WALK_FAULT_READ:
        return 0;
    case WALK_REQUEST_SEND:
        return 1;
    case WALK_REQUEST_RECEIVE:
        return 2;
    case WALK_REPLY_SEND:
        return 3;
    case WALK_REPLY_RECEIVE:
        return 4;
    case WALK_PAGE_PLACE:
        return 5;
    default:
        return -1;
    }
}

void
stages_init(Stages *stages)
{
    *stages = (Stages){.count_whole = 0};
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        samples_init(&stages->us[i]);
}

void
stages_clear(Stages *stages)
{
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        samples_clear(&stages->us[i]);
}

/* ---- One repeat
 * ---------------------------------------------------------------------------------------------- */

static void
take_trace(GHashTable *walks, const FaultlineWalkTrace *trace, uint64_t host_pages)
{
    for (uint64_t i = 0; i < trace->count; i++) {
        const FaultlineWalkRecord *record = &trace->records[i];
        gpointer page = GSIZE_TO_POINTER(record->page / host_pages);
        int moment = moment_of(record->step);
        Walk *walk = g_hash_table_lookup(walks, page);
        if (!walk) {
            walk = g_new0(Walk, 1);
            g_hash_table_insert(walks, page, walk);
        }
        if (moment >= 0 && !walk->at_ns[moment])
            walk->at_ns[moment] = record->time_ns;
    }
}

static GHashTable *
take_traces(Stages *stages, Board *board, uint64_t host_pages)
{
    GHashTable *walks = g_hash_table_new_full(g_direct_hash, g_direct_equal, NULL, g_free);

    for (unsigned i = 0; i < FAULTLINE_WALK_ROLE_COUNT; i++) {
        const FaultlineWalkTrace *source = &board->source.walks[i];
        const FaultlineWalkTrace *destination = &board->destination.walks[i];
        take_trace(walks, source, host_pages);
        take_trace(walks, destination, host_pages);
        stages->count_lost += source->count_lost + destination->count_lost;
    }
    return walks;
}

/* Moments that are known, one after the other; the first and the last always are. */
static bool
is_in_order(const uint64_t at_ns[STAGE_COUNT + 1])
{
    uint64_t last_ns = 0;
    for (unsigned i = 0; i <= STAGE_COUNT; i++) {
        if (at_ns[i] && at_ns[i] < last_ns)
            return false;
        last_ns = MAX(last_ns, at_ns[i]);
    }
    return true;
}

static void
take_touch(Stages *stages, GArray *const values[STAGE_COUNT], const Touch *touch, const Walk *walk,
           bool has_urgent)
{
    /* A guest's own counter says how long it waited, and not when. */
    uint64_t resumed_ns =
        !touch->begin_ns
            ? 0
            : touch->begin_ns + (uint64_t)((double)touch->ticks * bench_ns_per_tick() + 0.5);
    uint64_t at_ns[STAGE_COUNT + 1] = {touch->begin_ns};
    bool is_whole = true;

    for (unsigned i = 0; i < STAGE_COUNT - 1; i++) {
        at_ns[i + 1] = walk->at_ns[i];
        is_whole = is_whole && walk->at_ns[i];
    }
    at_ns[STAGE_COUNT] = resumed_ns;
    /* Woken on the CPU of who placed the page, the thread runs on before that one has the time. */
    if (resumed_ns)
        at_ns[STAGE_COUNT - 1] = MIN(at_ns[STAGE_COUNT - 1], resumed_ns);
    /* Read before this thread touched it, it is somebody else's fault. */
    bool is_own = walk->at_ns[0] && is_in_order(at_ns);
    stages->count_whole += is_own && is_whole;
    stages->count_other += !is_own || !is_whole;
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        if (!is_own || (has_urgent && !is_whole) || !at_ns[i] || !at_ns[i + 1])
            continue;
        double us = (double)(at_ns[i + 1] - at_ns[i]) * 1e-3;
        g_array_append_val(values[i], us);
    }
}

void
stages_add_repeat(Stages *stages, Board *board, unsigned count_threads, uint64_t host_pages,
                  bool has_urgent)
{
    g_autoptr(GHashTable) walks = take_traces(stages, board, host_pages);
    GArray *values[STAGE_COUNT];

    for (unsigned i = 0; i < STAGE_COUNT; i++)
        values[i] = g_array_new(FALSE, FALSE, sizeof(double));
    for (unsigned thread = 0; thread < count_threads; thread++) {
        const Touch *touches = board_touches(board, thread);
        for (uint64_t i = 0; i < board->count_touches[thread]; i++) {
            const Walk *walk = g_hash_table_lookup(walks, GSIZE_TO_POINTER((gsize)touches[i].page));
            if (touches[i].kind == TOUCH_WAITED && walk)
                take_touch(stages, values, &touches[i], walk, has_urgent);
        }
    }
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        samples_add_repeat(&stages->us[i], (double *)(void *)values[i]->data, values[i]->len);
        g_array_unref(values[i]);
    }
}

/* ---- The report
 * ---------------------------------------------------------------------------------------------- */

void
stages_print_head(void)
{
    printf("\nStages, us: p50 / p90 / p99 from one moment to the next\n\n| |");
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        printf(" %s |", stage_names[i]);
    printf(" faults |\n|---|");
    for (unsigned i = 0; i <= STAGE_COUNT; i++)
        printf("---|");
    printf("\n");
}

void
stages_print(const char *name, Stages *stages)
{
    printf("| %s |", name);
    for (unsigned i = 0; i < STAGE_COUNT; i++) {
        Quantiles us = samples_quantiles(&stages->us[i]);
        if (samples_count(&stages->us[i]))
            printf(" %.1f / %.1f / %.1f |", us.value[0], us.value[1], us.value[2]);
        else
            printf(" - |");
    }
    printf(" %" G_GUINT64_FORMAT " |\n", stages->count_whole);
}

void
stages_write(JsonBuilder *json, Stages *stages)
{
    report_open(json, "stages-us");
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        if (samples_count(&stages->us[i]))
            report_samples(json, stage_names[i], &stages->us[i]);
    report_count(json, "whole-walks", stages->count_whole);
    report_count(json, "other-faults", stages->count_other);
    report_count(json, "lost-records", stages->count_lost);
    report_close(json);
}

void
stages_add_column_names(GString *text)
{
    g_string_append(text, "configuration");
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        g_string_append_printf(text, " %s", stage_names[i]);
    g_string_append_c(text, '\n');
}

/* Medians. */
void
stages_add_columns(GString *text, const char *name, Stages *stages)
{
    g_string_append_printf(text, "\"%s\"", name);
    for (unsigned i = 0; i < STAGE_COUNT; i++)
        g_string_append_printf(text, " %.3f", samples_percentile(&stages->us[i], 50));
    g_string_append_c(text, '\n');
}
