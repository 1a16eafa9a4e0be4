/* SPDX-License-Identifier: MIT */
/*
 * Which pages of guest RAM were written: KVM's dirty bitmap with manual protect, or the dirty ring
 * (kvm_ring.c), and pages that the machine itself wrote. One bit a target page.
 *
 * start, sync and stop run on the engine's migration thread; marks come from any thread and go into
 * an atomic bitmap of our own, which a sync empties into the engine's.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm_machine.h"

typedef struct BlockLog {
    uint64_t count_pages, count_words;
    _Atomic uint64_t *marks; /* shared: set by anyone with release, taken by sync with acquire */
    uint64_t *log;           /* migration thread: what KVM_GET_DIRTY_LOG gave */
    uint64_t *told;          /* under rest_lock: told to the engine, and still set in KVM's log */
} BlockLog;

struct KvmDirty {
    /* set before any thread starts */
    BlockLog blocks[MACHINE_BLOCKS_MAX];
    unsigned count_blocks;
    KvmRing *ring; /* NULL: bitmap */

    /* shared: bitmap, between dirty_rest() and dirty_wake(). A sync is part of the downtime then,
     * and to protect pages again that nobody can write would be most of its time: it is done before
     * the guest runs, if it ever runs here again. */
    pthread_mutex_t rest_lock;
    bool rests;    /* under rest_lock */
    bool has_told; /* under rest_lock: some block's `told` has a bit */

    /* shared: one harvest at a time, by a sync or by a vCPU whose ring is full */
    pthread_mutex_t harvest_lock;
};

static bool
use_manual_protect(Machine *machine, GError **error)
{
    struct kvm_enable_cap enable = {
        .cap = KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
        .args = {KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE},
    };
    if (ioctl(machine->vm_fd, KVM_ENABLE_CAP, &enable) == 0)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "Cannot track the guest's writes: this kernel's KVM lacks "
                "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: %m. Use Linux 5.2 or later");
    return false;
}

KvmDirty *
dirty_new(Machine *machine, const MachineOptions *options, GError **error)
{
    KvmDirty *dirty = g_new0(KvmDirty, 1);
    pthread_mutex_init(&dirty->harvest_lock, NULL);
    pthread_mutex_init(&dirty->rest_lock, NULL);
    dirty->rests = true; /* no vCPU has run */
    dirty->count_blocks = machine->count_blocks;
    for (unsigned i = 0; i < machine->count_blocks; i++) {
        BlockLog *block = &dirty->blocks[i];
        block->count_pages = machine->blocks[i].length_bytes / FAULTLINE_PAGE_BYTES;
        block->count_words = (block->count_pages + 63) / 64;
        block->marks = g_new0(_Atomic uint64_t, block->count_words);
        block->log = g_new0(uint64_t, block->count_words);
        block->told = g_new0(uint64_t, block->count_words);
    }
    bool ready;
    if (options->dirty_ring) {
        dirty->ring = ring_new(machine->kvm_fd, machine->vm_fd, options->cpus, error);
        ready = dirty->ring != NULL;
    } else {
        ready = use_manual_protect(machine, error);
    }
    if (!ready)
        g_clear_pointer(&dirty, dirty_free);
    return dirty;
}

void
dirty_free(KvmDirty *dirty)
{
    if (dirty == NULL)
        return;
    ring_free(dirty->ring);
    for (unsigned i = 0; i < dirty->count_blocks; i++) {
        g_free((void *)dirty->blocks[i].marks);
        g_free(dirty->blocks[i].log);
        g_free(dirty->blocks[i].told);
    }
    pthread_mutex_destroy(&dirty->rest_lock);
    pthread_mutex_destroy(&dirty->harvest_lock);
    g_free(dirty);
}

bool
dirty_add_vcpu(KvmDirty *dirty, unsigned index, int vcpu_fd, GError **error)
{
    return dirty->ring == NULL || ring_add_vcpu(dirty->ring, index, vcpu_fd, error);
}

static void
mark_page(void *opaque, unsigned slot, uint64_t page)
{
    KvmDirty *dirty = opaque;
    if (slot < dirty->count_blocks && page < dirty->blocks[slot].count_pages)
        atomic_fetch_or_explicit(&dirty->blocks[slot].marks[page / 64], 1ull << (page % 64),
                                 memory_order_release);
}

void
dirty_mark(KvmDirty *dirty, unsigned block, uint64_t offset_bytes, uint64_t length_bytes)
{
    if (length_bytes == 0)
        return;
    uint64_t last = (offset_bytes + length_bytes - 1) / FAULTLINE_PAGE_BYTES;
    for (uint64_t page = offset_bytes / FAULTLINE_PAGE_BYTES; page <= last; page++)
        mark_page(dirty, block, page);
}

static bool
harvest(KvmDirty *dirty, GError **error)
{
    pthread_mutex_lock(&dirty->harvest_lock);
    bool done = ring_harvest(dirty->ring, mark_page, dirty, error);
    pthread_mutex_unlock(&dirty->harvest_lock);
    return done;
}

bool
dirty_ring_full(KvmDirty *dirty, GError **error)
{
    return harvest(dirty, error);
}

