/* SPDX-License-Identifier: MIT */
/*
 * The destination of a migration.
 *
 * Three roles. `listen` accepts the connections, reads the main channel from its first byte to EOF
 * and moves the phase; its stages:
 *
 *   accept       main channel, later the urgent one
 *   open         file header, configuration
 *   element      what comes next: section, command, EOF
 *   block_list   behind MEM_SIZE;  records  pages;  footer
 *   device       one device section (precopy)
 *   blob         the package's bytes; then LISTEN is obeyed and `package` gets the rest
 *   stand_back   leaves the processor to `package` until the guest runs, for a moment
 *   run          precopy: the guest starts
 *   drain        precopy: reads the description behind EOF
 *   arrived      postcopy: EOF was read; waits for pages on the urgent channel and for `package`
 *   leave        the guest is whole: the other roles end, memory is unregistered
 *   paused       the links were lost after LISTEN; the guest runs on what is here. Waits for
 *                somebody who wants to go on, and then for a source; see recover.c
 *   resume       RESUME was acknowledged; waits for the urgent channel, then element again
 *   failing      tells the source that the guest never ran here
 * Over, listen may stay alone for a source that has not heard how it ended; see farewell.c.
 *
 * `package` takes memory for the pages that will come (warm) until the guest does. Then it loads
 * the device state and starts the guest, then maps what precopy brought (the mapper), at last
 * unregisters and collapses. `fault` reads page faults, requests pages, receives them on the urgent
 * channel, and sends everything that goes to the source: others put messages into its mailbox.
 *
 * Links come and go together, for listen and fault. `drops_links` is set by listen and cleared by
 * fault when it holds nothing of a link any more; only then is another source accepted. From a
 * pause to the end of its recovery `is_paused` is set: faults are read, marked requested and kept,
 * and when it is cleared asked again. In a recovery nothing is legal on the main channel but
 * RECV_BITMAP for each block and RESUME.
 *
 * What they share: received, precopied and requested bitmaps, the count of missing pages, and the
 * atomics below. A page is marked received after its bytes were stored; a fault is marked requested
 * before received is looked at; both sequentially consistent, so one of the two sides sees the
 * other.
 *
 * Whatever a source sends, it costs at most three times the guest's state_limit_bytes and 1 MiB of
 * heads (the package, while its buffer grows), beside what is made before it connects. Counted by
 * tests/fuzz.
 */
#ifndef ENGINE_DESTINATION_DESTINATION_H
#define ENGINE_DESTINATION_DESTINATION_H

#include "engine/context.h"
#include "engine/destination/account.h"
#include "engine/destination/channel.h"
#include "engine/destination/door.h"
#include "engine/frame.h"
#include "engine/heartbeat.h"
#include "engine/reader.h"

/* X(name): states of an incoming postcopy, in QEMU's order. */
#define POSTCOPY_LIST(X) X(NONE) X(ADVISE) X(DISCARD) X(LISTENING) X(RUNNING) X(END)

typedef enum {
#define POSTCOPY_ENUM(name) POSTCOPY_##name,
    POSTCOPY_LIST(POSTCOPY_ENUM)
#undef POSTCOPY_ENUM
        POSTCOPY_COUNT
} PostcopyState;

typedef struct Destination Destination;
typedef StageResult (*DestinationStage)(Destination *destination, GError **error);

/* A device section being read; by listen in precopy, by package after LISTEN. */
typedef struct DeviceLoad {
    StreamElement head;
    bool has_length;
    uint32_t length;
    GByteArray *bytes;
} DeviceLoad;

typedef struct ReturnMessage {
    StreamReturnType type;
    uint32_t value;
} ReturnMessage;
#define MAILBOX_MAX   64u
#define LISTENERS_MAX 8u

/* How long a source may take to close, or to take a SHUT. */
#define DESTINATION_LEAVE_NS 2000000000ull

