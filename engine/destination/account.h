/* SPDX-License-Identifier: MIT */
/*
 * Who waits for which page since when: latency of each remote fault, and blocktime of each vCPU and
 * of all at once. Owned by the fault thread; the figures may be read by any. Walk 12 of 12.
 */
#ifndef ENGINE_DESTINATION_ACCOUNT_H
#define ENGINE_DESTINATION_ACCOUNT_H

#include "engine/context.h"

#define ACCOUNT_FAULTS_MAX 1024u /* more at once are answered, but not accounted */

typedef struct FaultEntry {
    uint32_t block;
    int32_t vcpu; /* -1: no vCPU */
    uint64_t page, since_ns;
} FaultEntry;

typedef struct FaultAccount {
    FaultEntry entries[ACCOUNT_FAULTS_MAX];
    uint64_t count;           /* atomic: faults in flight */
    uint64_t oldest_since_ns; /* atomic: of them; 0: none */

    uint32_t threads[FAULTLINE_VCPUS_MAX]; /* of the vCPUs */
    unsigned count_vcpus;                  /* atomic */
    unsigned waits[FAULTLINE_VCPUS_MAX];   /* open entries of each vCPU */
    uint64_t blocked_since_ns[FAULTLINE_VCPUS_MAX];
    unsigned count_blocked;
    uint64_t all_blocked_since_ns;

    /* atomic */
    FaultlineLatency latency;
    uint64_t blocktime_ns;
    uint64_t vcpu_blocktime_ns[FAULTLINE_VCPUS_MAX];
    uint64_t vcpu_faults[FAULTLINE_VCPUS_MAX];
    FaultlineLatency *vcpu_latency; /* of each; set before count_vcpus */
    uint64_t non_vcpu_faults, non_vcpu_total_ns;
} FaultAccount;

/* Learns the vCPUs' thread ids. */
void account_start(FaultAccount *account, const Faultline *faultline);
/* Thread: control, when the fault thread has ended. */
void account_clear(FaultAccount *account);
/* A thread waits for a host page that has to come from the source. */
void account_begin(FaultAccount *account, unsigned block, uint64_t page, uint32_t thread,
                   uint64_t now_ns);
/* The host page is visible: everybody who waited for it runs. */
void account_end(FaultAccount *account, unsigned block, uint64_t page, uint64_t now_ns);
/* Thread: any. */
void account_read(const FaultAccount *account, uint64_t now_ns, FaultlineInfo *ret_info);
/* false: there is no such vCPU. Thread: any. */
bool account_read_vcpu(const FaultAccount *account, unsigned vcpu, FaultlineLatency *ret_latency);

#endif
