/* SPDX-License-Identifier: MIT */
/*
 * Connections that hang without closing: the counting of looks, and a real source and a real
 * destination against peers that fall silent at a moment of the case's choice, over real sockets.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "engine/heartbeat.h"
#include "tests/unit/support/peer_sink.h"
#include "tests/unit/support/peer_source.h"

#define TIMEOUT_MS   600u
#define HEADER_BYTES 8u

/* ---- Looks -------------------------------------------------------------------------------------
 */

static void
heartbeat_start_for_zero_stays_off(void **state)
{
    Heartbeat heartbeat = {0};
    (void)state;

    heartbeat_start(&heartbeat, 0, 5);
    assert_false(heartbeat_is_on(&heartbeat));
    assert_false(heartbeat_is_due(&heartbeat, UINT64_MAX));
    heartbeat_start(&heartbeat, 6, 5);
    assert_true(heartbeat_is_on(&heartbeat));
    assert_true(heartbeat_is_due(&heartbeat, 5));
}

static void
heartbeat_start_twice_keeps_the_first(void **state)
{
    Heartbeat heartbeat = {0};
    (void)state;

    heartbeat_start(&heartbeat, 6, 5);
    assert_true(heartbeat_is_due(&heartbeat, 5));
    uint64_t next_ns = heartbeat.next_ns;
    heartbeat_start(&heartbeat, 600, 7);
    assert_int_equal(heartbeat.next_ns, next_ns);
    assert_int_equal(heartbeat.timeout_ns, 6 * HEARTBEAT_NS_PER_MS);
    assert_false(heartbeat_is_due(&heartbeat, next_ns / 2));
    assert_true(heartbeat_is_due(&heartbeat, next_ns));
}

/* How much time passes until a silence is found by somebody who looks when it is due. */
static uint64_t
time_to_find(uint64_t timeout_ms, unsigned patience)
{
    Heartbeat heartbeat = {0};
    Pulse heard = {0};
    uint64_t now_ns = 1, last_ns = 1;

    heartbeat_start(&heartbeat, timeout_ms, now_ns);
    for (unsigned count = 0; count < 10000; count++) {
        now_ns = heartbeat.next_ns;
        assert_true(heartbeat_is_due(&heartbeat, now_ns));
        if (count == 5)
            last_ns = now_ns; /* the last byte comes right behind a look */
        if (heartbeat_is_lost(&heard, count > 5 ? 1 : 0, patience))
            return count > 5 ? now_ns - last_ns : 0;
        if (count < 5)
            heard.looks = 0;
    }
    return UINT64_MAX;
}

static void
heartbeat_silence_is_found_within_the_timeout(void **state)
{
    static const unsigned patiences[] = {1, HEARTBEAT_PATIENCE};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(patiences); i++) {
        uint64_t limit_ns = 5000 * HEARTBEAT_NS_PER_MS * patiences[i];
        uint64_t took_ns = time_to_find(5000, patiences[i]);
        assert_true(took_ns <= limit_ns);
        assert_true(took_ns >= limit_ns / 2); /* so that a beat may be late by that */
    }
}

static void
heartbeat_single_bytes_are_life(void **state)
{
    Pulse heard = {0};
    (void)state;

    for (uint64_t count_bytes = 1; count_bytes < 1000; count_bytes++)
        for (unsigned look = 0; look < 3; look++)
            assert_false(heartbeat_is_lost(&heard, count_bytes, 1));
}

static void
heartbeat_beats_only_where_nothing_is_sent(void **state)
{
    Pulse sent = {0};
    (void)state;

    for (uint64_t count_bytes = 1; count_bytes < 100; count_bytes++)
        assert_false(heartbeat_wants_beat(&sent, count_bytes));
    assert_true(heartbeat_wants_beat(&sent, 99));
    assert_true(heartbeat_wants_beat(&sent, 99));
    assert_false(heartbeat_wants_beat(&sent, 109));
}

/* ---- A destination that falls silent -----------------------------------------------------------
 */

typedef struct Silence {
    const char *name;
    ScriptShape shape;
    SinkPlan plan;
    FaultlineStatus status;
    FaultlineRunState run_state;
} Silence;

#define STOPS(moment)                                                                              \
    {                                                                                              \
        MOMENT_##moment, NULL, SINK_STOP_READING, TIMEOUT_MS                                       \
    }

