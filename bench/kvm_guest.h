/* SPDX-License-Identifier: MIT */
/*
 * The bench's guest inside a virtual machine: bench/guest/latency.asm in the KVM machine. It writes
 * its memory in an order of its own, times each write by its TSC and logs the slow ones in its own
 * memory, which is read when it stands. Nothing is asked of it while it is measured.
 */
#ifndef BENCH_KVM_GUEST_H
#define BENCH_KVM_GUEST_H

#include "bench/guest.h"

/* Made by the coordinating process; both sides inherit it. */
typedef struct KvmPlan {
    char *image; /* file with the parameters filled in; removed with the plan */
    uint64_t memory_bytes;
    uint64_t base, count_pages; /* what it fills and writes */
    uint64_t count_entries;     /* of its log, a ring */
} KvmPlan;

/* Errors: ARGUMENT for memory that is too small or has a hole in it; HOST. */
bool kvm_plan_init(KvmPlan *plan, uint64_t memory_bytes, GError **error);
void kvm_plan_clear(KvmPlan *plan);

/* The machine of one side, paused. At the destination its vCPU runs on the CPUs named. Free with
 * machine_kvm.free. Errors: those of machine_kvm.make. */
Machine *kvm_guest_new(const KvmPlan *plan, Backing backing, bool is_incoming,
                       const cpu_set_t *cpus, GError **error);

/* At a source whose guest runs: waits until its memory is filled and it touches. */
bool kvm_guest_wait(Machine *machine, unsigned limit_s, GError **error);

/* Touches so far, by the guest's own account. At a source. */
uint64_t kvm_guest_count_touches(Machine *machine);

/* Slow touches so far. The guest stands. */
uint64_t kvm_guest_count_slow(Machine *machine);

/* The slow touches from number `first` on up to `end` become touches of thread 0, as far as the
 * ring and the board have them. The first of a page whose fault is in the trace waited for it; the
 * others were slow because KVM or the scheduler made them. Pages that hold another one's bytes are
 * counted. The guest stands and is whole. */
void kvm_guest_read(const KvmPlan *plan, Machine *machine, uint64_t first, uint64_t end,
                    Board *board);

#endif
