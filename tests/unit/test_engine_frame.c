/* SPDX-License-Identifier: MIT */
/*
 * Frames over a real socket pair: what is put arrives, in order, named once a block; what is full
 * or pending says so; memory is released only after the transport has let go of it.
 */
#include "engine/frame.h"
#include "engine/role.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGES 512u
#define PAGE  FAULTLINE_PAGE_BYTES

typedef struct Fixture {
    TransportRing *ring;
    TransportLink *link;
    FrameQueue queue;
    RamBlocks blocks;
    FaultlineBlock described[2];
    int peer;
    GByteArray *got;
} Fixture;

static void
describe_block(FaultlineBlock *block, const char *name)
{
    int fd = memfd_create(name, MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, PAGES * PAGE), 0);
    *block = (FaultlineBlock){.name = name,
                              .length_bytes = PAGES * PAGE,
                              .fd = fd,
                              .page_size_bytes = PAGE,
                              .shared = true};
    block->host_address =
        mmap(NULL, block->length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(block->host_address != MAP_FAILED);
}

static Fixture *
fixture_new(void)
{
    Fixture *fixture = g_new0(Fixture, 1);
    g_autoptr(GError) error = NULL;
    int ends[2];

    describe_block(&fixture->described[0], "one");
    describe_block(&fixture->described[1], "two");
    fixture->described[1].guest_address = PAGES * PAGE;
    assert_true(ram_blocks_init(&fixture->blocks, fixture->described, 2, NULL));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    fixture->peer = ends[1];
    fixture->got = g_byte_array_new();
    fixture->ring = transport_ring_new(&error);
    if (!fixture->ring)
        fail_msg("%s", error->message);
    g_autofree char *uri = g_strdup_printf("fd:%d", ends[0]);
    TransportConnector *connector = transport_connect(fixture->ring, uri, NULL);
    assert_non_null(connector);
    while (transport_connect_finish(connector, &fixture->link, NULL) == TRANSPORT_WAIT)
        transport_ring_wait(fixture->ring, 0);
    transport_connector_free(connector);
    assert_non_null(fixture->link);
    frame_queue_init(&fixture->queue);
    fixture->queue.sender = transport_sender_new(fixture->ring, fixture->link);
    return fixture;
}

static void
fixture_free(Fixture *fixture)
{
    transport_sender_free(fixture->queue.sender);
    frame_queue_clear(&fixture->queue);
    transport_link_unref(fixture->link);
    transport_ring_free(fixture->ring);
    ram_blocks_clear(&fixture->blocks);
    for (unsigned i = 0; i < 2; i++) {
        munmap(fixture->described[i].host_address, PAGES * PAGE);
        close(fixture->described[i].fd);
    }
    if (fixture->peer >= 0)
        close(fixture->peer);
    g_byte_array_unref(fixture->got);
    g_free(fixture);
}

static void
fill_page(Fixture *fixture, unsigned block, uint64_t page)
{
    RamBlock *ram = &fixture->blocks.blocks[block];
    memset(ram_block_address(ram, page), (int)(1 + (page * 7 + block) % 255), PAGE);
}

static void
put_page(Fixture *fixture, unsigned block, uint64_t page)
{
    frame_queue_put_page(&fixture->queue, &fixture->blocks.blocks[block], page);
}

