/* SPDX-License-Identifier: MIT */
/*
 * What it costs to ask which pages were written: the tracker of plain processes, and KVM's dirty
 * log with a guest that writes. In the coordinating process: there is no other side to it.
 */
#include "bench/bulk_cases.h"
#include "bench/clock.h"
#include "bench/report.h"
#include "kvm/machine.h"
#include "uffd/uffd.h"

#include <stdio.h>
#include <string.h>

#define GIB         ((double)(1u << 30))
#define WRITE_US    1000000u /* for which the guest writes before its log is asked */
#define KVM_MIB_MAX 512u     /* it has to write all of it in that time */

static const char *const sync_names[SYNC_COUNT] = {
    [SYNC_TRACKER_CLEAN] = "plain process, nothing written",
    [SYNC_TRACKER_SOME] = "plain process, one page in ten",
    [SYNC_TRACKER_ALL] = "plain process, every page",
    [SYNC_TRACKER_LAST] = "plain process, every page, the last sync",
    [SYNC_KVM_CLEAN] = "KVM, nothing written",
    [SYNC_KVM_ALL] = "KVM, a guest that writes",
    [SYNC_KVM_LAST] = "KVM, the same, the last sync",
};

static void
note(Bulk *bulk, SyncKind kind, uint64_t begin_ns, const FaultlineBlock *block,
     const uint64_t *words)
{
    double ms = (double)(bench_now_ns() - begin_ns) * 1e-6;
    uint64_t pages = block->length_bytes / FAULTLINE_PAGE_BYTES, count = 0;

    for (uint64_t i = 0; i < (pages + 63) / 64; i++)
        count += (uint64_t)__builtin_popcountll(words[i]);
    bulk_add_value(&bulk->syncs[kind].ms_per_gib, ms / ((double)block->length_bytes / GIB));
    bulk_add_value(&bulk->syncs[kind].dirty_percent, 100.0 * (double)count / (double)pages);
}

static uint64_t *
new_words(const FaultlineBlock *block)
{
    uint64_t count = (block->length_bytes / FAULTLINE_PAGE_BYTES + 63) / 64;
    uint64_t *words = g_new(uint64_t, count);
    memset(words, 0xff, count * sizeof *words); /* its first touch is not what is timed */
    return words;
}

static void
clear_words(uint64_t *words, const FaultlineBlock *block)
{
    memset(words, 0, (block->length_bytes / FAULTLINE_PAGE_BYTES + 63) / 64 * sizeof *words);
}

/* ---- The tracker of plain processes ---------------------------------------------------------- */

static void
write_some(const FaultlineBlock *block, unsigned step_pages)
{
    volatile char *memory = block->host_address;
    for (uint64_t at = 0; step_pages && at < block->length_bytes;
         at += step_pages * (uint64_t)FAULTLINE_PAGE_BYTES)
        memory[at] = 1;
}

static bool
time_tracker(Bulk *bulk, UffdTracker *tracker, const FaultlineBlock *block, GError **error)
{
    static const struct {
        SyncKind kind;
        unsigned step_pages;
    } rows[] = {{SYNC_TRACKER_CLEAN, 0},
                {SYNC_TRACKER_SOME, 10},
                {SYNC_TRACKER_ALL, 1},
                {SYNC_TRACKER_LAST, 1}};
    g_autofree uint64_t *words = new_words(block);

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        write_some(block, rows[i].step_pages);
        clear_words(words, block);
        uint64_t begin_ns = bench_now_ns();
        if (!uffd_tracker_sync(tracker, block->host_address, block->length_bytes, words,
                               rows[i].kind == SYNC_TRACKER_LAST, error))
            return false;
        note(bulk, rows[i].kind, begin_ns, block, words);
    }
    return true;
}

/* Memory of its own, because it is written. */
static bool
run_tracker(Bulk *bulk, GError **error)
{
    FaultlineBlock block;

    if (!bench_map(bulk->options->backing, bulk->options->memory_bytes, &block, error))
        return false;
    write_some(&block, 1);
    UffdTracker *tracker = uffd_tracker_new(error);
    bool timed = tracker &&
                 uffd_tracker_add(tracker, block.host_address, block.length_bytes, error) &&
                 time_tracker(bulk, tracker, &block, error);
    g_clear_pointer(&tracker, uffd_tracker_free);
    ram_unmap(&block);
    return timed;
}

/* ---- KVM ------------------------------------------------------------------------------------- */

