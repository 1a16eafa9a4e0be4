/* SPDX-License-Identifier: MIT */
/*
 * faultline: live migration by precopy, then postcopy, for any VMM.
 *
 * The story in call order. A VMM describes its RAM and its callbacks (guest.h) and makes one
 * Faultline a virtual machine:
 *
 *     Faultline *f = faultline_new(&guest, opaque, blocks, count_blocks, &error);
 *     faultline_set_capability(f, "postcopy-ram", true, &error);
 *
 *   source                                         destination
 *     faultline_cont(f)       guest runs             faultline_incoming(f, "tcp:127.0.0.1:4444")
 *     faultline_migrate(f, "tcp:HOST:4444")          ... receives; guest must not be run by the VMM
 *     faultline_start_postcopy(f)   a wish
 *     faultline_next_event(f)                        faultline_next_event(f)
 *     status completed: the guest is gone            status completed: the guest is whole
 *     faultline_free(f)                              ... or migrates on
 *
 * Ownership of the guest. It runs at exactly one side. The source gives it up with the last byte of
 * the device state and never runs it again after that, whatever happens to the connection;
 * faultline_cont() refuses. A failure before leaves it running at the source.
 *
 * Threads. The library makes threads only in faultline_migrate() and faultline_incoming(), and
 * joins them in the next of these or in faultline_free(); they end when the migration is over; and
 * one in faultline_measure_dirty_rate():
 *
 *   thread     side         owns                                sleeps on        stopped by
 *   migration  source       main channel's send half, passes,   its io_uring     end, cancel, free
 *                           switch-over, then pushes; moves the
 *                           phase
 *   request    source       return path's receive half, urgent  its io_uring     end, cancel, free
 *                           channel
 *   listen     destination  listening socket, main channel's    its io_uring     end, free
 *                           receive half; moves the phase
 *   package    destination  loading of the device state, start  its io_uring     end, free
 *                           of the guest, then mapping of what
 *                           precopy brought
 *   fault      destination  userfaultfd, return path's send     its io_uring     end, free
 *                           half, urgent channel
 *   record     either       with faultline_set_record(): the    its io_uring     end, free
 *                           words of who owns the guest
 *   dirty-rate either       one measuring of the dirty rate     its io_uring     its time, a
 *                                                                                migration, free
 *
 * System calls of these threads, for seccomp lists; connecting, sending and receiving happen inside
 * io_uring_enter, and guest.h says on which thread the VMM's callbacks come on top:
 *
 *   each       clone3's child and exit; rseq, set_robust_list, rt_sigprocmask, futex, mmap, munmap,
 *              mprotect, brk, madvise (C library); prctl (PR_SET_NAME); eventfd2, poll,
 *              io_uring_setup, io_uring_register, io_uring_enter; write (eventfd), close
 *              in postcopy sched_getattr, sched_setattr, sched_getaffinity; getrandom (tokens);
 *              with TLS recvfrom, sendto, getrandom, openat and read (GnuTLS)
 *   migration  socket, fcntl, getsockopt, setsockopt, getpeername, shutdown; openat and read
 *              (/proc/sys/net/core/rmem_max), newfstatat; openat and write
 *              (/dev/cpu_dma_latency); for a host's name what the C library's resolver needs;
 *              without a dirty log of the VMM ioctl (userfaultfd, /proc/self/pagemap);
 *              release-ram: fallocate
 *   request    recvfrom; release-ram: fallocate
 *   listen     accept4, fcntl, getsockopt, setsockopt, shutdown; newfstatat and unlink (unix:);
 *              openat, newfstatat and read (/proc/sys/net/core/rmem_max);
 *              openat and write (/dev/cpu_dma_latency); ioctl (userfaultfd); sched_yield;
 *              fallocate (DISCARD in private memory of a file)
 *   package    sysinfo; ioctl (userfaultfd), sched_yield
 *   fault      recvfrom; read and ioctl (userfaultfd), sched_yield
 *   record     what the VMM's callback needs
 *   dirty-rate without a dirty log of the VMM ioctl (userfaultfd, /proc/self/pagemap)
 *
 * All functions here may be called from any one thread at a time per Faultline (the VMM's control
 * thread); faultline_query() and faultline_next_event() never wait for the network.
 *
 * Errors are GErrors of FAULTLINE_ERROR whose code says what the caller can do and whose text says
 * operation, object, reason, remedy, and where the guest is. What goes wrong once the threads run
 * is no error of a function: the status is failed or postcopy-paused, and FaultlineInfo.error holds
 * the text. An `error` may be NULL where nobody wants the text.
 */
