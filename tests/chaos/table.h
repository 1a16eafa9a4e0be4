/* SPDX-License-Identifier: MIT */
/* Counts of what became of all migrations, by what was done and the phase in which it came. */
#ifndef TESTS_CHAOS_TABLE_H
#define TESTS_CHAOS_TABLE_H

#include "tests/chaos/outcome.h"

/* What one migration's process tells its parent, by a pipe. */
typedef struct Result {
    uint64_t seed;
    unsigned count_blows;
    Fault faults[BLOWS_MAX];
    Phase phases[BLOWS_MAX];
    Outcome outcome;
    bool failed;
    double seconds;
    char text[400]; /* why it failed */
} Result;

typedef struct Table {
    unsigned counts[FAULT_COUNT][PHASE_COUNT][OUTCOME_COUNT];
    unsigned done, failed;
} Table;

void table_count(Table *table, const Result *result);
void table_print(const Table *table);

#endif
