/* SPDX-License-Identifier: MIT */
/*
 * The source as a whole: made and freed by the control thread; the migration role's step, which
 * runs one stage after the other and decides, when a stage fails, on which side the guest is.
 */
#include "engine/source/source.h"

#include <string.h>

#define HEAR_NS       2000000000ull /* how long a destination may take for its last word */
#define HEAR_LEAST_NS 10000000u     /* the same, where it can be asked again */

static uint64_t
largest_block_words(const RamBlocks *blocks)
{
    uint64_t pages = 0;
    for (unsigned i = 0; i < blocks->count; i++)
        pages = MAX(pages, blocks->blocks[i].count_pages);
    return (pages + 63) / 64;
}

Source *
source_new(Faultline *faultline, const char *uri, GError **error)
{
    const Options *options = &faultline->options;
    Source *source = g_new0(Source, 1);
    source->faultline = faultline;
    source->blocks = &faultline->blocks;
    source->uri = g_strdup(uri);
    source->can_postcopy = options_has(options, CAPABILITY_POSTCOPY_RAM);
    source->has_preempt = options_has(options, CAPABILITY_POSTCOPY_PREEMPT);
    source->agreement = options_agreement(options);
    source->has_return_path = source->can_postcopy || options_has(options, CAPABILITY_RETURN_PATH);
    source->retries = options_has(options, CAPABILITY_AUTO_RECOVER) &&
                      !options_has(options, CAPABILITY_RELEASE_RAM);
    if (source->has_return_path)
        source->heartbeat_ms = options_get(options, PARAMETER_HEARTBEAT_TIMEOUT);
    source->releases_ram = options_has(options, CAPABILITY_RELEASE_RAM);
    source->slows_vcpus = options_has(options, CAPABILITY_AUTO_CONVERGE);
    source->offers = options_features(options);
    source->latency_hold = -1;
    source->stage = source_stage_connect;
    source->migration = (Role){.name = "migration",
                               .step = source_migration_step,
                               .close = source_migration_close,
                               .self = source};
    source->request = (Role){.name = "request",
                             .step = source_request_step,
                             .close = source_request_close,
                             .self = source};
    frame_queue_init(&source->main);
    frame_queue_init(&source->urgent);
    locality_init(&source->locality);
    source->urgent.walk = faultline->walks[FAULTLINE_WALK_REQUEST];
    source->urgent.walk_step = WALK_REPLY_SEND;
    source->sync_words = g_new(uint64_t, largest_block_words(source->blocks));
    /* Its first touch may be in the downtime. */
    memset(source->sync_words, 0xff, largest_block_words(source->blocks) * sizeof(uint64_t));
    for (unsigned i = 0; i < source->blocks->count; i++) {
        RamBlock *block = &source->blocks->blocks[i];
        block->dirty = page_bitmap_new(block->count_pages);
    }
    if (source->offers & STREAM_FEATURE_CHECKSUMS)
        ram_blocks_open_checksums(source->blocks);
    bool is_good = !source->releases_ram || ram_blocks_open_memory(source->blocks, error);
    if (is_good && !faultline->guest.dirty_log_start) {
        source->tracker = uffd_tracker_new(error);
        is_good = source->tracker != NULL;
    }
    if (!is_good)
        g_clear_pointer(&source, source_free);
    return source;
}

void
source_free(Source *source)
{
    g_clear_pointer(&source->tracker, uffd_tracker_free);
    ram_blocks_close_memory(source->blocks);
    for (unsigned i = 0; i < source->blocks->count; i++)
        g_clear_pointer(&source->blocks->blocks[i].dirty, page_bitmap_free);
    ram_blocks_close_checksums(source->blocks);
    source_drop_request_links(source);
    frame_queue_clear(&source->main);
    frame_queue_clear(&source->urgent);
    g_clear_pointer(&source->package, g_byte_array_unref);
    if (source->description)
        g_string_free(source->description, TRUE);
    g_clear_error(&source->request_error);
    g_clear_error(&source->failure);
    g_free(source->sync_words);
    g_free(source->wanted_uri);
    g_free(source->uri);
    g_free(source);
}

void
source_stop(Source *source)
{
    source_set_flag(&source->is_stopping);
    source_notify(source);
    if (source->request.ring)
        transport_ring_notify(source->request.ring);
}

/* Whether the fate is `fate` now. */
static bool
decide(Source *source, unsigned fate)
{
    unsigned found = FATE_OPEN;
    return __atomic_compare_exchange_n(&source->fate, &found, fate, false, __ATOMIC_ACQ_REL,
                                       __ATOMIC_ACQUIRE) ||
           found == fate;
}

