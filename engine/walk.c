/* SPDX-License-Identifier: MIT */
/*
 * Where traces of walks are given and steps are named. Control thread; recording is in walk.h, on
 * the threads of the roles.
 */
#include "engine/walk.h"
#include "engine/context.h"

#define WALK_ROW(number, name, text, side, role) {(number), text, FAULTLINE_WALK_SIDE_##side, role},

static const FaultlineWalkRow rows[] = {WALK_LIST(WALK_ROW){0}};
G_STATIC_ASSERT(G_N_ELEMENTS(rows) == WALK_COUNT);

const FaultlineWalkRow *
faultline_walk_table(void)
{
    return rows;
}

bool
faultline_trace_walk(Faultline *faultline, FaultlineWalkTrace *traces, GError **error)
{
    if (context_is_busy(faultline)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "trace walks of pages: a migration is under way (%s); give the buffers before "
                    "it begins",
                    faultline_status_name(context_status(faultline)));
        return false;
    }
    for (unsigned i = 0; i < FAULTLINE_WALK_ROLE_COUNT; i++) {
        FaultlineWalkTrace *trace = traces && traces[i].records ? &traces[i] : NULL;
        if (trace)
            trace->count = trace->count_lost = 0;
        faultline->walks[i] = trace;
    }
    return true;
}