/* A page that came damaged, in postcopy a host page. */
typedef struct Damage {
    const RamBlock *block; /* NULL: free */
    uint64_t page, count;
    unsigned times; /* it came damaged */
    bool is_told;   /* RESEND has been put into a frame */
} Damage;
#define DAMAGES_MAX       256u
#define DAMAGES_PER_S_MAX 1024u

/* A page that somebody waited for became visible by the listen role: for the account. */
typedef struct PlacedPage {
    uint32_t block;
    uint64_t page, when_ns;
} PlacedPage;
#define PLACED_MAX 4096u /* a power of two */

struct Destination {
    /* set before any thread starts */
    Faultline *faultline;
    RamBlocks *blocks;
    bool can_postcopy, has_preempt, accounts, warms;
    uint64_t spin_limit_ns, bulk_nice;
    Uffd *uffd; /* NULL without postcopy-ram */
    Role listen, package, fault;
    bool offers_token;
    bool calls_back;                    /* tells the source where to come again */
    uint8_t token[STREAM_SECRET_BYTES]; /* see token.h */
    char *addresses[LISTENERS_MAX];     /* where it listens at first */
    unsigned count_addresses;

    char *address; /* control thread: URI where it listens, or listened last */

    /* listen thread */
    TransportListener *listeners[LISTENERS_MAX];
    unsigned count_listeners;
    char *heard_address; /* of the last one */
    DestinationStage stage;
    TransportLink *link, *urgent_link;
    TransportReceiver *receiver;
    Reader reader;
    PageChannel main;
    bool has_header, has_return_path, has_ram, is_first_section, has_page_sizes;
    bool in_postcopy;       /* records are placed, not stored */
    bool in_recovery;       /* from a new main link to RESUME */
    uint64_t earlier_bytes; /* received on main links before */
    uint32_t features;      /* agreed; not changed after is_listening */
    bool has_hello;         /* features are known */
    bool is_expecting;      /* the source was about to stop its guest */
    Door door;
    bool has_told;                      /* by a faultline: */
    uint32_t told;                      /* its options_agreement() */
    bool can_run;                       /* globalstate: the guest ran at the source */
    uint32_t ram_section;               /* its id */
    uint64_t listed_bytes, total_bytes; /* of the block list */
    uint64_t drained_bytes, deadline_ns;
    bool has_posted;      /* SHUT */
    bool is_over;         /* the status is final, and listen stays */
    uint32_t last_word;   /* then: the SHUT's value */
    bool has_farewell;    /* the source has heard it */
    unsigned count_heard; /* elements on main then */
    bool has_skipped;     /* the head of the description was read, */
    uint64_t skip_bytes;  /* and so much of it is left */
    bool has_ordered;     /* the record TAKING */
    uint32_t hello;       /* the first one; 0: none */
    bool has_told_whole;  /* WHOLE was posted */
    bool has_told_verdict;
    uint64_t judged_pages, bad_extents; /* by DIGEST */
    GByteArray *blob;                   /* the package, as far as it has come */
    uint32_t blob_length;
    DeviceLoad device;
    GError *failure;              /* why it is failing or paused */
    int latency_hold;             /* during postcopy; -1: none */
    Heartbeat opening, listening; /* up to the first beat, and from then on */
    Pulse main_heard;
    unsigned count_busy; /* steps since the clock was looked at */

    /* package thread, before package_ready: where it warms memory */
    unsigned warm_block;
    uint64_t warm_offset;

    /* package thread, after package_ready */
    Reader package_reader;
    unsigned map_block;
    uint64_t map_page;

