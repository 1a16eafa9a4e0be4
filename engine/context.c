/* SPDX-License-Identifier: MIT */
/*
 * A Faultline's life: made, its guest started and stopped, its events and figures read. Control
 * thread, except the context_* functions, which the migration's roles call as context.h says.
 */
#include "engine/context.h"
#include "engine/dirty_rate.h"
#include "engine/error.h"
#include "engine/migration.h"
#include "engine/stream/stream.h"

#include <string.h>

#define EVENTS_MAX 1024u

/* Bytes of the struct as each version has it; 0: there is none such. */
static size_t
guest_bytes(uint32_t version)
{
    static const size_t bytes[FAULTLINE_GUEST_VERSION + 1] = {
        [1] = offsetof(FaultlineGuest, throttle),
        [2] = sizeof(FaultlineGuest),
    };
    return version <= FAULTLINE_GUEST_VERSION ? bytes[version] : 0;
}

static bool
check_guest(const FaultlineGuest *guest, GError **error)
{
    bool has_dirty_log = guest->dirty_log_start && guest->dirty_log_sync && guest->dirty_log_stop;
    bool has_no_dirty_log =
        !guest->dirty_log_start && !guest->dirty_log_sync && !guest->dirty_log_stop;
    const char *reason = NULL;

    if (!guest_bytes(guest->version))
        reason = "its version is not one that this library knows";
    else if (!guest->machine || !stream_name_is_good(guest->machine))
        reason = "the machine type must have 1 to 255 bytes of printable ASCII";
    else if (!guest->pause || !guest->resume || !guest->save_state || !guest->load_state)
        reason = "pause, resume, save_state and load_state are needed";
    else if (!has_dirty_log && !has_no_dirty_log)
        reason = "give all three dirty_log callbacks or none";
    if (reason)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "describe guest: %s; correct the VMM's FaultlineGuest", reason);
    return !reason;
}

Faultline *
faultline_new(const FaultlineGuest *guest, void *opaque, const FaultlineBlock *blocks,
              unsigned count_blocks, GError **error)
{
    RamBlocks table;
    if (!check_guest(guest, error) || !ram_blocks_init(&table, blocks, count_blocks, error))
        return NULL;
    int event_fd = wakeup_open(error);
    if (event_fd < 0) {
        ram_blocks_clear(&table);
        return NULL;
    }
    Faultline *faultline = g_new0(Faultline, 1);
    memcpy(&faultline->guest, guest, guest_bytes(guest->version));
    faultline->machine = g_strdup(guest->machine);
    faultline->guest.machine = faultline->machine;
    faultline->opaque = opaque;
    faultline->blocks = table;
    faultline->event_fd = event_fd;
    faultline->autostart = true;
    pthread_mutex_init(&faultline->guest_lock, NULL);
    pthread_mutex_init(&faultline->lock, NULL);
    pthread_cond_init(&faultline->changed, NULL);
    record_init(&faultline->record);
    g_queue_init(&faultline->events);
    options_init(&faultline->options);
    return faultline;
}

void
faultline_free(Faultline *faultline)
{
    if (!faultline)
        return;
    migration_end(faultline);
    dirty_rate_give_up(faultline);
    ram_blocks_clear(&faultline->blocks);
    record_clear(&faultline->record);
    g_queue_clear_full(&faultline->events, g_free);
    g_clear_error(&faultline->error);
    g_free(faultline->refusal);
    options_clear(&faultline->options);
    security_clear(&faultline->security);
    wakeup_close(faultline->event_fd);
    pthread_mutex_destroy(&faultline->guest_lock);
    pthread_mutex_destroy(&faultline->lock);
    pthread_cond_destroy(&faultline->changed);
    g_free(faultline->machine);
    g_free(faultline);
}

/* ---- Events and errors ----------------------------------------------------------------------- */