static bool
time_kvm_sync(Bulk *bulk, SyncKind kind, Machine *machine, const FaultlineBlock *block,
              GError **error)
{
    g_autofree uint64_t *words = new_words(block);
    clear_words(words, block);
    uint64_t begin_ns = bench_now_ns();
    if (!machine_kvm.guest->dirty_log_sync(machine, 0, words,
                                           block->length_bytes / FAULTLINE_PAGE_BYTES, error))
        return false;
    note(bulk, kind, begin_ns, block, words);
    return true;
}

static bool
time_kvm(Bulk *bulk, Machine *machine, const FaultlineBlock *block, GError **error)
{
    const FaultlineGuest *guest = machine_kvm.guest;

    if (!guest->resume(machine, error))
        return false;
    g_usleep(WRITE_US);
    bool timed = time_kvm_sync(bulk, SYNC_KVM_ALL, machine, block, error);
    g_usleep(WRITE_US);
    return guest->pause(machine, error) && timed &&
           time_kvm_sync(bulk, SYNC_KVM_LAST, machine, block, error) &&
           time_kvm_sync(bulk, SYNC_KVM_CLEAN, machine, block, error);
}

static bool
run_kvm(Bulk *bulk, GError **error)
{
    const MachineOptions options = {
        .memory_bytes = MIN(bulk->options->memory_bytes, (uint64_t)KVM_MIB_MAX << 20),
        .cpus = 1,
        .serial = "none",
        .memory = MACHINE_MEMORY_MEMFD,
    };
    unsigned count;
    Machine *machine = machine_kvm.make(&options, error);

    if (!machine)
        return false;
    const FaultlineBlock *block = machine_kvm.blocks(machine, &count);
    bool timed = machine_kvm.guest->dirty_log_start(machine, error);
    if (timed) {
        timed = time_kvm(bulk, machine, block, error);
        machine_kvm.guest->dirty_log_stop(machine);
    }
    machine_kvm.free(machine);
    return timed;
}

/* ---- Both ------------------------------------------------------------------------------------ */

void
bulk_syncs_init(Bulk *bulk)
{
    for (unsigned i = 0; i < SYNC_COUNT; i++) {
        samples_init(&bulk->syncs[i].ms_per_gib);
        samples_init(&bulk->syncs[i].dirty_percent);
    }
}

void
bulk_syncs_clear(Bulk *bulk)
{
    for (unsigned i = 0; i < SYNC_COUNT; i++) {
        samples_clear(&bulk->syncs[i].ms_per_gib);
        samples_clear(&bulk->syncs[i].dirty_percent);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bulk->sync_problems); i++)
        g_free(bulk->sync_problems[i]);
}

/* A host that has one of the two not is told so, once. */
void
bulk_syncs_run(Bulk *bulk)
{
    bool (*const runs[])(Bulk *, GError **) = {run_tracker, run_kvm};
    G_STATIC_ASSERT(G_N_ELEMENTS(runs) == G_N_ELEMENTS(bulk->sync_problems));

    for (unsigned i = 0; i < G_N_ELEMENTS(runs); i++) {
        g_autoptr(GError) reason = NULL;
        if (!bulk->sync_problems[i] && !runs[i](bulk, &reason))
            bulk->sync_problems[i] = g_strdup(reason ? reason->message : "failed");
    }
}

void
bulk_syncs_print(Bulk *bulk)
{
    printf("\n| sync of the dirty log | ms/GiB | pages found, %% |\n|---|---|---|\n");
    for (unsigned i = 0; i < SYNC_COUNT; i++) {
        g_autofree char *text = bulk_text(&bulk->syncs[i].ms_per_gib);
        g_autofree char *share = bulk_text(&bulk->syncs[i].dirty_percent);
        printf("| %s | %s | %s |\n", sync_names[i], text, share);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bulk->sync_problems); i++)
        if (bulk->sync_problems[i])
            printf("\nNot measured: %s\n", bulk->sync_problems[i]);
}

void
bulk_syncs_write(JsonBuilder *json, Bulk *bulk)
{
    report_open(json, "dirty-log-sync-ms-per-gib");
    for (unsigned i = 0; i < SYNC_COUNT; i++)
        bulk_write_figure(json, sync_names[i], &bulk->syncs[i].ms_per_gib);
    for (unsigned i = 0; i < G_N_ELEMENTS(bulk->sync_problems); i++)
        if (bulk->sync_problems[i])
            report_text(json, i ? "kvm-skipped" : "plain-process-skipped", bulk->sync_problems[i]);
    report_close(json);
}
