/* SPDX-License-Identifier: MIT */
/*
 * The role `record`, and what the others ask of it. Locks: write_lock over the callback, then lock.
 */
#include "engine/record.h"
#include "engine/context.h"
#include "engine/error.h"

#define BIT(owner) (1u << (owner))

void
faultline_set_record(Faultline *faultline, FaultlineRecordWrite write, void *opaque)
{
    faultline->record.write = write;
    faultline->record.opaque = opaque;
}

static void
wake(const Role *role)
{
    if (role && role->ring)
        transport_ring_notify(role->ring);
}

/* Called with write_lock. */
static bool
write_locked(Faultline *faultline, FaultlineOwner owner, FaultlineStatus status, bool may_refuse,
             GError **error)
{
    Record *record = &faultline->record;
    GError *failed = NULL;
    pthread_mutex_lock(&record->lock);
    g_autofree char *address = g_strdup(record->address);
    pthread_mutex_unlock(&record->lock);
    FaultlineOwnership ownership = {
        .owner = owner,
        .status = faultline_status_name(status),
        .incoming = record->incoming,
        .migration = record_migration(faultline),
        .missing_pages = progress_get(&faultline->progress.remaining_bytes) / FAULTLINE_PAGE_BYTES,
        .address = address,
        .may_refuse = may_refuse,
    };

    bool written = !record->write || record->write(record->opaque, &ownership, &failed);
    pthread_mutex_lock(&record->lock);
    if (written)
        record->written |= BIT(owner);
    else
        record->failed |= BIT(owner);
    g_clear_error(&record->error);
    if (failed)
        record->error = g_error_copy(failed);
    pthread_mutex_unlock(&record->lock);
    if (written)
        return true;
    g_prefix_error(&failed, "record that the guest's owner is '%s': ", faultline_owner_name(owner));
    g_propagate_error(error, failed);
    return error_translate(error);
}

/* Somebody waits for it, and does not go on without. */
static bool
is_awaited(FaultlineOwner owner)
{
    return owner == FAULTLINE_OWNER_GIVING || owner == FAULTLINE_OWNER_TAKING;
}

static StepResult
step(void *self)
{
    Faultline *faultline = self;
    Record *record = &faultline->record;

    pthread_mutex_lock(&record->write_lock);
    pthread_mutex_lock(&record->lock);
    bool is_ordered = record->is_ordered, is_stopping = record->is_stopping;
    FaultlineOwner owner = record->owner;
    record->is_ordered = false;
    pthread_mutex_unlock(&record->lock);
    if (is_ordered)
        write_locked(faultline, owner, context_status(faultline), is_awaited(owner), NULL);
    pthread_mutex_unlock(&record->write_lock);
    if (!is_ordered)
        return is_stopping ? STEP_DONE : STEP_WAIT;
    for (unsigned i = 0; i < G_N_ELEMENTS(record->waiters); i++)
        wake(record->waiters[i]);
    return STEP_AGAIN;
}

void
record_init(Record *record)
{
    pthread_mutex_init(&record->write_lock, NULL);
    pthread_mutex_init(&record->lock, NULL);
}

void
record_clear(Record *record)
{
    g_clear_error(&record->error);
    g_free(record->address);
    pthread_mutex_destroy(&record->write_lock);
    pthread_mutex_destroy(&record->lock);
}

void
record_set_address(Faultline *faultline, const char *address)
{
    Record *record = &faultline->record;

    pthread_mutex_lock(&record->lock);
    g_free(record->address);
    record->address = g_strdup(address);
    pthread_mutex_unlock(&record->lock);
}

bool
record_begin(Faultline *faultline, FaultlineOwner owner, const char *address, GError **error)
{
    Record *record = &faultline->record;

    record->role = (Role){.name = "record", .step = step, .self = faultline};
    record->owner = owner;
    record->incoming = owner == FAULTLINE_OWNER_COMING;
    record_set_address(faultline, address);
    record->written = record->failed = 0;
    record->is_ordered = record->is_stopping = false;
    record->migration = 0;
    if (!record->write)
        return true;
    if (!record->incoming)
        record->migration = (uint64_t)clock_wall_us() * 1000003u ^ clock_now_ns();
    return write_locked(faultline, owner, FAULTLINE_STATUS_SETUP, true, error);
}

void
record_order(Faultline *faultline, FaultlineOwner owner)
{
    Record *record = &faultline->record;

    if (!record->write)
        return;
    pthread_mutex_lock(&record->lock);
    record->owner = owner;
    record->is_ordered = true;
    pthread_mutex_unlock(&record->lock);
    wake(&record->role);
}

void
record_refresh(Faultline *faultline)
{
    Record *record = &faultline->record;

    if (!record->write)
        return;
    pthread_mutex_lock(&record->lock);
    record->is_ordered = true;
    pthread_mutex_unlock(&record->lock);
    wake(&record->role);
}

StageResult
record_await(Faultline *faultline, FaultlineOwner owner, GError **error)
{
    Record *record = &faultline->record;

    if (!record->write)
        return STAGE_AGAIN;
    pthread_mutex_lock(&record->lock);
    StageResult result = record->written & BIT(owner)  ? STAGE_AGAIN
                         : record->failed & BIT(owner) ? STAGE_FAILED
                                                       : STAGE_STAY;
    if (result == STAGE_FAILED && error)
        *error = g_error_copy(record->error);
    pthread_mutex_unlock(&record->lock);
    if (result == STAGE_FAILED)
        g_prefix_error(error, "record that the guest's owner is about to change: ");
    return result;
}

bool
record_write(Faultline *faultline, FaultlineOwner owner, FaultlineStatus status)
{
    Record *record = &faultline->record;

    if (!record->write)
        return true;
    pthread_mutex_lock(&record->write_lock);
    pthread_mutex_lock(&record->lock);
    record->owner = owner;
    record->is_ordered = false;
    pthread_mutex_unlock(&record->lock);
    bool written = write_locked(faultline, owner, status, false, NULL);
    pthread_mutex_unlock(&record->write_lock);
    return written;
}

bool
record_has_tried(Faultline *faultline, FaultlineOwner owner)
{
    Record *record = &faultline->record;

    pthread_mutex_lock(&record->lock);
    bool has_tried = (record->written | record->failed) & BIT(owner);
    has_tried |= record->is_ordered && record->owner == owner;
    pthread_mutex_unlock(&record->lock);
    return has_tried;
}

void
record_set_migration(Faultline *faultline, uint64_t migration)
{
    Record *record = &faultline->record;

    pthread_mutex_lock(&record->lock);
    record->migration = migration;
    pthread_mutex_unlock(&record->lock);
}

uint64_t
record_migration(Faultline *faultline)
{
    Record *record = &faultline->record;

    pthread_mutex_lock(&record->lock);
    uint64_t migration = record->migration;
    pthread_mutex_unlock(&record->lock);
    return migration;
}

void
record_stop(Faultline *faultline)
{
    Record *record = &faultline->record;

    pthread_mutex_lock(&record->lock);
    record->is_stopping = true;
    pthread_mutex_unlock(&record->lock);
    wake(&record->role);
}
