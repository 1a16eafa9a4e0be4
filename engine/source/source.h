/* SPDX-License-Identifier: MIT */
/*
 * The source of a migration.
 *
 * Two roles. `migration` goes through the stages below, one after the other, each a function that
 * is called until it says that the next one may begin; it alone sends on the main channel and moves
 * the phase. `request` reads the return path and answers page requests on the urgent channel,
 * where, between faultlines, they come in as well.
 *
 *   connect    main channel connects; request may read the return path from here on
 *   open       header, configuration, hello, AGREE, ADVISE, ram START
 *   log        these have left; dirty log on
 *   agree      only where page-checksums is wished: waits for the destination's answer; seals
 *   agreed     the same: it has understood that
 *   pass       sends what is dirty; over and over, see precopy.c
 *   hello      nothing is left to be sent, but the destination has not answered yet
 *   urgent     postcopy: the destination's answer; with preempt the second connection
 *   settle     postcopy: the destination has read what was sent so far
 *   stop       the guest is stopped
 *   await      pause-before-switchover: until somebody says that it may go on
 *   last       last sync
 *   then precopy ends:                          or postcopy begins:
 *   rest       remaining pages, ram END           discard    DISCARD for each block
 *   devices    device sections; COMMIT ping       package    LISTEN, devices, RUN in one blob
 *   commit     EOF: the guest is given away       push       pusher, until no page is dirty
 *                                                 finish     ram END, EOF
 *   confirm    waits for the destination's SHUT
 *   farewell   says that it came, so that the destination need not stay for us
 *
 * With checksums (integrity.c) no page may be damaged and not yet repaired when the guest is given
 * away, or when the destination is told that it has everything: between rest and devices stand
 * repair (back to rest if something was damaged), digest and end; between push and finish stand
 * whole (back to push) and digest.
 *
 * A failure after the guest was given away in postcopy is a pause; see recover.c:
 *   hearing    the destination's last word, which may be that the guest never ran there
 *   failing    nothing is in flight any more: on which side the guest is
 *   paused     links are let go of by both roles; waits for somebody who wants to go on
 *   knock      auto-recover connects, and the status stays paused until somebody answers
 *   reconnect  main channel connects, if it has not; without header
 *   prove      with a token: the destination's challenge is answered
 *   ask        RECV_BITMAP for each block
 *   bitmaps    request makes dirty what the destination has not
 *   reconnect_urgent  with preempt
 *   resume     RESUME until its acknowledgement; then push, as if nothing had been
 * A destination that is over by then says behind its proof how it ended: farewell, or failing.
 *
 * Ownership. `gave_away` is set immediately before the bytes that let the destination run the guest
 * are handed to the transport. While it is false, every failure ends with the guest running here.
 * After that a failure is judged once nothing is in flight: the guest is ours again only if not all
 * of those bytes were accepted, or if a faultline destination said that it never ran.
 *
 * Links come and go together, for both roles. `drops_links` is set by migration and cleared by
 * request when it holds nothing of a link any more, and has forgotten what came on it; only then
 * are the next links published. In between the dirty bitmaps are nobody's.
 *
 * What the roles share: the dirty bitmaps (who clears a host page's first bit sends that page), the
 * queue of requests when there is no urgent channel, and the atomics below.
 *
 * What a destination sends makes nothing grow: frames and bitmaps are of fixed sizes, made before
 * the guest is stopped. tests/fuzz counts.
 */
#ifndef ENGINE_SOURCE_SOURCE_H
#define ENGINE_SOURCE_SOURCE_H

#include "engine/context.h"
#include "engine/reader.h"
#include "engine/frame.h"
#include "engine/heartbeat.h"
#include "engine/source/locality.h"
#include "engine/source/throttle.h"
#include "engine/token.h"
#include "uffd/uffd.h"

#define SOURCE_RAM_SECTION  1u
#define SOURCE_REQUESTS_MAX 4096u /* a power of two */
#define SOURCE_HINT_SHIFT   48u   /* cursor_hint: the block's index stands above */
#define SOURCE_BATCH_MAX    32u   /* messages whose answers leave in one frame */
#define SOURCE_WINDOWS_MAX  16u
#define SOURCE_EXTENT_PAGES 512u

/* A host page somebody asked for. */
typedef struct SourceRequest {
    uint32_t block;
    uint64_t page;
} SourceRequest;

typedef enum { FATE_OPEN, FATE_CANCELLED, FATE_GIVEN } SourceFate;

#define SOURCE_ADDRESSES_MAX 9u

