/* SPDX-License-Identifier: MIT */
/*
 * Loads a recorded recovery and finds where its steps end. See recorded.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/unit/support/recorded.h"

static void
require(bool is_good, const GError *error)
{
    if (!is_good)
        fail_msg("%s", error ? error->message : "no error set");
}

static GByteArray *
load(const char *name)
{
    GBytes *bytes = walk_load(name);
    return g_bytes_unref_to_array(bytes);
}

static uint64_t
count_held(const Walk *walk)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < walk->count_blocks; i++)
        for (uint64_t page = 0; page < walk->blocks[i].count_pages; page++)
            count += walk->blocks[i].held[page];
    return count;
}

static Walk *
walk_before(const GByteArray *bytes, size_t length)
{
    Walk *walk = walk_new();
    GError *error = NULL;

    walk->is_cut = walk->keeps_image = true;
    require(walk_main(walk, bytes->data, length, &error), error);
    walk->is_cut = false;
    return walk;
}

/* Pages that were recorded on their way and never arrived are not played. */
static void
cut_lost(Recorded *recorded, uint64_t count_arrived)
{
    while (count_held(recorded->walk) > count_arrived) {
        g_clear_pointer(&recorded->walk, walk_free);
        g_byte_array_set_size(recorded->before, recorded->before->len - STREAM_PAGE_BYTES);
        recorded->walk = walk_before(recorded->before, recorded->before->len);
    }
    assert_int_equal(count_held(recorded->walk), count_arrived);
}

static uint64_t
measure_back(Recorded *recorded)
{
    uint64_t count_arrived = 0;
    StreamReturn message;
    size_t at = 0, length;

    for (unsigned i = 0; i < recorded->walk->count_blocks; i++) {
        const GByteArray *back = recorded->back;
        const uint8_t *bits;
        assert_int_equal(
            stream_decode_return(back->data + at, back->len - at, &message, &length, NULL),
            STREAM_OK);
        at += length;
        uint64_t count_pages = recorded->walk->blocks[i].count_pages;
        assert_int_equal(stream_decode_bitmap(back->data + at, back->len - at, count_pages, &bits,
                                              &length, NULL),
                         STREAM_OK);
        at += length;
        for (uint64_t page = 0; page < count_pages; page++)
            count_arrived += bits[page / 8] >> page % 8 & 1;
    }
    recorded->bitmaps = at;
    at += ACK_BYTES;
    assert_int_equal(stream_decode_return(recorded->back->data + at, recorded->back->len - at,
                                          &message, &length, NULL),
                     STREAM_OK);
    assert_int_equal(message.type, STREAM_RETURN_REQ_PAGES_ID);
    assert_string_equal(message.name, recorded->names[0]);
    recorded->request = at + length;
    recorded->request_page = message.start / STREAM_PAGE_BYTES;
    return count_arrived;
}

Recorded *
recorded_load(const Recovery *recovery)
{
    Recorded *recorded = g_new0(Recorded, 1);

    recorded->before = load(recovery->before);
    recorded->after = load(recovery->after);
    recorded->back = load(recovery->after_back);
    recorded->walk = walk_before(recorded->before, recorded->before->len);
    for (unsigned i = 0; i < recorded->walk->count_blocks; i++) {
        recorded->names[i] = g_intern_string(recorded->walk->blocks[i].name);
        recorded->counts[i] = recorded->walk->blocks[i].count_pages;
        recorded->asked += RESUME_BYTES + 1 + strlen(recorded->names[i]);
    }
    cut_lost(recorded, measure_back(recorded));
    return recorded;
}

void
recorded_free(Recorded *recorded)
{
    walk_free(recorded->walk);
    g_byte_array_unref(recorded->before);
    g_byte_array_unref(recorded->after);
    g_byte_array_unref(recorded->back);
    g_free(recorded);
}

static uint32_t
device_length(const Walk *walk, uint32_t id)
{
    for (unsigned i = 0; i < walk->sections->len; i++)
        if (g_array_index(walk->sections, WalkSection, i).id == id)
            return (uint32_t)g_array_index(walk->sections, WalkSection, i).length;
    fail_msg("section %u was not walked", id);
    return 0;
}

/* The commands of a package, without the devices between them. */
static GByteArray *
thin_package(const Walk *walk, const uint8_t *bytes, size_t length_bytes)
{
    GByteArray *thin = g_byte_array_new();

    for (size_t at = 0, length = 0; at < length_bytes; at += length) {
        StreamElement element;
        assert_int_equal(
            stream_decode_element(bytes + at, length_bytes - at, &element, &length, NULL),
            STREAM_OK);
        if (element.type == STREAM_COMMAND)
            g_byte_array_append(thin, bytes + at, (guint)length);
        else
            length += device_length(walk, element.section_id) + 5;
    }
    return thin;
}

GByteArray *
recorded_before_without_devices(const Recorded *recorded)
{
    static const uint8_t head[] = {STREAM_COMMAND, 0, STREAM_COMMAND_PACKAGED, 0, 4};
    GByteArray *bytes = g_byte_array_new();
    const uint8_t *start = recorded->before->data;
    const uint8_t *found = memmem(start, recorded->before->len, head, sizeof head);
    StreamElement element;
    size_t length;

    assert_non_null(found);
    size_t at = (size_t)(found - start);
    assert_int_equal(
        stream_decode_element(found, recorded->before->len - at, &element, &length, NULL),
        STREAM_OK);
    uint32_t package = stream_parse_be32(&element);
    g_autoptr(GByteArray) thin = thin_package(recorded->walk, found + length, package);
    uint8_t size[4];
    StreamWriter writer = {size, 0, sizeof size};
    stream_put_be32(&writer, thin->len);
    g_byte_array_append(bytes, start, (guint)(at + sizeof head));
    g_byte_array_append(bytes, size, sizeof size);
    g_byte_array_append(bytes, thin->data, thin->len);
    at += length + package;
    g_byte_array_append(bytes, start + at, (guint)(recorded->before->len - at));
    return bytes;
}
