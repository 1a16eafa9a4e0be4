/* SPDX-License-Identifier: MIT */
/*
 * The cases of bench/bulk: transfers compared with a plain one, switch-overs by memory size and
 * dirty pages, and the sync of the dirty log.
 */
#ifndef BENCH_BULK_CASES_H
#define BENCH_BULK_CASES_H

#include "bench/plain.h"
#include "bench/samples.h"

#include <json-glib/json-glib.h>

/* X(name, text): parts of the bench. */
#define BULK_PART_LIST(X)                                                                          \
    X(TRANSFERS, "transfers")                                                                      \
    X(SWITCHES, "switches") X(SYNCS, "syncs") X(RECOVERIES, "recoveries") X(ALL, "all")

typedef enum {
#define BULK_PART_ENUM(name, text) BULK_PART_##name,
    BULK_PART_LIST(BULK_PART_ENUM)
#undef BULK_PART_ENUM
        BULK_PART_COUNT
} BulkPart;

extern const char *const bulk_part_names[BULK_PART_COUNT];

typedef struct BulkOptions {
    BulkPart only;
    uint64_t memory_bytes;
    GArray *sizes;          /* of uint64_t, bytes: for the downtime by memory size */
    GArray *dirty;          /* of uint64_t, pages: for the downtime by dirty pages */
    uint64_t dirty_by_size; /* pages that are dirty at each size */
    bool preempt, is_unix, uses_netns;
    bool uses_tls;       /* the transfers by TLS, too */
    bool with_checksums; /* and with page-checksums */
    bool is_filled;      /* what is switched over has content everywhere; else it is all zeros */
    Backing backing;
    unsigned count_repeats, limit_s;
    unsigned count_breaks, retry_ms; /* recoveries: a repeat; recover-retry */
    Placement placement;
    char *json_path;
} BulkOptions;

/* X(name, text) */
#define TRANSFER_LIST(X)                                                                           \
    X(PLAIN_ALLOCATED, "plain socket, into allocated memory")                                      \
    X(PLAIN_FRESH, "plain socket, into fresh memory")                                              \
    X(PRECOPY, "precopy")                                                                          \
    X(DRAIN_ALLOCATED, "postcopy drain, into allocated memory")                                    \
    X(DRAIN_FRESH, "postcopy drain, into fresh memory")                                            \
    X(PRECOPY_TLS, "precopy, TLS")                                                                 \
    X(DRAIN_TLS, "postcopy drain, into allocated memory, TLS")                                     \
    X(PRECOPY_CHECKED, "precopy with checksums")                                                   \
    X(DRAIN_CHECKED, "drain with checksums, into allocated memory")

typedef enum {
#define TRANSFER_ENUM(name, text) TRANSFER_##name,
    TRANSFER_LIST(TRANSFER_ENUM)
#undef TRANSFER_ENUM
        TRANSFER_COUNT
} TransferKind;

extern const char *const transfer_names[TRANSFER_COUNT];
/* The same without checksums; kind itself if it has none. */
TransferKind transfer_unchecked(TransferKind kind);
/* The plain transfer that one is compared with. */
TransferKind transfer_floor(TransferKind kind);

typedef struct Transfer {
    Samples gib_per_s, source_cpu, destination_cpu; /* CPU s/GiB */
    Samples source_overhead, destination_overhead;  /* MiB of private memory a GiB of guest */
} Transfer;

#define SWITCH_PARTS 7u
typedef struct Switch {
    uint64_t memory_bytes, dirty_pages;
    bool is_scattered;
    Samples downtime_ms; /* stop at the source to resume at the destination */
    Samples source_ms;   /* stop to the last byte of the package */
    Samples parts_ms[SWITCH_PARTS];
} Switch;

typedef struct Recovery {
    uint64_t memory_bytes;
    bool is_automatic;
    Samples page_ms;    /* path back to the first page */
    Samples attempt_ms; /* of it, from the attempt that succeeds on */
    Samples floor_ms;   /* a page over a new plain connection */
} Recovery;

/* What was written since the sync before; the last one finds the guest at rest. */
typedef enum {
    SYNC_TRACKER_CLEAN,
    SYNC_TRACKER_SOME,
    SYNC_TRACKER_ALL,
    SYNC_TRACKER_LAST,
    SYNC_KVM_CLEAN,
    SYNC_KVM_ALL,
    SYNC_KVM_LAST,
    SYNC_COUNT
} SyncKind;

typedef struct Sync {
    Samples ms_per_gib, dirty_percent;
} Sync;

typedef struct Bulk {
    const BulkOptions *options;
    const Netns *netns;
    FaultlineBlock block;        /* filled */
    FaultlineBlock switch_block; /* as long as the largest memory of a switch-over */
    Board *board;
    Transfer transfers[TRANSFER_COUNT];
    Switch *switches;
    unsigned count_switches;
    Recovery *recoveries;
    unsigned count_recoveries;
    Sync syncs[SYNC_COUNT];
    char *sync_problems[2]; /* why there are none: tracker, KVM */
} Bulk;

void bulk_init(Bulk *bulk, const BulkOptions *options);
void bulk_clear(Bulk *bulk);

bool bulk_has(const Bulk *bulk, BulkPart part);
/* Whether the options ask for it. */
bool bulk_has_transfer(const Bulk *bulk, TransferKind kind);

/* All cases once. */
bool bulk_run_repeat(Bulk *bulk, GError **error);

/* ---- Between the files of this bench --------------------------------------------------------- */

uint64_t bulk_largest_size(const BulkOptions *options);
MovePlan bulk_plan_move(const Bulk *bulk, const FaultlineBlock *block);
void bulk_add_value(Samples *samples, double value);

void bulk_switch_add(Bulk *bulk, uint64_t memory_bytes, uint64_t dirty_pages, bool is_scattered);
void bulk_switches_clear(Bulk *bulk);
bool bulk_switch_run(Bulk *bulk, Switch *one, GError **error);
void bulk_switches_print(Bulk *bulk);
void bulk_switches_write(JsonBuilder *json, Bulk *bulk);

void bulk_recovery_add(Bulk *bulk, uint64_t memory_bytes, bool is_automatic);
void bulk_recoveries_clear(Bulk *bulk);
bool bulk_recovery_run(Bulk *bulk, Recovery *one, GError **error);
void bulk_recoveries_print(Bulk *bulk);
void bulk_recoveries_write(JsonBuilder *json, Bulk *bulk);

void bulk_syncs_init(Bulk *bulk);
void bulk_syncs_clear(Bulk *bulk);
void bulk_syncs_run(Bulk *bulk);
void bulk_syncs_print(Bulk *bulk);
void bulk_syncs_write(JsonBuilder *json, Bulk *bulk);

/* One value a repeat: median and range. */
char *bulk_text(Samples *samples);
void bulk_write_figure(JsonBuilder *json, const char *name, Samples *samples);

void bulk_report_print(Bulk *bulk);
bool bulk_report_write(Bulk *bulk, GError **error);

#endif
