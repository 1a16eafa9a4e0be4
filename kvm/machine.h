/* SPDX-License-Identifier: MIT */
/*
 * The machines that `faultline run` can start, behind one interface: the KVM machine and the thread
 * guest. Both describe themselves to the engine by FaultlineGuest and FaultlineBlock alone; main
 * does not know which one runs.
 *
 * Threads: machine_new, machine_free and the monitor's commands on the main thread; the guest's
 * callbacks as engine/guest.h says; vCPU threads are the machine's own.
 */
#ifndef KVM_MACHINE_H
#define KVM_MACHINE_H

#include "engine/faultline.h"

typedef enum {
    MACHINE_MEMORY_MEMFD,   /* shmem, MAP_SHARED, THP asked for */
    MACHINE_MEMORY_PRIVATE, /* anonymous */
    MACHINE_MEMORY_HUGETLB, /* memfd with 2 MiB pages, MAP_SHARED */
} MachineMemory;

typedef struct MachineOptions {
    uint64_t memory_bytes;
    unsigned cpus;
    const char *boot;   /* KVM: boot image file; NULL: the shipped guest. Threads: ignored */
    const char *serial; /* "stdio", "file:PATH", "unix:PATH", "none" */
    MachineMemory memory;
    bool dirty_ring;      /* KVM: dirty ring instead of bitmap */
    bool incoming;        /* RAM will be received: do not fault it in, do not load the boot image */
    uint64_t write_bytes; /* threads and shipped guest: working set it keeps writing; 0: all */
    uint64_t write_rate;  /* the same two: pages written a second and thread; 0: full speed */
} MachineOptions;

typedef struct Machine Machine;

typedef struct MachineKind {
    const char *name; /* "kvm", "threads" */
    /* Errors in the terms of FAULTLINE_ERROR. The guest is made paused. */
    Machine *(*make)(const MachineOptions *options, GError **error);
    /* After faultline_free(). Stops and joins vCPU threads. */
    void (*free)(Machine *machine);
    const FaultlineGuest *guest; /* opaque is the Machine */
    /* Owned by the machine. */
    const FaultlineBlock *(*blocks)(Machine *machine, unsigned *ret_count);
    /* One line: what the guest itself says of its data, e.g. "ok, 123456 checks", or NULL. Owned by
     * the machine. A verdict that begins with "bad" is a wrong byte. */
    const char *(*verdict)(Machine *machine);
    /* When the guest ended by itself and cannot run on: "shutdown" (it reset or shut down) or
     * "internal-error" (the machine cannot run it); else NULL. The function may be NULL. Thread:
     * any.
     */
    const char *(*end)(Machine *machine);
    /* The guest's other half is lost: from now on pause does not wait for a vCPU that waits for a
     * page. It stands where it is, and parks before it runs on. */
    void (*strand)(Machine *machine, bool is_stranded);
} MachineKind;

extern const MachineKind machine_kvm;
extern const MachineKind machine_threads;

/* ---- Guest RAM, shared by both kinds (ram.c) ------------------------------------------------- */

/* Maps length_bytes of the kind; fills *ret_block (name, guest address, mapping, fd, page size).
 * With fault_in and more than one NUMA node: bound to nodes and faulted in (libnuma). Errors: HOST,
 * UNSUPPORTED (no huge pages: says how to reserve them). */
bool ram_map(MachineMemory memory, const char *name, uint64_t guest_address, uint64_t length_bytes,
             bool fault_in, FaultlineBlock *ret_block, GError **error);
void ram_unmap(FaultlineBlock *block);

/* NUMA nodes of this host; 0: the calls for it are refused. */
unsigned ram_count_nodes(void);

/* Writes guest physical memory to a file, for pmemsave; it must lie in the blocks. Errors:
 * ARGUMENT, HOST. (ram_file.c) */
bool ram_write_file(const FaultlineBlock *blocks, unsigned count, uint64_t address,
                    uint64_t length_bytes, const char *path, GError **error);

#endif
