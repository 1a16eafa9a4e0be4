/* SPDX-License-Identifier: MIT */
/*
 * The listen role's step, and how a migration ends here, well or not: run, arrived, paused,
 * failing.
 */
#include "engine/destination/destination.h"
#include "engine/error.h"

#define BUSY_STEPS      16u         /* without a look at the clock */
#define DRAIN_BYTES_MAX (64u << 20) /* of what nobody reads */

GError *
destination_peer_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    GError *error = g_error_new_valist(FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, format, arguments);
    va_end(arguments);
    return error;
}

void
destination_notify(Destination *destination, const Role *role)
{
    (void)destination;
    if (role->ring)
        transport_ring_notify(role->ring);
}

/* ---- The end of precopy ---------------------------------------------------------------------- */

/* Posts SHUT, once the mailbox has room for it; true when it was sent, or cannot be. */
static bool
tell_end(Destination *destination, uint32_t value)
{
    if (!destination->has_return_path || destination_flag(&destination->fault_failed) ||
        !destination->link)
        return true;
    if (!destination->has_posted && destination_tell_verdict(destination))
        destination->has_posted = destination_post(destination, STREAM_RETURN_SHUT, value);
    return destination_flag(&destination->shut_sent);
}

StageResult
destination_stage_run(Destination *destination, GError **error)
{
    Faultline *faultline = destination->faultline;
    bool autostart = __atomic_load_n(&faultline->autostart, __ATOMIC_RELAXED);

    if (destination_count_missing(destination)) {
        g_propagate_error(error, destination_peer_error("load ram: EOF came, but %" G_GUINT64_FORMAT
                                                        " pages never did",
                                                        destination_count_missing(destination)));
        return STAGE_FAILED;
    }
    if (!destination_judge(destination, error))
        return STAGE_FAILED;
    destination_order_taking(destination);
    StageResult recorded = record_await(faultline, FAULTLINE_OWNER_TAKING, error);
    if (recorded != STAGE_AGAIN)
        return recorded;
    if (!context_settle_guest(faultline, autostart && destination->can_run, error)) {
        context_set_run_state(faultline, FAULTLINE_RUN_INMIGRATE);
        return STAGE_FAILED;
    }
    context_note(faultline, FAULTLINE_MOMENT_RUNNING);
    record_order(faultline, FAULTLINE_OWNER_HERE);
    destination->deadline_ns = clock_now_ns() + DESTINATION_LEAVE_NS;
    destination->stage = destination_stage_drain;
    return STAGE_AGAIN;
}

/* Throws away all that has come; OK while there may be more of it. */
static ReadResult
drain_some(Destination *destination)
{
    const uint8_t *bytes;
    ReadResult result = reader_peek(&destination->reader, 1, &bytes);

    if (result != READ_OK)
        return result;
    size_t length = reader_available(&destination->reader);
    destination->drained_bytes += length;
    reader_consume(&destination->reader, length);
    return destination->drained_bytes <= DRAIN_BYTES_MAX ? READ_OK : READ_BAD;
}

/* Skips the description, no more: a farewell may follow. */
static ReadResult
skip_some(Destination *destination)
{
    uint64_t *left = &destination->skip_bytes;
    g_autoptr(GError) ignored = NULL;
    StreamElement element;
    const uint8_t *bytes;
    ReadResult result = READ_OK;
    size_t head;

    if (!destination->has_skipped) {
        result = reader_decode(&destination->reader, destination_decode_element, &element, &head,
                               &ignored);
        if (result != READ_OK || element.type != STREAM_VMDESCRIPTION)
            return result == READ_OK ? READ_BAD : result;
        reader_consume(&destination->reader, head);
        *left = element.json_length;
        destination->has_skipped = true;
    } else if (*left) {
        result = reader_peek(&destination->reader, 1, &bytes);
        size_t length = result == READ_OK ? MIN(reader_available(&destination->reader), *left) : 0;
        reader_consume(&destination->reader, length);
        *left -= length;
    }
    return result == READ_OK && !*left ? READ_END : result;
}

/* What follows EOF is of no use here, but a source must be able to write it; and it must hear the
 * end even if it has closed its side already. */
StageResult
destination_stage_drain(Destination *destination, GError **error)
{
    bool says_farewell = destination->features & STREAM_FEATURE_FAREWELL;
    (void)error;

    bool is_told = tell_end(destination, 0);
    destination->listen.wake_ns = destination->deadline_ns;
    ReadResult result = (says_farewell ? skip_some : drain_some)(destination);
    if (result == READ_OK)
        return STAGE_AGAIN;
    bool can_wait = result == READ_WAIT || (result == READ_END && !is_told);
    if (can_wait && clock_now_ns() < destination->deadline_ns)
        return STAGE_STAY;
    destination->stage = destination_stage_leave;
    return STAGE_AGAIN;
}