/* What has come to the peer so far. */
static void
receive(Fixture *fixture)
{
    static uint8_t bytes[1 << 16];
    ssize_t length;
    while ((length = recv(fixture->peer, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        g_byte_array_append(fixture->got, bytes, (guint)length);
}

static void
drain(Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    FlushResult result;
    while ((result = frame_queue_drain(&fixture->queue, &error)) == FLUSH_WAIT) {
        receive(fixture);
        /* A send that is under way takes more as the peer reads, and does not wake us for that. */
        transport_ring_wait(fixture->ring, clock_now_ns() + 1000000);
    }
    if (result != FLUSH_TAKEN)
        fail_msg("%s", error->message);
    receive(fixture);
}

typedef struct Cursor {
    const uint8_t *at;
    size_t left;
} Cursor;

/* A record's head, as it must be; name NULL: CONTINUE. */
static StreamRecord
expect_head(Cursor *cursor, const char *name, uint64_t page, uint32_t count, bool is_zero)
{
    StreamRecord record;
    size_t length;
    g_autoptr(GError) error = NULL;

    if (stream_decode_record(cursor->at, cursor->left, "main", count > 1, &record, &length,
                             &error) != STREAM_OK)
        fail_msg("record of page %u: %s", (unsigned)page, error ? error->message : "cut short");
    assert_int_equal(record.flag, is_zero ? STREAM_RAM_ZERO : STREAM_RAM_PAGE);
    assert_int_equal(record.count_pages, count);
    assert_int_equal(record.is_continue, !name);
    assert_string_equal(record.name, name ? name : "");
    assert_int_equal(record.offset, page * PAGE);
    cursor->at += length;
    cursor->left -= length;
    return record;
}

static void
expect_record(Cursor *cursor, const char *name, uint64_t page, int fill)
{
    StreamRecord record = expect_head(cursor, name, page, 1, !fill);
    for (unsigned i = 0; fill && i < PAGE; i++)
        assert_int_equal(record.page[i], fill);
}

static void
pages_arrive_in_order_named_once_a_block(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    fill_page(fixture, 0, 3);
    fill_page(fixture, 0, 4);
    fill_page(fixture, 1, 9);
    put_page(fixture, 0, 3);
    put_page(fixture, 0, 4);
    put_page(fixture, 1, 8); /* zero */
    put_page(fixture, 1, 9);
    put_page(fixture, 0, 5); /* zero; back to the first block */
    assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    put_page(fixture, 0, 3); /* the name lasts from frame to frame */
    drain(fixture);

    Cursor cursor = {fixture->got->data, fixture->got->len};
    expect_record(&cursor, "one", 3, 22);
    expect_record(&cursor, NULL, 4, 29);
    expect_record(&cursor, "two", 8, 0);
    expect_record(&cursor, NULL, 9, 65);
    expect_record(&cursor, "one", 5, 0);
    expect_record(&cursor, NULL, 3, 22);
    assert_int_equal(cursor.left, 0);
    assert_int_equal(fixture->queue.count_zero, 2);
    assert_int_equal(fixture->queue.count_normal, 4);
    assert_int_equal(fixture->queue.closed_bytes, fixture->got->len);
    fixture_free(fixture);
}

/* A run, as it must be: all of its pages are full, or all zero. */
static void
expect_run(Cursor *cursor, const char *name, unsigned block, uint64_t page, uint32_t count,
           bool is_zero)
{
    expect_head(cursor, name, page, count, is_zero);
    for (uint64_t i = 0; !is_zero && i < count * PAGE; i++, cursor->at++, cursor->left--) {
        assert_true(cursor->left > 0);
        assert_int_equal(*cursor->at, 1 + ((page + i / PAGE) * 7 + block) % 255);
    }
}

static void
pages_in_a_row_join_runs_of_one_kind_and_block(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    fixture->queue.puts_runs = true;
    for (uint64_t page = 0; page < 30; page++)
        if (page < 10 || page >= 14)
            fill_page(fixture, 0, page);
    fill_page(fixture, 1, 30);
    for (uint64_t page = 0; page < 20; page++) /* pages, zeros, pages */
        put_page(fixture, 0, page);
    put_page(fixture, 0, 22); /* not the next one */
    put_page(fixture, 0, 21); /* backwards */
    put_page(fixture, 1, 30); /* another block */
    put_page(fixture, 1, 31); /* zero */
    put_page(fixture, 1, 32);
    stream_put_be32(frame_queue_writer(&fixture->queue), 0x01020304); /* ends the run */
    put_page(fixture, 1, 33);
    assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    put_page(fixture, 1, 34); /* a run ends with its frame */
    put_page(fixture, 1, 35);
    drain(fixture);

    Cursor cursor = {fixture->got->data, fixture->got->len};
    expect_run(&cursor, "one", 0, 0, 10, false);
    expect_run(&cursor, NULL, 0, 10, 4, true);
    expect_run(&cursor, NULL, 0, 14, 6, false);
    expect_record(&cursor, NULL, 22, 1 + 22 * 7);
    expect_record(&cursor, NULL, 21, 1 + 21 * 7);
    expect_record(&cursor, "two", 30, 1 + 30 * 7 + 1);
    expect_run(&cursor, NULL, 1, 31, 2, true);
    assert_memory_equal(cursor.at, "\1\2\3\4", 4);
    cursor.at += 4;
    cursor.left -= 4;
    expect_record(&cursor, NULL, 33, 0);
    expect_run(&cursor, NULL, 1, 34, 2, true);
    assert_int_equal(cursor.left, 0);
    assert_int_equal(fixture->queue.count_zero, 4 + 5);
    assert_int_equal(fixture->queue.count_normal, 16 + 3);
    assert_int_equal(fixture->queue.closed_bytes, fixture->got->len);
    fixture_free(fixture);
}

static void
frame_of_one_run_is_three_pieces_at_most(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    fixture->queue.puts_runs = true;
    fixture->queue.pages_max = FRAME_POSTCOPY_PAGES;
    stream_put_be32(frame_queue_writer(&fixture->queue), 1);
    for (uint64_t page = 0; frame_queue_has_room(&fixture->queue); page++) {
        assert_int_equal(frame_queue_room_pages(&fixture->queue), FRAME_POSTCOPY_PAGES - page);
        fill_page(fixture, 0, page);
        put_page(fixture, 0, page);
    }
    stream_put_be32(frame_queue_writer(&fixture->queue), 2);
    assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    assert_int_equal(fixture->queue.frames[0].count_iov, 3);
    drain(fixture);
    Cursor cursor = {fixture->got->data + 4, fixture->got->len - 4};
    expect_run(&cursor, "one", 0, 0, FRAME_POSTCOPY_PAGES, false);
    assert_int_equal(cursor.left, 4);
    fixture_free(fixture);
}

static void
named_reset_names_the_block_again(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    put_page(fixture, 1, 1);
    fixture->queue.named = NULL;
    put_page(fixture, 1, 2);
    put_page(fixture, 1, 3);
    drain(fixture);
    Cursor cursor = {fixture->got->data, fixture->got->len};
    expect_record(&cursor, "two", 1, 0);
    expect_record(&cursor, "two", 2, 0);
    expect_record(&cursor, NULL, 3, 0);
    assert_int_equal(cursor.left, 0);
    fixture_free(fixture);
}

static void
headers_and_memory_keep_their_order(void **state)
{
    Fixture *fixture = fixture_new();
    g_autoptr(GString) wanted = g_string_new("");
    (void)state;

    for (unsigned i = 0; i < 5; i++) {
        static const char memory[] = "straight from memory";
        stream_put_be32(frame_queue_writer(&fixture->queue), i);
        frame_queue_put_memory(&fixture->queue, memory, sizeof memory);
        frame_queue_put_memory(&fixture->queue, memory, 0);
        stream_put_u8(frame_queue_writer(&fixture->queue), 0xab);
        g_string_append_len(wanted, "\0\0\0", 3);
        g_string_append_c(wanted, (char)i);
        g_string_append_len(wanted, memory, sizeof memory);
        g_string_append_c(wanted, (char)0xab);
        if (i == 2)
            assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    }
    drain(fixture);
    assert_int_equal(fixture->got->len, wanted->len);
    assert_memory_equal(fixture->got->data, wanted->str, wanted->len);
    fixture_free(fixture);
}

static void
flush_of_nothing_is_taken_and_sends_nothing(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    assert_true(frame_queue_is_empty(&fixture->queue));
    assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    drain(fixture);
    assert_int_equal(fixture->got->len, 0);
    assert_int_equal(fixture->queue.closed_bytes, 0);
    fixture_free(fixture);
}

static void
frame_that_is_full_has_no_room_until_taken(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    for (uint64_t page = 0; page < FRAME_PAGES; page++) {
        assert_true(frame_queue_has_room(&fixture->queue));
        fill_page(fixture, page % 2, page);
        put_page(fixture, page % 2, page);
    }
    assert_false(frame_queue_has_room(&fixture->queue));
    assert_false(frame_queue_is_empty(&fixture->queue));
    assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    assert_true(frame_queue_has_room(&fixture->queue));
    assert_true(frame_queue_is_empty(&fixture->queue));
    drain(fixture);
    Cursor cursor = {fixture->got->data, fixture->got->len};
    for (uint64_t page = 0; page < FRAME_PAGES; page++)
        expect_record(&cursor, page % 2 ? "two" : "one", page,
                      (int)(1 + (page * 7 + page % 2) % 255));
    assert_int_equal(cursor.left, 0);
    fixture_free(fixture);
}

static uint64_t
allocated_bytes(const Fixture *fixture, unsigned block)
{
    struct stat file;
    assert_int_equal(fstat(fixture->described[block].fd, &file), 0);
    return (uint64_t)file.st_blocks * 512;
}

static void
peer_that_does_not_read_makes_frames_wait(void **state)
{
    Fixture *fixture = fixture_new();
    g_autoptr(GError) error = NULL;
    uint64_t put = 0;
    FlushResult result;
    (void)state;

    for (uint64_t page = 0; page < PAGES; page++)
        fill_page(fixture, 0, page);
    do {
        while (frame_queue_has_room(&fixture->queue) && put < PAGES)
            put_page(fixture, 0, put++);
        result = frame_queue_flush(&fixture->queue, &error);
    } while (result == FLUSH_TAKEN && put < PAGES);
    assert_int_equal(result, FLUSH_WAIT);
    assert_false(frame_queue_has_room(&fixture->queue));
    uint64_t closed = fixture->queue.closed_bytes;
    assert_int_equal(frame_queue_flush(&fixture->queue, &error), FLUSH_WAIT);
    assert_int_equal(fixture->queue.closed_bytes, closed); /* counted once */
    drain(fixture);
    assert_int_equal(fixture->got->len, closed);
    Cursor cursor = {fixture->got->data, fixture->got->len};
    for (uint64_t page = 0; page < put; page++)
        expect_record(&cursor, page ? NULL : "one", page, (int)(1 + page * 7 % 255));
    assert_int_equal(cursor.left, 0);
    fixture_free(fixture);
}

static void
release_frees_pages_only_after_they_are_sent(void **state)
{
    Fixture *fixture = fixture_new();
    g_autoptr(GError) error = NULL;
    bool with_runs = *(bool *)*state;

    fixture->queue.puts_runs = with_runs;

    if (!ram_blocks_open_memory(&fixture->blocks, &error))
        fail_msg("%s", error->message);
    for (uint64_t page = 0; page < 40; page++)
        fill_page(fixture, 0, page);
    fill_page(fixture, 1, 7);
    uint64_t before = allocated_bytes(fixture, 0);
    assert_int_equal(before, 40 * PAGE);
    fixture->queue.releases = true;
    for (uint64_t page = 0; page < 30; page++)
        if (page != 11)
            put_page(fixture, 0, page);
    put_page(fixture, 1, 7);
    assert_int_equal(frame_queue_flush(&fixture->queue, NULL), FLUSH_TAKEN);
    assert_int_equal(allocated_bytes(fixture, 0), before); /* may be in flight */
    drain(fixture);
    assert_int_equal(allocated_bytes(fixture, 0), 11 * PAGE);
    assert_int_equal(allocated_bytes(fixture, 1), 0);
    const uint8_t *kept = ram_block_address(&fixture->blocks.blocks[0], 11);
    assert_int_equal(kept[100], 1 + 77);

    Cursor cursor = {fixture->got->data, fixture->got->len};
    if (with_runs) {
        expect_run(&cursor, "one", 0, 0, 11, false);
        expect_run(&cursor, NULL, 0, 12, 18, false);
    }
    for (uint64_t page = 0; page < 30 && !with_runs; page++)
        if (page != 11)
            expect_record(&cursor, page ? NULL : "one", page, (int)(1 + page * 7));
    expect_record(&cursor, "two", 7, 51);
    fixture_free(fixture);
}

static void
pages_without_release_stay(void **state)
{
    Fixture *fixture = fixture_new();
    (void)state;

    for (uint64_t page = 0; page < 40; page++) {
        fill_page(fixture, 0, page);
        put_page(fixture, 0, page);
    }
    drain(fixture);
    assert_int_equal(allocated_bytes(fixture, 0), 40 * PAGE);
    fixture_free(fixture);
}

static void
peer_that_is_gone_fails_with_a_link_error(void **state)
{
    Fixture *fixture = fixture_new();
    g_autoptr(GError) error = NULL;
    FlushResult result;
    (void)state;

    close(fixture->peer);
    fixture->peer = -1;
    put_page(fixture, 0, 0);
    while ((result = frame_queue_drain(&fixture->queue, &error)) == FLUSH_WAIT)
        transport_ring_wait(fixture->ring, 0);
    assert_int_equal(result, FLUSH_FAILED);
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK));
    assert_non_null(strstr(error->message, "send: "));
    g_clear_error(&error);
    put_page(fixture, 0, 1);
    assert_int_equal(frame_queue_flush(&fixture->queue, &error), FLUSH_FAILED);
    fixture_free(fixture);
}

int
main(void)
{
    static bool modes[] = {false, true};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_arrive_in_order_named_once_a_block),
        cmocka_unit_test(pages_in_a_row_join_runs_of_one_kind_and_block),
        cmocka_unit_test(frame_of_one_run_is_three_pieces_at_most),
        cmocka_unit_test(named_reset_names_the_block_again),
        cmocka_unit_test(headers_and_memory_keep_their_order),
        cmocka_unit_test(flush_of_nothing_is_taken_and_sends_nothing),
        cmocka_unit_test(frame_that_is_full_has_no_room_until_taken),
        cmocka_unit_test(peer_that_does_not_read_makes_frames_wait),
        {"release_frees_pages_only_after_they_are_sent",
         release_frees_pages_only_after_they_are_sent, NULL, NULL, &modes[0]},
        {"release_frees_runs_only_after_they_are_sent",
         release_frees_pages_only_after_they_are_sent, NULL, NULL, &modes[1]},
        cmocka_unit_test(pages_without_release_stay),
        cmocka_unit_test(peer_that_is_gone_fails_with_a_link_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