/* Called with rest_lock. KVM begins with an empty log. */
static void
forget_told(KvmDirty *dirty)
{
    for (unsigned i = 0; i < dirty->count_blocks && dirty->has_told; i++)
        memset(dirty->blocks[i].told, 0, dirty->blocks[i].count_words * sizeof(uint64_t));
    dirty->has_told = false;
}

static void
begin_log(KvmDirty *dirty)
{
    pthread_mutex_lock(&dirty->rest_lock);
    forget_told(dirty);
    pthread_mutex_unlock(&dirty->rest_lock);
}

bool
dirty_start(Machine *machine, GError **error)
{
    KvmDirty *dirty = machine->dirty;
    begin_log(dirty);
    for (unsigned i = 0; i < dirty->count_blocks; i++) {
        BlockLog *block = &dirty->blocks[i];
        for (uint64_t word = 0; word < block->count_words; word++)
            atomic_store_explicit(&block->marks[word], 0, memory_order_relaxed);
        if (!kvm_set_slot(machine, i, true, error)) {
            dirty_stop(machine);
            return false;
        }
    }
    return true;
}

void
dirty_stop(Machine *machine)
{
    for (unsigned i = 0; i < machine->count_blocks; i++) {
        /* A slot that stays in logging costs speed, not data. */
        kvm_set_slot(machine, i, false, NULL);
    }
    begin_log(machine->dirty);
    if (machine->dirty->ring)
        harvest(machine->dirty, NULL);
}

static bool
clear_log(Machine *machine, unsigned index, uint64_t *bits, GError **error)
{
    const BlockLog *block = &machine->dirty->blocks[index];
    struct kvm_clear_dirty_log clear = {.slot = index};
    /* num_pages has 32 bits; a part that does not end the slot must have 64 n pages. */
    const uint64_t most = 1u << 30;
    for (uint64_t first = 0; first < block->count_pages; first += most) {
        clear.first_page = first;
        clear.num_pages = (uint32_t)MIN(most, block->count_pages - first);
        clear.dirty_bitmap = bits + first / 64;
        if (ioctl(machine->vm_fd, KVM_CLEAR_DIRTY_LOG, &clear) < 0)
            return kvm_fail(error, "KVM_CLEAR_DIRTY_LOG");
    }
    return true;
}

/* Called with rest_lock, guest at rest: block->log keeps what was not told yet. */
static void
tell_at_rest(KvmDirty *dirty, BlockLog *block)
{
    for (uint64_t i = 0; i < block->count_words; i++) {
        uint64_t set = block->log[i];
        block->log[i] = set & ~block->told[i];
        block->told[i] = set;
    }
    dirty->has_told = true;
}

/* Clearing comes before the engine reads the pages: a write after it is seen by the next sync, one
 * before it by that read. */
static bool
fetch_log(Machine *machine, unsigned index, GError **error)
{
    KvmDirty *dirty = machine->dirty;
    BlockLog *block = &dirty->blocks[index];
    struct kvm_dirty_log get = {.slot = index, .dirty_bitmap = block->log};

    pthread_mutex_lock(&dirty->rest_lock);
    bool done =
        ioctl(machine->vm_fd, KVM_GET_DIRTY_LOG, &get) == 0 || kvm_fail(error, "KVM_GET_DIRTY_LOG");
    if (done && dirty->rests)
        tell_at_rest(dirty, block);
    else if (done)
        done = clear_log(machine, index, block->log, error);
    pthread_mutex_unlock(&dirty->rest_lock);
    return done;
}

void
dirty_rest(Machine *machine)
{
    KvmDirty *dirty = machine->dirty;
    pthread_mutex_lock(&dirty->rest_lock);
    dirty->rests = true;
    pthread_mutex_unlock(&dirty->rest_lock);
}

bool
dirty_wake(Machine *machine, GError **error)
{
    KvmDirty *dirty = machine->dirty;
    bool done = true;

    pthread_mutex_lock(&dirty->rest_lock);
    for (unsigned i = 0; i < dirty->count_blocks && dirty->has_told && done; i++)
        done = clear_log(machine, i, dirty->blocks[i].told, error);
    if (done) {
        forget_told(dirty);
        dirty->rests = false;
    }
    pthread_mutex_unlock(&dirty->rest_lock);
    return done;
}

bool
dirty_sync(Machine *machine, unsigned index, uint64_t *words, uint64_t count_pages, GError **error)
{
    KvmDirty *dirty = machine->dirty;
    if (index >= dirty->count_blocks || count_pages != dirty->blocks[index].count_pages) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot sync the dirty log: block %u of %" G_GUINT64_FORMAT
                    " pages is not one of this machine",
                    index, count_pages);
        return false;
    }
    BlockLog *block = &dirty->blocks[index];
    if (!(dirty->ring ? harvest(dirty, error) : fetch_log(machine, index, error)))
        return false;
    for (uint64_t i = 0; i < block->count_words; i++) {
        words[i] |= dirty->ring ? 0 : block->log[i];
        if (atomic_load_explicit(&block->marks[i], memory_order_relaxed))
            words[i] |= atomic_exchange_explicit(&block->marks[i], 0, memory_order_acquire);
    }
    return true;
}
