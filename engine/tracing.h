/* SPDX-License-Identifier: MIT */
/*
 * Tracing the walk of a page: a chapter of faultline.h, which includes it. Who wants to know where
 * a fault's time goes gives each thread of the walk a buffer, and reads it afterwards.
 */
#ifndef ENGINE_TRACING_H
#define ENGINE_TRACING_H

#include "faultline.h"

typedef enum { FAULTLINE_WALK_SIDE_SOURCE, FAULTLINE_WALK_SIDE_DESTINATION } FaultlineWalkSide;

/* One step of a page's walk from fault to resume. */
typedef struct FaultlineWalkRow {
    unsigned number; /* 1..12 */
    const char *name;
    FaultlineWalkSide side;
    const char *role; /* the thread that goes it */
} FaultlineWalkRow;

/* In the order of the walk; ends with a row whose name is NULL. */
const FaultlineWalkRow *faultline_walk_table(void);

/* The threads that can be traced. */
typedef enum {
    FAULTLINE_WALK_FAULT,   /* destination */
    FAULTLINE_WALK_LISTEN,  /* destination: requested pages that come by the push */
    FAULTLINE_WALK_REQUEST, /* source */
    FAULTLINE_WALK_ROLE_COUNT
} FaultlineWalkRole;

/* A page at one of these: 1 its fault was read; 4 its request is handed to the transport;
 * 5 request checked; 6 page claimed; 8 reply is handed to the transport; 9 reply checked;
 * 11 placed, whoever waited can run. A page of a larger host page is told by its first one. */
typedef struct FaultlineWalkRecord {
    uint64_t time_ns; /* CLOCK_MONOTONIC of the host where the thread runs */
    uint64_t page;    /* of FAULTLINE_PAGE_BYTES, in the block */
    uint16_t block;   /* index, as in faultline_new() */
    uint16_t step;    /* a row's number */
} FaultlineWalkRecord;

/* A thread's buffer. count grows while the migration runs: load it with acquire to read the records
 * before it, or read all of it when the migration is over. */
typedef struct FaultlineWalkTrace {
    FaultlineWalkRecord *records; /* the caller's; NULL: this thread is not traced */
    uint64_t capacity;            /* records there is room for */
    uint64_t count;               /* written so far */
    uint64_t count_lost;          /* that found no room */
} FaultlineWalkTrace;

/* Traces the migrations that begin afterwards into traces[FAULTLINE_WALK_ROLE_COUNT], which starts
 * empty and stays the caller's, like its buffers, until it is replaced or faultline_free(). NULL:
 * traces no more. A page that walks while it is traced takes some ten ns more a record.
 * Errors: STATE while a migration is under way. */
bool faultline_trace_walk(Faultline *faultline, FaultlineWalkTrace *traces, GError **error);

#endif
