/* SPDX-License-Identifier: MIT */
/*
 * Which faults hit in which phase: counted by the statuses of both sides and the kind of fault,
 * printed at the end, and compared with what is known to be reachable, so that a simulation that
 * has stopped to look somewhere does not pass.
 */
#include "engine/context.h"
#include "tests/sim/sim_schedule.h"
#include "tests/sim/sim_table.h"

#include <stdio.h>
#include <string.h>

#define SEEDS_LEAST UINT64_C(100000) /* of a run that must have been everywhere */

/* The texts of the points of a kind; a point of none of them is "other". */
static const struct {
    char letter;
    const char *name;
    const char *points[12];
} kinds[SIM_KIND_COUNT] = {
    [SIM_KIND_OTHER] = {'o', "other", {NULL}},
    [SIM_KIND_SHORT] = {'s', "short", {NULL}},
    {'c', "cut", {"cut at byte", "cut at time"}},
    {'h', "hang", {"hang at time"}},
    {'S', "kill S.", {"kill source"}},
    {'D', "kill D.", {"kill dest."}},
    {'x', "cancel", {"cancel"}},
    {'n', "connect", {"listen", "connect", "refused", "accept"}},
    {'m',
     "host call",
     {"ring_new", "ring_watch", "tracker", "uffd_open", "memory_new", "empty", "discard", "zap",
      "register", "place", "finish"}},
    {'g', "guest", {"pause", "resume", "save_state", "load_state", "log_start", "log_sync"}},
    {'r', "record", {"record"}},
    {'f', "damage", {"flip anywhere", "flip in header"}},
};

#define PAIR(source, destination, letters)                                                         \
    {                                                                                              \
        FAULTLINE_STATUS_##source, FAULTLINE_STATUS_##destination, letters                         \
    }

/* Which pairs of statuses, source first, are hit by what; the letters are of the kinds above. Those
 * that 100,000 seeds hit 20 times or more. */
static const struct {
    FaultlineStatus source, destination;
    const char *letters;
} reachable[] = {
    PAIR(NONE, NONE, "nmgr"),
    PAIR(NONE, SETUP, "mr"),
    PAIR(NONE, FAILED, "r"),
    PAIR(SETUP, NONE, "chSxnmr"),
    PAIR(SETUP, SETUP, "chSDxnmgr"),
    PAIR(SETUP, FAILED, "hxnr"),
    PAIR(CANCELLING, SETUP, "r"),
    PAIR(CANCELLING, ACTIVE, "r"),
    PAIR(CANCELLED, SETUP, "schSD"),
    PAIR(CANCELLED, ACTIVE, "sr"),
    PAIR(CANCELLED, FAILED, "chSD"),
    PAIR(ACTIVE, SETUP, "schSDxngrf"),
    PAIR(ACTIVE, ACTIVE, "schSDxngrf"),
    PAIR(ACTIVE, FAILED, "r"),
    PAIR(DEVICE, SETUP, "scSDxng"),
    PAIR(DEVICE, ACTIVE, "schSDxmgrf"),
    PAIR(DEVICE, POSTCOPY_DEVICE, "sm"),
    PAIR(DEVICE, FAILED, "sr"),
    PAIR(POSTCOPY_DEVICE, ACTIVE, "schSDxmrf"),
    PAIR(POSTCOPY_DEVICE, POSTCOPY_DEVICE, "schSDxmgrf"),
    PAIR(POSTCOPY_DEVICE, POSTCOPY_ACTIVE, "schSDxmgrf"),
    PAIR(POSTCOPY_DEVICE, POSTCOPY_PAUSED, "sr"),
    PAIR(POSTCOPY_DEVICE, COMPLETED, "s"),
    PAIR(POSTCOPY_ACTIVE, POSTCOPY_ACTIVE, "schSDxmrf"),
    PAIR(POSTCOPY_ACTIVE, POSTCOPY_PAUSED, "sr"),
    PAIR(POSTCOPY_ACTIVE, COMPLETED, "shr"),
    PAIR(POSTCOPY_PAUSED, ACTIVE, "r"),
    PAIR(POSTCOPY_PAUSED, POSTCOPY_DEVICE, "Sr"),
    PAIR(POSTCOPY_PAUSED, POSTCOPY_ACTIVE, "sr"),
    PAIR(POSTCOPY_PAUSED, POSTCOPY_PAUSED, "cSxr"),
    PAIR(POSTCOPY_RECOVER_SETUP, POSTCOPY_PAUSED, "n"),
    PAIR(POSTCOPY_RECOVER, POSTCOPY_ACTIVE, "scr"),
    PAIR(POSTCOPY_RECOVER, POSTCOPY_PAUSED, "c"),
    PAIR(POSTCOPY_RECOVER, POSTCOPY_RECOVER, "sc"),
    PAIR(COMPLETED, ACTIVE, "schSDxgr"),
    PAIR(COMPLETED, POSTCOPY_ACTIVE, "mr"),
    PAIR(COMPLETED, COMPLETED, "chSDxm"),
    PAIR(FAILED, NONE, "chSx"),
    PAIR(FAILED, SETUP, "schSDxr"),
    PAIR(FAILED, ACTIVE, "sr"),
    PAIR(FAILED, POSTCOPY_DEVICE, "s"),
    PAIR(FAILED, FAILED, "chSDx"),
    PAIR(PRE_SWITCHOVER, SETUP, "s"),
    PAIR(PRE_SWITCHOVER, ACTIVE, "schSDxf"),
};

