/* SPDX-License-Identifier: MIT */
/*
 * The simulator: whole migrations, both sides, in one thread, replayed from a seed.
 *
 * The engine's own objects are linked against definitions of transport.h (sim_transport.c), uffd.h
 * (sim_uffd.c) and guest.h (sim_guest.c) that live in one process and one virtual clock. A seed
 * decides everything (sim_plan.c): capabilities, sizes, rates, what fails where. The scheduler
 * (sim_schedule.c) runs one task at a time: a role's step, a vCPU's access, the network's next
 * action, a wish of the control thread. sim.c runs many seeds and prints the table.
 *
 * The simulated symbols have no context parameter, so what they share is one global, `sim`.
 */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "engine/faultline.h"
#include "transport/transport.h"
#include "uffd/uffd.h"

#define SIM_PAGE           FAULTLINE_PAGE_BYTES
#define SIM_BLOCKS_MAX     3u
#define SIM_PAGES_MAX      64u /* target pages of a block */
#define SIM_VCPUS_MAX      3u
#define SIM_FAULTS_DRAWN   3u
#define SIM_FAULTS_MAX     (SIM_FAULTS_DRAWN + 3u)
#define SIM_FLIPS_MAX      6u
#define SIM_RECOVERIES_MAX 12u
#define SIM_BLOCK_BYTES    (SIM_PAGES_MAX * SIM_PAGE)
#define SIM_URI            "tcp:127.0.0.1:4444"

typedef enum { SIM_SOURCE, SIM_DESTINATION, SIM_SIDES } SimSide;

/* Where a call can be made to fail, or the world to go wrong. X(name, text) */
#define SIM_POINT_LIST(X)                                                                          \
    X(RING_NEW, "ring_new")                                                                        \
    X(WATCH, "ring_watch")                                                                         \
    X(LISTEN, "listen")                                                                            \
    X(CONNECT, "connect")                                                                          \
    X(REFUSED, "refused")                                                                          \
    X(ACCEPT, "accept")                                                                            \
    X(CUT_BYTE, "cut at byte")                                                                     \
    X(CUT_TIME, "cut at time")                                                                     \
    X(HANG, "hang at time")                                                                        \
    X(CANCEL, "cancel")                                                                            \
    X(PAUSE, "pause")                                                                              \
    X(RESUME, "resume")                                                                            \
    X(SAVE, "save_state")                                                                          \
    X(LOAD, "load_state")                                                                          \
    X(LOG_START, "log_start")                                                                      \
    X(LOG_SYNC, "log_sync")                                                                        \
    X(TRACKER, "tracker")                                                                          \
    X(UFFD_OPEN, "uffd_open")                                                                      \
    X(MEMORY_NEW, "memory_new")                                                                    \
    X(EMPTY, "empty")                                                                              \
    X(DISCARD, "discard")                                                                          \
    X(ZAP, "zap")                                                                                  \
    X(REGISTER, "register")                                                                        \
    X(PLACE, "place")                                                                              \
    X(FINISH, "finish")                                                                            \
    X(RECORD, "record")                                                                            \
    X(KILL_SOURCE, "kill source")                                                                  \
    X(KILL_DESTINATION, "kill dest.")                                                              \
    X(FLIP_PAGE, "flip anywhere")                                                                  \
    X(FLIP_HEADER, "flip in header")

typedef enum {
#define SIM_POINT_ENUM(name, text) SIM_POINT_##name,
    SIM_POINT_LIST(SIM_POINT_ENUM)
#undef SIM_POINT_ENUM
        SIM_POINT_COUNT
} SimPoint;

/* Where the migration stands, as seen from outside the engine. X(name, text) */
#define SIM_PHASE_LIST(X)                                                                          \
    X(SETUP, "setup")                                                                              \
    X(PRECOPY, "precopy")                                                                          \
    X(SWITCH, "switch-over")                                                                       \
    X(POSTCOPY, "postcopy")                                                                        \
    X(OVER, "after")                                                                               \
    X(PAUSED, "paused")                                                                            \
    X(RECOVER, "recovery")