void
context_event_locked(Faultline *faultline, FaultlineEvent event)
{
    event.time_us = clock_wall_us();
    if (g_queue_get_length(&faultline->events) < EVENTS_MAX)
        g_queue_push_tail(&faultline->events, g_memdup2(&event, sizeof event));
    wakeup_signal(faultline->event_fd);
}

void
context_event(Faultline *faultline, FaultlineEvent event)
{
    pthread_mutex_lock(&faultline->lock);
    context_event_locked(faultline, event);
    pthread_mutex_unlock(&faultline->lock);
}

int
faultline_event_fd(const Faultline *faultline)
{
    return faultline->event_fd;
}

bool
faultline_next_event(Faultline *faultline, FaultlineEvent *ret_event)
{
    pthread_mutex_lock(&faultline->lock);
    g_autofree FaultlineEvent *event = g_queue_pop_head(&faultline->events);
    if (!event)
        wakeup_clear(faultline->event_fd);
    pthread_mutex_unlock(&faultline->lock);
    if (event)
        *ret_event = *event;
    return event != NULL;
}

void
context_keep_error(Faultline *faultline, GError *error)
{
    error_translate(&error);
    pthread_mutex_lock(&faultline->lock);
    if (!faultline->error)
        faultline->error = g_steal_pointer(&error);
    pthread_mutex_unlock(&faultline->lock);
    g_clear_error(&error);
}

void
context_amend_error(Faultline *faultline, const char *sentence)
{
    pthread_mutex_lock(&faultline->lock);
    if (faultline->error) {
        GError *amended = g_error_new(faultline->error->domain, faultline->error->code, "%s. %s",
                                      faultline->error->message, sentence);
        g_error_free(faultline->error);
        faultline->error = amended;
    }
    pthread_mutex_unlock(&faultline->lock);
}

void
context_forget_error(Faultline *faultline)
{
    pthread_mutex_lock(&faultline->lock);
    g_clear_error(&faultline->error);
    pthread_mutex_unlock(&faultline->lock);
}

void
context_note_refusal(Faultline *faultline, char *text, unsigned count)
{
    pthread_mutex_lock(&faultline->lock);
    g_free(faultline->refusal);
    faultline->refusal = text;
    faultline->refused_connections += count;
    context_event_locked(faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_REFUSED});
    pthread_mutex_unlock(&faultline->lock);
}

/* ---- The guest's run state ------------------------------------------------------------------- */

void
context_set_run_state(Faultline *faultline, FaultlineRunState state)
{
    __atomic_store_n(&faultline->run_state, state, __ATOMIC_RELEASE);
}

FaultlineRunState
faultline_run_state(const Faultline *faultline)
{
    return __atomic_load_n(&faultline->run_state, __ATOMIC_ACQUIRE);
}

/* Called with guest_lock. */
static bool
pause_locked(Faultline *faultline, FaultlineRunState then, GError **error)
{
    if (!faultline->guest.pause(faultline->opaque, error)) {
        g_prefix_error(error, "pause guest: ");
        return error_translate(error);
    }
    context_set_run_state(faultline, then);
    context_event(faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_STOP});
    return true;
}

/* Called with guest_lock. */
static bool
resume_locked(Faultline *faultline, GError **error)
{
    /* First the state, so that nobody sees a running guest that is said to stand. */
    FaultlineRunState before = faultline_run_state(faultline);
    context_set_run_state(faultline, FAULTLINE_RUN_RUNNING);
    if (!faultline->guest.resume(faultline->opaque, error)) {
        context_set_run_state(faultline, before);
        g_prefix_error(error, "resume guest: ");
        return error_translate(error);
    }
    context_event(faultline, (FaultlineEvent){.kind = FAULTLINE_EVENT_RESUME});
    return true;
}

