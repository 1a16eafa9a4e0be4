/* SPDX-License-Identifier: MIT */
/*
 * Commands of the source outside a package, and the table of postcopy states. Listen role.
 */
#include "engine/destination/destination.h"

#define HEADS_BYTES (1u << 20) /* of a package: heads and commands beside the device state */

static const char *const postcopy_names[] = {
#define POSTCOPY_NAME(name) #name,
    POSTCOPY_LIST(POSTCOPY_NAME)
#undef POSTCOPY_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(postcopy_names) == POSTCOPY_COUNT);

/* From which states each one may be entered. */
#define FROM(name) (1u << POSTCOPY_##name)
static const unsigned postcopy_from[POSTCOPY_COUNT] = {
    [POSTCOPY_ADVISE] = FROM(NONE),
    [POSTCOPY_DISCARD] = FROM(ADVISE) | FROM(DISCARD),
    [POSTCOPY_LISTENING] = FROM(ADVISE) | FROM(DISCARD),
    [POSTCOPY_RUNNING] = FROM(LISTENING),
    [POSTCOPY_END] = FROM(RUNNING),
};

PostcopyState
destination_postcopy(const Destination *destination)
{
    return __atomic_load_n(&destination->postcopy, __ATOMIC_ACQUIRE);
}

bool
destination_move(Destination *destination, PostcopyState to, const char *command, GError **error)
{
    PostcopyState from = destination_postcopy(destination);
    if (!(postcopy_from[to] & (1u << from))) {
        g_propagate_error(
            error, destination_peer_error("obey command: CMD_%s in wrong postcopy state (%u, %s)",
                                          command, from, postcopy_names[from]));
        return false;
    }
    __atomic_store_n(&destination->postcopy, to, __ATOMIC_RELEASE);
    return true;
}

/* ---- ADVISE ------------------------------------------------------------------------- */

static bool
advise(Destination *destination, const StreamElement *element, GError **error)
{
    StreamAdvise received;
    const char *problem = NULL;

    if (!destination_move(destination, POSTCOPY_ADVISE, "POSTCOPY_ADVISE", error) ||
        !stream_parse_advise(element, &received, error))
        return false;
    destination->has_page_sizes = !received.is_short;
    if (destination->has_told &&
        !options_check_agreement(destination->told,
                                 options_agreement(&destination->faultline->options), error))
        return false;
    if (received.is_short && destination->can_postcopy)
        problem = "RAM postcopy is enabled here but not at the source";
    else if (!received.is_short && !destination->can_postcopy)
        problem = "RAM postcopy is enabled at the source but not here";
    if (problem) {
        g_propagate_error(error,
                          destination_peer_error("advise postcopy: %s; set capability postcopy-ram "
                                                 "to the same on both sides",
                                                 problem));
        return false;
    }
    if (!received.is_short && received.page_sizes != destination->blocks->page_sizes) {
        g_propagate_error(
            error, destination_peer_error("advise postcopy: it needs matching RAM page sizes "
                                          "(s=%" G_GINT64_MODIFIER "x d=%" G_GINT64_MODIFIER
                                          "x); back both sides with the same kind of memory",
                                          received.page_sizes, destination->blocks->page_sizes));
        return false;
    }
    return true;
}

/* ---- The others ------------------------------------------------------------------------------ */

void
destination_order_taking(Destination *destination)
{
    if (!destination->has_ordered)
        record_order(destination->faultline, FAULTLINE_OWNER_TAKING);
    destination->has_ordered = true;
}

/* What a source needs to come again, before it learns that it may have to. */
static bool
post_token(Destination *destination)
{
    if (!destination_post(destination, STREAM_RETURN_TOKEN, 0))
        return false;
    for (unsigned i = 0; destination->calls_back && i < destination->count_addresses; i++) {
        const char *uri = destination->addresses[i];
        if (stream_name_is_good(uri) && !g_str_has_prefix(uri, "fd:") &&
            !destination_post(destination, STREAM_RETURN_ADDRESS, i))
            return false;
    }
    return true;
}

bool
destination_answer_ping(Destination *destination, uint32_t value)
{
    if ((value & STREAM_HELLO_MASK) == STREAM_HELLO) {
        value &= options_features(&destination->faultline->options);
        if (!destination->offers_token)
            value &= ~(STREAM_FEATURE_TOKEN | STREAM_FEATURE_FAREWELL);
        if ((value & STREAM_FEATURE_TOKEN) && !post_token(destination))
            return false;
        destination->features = value;
        destination->has_hello = true;
        if (value & STREAM_FEATURE_RUNS) {
            destination_set_flag(&destination->main.takes_runs);
            destination_set_flag(&destination->urgent.takes_runs);
        }
        if (value & STREAM_FEATURE_CHECKSUMS)
            destination_begin_checks(destination);
        value |= STREAM_HELLO_ANSWER;
    } else if ((value & STREAM_HELLO_MASK) == STREAM_PING_BEAT &&
               (destination->features & STREAM_FEATURE_HEARTBEAT)) {
        uint32_t none = 0;
        __atomic_compare_exchange_n(&destination->heartbeat_ms, &none, value & ~STREAM_HELLO_MASK,
                                    false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
        if (!none)
            destination_notify(destination, &destination->fault);
        return true;
    } else if ((value & STREAM_HELLO_MASK) == STREAM_PING_AGREE) {
        destination->told = value & STREAM_AGREE_BITS;
        destination->has_told = true;
        value = STREAM_AGREE_ANSWER | options_agreement(&destination->faultline->options);
    }
    if (value == STREAM_PING_LOADED)
        destination_set_flag(&destination->has_told_loaded);
    if (value == STREAM_PING_SETTLED || value == STREAM_PING_COMMIT)
        destination->is_expecting = true;
    if (!destination_post(destination, STREAM_RETURN_PONG, value))
        return false;
    /* The source's number comes in four parts; of one that says more the last four hold. */
    if ((value & STREAM_HELLO_MASK) == STREAM_PING_MIGRATION)
        record_set_migration(destination->faultline,
                             record_migration(destination->faultline) << 16 | (uint16_t)value);
    return true;
}

static bool
begin_package(Destination *destination, const StreamElement *element, GError **error)
{
    uint32_t length = stream_parse_be32(element);
    uint64_t limit = destination_state_limit(destination) + HEADS_BYTES;
    const char *problem = NULL;

    if (!destination->can_postcopy || !destination->has_page_sizes)
        problem = "postcopy was not advised";
    else if (destination->in_postcopy)
        problem = "there was one before";
    else if (!destination->has_return_path)
        problem = "there is no return path to request pages on";
    else if (!length || length > limit)
        problem = "its length is 0 or more device state than this guest can have";
    if (problem) {
        g_propagate_error(error,
                          destination_peer_error("load package of %u bytes: %s", length, problem));
        return false;
    }
    context_note(destination->faultline, FAULTLINE_MOMENT_TOLD);
    destination->blob = g_byte_array_new();
    destination->blob_length = length;
    return true;
}

static bool
refuse(const StreamElement *element, const char *why, GError **error)
{
    g_propagate_error(error, destination_peer_error("obey command: %s %s",
                                                    stream_command_name(element->command), why));
    return false;
}

static bool
check_beat(const Destination *destination, const StreamElement *element, uint32_t timeout_ms,
           GError **error)
{
    uint32_t first_ms = __atomic_load_n(&destination->heartbeat_ms, __ATOMIC_ACQUIRE);

    if (destination->has_ram || !first_ms || timeout_ms == first_ms)
        return true;
    return refuse(element, "told its heartbeat-timeout in two ways: it was damaged on its way",
                  error);
}

static bool
check_ping(Destination *destination, const StreamElement *element, GError **error)
{
    uint32_t value = stream_parse_be32(element);

    if (!destination->has_return_path)
        return refuse(element, "received with no return path", error);
    if ((value & STREAM_HELLO_MASK) == STREAM_PING_BEAT)
        return check_beat(destination, element, value & ~STREAM_HELLO_MASK, error);
    if ((value & STREAM_HELLO_MASK) != STREAM_HELLO)
        return true;
    if (destination->hello && value != destination->hello)
        return refuse(element, "said hello in two ways: it was damaged on its way", error);
    destination->hello = value;
    return true;
}

static bool
obey(Destination *destination, const StreamElement *element, GError **error)
{
    if (destination->in_postcopy && !destination->in_recovery &&
        element->command != STREAM_COMMAND_PING && element->command != STREAM_COMMAND_DIGEST)
        return refuse(element, "came after the guest was handed over", error);
    switch (element->command) {
    case STREAM_COMMAND_OPEN_RETURN_PATH:
        destination->has_return_path = true;
        return true;
    case STREAM_COMMAND_PING:
        return check_ping(destination, element, error);
    case STREAM_COMMAND_POSTCOPY_ADVISE:
        return advise(destination, element, error);
    case STREAM_COMMAND_POSTCOPY_RAM_DISCARD:
        return destination_discard(destination, element, error);
    case STREAM_COMMAND_DISCARD_WORDS:
        return destination_discard_words(destination, element, error);
    case STREAM_COMMAND_SEALED:
        return destination_obey_sealed(destination, element, error);
    case STREAM_COMMAND_DIGEST:
        return destination_obey_digest(destination, element, error);
    case STREAM_COMMAND_PACKAGED:
        return begin_package(destination, element, error);
    case STREAM_COMMAND_POSTCOPY_LISTEN:
    case STREAM_COMMAND_POSTCOPY_RUN:
        return refuse(element, "came outside a package", error);
    case STREAM_COMMAND_ANSWER:
        return refuse(element, "came on a connection that was not challenged", error);
    case STREAM_COMMAND_ENABLE_COLO:
        return refuse(element, "is not supported; switch x-colo off at the source", error);
    case STREAM_COMMAND_POSTCOPY_RESUME: /* outside a recovery these are ignored */
    case STREAM_COMMAND_RECV_BITMAP:
    case STREAM_COMMAND_SWITCHOVER_START: /* a hint for devices */
        return true;
    }
    return refuse(element, "is not known", error);
}

StageResult
destination_take_command(Destination *destination, const StreamElement *element, size_t length,
                         GError **error)
{
    if (!obey(destination, element, error))
        return STAGE_FAILED;
    if (element->command == STREAM_COMMAND_PING &&
        !destination_answer_ping(destination, stream_parse_be32(element)))
        return STAGE_STAY;
    if (destination->has_hello && !destination->has_preempt && !destination_has_door(destination))
        destination_close_listeners(destination);
    if (destination->in_recovery && element->command == STREAM_COMMAND_POSTCOPY_RESUME) {
        if (!destination_post(destination, STREAM_RETURN_RESUME_ACK, 1))
            return STAGE_STAY;
        /* It may have been lost with the links before. */
        if (destination->features && destination_flag(&destination->has_told_loaded))
            destination_post(destination, STREAM_RETURN_PONG, STREAM_PING_LOADED);
        destination->stage = destination_stage_resume;
    }
    if (element->command == STREAM_COMMAND_PACKAGED)
        destination->stage = destination_stage_blob;
    bool is_sealed = element->command == STREAM_COMMAND_SEALED;
    if (element->command == STREAM_COMMAND_PING && stream_parse_be32(element) == STREAM_PING_COMMIT)
        destination_order_taking(destination);
    reader_consume(&destination->reader, length);
    if (is_sealed)
        reader_seal(&destination->reader, destination_piece_limit(destination));
    return STAGE_AGAIN;
}