#ifndef FAULTLINE_H
#define FAULTLINE_H

#include "guest.h"

G_BEGIN_DECLS
#pragma GCC visibility push(default) /* the library exports this and no more */

#define FAULTLINE_ERROR (faultline_error_quark())
GQuark faultline_error_quark(void);

typedef enum {
    FAULTLINE_ERROR_UNSUPPORTED, /* this host or build cannot do it; nothing has begun */
    FAULTLINE_ERROR_ARGUMENT,    /* a name, value, URI or block is not acceptable */
    FAULTLINE_ERROR_STATE,       /* not now: the phase forbids it */
    FAULTLINE_ERROR_LINK,        /* the connection failed; pages are safe */
    FAULTLINE_ERROR_PEER,        /* the peer broke the protocol */
    FAULTLINE_ERROR_HOST,        /* a call on this host failed, or the guest's own callback */
    FAULTLINE_ERROR_CANCELLED,   /* somebody asked for it */
} FaultlineError;

/* Status of a migration, with QEMU's names (faultline_status_name). */
#define FAULTLINE_STATUS_LIST(X)                                                                   \
    X(NONE, "none")                                                                                \
    X(SETUP, "setup")                                                                              \
    X(CANCELLING, "cancelling")                                                                    \
    X(CANCELLED, "cancelled")                                                                      \
    X(ACTIVE, "active")                                                                            \
    X(DEVICE, "device")                                                                            \
    X(POSTCOPY_DEVICE, "postcopy-device")                                                          \
    X(POSTCOPY_ACTIVE, "postcopy-active")                                                          \
    X(POSTCOPY_PAUSED, "postcopy-paused")                                                          \
    X(POSTCOPY_RECOVER_SETUP, "postcopy-recover-setup")                                            \
    X(POSTCOPY_RECOVER, "postcopy-recover")                                                        \
    X(COMPLETED, "completed")                                                                      \
    X(FAILED, "failed")                                                                            \
    X(PRE_SWITCHOVER, "pre-switchover")

typedef enum {
#define FAULTLINE_STATUS_ENUM(name, text) FAULTLINE_STATUS_##name,
    FAULTLINE_STATUS_LIST(FAULTLINE_STATUS_ENUM)
#undef FAULTLINE_STATUS_ENUM
        FAULTLINE_STATUS_COUNT
} FaultlineStatus;

/* Never NULL. */
const char *faultline_status_name(FaultlineStatus status);

/* Where the guest stands, with QEMU's names (faultline_run_state_name). */
typedef enum {
    FAULTLINE_RUN_PRELAUNCH, /* never started */
    FAULTLINE_RUN_INMIGRATE, /* waits for, or receives, a migration */
    FAULTLINE_RUN_RUNNING,
    FAULTLINE_RUN_PAUSED,         /* faultline_stop, or arrived in that state */
    FAULTLINE_RUN_FINISH_MIGRATE, /* stopped for the switch-over */
    FAULTLINE_RUN_POSTMIGRATE,    /* given up: the destination may run it; never run here again */
    FAULTLINE_RUN_COUNT
} FaultlineRunState;

const char *faultline_run_state_name(FaultlineRunState state);

typedef struct Faultline Faultline;