    /* fault thread */
    TransportSender *sender;
    FrameQueue out;       /* messages, on the main channel */
    FrameQueue asking;    /* requests, on the urgent one, with the feature */
    FrameQueue *requests; /* one of the two; NULL before LISTEN */
    TransportReceiver *urgent_receiver;
    Reader urgent_reader;
    PageChannel urgent;
    FaultlineWalkTrace *walk; /* NULL: not traced */
    const RamBlock *asked;    /* block of the last REQ_PAGES_ID */
    bool has_urgent, is_watching, is_sending_shut;
    bool has_answered;     /* the hello, once: with checksums it is answered twice */
    bool seals_next;       /* what follows the messages that were put is sealed */
    bool has_faults;       /* the userfaultfd may be readable; set by the ring, and after placing */
    bool is_rereading;     /* it was set after placing */
    Spin reread;           /* whether that finds anything */
    FaultAccount account;  /* its figures are atomic */
    unsigned bitmaps_sent; /* of this recovery */
    bool is_in_bitmap;     /* a bitmap's head was put, not yet its end */
    uint64_t bitmap_word;  /* next word of it */
    bool asks_again, shows_again; /* since the pause; from here on: */
    unsigned again_block;
    uint64_t again_page;
    uint64_t earlier_urgent_bytes; /* received on urgent links before */
    RamBlock *expected; /* of the page last asked for, until it was told to uffd; else NULL */
    uint64_t expected_page;
    unsigned count_asked; /* requests whose page has not come; a hint for spinning only */
    uint64_t asked_ns, answer_mean_ns;
    Heartbeat beating;
    Pulse main_sent, urgent_sent, urgent_heard;
    unsigned count_working; /* steps since the clock was looked at */

    /* shared: under mailbox_lock: listen and package put, fault takes. No other lock inside. */
    pthread_mutex_t mailbox_lock;
    ReturnMessage mailbox[MAILBOX_MAX];
    unsigned mailbox_count; /* atomic, for a look without the lock */
    Damage damages[DAMAGES_MAX];
    unsigned damages_next;   /* the one to be forgotten next */
    unsigned damages_untold; /* atomic, as above */
    uint64_t damages_since_ns;
    unsigned damages_recent; /* since then */

    /* shared: filled by listen at head, emptied by fault at tail. Full: not accounted. */
    PlacedPage placed[PLACED_MAX];
    uint32_t placed_head, placed_tail;

    /* shared, atomic */
    unsigned postcopy; /* PostcopyState: moved by listen up to LISTENING, then by package, END by
                          listen */
    uint64_t missing_pages; /* not received */
    uint32_t heartbeat_ms;  /* set once by whoever takes the source's first beat; 0: none came */

    /* shared: set once with release by the role named, read with acquire by the others */
    TransportLink *fault_link, *fault_urgent_link; /* listen; references of the fault role's */
    bool is_listening;                             /* listen: memory is registered */
    bool package_ready;                            /* listen: package_reader may be used */
    bool is_ending;                                /* listen: all is here; unregister */
    bool has_left;                                 /* listen: over, in whatever way */
    bool has_run;                                  /* package: RUN was obeyed */
    bool fault_is_quiet;                           /* fault: places no more, after is_ending */
    bool is_unregistered;                          /* package */
    bool shut_sent;                                /* fault: the last message has left */
    bool package_failed, fault_failed;
    GError *package_error, *fault_error; /* set before the flags */

    /* shared, atomic, for pause and recovery */
    bool is_paused;         /* listen: faults are kept */
    bool is_held;           /* listen; paused by command: nobody comes in until migrate-recover */
    bool drops_links;       /* set by listen, cleared by fault */
    bool has_told_loaded;   /* package: a PONG says that the devices are loaded */
    bool has_hidden;        /* a page that is here could not be shown to who waits for it */
    unsigned bitmaps_asked; /* listen: how many of the next are set */
    unsigned bitmap_order[RAM_BLOCKS_MAX];
    bool wants_recover;         /* control; taken by listen: where it listens already */
    TransportListener *offered; /* control: the next one; taken by listen */

    bool is_stopping; /* control thread */
    bool wants_break; /* control thread; taken by listen */
};

/* Control thread. Opens userfaultfd if postcopy-ram is on, empties the memory, listens. */
Destination *destination_new(Faultline *faultline, const char *const *uris, GError **error);
void destination_free(Destination *destination);
void destination_stop(Destination *destination);
/* In postcopy-paused: listens there instead. Thread: control. Errors: ADDRESS, HOST. */
bool destination_recover(Destination *destination, const char *uri, GError **error);

