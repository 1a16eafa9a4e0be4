/* SPDX-License-Identifier: MIT */
/*
 * The listen role's stages that read the stream: connections, header, and element after element up
 * to EOF. What an element does stands elsewhere: commands in command.c, ram in load.c, pages in
 * place.c, devices in device.c. How it ends stands in destination.c.
 */
#include "engine/destination/destination.h"

#include <string.h>

StageResult
destination_stage_of(ReadResult result, GError **error)
{
    switch (result) {
    case READ_OK:
        return STAGE_AGAIN;
    case READ_WAIT:
        return STAGE_STAY;
    case READ_END:
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                    "receive: the source closed the connection before the end of the stream");
        return STAGE_FAILED;
    default:
        return STAGE_FAILED;
    }
}

StageResult
destination_read(Destination *destination, ReadDecode decode, void *context, size_t *ret_length,
                 GError **error)
{
    return destination_stage_of(
        reader_decode(&destination->reader, decode, context, ret_length, error), error);
}

typedef struct FooterDecode {
    uint32_t section;
    const char *name;
} FooterDecode;

static StreamResult
decode_footer(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    const FooterDecode *decode = context;
    return stream_decode_footer(bytes, available, decode->section, decode->name, ret_length, error);
}

ReadResult
destination_read_footer(Reader *reader, uint32_t section, const char *name, GError **error)
{
    FooterDecode decode = {section, name};
    size_t length;

    ReadResult result = reader_decode(reader, decode_footer, &decode, &length, error);
    if (result == READ_OK)
        reader_consume(reader, length);
    return result;
}

/* ---- Connections ----------------------------------------------------------------------------- */

TransportListener *
destination_listen_at(const Faultline *faultline, const char *uri, GError **error)
{
    TransportListener *listener = transport_listen(uri, error);
    bool is_allowed = __atomic_load_n(&faultline->insecure, __ATOMIC_RELAXED);

    if (listener && !security_listen(faultline, listener, error))
        g_clear_pointer(&listener, transport_listener_free);
    if (!listener || is_allowed || !transport_listener_is_exposed(listener))
        return listener;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "listening at %s refused: other hosts reach it, and without TLS whoever does can "
                "put a guest of his own in here, or read and change the one that comes; listen at "
                "tcp:127.0.0.1:PORT or unix:PATH (by a tunnel), set TLS up, or say --insecure "
                "(faultline_set_insecure) if you trust all of that network",
                transport_listener_address(listener));
    transport_listener_free(listener);
    return NULL;
}

/* How a source begins; whoever begins otherwise costs nobody but himself. */
static bool
is_header(const uint8_t *bytes)
{
    StreamWriter writer = {.bytes = (uint8_t[8]){0}, .capacity = 8};
    stream_put_header(&writer);
    return memcmp(bytes, writer.bytes, TRANSPORT_FIRST_BYTES) == 0;
}

/* Of a recovery: type, the number of the command, and the first half of its length. */
static bool
is_command(const uint8_t *bytes)
{
    return bytes[0] == STREAM_COMMAND && bytes[1] == 0 && bytes[2] != 0;
}

static TransportResult
accept_at(Destination *destination, unsigned index, DestinationFirst first,
          TransportLink **ret_link, GError **error)
{
    TransportListener *listener = destination->listeners[index];
    TransportRing *ring = destination->listen.ring;

    if (first == DESTINATION_FIRST_ANY)
        return transport_accept(listener, ring, ret_link, error);
    return transport_accept_right(listener, ring,
                                  first == DESTINATION_FIRST_HEADER ? is_header : is_command,
                                  ret_link, error);
}

StageResult
destination_accept_link(Destination *destination, DestinationFirst first, TransportLink **ret_link,
                        GError **error)
{
    for (unsigned i = 0; i < destination->count_listeners; i++) {
        TransportListener *listener = destination->listeners[i];
        g_autoptr(GError) cause = NULL;
        TransportResult result = accept_at(destination, i, first, ret_link, &cause);
        unsigned count_refused;
        char *refusal = transport_listener_take_refusal(listener, &count_refused);
        if (refusal)
            context_note_refusal(destination->faultline, refusal, count_refused);
        switch (result) {
        case TRANSPORT_OK:
            return STAGE_AGAIN;
        case TRANSPORT_WAIT:
            break;
        default:
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "accept: %s",
                        cause ? cause->message : "failed");
            return STAGE_FAILED;
        }
    }
    return STAGE_STAY;
}

