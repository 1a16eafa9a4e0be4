/* SPDX-License-Identifier: MIT */
/*
 * The scripted destination: a small reader of main that knows where it is, and its answers.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/support/peer_sink.h"

#define ANSWER_BYTES_MAX (4u << 20)

PeerSink *
peer_sink_new(ScriptShape shape, bool is_qemu, const SinkPlan *plan)
{
    static const char *const postcopy[] = {"postcopy-ram", NULL};
    static const char *const preempt[] = {"postcopy-ram", "postcopy-preempt", NULL};
    PeerGuest *guest = peer_guest_new(shape == SCRIPT_PRECOPY    ? NULL
                                      : shape == SCRIPT_POSTCOPY ? postcopy
                                                                 : preempt);
    return peer_sink_new_for(guest, shape, is_qemu, plan);
}

PeerSink *
peer_sink_new_for(PeerGuest *guest, ScriptShape shape, bool is_qemu, const SinkPlan *plan)
{
    PeerSink *sink = g_new0(PeerSink, 1);
    g_autoptr(GError) error = NULL;

    sink->shape = shape;
    sink->is_qemu = is_qemu;
    sink->plan = plan ? *plan : (SinkPlan){.moment = MOMENT_NEVER};
    sink->folder = peer_folder_new();
    sink->guest = guest;
    g_autofree char *path = g_build_filename(sink->folder, "socket", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    sink->listener = peer_listen(path);
    peer_guest_fill(sink->guest);
    sink->guest->is_always_dirty = shape != SCRIPT_PRECOPY;

    Faultline *source = sink->guest->faultline;
    bool is_good = faultline_cont(source, &error);
    if (is_good && shape != SCRIPT_PRECOPY)
        is_good = faultline_set_parameter(source, "downtime-limit", 0, &error);
    if (is_good && sink->plan.heartbeat_ms)
        is_good =
            faultline_set_parameter(source, "heartbeat-timeout", sink->plan.heartbeat_ms, &error);
    is_good = is_good && faultline_migrate(source, uri, &error);
    if (is_good && shape != SCRIPT_PRECOPY)
        is_good = faultline_start_postcopy(source, &error);
    if (!is_good)
        fail_msg("%s", error->message);
    sink->main = peer_link_new(accept(sink->listener, NULL, NULL));
    assert_int_equal(fcntl(sink->listener, F_SETFL, O_NONBLOCK), 0);
    return sink;
}

void
peer_sink_free(PeerSink *sink)
{
    g_clear_pointer(&sink->main, peer_link_free);
    g_clear_pointer(&sink->urgent, peer_link_free);
    peer_guest_free(sink->guest);
    close(sink->listener);
    peer_folder_free(sink->folder);
    g_free(sink);
}

/* ---- Answers -----------------------------------------------------------------------------------
 */

static void
answer(PeerSink *sink, void (*put)(StreamWriter *w))
{
    g_autofree uint8_t *bytes = g_malloc(ANSWER_BYTES_MAX);
    StreamWriter writer = {bytes, 0, ANSWER_BYTES_MAX};
    put(&writer);
    g_byte_array_append(sink->main->to_send, bytes, (guint)writer.length);
}

static void
answer_value(PeerSink *sink, StreamReturnType type, uint32_t value)
{
    uint8_t bytes[16];
    StreamWriter writer = {bytes, 0, sizeof bytes};
    stream_put_return_value(&writer, type, value);
    g_byte_array_append(sink->main->to_send, bytes, (guint)writer.length);
}

static void
reach(PeerSink *sink, SinkMoment moment)
{
    sink->reached = MAX(sink->reached, moment);
    if (sink->plan.moment != moment)
        return;
    sink->plan.moment = MOMENT_NEVER;
    if (sink->plan.put)
        answer(sink, sink->plan.put);
    while (sink->plan.put && sink->plan.then != SINK_GO_ON && !peer_link_is_sent(sink->main))
        peer_link_pump(sink->main, 1);
    switch (sink->plan.then) {
    case SINK_CLOSE:
        shutdown(sink->main->fd, SHUT_RDWR);
        sink->main->is_closed = true;
        break;
    case SINK_HALF_CLOSE:
        peer_link_half_close(sink->main);
        break;
    case SINK_STOP_READING:
        sink->main->is_deaf = true;
        break;
    default:
        break;
    }
    sink->is_stuck = sink->plan.then != SINK_GO_ON && sink->plan.then != SINK_SILENT;
}