/*
 * guest: copied; opaque: handed to its callbacks, must outlive the Faultline.
 * blocks: copied, names too; the memory stays the VMM's. Their index is the one dirty_log_sync
 * gets. Starts no thread and does not touch the memory. Free with faultline_free().
 * Errors: ARGUMENT for a guest or blocks that cannot be migrated (guest.h says what can; at most 64
 * blocks); HOST.
 */
Faultline *faultline_new(const FaultlineGuest *guest, void *opaque, const FaultlineBlock *blocks,
                         unsigned count_blocks, GError **error);

/* Stops the migration that runs, joins all threads, lets go of the memory (which stays the VMM's,
 * with its content). Whether the guest runs is not changed: pause it first. A guest that is only
 * partly here is lost with it, and reads zeros where pages are missing: the caller asks first.
 * NULL: nothing. Waits for callbacks under way, not for the network. Never fails. */
void faultline_free(Faultline *faultline);

#include "check.h"
#include "integrity.h"
#include "objects.h"
#include "owner.h"

/* ---- Capabilities and parameters: names of QMP ----------------------------------------------- */

/* Holds for the migrations that begin afterwards. Errors: STATE while one is under way; ARGUMENT
 * for an unknown name or a combination that cannot work (both are named); UNSUPPORTED for what the
 * guest has no callback for. Whether this host can do it is found out by faultline_migrate() and
 * faultline_incoming(). */
bool faultline_set_capability(Faultline *faultline, const char *name, bool on, GError **error);

/* false for an unknown name. */
bool faultline_get_capability(const Faultline *faultline, const char *name);

/* value: in the unit of the parameter's row (bytes/s, ms, us). max-bandwidth, downtime-limit,
 * max-postcopy-bandwidth, and at a source spin-limit and neighbour-pages, act at once on a running
 * migration, those of auto-converge from its next pass on. Errors: ARGUMENT for an unknown name, a
 * value out of the row's range, or one that does not go with another's (both are named). */
bool faultline_set_parameter(Faultline *faultline, const char *name, uint64_t value,
                             GError **error);

/* 0 for an unknown name. */
uint64_t faultline_get_parameter(const Faultline *faultline, const char *name);

/* Which side looks at a value; the other one ignores it. */
typedef enum {
    FAULTLINE_SIDE_EACH,
    FAULTLINE_SIDE_SOURCE,
    FAULTLINE_SIDE_DESTINATION
} FaultlineSide;

/* How a parameter's value is written: in JSON a number, or for BOOLEAN true and false (1 and 0
 * here); typed, a SIZE may have a letter. */
typedef enum {
    FAULTLINE_TYPE_INTEGER,
    FAULTLINE_TYPE_SIZE,
    FAULTLINE_TYPE_BOOLEAN,
    FAULTLINE_TYPE_TEXT, /* faultline_set_text_parameter() */
} FaultlineType;

/* One row of the tables that QMP, HMP, checks, help and the manual page read. */
typedef struct FaultlineCapabilityRow {
    const char *name;
    bool preset;     /* value of a new Faultline */
    bool both_sides; /* must be equal on source and destination */
    const char *help;
    FaultlineSide side;
} FaultlineCapabilityRow;

typedef struct FaultlineParameterRow {
    const char *name;
    uint64_t preset, least, greatest;
    const char *unit;
    const char *help;
    FaultlineType type;
    FaultlineSide side;
    bool both_sides; /* must be equal on source and destination */
} FaultlineParameterRow;

/* The tables; each ends with a row whose name is NULL. */
const FaultlineCapabilityRow *faultline_capability_table(void);
const FaultlineParameterRow *faultline_parameter_table(void);

/* ---- Running the guest ----------------------------------------------------------------------- */

/* Starts or goes on with the guest; fine when it runs. Errors: STATE when its owner is, or may be,
 * the other side; HOST or the guest's own from its resume callback, and it stands as before. */
bool faultline_cont(Faultline *faultline, GError **error);