/* Coming again by itself; see retry.c. */
typedef struct SourceRetry {
    bool is_held;                        /* by command: until somebody says that it goes on */
    bool is_over;                        /* the deadline has passed, and that was told */
    bool is_trying;                      /* the connection under way was nobody's wish */
    bool has_answer;                     /* somebody has taken it */
    unsigned next;                       /* address */
    uint64_t began_ns, next_ns, wait_ns; /* pause; next attempt; between two */
    uint64_t until_ns;                   /* of the attempt under way */
    uint64_t knocked_ns;                 /* it began */
    uint64_t connect_ns;                 /* how long the last one took that connected */
    TransportConnector *patient;         /* one that may be in a black hole, or slow; else NULL */
    unsigned patient_address;
    uint64_t patient_knocked_ns, patient_until_ns;
    uint64_t active_ns; /* since when there was no pause */
} SourceRetry;

typedef StageResult (*SourceStage)(Source *source, GError **error);

struct Source {
    /* set before any thread starts */
    Faultline *faultline;
    RamBlocks *blocks;
    char *uri;
    bool has_return_path, can_postcopy, has_preempt, releases_ram, slows_vcpus;
    uint32_t offers;    /* features in our hello */
    uint32_t agreement; /* options_agreement() */
    uint64_t heartbeat_ms;
    bool retries; /* auto-recover */
    Role migration, request;
    uint64_t *sync_words; /* scratch of a sync, as large as the largest block's bitmap */
    UffdTracker *tracker; /* when the guest has no dirty log of its own */

    /* migration thread */
    SourceStage stage;
    TransportConnector *connector;     /* what is tried; see retry.c for another one */
    TransportLink *link, *urgent_link; /* the roles hold references of their own */
    FrameQueue main;
    bool is_part_open;           /* a PART has begun and not yet its EOS */
    bool is_logging;             /* the dirty log is on */
    bool asked_settled;          /* PING SETTLED was sent */
    bool has_announced;          /* the record GIVING was ordered */
    bool has_recorded_given;     /* the same for GIVEN */
    bool has_named;              /* the migration's number was sent */
    bool has_guest, was_running; /* the guest was stopped by us, and whether it ran before */
    bool is_postcopy;            /* the switch-over, under way or done, is to postcopy */
    bool gave_away;              /* the destination may run the guest: fate is GIVEN */
    bool is_handed_over;         /* all of the bytes that give it away were accepted */
    bool has_recorded_there;     /* that it said so: the guest is the destination's */
    uint64_t earlier_bytes;      /* accepted on the main channels of earlier links */
    unsigned cursor_block;       /* where pass or pusher goes on */
    uint64_t cursor_page;
    uint64_t end_page; /* pusher: has claimed up to here; 0: nothing */
    uint64_t pass_began_ns, window_began_ns, window_bytes;
    uint64_t pass_began_bytes; /* closed bytes when it began */
    uint64_t dirtied_bytes;    /* in the last pass */
    Throttle throttle;
    TransportLimit limit;
    GByteArray *package;  /* devices or package: being sent */
    GString *description; /* precopy: the VMDESCRIPTION */
    int latency_hold;     /* during postcopy; -1: none */
    GError *failure;      /* why it is failing */
    uint64_t hear_until_ns;
    uint64_t give_bytes; /* accepted bytes from which on the guest is given away */
    Heartbeat heartbeat;
    Pulse main_sent;
    uint64_t seen_ns; /* the clock, as a stage has seen it last */
    SourceRetry retry;
    uint64_t agree_until_ns;
    bool has_said_sealed, asks_settled; /* SEALED, a numbered SETTLED was sent */
    uint32_t settled_number;            /* of the last one */
    bool may_be_missed; /* the destination knows that the guest was about to be stopped */
    bool is_over;       /* the guest is here and the status final; what is left is courtesy */
    unsigned next_call; /* address */
    bool has_said_farewell;
    uint64_t farewell_until_ns; /* of the farewell, or the call; 0: the end is not on record */
    unsigned digest_block;      /* where the digest goes on */
    uint64_t digest_page;

