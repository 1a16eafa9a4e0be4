/* SPDX-License-Identifier: MIT */
/*
 * The recoveries recorded between two QEMUs (tests/captures), played again with one of ours on
 * either side: our destination hears what QEMU's source said and must answer what QEMU's
 * destination did, our source hears QEMU's destination and must send what that lacks, and nothing
 * else. QEMU's devices, which have no lengths, are left out of the package. Run from the root of
 * the tree; the test's thread plays the peer, every wait is bounded.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/support/peer_sink.h"
#include "tests/unit/support/recorded.h"

#define END_BYTES 19u /* END of ram, EOS, footer, EOF */

static void
require(bool is_good, GError *const *error)
{
    if (!is_good)
        fail_msg("%s", *error ? (*error)->message : "no error set");
}

/* ---- Our destination, QEMU's source -----------------------------------------------------------
 */

typedef struct Toucher {
    volatile uint8_t *at;
    uint8_t read;
} Toucher;

static void *
touch(void *opaque)
{
    Toucher *toucher = opaque;
    toucher->read = *toucher->at;
    return NULL;
}

static int64_t
deadline_us(void)
{
    return g_get_monotonic_time() + PEER_WAIT_MS * (int64_t)1000;
}

static void
await_status(PeerGuest *guest, PeerLink *link, FaultlineStatus status)
{
    int64_t end_us = deadline_us();
    FaultlineInfo info;

    do {
        peer_link_pump(link, 2);
        faultline_query(guest->faultline, &info);
        if (g_get_monotonic_time() > end_us)
            fail_msg("status %s, not %s: %s", faultline_status_name(info.status),
                     faultline_status_name(status), info.error);
    } while (info.status != status);
}

static void
await_received(PeerLink *link, size_t length)
{
    int64_t end_us = deadline_us();

    while (link->received->len < length) {
        peer_link_pump(link, 2);
        if (g_get_monotonic_time() > end_us)
            fail_msg("%u of %zu bytes came", link->received->len, length);
    }
}

static void
say(PeerLink *link, const GByteArray *bytes, size_t from, size_t to)
{
    g_byte_array_append(link->to_send, bytes->data + from, (guint)(to - from));
}

static void
walk_answers(Walk *walk, const GByteArray *bytes)
{
    GError *error = NULL;
    require(walk_return(walk, bytes->data, bytes->len, &error), &error);
}

static unsigned
count_pongs(const GByteArray *bytes)
{
    unsigned count = 0;
    size_t length = 0;
    StreamReturn message;

    for (size_t at = 0; stream_decode_return(bytes->data + at, bytes->len - at, &message, &length,
                                             NULL) == STREAM_OK;
         at += length)
        count += message.type == STREAM_RETURN_PONG;
    return count;
}