void
destination_close_listeners(Destination *destination)
{
    while (destination->count_listeners > 0)
        transport_listener_free(destination->listeners[--destination->count_listeners]);
}

void
destination_begin_link(Destination *destination)
{
    if (!destination->receiver)
        destination->receiver = transport_receiver_new(destination->listen.ring, destination->link);
    destination->reader = (Reader){.receiver = destination->receiver};
    destination->main_heard = (Pulse){0};
    if (destination->features & STREAM_FEATURE_CHECKSUMS)
        reader_seal(&destination->reader, destination_piece_limit(destination));
    __atomic_store_n(&destination->fault_link, transport_link_ref(destination->link),
                     __ATOMIC_RELEASE);
    destination_notify(destination, &destination->fault);
    bool may_come = destination->has_preempt || destination_has_door(destination) ||
                    (destination->offers_token && !destination->has_hello);
    if (!may_come)
        destination_close_listeners(destination);
}

StageResult
destination_stage_accept(Destination *destination, GError **error)
{
    StageResult result =
        destination_accept_link(destination, DESTINATION_FIRST_HEADER, &destination->link, error);
    if (result != STAGE_AGAIN)
        return result;
    destination_begin_link(destination);
    destination->stage = destination_stage_open;
    return STAGE_AGAIN;
}

void
destination_publish_urgent(Destination *destination)
{
    __atomic_store_n(&destination->fault_urgent_link, transport_link_ref(destination->urgent_link),
                     __ATOMIC_RELEASE);
    destination_notify(destination, &destination->fault);
}

bool
destination_accept_urgent(Destination *destination, GError **error)
{
    /* Whoever comes before the hello waits until it is known whether he has to prove himself. */
    bool knows_how = destination->has_hello || destination->has_ram || !destination->offers_token;
    if (!destination->has_preempt || destination->urgent_link || !knows_how ||
        destination_has_door(destination))
        return true;
    StageResult result = destination_accept_link(destination, DESTINATION_FIRST_ANY,
                                                 &destination->urgent_link, error);
    if (result != STAGE_AGAIN)
        return result != STAGE_FAILED;
    destination_publish_urgent(destination);
    destination_close_listeners(destination);
    return true;
}

/* ---- Header and configuration ---------------------------------------------------------------- */

static StreamResult
decode_header(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    (void)context;
    return stream_decode_header(bytes, available, ret_length, error);
}

static StreamResult
decode_configuration(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
                     GError **error)
{
    return stream_decode_configuration(bytes, available, context, ret_length, error);
}

static bool
check_configuration(const Destination *destination, const StreamConfiguration *received,
                    GError **error)
{
    const char *machine = destination->faultline->machine;
    if (strcmp(received->machine, machine) != 0) {
        g_propagate_error(error, destination_peer_error(
                                     "load configuration: machine type received is '%s' and local "
                                     "is '%s'; start both sides with the same machine",
                                     received->machine, machine));
        return false;
    }
    if (received->count_capabilities) {
        g_propagate_error(
            error, destination_peer_error("load configuration: the source has x-ignore-shared or "
                                          "mapped-ram on, which is off here; switch it off there"));
        return false;
    }
    return true;
}

StageResult
destination_stage_open(Destination *destination, GError **error)
{
    StreamConfiguration configuration;
    size_t length;
    StageResult result;

    if (!destination->has_header) {
        result = destination_read(destination, decode_header, NULL, &length, error);
        if (result != STAGE_AGAIN)
            return result;
        reader_consume(&destination->reader, length);
        destination->has_header = true;
        progress_set(&destination->faultline->progress.active_ns, clock_now_ns());
        context_move(destination->faultline, FAULTLINE_STATUS_ACTIVE);
    }
    result = destination_read(destination, decode_configuration, &configuration, &length, error);
    if (result != STAGE_AGAIN)
        return result;
    reader_consume(&destination->reader, length);
    if (!check_configuration(destination, &configuration, error))
        return STAGE_FAILED;
    destination->stage = destination_stage_element;
    return STAGE_AGAIN;
}

/* ---- Elements -------------------------------------------------------------------------------- */

StreamResult
destination_decode_element(void *context, const uint8_t *bytes, size_t available,
                           size_t *ret_length, GError **error)
{
    return stream_decode_element(bytes, available, context, ret_length, error);
}