/* Pauses the guest; fine when it stands. A guest that waits for a page from the source stops when
 * the page has come, so after a lost connection (postcopy-paused) this can last until the pause
 * callback gives up. Errors: STATE during a switch-over and for a guest that is not here; HOST or
 * the guest's own from its pause callback, and it runs on. */
bool faultline_stop(Faultline *faultline, GError **error);

/* Thread: any. */
FaultlineRunState faultline_run_state(const Faultline *faultline);

/* Whether a destination starts the guest by itself when it owns it (preset: true). One that was
 * paused at the source arrives paused in any case. Looked at when the guest arrives. */
void faultline_set_autostart(Faultline *faultline, bool autostart);

/* ---- Migration ------------------------------------------------------------------------------- */

/* Whether faultline_incoming() and faultline_recover() may listen where other hosts reach them
 * without TLS (preset: false). Whoever can connect there first can put a guest of his own into this
 * machine, and what a guest's memory holds crosses the network readable. */
void faultline_set_insecure(Faultline *faultline, bool insecure);

/*
 * Starts to move the guest to the destination that listens at uri: tcp:HOST:PORT, unix:PATH, fd:N.
 * Returns once the threads run; a connection that cannot be made shows up as status failed. A guest
 * that is paused, or never ran, moves as well, and arrives paused.
 * Errors: ARGUMENT for the uri; STATE when a migration is under way or the guest is not here;
 * UNSUPPORTED when io_uring is forbidden, or writes cannot be tracked; HOST. The guest goes on.
 */
bool faultline_migrate(Faultline *faultline, const char *uri, GError **error);

/*
 * Listens at uri (tcp port 0 picks one) and receives one guest from the first source that connects.
 * What guest memory holds is dropped. From here on nobody touches it but vCPUs and
 * load_state (guest.h). After a failure it may be called again.
 * Errors: ARGUMENT for the uri; STATE when there is a guest here or a migration is under way;
 * UNSUPPORTED when io_uring or, with postcopy-ram, userfaultfd is forbidden; HOST.
 */
bool faultline_incoming(Faultline *faultline, const char *uri, GError **error);

/* Where the last faultline_incoming() listens, or listened, as a URI, the real port in it; NULL
 * when there was none. Free with g_free. */
char *faultline_incoming_address(const Faultline *faultline);

/* Wish: the switch comes as soon as the frame under way has left and the destination has answered,
 * in whatever pass that is. Fine when said again. Errors: STATE unless postcopy-ram is on and a
 * migration from here is under way. */
bool faultline_start_postcopy(Faultline *faultline, GError **error);

/* At a source, before the guest was given away: it goes on here, as it was. Returns before that has
 * happened: the status tells. Succeeds when nothing runs. Errors: STATE once the destination may
 * own the guest, and at a destination. */
bool faultline_cancel(Faultline *faultline, GError **error);

/* With pause-before-switchover: ends the wait in `expected`, which is PRE_SWITCHOVER; the guest is
 * then handed over. Errors: STATE when the migration does not stand there; ARGUMENT for a status in
 * which no migration waits. */
bool faultline_continue(Faultline *faultline, FaultlineStatus expected, GError **error);

/* In postcopy, at either side: breaks the connection, so that the status becomes postcopy-paused.
 * The guest stays at the destination and waits where it touches a page that has not come. Returns
 * before that has happened. Errors: STATE unless the status is postcopy-active. */
bool faultline_pause(Faultline *faultline, GError **error);

/* ---- Seeing it ------------------------------------------------------------------------------- */

typedef enum {
    FAULTLINE_EVENT_STATUS,  /* .status */
    FAULTLINE_EVENT_PASS,    /* .pass: a sync of the dirty log began pass n */
    FAULTLINE_EVENT_STOP,    /* the guest was stopped here */
    FAULTLINE_EVENT_RESUME,  /* the guest was started here */
    FAULTLINE_EVENT_VERDICT, /* destination: .verdict, when it is passed or failed */
    FAULTLINE_EVENT_REFUSED, /* a connection was turned away: FaultlineInfo.refusal */
    FAULTLINE_EVENT_HEARD,   /* destination: FaultlineInfo.is_unheard is false again */
} FaultlineEventKind;

