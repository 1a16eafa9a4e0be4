/* SPDX-License-Identifier: MIT */
/*
 * Trials on memory of our own. The calling thread answers faults; a thread of the trial touches the
 * page, and is woken and joined whatever comes of it. What the outcomes mean for a host is
 * check.c's.
 */
#include "uffd/trial.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "uffd/abi.h"
#include "uffd/memory.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21u << 26)
#endif

#define FILLING    0x5a
#define PATIENCE_S 5 /* for a fault that should come at once */

typedef struct Trial {
    UffdLayout layout;
    UffdMemory *memory;
    Uffd *uffd;
    uint8_t *bytes; /* a page of them, to be placed */
} Trial;

/* ---- The memory ------------------------------------------------------------------------------ */

/* Private hugetlb memory would be reserved only when it is touched; with a file it is now. */
static bool
open_memory(Trial *trial, const TrialKind *kind, GError **error)
{
    if (!kind->is_memfd && !kind->is_hugetlb) {
        return true;
    }
    unsigned flags = MFD_CLOEXEC | (kind->is_hugetlb ? MFD_HUGETLB | MFD_HUGE_2MB : 0);

    trial->layout.fd = memfd_create("faultline-trial", flags);
    if (trial->layout.fd < 0 || ftruncate(trial->layout.fd, THP_BYTES) != 0) {
        return uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot make a %s", kind->text);
    }
    return true;
}

static bool
map_memory(Trial *trial, const TrialKind *kind, GError **error)
{
    const UffdLayout *layout = &trial->layout;
    uint8_t *room = mmap(NULL, 2 * THP_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (room == MAP_FAILED) {
        return uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot find room for %s", kind->text);
    }
    uint8_t *at = room + (0 - (uintptr_t)room) % THP_BYTES;
    int flags = MAP_FIXED | (layout->shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    void *mapped = mmap(at, THP_BYTES, PROT_READ | PROT_WRITE, flags, layout->fd, 0);
    bool done = mapped != MAP_FAILED;

    if (!done) {
        uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot map %s", kind->text);
    }
    if (at > room) {
        munmap(room, (size_t)(at - room));
    }
    munmap(at + THP_BYTES, THP_BYTES - (size_t)(at - room));
    if (!done) {
        munmap(at, THP_BYTES);
        return false;
    }
    trial->layout.host_address = mapped;
    return true;
}

static void
trial_clear(Trial *trial)
{
    uffd_memory_free(trial->memory);
    uffd_free(trial->uffd);
    if (trial->layout.host_address != NULL) {
        munmap(trial->layout.host_address, THP_BYTES);
    }
    if (trial->layout.fd >= 0) {
        close(trial->layout.fd);
    }
    g_free(trial->bytes);
}

static bool
trial_begin(Trial *trial, const TrialKind *kind, GError **error)
{
    *trial = (Trial){.layout = {
                         .fd = -1,
                         .length_bytes = THP_BYTES,
                         .page_bytes = kind->is_hugetlb ? THP_BYTES : TARGET_PAGE_BYTES,
                         .shared = kind->is_memfd || kind->is_hugetlb,
                     }};
    trial->bytes = g_malloc(trial->layout.page_bytes);
    memset(trial->bytes, FILLING, trial->layout.page_bytes);
    return open_memory(trial, kind, error) && map_memory(trial, kind, error);
}

/* kB that the mapping at address has of a field of /proc/self/smaps; 0: not told. */
static uint64_t
mapped_kb(const void *address, const char *field)
{
    g_autofree char *text = NULL;
    g_autofree char *head = g_strdup_printf("%" PRIxPTR "-", (uintptr_t)address);

    if (!g_file_get_contents("/proc/self/smaps", &text, NULL, NULL)) {
        return 0;
    }
    const char *at = strstr(text, head);

    at = at != NULL ? strstr(at, field) : NULL;
    return at != NULL ? strtoull(at + strlen(field), NULL, 10) : 0;
}

bool
trial_of_memory(const TrialKind *kind, GError **error)
{
    Trial trial;
    bool done = trial_begin(&trial, kind, error);

    if (done && kind->is_thp) {
        madvise(trial.layout.host_address, THP_BYTES, MADV_HUGEPAGE);
        memset(trial.layout.host_address, FILLING, 1);
        done = mapped_kb(trial.layout.host_address, "ShmemPmdMapped:") * 1024 == THP_BYTES;
        if (!done) {
            g_set_error(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED,
                        "the kernel gives a memfd pages of 4 KiB where 2 MiB are asked for");
        }
    }
    trial_clear(&trial);
    return done;
}

bool
trial_of_lock(GError **error)
{
    const TrialKind kind = {.name = "private", .text = "private memory"};
    Trial trial;
    bool done = trial_begin(&trial, &kind, error);

    if (done && mlock(trial.layout.host_address, THP_BYTES) != 0) {
        done = uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot lock 2 MiB in memory");
    }
    trial_clear(&trial);
    return done;
}

/* ---- A fault --------------------------------------------------------------------------------- */

/* Touched by the kernel for a system call, as KVM does for a vCPU: a userfaultfd for user mode
 * alone would make it fail. */
static void *
touch(void *opaque)
{
    uint8_t byte = 0;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) == 0) {
        if (write(ends[1], opaque, 1) != 1 || read(ends[0], &byte, 1) != 1) {
            byte = 0;
        }
        close(ends[0]);
        close(ends[1]);
    }
    return GUINT_TO_POINTER(byte);
}

