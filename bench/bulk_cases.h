/* SPDX-License-Identifier: MIT */
/*
 * The cases of bench/bulk: transfers compared with a plain one, switch-overs by memory size and
 * dirty pages, and the sync of the dirty log.
 */
#ifndef BENCH_BULK_CASES_H
#define BENCH_BULK_CASES_H

#include "bench/plain.h"
#include "bench/samples.h"

typedef struct BulkOptions {
    uint64_t memory_bytes;
    GArray *sizes;          /* of uint64_t, bytes: for the downtime by memory size */
    GArray *dirty;          /* of uint64_t, pages: for the downtime by dirty pages */
    uint64_t dirty_by_size; /* pages that are dirty at each size */
    bool preempt, is_unix, uses_netns;
    Backing backing;
    unsigned count_repeats, limit_s;
    Placement placement;
    char *json_path;
} BulkOptions;

/* X(name, text) */
#define TRANSFER_LIST(X)                                                                           \
    X(PLAIN_ALLOCATED, "plain socket, into allocated memory")                                      \
    X(PLAIN_FRESH, "plain socket, into fresh memory")                                              \
    X(PRECOPY, "precopy")                                                                          \
    X(DRAIN_ALLOCATED, "postcopy drain, into allocated memory")                                    \
    X(DRAIN_FRESH, "postcopy drain, into fresh memory")

typedef enum {
#define TRANSFER_ENUM(name, text) TRANSFER_##name,
    TRANSFER_LIST(TRANSFER_ENUM)
#undef TRANSFER_ENUM
        TRANSFER_COUNT
} TransferKind;

extern const char *const transfer_names[TRANSFER_COUNT];
/* The plain transfer that one is compared with. */
TransferKind transfer_floor(TransferKind kind);

typedef struct Transfer {
    Samples gib_per_s, source_cpu, destination_cpu; /* CPU s/GiB */
    Samples source_overhead, destination_overhead;  /* MiB of private memory a GiB of guest */
} Transfer;

typedef struct Switch {
    uint64_t memory_bytes, dirty_pages;
    bool is_scattered;
    Samples downtime_ms; /* stop at the source to resume at the destination */
    Samples engine_ms;   /* what the source accounts */
} Switch;

typedef struct Sync {
    const char *name;
    unsigned percent; /* of the pages that are dirty */
    Samples ms_per_gib;
} Sync;
#define SYNC_COUNT 3u

typedef struct Bulk {
    const BulkOptions *options;
    const Netns *netns;
    FaultlineBlock block; /* filled, as long as the largest memory */
    Board *board;
    Transfer transfers[TRANSFER_COUNT];
    Switch *switches;
    unsigned count_switches;
    Sync syncs[SYNC_COUNT];
    bool has_syncs;
    char *sync_problem; /* why there are none */
} Bulk;

void bulk_init(Bulk *bulk, const BulkOptions *options);
void bulk_clear(Bulk *bulk);

/* All cases once. */
bool bulk_run_repeat(Bulk *bulk, GError **error);

void bulk_report_print(Bulk *bulk);
bool bulk_report_write(Bulk *bulk, GError **error);

#endif
