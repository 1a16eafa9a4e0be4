/* SPDX-License-Identifier: MIT */
/*
 * What a guest must offer so that its memory and devices can be moved.
 *
 * A VMM fills one FaultlineBlock for each piece of guest RAM and one FaultlineGuest with its
 * callbacks, and hands both to faultline_new() (faultline.h). The engine calls a callback with the
 * VMM's own opaque pointer; on which thread is said at each. No callback is ever called by two
 * threads at once, except vcpu_thread, which only reads.
 *
 * The order in which a source calls:      dirty_log_start, dirty_log_sync (once a pass), maybe
 *                                         throttle (after a pass), pause, dirty_log_sync,
 * save_state, dirty_log_stop; resume only if the migration failed or was cancelled before the
 *                                         destination can have taken the guest over.
 * The order in which a destination calls: load_state (once a section), then resume.
 */
#ifndef FAULTLINE_GUEST_H
#define FAULTLINE_GUEST_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

G_BEGIN_DECLS
#pragma GCC visibility push(default) /* the library exports this and no more */

/* The unit of the wire and of every dirty bitmap: one target page, 4096 bytes on x86-64. */
#define FAULTLINE_PAGE_BYTES 4096u

/*
 * One block of guest RAM. The VMM owns the memory and the mapping and keeps both until
 * faultline_free(). At a destination nobody may touch the guest mapping between
 * faultline_incoming() and the end of the migration except vCPUs and load_state. No two blocks may
 * share host memory, guest addresses or, by the same fd and both shared, a range of the file.
 */
typedef struct FaultlineBlock {
    const char *name;         /* equal on both sides, 1..255 printable ASCII, e.g. "ram-low" */
    uint64_t guest_address;   /* guest physical address of its first byte */
    void *host_address;       /* the guest mapping: what vCPUs use; aligned to page_size_bytes */
    uint64_t length_bytes;    /* a multiple of page_size_bytes, not 0 */
    int fd;                   /* memfd or hugetlbfs file behind it; -1: private anonymous memory */
    uint64_t fd_offset_bytes; /* where in fd the block begins; a multiple of page_size_bytes */
    uint64_t page_size_bytes; /* of the backing: 4096 (also with THP), 2 MiB or 1 GiB (hugetlb) */
    bool shared;              /* mapped MAP_SHARED from fd */
} FaultlineBlock;

/* Collects the device sections of save_state(); made and owned by the engine. */
typedef struct FaultlineState FaultlineState;

/*
 * Adds one device section.
 * name: "vendor/device", 1..255 bytes of printable ASCII, the same at load; instance, version: the
 * VMM's own numbers; bytes: copied. Thread: the one that runs save_state.
 */
void faultline_state_add(FaultlineState *state, const char *name, uint32_t instance,
                         uint32_t version, const void *bytes, size_t length_bytes);

/* New members stand at the end. Of a struct that says an earlier version only the members of that
 * version are read, so that a VMM built with an earlier guest.h goes on to work; what it could not
 * set is NULL or 0. */
#define FAULTLINE_GUEST_VERSION 2

typedef struct FaultlineGuest {
    uint32_t version;    /* FAULTLINE_GUEST_VERSION */
    const char *machine; /* versioned machine type, equal on both sides, e.g. "faultline-kvm-1.0" */

    /* Most bytes of device state this guest can have, over all sections; a longer package from the
     * peer is refused. 0 means 16 MiB; 1 GiB is the most. */
    uint64_t state_limit_bytes;

    /* Stops all vCPUs and devices; on return nothing writes guest RAM any more and the state is
     * stable. Pausing a paused guest succeeds. Thread: migration, or the caller of faultline_stop.
     */
    bool (*pause)(void *opaque, GError **error);

    /* Starts or restarts all vCPUs. Thread: migration (source), package or listen (destination), or
     * the caller of faultline_cont. */
    bool (*resume)(void *opaque, GError **error);

    /* Dirty source: either all three or none. NULL: the engine tracks writes itself by
     * userfaultfd WP_ASYNC (Linux 6.7), for guests that are plain processes.
     * start: from its return on every write is recorded. sync: ORs one bit a target page into
     * words (bit i % 64 of words[i / 64] is page i of the block) for each page written since the
     * last sync, or since start, and re-arms them. Thread: migration, or dirty-rate. */
    bool (*dirty_log_start)(void *opaque, GError **error);
    bool (*dirty_log_sync)(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages,
                           GError **error);
    void (*dirty_log_stop)(void *opaque);

    /* Writes all device sections by faultline_state_add(). Guest paused. Thread: migration. */
    bool (*save_state)(void *opaque, FaultlineState *state, GError **error);

    /* Loads one device section; may touch guest memory and so may wait for the source.
     * Must refuse what it does not know, with an error. Thread: package (postcopy) or listen. */
    bool (*load_state)(void *opaque, const char *name, uint32_t instance, uint32_t version,
                       const void *bytes, size_t length_bytes, GError **error);

    /* Thread id (gettid) of vCPU `index`, or 0 when there is none such; for blocktime. NULL: none.
     * Thread: any. */
    pid_t (*vcpu_thread)(void *opaque, unsigned index);

    /* ---- from version 2 on ---- */

    /* Slows the guest down: from its return on, until it is called again, vCPUs are held for
     * percent (0..99) of their time, in slices so short that none of them seems to stand, and run
     * for the rest. 0: at full speed again, none is held any more on return. Holds also for a guest
     * that is paused and resumed meanwhile. Called by a source with capability auto-converge, with
     * 0 before it stops the guest and at each end of the migration. Must not fail and not wait for
     * the guest. NULL: auto-converge is refused. Thread: migration. */
    void (*throttle)(void *opaque, unsigned percent);
} FaultlineGuest;

#pragma GCC visibility pop
G_END_DECLS

#endif