    /* request thread */
    TransportReceiver *receiver, *urgent_receiver; /* main; urgent: NULL without the feature */
    Reader reader, urgent_reader;
    FrameQueue urgent;
    bool is_mute;                     /* the urgent channel is lost */
    bool is_deaf;                     /* the return path has ended, or was refused */
    unsigned bitmap_block;            /* recovery: whose bitmap comes next, or is coming */
    bool is_in_bitmap;                /* its message was read */
    bool has_bitmap_size;             /* and its size */
    uint64_t bitmap_word;             /* next word of it */
    bool has_answered;                /* in postcopy: the next request is likely to come soon */
    unsigned count_hellos;            /* answers to our hello */
    RamBlock *asked;                  /* block of the last REQ_PAGES_ID */
    RamBlock *asking;                 /* request under way: host pages [asking_page, asking_end) */
    uint64_t asking_page, asking_end; /* next host page to claim, and the end */
    RamBlock *sending;                /* inside of a claimed host page; NULL: between two */
    uint64_t sending_page, sending_end;
    uint64_t told_bytes;                      /* of urgent.closed_bytes, to the figures */
    uint64_t answered_pages, neighbour_pages; /* sent because of a request, or unasked */
    SourceRequest noted[SOURCE_BATCH_MAX];    /* taken, and nothing has followed from them yet */
    unsigned count_noted;
    Locality locality;
    LocalityWindow windows[SOURCE_WINDOWS_MAX]; /* neighbours to be sent; a ring */
    unsigned first_window, count_windows;
    TokenExchange main_exchange, urgent_exchange;
    bool has_token, has_answered_urgent;
    uint64_t urgent_proof_bytes;        /* received up to the end of the proof */
    uint8_t token[STREAM_SECRET_BYTES]; /* see token.h */
    Heartbeat listening; /* from the first look on, also for a peer that cannot beat */
    Pulse main_heard, urgent_heard, urgent_sent;
    unsigned count_busy; /* steps since the clock was looked at */

    /* shared: set with release by the migration role, read with acquire by the request role */
    TransportLink *request_link;        /* the main link; NULL: not yet connected */
    TransportLink *request_urgent_link; /* the urgent link */
    bool is_stopping;                   /* roles end */
    bool answers_requests;              /* dirty bitmaps are final */
    bool expects_bitmaps;               /* RECV_BITMAP was sent for all blocks */
    bool expects_resume;                /* RESUME was sent */
    bool needs_proof;                   /* on main, before anything else is believed */
    bool drops_links;                   /* cleared by the request role */

    /* shared: set with release by the request role, read with acquire by the migration role */
    bool is_beating;      /* the destination has sent a beat */
    bool has_lost_urgent; /* and the return path is still read; set before request_failed */
    bool has_pong, has_settled, has_commit, has_loaded, has_shut, request_failed, request_ended;
    bool has_whole;                /* in postcopy the destination has every page */
    uint32_t settled_heard;        /* number of the last numbered SETTLED that was answered */
    bool has_bitmaps, has_resumed; /* of this recovery */
    bool has_challenge;            /* on main; set after `answer` */
    bool is_proved, is_urgent_proved;
    StreamAnswer answer;
    /* Where to come again: written before has_pong is set. The first is where it went at first. */
    char addresses[SOURCE_ADDRESSES_MAX][STREAM_NAME_MAX + 1];
    unsigned count_addresses;
    uint32_t features; /* agreed with a faultline peer */
    uint32_t shut_value;
    GError *request_error; /* set before request_failed */
    uint64_t
        cursor_hint; /* block << SOURCE_HINT_SHIFT | page behind the last requested one; 0: none */

    /* shared: requests for the pusher when there is no urgent channel; filled by request at head,
     * emptied by migration at tail. Full: the request is dropped, its page comes by the push. */
    SourceRequest requests[SOURCE_REQUESTS_MAX];
    uint32_t requests_head, requests_tail;

    /* shared: set by the control thread */
    bool wants_postcopy, wants_switchover;
    bool wants_break; /* taken by the migration role */
    bool has_command; /* to go on: ends a pause by command; taken by the migration role */
    char *wanted_uri; /* where to reconnect; taken by the migration role */

    /* shared: SourceFate, left OPEN once, by compare and exchange: control cancels or migration
     * gives the guest away, so that a cancel that was agreed to holds */
    unsigned fate;
};

/* Control thread. Errors: those of uffd_tracker_new() and of memory. */
Source *source_new(Faultline *faultline, const char *uri, GError **error);
void source_free(Source *source);

/* Makes both roles end soon, without judging what that means for the guest. Thread: control. */
void source_stop(Source *source);

/* The guest will stay here; false: the destination may own it. Thread: control. */
bool source_cancel(Source *source);

/* Wakes the migration role. Thread: any. */
void source_notify(Source *source);

/* The phase was moved to POSTCOPY_RECOVER_SETUP by the caller: reconnects. Thread: control, or the
 * migration role itself. */
void source_resume(Source *source, const char *uri);

/* ---- Between the files of this folder -------------------------------------------------------- */

