/* SPDX-License-Identifier: MIT */
/*
 * A real destination against sources that break the rules, one rule a case (peer_bad_streams.h),
 * over real sockets: it says what was wrong and where the guest is, the guest runs only where it
 * may, nothing hangs and memory does not grow with what was announced.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/unit/support/peer_bad_streams.h"
#include "tests/unit/support/peer_source.h"

typedef struct BadStream {
    const char *name;
    ScriptShape shape;
    ScriptChange change;
    const char *words;
    PeerOutcome outcome;
} BadStream;

#define ALL_LIST(X)                                                                                \
    OPENING_LIST(X) RECORD_LIST(X) COMMAND_LIST(X) PACKAGE_LIST(X) HANDED_OVER_LIST(X)

#define PUT(name, shape, how, step, statements, words, outcome)                                    \
    static void put_##name(StreamWriter *w)                                                        \
    {                                                                                              \
        statements;                                                                                \
    }
ALL_LIST(PUT)
#undef PUT

static BadStream streams[] = {
#define ROW(name, shape, how, step, statements, words, outcome)                                    \
    {"incoming_" #name,                                                                            \
     SCRIPT_##shape,                                                                               \
     {CHANGE_##how, STEP_##step, put_##name},                                                      \
     words,                                                                                        \
     OUTCOME_##outcome},
    ALL_LIST(ROW)
#undef ROW
};

static void
incoming_stream_ends_as_it_must(void **state)
{
    const BadStream *stream = *state;
    g_autoptr(Script) script = script_new(stream->shape, &stream->change);
    g_autoptr(PeerSource) source = peer_source_new(stream->shape);

    peer_source_play(source, script, script->main.length);
    peer_source_check(source, stream->outcome, stream->words);
}

/* ---- The unchanged ones, and cut ones ----------------------------------------------------------
 */

static ScriptShape shapes[] = {SCRIPT_PRECOPY, SCRIPT_POSTCOPY, SCRIPT_PREEMPT};

static void
incoming_whole_stream_completes(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    g_autoptr(Script) script = script_new(shape, NULL);
    g_autoptr(PeerSource) source = peer_source_new(shape);

    peer_source_play(source, script, script->main.length);
    peer_source_check(source, OUTCOME_COMPLETED, "");
    const uint8_t *memory = source->guest->blocks[0].host_address;
    assert_int_equal(memory[PEER_PAGES(1)], 2);
    if (shape != SCRIPT_PRECOPY) {
        assert_int_equal(memory[PEER_PAGES(SCRIPT_FIRST)], SCRIPT_FIRST + 1);
        assert_int_equal(memory[PEER_PAGES(SCRIPT_FIRST + 2)], SCRIPT_FIRST + 3);
    }
}

static PeerOutcome
expect_of_cut(const Script *script, ScriptShape shape, size_t cut)
{
    if (shape == SCRIPT_PRECOPY)
        return cut >= script->offsets[STEP_EOF] ? OUTCOME_COMPLETED : OUTCOME_FAILED;
    if (cut < script->offsets[STEP_PACKAGE])
        return OUTCOME_FAILED;
    if (cut >= script->offsets[STEP_PUSH_EOS])
        return OUTCOME_COMPLETED;
    return cut >= script->offsets[STEP_PUSHED] ? OUTCOME_PAUSED_OR_COMPLETED : OUTCOME_PAUSED;
}

static void
incoming_cut_stream_ends_as_it_must(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    g_autoptr(Script) script = script_new(shape, NULL);
    size_t before = SIZE_MAX;

    for (ScriptStep step = 0; step < STEP_COUNT; step++) {
        for (int around = -1; around <= 1; around++) {
            size_t cut = script->offsets[step] + (size_t)around;
            if (!script->offsets[step] || cut > script->main.length || cut == before)
                continue;
            g_autoptr(PeerSource) source = peer_source_new(shape);
            before = cut;
            peer_source_play(source, script, cut);
            peer_source_check(source, expect_of_cut(script, shape, cut), "");
        }
    }
}

static void
incoming_nothing_at_all_fails(void **state)
{
    (void)state;
    g_autoptr(Script) script = script_new(SCRIPT_PRECOPY, NULL);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_PRECOPY);

    peer_source_play(source, script, 0);
    peer_source_check(source, OUTCOME_FAILED, "the source closed the connection");
}

/* ---- Guests that do not play along -------------------------------------------------------------
 */

static void
incoming_device_refused_fails(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    g_autoptr(Script) script = script_new(shape, NULL);
    g_autoptr(PeerSource) source = peer_source_new(shape);

    source->guest->refuses_state = true;
    peer_source_play(source, script, script->main.length);
    peer_source_check(source, OUTCOME_FAILED, "load device '" PEER_DEVICE "' 0: no such device");
}

static void
incoming_paused_guest_is_not_started(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    ScriptChange change = {CHANGE_NONE, STEP_HEADER, NULL};
    g_autoptr(Script) script = script_new(shape, &change);
    g_autoptr(PeerSource) source = peer_source_new(shape);

    faultline_set_autostart(source->guest->faultline, false);
    peer_source_play(source, script, script->main.length);
    assert_int_equal(peer_source_wait(source), FAULTLINE_STATUS_COMPLETED);
    assert_int_equal(peer_count(&source->guest->count_resumes), 0);
    assert_int_equal(faultline_run_state(source->guest->faultline), FAULTLINE_RUN_PAUSED);
}