typedef struct FaultlineEvent {
    FaultlineEventKind kind;
    FaultlineStatus status;
    uint64_t pass;
    FaultlineVerdict verdict;
    int64_t time_us; /* wall clock, since 1970 */
} FaultlineEvent;

/* Readable while an event waits (it is no socket: only poll it). Owned by the Faultline. */
int faultline_event_fd(const Faultline *faultline);

/* Takes the oldest event; false when there is none. At most 1024 wait; later ones are dropped. */
bool faultline_next_event(Faultline *faultline, FaultlineEvent *ret_event);

#define FAULTLINE_VCPUS_MAX       256
#define FAULTLINE_LATENCY_BUCKETS 1024

/* Latency of remote faults, a histogram of 32 buckets an octave (each within 3.2%). */
typedef struct FaultlineLatency {
    uint64_t count, total_ns, max_ns;
    uint32_t buckets[FAULTLINE_LATENCY_BUCKETS];
} FaultlineLatency;

/* What a switch-over consists of, each moment the end of a part: X(name, text). The first six are a
 * source's, the others a destination's in postcopy. */
#define FAULTLINE_MOMENT_LIST(X)                                                                   \
    X(STOPPING, "stopping")   /* begins to pause the guest */                                      \
    X(STOPPED, "stopped")     /* it stands */                                                      \
    X(SYNCED, "synced")       /* last sync of the dirty log */                                     \
    X(DISCARDED, "discarded") /* postcopy: what has to come again was said */                      \
    X(SAVED, "saved")         /* device state collected */                                         \
    X(GIVEN, "given")         /* the kernel has taken all that the destination needs to run */     \
    X(TOLD, "told")           /* all was read of what has to come again */                         \
    X(ARRIVED, "arrived")     /* the package is here */                                            \
    X(LISTENING, "listening") /* missing memory is watched */                                      \
    X(LOADED, "loaded")       /* device state loaded */                                            \
    X(RUNNING, "running")     /* the guest was resumed */                                          \
    X(RESIDENT, "resident")   /* every page is here */

typedef enum {
#define FAULTLINE_MOMENT_ENUM(name, text) FAULTLINE_MOMENT_##name,
    FAULTLINE_MOMENT_LIST(FAULTLINE_MOMENT_ENUM)
#undef FAULTLINE_MOMENT_ENUM
        FAULTLINE_MOMENT_COUNT
} FaultlineMoment;

/* Never NULL. */
const char *faultline_moment_name(FaultlineMoment moment);

/* Value in ns below which `percent` (0..100) of the faults lie; 0 when there were none. */
uint64_t faultline_latency_percentile(const FaultlineLatency *latency, double percent);

/* How many faults took less than limit_ns; exact for a power of two, else within 3.2%. */
uint64_t faultline_latency_count_below(const FaultlineLatency *latency, uint64_t limit_ns);

