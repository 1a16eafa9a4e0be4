/* SPDX-License-Identifier: MIT */
/*
 * The table of defined outcomes: what may become of a guest when something is done to its migration
 * in some phase. README.md says it in words.
 */
#ifndef TESTS_CHAOS_OUTCOME_H
#define TESTS_CHAOS_OUTCOME_H

#include "tests/chaos/plan.h"

/* The phase in which the strike came, by the clock of both sides' events. X(name, text) */
#define PHASE_LIST(X)                                                                              \
    X(UNHIT, "not hit")          /* nothing was done, or the migration was over before */          \
    X(SETUP, "setup")            /* before the first page */                                       \
    X(PRECOPY, "precopy")        /* the guest runs at the source */                                \
    X(SWITCHOVER, "switch-over") /* it stands: stopped at the source, not yet run elsewhere */     \
    X(POSTCOPY, "postcopy")      /* it runs at the destination, with pages missing */              \
    X(RECOVERY, "recovery")      /* the same, while a migration that broke is taken up again */

typedef enum {
#define PHASE_ENUM(name, text) PHASE_##name,
    PHASE_LIST(PHASE_ENUM)
#undef PHASE_ENUM
        PHASE_COUNT
} Phase;

/* X(name, text) */
#define OUTCOME_LIST(X)                                                                            \
    X(MOVED, "moved")             /* whole at the destination, and the source knows */             \
    X(RECOVERED, "recovered")     /* the same, after at least one break in postcopy */             \
    X(UNCONFIRMED, "unconfirmed") /* whole at the destination; the source does not know */         \
    X(STAYED, "stayed")           /* whole at the source, and runs */                              \
    X(HELD, "held")               /* the destination was killed; the source keeps what it has */   \
    X(STALLED, "stalled")         /* the source was killed; the destination waits for its pages */ \
    X(UNDECIDED, "undecided")     /* given up by the source, and never run by the destination */   \
    X(GONE, "gone")               /* its process was killed, and it was nowhere else */            \
    X(WRONG, "wrong")             /* none of these: always a failure */

typedef enum {
#define OUTCOME_ENUM(name, text) OUTCOME_##name,
    OUTCOME_LIST(OUTCOME_ENUM)
#undef OUTCOME_ENUM
        OUTCOME_COUNT
} Outcome;

const char *phase_name(Phase phase);
const char *outcome_name(Outcome outcome);

/* The outcomes that the table has for a blow in a phase: 1 << outcome each. */
unsigned outcome_mask(const Plan *plan, const Blow *blow, Phase phase);

/* "moved, unconfirmed". Free with g_free. */
char *outcome_describe(unsigned mask);

#endif