/* ---- Between the files of this folder -------------------------------------------------------- */

StepResult destination_listen_step(void *self);
void destination_listen_close(void *self);
StepResult destination_package_step(void *self);
StepResult destination_fault_step(void *self);
void destination_fault_close(void *self);
/* Lets go of the references that listen put there for it; also of those it never saw. */
void destination_drop_fault_links(Destination *destination);

StageResult destination_stage_accept(Destination *destination, GError **error);
StageResult destination_stage_open(Destination *destination, GError **error);
StageResult destination_stage_element(Destination *destination, GError **error);
StageResult destination_stage_block_list(Destination *destination, GError **error);
StageResult destination_stage_records(Destination *destination, GError **error);
StageResult destination_stage_footer(Destination *destination, GError **error);
StageResult destination_stage_device(Destination *destination, GError **error);
StageResult destination_stage_blob(Destination *destination, GError **error);
StageResult destination_stage_stand_back(Destination *destination, GError **error);
StageResult destination_stage_run(Destination *destination, GError **error);
StageResult destination_stage_drain(Destination *destination, GError **error);
StageResult destination_stage_arrived(Destination *destination, GError **error);
StageResult destination_stage_leave(Destination *destination, GError **error);
StageResult destination_stage_paused(Destination *destination, GError **error);
StageResult destination_stage_failing(Destination *destination, GError **error);
StageResult destination_stage_resume(Destination *destination, GError **error);

/* Tells queries why it fails or pauses; takes destination->failure. */
void destination_tell_failure(Destination *destination, const char *where_the_guest_is);
/* Listen role: lets go of the links and waits in stage paused. */
void destination_pause(Destination *destination);
/* Shuts a link down, if there is one, and lets go of it. */
void destination_drop_link(TransportLink **link);
/* An offered listener, and then a source: AGAIN: one is there, and its recovery begins. */
StageResult destination_await_source(Destination *destination, GError **error);
/* Whether an element is legal in a recovery; notes a bitmap that was asked for. */
bool destination_obey_recovery(Destination *destination, const StreamElement *element,
                               GError **error);
/* Fault role: lets go of the links, as `drops_links` asks; forgets what came on them. */
void destination_forget_links(Destination *destination);
/* Puts bitmaps that were asked for, as far as the frame has room; true: there is more of them. */
bool destination_put_bitmaps(Destination *destination);
/* The next piece of one can be put at once. */
bool destination_can_put_bitmaps(const Destination *destination);
/* Asks again for what was asked for and has not come; true: there is more of it. */
bool destination_ask_again(Destination *destination, uint64_t now_ns, GError **error);
/* Asks for a host page; the requests have room. Fault role. */
void destination_request_page(Destination *destination, RamBlock *block, uint64_t page,
                              uint64_t now_ns);

/* The door (door.c). Whether the source agreed to prove itself. step_door: AGAIN: somebody came in;
 * FAILED: a source did who has given up the links that are here. take_main: such a one becomes the
 * main link; false: there is none. close_door: sends all away. */
bool destination_has_door(const Destination *destination);
StageResult destination_step_door(Destination *destination, GError **error);
bool destination_take_main(Destination *destination);
/* Tells last_word to sources that came for it; true: one said that it heard it. */
bool destination_say_last_word(Destination *destination);
bool destination_has_main(const Destination *destination); /* that can be taken */
void destination_close_door(Destination *destination);
/* The fault role gets the urgent link. */
void destination_publish_urgent(Destination *destination);

/* The last word (farewell.c). begin: before the status becomes final; false: the source knows, or
 * cannot be told, and listen may end. step: what it does from then on. */
bool destination_begin_farewell(Destination *destination, uint32_t word);
StepResult destination_farewell_step(Destination *destination);
/* Reads to the farewell, past what a source may have asked for meanwhile: OK. count: of elements on
 * this link so far, which are not without end. */
