/* SPDX-License-Identifier: MIT */
/*
 * The table of (phase, fault), where a phase is the pair of both sides' statuses.
 */
#ifndef TESTS_SIM_SIM_TABLE_H
#define TESTS_SIM_SIM_TABLE_H

#include "tests/sim/sim.h"

#define SIM_KIND_COUNT 12u
#define SIM_KIND_OTHER 0u
#define SIM_KIND_SHORT 1u /* a part of what was to be read or written */

struct SimTable {
    uint64_t counts[FAULTLINE_STATUS_COUNT][FAULTLINE_STATUS_COUNT][SIM_KIND_COUNT];
};

/* Into sim.table, by the statuses of now. */
void sim_table_count(SimPoint point);
void sim_table_count_short(void);
void sim_table_add(SimTable *to, const SimTable *table);
void sim_table_print(const SimTable *table);
/* false: a run that is long enough was not everywhere. says: prints where. */
bool sim_table_check(const SimTable *table, uint64_t count_seeds, bool says);

#endif