static void
take_ping(PeerSink *sink, uint32_t value)
{
    bool is_hello = (value & STREAM_HELLO_MASK) == STREAM_HELLO;
    bool is_silent = sink->plan.then == SINK_SILENT;

    if ((value & STREAM_HELLO_MASK) == STREAM_PING_BEAT) {
        if (!is_silent)
            answer_value(sink, STREAM_RETURN_PONG, value);
        return;
    }
    sink->count_pings++;
    sink->count_commits += value == STREAM_PING_COMMIT;
    bool is_agree = (value & STREAM_HELLO_MASK) == STREAM_PING_AGREE;
    SinkMoment moment = is_hello                         ? MOMENT_HELLO
                        : value == STREAM_PING_COMMIT    ? MOMENT_COMMIT
                        : value == STREAM_PING_SETTLED   ? MOMENT_PAGES
                        : value == STREAM_PING_DISCARDED ? MOMENT_DISCARDED
                                                         : MOMENT_RUNNING;
    if (!is_agree)
        reach(sink, moment);
    if (is_silent)
        return;
    if (is_hello && !sink->is_qemu)
        value = STREAM_HELLO_ANSWER | (value & STREAM_FEATURES);
    if (is_agree && !sink->is_qemu)
        value = STREAM_AGREE_ANSWER | (value & STREAM_AGREE_BITS);
    answer_value(sink, STREAM_RETURN_PONG, value);
}

/* ---- Reading -----------------------------------------------------------------------------------
 */

static StreamResult
take_record(PeerSink *sink, const uint8_t *bytes, size_t available, size_t *ret_length,
            GError **error)
{
    StreamRecord record;
    size_t more = 0;

    StreamResult result =
        stream_decode_record(bytes, available, "main", !sink->is_qemu, &record, ret_length, error);
    if (result != STREAM_OK)
        return result;
    if (record.flag == STREAM_RAM_PAGE && !record.page)
        *ret_length += record.count_pages * STREAM_PAGE_BYTES;
    if (*ret_length > available)
        return STREAM_MORE;
    if (record.flag == STREAM_RAM_MEM_SIZE) {
        StreamBlock block;
        for (unsigned i = 0; i < sink->guest->count_blocks && result == STREAM_OK; i++) {
            result = stream_decode_block(bytes + *ret_length, available - *ret_length, false,
                                         &block, &more, error);
            *ret_length += more;
        }
        return result;
    }
    sink->count_pages += record.flag != STREAM_RAM_EOS ? record.count_pages : 0;
    if (record.flag != STREAM_RAM_EOS)
        return result;
    result = stream_decode_footer(bytes + *ret_length, available - *ret_length, sink->section,
                                  "ram", &more, error);
    *ret_length += more;
    sink->in_section = result != STREAM_OK;
    return result;
}

static StreamResult
take_device(PeerSink *sink, const StreamElement *element, const uint8_t *bytes, size_t available,
            size_t *ret_length, GError **error)
{
    size_t more = 0;
    uint32_t body = 0;
    bool is_running;
    StreamResult result =
        strcmp(element->name, "globalstate") == 0
            ? stream_decode_globalstate(bytes + *ret_length, available - *ret_length, &is_running,
                                        &more, error)
            : stream_decode_device_length(bytes + *ret_length, available - *ret_length,
                                          element->name, PEER_STATE_LIMIT, &body, &more, error);
    (void)sink;
    *ret_length += more + body;
    if (result != STREAM_OK)
        return result;
    if (*ret_length > available)
        return STREAM_MORE;
    result = stream_decode_footer(bytes + *ret_length, available - *ret_length, element->section_id,
                                  element->name, &more, error);
    *ret_length += more;
    return result;
}

/* The package: all of it must be there; a ping in it is answered, as everybody does. */
static StreamResult
take_package(PeerSink *sink, const StreamElement *element, size_t available, size_t *ret_length)
{
    *ret_length += stream_parse_be32(element);
    if (*ret_length > available)
        return STREAM_MORE;
    reach(sink, MOMENT_PACKAGE);
    if (!sink->is_stuck)
        answer_value(sink, STREAM_RETURN_PONG, STREAM_PING_LOADED);
    return STREAM_OK;
}

