/* SPDX-License-Identifier: MIT */
/*
 * What one send carries: headers in memory of its own, and pages straight from guest RAM between
 * them, as one scatter list. Walk 8 of 12.
 *
 * A FrameQueue is a channel's send half with two frames: one is filled while the other is in
 * flight, and neither is touched before the transport has let go of it. Owned by one role.
 *
 * frame_queue_seal() makes all that follows sealed (stream.h): each piece of headers gets its seal,
 * and page records the checksums of their pages, which are also kept in the block's table. Pages
 * that somebody may write until they have left are copied then, else the checksum would be of
 * something that was never sent: frame_queue_copy().
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
    const uint8_t *bytes; /* of the first page, and behind it the others; of a copy, if pages may
                             still be written */
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
    uint8_t *copies;            /* FRAME_PAGES pages; NULL: never copied any */
} Frame;

typedef struct FrameQueue FrameQueue;

/* How it is sent: plain or sealed. */
typedef struct FrameFormat {
    size_t seal_bytes; /* room before each piece */
    /* Puts what a record has behind its head. */
    void (*put_checksums)(StreamWriter *writer, const FrameRecord *record);
    void (*seal)(FrameQueue *queue, uint8_t *at, const void *piece, size_t length_bytes);
} FrameFormat;

struct FrameQueue {
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
    const FrameFormat *format;
    const uint8_t *(*borrow)(Frame *frame, const RamBlock *block, uint64_t page);
    uint64_t count_sealed; /* pieces */
};

typedef enum {
    FLUSH_TAKEN, /* another frame may be filled */
    FLUSH_WAIT,
    FLUSH_FAILED,
} FlushResult;

void frame_queue_init(FrameQueue *queue);
/* The sender has been freed before. */
void frame_queue_clear(FrameQueue *queue);

/* From here on everything is sealed; on a queue that is empty. pieces begin with number 0. */
void frame_queue_seal(FrameQueue *queue);
/* Nothing is any more; after a reset. */
void frame_queue_unseal(FrameQueue *queue);
/* Whether pages put from here on are copied. The first time allocates. Not while it holds pages. */
void frame_queue_copy(FrameQueue *queue, bool copies);
/* As after init, but for the counts, and sealed if it was: for another link. The sender has been
 * freed before. */
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

/* Nothing that is put later joins what was put before; returns the bytes that the frame has so far,
 * on the wire. */
uint64_t frame_queue_close(FrameQueue *queue);

/* What was put last concerns this page: for the trace. */
void frame_queue_note_page(FrameQueue *queue, RamBlock *block, uint64_t page);

/* Hands over what was put; nothing put: TAKEN. Errors: LINK. */
FlushResult frame_queue_flush(FrameQueue *queue, GError **error);
/* TAKEN once the transport has accepted every byte. */
FlushResult frame_queue_drain(FrameQueue *queue, GError **error);

#endif