typedef enum {
#define SIM_PHASE_ENUM(name, text) SIM_PHASE_##name,
    SIM_PHASE_LIST(SIM_PHASE_ENUM)
#undef SIM_PHASE_ENUM
        SIM_PHASE_COUNT
} SimPhase;

/* How a seed's migration ended. X(name, text) */
#define SIM_OUTCOME_LIST(X)                                                                        \
    X(REFUSED, "never begun")                                                                      \
    X(PRECOPY, "completed by precopy")                                                             \
    X(POSTCOPY, "completed by postcopy")                                                           \
    X(PAUSED, "paused in postcopy")                                                                \
    X(FAILED, "failed")                                                                            \
    X(CANCELLED, "cancelled")                                                                      \
    X(QUITS, "ended in a pause or recovery")                                                       \
    X(PAUSES, "pauses")                                                                            \
    X(TAKEN_BACK, "taken back from a destination that died")                                       \
    X(BY_ITSELF, "recoveries without a command")                                                   \
    X(RECOVERIES, "recoveries")                                                                    \
    X(THROTTLES, "steps of auto-converge")                                                         \
    X(WAITS, "accesses that waited for a page")                                                    \
    X(REQUESTS, "pages requested")                                                                 \
    X(NEIGHBOURS, "pages unasked")                                                                 \
    X(DAMAGED, "pages that came damaged")                                                          \
    X(REPAIRED, "completed with some of them")                                                     \
    X(VERDICTS, "verdicts over all memory")

typedef enum {
#define SIM_OUTCOME_ENUM(name, text) SIM_OUTCOME_##name,
    SIM_OUTCOME_LIST(SIM_OUTCOME_ENUM)
#undef SIM_OUTCOME_ENUM
        SIM_OUTCOME_COUNT
} SimOutcome;

/* HANG: one direction of the urgent link. */
#define SIM_WAY_ANSWERS  8u
#define SIM_WAY_REQUESTS 9u

typedef struct SimFault {
    SimPoint point;
    unsigned countdown; /* calls that still succeed */
    uint64_t at;        /* CUT_TIME, HANG, CANCEL: ns after the phase began; CUT_BYTE: offset */
    SimPhase phase;     /* CUT_TIME, HANG, CANCEL */
    unsigned way;       /* CUT_*, HANG: pipe of the link; which links */
    bool fired;
} SimFault;

/* A bit that changes on the wire. */
typedef struct SimFlip {
    SimPoint point; /* FLIP_* */
    unsigned way;   /* as of a cut: the pipe */
    uint64_t at;    /* FLIP_PAGE: byte; FLIP_HEADER: how many pieces shorter than a page before */
    unsigned bit, byte; /* byte: of the header, modulo its length */
    bool fired;
} SimFlip;

typedef struct SimBlockPlan {
    uint64_t page_bytes;  /* of the backing */
    unsigned count_pages; /* target pages */
    bool alias;           /* memfd at the destination */
} SimBlockPlan;

