/* SPDX-License-Identifier: MIT */
/*
 * One run, shared by sim_schedule.c (who runs when) and sim_migration.c (what the control threads
 * want, and what must hold at the end).
 */
#ifndef TESTS_SIM_SIM_SCHEDULE_H
#define TESTS_SIM_SIM_SCHEDULE_H

#include "engine/role.h"
#include "tests/sim/sim.h"

#define ROLES_MAX 12u
#define NEVER     UINT64_MAX

typedef struct Task {
    Role *role;
    SimSide side;
    bool asleep, done, in_kernel;
} Task;

struct RoleThreads {
    SimSide side;
    Task tasks[ROLES_MAX / 2];
    unsigned count;
};

typedef struct SimRun {
    RoleThreads threads[SIM_SIDES];
    bool used[SIM_SIDES];
    Faultline *sides[SIM_SIDES];
    uint64_t wish_ns, continue_ns;
    uint64_t operator_ns, break_ns, back_ns; /* NEVER: nothing is to be done */
    bool has_tried_back;
    unsigned count_refused; /* of taking back */
    unsigned recoveries;    /* tried at the source */
    unsigned address;       /* of the last one */
    bool listens;           /* since the destination paused */
    unsigned count_wishes, quiet_accesses;
    bool is_preempted; /* a role is, inside a call; one at a time */
    bool cancelled;    /* faultline_cancel() has agreed */
} SimRun;
extern SimRun run;

/* Runs one task, or moves the clock to where one can run. false: nothing will ever happen again,
 * except that vCPUs touch what they have. */
bool sim_schedule_once(void);
uint64_t sim_control_next_ns(void);
void sim_control_step(void);
bool sim_status_is_final(FaultlineStatus status);
/* Checks how it ended; then the simulation is over. */
void sim_check_end(void);

#endif
