/* SPDX-License-Identifier: MIT */
/* See sim_record.c: records of who owns the guest, and processes that die. */
#ifndef TESTS_SIM_SIM_RECORD_H
#define TESTS_SIM_SIM_RECORD_H

#include "engine/faultline.h"
#include "tests/sim/sim.h"

void sim_record_reset(void);
/* The side keeps a record, if the plan says so. */
void sim_record_attach(SimSide side, Faultline *faultline);
/* Of its record, for who takes a guest back; false: it has none. */
bool sim_record_last_words(SimSide side, FaultlineLastWords *ret_words);
/* What the words of both sides, or of one, tell is true. */
void sim_record_check(void);
void sim_record_check_end(void);

/* No call of it is under way that the simulator could not leave. */
bool sim_process_can_die(SimSide side);
void sim_process_die(SimSide side);

#endif
