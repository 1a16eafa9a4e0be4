/* SPDX-License-Identifier: MIT */
/*
 * One virtual machine's Faultline, inside: what source, destination and control thread share.
 *
 * Owner of the phase: the migration role at a source, the listen role at a destination; they alone
 * call context_move(), except for the one move of the package role, which gives way to theirs, and
 * out of postcopy-paused at a source, where whoever wants it may take the phase on: both with
 * context_move_from(). Owner of the guest's run state while a migration runs: the same, and the
 * package role between LISTEN and RUN.
 */
#ifndef ENGINE_CONTEXT_H
#define ENGINE_CONTEXT_H

#include "engine/block.h"
#include "engine/options.h"
#include "engine/record.h"
#include "engine/role.h"
#include "engine/security.h"

#include <pthread.h>

typedef struct Source Source;
typedef struct Destination Destination;
typedef struct DirtyRate DirtyRate;

/* Figures of a migration. Each is written by one thread and read by any: relaxed atomics. */
typedef struct Progress {
    uint64_t started_ns, active_ns, ended_ns;
    uint64_t downtime_ns; /* source */
    uint64_t expected_downtime_ms;
    uint64_t remaining_bytes;
    uint64_t precopy_bytes, downtime_bytes, postcopy_bytes;
    uint64_t urgent_bytes; /* of postcopy_bytes' kind, by the request thread */
    uint64_t normal_pages, zero_pages;
    uint64_t urgent_normal_pages, urgent_zero_pages; /* the request or fault thread's share */
    uint64_t throttle_percent;                       /* source: of their time that vCPUs are held */
    uint64_t dirty_sync_count, dirty_pages_per_s, bandwidth_bytes_per_s;
    uint64_t postcopy_requests;
    uint64_t precopy_pages, pushed_pages;
    uint64_t requested_pages; /* by the thread that has the urgent channel */
    uint64_t requested_main_pages;
    uint64_t local_faults;
    uint64_t received_main_bytes, received_urgent_bytes; /* destination */
    uint64_t moment_ns[FAULTLINE_MOMENT_COUNT];
    uint64_t verdict;                             /* FaultlineVerdict */
    uint64_t damaged_pages, asked_again;          /* destination: atomic sums of two threads */
    uint64_t pauses, paused_ns, longest_pause_ns; /* of postcopy; of those that are over */
    uint64_t pause_began_ns;                      /* of the one that is not; 0: there is none */
    uint64_t recover_attempts, recover_next_ns;   /* source; of this pause; 0: no attempt follows */
    uint64_t recover_address;                     /* index of the next one */
    uint64_t neighbour_pages; /* on the urgent channel, and nobody asked for them */
    uint64_t is_unheard;      /* destination, over: the source may not know */
} Progress;

/* What had gone over the channels at a time. */
typedef struct ChannelMark {
    uint64_t when_ns, main_bytes, urgent_bytes;
} ChannelMark;

struct Faultline {
    /* set by faultline_new() */
    FaultlineGuest guest;
    void *opaque;
    char *machine;
    RamBlocks blocks;
    int event_fd;

    /* control thread */
    Options options;   /* its values are atomic */
    Security security; /* connecting and listening roles read it */
    Source *source;
    Destination *destination;
    RoleThreads *threads;
    DirtyRate *dirty_rate; /* the last measuring; NULL: there was none */
    ChannelMark marks[2];  /* of queries, the older first, for rates */
    FaultlineWalkTrace *walks[FAULTLINE_WALK_ROLE_COUNT]; /* NULL: not traced */

    /* atomic */
    unsigned status;    /* FaultlineStatus; see context_move() */
    unsigned run_state; /* FaultlineRunState */
    bool autostart, insecure;
    Progress progress;

    Record record; /* says itself who may touch what */

    /* Held over pause and resume, so that a monitor's stop and a switch-over come one after the
     * other; taken by control, migration, package and listen thread; before lock. */
    pthread_mutex_t guest_lock;

    /* any thread, under lock; held for nothing else but signalling event_fd. */
    pthread_mutex_t lock;
    pthread_cond_t changed; /* the status, for faultline_wait() */
    GQueue events;          /* FaultlineEvent */
    GError *error;          /* first failure of the current migration */
    char *refusal;          /* of the last connection that was turned away */
    uint64_t refused_connections;
};

static inline void
progress_add(uint64_t *figure, uint64_t amount)
{
    __atomic_store_n(figure, *figure + amount, __ATOMIC_RELAXED);
}

static inline void
progress_set(uint64_t *figure, uint64_t value)
{
    __atomic_store_n(figure, value, __ATOMIC_RELAXED);
}

static inline uint64_t
progress_get(const uint64_t *figure)
{
    return __atomic_load_n(figure, __ATOMIC_RELAXED);
}

/* Notes that this part of the switch-over is done. Thread: the part's. */
static inline void
context_note(Faultline *faultline, FaultlineMoment moment)
{
    progress_set(&faultline->progress.moment_ns[moment], clock_now_ns());
}

/* The one function that moves the phase; an illegal move is our own mistake and asserts. Emits the
 * event. Thread: the phase's owner. */
void context_move(Faultline *faultline, FaultlineStatus to);
/* The same if the status is `from`; false: it is another one by now, and nothing was done. Thread:
 * package, for what happens right before the guest's start and must not wait for the phase's owner;
 * any, out of postcopy-paused. */
bool context_move_from(Faultline *faultline, FaultlineStatus from, FaultlineStatus to);
FaultlineStatus context_status(const Faultline *faultline);
/* In postcopy with a connection, or the attempt at one, that can be broken. */
bool context_is_connected(const Faultline *faultline);
/* Whether a migration is under way in either direction. */
bool context_is_busy(const Faultline *faultline);

void context_event(Faultline *faultline, FaultlineEvent event);
/* The same with lock held. */
void context_event_locked(Faultline *faultline, FaultlineEvent event);

/* Keeps the first error of a migration, for faultline_query(). Takes the error. Thread: any. */
void context_keep_error(Faultline *faultline, GError *error);

/* It is not failing any more: a recovery has begun. Thread: any. */
void context_forget_error(Faultline *faultline);

/* Appends a sentence to the error kept. Thread: any. */
void context_amend_error(Faultline *faultline, const char *sentence);
/* A connection was turned away; the migration is not over. Takes the text. Thread: any. */
void context_note_refusal(Faultline *faultline, char *text, unsigned count);

/* Source, at the switch-over: stops the guest if it runs, and keeps stop and cont away from it. On
 * an error the guest goes on as it was. */
bool context_take_guest(Faultline *faultline, bool *ret_was_running, GError **error);

/* The guest is this side's: it runs, or stands paused, and stop and cont work. */
bool context_settle_guest(Faultline *faultline, bool run, GError **error);

/* Source: vCPUs are held for so many percent of their time; tells queries. */
void context_throttle_guest(Faultline *faultline, unsigned percent);

/* Who runs the guest, told to queries; changed by the owner only (see above). */
void context_set_run_state(Faultline *faultline, FaultlineRunState state);

#endif