ReadResult destination_hear_farewell(Reader *reader, unsigned *count);

/* Accepts the second connection when it comes; errors of it are not fatal before it is needed. */
bool destination_accept_urgent(Destination *destination, GError **error);

/* Waits for it, for some seconds. */
StageResult destination_await_urgent(Destination *destination, GError **error);
/* How a connection has to begin so that it is accepted; others are closed, and nobody waits for
 * them. */
typedef enum {
    DESTINATION_FIRST_ANY,     /* it may even say nothing at first */
    DESTINATION_FIRST_HEADER,  /* of a file: a new source */
    DESTINATION_FIRST_COMMAND, /* a source that comes again */
} DestinationFirst;
/* A connection from anybody who was heard; nobody listens, or nobody came: STAY. */
StageResult destination_accept_link(Destination *destination, DestinationFirst first,
                                    TransportLink **ret_link, GError **error);
/* Listens there, unless strangers could come in. Thread: control. */
TransportListener *destination_listen_at(const Faultline *faultline, const char *uri,
                                         GError **error);
/* A main link was accepted. */
void destination_begin_link(Destination *destination);
void destination_close_listeners(Destination *destination);

/* Decodes from the main channel, answered as a stage: AGAIN for OK. That the peer closes is a LINK
 * error. */
StageResult destination_read(Destination *destination, ReadDecode decode, void *context,
                             size_t *ret_length, GError **error);
StageResult destination_stage_of(ReadResult result, GError **error);
/* The end of a section, consumed. Thread: the reader's. */
ReadResult destination_read_footer(Reader *reader, uint32_t section, const char *name,
                                   GError **error);

/* One command that is not part of a package. */
StageResult destination_take_command(Destination *destination, const StreamElement *element,
                                     size_t length, GError **error);
/* The one function that moves the postcopy state; PEER error for an illegal move. */
bool destination_move(Destination *destination, PostcopyState to, const char *command,
                      GError **error);
PostcopyState destination_postcopy(const Destination *destination);

/* Commands that say what will come again (discard.c). */
bool destination_discard(Destination *destination, const StreamElement *element, GError **error);
bool destination_discard_words(Destination *destination, const StreamElement *element,
                               GError **error);

/* Registers what is missing; the guest's first touch may come right after. Part of LISTEN. PEER
 * error for a large host page that is here in part. Thread: listen. */
bool destination_register(Destination *destination, GError **error);

/* Device sections, also of the package: begin takes the FULL head, load reads on from the reader
 * until OK: the guest has loaded it. */
void destination_begin_device(Destination *destination, const StreamElement *head);
ReadResult destination_load_device(Destination *destination, Reader *reader, GError **error);
/* Has it recorded, once, that the guest runs here any moment. Thread: listen. */
void destination_order_taking(Destination *destination);
/* What a PING is answered with, posted; false: the mailbox is full. */
bool destination_answer_ping(Destination *destination, uint32_t value);
StreamResult destination_decode_element(void *context, const uint8_t *bytes, size_t available,
                                        size_t *ret_length, GError **error);
/* Bytes of device state, or of a package, that are accepted at most. */
uint64_t destination_state_limit(const Destination *destination);

/* Messages to the source. false: the mailbox is full, try again later. Thread: listen, package. */
bool destination_post(Destination *destination, StreamReturnType type, uint32_t value);

/* Pages (load.c, place.c). read_record: the next record of a channel, not consumed; of a run first
 * its header, then as many of its pages as have come, as if they were a record. take_record: puts
 * pages where they belong; PEER error for a record that breaks a rule. Thread: the channel's. */
void page_channel_init(PageChannel *channel, const char *name, const RamBlocks *blocks);
void page_channel_clear(PageChannel *channel);
ReadResult destination_read_record(Reader *reader, const PageChannel *channel, StreamRecord *ret,
                                   size_t *ret_length, GError **error);
bool destination_take_record(Destination *destination, PageChannel *channel,
                             const StreamRecord *record, GError **error);
