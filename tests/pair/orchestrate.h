/* SPDX-License-Identifier: MIT */
/* `faultline migrate` between two machines: each policy, and each side gone, or the whole
 * cancelled, in each phase. After each the guest runs at exactly one side, and its data is right.
 */
#ifndef TESTS_PAIR_ORCHESTRATE_H
#define TESTS_PAIR_ORCHESTRATE_H

#include "tests/pair/scene.h"

/* A run whose guest converges, or does not and is moved by a policy. */
typedef struct PolicyCase {
    const char *name;
    const char *options[4]; /* of `faultline migrate` */
    bool writes_much;
    bool destination_listens; /* started with --incoming tcp:..., else with defer */
    bool switches;            /* to postcopy */
} PolicyCase;

/* A side gone, or Ctrl-C, at a command of the program. */
typedef struct PhaseCase {
    const char *name;
    const char *machine; /* "threads", "kvm" */
    const char *command;
    bool at_destination; /* the command goes there */
    bool after_migrate;  /* only behind the source's migrate */
    const char *killed;  /* "source", "destination"; NULL: Ctrl-C */
    int exit_code;
    const char *guest; /* where it runs afterwards: "source", "destination"; NULL: nowhere */
    const char *phase; /* that the message names; NULL: completes */
} PhaseCase;

extern const PolicyCase orchestrate_policies[];
extern const unsigned orchestrate_count_policies;
extern const PhaseCase orchestrate_phases[];
extern const unsigned orchestrate_count_phases;

/* The scene's subject is the case. */
void orchestrate_policy(void **state);
void orchestrate_phase(void **state);

void orchestrate_not_converging_is_cancelled_by_ctrl_c(void **state);
void orchestrate_ctrl_c_in_postcopy_says_why_not_and_goes_on(void **state);
void orchestrate_pause_in_postcopy_keeps_both(void **state);
void orchestrate_break_that_heals_is_followed_to_the_end(void **state);
void orchestrate_destination_gone_in_postcopy_says_lost(void **state);
void orchestrate_other_memory_is_refused(void **state);
void orchestrate_other_blocks_are_refused(void **state);
void orchestrate_dry_run_leaves_everything_as_it_was(void **state);
void orchestrate_dry_run_foretells_a_stall(void **state);

#endif