/* ---- The end of postcopy --------------------------------------------------------------------- */

StageResult
destination_stage_arrived(Destination *destination, GError **error)
{
    if (destination_count_missing(destination)) {
        if (!destination->has_preempt) {
            g_propagate_error(error,
                              destination_peer_error("load ram: EOF came, but %" G_GUINT64_FORMAT
                                                     " pages never did",
                                                     destination_count_missing(destination)));
            return STAGE_FAILED;
        }
        return STAGE_STAY;
    }
    if (!destination_flag(&destination->has_run))
        return STAGE_STAY;
    if (!destination_judge(destination, error))
        return STAGE_FAILED;
    if (!destination->deadline_ns)
        destination->deadline_ns = clock_now_ns() + DESTINATION_LEAVE_NS;
    destination->listen.wake_ns = destination->deadline_ns;
    if (!tell_end(destination, 0) && clock_now_ns() < destination->deadline_ns)
        return STAGE_STAY;
    destination->stage = destination_stage_leave;
    return STAGE_AGAIN;
}

/* Everything is here. */
StageResult
destination_stage_leave(Destination *destination, GError **error)
{
    (void)error;
    if (!destination_flag(&destination->is_ending)) {
        destination_leave_unjudged(destination);
        destination_set_flag(&destination->is_ending);
        destination_notify(destination, &destination->package);
        destination_notify(destination, &destination->fault);
    }
    if (destination->in_postcopy && !destination_flag(&destination->is_unregistered))
        return STAGE_STAY;
    if (destination->in_postcopy && !destination_move(destination, POSTCOPY_END, "EOF", error))
        return STAGE_FAILED;
    return STAGE_DONE;
}

/* ---- When it does not go well ---------------------------------------------------------------- */

static void
close_links(Destination *destination)
{
    if (destination->link)
        transport_link_shutdown(destination->link);
    if (destination->urgent_link)
        transport_link_shutdown(destination->urgent_link);
}

void
destination_tell_failure(Destination *destination, const char *where_the_guest_is)
{
    GError *failure = g_steal_pointer(&destination->failure);
    error_translate(&failure);
    g_autofree char *text =
        g_strdup_printf("receive migration on %s: %s. %s", destination->heard_address,
                        failure->message, where_the_guest_is);
    context_keep_error(destination->faultline,
                       g_error_new_literal(FAULTLINE_ERROR, failure->code, text));
    g_error_free(failure);
}

/* The guest never ran here and never will: the source may have it back. */
StageResult
destination_stage_failing(Destination *destination, GError **error)
{
    ReadResult left = READ_LINK;
    (void)error;

    if (!destination->deadline_ns)
        destination->deadline_ns = clock_now_ns() + DESTINATION_LEAVE_NS;
    destination->listen.wake_ns = destination->deadline_ns;
    bool is_told = tell_end(destination, 1);
    bool can_hear = destination->has_return_path && destination->link &&
                    !destination_flag(&destination->fault_failed);
    /* A close with bytes unread is a reset, which can overtake what was said: read to the end. */
    while (is_told && can_hear && (left = drain_some(destination)) == READ_OK)
        ;
    /* A source that has come again is told where it came. */
    bool has_come = destination_has_main(destination);
    if (!has_come && (!is_told || left == READ_WAIT) && clock_now_ns() < destination->deadline_ns)
        return STAGE_STAY;
    close_links(destination);
    /* One that was about to stop its guest may have given it away. */
    if (has_come || destination->is_expecting)
        destination_begin_farewell(destination, 1);
    destination_tell_failure(destination, "The guest never ran here; look for it at the source");
    context_move(destination->faultline, FAULTLINE_STATUS_FAILED);
    destination->stage = NULL;
    return STAGE_DONE;
}

