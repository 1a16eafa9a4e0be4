/* SPDX-License-Identifier: MIT */
/*
 * What a machine does when the other side of a postcopy is lost.
 *
 * A process that dies and a connection that breaks look the same from here: the connection is
 * closed. So nothing is done at once: the status is postcopy-paused, vCPUs that touch a missing
 * page wait, the others run, and both may connect again. The peer counts as lost when that has
 * lasted
 * --peer-lost-after seconds without a recovery, or as soon as somebody says so (x-peer-lost). Then
 * what is missing is listed in the log, as an event, and with --state-dir in the file NAME.missing,
 * and a destination does what --on-source-lost says:
 *
 *   stall   nothing more: whoever touches a missing page goes on waiting (the preset)
 *   pause   the guest is paused, so that its clocks and its peers do not see half of it run
 *   end     the process ends, with an exit code of its own
 *
 * Nobody ever reads zeros: the memory stays watched until the process ends. If the peer comes back
 * after all, the guest goes on. A source keeps its pages in any case, and says which.
 *
 * Main thread.
 */
#ifndef KVM_PEER_LOST_H
#define KVM_PEER_LOST_H

#include "kvm/machine.h"
#include "kvm/state_dir.h"

typedef enum { PEER_LOST_STALL, PEER_LOST_PAUSE, PEER_LOST_END, PEER_LOST_COUNT } PeerLostPolicy;

/* false: there is no such policy. */
bool peer_lost_parse(const char *text, PeerLostPolicy *ret_policy);

typedef struct PeerLost {
    /* set by the owner */
    Faultline *faultline;
    FaultlineMonitor *monitor;
    const MachineKind *kind;
    Machine *machine;
    StateDir *state; /* NULL: none */
    PeerLostPolicy policy;
    uint64_t after_s; /* 0: only when told */

    /* its own */
    int64_t paused_us; /* since when; 0: it is not */
    bool is_lost, has_paused_guest, must_end;
} PeerLost;

/* Looks at the status: when it changed, and now and then. must_end is set when the policy says so.
 */
void peer_lost_look(PeerLost *lost, const FaultlineInfo *info);

/* Somebody knows it. Errors: STATE when the migration is not paused. */
bool peer_lost_declare(PeerLost *lost, GError **error);

#endif
