/* SPDX-License-Identifier: MIT */
/* See table.h. */
#include "tests/chaos/table.h"

#include <stdio.h>

void
table_count(Table *table, const Result *result)
{
    table->done++;
    table->failed += result->failed;
    if (result->count_blows == 0)
        table->counts[FAULT_NONE][PHASE_UNHIT][result->outcome]++;
    for (unsigned i = 0; i < result->count_blows; i++)
        if (i == 0 || result->phases[i] != PHASE_UNHIT)
            table->counts[result->faults[i]][result->phases[i]][result->outcome]++;
}

static unsigned
sum(const unsigned *counts)
{
    unsigned all = 0;

    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        all += counts[i];
    return all;
}

void
table_print(const Table *table)
{
    printf("%-24s %-12s", "done to it", "in phase");
    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        printf(" %11s", outcome_name((Outcome)i));
    printf("\n");
    for (unsigned fault = 0; fault < FAULT_COUNT; fault++) {
        for (unsigned phase = 0; phase < PHASE_COUNT; phase++) {
            const unsigned *counts = table->counts[fault][phase];
            if (!sum(counts))
                continue;
            printf("%-24s %-12s", fault_name((Fault)fault), phase_name((Phase)phase));
            for (unsigned i = 0; i < OUTCOME_COUNT; i++)
                if (counts[i])
                    printf(" %11u", counts[i]);
                else
                    printf(" %11s", ".");
            printf("\n");
        }
    }
}