/* What a seed has decided. */
typedef struct SimPlan {
    SimBlockPlan blocks[SIM_BLOCKS_MAX];
    unsigned count_blocks, count_vcpus;
    bool postcopy, preempt, release, return_path, blocktime, tracker, zap_needed;
    bool start_paused, two_wishes, poison, want_postcopy;
    bool runs[SIM_SIDES];
    bool waits_before_switch; /* pause-before-switchover */
    bool breaks_by_command;   /* a cut in postcopy is a migrate-pause */
    uint64_t wait_ns;         /* how long it waits for migrate-continue */
    uint64_t heartbeat_ms[SIM_SIDES];
    bool auto_recover[SIM_SIDES];
    uint64_t deadline_ms, retry_ms; /* of auto-recover */
    bool records[SIM_SIDES];        /* keep a record of who owns the guest */
    bool auto_converge, throttle_tailslow;
    uint64_t throttle_initial; /* percent */
    uint64_t postcopy_ns;      /* when the switch is wished */
    uint64_t idle_ns;          /* from then on the guest writes nothing, so that precopy can end */
    unsigned walk_percent;     /* of a vCPU's accesses that go on by its step */
    uint64_t neighbour_pages;  /* the parameter */
    uint64_t touch_ns;         /* mean time between two accesses of a vCPU */
    uint64_t byte_ps;          /* picoseconds a byte takes on the wire */
    uint64_t delay_ns;         /* greatest delay of a delivery */
    size_t capacity_bytes;
    uint64_t extent_bytes;     /* a multiple of all page sizes */
    unsigned spurious_percent; /* of scheduler steps that run a sleeping role */
    unsigned preempt_percent;  /* of calls in which the caller loses the processor for a while */
    uint64_t downtime_ms, bandwidth_bytes_per_s, push_bytes_per_s;
    bool checksums[SIM_SIDES];
    SimFlip flips[SIM_FLIPS_MAX];
    unsigned count_flips;
    /* what is done about a pause */
    unsigned recoveries;       /* how often it is tried */
    uint64_t operator_ns;      /* greatest time that takes */
    uint64_t hole_ns;          /* for so long after a pause connections are swallowed */
    unsigned careless_percent; /* of attempts before the other side is ready */
    unsigned again_percent;    /* of new links that are cut */
    unsigned break_percent;    /* of attempts that end by migrate-pause */
    uint64_t quit_ns;          /* after the first pause: the control threads end all; NEVER */
    SimFault faults[SIM_FAULTS_MAX];
    unsigned count_faults;
} SimPlan;

typedef struct SimTable SimTable;

typedef struct Sim {
    uint64_t seed, random, now_ns, steps;
    bool trace, over;
    bool dead[SIM_SIDES];               /* processes that died */
    uint64_t phase_ns[SIM_PHASE_COUNT]; /* when each began; UINT64_MAX: not yet */
    SimSide side;                       /* on whose behalf engine code runs now */
    const void *thread;                 /* the role that runs now; NULL: control */
    SimPlan plan;
    uint64_t (*coverage)[SIM_POINT_COUNT]; /* [SIM_PHASE_COUNT] */
    uint64_t *outcomes;                    /* [SIM_OUTCOME_COUNT] */
    SimTable *table;                       /* sim_table.h; NULL: nobody counts */
    void (*on_bug)(void);                  /* set where one side is alone (tests/fuzz); else NULL */
} Sim;
extern Sim sim;

/* ---- sim_plan.c: chance, failing on purpose, failing for good */