static StreamResult
take_element(PeerSink *sink, const uint8_t *bytes, size_t available, size_t *ret_length,
             GError **error)
{
    StreamElement element;

    StreamResult result = stream_decode_element(bytes, available, &element, ret_length, error);
    if (result != STREAM_OK)
        return result;
    switch (element.type) {
    case STREAM_START:
    case STREAM_PART:
    case STREAM_END:
        sink->in_section = true;
        sink->section = element.section_id;
        if (element.type == STREAM_END)
            reach(sink, MOMENT_STOPPED);
        return STREAM_OK;
    case STREAM_FULL:
        return take_device(sink, &element, bytes, available, ret_length, error);
    case STREAM_EOF:
        reach(sink, MOMENT_EOF);
        if (!sink->is_stuck)
            answer_value(sink, STREAM_RETURN_SHUT, 0);
        return STREAM_OK;
    case STREAM_COMMAND:
        if (element.command == STREAM_COMMAND_PING)
            take_ping(sink, stream_parse_be32(&element));
        if (element.command == STREAM_COMMAND_PACKAGED)
            return take_package(sink, &element, available, ret_length);
        return STREAM_OK;
    default:
        return STREAM_OK; /* the description: its head; the rest is not looked at */
    }
}

static StreamResult
take_next(PeerSink *sink, size_t *ret_length, GError **error)
{
    const uint8_t *bytes = sink->main->received->data + sink->at;
    size_t available = sink->main->received->len - sink->at;
    StreamConfiguration configuration;

    if (!available || sink->reached == MOMENT_EOF)
        return STREAM_MORE;
    if (sink->at == 0)
        return stream_decode_header(bytes, available, ret_length, error);
    if (sink->at == 8)
        return stream_decode_configuration(bytes, available, &configuration, ret_length, error);
    if (!sink->in_section)
        return take_element(sink, bytes, available, ret_length, error);
    StreamResult result = take_record(sink, bytes, available, ret_length, error);
    if (result == STREAM_OK && !sink->in_section) {
        reach(sink, sink->count_pages == 0            ? MOMENT_LIST
                    : sink->reached >= MOMENT_RUNNING ? MOMENT_PUSHED
                                                      : MOMENT_PAGES);
    }
    return result;
}

static void
take_all(PeerSink *sink)
{
    g_autoptr(GError) error = NULL;
    size_t length = 0;
    StreamResult result = STREAM_MORE;

    while (!sink->is_stuck && (result = take_next(sink, &length, &error)) == STREAM_OK)
        sink->at += length;
    if (result == STREAM_BAD)
        fail_msg("at %zu: %s", sink->at, error->message);
}

static bool
is_over(const PeerSink *sink)
{
    FaultlineStatus status = faultline_wait(sink->guest->faultline, 0);
    return status == FAULTLINE_STATUS_COMPLETED || status == FAULTLINE_STATUS_FAILED ||
           status == FAULTLINE_STATUS_CANCELLED || status == FAULTLINE_STATUS_POSTCOPY_PAUSED;
}

static void
accept_urgent(PeerSink *sink)
{
    if (sink->shape != SCRIPT_PREEMPT || sink->urgent)
        return;
    int fd = accept4(sink->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0)
        sink->urgent = peer_link_new(fd);
}

FaultlineStatus
peer_sink_run(PeerSink *sink, int64_t limit_ms)
{
    int64_t end_us = g_get_monotonic_time() + limit_ms * 1000;

    if (!sink->has_moved) {
        sink->has_moved = true;
        reach(sink, MOMENT_CONNECTED);
    }
    while (!is_over(sink) && g_get_monotonic_time() < end_us) {
        bool has_worked = peer_link_pump(sink->main, 1);
        accept_urgent(sink);
        if (sink->urgent)
            peer_link_pump(sink->urgent, 0);
        take_all(sink);
        if (!has_worked)
            faultline_wait(sink->guest->faultline, 1);
    }
    return faultline_wait(sink->guest->faultline, 0);
}

void
peer_sink_info(const PeerSink *sink, FaultlineInfo *ret_info)
{
    faultline_query(sink->guest->faultline, ret_info);
}
