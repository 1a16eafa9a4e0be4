/* SPDX-License-Identifier: MIT */
/*
 * Damaged streams, from a fixed seed: bits flipped, bytes set, taken out and put in, ends cut off.
 * Whatever comes, a decoder answers; it says why it refuses, and a sanitizer sees no byte read that
 * is not there (each stream lies in a heap block of its own size).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support/stream_cases.h"
#include "tests/unit/support/walk.h"

#define SEED            20261122u
#define ROUNDS_MESSAGES 300u /* of each message: 44 of them */
#define ROUNDS_STREAMS  800u /* of each stream: 9 of them */
#define STREAM_BYTES    (20u * 1024u)

/* Changes 1 to 4 places; the stream has room for 4 bytes more. Returns its new length. */
static size_t
mutate(GRand *random, uint8_t *bytes, size_t length)
{
    static const uint8_t interesting[] = {0x00, 0x01, 0x7e, 0x7f, 0x80, 0xff, 0x05, 0x08, 0x10};
    unsigned changes = (unsigned)g_rand_int_range(random, 1, 5);

    for (unsigned i = 0; i < changes && length > 1; i++) {
        /* heads are denser in meaning than pages: every other change goes near the start */
        size_t reach = g_rand_boolean(random) ? MIN(length, 64) : length;
        size_t at = (size_t)g_rand_int_range(random, 0, (gint32)reach);
        switch (g_rand_int_range(random, 0, 5)) {
        case 0:
            bytes[at] ^= (uint8_t)(1u << g_rand_int_range(random, 0, 8));
            break;
        case 1:
            bytes[at] = interesting[g_rand_int_range(random, 0, G_N_ELEMENTS(interesting))];
            break;
        case 2:
            memmove(bytes + at + 1, bytes + at, length - at);
            length++;
            break;
        case 3:
            memmove(bytes + at, bytes + at + 1, length - at - 1);
            length--;
            break;
        default:
            length = at;
            break;
        }
    }
    return length;
}

static void
decode_mutated_message_answers_and_reads_only_it(void **state)
{
    GRand *random = g_rand_new_with_seed(SEED);
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    unsigned answers[3] = {0};
    (void)state;

    for (unsigned round = 0; round < ROUNDS_MESSAGES * STREAM_CASE_COUNT; round++) {
        const StreamCase *one = &stream_cases[round % STREAM_CASE_COUNT];
        g_autoptr(GError) error = NULL;
        size_t length = stream_case_encode(one, bytes) + one->behind, used = 0;
        length = mutate(random, bytes, length);
        uint8_t *copy = stream_case_copy(bytes, length);
        StreamResult result = one->decode(copy, length, &used, &error);
        free(copy);
        answers[result]++;
        assert_int_equal(error != NULL, result == STREAM_BAD);
        if (result == STREAM_OK)
            assert_in_range(used, 1, length);
        if (result == STREAM_MORE)
            assert_in_range(used, length + 1, STREAM_ITEM_MAX);
    }
    /* the mutations are neither harmless nor all fatal */
    assert_true(answers[STREAM_OK] > 0 && answers[STREAM_MORE] > 0 && answers[STREAM_BAD] > 0);
    g_rand_free(random);
}

/* ---- Streams -----------------------------------------------------------------------------------
 */

typedef bool Drive(const uint8_t *bytes, size_t length, GError **error);

static bool
drive_main(const uint8_t *bytes, size_t length, GError **error)
{
    g_autoptr(Walk) walk = walk_new();
    walk->is_cut = true;
    return walk_main(walk, bytes, length, error);
}