bool
source_cancel(Source *source)
{
    bool is_cancelled = decide(source, FATE_CANCELLED);
    source_notify(source);
    return is_cancelled;
}

bool
source_give_away(Source *source)
{
    source->gave_away = decide(source, FATE_GIVEN);
    return source->gave_away;
}

void
source_notify(Source *source)
{
    if (source->migration.ring)
        transport_ring_notify(source->migration.ring);
}

/* ---- How it ends ----------------------------------------------------------------------------- */

/* Whether the destination said that it never ran the guest, which is still whole here. Any peer
 * says so that ends in postcopy-device with an error: the PONG that its device state is loaded
 * comes before it runs, and so would have been here before the SHUT. Later the same word means that
 * only from a faultline. */
static bool
is_sent_back(const Source *source)
{
    if (!source_flag(&source->has_shut) || source->shut_value == 0)
        return false;
    bool has_loaded = source_flag(&source->has_loaded);
    if (source->is_postcopy && !has_loaded)
        return true;
    return (source->features & STREAM_FEATURE_COMMIT) && !(source->releases_ram && has_loaded);
}

/* Whether the destination can own the guest: the bytes that give it away were all accepted, and it
 * did not say that it never ran. */
static bool
is_given_away(const Source *source)
{
    return source->gave_away && !is_sent_back(source) &&
           (source->is_handed_over ||
            transport_sender_accepted_bytes(source->main.sender) >= source->give_bytes);
}