StepResult source_migration_step(void *self);
void source_migration_close(void *self);
GError *source_peer_error(const char *format, ...) G_GNUC_PRINTF(1, 2);
/* A message of the return path; the error of what is wrong with it, else NULL. Thread: request. */
GError *source_take_message(Source *source, const StreamReturn *message);
/* The same for REQ_PAGES, of either channel. Walk 5 of 12. */
GError *source_take_request(Source *source, const StreamReturn *message);
StepResult source_request_step(void *self);
void source_request_close(void *self);
/* Lets go of the references that migration put there for it; also of those it never saw. */
void source_drop_request_links(Source *source);

/* Has it recorded that the destination may come to own the guest; AGAIN: that is durable. */
StageResult source_announce(Source *source, GError **error);

/* From its true on the destination may own the guest; false: it was cancelled. */
bool source_give_away(Source *source);

/* Tells a faultline peer, once, the number of this migration. A frame is open. */
void source_name_migration(Source *source);
/* Has it recorded, once, that it was sent all that it needs. */
void source_record_given(Source *source);

/* Stages, in order. */
StageResult source_stage_connect(Source *source, GError **error);
StageResult source_stage_open(Source *source, GError **error);
StageResult source_stage_agree(Source *source, GError **error);
StageResult source_stage_agreed(Source *source, GError **error);
StageResult source_stage_log(Source *source, GError **error);
StageResult source_stage_pass(Source *source, GError **error);
StageResult source_stage_hello(Source *source, GError **error);
StageResult source_stage_urgent(Source *source, GError **error);
StageResult source_stage_settle(Source *source, GError **error);
StageResult source_stage_stop(Source *source, GError **error);
StageResult source_stage_await(Source *source, GError **error);
StageResult source_stage_last(Source *source, GError **error);
StageResult source_stage_rest(Source *source, GError **error);
StageResult source_stage_repair(Source *source, GError **error);
StageResult source_stage_end(Source *source, GError **error);
StageResult source_stage_devices(Source *source, GError **error);
StageResult source_stage_commit(Source *source, GError **error);
StageResult source_stage_discard(Source *source, GError **error);
StageResult source_stage_package(Source *source, GError **error);
StageResult source_stage_push(Source *source, GError **error);
StageResult source_stage_whole(Source *source, GError **error);
StageResult source_stage_digest(Source *source, GError **error);
StageResult source_stage_finish(Source *source, GError **error);
StageResult source_stage_confirm(Source *source, GError **error);
StageResult source_stage_farewell(Source *source, GError **error);
void source_complete(Source *source);
/* The guest stayed, the status is final: a destination that may wait for word of it is called once
 * more. false: there is none such. Errors are nobody's. */
bool source_begin_call(Source *source);
/* A destination that is over stays to say how it ended, and there is an address to ask at. */
bool source_can_ask(const Source *source);
/* A destination that it has come again to is over, and has everything. */
bool source_is_told_end(const Source *source);

/* Stages of a recovery. */
StageResult source_stage_paused(Source *source, GError **error);
StageResult source_stage_knock(Source *source, GError **error);
StageResult source_stage_reconnect(Source *source, GError **error);
StageResult source_stage_prove(Source *source, GError **error);
StageResult source_stage_ask(Source *source, GError **error);
StageResult source_stage_bitmaps(Source *source, GError **error);
StageResult source_stage_reconnect_urgent(Source *source, GError **error);
StageResult source_stage_resume(Source *source, GError **error);

/* A command wants, or has, the phase. Migration role. */
bool source_is_resumed(const Source *source);
/* In postcopy-recover-setup, to source->uri; with source->link, if it is there. Migration role. */
void source_begin_recovery(Source *source);
/* Nothing is in flight: lets go of the links and pauses. Migration role. */
void source_pause(Source *source);
/* Lets go of the links, as `drops_links` asks; forgets what came on them. Request role. */
void source_forget_links(Source *source);
/* A RECV_BITMAP was read; PEER error for one that nobody asked for, or out of turn. Request role.
 */
GError *source_begin_bitmap(Source *source, const char *name);
/* The bitmap behind it, as far as it has come: OK: all of it. Request role. */
ReadResult source_read_bitmap(Source *source, GError **error);
/* Bytes accepted on the main channel, over all links. */
uint64_t source_sent_bytes(const Source *source);