static Walk *
walk_with_blocks(void)
{
    static const char *const names[] = {"pc.ram",  "/rom@etc/acpi/tables",  "pc.rom",
                                        "pc.bios", "/rom@etc/table-loader", "/rom@etc/acpi/rsdp"};
    static const uint64_t counts[] = {16384, 32, 32, 16, 1, 1};
    Walk *walk = walk_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        g_strlcpy(walk->blocks[i].name, names[i], sizeof walk->blocks[i].name);
        walk->blocks[i].count_pages = counts[i];
        walk->blocks[i].held = g_malloc0(counts[i]);
        memset(walk->blocks[i].held, 1, counts[i]);
    }
    walk->count_blocks = G_N_ELEMENTS(names);
    for (unsigned i = 0; i < 5; i++)
        walk->pings[walk->count_pings++] = i < 4 ? i + 1 : 0x42;
    return walk;
}

static bool
drive_return(const uint8_t *bytes, size_t length, GError **error)
{
    g_autoptr(Walk) walk = walk_with_blocks();
    walk->is_resumed = true;
    return walk_return(walk, bytes, length, error);
}

static bool
drive_urgent(const uint8_t *bytes, size_t length, GError **error)
{
    g_autoptr(Walk) walk = walk_with_blocks();
    return walk_urgent(walk, bytes, length, error);
}

static bool
drive_multifd(const uint8_t *bytes, size_t length, GError **error)
{
    g_autoptr(Walk) walk = walk_with_blocks();
    return walk_add_multifd(walk, bytes, length, error) && walk_sync_multifd(walk, error);
}

static size_t
find(const uint8_t *bytes, size_t length, const char *what, size_t what_length)
{
    const uint8_t *at = memmem(bytes, length, what, what_length);

    assert_non_null(at);
    return (size_t)(at - bytes);
}

/* The head of a recorded main channel, to behind START; then discards and package. */
static size_t
cut_out_switch(const uint8_t *data, size_t length, uint8_t *bytes)
{
    size_t head = find(data, length, "\0\0\0\0\0\0\0\x10\x7e", 9) + 13;
    size_t from = find(data, length, "\x08\0\x06\0", 4);
    size_t count = MIN(STREAM_BYTES - head, length - from);

    memcpy(bytes, data, head);
    memcpy(bytes + head, data + from, count);
    return head + count;
}

static const struct {
    const char *name;
    Drive *drive;
    bool is_switch;
} streams[] = {
    {"post77.0.fwd", drive_main, false},    {"post11.0.fwd", drive_main, false},
    {"post77.0.fwd", drive_main, true},     {"post11.0.fwd", drive_main, true},
    {"rec77.1.rev", drive_return, false},   {"rec11.1.rev", drive_return, false},
    {"post77.0.rev", drive_return, false},  {"pre77.1.fwd", drive_urgent, false},
    {"mf1111.1.fwd", drive_multifd, false},
};

static void
decode_mutated_capture_answers_and_reads_only_it(void **state)
{
    GRand *random = g_rand_new_with_seed(SEED);
    g_autofree uint8_t *whole = g_malloc0(STREAM_BYTES + 8), *bytes = g_malloc0(STREAM_BYTES + 8);
    unsigned refused = 0;
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(streams); i++) {
        g_autoptr(GBytes) loaded = walk_load(streams[i].name);
        size_t size, count;
        const uint8_t *data = g_bytes_get_data(loaded, &size);
        if (streams[i].is_switch) {
            count = cut_out_switch(data, size, whole);
        } else {
            count = MIN(size, STREAM_BYTES);
            memcpy(whole, data, count);
        }
        for (unsigned round = 0; round < ROUNDS_STREAMS; round++) {
            g_autoptr(GError) error = NULL;
            memcpy(bytes, whole, count);
            size_t length = mutate(random, bytes, count);
            uint8_t *copy = stream_case_copy(bytes, length);
            bool is_good = streams[i].drive(copy, length, &error);
            free(copy);
            refused += !is_good;
            if (is_good == (error != NULL))
                fail_msg("%s round %u: good %d, %s", streams[i].name, round, is_good,
                         error ? error->message : "no error");
        }
    }
    assert_in_range(refused, 1, ROUNDS_STREAMS * G_N_ELEMENTS(streams) - 1);
    g_rand_free(random);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_mutated_message_answers_and_reads_only_it),
        cmocka_unit_test(decode_mutated_capture_answers_and_reads_only_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