static Silence silences[] = {
    {"migrate_silent_in_a_pass_goes_on_here", SCRIPT_PRECOPY, STOPS(PAGES), FAULTLINE_STATUS_FAILED,
     FAULTLINE_RUN_RUNNING},
    {"migrate_silent_with_devices_goes_on_here", SCRIPT_PRECOPY, STOPS(STOPPED),
     FAULTLINE_STATUS_FAILED, FAULTLINE_RUN_RUNNING},
    {"migrate_silent_with_all_stays_stopped", SCRIPT_PRECOPY, STOPS(EOF), FAULTLINE_STATUS_FAILED,
     FAULTLINE_RUN_POSTMIGRATE},
    {"migrate_silent_before_hello_goes_on_here",
     SCRIPT_PRECOPY,
     {MOMENT_EOF, NULL, SINK_SILENT, TIMEOUT_MS / HEARTBEAT_PATIENCE},
     FAULTLINE_STATUS_FAILED,
     FAULTLINE_RUN_RUNNING},
    {"migrate_silent_in_postcopy_pauses", SCRIPT_POSTCOPY, STOPS(PUSHED),
     FAULTLINE_STATUS_POSTCOPY_PAUSED, FAULTLINE_RUN_POSTMIGRATE},
    {"migrate_silent_in_postcopy_with_preempt_pauses", SCRIPT_PREEMPT, STOPS(PUSHED),
     FAULTLINE_STATUS_POSTCOPY_PAUSED, FAULTLINE_RUN_POSTMIGRATE},
    {"migrate_silent_after_postcopy_pauses", SCRIPT_POSTCOPY, STOPS(EOF),
     FAULTLINE_STATUS_POSTCOPY_PAUSED, FAULTLINE_RUN_POSTMIGRATE},
};

static void
migrate_to_silent_one_ends_as_it_must(void **state)
{
    const Silence *silence = *state;
    FaultlineInfo info;

    g_autoptr(PeerSink) sink = peer_sink_new(silence->shape, false, &silence->plan);
    peer_sink_run(sink, PEER_WAIT_MS);
    peer_sink_info(sink, &info);
    if (info.status != silence->status)
        fail_msg("status %s: %s", faultline_status_name(info.status), info.error);
    assert_int_equal(info.run_state, silence->run_state);
    if (!strstr(info.error, "heartbeat: nothing has come from the destination"))
        fail_msg("no word of it in '%s'", info.error);
}

/* A peer that has no heartbeat is waited for. */
static void
migrate_to_silent_qemu_waits(void **state)
{
    (void)state;
    const SinkPlan plan = {MOMENT_PUSHED, NULL, SINK_STOP_READING, TIMEOUT_MS / HEARTBEAT_PATIENCE};
    g_autoptr(PeerSink) sink = peer_sink_new(SCRIPT_POSTCOPY, true, &plan);
    assert_int_equal(peer_sink_run(sink, 2 * TIMEOUT_MS), FAULTLINE_STATUS_POSTCOPY_ACTIVE);
}

/* ---- A source that falls silent ----------------------------------------------------------------
 */

static void
put_hello_and_beat(StreamWriter *w)
{
    stream_put_ping(w, STREAM_HELLO | SCRIPT_FEATURES | STREAM_FEATURE_HEARTBEAT);
    stream_put_ping(w, STREAM_PING_BEAT | TIMEOUT_MS / HEARTBEAT_PATIENCE);
}

typedef struct SourceSilence {
    const char *name;
    ScriptStep last;
    PeerOutcome outcome;
} SourceSilence;

static SourceSilence source_silences[] = {
    {"incoming_silent_after_hello_fails", STEP_ADVISE, OUTCOME_FAILED},
    {"incoming_silent_in_the_block_list_fails", STEP_BLOCK0, OUTCOME_FAILED},
    {"incoming_silent_in_a_pass_fails", STEP_PAGES, OUTCOME_FAILED},
    {"incoming_silent_before_the_package_fails", STEP_PACKAGED, OUTCOME_FAILED},
    {"incoming_silent_after_the_package_pauses", STEP_PACKAGE, OUTCOME_PAUSED},
    {"incoming_silent_in_pushed_pages_pauses", STEP_PUSH, OUTCOME_PAUSED},
};

static void
play_without_end(PeerSource *source, const Script *script, size_t length)
{
    g_byte_array_append(source->main->to_send, script->main.bytes, (guint)length);
    while (!peer_link_is_sent(source->main) && !source->main->is_closed)
        peer_link_pump(source->main, 10);
}

static void
incoming_from_silent_one_ends_as_it_must(void **state)
{
    const SourceSilence *silence = *state;
    const ScriptChange change = {CHANGE_INSTEAD, STEP_HELLO, put_hello_and_beat};
    g_autoptr(Script) script = script_new(SCRIPT_POSTCOPY, &change);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_POSTCOPY);

    play_without_end(source, script, script->offsets[silence->last]);
    peer_source_check(source, silence->outcome, "heartbeat: nothing has come from the source");
}

