/* SPDX-License-Identifier: MIT */
/*
 * userfaultfd and the memory behind it: open, register, read faults, place pages, track writes.
 * Knows no wire, no bitmap and no guest.
 *
 * A destination's story in call order, for each block an UffdMemory:
 *
 *     uffd = uffd_open(&error);                         one a destination
 *     memory = uffd_memory_new(&layout, &error);        chooses the way of placing, see below
 *     uffd_memory_empty(memory, &error);                before the first page: all zero, THP set up
 *     uffd_memory_warm(memory, offset, length)          memory before pages, while there is time
 *     uffd_store(memory, offset, bytes)                 precopy: pages that come, any order, again
 *     uffd_receive_address(memory, offset, length)      or: where the caller receives them to
 *     uffd_memory_discard(memory, offset, length)       pages that will come again later
 *     uffd_memory_zap(memory)                           guest mapping empty (alias way)
 *     uffd_memory_register(memory, uffd, offset, length) from now on touching a page there that was
 *                                                       not placed stops the thread
 *     uffd_read_faults(uffd, faults, 16)                who waits where
 *     uffd_place(memory, offset, length, bytes)         bytes appear, waiting threads run on
 *     uffd_place_received(memory, offset, length)       stored before registering, or received to
 *                                                       an address since: make it visible
 *     uffd_memory_finish(memory)                        all is there: unregister, 2 MiB pages again
 *
 * Two ways of placing, chosen in uffd_memory_new():
 *   alias  the memory is a memfd (shmem), mapped shared. A second mapping of it, the alias, is
 *          private to us; pages are written there, and UFFDIO_CONTINUE maps them into the guest
 *          mapping, which is registered MISSING|MINOR. 4 KiB at a time also out of 2 MiB pages.
 *          Needs Linux 5.14. What comes again for a page that is visible is dropped.
 *   copy   private anonymous memory, hugetlbfs, memfd mapped private, and any memfd before Linux
 *          5.14: pages of precopy are written into the guest mapping itself, the others come by
 *          UFFDIO_COPY and UFFDIO_ZEROPAGE; registered MISSING.
 *
 * offset and length are bytes in the block, multiples of its page size (uffd_memory_page_bytes),
 * inside the block: the caller has checked. Threads: functions on different pages of one memory may
 * run at once; what is said to be set-up may not.
 */
#ifndef UFFD_UFFD_H
#define UFFD_UFFD_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UFFD_ERROR (uffd_error_quark())
GQuark uffd_error_quark(void);

typedef enum {
    UFFD_ERROR_UNSUPPORTED, /* kernel or permission lacks it: says which, since when, what to set */
    UFFD_ERROR_HOST,        /* a call failed: no memory, ... */
} UffdErrorCode;

/* ---- Opening --------------------------------------------------------------------------------- */

typedef struct Uffd Uffd;

/* One row of what a kernel may offer. */
typedef struct UffdFeatureRow {
    const char *name;   /* "MINOR_SHMEM" */
    uint64_t bit;       /* UFFD_FEATURE_* */
    const char *reason; /* what we use it for */
    const char *kernel; /* first release, "5.14" */
    bool required;
} UffdFeatureRow;

/* Ends with a row whose name is NULL. */
const UffdFeatureRow *uffd_feature_table(void);

/* By /dev/userfaultfd, else by the system call; non-blocking, close-on-exec; with thread ids and
 * all features of the table that the kernel has. Errors: UNSUPPORTED, naming device, sysctl
 * (vm.unprivileged_userfaultfd) and capability; HOST. Source: userfaultfd(2). */
Uffd *uffd_open(GError **error);

/* Closes it. Threads that still wait on a registered page would see zero pages: never before all
 * pages are placed or the guest is gone. */
void uffd_free(Uffd *uffd);

/* For poll; owned by the Uffd. */
int uffd_fd(const Uffd *uffd);
uint64_t uffd_features(const Uffd *uffd);

typedef struct UffdFault {
    uintptr_t address; /* host address, rounded down to 4096 */
    uint32_t thread;   /* thread id of who waits; a kernel worker with asynchronous page faults */
    bool write;
    bool minor; /* the page cache has the page, the guest mapping has not */
} UffdFault;

