/* SPDX-License-Identifier: MIT */
/*
 * What one send carries: headers in memory of its own, and pages straight from guest RAM between
 * them, as one scatter list. Walk 8 of 12.
 *
 * A FrameQueue is a channel's send half with two frames: one is filled while the other is in
 * flight, and neither is touched before the transport has let go of it. Owned by one role.
 */
#ifndef ENGINE_FRAME_H
#define ENGINE_FRAME_H

#include "engine/block.h"
#include "engine/stream/stream.h"
#include "engine/walk.h"
#include "transport/transport.h"

#define FRAME_PAGES          128u
#define FRAME_POSTCOPY_PAGES 64u /* what is under way delays a page somebody asks for */

/* A run of pages of one block. */
typedef struct FrameRun {
    RamBlock *block;
    uint64_t page, count;
} FrameRun;

/* A page record that may still become a run: its header is not written yet. */
typedef struct FrameRecord {
    RamBlock *block;
    uint64_t page;
    uint32_t count; /* 0: there is none */
    bool is_zero, is_continue;
} FrameRecord;

typedef struct Frame {
    FrameRecord open;
    StreamWriter writer; /* headers; cut into pieces by the memory between them */
    size_t piece;        /* where the open piece of headers begins */
    unsigned count_iov, count_pages, count_runs;
    struct iovec iov[2 * FRAME_PAGES + 4];
    FrameRun runs[FRAME_PAGES]; /* pages in it, for release-ram */
    uint64_t length_bytes;      /* of all closed pieces */
} Frame;

typedef struct FrameQueue {
    TransportSender *sender; /* NULL: not connected */
    Frame frames[2];
    unsigned next;         /* frame that is being filled */
    bool is_pending;       /* it is full, and the transport did not take it yet */
    bool releases;         /* release-ram: free pages once they were sent */
    bool puts_runs;        /* the peer takes runs; may change between two pages */
    unsigned pages_max;    /* of a frame: up to FRAME_PAGES */
    const RamBlock *named; /* last block named on this channel; NULL: name the next one */
    uint64_t closed_bytes; /* all that was handed over, or waits to be */
    uint64_t count_zero, count_normal; /* pages put */
    FaultlineWalkTrace *walk;          /* of the pages in a frame, as it leaves; NULL: none */
    WalkStep walk_step;
} FrameQueue;

typedef enum {
    FLUSH_TAKEN, /* another frame may be filled */
    FLUSH_WAIT,
    FLUSH_FAILED,
} FlushResult;

void frame_queue_init(FrameQueue *queue);
/* The sender has been freed before. */
void frame_queue_clear(FrameQueue *queue);

/* As after init, but for the counts: for another link. The sender has been freed before. */
void frame_queue_reset(FrameQueue *queue);

/* Headers are put here, behind all that was put before; room for STREAM_RECORD_MAX more bytes is
 * there if frame_queue_has_room().
 */
StreamWriter *frame_queue_writer(FrameQueue *queue);
/* Room for another page record or command of up to 600 bytes. Not while a frame is pending. */
bool frame_queue_has_room(const FrameQueue *queue);
bool frame_queue_is_empty(const FrameQueue *queue);

/* Memory that stays untouched until it was sent (frame_queue_drain): a package. */
void frame_queue_put_memory(FrameQueue *queue, const void *bytes, size_t length_bytes);
/* A page: header, and a pointer to the page unless it is all zero. A page that follows the one put
 * before joins its run, where the peer takes runs. Walk 7 and 8 of 12. */
void frame_queue_put_page(FrameQueue *queue, RamBlock *block, uint64_t page);
/* Pages that the frame still takes. */
unsigned frame_queue_room_pages(const FrameQueue *queue);

/* What was put last concerns this page: for the trace. */
void frame_queue_note_page(FrameQueue *queue, RamBlock *block, uint64_t page);

/* Hands over what was put; nothing put: TAKEN. Errors: LINK. */
FlushResult frame_queue_flush(FrameQueue *queue, GError **error);
/* TAKEN once the transport has accepted every byte. */
FlushResult frame_queue_drain(FrameQueue *queue, GError **error);

#endif