/* What a channel does with pages that are good, and with those received in place. */
TakePages destination_take_pages, destination_show_pages;

/* Integrity (integrity.c). From the answer to the hello on that agrees on checksums. */
void destination_begin_checks(Destination *destination);
/* LINK error when there is too much damage. Thread: listen, fault. */
bool destination_note_damage(Destination *destination, PageChannel *channel, RamBlock *block,
                             uint64_t page, uint64_t count, GError **error);
/* Puts RESENDs; false: some are left. Thread: fault. */
bool destination_put_resends(Destination *destination);
bool destination_obey_sealed(Destination *destination, const StreamElement *element,
                             GError **error);
/* Compares a part of memory; a difference is a PEER error in precopy, and noted in postcopy. */
bool destination_obey_digest(Destination *destination, const StreamElement *element,
                             GError **error);
/* At EOF, with checksums: all of memory was compared. Says the verdict; PEER error if it is bad
 * and the guest has not run. */
bool destination_judge(Destination *destination, GError **error);
/* The link is lost: what was damaged is missing, which the bitmaps will tell. Thread: fault, when
 * it reads no more. */
void destination_forget_damage(Destination *destination);
/* The same: who recovers begins its digest anew. Thread: listen. */
void destination_judge_anew(Destination *destination);
/* The source is lost, and there will be no verdict. */
void destination_leave_unjudged(Destination *destination);
/* Posts the verdict, if there is one; false: the mailbox is full. */
bool destination_tell_verdict(Destination *destination);
/* In postcopy, with checksums: tells the source once that every page is here. */
void destination_tell_whole(Destination *destination);
/* Bytes of one piece that the source may send. */
uint64_t destination_piece_limit(const Destination *destination);

/* A run of the main channel whose pages are received to where they belong is under way. */
static inline bool
destination_is_receiving(const Destination *destination)
{
    return destination->main.coming.memory != NULL;
}
/* Receives on, and takes what has come. Thread: listen. */
StageResult destination_receive_run(Destination *destination, GError **error);
/* Forgets the rest of a run, for good: its memory is not written any more. Thread: listen. */
void destination_leave_run(Destination *destination);
/* Makes visible what a channel has gathered. */
bool destination_flush_run(Destination *destination, PageChannel *channel, GError **error);
/* Makes visible a page that is received, and with it all precopied ones of its extent. */
bool destination_show_received(RamBlock *block, uint64_t page, GError **error);
/* Makes a run of precopied pages visible from *page on, at most to `end`; moves *page behind it. */
bool destination_map_run(RamBlock *block, uint64_t *page, uint64_t end, GError **error);

/* Looks of heartbeat.h (pulse.c). listen_to_main, by the listen role: false: it hangs. beat, by the
 * fault role, while there is a source: beats, and sets error when the urgent channel hangs. */
bool destination_listen_to_main(Destination *destination, GError **error);
void destination_beat(Destination *destination, GError **error);

/* A page that somebody asked for has come. Thread: fault. */
void destination_note_answer(Destination *destination, uint64_t now_ns);

void destination_notify(Destination *destination, const Role *role);
GError *destination_peer_error(const char *format, ...) G_GNUC_PRINTF(1, 2);

static inline bool
destination_flag(const bool *flag)
{
    return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

static inline void
destination_set_flag(bool *flag)
{
    __atomic_store_n(flag, true, __ATOMIC_RELEASE);
}

static inline uint64_t
destination_count_missing(const Destination *destination)
{
    return __atomic_load_n(&destination->missing_pages, __ATOMIC_ACQUIRE);
}

static inline void
destination_clear_flag(bool *flag)
{
    __atomic_store_n(flag, false, __ATOMIC_RELEASE);
}

/* Nobody reads the channel any more, and what it brought in part will come again. Thread: the
 * channel's. */
static inline void
page_channel_forget(PageChannel *channel)
{
    channel->block = NULL;
    channel->coming = (ComingRun){0};
    channel->staged_block = NULL;
}

#endif