/* The device waits for a page when the source goes away: the guest cannot run, nor go back. */
static void
incoming_source_lost_under_a_loading_device_is_told(void **state)
{
    (void)state;
    g_autoptr(Script) script = script_new(SCRIPT_POSTCOPY, NULL);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_POSTCOPY);

    source->guest->touches_page = SCRIPT_END - 1;
    peer_source_play(source, script, script->offsets[STEP_PACKAGE]);
    FaultlineInfo info;
    assert_int_equal(peer_source_wait(source), FAULTLINE_STATUS_POSTCOPY_PAUSED);
    faultline_query(source->guest->faultline, &info);
    assert_non_null(strstr(info.error, "loading its devices waits for pages"));
    assert_int_equal(peer_count(&source->guest->count_resumes), 0);
}

static void
incoming_loading_device_gets_its_page(void **state)
{
    (void)state;
    g_autoptr(Script) script = script_new(SCRIPT_POSTCOPY, NULL);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_POSTCOPY);

    source->guest->touches_page = SCRIPT_END - 1;
    peer_source_play(source, script, script->main.length);
    peer_source_check(source, OUTCOME_COMPLETED, "");
}

static void
incoming_urgent_page_before_listen_fails(void **state)
{
    (void)state;
    g_autoptr(Script) script = script_new(SCRIPT_PREEMPT, NULL);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_PREEMPT);

    /* a page that came in precopy, and is nothing special yet */
    g_byte_array_append(source->main->to_send, script->main.bytes,
                        (guint)script->offsets[STEP_DISCARDED]);
    g_byte_array_append(source->urgent->to_send, script->urgent.bytes,
                        (guint)script->urgent.length);
    peer_link_pump(source->main, 1);
    peer_link_pump(source->urgent, 1);
    peer_source_check(source, OUTCOME_FAILED, "before POSTCOPY_LISTEN");
}

/* ---- Floods ------------------------------------------------------------------------------------
 */

#define COUNT_PINGS  10000u
#define COUNT_UNREAD 100000u /* their answers are more than a socket holds */

static void
put_pings(StreamWriter *w)
{
    for (uint32_t i = 0; i < COUNT_PINGS; i++)
        stream_put_ping(w, 0x1000 + i);
}

static void
put_many_pings(StreamWriter *w)
{
    for (uint32_t i = 0; i < COUNT_UNREAD; i++)
        stream_put_ping(w, i);
}

static void
incoming_flood_of_pings_is_answered(void **state)
{
    (void)state;
    ScriptChange change = {CHANGE_BEFORE, STEP_START, put_pings};
    g_autoptr(Script) script = script_new(SCRIPT_PRECOPY, &change);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_PRECOPY);

    peer_source_play(source, script, script->main.length);
    peer_source_check(source, OUTCOME_COMPLETED, "");
    /* each answer has 8 bytes; beside them come those to HELLO and COMMIT, and SHUT */
    assert_int_equal(source->main->received->len, (COUNT_PINGS + 3) * 8);
}

/* The source that never reads fills the socket; then the destination takes no more of it either,
 * until the source goes away. */
static void
incoming_flood_of_pings_unread_does_not_grow(void **state)
{
    (void)state;
    ScriptChange change = {CHANGE_BEFORE, STEP_START, put_many_pings};
    g_autoptr(Script) script = script_new(SCRIPT_PRECOPY, &change);
    g_autoptr(PeerSource) source = peer_source_new(SCRIPT_PRECOPY);

    source->main->is_deaf = true;
    g_byte_array_append(source->main->to_send, script->main.bytes, (guint)script->main.length);
    for (unsigned idle = 0; idle < 10;)
        idle = peer_link_pump(source->main, 20) ? 0 : idle + 1;
    assert_int_equal(faultline_wait(source->guest->faultline, 0), FAULTLINE_STATUS_ACTIVE);
    assert_false(peer_link_is_sent(source->main));
    shutdown(source->main->fd, SHUT_RDWR);
    source->main->is_closed = true;
    peer_source_check(source, OUTCOME_FAILED, "");
}

#define SHAPE_TEST(name, shape)                                                                    \
    {                                                                                              \
#name "_" #shape, name, NULL, NULL, &shapes[SCRIPT_##shape]                                \
    }

int
main(void)
{
    const struct CMUnitTest others[] = {
        SHAPE_TEST(incoming_whole_stream_completes, PRECOPY),
        SHAPE_TEST(incoming_whole_stream_completes, POSTCOPY),
        SHAPE_TEST(incoming_whole_stream_completes, PREEMPT),
        SHAPE_TEST(incoming_cut_stream_ends_as_it_must, PRECOPY),
        SHAPE_TEST(incoming_cut_stream_ends_as_it_must, POSTCOPY),
        cmocka_unit_test(incoming_nothing_at_all_fails),
        SHAPE_TEST(incoming_device_refused_fails, PRECOPY),
        SHAPE_TEST(incoming_device_refused_fails, POSTCOPY),
        SHAPE_TEST(incoming_device_refused_fails, PREEMPT),
        SHAPE_TEST(incoming_paused_guest_is_not_started, PRECOPY),
        SHAPE_TEST(incoming_paused_guest_is_not_started, POSTCOPY),
        cmocka_unit_test(incoming_source_lost_under_a_loading_device_is_told),
        cmocka_unit_test(incoming_loading_device_gets_its_page),
        cmocka_unit_test(incoming_urgent_page_before_listen_fails),
        cmocka_unit_test(incoming_flood_of_pings_is_answered),
        cmocka_unit_test(incoming_flood_of_pings_unread_does_not_grow),
    };
    struct CMUnitTest tests[G_N_ELEMENTS(streams) + G_N_ELEMENTS(others)];

    memcpy(tests, others, sizeof others);
    for (unsigned i = 0; i < G_N_ELEMENTS(streams); i++)
        tests[G_N_ELEMENTS(others) + i] = (struct CMUnitTest){
            streams[i].name, incoming_stream_ends_as_it_must, NULL, NULL, &streams[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
