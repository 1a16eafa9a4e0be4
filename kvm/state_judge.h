/* SPDX-License-Identifier: MIT */
/*
 * What the records of one guest mean: where it is, by which evidence, what is missing, and what can
 * be done. Pure: no files, no clock.
 *
 * Two records are read together when they are of one migration: when their numbers agree, or the
 * destination's has none yet. Otherwise the newer one counts, and the other one is a former
 * migration's.
 */
#ifndef KVM_STATE_JUDGE_H
#define KVM_STATE_JUDGE_H

#include "kvm/state_dir.h"

/* X(NAME, exit code of `faultline status`, "name"), from the best to the worst. */
#define STATE_VERDICT_LIST(X)                                                                      \
    X(FINE, 0, "fine")         /* it is known where it is, and nothing is to be done */            \
    X(WAITS, 3, "waits")       /* known, but it does not go on by itself */                        \
    X(ENDED, 4, "ended")       /* known, and its process died with it */                           \
    X(LACKING, 5, "lacking")   /* known, and pages of it are gone for good */                      \
    X(UNCLEAR, 6, "unclear")   /* these records do not tell */                                     \
    X(CONFLICT, 7, "conflict") /* both sides claim it */

typedef enum {
#define STATE_VERDICT_ENUM(name, code, text) STATE_VERDICT_##name,
    STATE_VERDICT_LIST(STATE_VERDICT_ENUM)
#undef STATE_VERDICT_ENUM
        STATE_VERDICT_COUNT
} StateVerdict;

const char *state_verdict_name(StateVerdict verdict);
int state_verdict_exit_code(StateVerdict verdict);

typedef struct StateJudgement {
    FaultlinePlace place;
    StateVerdict verdict;
    const StateFile *source, *destination; /* that were read; NULL: there is none */
    const StateFile *former;               /* of an earlier migration; NULL: there is none */
    bool knows_missing;
    uint64_t missing_pages; /* at most, when the record was written */
    const char *evidence;   /* a sentence */
    const char *remedy;     /* sentences; "" when there is nothing to be done */
} StateJudgement;

/* At least one of the two is given, and both have a record. */
StateJudgement state_judge(const StateFile *source, const StateFile *destination);

/* "at the source", "at the destination", "at either side", ... */
const char *state_place_name(FaultlinePlace place);

/* Why the guest must not be started, or received, here, with a remedy; NULL: it may. files: of
 * state_dir_read(). Free with g_free. */
char *state_judge_start(GPtrArray *files, const char *name, bool incoming);

#endif
