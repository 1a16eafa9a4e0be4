/* SPDX-License-Identifier: MIT */
/*
 * What two real Faultlines say to each other is QEMU's stream: whole migrations are recorded
 * between them and read by an independent parser, every byte, every channel, both directions. The
 * test's own reader (walk.h) reads them too, also where there is no python3.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/unit/support/peer_recording.h"
#include "tests/unit/support/walk.h"

static ScriptShape shapes[] = {SCRIPT_PRECOPY, SCRIPT_POSTCOPY, SCRIPT_PREEMPT};

static void
join_reader(PeerGuest *guest)
{
    assert_true(guest->has_reader);
    pthread_join(guest->reader, NULL);
    guest->has_reader = false;
}

static void
check_recording(const PeerRecording *recording, ScriptShape shape)
{
    FaultlineInfo source, destination;

    join_reader(recording->destination);
    assert_true(peer_guest_is_filled(recording->destination));
    assert_int_equal(recording->count_channels, shape == SCRIPT_PREEMPT ? 2 : 1);
    assert_int_equal(peer_count(&recording->destination->count_resumes), 1);
    assert_int_equal(peer_count(&recording->source->count_resumes), 1);
    assert_int_equal(peer_count(&recording->source->count_pauses), 1);
    faultline_query(recording->source->faultline, &source);
    faultline_query(recording->destination->faultline, &destination);
    assert_int_equal(source.run_state, FAULTLINE_RUN_POSTMIGRATE);
    assert_int_equal(destination.run_state, FAULTLINE_RUN_RUNNING);
    assert_true(source.zero_pages > 0 && source.normal_pages > 0);
    assert_true((source.postcopy_requests > 0) == (shape != SCRIPT_PRECOPY));
    assert_int_equal(source.postcopy_requests, destination.postcopy_requests);
}

static void
check_walk(bool is_good, const char *what, const GError *error)
{
    if (!is_good)
        fail_msg("%s: %s", what, error ? error->message : "no error set");
}

static void
put_instead(uint8_t *answers, size_t length, uint32_t own, uint32_t other)
{
    uint8_t expected[8];
    StreamWriter writer = {expected, 0, sizeof expected};

    stream_put_return_value(&writer, STREAM_RETURN_PONG, own);
    writer = (StreamWriter){memmem(answers, length, expected, sizeof expected), 0, sizeof expected};
    assert_non_null(writer.bytes);
    stream_put_return_value(&writer, STREAM_RETURN_PONG, other);
}

/* A faultline's answers to hello and agreement are its own; the walk knows a QEMU's, which are the
 * pings. */
static uint8_t *
answer_as_qemu(const GByteArray *back, ScriptShape shape, bool with_runs)
{
    uint8_t *answers = g_memdup2(back->data, back->len);
    uint32_t features = STREAM_FEATURE_COMMIT | (with_runs ? STREAM_FEATURE_RUNS : 0);
    uint32_t agreed = shape == SCRIPT_PREEMPT ? 3 : 1;

    put_instead(answers, back->len, STREAM_HELLO_ANSWER | features, STREAM_HELLO | features);
    if (shape != SCRIPT_PRECOPY)
        put_instead(answers, back->len, STREAM_AGREE_ANSWER | agreed, STREAM_PING_AGREE | agreed);
    return answers;
}

static void
walk_recording(const PeerRecording *recording, ScriptShape shape, bool with_runs)
{
    const GByteArray *main = recording->sources[0]->received;
    const GByteArray *back = recording->destinations[0]->received;
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GError) error = NULL;

    walk->takes_runs = with_runs;
    bool is_good = walk_main(walk, main->data, main->len, &error);
    check_walk(is_good, "main", error);
    if (shape == SCRIPT_PREEMPT) {
        const GByteArray *urgent = recording->sources[1]->received;
        check_walk(walk_urgent(walk, urgent->data, urgent->len, &error), "urgent", error);
        assert_true(walk->count_urgent > 0);
        assert_int_equal(recording->destinations[1]->received->len, 0);
    }
    g_autofree uint8_t *answers = answer_as_qemu(back, shape, with_runs);
    check_walk(walk_return(walk, answers, back->len, &error), "return path", error);
    assert_true(walk_is_whole(walk));
    assert_true(walk->has_shut && walk->was_running);
    assert_int_equal(walk->count_pongs, walk->count_pings);
    assert_int_equal(walk->count_blocks, 2);
    assert_true(walk->count_zero > 0 && walk->count_page > 0);
    assert_int_equal(walk->count_runs > 0, with_runs);
    if (shape != SCRIPT_PRECOPY)
        assert_int_equal(walk->count_discarded, PEER_RAM0_PAGES + PEER_RAM1_PAGES);
}

static void
migrate_recorded_is_walked_to_the_end(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;

    for (unsigned with_runs = 0; with_runs < 2; with_runs++) {
        g_autoptr(PeerRecording) recording = peer_recording_new(shape, with_runs);
        peer_recording_run(recording);
        check_recording(recording, shape);
        walk_recording(recording, shape, with_runs);
    }
}

/* It knows what QEMU sends. */
static void
migrate_recorded_passes_an_independent_parser(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    const char *parser = peer_parser_find();
    if (!parser)
        skip();
    g_autoptr(PeerRecording) recording = peer_recording_new(shape, false);

    peer_recording_run(recording);
    check_recording(recording, shape);
    g_autofree char *main = peer_recording_save(recording, "main", recording->sources[0]->received);
    g_autofree char *back =
        peer_recording_save(recording, "back", recording->destinations[0]->received);
    peer_parser_run(parser, (const char *const[]){"--rp", back, NULL});
    if (shape != SCRIPT_PREEMPT) {
        peer_parser_run(parser, (const char *const[]){main, NULL});
        return;
    }
    g_autofree char *urgent =
        peer_recording_save(recording, "urgent", recording->sources[1]->received);
    peer_parser_run(parser, (const char *const[]){main, "--preempt-file", urgent, NULL});
}

#define SHAPE_TEST(name, shape)                                                                    \
    {                                                                                              \
#name "_" #shape, name, NULL, NULL, &shapes[SCRIPT_##shape]                                \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SHAPE_TEST(migrate_recorded_is_walked_to_the_end, PRECOPY),
        SHAPE_TEST(migrate_recorded_is_walked_to_the_end, POSTCOPY),
        SHAPE_TEST(migrate_recorded_is_walked_to_the_end, PREEMPT),
        SHAPE_TEST(migrate_recorded_passes_an_independent_parser, PRECOPY),
        SHAPE_TEST(migrate_recorded_passes_an_independent_parser, POSTCOPY),
        SHAPE_TEST(migrate_recorded_passes_an_independent_parser, PREEMPT),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
