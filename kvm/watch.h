/* SPDX-License-Identifier: MIT */
/*
 * `faultline monitor PATH watch`: a migration as a picture, on the whole terminal or as text. One
 * thread. watch_view.c makes the lines out of what the machine answered, watch.c asks and shows.
 */
#ifndef KVM_WATCH_H
#define KVM_WATCH_H

#include "kvm/qmp_client.h"

#define WATCH_COLUMNS     80u /* what every picture fits into */
#define WATCH_ROWS        24u
#define WATCH_MAP_COLUMNS 76u

typedef struct WatchLine {
    char *text; /* ASCII, at most the width */
    bool is_map;
} WatchLine;

/* Cells to ask for, for a screen of so many rows: whole rows of WATCH_MAP_COLUMNS. */
unsigned watch_count_cells(unsigned rows);

/* migrate: what query-migrate returned; map: what x-query-memory-map did. name: of the machine, for
 * the head. Returns WatchLine (g_ptr_array_unref). */
GPtrArray *watch_render(const char *name, JsonObject *migrate, JsonObject *map, unsigned columns);

/* At a terminal until q, Ctrl-C or the machine's end, else once. Returns the exit code. */
int watch_run(QmpClient *client, const char *name);

#endif
