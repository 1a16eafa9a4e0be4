/* SPDX-License-Identifier: MIT */
/*
 * Recorded migrations of QEMU 7.2 and 11.1 (tests/captures), decoded to the last byte with every
 * rule of the protocol checked. Run from the root of the tree.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/unit/support/walk.h"

/* Parameters of a case; NULL: no such channel. */
typedef struct Capture {
    const char *machine;
    const char *main, *back, *urgent;
    const char *main_after, *back_after; /* of a recovery */
    unsigned count_pings;
    uint64_t count_lost_max;
    bool is_postcopy;
} Capture;

static void
check(bool is_good, const char *name, GError *error)
{
    if (!is_good)
        fail_msg("%s: %s", name, error ? error->message : "no error set");
}

typedef bool WalkChannel(Walk *walk, const uint8_t *bytes, size_t length, GError **error);

static void
walk_capture(Walk *walk, WalkChannel *channel, const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) bytes = NULL;
    size_t length;

    if (!name)
        return;
    bytes = walk_load(name);
    const uint8_t *data = g_bytes_get_data(bytes, &length);
    assert_true(length > 0);
    check(channel(walk, data, length, &error), name, error);
}

static void
decode_capture(void **state)
{
    const Capture *capture = *state;
    g_autoptr(Walk) walk = walk_new();

    walk->is_cut = capture->main_after != NULL;
    walk_capture(walk, walk_main, capture->main);
    walk_capture(walk, walk_urgent, capture->urgent);
    walk_capture(walk, walk_return, capture->back);
    assert_string_equal(walk->configuration.machine, capture->machine);
    if (capture->main_after) {
        assert_true(walk->reached_cut);
        assert_int_equal(walk->phase, WALK_RUNNING);
        assert_false(walk->has_shut);
        walk->is_cut = false;
        walk->is_resumed = true;
        walk_capture(walk, walk_return, capture->back_after);
        walk_capture(walk, walk_main, capture->main_after);
        assert_true(walk->has_resume_ack);
        assert_true(walk->count_lost <= capture->count_lost_max);
    }

    assert_true(walk_is_whole(walk));
    assert_true(walk->has_shut);
    assert_true(walk->was_running);
    assert_int_equal(walk->count_pings, capture->count_pings);
    assert_int_equal(walk->count_pongs, capture->count_pings);
    assert_int_equal(walk->phase, capture->is_postcopy ? WALK_END : WALK_NONE);
    assert_int_equal(walk->has_description, !capture->is_postcopy);
    assert_int_equal(walk->count_postcopy, walk->count_discarded + walk->count_lost);
    assert_int_equal(walk->count_requests > 0, capture->is_postcopy);
    assert_int_equal(walk->count_urgent > 0, capture->urgent != NULL);
}

static void
decode_capture_of_multifd_has_a_sync_for_each_flush(void **state)
{
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GError) error = NULL;
    static const char *const names[] = {"mf1111.1.fwd", "mf1111.2.fwd", "mf1111.3.fwd"};
    (void)state;

    GBytes *loaded[G_N_ELEMENTS(names)];
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        size_t length;
        loaded[i] = walk_load(names[i]);
        const uint8_t *data = g_bytes_get_data(loaded[i], &length);
        check(walk_add_multifd(walk, data, length, &error), names[i], error);
    }
    walk_capture(walk, walk_main, "mf1111.0.fwd");
    assert_true(walk_is_whole(walk));
    assert_true(walk->count_syncs >= 2);
    assert_true(walk->count_multifd_pages >= 16384);
    assert_int_equal(walk->count_page, 0);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        g_bytes_unref(loaded[i]);
}

/* ---- The walker refuses what breaks a rule: else the cases above would prove nothing -----------
 */

static void
assert_refused(Walk *walk, WalkChannel *channel, const uint8_t *bytes, size_t length,
               const char *text)
{
    g_autoptr(GError) error = NULL;

    assert_false(channel(walk, bytes, length, &error));
    assert_non_null(error);
    if (!strstr(error->message, text))
        fail_msg("expected '%s', got '%s'", text, error->message);
}

static void
walk_page_twice_in_postcopy_is_refused(void **state)
{
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GBytes) urgent = walk_load("pre77.1.fwd");
    size_t length;
    const uint8_t *data = g_bytes_get_data(urgent, &length);
    (void)state;

    walk_capture(walk, walk_main, "pre77.0.fwd");
    assert_false(walk_is_whole(walk));
    walk_capture(walk, walk_urgent, "pre77.1.fwd");
    assert_true(walk_is_whole(walk));
    assert_refused(walk, walk_urgent, data, length, "sent twice in postcopy");
}

