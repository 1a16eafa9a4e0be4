/* SPDX-License-Identifier: MIT */
/*
 * The KVM machine from inside: what its files share. Nobody outside kvm/kvm_*.c and its tests
 * includes this; the program sees machine.h.
 *
 *   kvm_machine.c   makes and frees it, memory slots, the callbacks' table
 *   kvm_vcpu.c      vCPU threads: run, exits, pause, resume
 *   kvm_cpuid.c     what a vCPU says of itself
 *   kvm_boot.c      boot image and parameter block
 *   kvm_dirty.c     dirty log: which pages were written     kvm_ring.c   the same by the dirty ring
 *   kvm_state.c     sections, VM state                      kvm_vcpu_state.c   one vCPU's state
 *   ports.c         I/O ports                               serial.c     the 16550
 *   report.c        what the guest says of its data         throttle_clock.c   holds slow vCPUs
 *
 * Lock order: the throttle clock's, machine->lock, then the serial port's own. vCPU threads take
 * machine->lock only when they park and when the guest fails, never while they run guest code.
 */
#ifndef KVM_KVM_MACHINE_H
#define KVM_KVM_MACHINE_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "kvm/machine.h"
#include "kvm/ports.h"
#include "kvm/report.h"
#include "kvm/serial.h"
#include "kvm/throttle_clock.h"

#define MACHINE_BLOCKS_MAX 2
#define MACHINE_HOLE_START (3ull << 30) /* PCI hole: 3 GiB .. 4 GiB */
#define MACHINE_HIGH_START (4ull << 30)

typedef struct KvmDirty KvmDirty;
typedef struct KvmRing KvmRing;

typedef struct Vcpu {
    /* set before its thread starts */
    struct Machine *machine;
    unsigned index;
    int fd;
    struct kvm_run *run;
    pthread_t thread;
    bool started;

    /* the thread that loads state; read by resume after it */
    bool loaded;

    /* shared: under machine->lock */
    bool parked;

    /* shared: set once by the thread, read by vcpu_thread() */
    _Atomic pid_t tid;
} Vcpu;

struct Machine {
    /* set by machine_kvm.make, then constant */
    int kvm_fd, vm_fd;
    bool incoming;
    unsigned count_cpus;
    Vcpu *vcpus;
    size_t run_bytes;   /* of a vCPU's kvm_run mapping */
    size_t xsave_bytes; /* of KVM_GET_XSAVE2 */
    GArray *msrs;       /* uint32_t: MSRs that this host's KVM can save */
    FaultlineBlock blocks[MACHINE_BLOCKS_MAX];
    unsigned count_blocks;
    KvmDirty *dirty;
    ThrottleClock *clock;
    Serial *serial;
    Ports ports; /* its lock is inside */
    Report report;

    /* the thread that loads state; read by resume after it */
    bool vm_loaded, serial_loaded;

    /* shared: under lock */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* running, held, quit, or a vCPU's parked changed */
    bool running, quit;
    bool held;      /* by the throttle clock */
    bool stranded;  /* pause does not wait for a vCPU that waits for a page */
    char *failure;  /* why the guest cannot run on; NULL: it can */
    bool shut_down; /* it wanted to end */
};

/* ---- kvm_machine.c --------------------------------------------------------------------------- */

/* An error of HOST: what failed, errno's reason. Returns false. */
bool kvm_fail(GError **error, const char *what);

/* Describes block `index` to KVM, with dirty logging on or off. */
bool kvm_set_slot(Machine *machine, unsigned index, bool log_dirty, GError **error);

/* ---- kvm_vcpu.c ------------------------------------------------------------------------------ */

/* Makes vCPU `index` and its thread, parked. machine->vcpus[index] is set up as far as it came. */
bool vcpu_start(Machine *machine, unsigned index, GError **error);
/* Joins the thread, closes the vCPU. machine->quit was set. */
void vcpu_stop(Vcpu *vcpu);
bool vcpu_pause_all(Machine *machine, GError **error);
bool vcpu_resume_all(Machine *machine, GError **error);
/* vCPUs that run stop soon and park until they are let go; for the throttle clock. */
void vcpu_hold_all(Machine *machine, bool held);
/* Tells all vCPU threads to look at machine->running and quit. */
void vcpu_kick_all_locked(Machine *machine);

/* ---- kvm_boot.c ------------------------------------------------------------------------------ */

/* Loads options->boot, or the shipped guest, and sets the BSP to its first instruction. */
bool boot_load(Machine *machine, const MachineOptions *options, GError **error);

/* ---- kvm_dirty.c ----------------------------------------------------------------------------- */

/* After the memory slots were made and before the vCPUs are. */
KvmDirty *dirty_new(Machine *machine, const MachineOptions *options, GError **error);
void dirty_free(KvmDirty *dirty);
/* After vCPU `index` was made. */
bool dirty_add_vcpu(KvmDirty *dirty, unsigned index, int vcpu_fd, GError **error);
bool dirty_start(Machine *machine, GError **error);
bool dirty_sync(Machine *machine, unsigned block, uint64_t *words, uint64_t count_pages,
                GError **error);
void dirty_stop(Machine *machine);
/* No vCPU runs any more; before vCPUs run again. A sync between them is quick. Thread: that of
 * pause and resume. Errors: HOST; the guest must stay paused then. */
void dirty_rest(Machine *machine);
bool dirty_wake(Machine *machine, GError **error);
/* The machine itself wrote [offset, offset + length) of the block. Thread: any. */
void dirty_mark(KvmDirty *dirty, unsigned block, uint64_t offset_bytes, uint64_t length_bytes);
/* vCPU thread, on KVM_EXIT_DIRTY_RING_FULL. */
bool dirty_ring_full(KvmDirty *dirty, GError **error);

/* ---- kvm_ring.c ------------------------------------------------------------------------------ */

/* Whether the dirty ring works here, found out by a small guest in a process of its own. */
bool ring_probe(int kvm_fd, GError **error);
KvmRing *ring_new(int kvm_fd, int vm_fd, unsigned count_cpus, GError **error);
void ring_free(KvmRing *ring);
bool ring_add_vcpu(KvmRing *ring, unsigned index, int vcpu_fd, GError **error);
/* Calls mark for each entry of all rings, then re-arms those pages. One caller at a time. */
typedef void (*RingMark)(void *opaque, unsigned slot, uint64_t page);
bool ring_harvest(KvmRing *ring, RingMark mark, void *opaque, GError **error);

/* ---- kvm_state.c, kvm_vcpu_state.c ----------------------------------------------------------- */

/* As faultline_state_add, so that a test can collect sections without an engine. */
typedef void (*StateSink)(void *opaque, const char *name, uint32_t instance, uint32_t version,
                          const void *bytes, size_t length_bytes);
bool state_save(Machine *machine, StateSink sink, void *opaque, GError **error);
bool state_load(Machine *machine, const char *name, uint32_t instance, uint32_t version,
                const void *bytes, size_t length_bytes, GError **error);

/* Whether each section was loaded. Errors: PEER. */
bool state_is_complete(const Machine *machine, GError **error);

bool vcpu_state_list_msrs(Machine *machine, GError **error);
bool vcpu_state_save(Vcpu *vcpu, GByteArray *bytes, GError **error);
bool vcpu_state_load(Vcpu *vcpu, const void *bytes, size_t length_bytes, GError **error);

#endif