/* ---- Counting ----------------------------------------------------------------------------------
 */

static unsigned
kind_of(SimPoint point)
{
    for (unsigned kind = 0; kind < SIM_KIND_COUNT; kind++)
        for (unsigned i = 0; i < G_N_ELEMENTS(kinds[kind].points) && kinds[kind].points[i]; i++)
            if (strcmp(kinds[kind].points[i], sim_point_name(point)) == 0)
                return kind;
    return SIM_KIND_OTHER;
}

static void
count(unsigned kind)
{
    if (!sim.table || sim.over || !run.sides[SIM_SOURCE] || !run.sides[SIM_DESTINATION])
        return;
    FaultlineStatus source = context_status(run.sides[SIM_SOURCE]);
    FaultlineStatus destination = context_status(run.sides[SIM_DESTINATION]);
    sim.table->counts[source][destination][kind]++;
}

void
sim_table_count(SimPoint point)
{
    count(kind_of(point));
}

void
sim_table_count_short(void)
{
    count(SIM_KIND_SHORT);
}

void
sim_table_add(SimTable *to, const SimTable *table)
{
    const uint64_t *from = &table->counts[0][0][0];
    uint64_t *sum = &to->counts[0][0][0];
    for (size_t i = 0; i < sizeof table->counts / sizeof *from; i++)
        sum[i] += from[i];
}

/* ---- Telling -----------------------------------------------------------------------------------
 */

static void
print_row(unsigned source, unsigned destination, const uint64_t *counts)
{
    printf("%-22s%-19s", faultline_status_name(source), faultline_status_name(destination));
    for (unsigned kind = 0; kind < SIM_KIND_COUNT; kind++)
        printf("%10lu", counts[kind]);
    putchar('\n');
}

void
sim_table_print(const SimTable *table)
{
    printf("%-22s%-19s", "source", "destination");
    for (unsigned kind = 0; kind < SIM_KIND_COUNT; kind++)
        printf("%10s", kinds[kind].name);
    putchar('\n');
    for (unsigned source = 0; source < FAULTLINE_STATUS_COUNT; source++)
        for (unsigned destination = 0; destination < FAULTLINE_STATUS_COUNT; destination++) {
            const uint64_t *counts = table->counts[source][destination];
            uint64_t sum = 0;
            for (unsigned kind = 0; kind < SIM_KIND_COUNT; kind++)
                sum += counts[kind];
            if (sum)
                print_row(source, destination, counts);
        }
}

/* A kind that this simulation has no point of is not missed. */
static bool
can_hit(unsigned kind)
{
    bool has_point = kinds[kind].points[0] == NULL;
    for (unsigned point = 0; point < SIM_POINT_COUNT; point++)
        has_point |= kind_of((SimPoint)point) == kind;
    return has_point;
}

static bool
was_visited(const SimTable *table, unsigned row, char letter)
{
    for (unsigned kind = 0; kind < SIM_KIND_COUNT; kind++)
        if (kinds[kind].letter == letter)
            return !can_hit(kind) ||
                   table->counts[reachable[row].source][reachable[row].destination][kind] > 0;
    return false;
}

bool
sim_table_check(const SimTable *table, uint64_t count_seeds, bool says)
{
    bool is_whole = true;

    for (unsigned row = 0; row < G_N_ELEMENTS(reachable); row++)
        for (const char *letter = reachable[row].letters; *letter; letter++) {
            if (was_visited(table, row, *letter))
                continue;
            is_whole = false;
            if (says && count_seeds >= SEEDS_LEAST)
                printf("sim: never hit by '%c': source %s, destination %s\n", *letter,
                       faultline_status_name(reachable[row].source),
                       faultline_status_name(reachable[row].destination));
        }
    return is_whole || count_seeds < SEEDS_LEAST;
}