/* Walk 1 of 12. Reads what waits, at most capacity (up to 16 in one read). 0: nothing now. */
unsigned uffd_read_faults(Uffd *uffd, UffdFault *ret_faults, unsigned capacity);

/* ---- Memory of a block ----------------------------------------------------------------------- */

typedef struct UffdMemory UffdMemory;

typedef struct UffdLayout {
    void *host_address;
    uint64_t length_bytes;
    int fd; /* -1: private anonymous */
    uint64_t fd_offset_bytes;
    uint64_t page_bytes; /* 4096, or the huge page size of hugetlbfs */
    bool shared;
} UffdLayout;

typedef enum {
    UFFD_PLACED,
    UFFD_ALREADY, /* the page, or each of the range, was there; waiting threads were woken */
    UFFD_GONE,    /* the address space or the registration is gone: stop */
    UFFD_FAILED,  /* see uffd_memory_error() */
} UffdResult;

/* Set-up. The memory stays the caller's, who keeps it mapped until uffd_memory_free. Errors:
 * UNSUPPORTED, HOST. */
UffdMemory *uffd_memory_new(const UffdLayout *layout, GError **error);
void uffd_memory_free(UffdMemory *memory);

uint64_t uffd_memory_page_bytes(const UffdMemory *memory);

/* What belongs together when pages that were stored before registering are made visible: 2 MiB in
 * the alias way, where they stay hidden until then; the page size in the copy way, where they are
 * not. */
uint64_t uffd_memory_extent_bytes(const UffdMemory *memory);

/* The last failure of a placing call, as text; "" if none. Thread: the one that got it; valid until
 * its next failure. */
const char *uffd_memory_error(const UffdMemory *memory);

/* Set-up, destination: drops all content, of the file as well (also where it is mapped private:
 * never a template that others use); forbids THP in the copy way, asks for it in the alias way
 * where the memfd has it. */
bool uffd_memory_empty(UffdMemory *memory, GError **error);

/* Destination, after empty, beside all that stores, registers and places: takes memory for a range
 * whose pages have not come, so that nobody waits while the kernel finds and clears a huge page.
 * They stay zero and hidden. false: the memory has no huge pages, where this is not worth it, or
 * there is no more of it; ask no further. Thread: any one. Source: madvise(2), MADV_POPULATE_WRITE,
 * Linux 5.14.
 */
bool uffd_memory_warm(UffdMemory *memory, uint64_t offset, uint64_t length);

/* Precopy, one thread: stores 4096 bytes (offset a multiple of 4096, also in huge pages). bytes
 * NULL: zeros; a page never stored before is left unallocated then. */
void uffd_store(UffdMemory *memory, uint64_t offset, const void *bytes);

/* Set-up, after precopy: the range will come again. Copy way: its pages are dropped; alias way:
 * nothing to do. */
bool uffd_memory_discard(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error);

/* Set-up: nothing is mapped in the guest mapping any more (alias way: one call for all; copy way:
 * nothing to do). */
bool uffd_memory_zap(UffdMemory *memory, GError **error);

/* Set-up: watches a range (alias way: MISSING|MINOR, copy way: MISSING). */
bool uffd_memory_register(UffdMemory *memory, Uffd *uffd, uint64_t offset, uint64_t length,
                          GError **error);

/* The page at offset is asked for and will be placed: while that takes its time, brings the memory
 * it will be written to near to this processor. */
void uffd_expect(const UffdMemory *memory, uint64_t offset);

/* Walk 10 and 11 of 12. Makes bytes (NULL: zeros) visible at a registered range that was not
 * received before, and wakes who waits there: one ioctl for the range. */
UffdResult uffd_place(UffdMemory *memory, uint64_t offset, uint64_t length, const void *bytes);

/*
 * Where the caller may receive the bytes of a range to, instead of handing them to uffd_store() or
 * uffd_place(). Alias way: its place in the alias, also when it is registered; then
 * uffd_place_received() shows what has come whole, at once or piece by piece. Copy way: its place
 * in the guest mapping before registering. NULL: receive elsewhere, and place (copy way,
 * registered; or a page of it is visible and the guest's own). From the call on the range counts as
 * stored, and what it holds is undefined until it was received: the caller shows nothing of it
 * before. Whole 4096-byte pages, also in huge pages. Thread: one a range.
 */