static bool
begin_ram(Destination *destination, const StreamElement *element, GError **error)
{
    if (strcmp(element->name, "ram") != 0 || element->instance != 0) {
        g_propagate_error(error,
                          destination_peer_error("load section: unknown section '%s' %u; give both "
                                                 "sides the same devices",
                                                 element->name, element->instance));
        return false;
    }
    if (element->version != STREAM_RAM_VERSION || destination->has_ram) {
        g_propagate_error(
            error, destination_peer_error(destination->has_ram
                                              ? "load section: 'ram' was started twice"
                                              : "load section: unsupported version %u for 'ram' v4",
                                          element->version));
        return false;
    }
    if ((destination->features & STREAM_FEATURE_HEARTBEAT) &&
        !__atomic_load_n(&destination->heartbeat_ms, __ATOMIC_ACQUIRE)) {
        g_propagate_error(error, destination_peer_error(
                                     "load section: the source agreed on a heartbeat and has not "
                                     "told its heartbeat-timeout, which was damaged on its way; "
                                     "migrate again"));
        return false;
    }
    destination->has_ram = true;
    destination->is_first_section = true;
    destination->ram_section = element->section_id;
    return true;
}

static bool
check_section(const Destination *destination, const StreamElement *element, GError **error)
{
    if ((destination->features & STREAM_FEATURE_CHECKSUMS) && !destination->reader.is_sealed) {
        g_propagate_error(error, destination_peer_error("load section: pages come unsealed, though "
                                                        "page-checksums was agreed on"));
        return false;
    }
    if (destination->has_ram && element->section_id == destination->ram_section)
        return true;
    g_propagate_error(error, destination_peer_error("load section: section %u was never started",
                                                    element->section_id));
    return false;
}

static StageResult
take_section(Destination *destination, const StreamElement *element, size_t length, GError **error)
{
    destination->is_first_section = false;
    if (element->type == STREAM_START ? !begin_ram(destination, element, error)
                                      : !check_section(destination, element, error))
        return STAGE_FAILED;
    reader_consume(&destination->reader, length);
    destination->stage = destination_stage_records;
    return STAGE_AGAIN;
}

static StageResult
take_device(Destination *destination, const StreamElement *element, size_t length, GError **error)
{
    if (destination->in_postcopy) {
        g_propagate_error(error, destination_peer_error("load section: device '%s' came after the "
                                                        "guest was handed over",
                                                        element->name));
        return STAGE_FAILED;
    }
    destination_begin_device(destination, element);
    reader_consume(&destination->reader, length);
    destination->stage = destination_stage_device;
    return STAGE_AGAIN;
}

static StageResult
take_eof(Destination *destination, size_t length, GError **error)
{
    reader_consume(&destination->reader, length);
    if (destination->in_postcopy) {
        destination->stage = destination_stage_arrived;
        return STAGE_AGAIN;
    }
    if (destination_postcopy(destination) == POSTCOPY_DISCARD) {
        g_propagate_error(
            error, destination_peer_error("load stream: EOF after DISCARD, without a package"));
        return STAGE_FAILED;
    }
    destination->stage = destination_stage_run;
    return STAGE_AGAIN;
}

StageResult
destination_stage_element(Destination *destination, GError **error)
{
    StreamElement element;
    size_t length;

    if (!destination_accept_urgent(destination, error))
        return STAGE_FAILED;
    StageResult result =
        destination_read(destination, destination_decode_element, &element, &length, error);
    if (result != STAGE_AGAIN)
        return result;
    if (destination->in_recovery && !destination_obey_recovery(destination, &element, error))
        return STAGE_FAILED;
    switch (element.type) {
    case STREAM_START:
    case STREAM_PART:
    case STREAM_END:
        return take_section(destination, &element, length, error);
    case STREAM_FULL:
        return take_device(destination, &element, length, error);
    case STREAM_COMMAND:
        return destination_take_command(destination, &element, length, error);
    case STREAM_EOF:
        return take_eof(destination, length, error);
    default:
        g_propagate_error(
            error,
            destination_peer_error("load stream: element 0x%02x has no place here", element.type));
        return STAGE_FAILED;
    }
}

/* ---- Devices of precopy ---------------------------------------------------------------------- */

StageResult
destination_stage_device(Destination *destination, GError **error)
{
    StageResult result = destination_stage_of(
        destination_load_device(destination, &destination->reader, error), error);
    if (result == STAGE_AGAIN)
        destination->stage = destination_stage_element;
    return result;
}