/* It said nothing of heartbeats: the destination goes by its own timeout. */
static PeerSource *
incoming_cut_short(size_t length)
{
    g_autoptr(Script) script = script_new(SCRIPT_POSTCOPY, NULL);
    PeerSource *source = peer_source_new(SCRIPT_POSTCOPY);

    assert_true(faultline_set_parameter(source->guest->faultline, "heartbeat-timeout",
                                        TIMEOUT_MS / HEARTBEAT_PATIENCE, NULL));
    play_without_end(source, script, length);
    return source;
}

/* It has a descriptor, and its source begins when it likes. */
static void
incoming_silent_from_the_start_waits(void **state)
{
    (void)state;
    g_autoptr(PeerSource) source = incoming_cut_short(0);
    g_usleep(2 * TIMEOUT_MS * 1000);
    assert_int_equal(faultline_wait(source->guest->faultline, 0), FAULTLINE_STATUS_SETUP);
}

static void
incoming_silent_in_the_header_fails(void **state)
{
    (void)state;
    g_autoptr(PeerSource) source = incoming_cut_short(HEADER_BYTES);
    peer_source_check(source, OUTCOME_FAILED, "heartbeat: nothing has come from the source");
}

static void
incoming_silent_in_the_opening_fails(void **state)
{
    (void)state;
    g_autoptr(Script) script = script_new(SCRIPT_POSTCOPY, NULL);
    g_autoptr(PeerSource) source = incoming_cut_short(script->offsets[STEP_BLOCK0]);
    peer_source_check(source, OUTCOME_FAILED, "heartbeat: nothing has come from the source");
}

/* It may be a QEMU, which may be silent from there on. */
static void
incoming_silent_behind_the_block_list_waits(void **state)
{
    (void)state;
    g_autoptr(Script) script = script_new(SCRIPT_POSTCOPY, NULL);
    g_autoptr(PeerSource) source = incoming_cut_short(script->offsets[STEP_BLOCK1]);
    g_usleep(2 * TIMEOUT_MS * 1000);
    assert_int_equal(faultline_wait(source->guest->faultline, 0), FAULTLINE_STATUS_ACTIVE);
}

/* Main goes on, only the other connection hangs. */
static void
incoming_silent_urgent_channel_pauses(void **state)
{
    (void)state;
    const ScriptChange change = {CHANGE_INSTEAD, STEP_HELLO, put_hello_and_beat};
    g_autoptr(Script) script = script_new(SCRIPT_PREEMPT, &change);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_PREEMPT);

    play_without_end(source, script, script->offsets[STEP_PACKAGE]);
    uint8_t beat[8];
    StreamWriter eos = {.bytes = beat, .capacity = sizeof beat};
    stream_put_eos(&eos);
    g_byte_array_append(source->urgent->to_send, beat, (guint)eos.length);
    peer_link_pump(source->urgent, 1);
    while (!source->main->is_closed) {
        uint8_t bytes[16];
        StreamWriter w = {.bytes = bytes, .capacity = sizeof bytes};
        stream_put_ping(&w, STREAM_PING_RUNNING);
        g_byte_array_append(source->main->to_send, bytes, (guint)w.length);
        peer_link_pump(source->main, 1);
        g_usleep(500);
    }
    peer_source_check(source, OUTCOME_PAUSED, "on the urgent connection, which hangs");
}

int
main(void)
{
    const struct CMUnitTest others[] = {
        cmocka_unit_test(heartbeat_start_for_zero_stays_off),
        cmocka_unit_test(heartbeat_start_twice_keeps_the_first),
        cmocka_unit_test(heartbeat_silence_is_found_within_the_timeout),
        cmocka_unit_test(heartbeat_single_bytes_are_life),
        cmocka_unit_test(heartbeat_beats_only_where_nothing_is_sent),
        cmocka_unit_test(migrate_to_silent_qemu_waits),
        cmocka_unit_test(incoming_silent_urgent_channel_pauses),
        cmocka_unit_test(incoming_silent_from_the_start_waits),
        cmocka_unit_test(incoming_silent_in_the_header_fails),
        cmocka_unit_test(incoming_silent_in_the_opening_fails),
        cmocka_unit_test(incoming_silent_behind_the_block_list_waits),
    };
    enum { OTHERS = G_N_ELEMENTS(others), SILENCES = G_N_ELEMENTS(silences) };
    struct CMUnitTest tests[OTHERS + SILENCES + G_N_ELEMENTS(source_silences)];

    memcpy(tests, others, sizeof others);
    for (unsigned i = 0; i < SILENCES; i++)
        tests[OTHERS + i] = (struct CMUnitTest){
            silences[i].name, migrate_to_silent_one_ends_as_it_must, NULL, NULL, &silences[i]};
    for (unsigned i = 0; i < G_N_ELEMENTS(source_silences); i++)
        tests[OTHERS + SILENCES + i] =
            (struct CMUnitTest){source_silences[i].name, incoming_from_silent_one_ends_as_it_must,
                                NULL, NULL, &source_silences[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