static void
play_until_the_break(PeerGuest *guest, const Recorded *recorded, const char *path)
{
    g_autoptr(GByteArray) before = recorded_before_without_devices(recorded);
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    int64_t end_us = deadline_us();

    peer_incoming(guest, uri);
    g_autoptr(PeerLink) link = peer_link_new(peer_connect(path));
    say(link, before, 0, before->len);
    while (!peer_link_is_sent(link) && g_get_monotonic_time() < end_us)
        peer_link_pump(link, 2);
    while (count_pongs(link->received) < recorded->walk->count_pings &&
           g_get_monotonic_time() < end_us)
        peer_link_pump(link, 2);
    peer_link_half_close(link);
    await_status(guest, link, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    walk_answers(recorded->walk, link->received);
    assert_int_equal(recorded->walk->count_pongs, recorded->walk->count_pings);
}

static void
play_recovery(PeerGuest *guest, const Recorded *recorded, const char *path)
{
    g_autofree char *uri = g_strdup_printf("unix:%s", path);
    g_autoptr(GError) error = NULL;

    require(faultline_recover(guest->faultline, uri, &error), &error);
    g_autoptr(PeerLink) link = peer_link_new(peer_connect(path));
    say(link, recorded->after, 0, recorded->asked);
    await_received(link, recorded->bitmaps);
    assert_memory_equal(link->received->data, recorded->back->data, recorded->bitmaps);
    say(link, recorded->after, recorded->asked, recorded->asked + RESUME_BYTES);
    await_received(link, recorded->request);
    assert_memory_equal(link->received->data, recorded->back->data, recorded->request);
    say(link, recorded->after, recorded->asked + RESUME_BYTES, recorded->after->len);
    await_status(guest, link, FAULTLINE_STATUS_COMPLETED);
    while (peer_link_pump(link, 5))
        continue;

    recorded->walk->is_resumed = true;
    walk_answers(recorded->walk, link->received);
    require(walk_main(recorded->walk, recorded->after->data, recorded->after->len, &error), &error);
}

/* The page that the recorded guest waited for is touched while there is no connection. */
static void
destination_answers_a_recorded_recovery_as_qemu_did(void **state)
{
    static const char *const capabilities[] = {"postcopy-ram", NULL};
    const Recovery *recovery = *state;
    g_autoptr(Recorded) recorded = recorded_load(recovery);
    g_autoptr(PeerGuest) guest =
        peer_guest_new_sized(recovery->machine, recorded->names, recorded->counts, capabilities);
    char *folder = peer_folder_new();
    g_autofree char *first = g_build_filename(folder, "first", NULL);
    g_autofree char *second = g_build_filename(folder, "second", NULL);
    pthread_t thread;

    play_until_the_break(guest, recorded, first);
    uint8_t *ram = guest->blocks[0].host_address;
    Toucher toucher = {.at = ram + recorded->request_page * STREAM_PAGE_BYTES};
    assert_int_equal(pthread_create(&thread, NULL, touch, &toucher), 0);
    play_recovery(guest, recorded, second);
    pthread_join(thread, NULL);

    assert_true(recorded->walk->has_resume_ack && recorded->walk->has_shut);
    assert_int_equal(recorded->walk->count_lost, 0);
    assert_true(walk_is_whole(recorded->walk));
    for (unsigned i = 0; i < guest->count_blocks; i++)
        assert_memory_equal(guest->blocks[i].host_address, recorded->walk->blocks[i].image,
                            guest->blocks[i].length_bytes);
    assert_int_equal(toucher.read, *toucher.at);
    peer_folder_free(folder);
}

/* ---- Our source, QEMU's destination -----------------------------------------------------------
 */

static PeerLink *
accept_link(int listener)
{
    int64_t end_us = deadline_us();
    int fd;

    while ((fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0) {
        if (g_get_monotonic_time() > end_us)
            fail_msg("nobody connects");
        g_usleep(500);
    }
    return peer_link_new(fd);
}

/* The end of the stream is here. Only the section's number, which is the source's, is not looked
 * at. */
static bool
has_end(const GByteArray *bytes)
{
    static const uint8_t eos[] = {0, 0, 0, 0, 0, 0, 0, 0x10, STREAM_FOOTER};
    const uint8_t *end = bytes->data + bytes->len - END_BYTES;
    return bytes->len >= END_BYTES && end[0] == STREAM_END &&
           memcmp(end + 5, eos, sizeof eos) == 0 && end[END_BYTES - 1] == STREAM_EOF;
}

static void
hear_recovery(PeerSink *sink, const Recorded *recorded, PeerLink *link, PeerLink **ret_urgent)
{
    int64_t end_us = deadline_us();

    await_received(link, recorded->asked);
    assert_int_equal(link->received->len, recorded->asked);
    say(link, recorded->back, 0, recorded->bitmaps);
    if (sink->shape == SCRIPT_PREEMPT) {
        while (!peer_link_is_sent(link))
            peer_link_pump(link, 2);
        *ret_urgent = accept_link(sink->listener);
    }
    await_received(link, recorded->asked + RESUME_BYTES);
    assert_memory_equal(link->received->data, recorded->after->data,
                        recorded->asked + RESUME_BYTES);
    say(link, recorded->back, recorded->bitmaps, recorded->back->len - ACK_BYTES);
    while (!has_end(link->received)) {
        peer_link_pump(link, 2);
        if (*ret_urgent)
            peer_link_pump(*ret_urgent, 0);
        if (g_get_monotonic_time() > end_us)
            fail_msg("the stream does not end after %u bytes", link->received->len);
    }
    while (*ret_urgent && peer_link_pump(*ret_urgent, 5))
        continue;
    say(link, recorded->back, recorded->back->len - ACK_BYTES, recorded->back->len);
}

/* Of the recorded recovery the source's half is left out, and ours put in its place. */
static void
check_second_half(const Recorded *recorded, const PeerLink *link, const PeerLink *urgent)
{
    Walk *walk = recorded->walk;
    const GByteArray *main = link->received;
    g_autoptr(GError) error = NULL;

    walk->is_resumed = true;
    walk_answers(walk, recorded->back);
    assert_int_equal(walk->count_lost, 0);
    for (unsigned i = 0; i < walk->sections->len; i++) {
        WalkSection *section = &g_array_index(walk->sections, WalkSection, i);
        if (strcmp(section->name, "ram") == 0)
            section->id = main->data[main->len - 2];
        else
            section->id = UINT32_MAX - i;
    }
    walk->reached_cut = false;
    if (urgent) {
        require(walk_urgent(walk, urgent->received->data, urgent->received->len, &error), &error);
        assert_true(walk->count_urgent > 0);
    }
    require(walk_main(walk, main->data, main->len, &error), &error);
    assert_true(walk_is_whole(walk));
}

/* A source that was cut off behind the first pages that it pushed. */
static PeerSink *
begin_pause(const Recovery *recovery, const Recorded *recorded)
{
    static const char *const capabilities[] = {"postcopy-ram", "postcopy-preempt", NULL};
    const SinkPlan plan = {.moment = MOMENT_PUSHED, .then = SINK_CLOSE};
    ScriptShape shape = recovery->with_urgent ? SCRIPT_PREEMPT : SCRIPT_POSTCOPY;
    const char *wanted[] = {capabilities[0], recovery->with_urgent ? capabilities[1] : NULL, NULL};
    PeerGuest *guest =
        peer_guest_new_sized(recovery->machine, recorded->names, recorded->counts, wanted);
    PeerSink *sink = peer_sink_new_for(guest, shape, true, &plan);

    FaultlineStatus status = peer_sink_run(sink, PEER_WAIT_MS);
    assert_int_equal(status, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    assert_int_equal(sink->reached, MOMENT_PUSHED);
    return sink;
}

static PeerLink *
resume(PeerSink *sink)
{
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", sink->folder);
    GError *error = NULL;

    require(faultline_migrate_resume(sink->guest->faultline, uri, &error), &error);
    return accept_link(sink->listener);
}

static void
source_sends_what_a_recorded_destination_lacks(void **state)
{
    const Recovery *recovery = *state;
    g_autoptr(Recorded) recorded = recorded_load(recovery);
    g_autoptr(PeerSink) sink = begin_pause(recovery, recorded);
    g_autoptr(PeerLink) urgent = NULL;
    g_autoptr(PeerLink) link = resume(sink);

    hear_recovery(sink, recorded, link, &urgent);
    await_status(sink->guest, link, FAULTLINE_STATUS_COMPLETED);
    check_second_half(recorded, link, urgent);
}

/* The last block has one page; the word of its bitmap stands before the end mark. */
static void
source_refuses_bits_past_the_end_of_a_bitmap_and_recovers(void **state)
{
    const Recovery *recovery = *state;
    g_autoptr(Recorded) recorded = recorded_load(recovery);
    g_autoptr(PeerSink) sink = begin_pause(recovery, recorded);
    g_autoptr(PeerLink) urgent = NULL;
    g_autoptr(PeerLink) liar = resume(sink);
    FaultlineInfo info;

    await_received(liar, 1); /* an answer before the question is refused for another reason */
    say(liar, recorded->back, 0, recorded->bitmaps);
    liar->to_send->data[recorded->bitmaps - 16] ^= 2;
    await_status(sink->guest, liar, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    faultline_query(sink->guest->faultline, &info);
    if (!strstr(info.error, "has bits past its 1 pages"))
        fail_msg("the error is: %s", info.error);
    g_autoptr(PeerLink) link = resume(sink);
    hear_recovery(sink, recorded, link, &urgent);
    await_status(sink->guest, link, FAULTLINE_STATUS_COMPLETED);
    check_second_half(recorded, link, urgent);
}

static Recovery recoveries[] = {
    {"pc-i440fx-7.2", "rec77.0.fwd", "rec77.0.rev", "rec77.1.fwd", "rec77.1.rev", false},
    {"pc-i440fx-11.1", "rec11.0.fwd", "rec11.0.rev", "rec11.1.fwd", "rec11.1.rev", false},
    {"pc-i440fx-7.2", "rec77.0.fwd", "rec77.0.rev", "rec77.1.fwd", "rec77.1.rev", true},
    {"pc-i440fx-11.1", "rec11.0.fwd", "rec11.0.rev", "rec11.1.fwd", "rec11.1.rev", true},
};

#define RECOVERY_TEST(name, suffix, number)                                                        \
    {                                                                                              \
#name suffix, name, NULL, NULL, &recoveries[number]                                        \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        RECOVERY_TEST(destination_answers_a_recorded_recovery_as_qemu_did, "_7_2", 0),
        RECOVERY_TEST(destination_answers_a_recorded_recovery_as_qemu_did, "_11_1", 1),
        RECOVERY_TEST(source_sends_what_a_recorded_destination_lacks, "_7_2", 0),
        RECOVERY_TEST(source_sends_what_a_recorded_destination_lacks, "_11_1", 1),
        RECOVERY_TEST(source_sends_what_a_recorded_destination_lacks, "_7_2_urgent", 2),
        RECOVERY_TEST(source_sends_what_a_recorded_destination_lacks, "_11_1_urgent", 3),
        RECOVERY_TEST(source_refuses_bits_past_the_end_of_a_bitmap_and_recovers, "", 1),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
