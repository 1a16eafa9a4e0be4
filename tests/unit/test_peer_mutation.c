/* SPDX-License-Identifier: MIT */
/*
 * Recorded streams with bytes changed, taken out, doubled or cut off, fed to a real destination:
 * nothing crashes, asserts or hangs, and a guest runs only when everything that it needs has come.
 * Which mutations are made follows from a seed, which a failure prints; FAULTLINE_TEST_SEED sets
 * the first one and FAULTLINE_TEST_RUNS how many follow.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support/peer_recording.h"
#include "tests/unit/support/peer_source.h"

#define RUNS_PRESET 120u
#define FIRST_SEED  20240u
#define CHANGES_MAX 4u

static ScriptShape shapes[] = {SCRIPT_PRECOPY, SCRIPT_POSTCOPY, SCRIPT_PREEMPT};

static unsigned
number_from(const char *name, unsigned preset)
{
    const char *text = g_getenv(name);
    return text ? (unsigned)strtoul(text, NULL, 10) : preset;
}

/* Mostly near what is no page's content: there the stream has its structure. */
static size_t
pick_place(GRand *rand, const GByteArray *bytes)
{
    size_t at = (size_t)g_rand_int_range(rand, 0, (int)bytes->len);
    unsigned tries = 0;

    if (g_rand_boolean(rand))
        return MIN((size_t)g_rand_int_range(rand, 0, 256), bytes->len - 1);
    while (tries++ < 8192 && at + 1 < bytes->len && bytes->data[at] == bytes->data[at + 1])
        at++;
    return at;
}

static void
change_once(GRand *rand, GByteArray *bytes)
{
    if (bytes->len < 2)
        return;
    size_t at = pick_place(rand, bytes);
    size_t length = MIN((size_t)g_rand_int_range(rand, 1, 16), bytes->len - at);
    g_autofree uint8_t *copy = g_memdup2(bytes->data + at, length);

    switch (g_rand_int_range(rand, 0, 7)) {
    case 0:
        bytes->data[at] ^= (uint8_t)(1u << g_rand_int_range(rand, 0, 8));
        break;
    case 1:
        bytes->data[at] = (uint8_t)g_rand_int_range(rand, 0, 256);
        break;
    case 2:
        memset(bytes->data + at, 0xff, length);
        break;
    case 3:
        memset(bytes->data + at, 0, length);
        break;
    case 4:
        g_byte_array_remove_range(bytes, (guint)at, (guint)length);
        break;
    case 5:
        g_byte_array_set_size(bytes, bytes->len + (guint)length);
        memmove(bytes->data + at + length, bytes->data + at, bytes->len - at - length);
        memcpy(bytes->data + at, copy, length);
        break;
    default:
        g_byte_array_set_size(bytes, (guint)at);
        break;
    }
}

static GByteArray *
mutate(GRand *rand, const GByteArray *bytes, bool is_left_good)
{
    GByteArray *mutant = g_byte_array_new();
    int count = is_left_good ? 0 : g_rand_int_range(rand, 1, CHANGES_MAX + 1);

    g_byte_array_append(mutant, bytes->data, bytes->len);
    while (count--)
        change_once(rand, mutant);
    return mutant;
}

static bool
is_ready_for_urgent(const PeerSource *source)
{
    return peer_link_is_sent(source->main) && peer_source_has_answered(source, STREAM_PING_RUNNING);
}

/* The urgent channel speaks once the destination listens, or when nothing moves any more; whether
 * it is read then is not sure either. */
static void
play(PeerSource *source, const GByteArray *main, const GByteArray *urgent)
{
    g_byte_array_append(source->main->to_send, main->data, main->len);
    for (unsigned idle = 0;
         idle < 8 && !(urgent ? is_ready_for_urgent(source) : peer_link_is_sent(source->main));)
        idle = peer_link_pump(source->main, 2) ? 0 : idle + 1;
    if (urgent) {
        g_byte_array_append(source->urgent->to_send, urgent->data, urgent->len);
        for (unsigned idle = 0; idle < 8 && !peer_link_is_sent(source->urgent);)
            idle = peer_link_pump(source->urgent, 2) ? 0 : idle + 1;
        for (unsigned idle = 0; idle < 8;)
            idle = peer_link_pump(source->main, 2) ? 0 : idle + 1;
        peer_link_half_close(source->urgent);
    }
    peer_link_half_close(source->main);
}

/* A guest that ran has all of it, or, after RUN, knows what it lacks. */
static void
check(PeerSource *source, ScriptShape shape, unsigned seed)
{
    FaultlineStatus status = peer_source_wait(source);
    unsigned count_resumes = peer_count(&source->guest->count_resumes);
    bool may_run = status == FAULTLINE_STATUS_COMPLETED ||
                   (status == FAULTLINE_STATUS_POSTCOPY_PAUSED && shape != SCRIPT_PRECOPY);
    FaultlineInfo info;

    faultline_query(source->guest->faultline, &info);
    if (count_resumes > (may_run ? 1u : 0u))
        fail_msg("seed %u: the guest was started %u times, status %s", seed, count_resumes,
                 faultline_status_name(status));
    /* In setup: turned away before it had begun, which is no failure of the migration. */
    if (status != FAULTLINE_STATUS_COMPLETED && status != FAULTLINE_STATUS_SETUP && !info.error[0])
        fail_msg("seed %u: status %s without an error", seed, faultline_status_name(status));
    if (status == FAULTLINE_STATUS_COMPLETED && info.missing_pages)
        fail_msg("seed %u: completed, and pages are missing", seed);
}

static void
incoming_mutants_end_without_harm(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    unsigned first = number_from("FAULTLINE_TEST_SEED", FIRST_SEED);
    unsigned count = number_from("FAULTLINE_TEST_RUNS", RUNS_PRESET);
    unsigned count_completed = 0;
    g_autoptr(PeerRecording) recording = peer_recording_new(shape, true);

    peer_recording_run(recording);
    for (unsigned seed = first; seed < first + count; seed++) {
        g_autoptr(GRand) rand = g_rand_new_with_seed(seed);
        bool is_main_good = shape == SCRIPT_PREEMPT && seed % 3 == 0;
        g_autoptr(GByteArray) main = mutate(rand, recording->sources[0]->received, is_main_good);
        g_autoptr(GByteArray) urgent = NULL;
        if (shape == SCRIPT_PREEMPT)
            urgent = mutate(rand, recording->sources[1]->received, seed % 3 == 1);

        g_autoptr(PeerSource) source = peer_source_new(shape);

        play(source, main, urgent);
        check(source, shape, seed);
        count_completed +=
            faultline_wait(source->guest->faultline, 0) == FAULTLINE_STATUS_COMPLETED;
    }
    /* changes of page contents are not seen by anybody; most others must be */
    print_message("%u of %u mutants completed\n", count_completed, count);
    assert_true(count_completed < count);
}

#define SHAPE_TEST(name, shape)                                                                    \
    {                                                                                              \
#name "_" #shape, name, NULL, NULL, &shapes[SCRIPT_##shape]                                \
    }

int
main(void)
{
    const struct CMUnitTest tests[] = {
        SHAPE_TEST(incoming_mutants_end_without_harm, PRECOPY),
        SHAPE_TEST(incoming_mutants_end_without_harm, POSTCOPY),
        SHAPE_TEST(incoming_mutants_end_without_harm, PREEMPT),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