/* Chooses where a failure leads. */
static void
take_failure(Destination *destination, GError *failure)
{
    bool is_loaded_here = destination_flag(&destination->package_ready) &&
                          !destination_flag(&destination->package_failed);
    bool is_running = destination->stage == destination_stage_drain ||
                      destination->stage == destination_stage_leave;

    if (is_running) {
        /* The guest is whole and runs; the connection is of no more use. */
        g_clear_error(&failure);
        destination->stage = destination_stage_leave;
        return;
    }
    if (destination_flag(&destination->package_failed) && destination->package_error) {
        /* It came first; what follows a bad package is of no worth. */
        g_clear_error(&failure);
        failure = g_steal_pointer(&destination->package_error);
    }
    g_clear_error(&destination->failure);
    destination->failure = failure;
    destination->deadline_ns = 0;
    if (is_loaded_here) {
        destination_pause(destination);
        return;
    }
    destination_leave_run(destination);
    reader_clear(&destination->reader); /* it is out of step */
    destination->reader = (Reader){.receiver = destination->receiver};
    /* Before the source hears of it, and may run the guest. */
    record_write(destination->faultline, FAULTLINE_OWNER_REFUSED, FAULTLINE_STATUS_FAILED);
    destination->stage = destination_stage_failing;
}

/* Somebody wants the connection to be broken in postcopy. */
static bool
take_break(Destination *destination, GError **error)
{
    if (!__atomic_exchange_n(&destination->wants_break, false, __ATOMIC_ACQUIRE) ||
        !context_is_connected(destination->faultline) ||
        destination->stage == destination_stage_paused)
        return false;
    destination_set_flag(&destination->is_held);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                "migrate-pause broke the connection, as it was asked to");
    return true;
}

/* What the other roles met. */
static bool
take_role_errors(Destination *destination, GError **error)
{
    if (destination->stage == destination_stage_failing)
        return false;
    if (destination_flag(&destination->package_failed) && destination->package_error) {
        g_propagate_error(error, g_steal_pointer(&destination->package_error));
        return true;
    }
    bool is_complete =
        destination->stage == destination_stage_arrived && !destination_count_missing(destination);
    if (destination_flag(&destination->fault_failed) && destination->fault_error && !is_complete &&
        destination->stage != destination_stage_paused) {
        g_propagate_error(error, g_steal_pointer(&destination->fault_error));
        return true;
    }
    return false;
}

/* ---- The listen role ------------------------------------------------------------------------- */

static StepResult
end(Destination *destination)
{
    record_stop(destination->faultline);
    destination_set_flag(&destination->has_left);
    destination_notify(destination, &destination->package);
    destination_notify(destination, &destination->fault);
    return STEP_DONE;
}

StepResult
destination_listen_step(void *self)
{
    Destination *destination = self;
    GError *failure = NULL;

    if (destination_flag(&destination->is_stopping))
        return end(destination);
    if (destination->is_over)
        return destination_farewell_step(destination);
    StageResult result = STAGE_FAILED;
    if (!take_break(destination, &failure) && !take_role_errors(destination, &failure))
        result = destination->stage(destination, &failure);
    bool looks =
        result == STAGE_STAY || (result == STAGE_AGAIN && ++destination->count_busy >= BUSY_STEPS);
    if (looks && !destination_listen_to_main(destination, &failure))
        result = STAGE_FAILED;
    StageResult door = STAGE_STAY;
    if (looks && result != STAGE_FAILED)
        door = destination_step_door(destination, &failure);
    if (door != STAGE_STAY)
        result = door;
    destination_tell_whole(destination);
    progress_set(&destination->faultline->progress.remaining_bytes,
                 destination_count_missing(destination) * FAULTLINE_PAGE_BYTES);
    if (destination->receiver)
        progress_set(&destination->faultline->progress.received_main_bytes,
                     destination->earlier_bytes +
                         transport_receiver_count_bytes(destination->receiver));
    switch (result) {
    case STAGE_STAY:
        return STEP_WAIT;
    case STAGE_AGAIN:
        return STEP_AGAIN;
    case STAGE_DONE:
        if (destination->stage) {
            record_write(destination->faultline, FAULTLINE_OWNER_HERE, FAULTLINE_STATUS_COMPLETED);
            destination_begin_farewell(destination, 0);
            context_move(destination->faultline, FAULTLINE_STATUS_COMPLETED);
        }
        end(destination);
        return destination->is_over ? STEP_AGAIN : STEP_DONE;
    case STAGE_FAILED:
        break;
    }
    take_failure(destination, failure);
    return STEP_AGAIN;
}

void
destination_listen_close(void *self)
{
    Destination *destination = self;
    cpu_latency_release(destination->latency_hold);
    g_clear_pointer(&destination->receiver, transport_receiver_free);
    destination_close_door(destination);
    reader_clear(&destination->reader);
    destination_close_listeners(destination);
    g_clear_pointer(&destination->link, transport_link_unref);
    g_clear_pointer(&destination->urgent_link, transport_link_unref);
}
