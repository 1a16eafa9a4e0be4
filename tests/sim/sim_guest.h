/* SPDX-License-Identifier: MIT */
/*
 * The simulated guest, shared by sim_guest.c (vCPUs and callbacks) and sim_truth.c (its memories
 * and what they must hold).
 */
#ifndef TESTS_SIM_SIM_GUEST_H
#define TESTS_SIM_SIM_GUEST_H

#include "tests/sim/sim.h"

typedef struct Vcpu {
    uint64_t next_ns, count_steps;
    bool waits, must_retry;
    unsigned block, page;
    int step; /* between two accesses; 0: none */
    bool write;
} Vcpu;

typedef struct SimGuest {
    uint8_t *source, *destination, *store, *truth;
    FaultlineBlock blocks[SIM_SIDES][SIM_BLOCKS_MAX];
    char names[SIM_BLOCKS_MAX][16];
    Vcpu vcpus[SIM_VCPUS_MAX];
    uint64_t registers[SIM_VCPUS_MAX], loaded_registers[SIM_VCPUS_MAX];
    bool running[SIM_SIDES], ever_ran[SIM_SIDES];
    bool logging, loader_waits;
    unsigned throttle_percent;
    unsigned loader_block, loader_page;
    unsigned loaded; /* bit a device section */
    size_t device_bytes;
    uint64_t dirty[SIM_BLOCKS_MAX];
} SimGuest;
extern SimGuest guest;

/* Once a process. */
void sim_truth_map(void);
/* Gives a block its first content at the source. */
void sim_truth_begin(unsigned block);
uint8_t *sim_truth_page(unsigned block, unsigned page);
void sim_truth_fill(uint8_t *bytes);
void sim_truth_check(const uint8_t *bytes, unsigned block, unsigned page, const char *where);

#endif