/* What the destination has said of itself, told as a status: the guest is no longer ours. */
static void
follow_destination(Source *source)
{
    FaultlineStatus status = context_status(source->faultline);
    bool in_device = status == FAULTLINE_STATUS_POSTCOPY_DEVICE;

    if (!source_flag(&source->has_loaded) || source->has_recorded_there ||
        (!in_device && status != FAULTLINE_STATUS_POSTCOPY_ACTIVE))
        return;
    source->has_recorded_there = true;
    record_order(source->faultline, FAULTLINE_OWNER_THERE);
    if (in_device)
        context_move(source->faultline, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
}

/* Puts on record that the guest is ours after all, before it runs, if the record says that it was
 * given away. An old record that leaves open where it is, is no lie; one that says that it is at
 * the destination would be: false, and the guest stays paused. */
static bool
claim_guest(Source *source, FaultlineStatus status)
{
    if (!source->has_recorded_given ||
        record_write(source->faultline, FAULTLINE_OWNER_HERE, status) ||
        !record_has_tried(source->faultline, FAULTLINE_OWNER_THERE))
        return true;
    source->was_running = false;
    return false;
}

/* The guest is ours, and goes on as it was before. */
static void
keep_guest(Source *source)
{
    g_autoptr(GError) failed = NULL;

    source_stop_log(source);
    if (!source->has_guest)
        return;
    source->has_guest = false;
    if (!context_settle_guest(source->faultline, source->was_running, &failed)) {
        g_prefix_error(&failed, "after the failed migration the guest stands paused here, whole; "
                                "try 'cont': ");
        context_keep_error(source->faultline, g_steal_pointer(&failed));
    }
}

static void
close_links(Source *source)
{
    if (source->link)
        transport_link_shutdown(source->link);
    if (source->urgent_link)
        transport_link_shutdown(source->urgent_link);
}

static StageResult
fail_kept(Source *source, GError *failure)
{
    Faultline *faultline = source->faultline;

    bool is_claimed = claim_guest(source, FAULTLINE_STATUS_FAILED);
    bool runs = source->has_guest ? source->was_running
                                  : faultline_run_state(faultline) == FAULTLINE_RUN_RUNNING;

    g_prefix_error(&failure, "migrate to %s: ", source->uri);
    g_autofree char *text =
        g_strdup_printf("%s. The guest %s at the source, whole%s", failure->message,
                        runs ? "goes on" : "stays paused",
                        is_claimed ? ""
                                   : "; its record still says that it is at the destination: "
                                     "mend the record's place, then 'cont'");
    context_keep_error(faultline, g_error_new_literal(failure->domain, failure->code, text));
    g_clear_error(&failure);
    keep_guest(source);
    record_write(faultline, FAULTLINE_OWNER_HERE, FAULTLINE_STATUS_FAILED);
    context_move(faultline, FAULTLINE_STATUS_FAILED);
    source->stage = NULL;
    return STAGE_DONE;
}

/* Where the guest is that was given away to a destination which was then lost. */
static const char *
place_given_away(const Source *source, bool is_paused)
{
    if (!source->is_postcopy)
        return is_paused ? "The destination had everything and may run the guest, so it stays "
                           "stopped here until the destination has said so; keep both processes"
                         : "The destination had everything and may run the guest, so it stays "
                           "stopped here; look at the destination before you do anything with it";
    if (!source_flag(&source->has_loaded))
        return "The destination was sent all that it needs to run the guest, but has not said that "
               "it loaded it; the guest stays stopped here, and its pages are kept. Look at the "
               "destination, and keep both processes";
    return "The guest runs at the destination and waits for pages that are kept here; keep both "
           "processes";
}

/* In postcopy it can go on; of precopy the destination can still be asked how it ended, if it stays
 * to tell that. */
static StageResult
fail_given_away(Source *source, GError *failure)
{
    Faultline *faultline = source->faultline;
    bool can_pause = source->is_postcopy || source_can_ask(source);

    source_stop_log(source);
    g_prefix_error(&failure, "migrate to %s: ", source->uri);
    g_autofree char *text =
        g_strdup_printf("%s. %s", failure->message, place_given_away(source, can_pause));
    context_keep_error(faultline, g_error_new_literal(failure->domain, failure->code, text));
    g_clear_error(&failure);
    context_set_run_state(faultline, FAULTLINE_RUN_POSTMIGRATE);
    source->is_handed_over = true;
    source->stage = NULL;
    source_record_given(source);
    if (!can_pause) {
        record_write(faultline, FAULTLINE_OWNER_GIVEN, FAULTLINE_STATUS_FAILED);
        context_move(faultline, FAULTLINE_STATUS_FAILED);
        return STAGE_DONE;
    }
    if (context_status(faultline) == FAULTLINE_STATUS_DEVICE)
        context_move(faultline, FAULTLINE_STATUS_POSTCOPY_DEVICE);
    source_pause(source);
    return STAGE_AGAIN;
}

static void
cancel(Source *source)
{
    context_move(source->faultline, FAULTLINE_STATUS_CANCELLING);
    close_links(source);
    keep_guest(source);
    record_write(source->faultline, FAULTLINE_OWNER_HERE, FAULTLINE_STATUS_CANCELLED);
    context_move(source->faultline, FAULTLINE_STATUS_CANCELLED);
}

static GError *
early_end(const Source *source)
{
    return g_error_new(FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                       "the destination ended the migration early, with error %u; its log says why",
                       source->shut_value);
}

/* A destination that failed, or does not want this source, says so and closes; whichever of the two
 * is met first, its word is the better reason. */
static void
prefer_word(Source *source)
{
    bool has_word = source_flag(&source->request_failed) && source->request_error &&
                    !g_error_matches(source->request_error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK);

    if (!g_error_matches(source->failure, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK))
        return;
    if (source_flag(&source->has_shut) && source->shut_value) {
        g_clear_error(&source->failure);
        source->failure = early_end(source);
    } else if (has_word) {
        g_clear_error(&source->failure);
        source->failure = g_steal_pointer(&source->request_error);
    }
}

/* The links are shut; how many bytes the peer can have is known once nothing is in flight. */
static StageResult
stage_failing(Source *source, GError **error)
{
    (void)error;
    if (source->main.sender && transport_sender_state(source->main.sender) == TRANSPORT_WAIT)
        return STAGE_STAY;
    /* What the destination said last may still be in the return path. */
    bool can_hear = source->has_return_path && source->link;
    if (can_hear && !source_flag(&source->has_shut) && !source_flag(&source->request_ended))
        return STAGE_STAY;
    prefer_word(source);
    GError *failure = g_steal_pointer(&source->failure);
    return (is_given_away(source) ? fail_given_away : fail_kept)(source, failure);
}

/* What the destination said last may still be on its way, for instance that the guest never ran
 * there: links that may have given the guest away stay open until it has spoken, or is gone. */
static StageResult
stage_hearing(Source *source, GError **error)
{
    (void)error;
    bool may_speak = source->gave_away && source->has_return_path && source->link &&
                     !source_flag(&source->has_shut) && !source_flag(&source->request_ended);
    if (may_speak && clock_now_ns() < source->hear_until_ns) {
        source->migration.wake_ns = source->hear_until_ns;
        return STAGE_STAY;
    }
    close_links(source);
    source->stage = stage_failing;
    return STAGE_AGAIN;
}

/* Somebody wants the connection to be broken in postcopy. */
static bool
take_break(Source *source, GError **error)
{
    if (!__atomic_exchange_n(&source->wants_break, false, __ATOMIC_ACQUIRE) || source->failure ||
        !context_is_connected(source->faultline))
        return false;
    close_links(source);
    source->retry.is_held = true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                "migrate-pause broke the connection, as it was asked to");
    return true;
}

