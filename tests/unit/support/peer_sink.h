/* SPDX-License-Identifier: MIT */
/*
 * A scripted destination against a real source: reads the stream with the decoders, answers pings
 * as a faultline or as a QEMU does, sends SHUT 0 behind EOF; and does what a test wants at a moment
 * of its choice. One thread, the test's; every wait is bounded.
 */
#ifndef TESTS_UNIT_SUPPORT_PEER_SINK_H
#define TESTS_UNIT_SUPPORT_PEER_SINK_H

#include "tests/unit/support/peer.h"
#include "tests/unit/support/peer_script.h"

/* Moments, in the order in which they come. */
typedef enum {
    MOMENT_NEVER,
    MOMENT_CONNECTED, /* before a byte was read */
    MOMENT_HELLO,
    MOMENT_LIST,      /* behind the block list */
    MOMENT_PAGES,     /* behind the first pages */
    MOMENT_STOPPED,   /* precopy: behind ram's END */
    MOMENT_COMMIT,    /* the ping that comes before EOF */
    MOMENT_DISCARDED, /* postcopy: the ping behind the discards */
    MOMENT_PACKAGE,   /* the package is here, all of it */
    MOMENT_RUNNING,   /* the ping behind it */
    MOMENT_PUSHED,    /* behind the first pages in postcopy */
    MOMENT_EOF,
} SinkMoment;

typedef enum { SINK_GO_ON, SINK_CLOSE, SINK_HALF_CLOSE, SINK_STOP_READING, SINK_SILENT } SinkThen;

typedef struct SinkPlan {
    SinkMoment moment;
    void (*put)(StreamWriter *w); /* what is sent then; NULL: nothing */
    SinkThen then;
    uint64_t heartbeat_ms; /* the source's parameter; 0: as it is */
} SinkPlan;

typedef struct PeerSink {
    PeerGuest *guest; /* the source's */
    PeerLink *main, *urgent;
    int listener;
    char *folder;
    ScriptShape shape;
    bool is_qemu, in_section, has_pages, in_package, is_stuck, has_moved;
    size_t at; /* in main->received: all before was decoded */
    uint32_t section, device_bytes;
    unsigned count_pings, count_commits, count_pages, count_urgent_bytes;
    SinkMoment reached;
    SinkPlan plan;
} PeerSink;

/* A source that migrates to it; in postcopy the switch-over is wished for at once. */
PeerSink *peer_sink_new(ScriptShape shape, bool is_qemu, const SinkPlan *plan);
/* The same with a guest of the caller's, which is the sink's from here on. */
PeerSink *peer_sink_new_for(PeerGuest *guest, ScriptShape shape, bool is_qemu,
                            const SinkPlan *plan);
void peer_sink_free(PeerSink *sink);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PeerSink, peer_sink_free)

/* Reads and answers until the source is over, or for limit_ms; the status then. */
FaultlineStatus peer_sink_run(PeerSink *sink, int64_t limit_ms);
void peer_sink_info(const PeerSink *sink, FaultlineInfo *ret_info);

#endif