static void
walk_return_path_without_its_pings_or_behind_shut_is_refused(void **state)
{
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GBytes) back = walk_load("post77.0.rev");
    size_t length;
    const uint8_t *data = g_bytes_get_data(back, &length);
    (void)state;

    assert_refused(walk, walk_return, data, length, "without its PING");
    walk_capture(walk, walk_main, "post77.0.fwd");
    assert_refused(walk, walk_return, data, length - 1, "return path is cut");
    walk_free(g_steal_pointer(&walk));
    walk = walk_new();
    walk_capture(walk, walk_main, "post77.0.fwd");
    walk_capture(walk, walk_return, "post77.0.rev");
    assert_refused(walk, walk_return, data, length, "bytes behind SHUT");
}

static void
walk_recovery_without_bitmaps_is_refused(void **state)
{
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GBytes) after = walk_load("rec11.1.fwd");
    size_t length;
    const uint8_t *data = g_bytes_get_data(after, &length);
    (void)state;

    walk->is_cut = true;
    walk_capture(walk, walk_main, "rec11.0.fwd");
    walk->is_cut = false;
    walk->is_resumed = true;
    assert_refused(walk, walk_main, data, length, "asked out of order");
}

static void
walk_main_cut_or_too_long_is_refused(void **state)
{
    g_autoptr(Walk) shorter = walk_new(), longer = walk_new();
    g_autoptr(GBytes) whole = walk_load("post11.0.fwd");
    size_t length;
    const uint8_t *data = g_bytes_get_data(whole, &length);
    g_autofree uint8_t *copy = g_malloc0(length + 1);
    (void)state;

    memcpy(copy, data, length);
    assert_refused(shorter, walk_main, copy, length - 1, "stream ends");
    assert_refused(longer, walk_main, copy, length + 1, "bytes behind EOF");
}

static void
walk_flush_without_its_sync_is_refused(void **state)
{
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GError) error = NULL;
    g_autoptr(GBytes) main_bytes = walk_load("mf1111.0.fwd"), channel = walk_load("mf1111.2.fwd");
    size_t length, channel_length;
    const uint8_t *data = g_bytes_get_data(main_bytes, &length);
    const uint8_t *packets = g_bytes_get_data(channel, &channel_length);
    (void)state;

    assert_refused(walk, walk_main, data, length, "flush without multifd channels");
    walk_free(g_steal_pointer(&walk));
    walk = walk_new();
    check(walk_add_multifd(walk, packets, 64, &error), "first packet", error);
    assert_refused(walk, walk_main, data, length, "multifd channel ends early");
    assert_false(walk_add_multifd(walk, packets, channel_length, NULL));
}

static Capture captures[] = {
    {"pc-i440fx-7.2", "rp77.0.fwd", "rp77.0.rev", NULL, NULL, NULL, 1, 0, false},
    {"pc-i440fx-11.1", "rp1111.0.fwd", "rp1111.0.rev", NULL, NULL, NULL, 1, 0, false},
    {"pc-i440fx-7.2", "post77.0.fwd", "post77.0.rev", NULL, NULL, NULL, 4, 0, true},
    {"pc-i440fx-11.1", "post11.0.fwd", "post11.0.rev", NULL, NULL, NULL, 5, 0, true},
    {"pc-i440fx-7.2", "pre77.0.fwd", "pre77.0.rev", "pre77.1.fwd", NULL, NULL, 4, 0, true},
    {"pc-i440fx-11.1", "pre1111.0.fwd", "pre1111.0.rev", "pre1111.1.fwd", NULL, NULL, 5, 0, true},
    {"pc-i440fx-7.2", "rec77.0.fwd", "rec77.0.rev", NULL, "rec77.1.fwd", "rec77.1.rev", 4, 64,
     true},
    {"pc-i440fx-11.1", "rec11.0.fwd", "rec11.0.rev", NULL, "rec11.1.fwd", "rec11.1.rev", 5, 64,
     true},
};

int
main(void)
{
    const struct CMUnitTest tests[] = {
        {"decode_capture_of_precopy_7_2", decode_capture, NULL, NULL, &captures[0]},
        {"decode_capture_of_precopy_11_1", decode_capture, NULL, NULL, &captures[1]},
        {"decode_capture_of_postcopy_7_2", decode_capture, NULL, NULL, &captures[2]},
        {"decode_capture_of_postcopy_11_1", decode_capture, NULL, NULL, &captures[3]},
        {"decode_capture_of_urgent_channel_7_2", decode_capture, NULL, NULL, &captures[4]},
        {"decode_capture_of_urgent_channel_11_1", decode_capture, NULL, NULL, &captures[5]},
        {"decode_capture_of_recovery_7_2", decode_capture, NULL, NULL, &captures[6]},
        {"decode_capture_of_recovery_11_1", decode_capture, NULL, NULL, &captures[7]},
        cmocka_unit_test(decode_capture_of_multifd_has_a_sync_for_each_flush),
        cmocka_unit_test(walk_page_twice_in_postcopy_is_refused),
        cmocka_unit_test(walk_return_path_without_its_pings_or_behind_shut_is_refused),
        cmocka_unit_test(walk_recovery_without_bitmaps_is_refused),
        cmocka_unit_test(walk_main_cut_or_too_long_is_refused),
        cmocka_unit_test(walk_flush_without_its_sync_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
