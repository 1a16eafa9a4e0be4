/* SPDX-License-Identifier: MIT */
/*
 * Which pages a guest will want next, judged by those it asked for: streams that go up, down or by
 * strides, several at once, as several vCPUs interleave them. Pure: no clock, no pages, no channel.
 * Owned by the request role, which looks here after the page that was asked for has left.
 *
 * A stream is recognised by its third page: two steps that are equal, or two short ones in the same
 * direction (pages between them may be clean). What lies ahead of it is then handed out in windows
 * that grow from LOCALITY_FIRST on, as long as the guest uses them up. That a page of a window was
 * used is not told to anybody; that the guest came out of it at the far end is.
 *
 * Whoever places pages there places one after the other, so what was handed out for all streams
 * together, and is not known to have been placed, is bounded. A stream that asks again has got what
 * left before its last page, and what it was sent behind that if it is past it; channels keep
 * order. What nobody tells about is taken for placed after a while.
 *
 * Pages are counted in host pages here. Random requests find nothing: a page that is in no stream
 * costs one look at the streams and one at the last pages.
 */
#ifndef ENGINE_SOURCE_LOCALITY_H
#define ENGINE_SOURCE_LOCALITY_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define LOCALITY_STREAMS 16u
#define LOCALITY_LAST    48u /* three pages of each of 16 streams that take turns */
#define LOCALITY_FIRST   4u  /* steps of a stream's first window */

/* Pages page, page + step, ..., count of them, all inside the block. */
typedef struct LocalityWindow {
    unsigned block;
    uint64_t page;
    int64_t step;
    uint64_t count;
} LocalityWindow;

typedef struct LocalityStream {
    uint64_t at;                    /* place last asked for, see locality.c */
    int64_t step;                   /* 0: no stream */
    uint64_t ahead;                 /* steps behind `at` that were handed out */
    uint64_t window;                /* steps that are wanted ahead of it */
    uint64_t when;                  /* count of requests then */
    uint64_t handed_before, handed; /* pages handed out to all when it last asked, before and since
                                     */
} LocalityStream;

typedef struct Locality {
    LocalityStream streams[LOCALITY_STREAMS];
    uint64_t last[LOCALITY_LAST]; /* places that belong to no stream; a ring */
    unsigned next;                /* the oldest of them */
    uint64_t count;               /* requests */
    uint64_t handed, placed;      /* pages of all windows; those that are there by now */
    uint64_t handed_when;         /* count of requests when the last window was handed out */
} Locality;

typedef enum {
    LOCALITY_NONE,   /* a page like any other */
    LOCALITY_INSIDE, /* of a stream, and enough ahead of it was handed out */
    LOCALITY_WINDOW, /* of a stream, and *ret_window is worth to be sent */
} LocalityResult;

typedef struct LocalityBounds {
    uint64_t count_pages; /* of the block */
    uint64_t window;      /* the largest, at least 1 */
    uint64_t flight;      /* pages handed out and not known to be placed, of all streams */
} LocalityBounds;

void locality_init(Locality *locality);

/* A page was asked for. */
LocalityResult locality_note(Locality *locality, unsigned block, uint64_t page,
                             const LocalityBounds *bounds, LocalityWindow *ret_window);

#endif