bool
context_take_guest(Faultline *faultline, bool *ret_was_running, GError **error)
{
    pthread_mutex_lock(&faultline->guest_lock);
    *ret_was_running = faultline_run_state(faultline) == FAULTLINE_RUN_RUNNING;
    bool taken = true;
    if (*ret_was_running)
        taken = pause_locked(faultline, FAULTLINE_RUN_FINISH_MIGRATE, error);
    else
        context_set_run_state(faultline, FAULTLINE_RUN_FINISH_MIGRATE);
    pthread_mutex_unlock(&faultline->guest_lock);
    return taken;
}

bool
context_settle_guest(Faultline *faultline, bool run, GError **error)
{
    pthread_mutex_lock(&faultline->guest_lock);
    context_set_run_state(faultline, FAULTLINE_RUN_PAUSED);
    bool settled = !run || resume_locked(faultline, error);
    pthread_mutex_unlock(&faultline->guest_lock);
    return settled;
}

void
context_throttle_guest(Faultline *faultline, unsigned percent)
{
    pthread_mutex_lock(&faultline->guest_lock); /* not in the midst of a pause or resume */
    faultline->guest.throttle(faultline->opaque, percent);
    progress_set(&faultline->progress.throttle_percent, percent);
    pthread_mutex_unlock(&faultline->guest_lock);
}

static bool
refuse_run(const char *verb, FaultlineRunState state, const char *why, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, "%s: the guest is in state '%s': %s",
                verb, faultline_run_state_name(state), why);
    return false;
}

bool
faultline_cont(Faultline *faultline, GError **error)
{
    bool done = false;

    pthread_mutex_lock(&faultline->guest_lock);
    FaultlineRunState state = faultline_run_state(faultline);
    switch (state) {
    case FAULTLINE_RUN_RUNNING:
        done = true;
        break;
    case FAULTLINE_RUN_PRELAUNCH:
    case FAULTLINE_RUN_PAUSED:
        done = resume_locked(faultline, error);
        break;
    case FAULTLINE_RUN_INMIGRATE:
        refuse_run("cont", state, "it is not here yet; wait until it has arrived", error);
        break;
    case FAULTLINE_RUN_FINISH_MIGRATE:
        refuse_run("cont", state, "it is being handed over; wait for the outcome", error);
        break;
    default:
        refuse_run("cont", state,
                   "the destination may run it; a second owner would destroy its data. Quit this "
                   "process once the destination has completed",
                   error);
    }
    pthread_mutex_unlock(&faultline->guest_lock);
    return done;
}

bool
faultline_stop(Faultline *faultline, GError **error)
{
    bool done;

    pthread_mutex_lock(&faultline->guest_lock);
    FaultlineRunState state = faultline_run_state(faultline);
    if (state == FAULTLINE_RUN_RUNNING)
        done = pause_locked(faultline, FAULTLINE_RUN_PAUSED, error);
    else if (state == FAULTLINE_RUN_PRELAUNCH || state == FAULTLINE_RUN_PAUSED)
        done = true;
    else
        done = refuse_run("stop", state, "the migration has its hands on it; wait for the outcome",
                          error);
    pthread_mutex_unlock(&faultline->guest_lock);
    return done;
}

void
faultline_set_autostart(Faultline *faultline, bool autostart)
{
    __atomic_store_n(&faultline->autostart, autostart, __ATOMIC_RELAXED);
}

pid_t
faultline_vcpu_thread(const Faultline *faultline, unsigned index)
{
    if (!faultline->guest.vcpu_thread || index >= FAULTLINE_VCPUS_MAX)
        return 0;
    return faultline->guest.vcpu_thread(faultline->opaque, index);
}

const FaultlineBlock *
faultline_block(const Faultline *faultline, unsigned index)
{
    return index < faultline->blocks.count ? &faultline->blocks.blocks[index].is : NULL;
}

void
faultline_set_insecure(Faultline *faultline, bool insecure)
{
    __atomic_store_n(&faultline->insecure, insecure, __ATOMIC_RELAXED);
}