void *uffd_receive_address(UffdMemory *memory, uint64_t offset, uint64_t length);

/* Makes a registered range visible that was stored before it was registered (or is a zero page
 * stored as a hole, or was received to its address), and wakes who waits there. Already visible
 * pages in it are passed over; ALREADY when all were. A hole gets a page of its own (alias way:
 * 4096 bytes of the memfd). */
UffdResult uffd_place_received(UffdMemory *memory, uint64_t offset, uint64_t length);

/* Pages that come in ascending order, gathered and placed with few ioctls. One a placing thread. */
typedef struct UffdRun UffdRun;
UffdRun *uffd_run_new(void);
void uffd_run_free(UffdRun *run);

/* Takes one 4096-byte page of a memory whose page size is 4096 (NULL: zeros). Places the run
 * gathered before, first, when this page does not continue it or it is full (64 pages): then
 * *ret_offset, *ret_length say what became visible (length 0: nothing yet), zero pages as well.
 * bytes need not stay valid. */
UffdResult uffd_run_add(UffdRun *run, UffdMemory *memory, uint64_t offset, const void *bytes,
                        uint64_t *ret_offset, uint64_t *ret_length);
/* Places what is left. */
UffdResult uffd_run_flush(UffdRun *run, uint64_t *ret_offset, uint64_t *ret_length);
/* The memory of the run that is being gathered; NULL when it is empty. */
UffdMemory *uffd_run_memory(const UffdRun *run);

/* Set-up, at the end: unregisters all, gives THP back (MADV_COLLAPSE in the alias way, advice in
 * the copy way), unmaps the alias. Only when every page was placed or stored. collapse false: only
 * unregisters (quick); call again with true for the rest. */
bool uffd_memory_finish(UffdMemory *memory, bool collapse, GError **error);

/* Source: frees the host memory behind a range that was sent (release-ram). */
void uffd_memory_release(UffdMemory *memory, uint64_t offset, uint64_t length);

/* ---- Checking the host ----------------------------------------------------------------------- */

typedef enum {
    UFFD_CHECK_OK,
    UFFD_CHECK_WARNING, /* it goes without, or another gate does the same */
    UFFD_CHECK_CLOSED,  /* postcopy cannot work */
} UffdCheckState;

/* Something that was tried. */
typedef struct UffdCheck {
    const char *name;  /* "uffd-device"; never changes its meaning */
    const char *tried; /* "userfaultfd by /dev/userfaultfd" */
    UffdCheckState state;
    const char *text; /* what came of it; sentences behind the first say what to do about it */
} UffdCheck;

/* Set-up. Tries everything of this folder for real, on memory of its own (below 10 MiB), and hands
 * each row to take, valid during the call. What rests on something that is closed is left out.
 * needs_tracker: guests keep no dirty log of their own. Starts a thread and joins it. */
void uffd_check_host(bool needs_tracker, void (*take)(void *opaque, const UffdCheck *check),
                     void *opaque);

/* ---- Write tracking of plain processes ------------------------------------------------------- */

typedef struct UffdTracker UffdTracker;

/* WP_ASYNC + PAGEMAP_SCAN. Errors: UNSUPPORTED before Linux 6.7 (says so). Set-up. */
UffdTracker *uffd_tracker_new(GError **error);
void uffd_tracker_free(UffdTracker *tracker);

/* From its return on writes to [address, address + length) are recorded. */
bool uffd_tracker_add(UffdTracker *tracker, void *address, uint64_t length, GError **error);

/* ORs one bit a 4096-byte page into words for each page of the range written since the last sync or
 * add, and re-arms them, atomically page by page. is_last: leaves them as they are, which is
 * quicker; only where nobody writes any more. */
bool uffd_tracker_sync(UffdTracker *tracker, void *address, uint64_t length, uint64_t *words,
                       bool is_last, GError **error);

#endif