/* Lets go of what is under way. */
void source_drop_connectors(Source *source);
/* Of the links, and of all that is under way on them; both roles. */
void source_let_go(Source *source);
/* Drives s->connector. AGAIN: *ret_link is there. */
StageResult source_connect_link(Source *source, TransportLink **ret_link, GError **error);
/* Gives the request role a link of its own to hold. */
void source_publish_link(Source *source, TransportLink **slot, TransportLink *link);

/* The flush of the main channel, in the terms of a stage: AGAIN: taken (drained). */
StageResult source_flush(Source *source, GError **error);
StageResult source_drain(Source *source, GError **error);
/* With preempt: the second connection, and its proof. AGAIN: it can be used. */
StageResult source_connect_urgent(Source *source, GError **error);
/* At the beginning of postcopy: whole host pages. */
void source_round_dirty(RamBlock *block);
/* A page record on the main channel, with a PART around it that source_end_part() closes. */
void source_put_page(Source *source, RamBlock *block, uint64_t page);
void source_end_part(Source *source);
/* Sends dirty pages from the cursor on until the frame is full; false: none is left behind it. */
bool source_put_dirty(Source *source);

/* Takes what the dirty log has into the dirty bitmaps; sets figures. is_last: the guest stands and
 * will not write again before the log ends. */
bool source_sync(Source *source, bool is_last, GError **error);
bool source_start_log(Source *source, GError **error);
void source_stop_log(Source *source);
uint64_t source_count_dirty(const Source *source);

/* Claims host pages from a dirty one on, as many as lie one behind the other, at most up to end;
 * returns how many target pages. 0: another one was quicker. */
uint64_t source_claim_run(RamBlock *block, uint64_t page, uint64_t end);
/* Claims a host page: true for exactly one caller. Walk 6 of 12. */
bool source_claim(RamBlock *block, uint64_t page);

/* What follows from the requests noted; after their answers have left. */
void source_learn_requests(Source *source);
/* Coming again (retry.c). take_address, request role: one that the destination has told. The others
 * by the migration role. begin: a pause begins, or an attempt has failed. step, in stage paused:
 * AGAIN: an attempt may begin. check: FAILED when the attempt under way takes too long. */
void source_take_address(Source *source, const char *uri);
void source_retry_begin(Source *source);
StageResult source_retry_step(Source *source);
StageResult source_retry_check(Source *source, GError **error);
/* What token.h says of the source (proof.c): takes CHALLENGE or PROOF. Request role. */
bool source_has_token(const Source *source);
GError *source_take_proof(Source *source, StreamChannel channel, const StreamReturn *message);
/* Looks of heartbeat.h (pulse.c). send_beat, by the migration role: STAY, or FAILED when main
 * broke. listen, by the request role: sets *error when main hangs, *lost when the urgent channel
 * does. */
StageResult source_send_beat(Source *source, uint64_t now_ns, GError **error);
void source_listen(Source *source, GError **lost, GError **error);

/* Claims a few neighbours and puts them into the urgent frame, which is empty. */
void source_put_neighbours(Source *source);
/* Puts a claimed host page into the urgent frame; if it has no room for all, goes on in the next.
 */
void source_put_claimed(Source *source, RamBlock *block, uint64_t page);

/* Device sections, for precopy's end and for the package. */
bool source_put_devices(Source *source, GByteArray *bytes, GString *json, GError **error);

/* A message that belongs to checksums: RESEND, WHOLE, VERDICT; the error if it breaks a rule.
 * Thread: request. */
GError *source_take_integrity(Source *source, const StreamReturn *message);
/* Bytes of one piece that a destination may send. */
uint64_t source_piece_limit(const Source *source);

/* Queue of requests, filled by the request role: full, the page comes when the pusher gets there;
 * source_requests_pop by the migration role. */
void source_leave_to_pusher(Source *source, RamBlock *block, uint64_t page);
bool source_requests_pop(Source *source, SourceRequest *ret_request);

static inline bool
source_flag(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

/* The destination has said which features it shares, or cannot say anything. */
static inline bool
source_has_answer(const Source *source)
{
    return !source->has_return_path || source_flag(&source->has_pong);
}

/* The destination has said that it takes runs of pages. */
static inline bool
source_has_runs(const Source *source)
{
    return source_flag(&source->has_pong) && (source->features & STREAM_FEATURE_RUNS);
}

/* What goes to the destination is sealed. */
static inline bool
source_has_checksums(const Source *source)
{
    return source_flag(&source->has_pong) && (source->features & STREAM_FEATURE_CHECKSUMS);
}

static inline void
source_set_flag(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

static inline void
source_clear_flag(bool *flag)
{
    __atomic_store_n(flag, false, __ATOMIC_RELEASE);
}

#endif