uint64_t sim_random(void);
/* 0 .. below - 1; below is not 0. */
uint64_t sim_below(uint64_t below);
bool sim_chance(unsigned percent);
void sim_plan_make(uint64_t seed);
/* Whether this call has to fail, by the plan. Counts what was hit. */
bool sim_inject(SimPoint point);
/* The phase is reached, now or before. */
void sim_enter(SimPhase phase);
/* Counts a fault whose time has come. */
void sim_count(SimPoint point);
bool sim_fault_fired(SimPoint point);
bool sim_any_fault_fired(void);
const char *sim_point_name(SimPoint point);
const char *sim_phase_name(SimPhase phase);
const char *sim_outcome_name(SimOutcome outcome);
void sim_trace(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* A bug was found: says what and how to replay it, and ends the process. */
void sim_fail(const char *format, ...) G_GNUC_PRINTF(1, 2) G_GNUC_NORETURN;
#define sim_check(condition, ...)                                                                  \
    do {                                                                                           \
        if (G_UNLIKELY(!(condition)))                                                              \
            sim_fail(__VA_ARGS__);                                                                 \
    } while (0)

/* ---- sim_transport.c */

void sim_transport_reset(void);
/* Everything the engine made was freed. */
void sim_transport_check_freed(void);
/* When the network can act next: <= now_ns: at once; UINT64_MAX: nothing is under way. */
uint64_t sim_network_next_ns(void);
/* One random action of those that are due. */
void sim_network_step(void);
/* A few URIs. */
const char *sim_address(unsigned number);
/* Breaks one link (0 main, 1 urgent), or all with UINT_MAX. */
void sim_network_cut(unsigned link);
/* Links that broke, so far. */
unsigned sim_network_count_broken(void);
/* What goes over the links gets nowhere from now on, and nobody is told: 0 all; 1 main; 2 urgent;
 * SIM_WAY_*; else one direction of main. */
void sim_network_hang(unsigned way);
/* The destination has accepted the main link. */
bool sim_network_met(void);
/* An end closed with bytes unread, and what it had sent was lost. */
bool sim_network_has_reset(void);
/* Something happened on the ring since the last call. */
bool sim_ring_take_event(TransportRing *ring);
bool sim_ring_has_event(const TransportRing *ring);
/* What uffd_fd() returned became readable. */
void sim_fd_readable(int fd);

/* ---- sim_uffd.c */

typedef enum {
    SIM_TOUCH_OK,
    SIM_TOUCH_WAIT, /* the thread sleeps until the page is placed */
} SimTouch;

void sim_uffd_reset(void);
void sim_uffd_check_freed(void);
/* A thread of the destination's guest touches a target page through the guest mapping. OK:
 * *ret_bytes is the page. WAIT: queued as a fault of `thread`, once. */
SimTouch sim_uffd_touch(unsigned block, unsigned page, uint32_t thread, bool write,
                        uint8_t **ret_bytes);
/* The page has its final bytes here: placed, or stored and not discarded since. */
bool sim_uffd_has(unsigned block, unsigned page, const uint8_t **ret_bytes);
/* Bytes have come straight to where uffd_receive_address() said, behind those of the same range
 * that had come before. */
void sim_uffd_arrived(const uint8_t *base, size_t before, size_t after);
/* The source gave the page's memory back. */
bool sim_uffd_released(unsigned block, unsigned page);
/* A page of the source was written: for the trackers. */
void sim_tracker_written(const void *address);

/* ---- sim_guest.c */

void sim_guest_reset(void);
const FaultlineGuest *sim_guest_callbacks(SimSide side);
void *sim_guest_opaque(SimSide side);
const FaultlineBlock *sim_guest_blocks(SimSide side);
uint8_t *sim_source_memory(unsigned block);
uint8_t *sim_destination_store(unsigned block);
/* Where an address of either side's guest mapping lies; false: in no block. */
bool sim_guest_find(const void *address, SimSide *ret_side, unsigned *ret_block,
                    uint64_t *ret_offset);
bool sim_guest_running(SimSide side);
/* The VMMs end: no vCPU of theirs runs any more. */
void sim_guest_kill(void);
bool sim_guest_ever_ran(SimSide side);
/* When a vCPU acts next; UINT64_MAX: none runs or all wait for pages. */
uint64_t sim_vcpu_next_ns(void);
void sim_vcpu_step(void);
/* All threads that wait for a page of this host page go on. */
void sim_guest_wake(unsigned block, unsigned first_page, unsigned count_pages);
SimPhase sim_guest_phase(void);
/* Nothing of it runs there any more. */
void sim_guest_die(SimSide side);
/* The destination's device state was loaded whole. */
bool sim_guest_loaded(void);
/* The destination has every page. */
bool sim_guest_whole(void);
/* Checks what must hold at the end; says where the guest is. */
void sim_guest_check_end(void);

/* ---- sim_operator.c: who does something about a pause */

/* A side is; the source of a given-up migration stays so, and is none. */
bool sim_is_paused(void);
bool sim_is_recovering(void);
/* When somebody does something next. */
uint64_t sim_operator_next_ns(void);
void sim_operator_step(void);
/* Nobody will do anything any more. */
bool sim_operator_has_given_up(void);

/* ---- sim_schedule.c */

/* Runs one whole migration. */
void sim_run(uint64_t seed);
/* Runs everybody but the current role until the condition holds, or the simulation is over (then
 * false): for a guest callback that sleeps in the kernel. */
bool sim_sleep_until(bool (*condition)(void *opaque), void *opaque);
/* In a simulated call: others may run before it goes on. Never where the engine holds a lock. */
void sim_preempt(void);

#endif