/* An error that the request role met, or a SHUT that comes before its time. */
static bool
take_request_error(Source *source, GError **error)
{
    if (source->failure || source_flag(&source->drops_links) ||
        (source->stage == source_stage_confirm && source_flag(&source->has_shut)))
        return false;
    if (source_flag(&source->has_shut)) {
        g_propagate_error(error, early_end(source));
        return true;
    }
    if (!source_flag(&source->request_failed))
        return false;
    /* All was sent: who has all may have closed it, and a page that is lost the destination misses
     * too. It will say which, or be gone. */
    if (source->stage == source_stage_confirm && source_flag(&source->has_lost_urgent) &&
        !source_flag(&source->request_ended))
        return false;
    g_propagate_error(error, g_steal_pointer(&source->request_error));
    return true;
}

static StepResult
end(Source *source)
{
    source_stop(source);
    record_stop(source->faultline);
    return STEP_DONE;
}

/* Slow vCPUs help passes, and nothing else: whatever comes after the last one, the switch-over or
 * an end of whatever kind, begins with the guest at full speed. The only place that takes it back.
 */
static void
release_vcpus(Source *source, bool is_cancelled)
{
    bool is_passing = source->stage == source_stage_pass || source->stage == source_stage_hello;
    bool goes_on = !is_cancelled && !source_flag(&source->is_stopping);

    if (source->throttle.percent == 0 || (is_passing && goes_on))
        return;
    source->throttle = (Throttle){0};
    context_throttle_guest(source->faultline, 0);
}

static StepResult
call(Source *source)
{
    StageResult result = source->stage(source, NULL);
    return result == STAGE_STAY ? STEP_WAIT : result == STAGE_AGAIN ? STEP_AGAIN : end(source);
}

static StageResult
go_on(Source *source, GError **error)
{
    if (take_break(source, error) || take_request_error(source, error))
        return STAGE_FAILED;
    StageResult result = source->stage(source, error);
    if (result == STAGE_STAY)
        source->seen_ns = clock_now_ns();
    bool beats = result == STAGE_STAY || result == STAGE_AGAIN;
    bool is_lost = beats && source_send_beat(source, source->seen_ns, error) == STAGE_FAILED;
    return is_lost ? STAGE_FAILED : result;
}

StepResult
source_migration_step(void *self)
{
    Source *source = self;
    GError *failure = NULL;
    bool is_cancelled = __atomic_load_n(&source->fate, __ATOMIC_ACQUIRE) == FATE_CANCELLED;

    if (source->is_over)
        return source_flag(&source->is_stopping) ? end(source) : call(source);
    release_vcpus(source, is_cancelled);
    follow_destination(source);
    if (source_flag(&source->is_stopping)) {
        /* faultline_free() in the middle: the guest and its log as if it had been cancelled. */
        if (!source->gave_away)
            cancel(source);
        return end(source);
    }
    if (is_cancelled && !source->failure) {
        cancel(source);
        return source_begin_call(source) ? STEP_AGAIN : end(source);
    }
    if (source_is_told_end(source))
        source->stage = source_stage_farewell;
    StageResult result = source->stage == source_stage_farewell ? source->stage(source, NULL)
                                                                : go_on(source, &failure);
    switch (result) {
    case STAGE_STAY:
        return STEP_WAIT;
    case STAGE_AGAIN:
        return STEP_AGAIN;
    case STAGE_DONE:
        if (!source->stage)
            return source_begin_call(source) ? STEP_AGAIN : end(source);
        source_complete(source);
        return end(source);
    case STAGE_FAILED:
        break;
    }
    source->failure = failure;
    source->stage = stage_hearing;
    bool can_ask = source_can_ask(source) && !source_flag(&source->has_shut);
    source->hear_until_ns = clock_now_ns() + (can_ask ? HEAR_LEAST_NS : HEAR_NS);
    return STEP_AGAIN;
}

void
source_migration_close(void *self)
{
    Source *source = self;
    source_stop_log(source); /* if it was stopped in the midst */
    cpu_latency_release(source->latency_hold);
    source_drop_connectors(source);
    g_clear_pointer(&source->main.sender, transport_sender_free);
    g_clear_pointer(&source->link, transport_link_unref);
    g_clear_pointer(&source->urgent_link, transport_link_unref);
}