static bool
await_fault(const Trial *trial, UffdFault *ret_fault, GError **error)
{
    struct pollfd wait = {.fd = uffd_fd(trial->uffd), .events = POLLIN};

    for (int64_t end = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
         g_get_monotonic_time() < end;) {
        poll(&wait, 1, 100);
        if (uffd_read_faults(trial->uffd, ret_fault, 1) == 1) {
            return true;
        }
    }
    g_set_error(error, UFFD_ERROR, UFFD_ERROR_HOST,
                "a thread touched a missing page, but no fault came in %d s", PATIENCE_S);
    return false;
}

static bool
answer_fault(Trial *trial, bool minor, GError **error)
{
    UffdMemory *memory = trial->memory;
    UffdFault fault;

    if (!await_fault(trial, &fault, error)) {
        return false;
    }
    if (fault.minor != minor) {
        g_set_error(error, UFFD_ERROR, UFFD_ERROR_HOST,
                    "a thread touched a missing page, and the kernel took it for %s",
                    minor ? "one that the page cache lacks" : "one that the page cache has");
        return false;
    }
    UffdResult result = minor ? uffd_place_received(memory, 0, trial->layout.page_bytes)
                              : uffd_place(memory, 0, trial->layout.page_bytes, trial->bytes);

    if (result != UFFD_PLACED) {
        const char *text = uffd_memory_error(memory);

        g_set_error(error, UFFD_ERROR, UFFD_ERROR_HOST, "%s",
                    *text != '\0' ? text : "a page cannot be placed where a thread waits for it");
        return false;
    }
    return true;
}

static bool
touch_and_answer(Trial *trial, bool minor, GError **error)
{
    pthread_t thread;
    void *seen;

    if (pthread_create(&thread, NULL, touch, trial->layout.host_address) != 0) {
        return uffd_fail(error, UFFD_ERROR_HOST, EAGAIN, "cannot start a thread for a trial");
    }
    bool done = answer_fault(trial, minor, error);

    if (!done) {
        /* The thread may wait yet: who waits on a closed userfaultfd goes on. */
        g_clear_pointer(&trial->uffd, uffd_free);
    }
    pthread_join(thread, &seen);
    if (done && GPOINTER_TO_UINT(seen) != FILLING) {
        g_set_error(error, UFFD_ERROR, UFFD_ERROR_HOST,
                    "a thread touched a missing page and read 0x%x of it, not the 0x%x that was "
                    "placed",
                    GPOINTER_TO_UINT(seen), FILLING);
        return false;
    }
    return done;
}

static bool
watch(Trial *trial, bool minor, GError **error)
{
    trial->uffd = uffd_open(error);
    trial->memory = trial->uffd != NULL ? uffd_memory_new(&trial->layout, error) : NULL;
    if (trial->memory == NULL) {
        return false;
    }
    if (!minor) {
        uffd_memory_use_copy_way(trial->memory);
    }
    if (!uffd_memory_empty(trial->memory, error)) {
        return false;
    }
    if (minor) {
        uffd_store(trial->memory, 0, trial->bytes);
    }
    return uffd_memory_register(trial->memory, trial->uffd, 0, THP_BYTES, error);
}

static bool
trial_of_fault(const TrialKind *kind, bool minor, GError **error)
{
    Trial trial;
    bool done = trial_begin(&trial, kind, error) && watch(&trial, minor, error) &&
                touch_and_answer(&trial, minor, error);

    trial_clear(&trial);
    return done;
}

bool
trial_of_missing(const TrialKind *kind, GError **error)
{
    return trial_of_fault(kind, false, error);
}

static bool
has_minor(GError **error)
{
    const UffdFeatureRow *row = uffd_feature_table();
    Uffd *uffd = uffd_open(error);

    if (uffd == NULL) {
        return false;
    }
    uint64_t features = uffd_features(uffd);

    uffd_free(uffd);
    while (row->name != NULL && row->bit != UFFD_FEATURE_MINOR_SHMEM) {
        row++;
    }
    if (!(features & row->bit)) {
        g_autofree char *text = uffd_feature_lack(row);

        g_set_error_literal(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED, text);
        return false;
    }
    return true;
}

bool
trial_of_minor(const TrialKind *kind, GError **error)
{
    return has_minor(error) && trial_of_fault(kind, true, error);
}

/* ---- Tracking -------------------------------------------------------------------------------- */

static bool
track(UffdTracker *tracker, const Trial *trial, GError **error)
{
    volatile uint8_t *bytes = trial->layout.host_address;
    uint64_t words[THP_BYTES / TARGET_PAGE_BYTES / 64] = {0};
    uint64_t again[G_N_ELEMENTS(words)] = {0};

    bytes[0] = FILLING;
    if (!uffd_tracker_add(tracker, trial->layout.host_address, THP_BYTES, error)) {
        return false;
    }
    bytes[0] = 1;
    if (!uffd_tracker_sync(tracker, trial->layout.host_address, THP_BYTES, words, false, error) ||
        !uffd_tracker_sync(tracker, trial->layout.host_address, THP_BYTES, again, false, error)) {
        return false;
    }
    if (!(words[0] & 1) || (again[0] & 1)) {
        g_set_error(error, UFFD_ERROR, UFFD_ERROR_HOST,
                    "a page was written, and the kernel %s. Give guests of this kind a dirty log "
                    "of their own",
                    words[0] & 1 ? "goes on saying so" : "did not say so");
        return false;
    }
    return true;
}

bool
trial_of_tracker(const TrialKind *kind, GError **error)
{
    Trial trial;
    UffdTracker *tracker = uffd_tracker_new(error);
    bool done =
        tracker != NULL && trial_begin(&trial, kind, error) && track(tracker, &trial, error);

    if (tracker != NULL) {
        uffd_tracker_free(tracker);
        trial_clear(&trial);
    }
    return done;
}