typedef struct FaultlineInfo {
    FaultlineStatus status;
    FaultlineRunState run_state;
    bool incoming;   /* this is the destination */
    char error[512]; /* why it failed or paused; "" if it did not */

    /* Destination: connections that were turned away while it waited, and why the last was. */
    uint64_t refused_connections;
    char refusal[512];
    /* Destination whose status is final: the source may not have heard so. It stays, for
     * farewell-deadline at most, to tell a source that comes again; a process that ends before
     * leaves that one to guess. */
    bool is_unheard;

    uint64_t total_time_ms, setup_time_ms;
    uint64_t downtime_us;          /* source: stop of the guest to the last byte of device state */
    uint64_t expected_downtime_ms; /* UINT64_MAX when not known */

    uint64_t ram_total_bytes, ram_remaining_bytes, ram_transferred_bytes;
    uint64_t precopy_bytes, downtime_bytes, postcopy_bytes;
    uint64_t normal_pages, zero_pages;
    uint64_t dirty_sync_count, dirty_pages_per_s, pages_per_s, bandwidth_bytes_per_s;
    uint64_t postcopy_requests;
    uint64_t cpu_throttle_percent; /* source, auto-converge: of their time that vCPUs are held */

    /* Pages by way: sent at a source, received at a destination. */
    uint64_t precopy_pages, pushed_pages, requested_pages;
    uint64_t neighbour_pages; /* on the urgent channel, behind requested ones, unasked */
    uint64_t missing_pages;   /* destination, in postcopy: not here yet */

    FaultlineIntegrity integrity;
    uint64_t local_faults; /* destination: of pages that were here already */

    /* By channel, all bytes: sent at a source, received at a destination. Rates are those since a
     * query at least a second ago, or since the migration began; at its end of the whole of it. */
    uint64_t main_bytes, urgent_bytes;
    uint64_t main_bytes_per_s, urgent_bytes_per_s;

    /* Destination in postcopy: time from the guest's start until every page was, or now; and what
     * it will be at the rates above, UINT64_MAX when not known. */
    uint64_t resident_time_us, expected_resident_ms;

    /* Destination, with postcopy-blocktime. */
    uint64_t faults_in_flight;
    uint64_t longest_stall_ns; /* of them: how long the oldest has waited by now */
    uint64_t blocktime_ns;     /* all vCPUs blocked at once */
    unsigned count_vcpus;
    uint64_t vcpu_blocktime_ns[FAULTLINE_VCPUS_MAX];
    FaultlineLatency latency;                  /* remote faults of all threads */
    uint64_t vcpu_faults[FAULTLINE_VCPUS_MAX]; /* remote faults of each */
    uint64_t non_vcpu_faults, non_vcpu_total_ns;

    /* CLOCK_MONOTONIC of this host; 0: not yet, or the other side's */
    uint64_t moment_ns[FAULTLINE_MOMENT_COUNT];
} FaultlineInfo;

/* A snapshot; each figure is whole, together they agree nearly. Those of the last migration stay
 * until the next begins. ret_info is large (a histogram): not for a small stack. */
void faultline_query(const Faultline *faultline, FaultlineInfo *ret_info);

/* Of vCPU `index` at a destination with postcopy-blocktime; false: there is none such. */
bool faultline_query_vcpu(const Faultline *faultline, unsigned index,
                          FaultlineLatency *ret_latency);

/* A part of guest memory, in pages. */
typedef struct FaultlineMapCell {
    uint64_t pages;   /* that it stands for */
    uint64_t left;    /* source: to be sent, in this pass or later; destination: not received */
    uint64_t waiting; /* destination: of those left, asked for by somebody who waits */
} FaultlineMapCell;

/* All blocks one behind the other, as count_cells parts of about equal length. Looks at each page's
 * bit: some us a GiB. false: there is no migration, or none yet that has such a map. */
bool faultline_query_map(const Faultline *faultline, FaultlineMapCell *cells, unsigned count_cells);

/* Waits until no migration goes on (none, completed, failed, cancelled, postcopy-paused) or
 * timeout_ms has passed (-1: no limit), and returns the status then. */
FaultlineStatus faultline_wait(Faultline *faultline, int64_t timeout_ms);

#include "measure.h"

/* Block `index` as faultline_new() was given it; NULL: there is none such. Thread: any. */
const FaultlineBlock *faultline_block(const Faultline *faultline, unsigned index);

/* Thread id (gettid) of vCPU `index`, as the guest tells it; 0: there is none such. Thread: any. */
pid_t faultline_vcpu_thread(const Faultline *faultline, unsigned index);

#include "control.h"
#include "recovery.h"
#include "tracing.h"

#pragma GCC visibility pop
G_END_DECLS

#endif
