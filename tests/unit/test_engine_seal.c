/* SPDX-License-Identifier: MIT */
/*
 * Sealed channels over a real socket pair: what is put by a FrameQueue is read by a Reader, and
 * whatever bit of it changes on the way, no changed byte is taken: a piece is refused whole, a page
 * by its checksum.
 */
#include "engine/frame.h"
#include "engine/reader.h"
#include "engine/role.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE        FAULTLINE_PAGE_BYTES
#define PAGES       64u
#define SMALL_BYTES 300u
#define LARGE_BYTES (STREAM_ITEM_MAX + 4321u)
#define LIMIT       (1u << 20)

typedef struct Fixture {
    TransportRing *ring;
    RamBlocks blocks;
    FaultlineBlock described;
    GByteArray *sent; /* all that a queue has put on the wire */
    uint8_t *memory;  /* of a package */
} Fixture;

static void
fixture_open(Fixture *fixture)
{
    *fixture = (Fixture){.sent = g_byte_array_new(), .ring = transport_ring_new(NULL)};
    assert_non_null(fixture->ring);
    fixture->described = (FaultlineBlock){
        .name = "ram", .length_bytes = PAGES * PAGE, .fd = -1, .page_size_bytes = PAGE};
    fixture->described.host_address =
        mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(fixture->described.host_address != MAP_FAILED);
    assert_true(ram_blocks_init(&fixture->blocks, &fixture->described, 1, NULL));
    ram_blocks_open_checksums(&fixture->blocks);
    fixture->memory = g_malloc(LARGE_BYTES);
    for (size_t i = 0; i < LARGE_BYTES; i++)
        fixture->memory[i] = (uint8_t)(i * 31 >> 3);
}

static void
fixture_close(Fixture *fixture)
{
    ram_blocks_close_checksums(&fixture->blocks);
    ram_blocks_clear(&fixture->blocks);
    munmap(fixture->described.host_address, PAGES * PAGE);
    g_byte_array_unref(fixture->sent);
    g_free(fixture->memory);
    transport_ring_free(fixture->ring);
}

static TransportLink *
link_of(Fixture *fixture, int fd)
{
    TransportLink *link = NULL;
    g_autofree char *uri = g_strdup_printf("fd:%d", fd);
    TransportConnector *connector = transport_connect(fixture->ring, uri, NULL);
    assert_non_null(connector);
    while (transport_connect_finish(connector, &link, NULL) == TRANSPORT_WAIT)
        transport_ring_wait(fixture->ring, 0);
    transport_connector_free(connector);
    assert_non_null(link);
    return link;
}

static RamBlock *
ram(Fixture *fixture)
{
    return &fixture->blocks.blocks[0];
}

/* Puts with a new queue on a new link; what came out of the other end is in fixture->sent. */
static void
send_all(Fixture *fixture, void (*put)(Fixture *fixture, FrameQueue *queue))
{
    static uint8_t bytes[1 << 16];
    FrameQueue queue;
    FlushResult result;
    ssize_t length;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    TransportLink *link = link_of(fixture, ends[0]);
    frame_queue_init(&queue);
    queue.sender = transport_sender_new(fixture->ring, link);
    frame_queue_seal(&queue);
    put(fixture, &queue);
    do {
        result = frame_queue_drain(&queue, NULL);
        while ((length = recv(ends[1], bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
            g_byte_array_append(fixture->sent, bytes, (guint)length);
        if (result == FLUSH_WAIT)
            transport_ring_wait(fixture->ring, clock_now_ns() + 1000000);
    } while (result == FLUSH_WAIT);
    assert_int_equal(result, FLUSH_TAKEN);
    while ((length = recv(ends[1], bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        g_byte_array_append(fixture->sent, bytes, (guint)length);
    assert_int_equal(queue.closed_bytes, fixture->sent->len);
    transport_sender_free(queue.sender);
    frame_queue_clear(&queue);
    transport_link_unref(link);
    close(ends[1]);
}

/* ---- What is sent ------------------------------------------------------------------------------
 */

/* A value, a page, a run of pages and one of zeros, a page, a value, a message in memory. */
static void
put_frame(Fixture *fixture, FrameQueue *queue)
{
    queue->puts_runs = true;
    for (uint64_t page = 2; page < 9; page++)
        if (page != 5 && page != 6)
            memset(ram_block_address(ram(fixture), page), (int)(page * 9), PAGE);
    stream_put_be32(frame_queue_writer(queue), 0x01020304);
    for (uint64_t page = 2; page < 8; page++)
        frame_queue_put_page(queue, ram(fixture), page);
    stream_put_be32(frame_queue_writer(queue), 0x05060708);
    frame_queue_put_memory(queue, fixture->memory, SMALL_BYTES);
    frame_queue_put_page(queue, ram(fixture), 8);
    stream_put_u8(frame_queue_writer(queue), STREAM_EOF);
}

static void
put_large(Fixture *fixture, FrameQueue *queue)
{
    stream_put_be32(frame_queue_writer(queue), 0x01020304);
    frame_queue_put_memory(queue, fixture->memory, LARGE_BYTES);
    stream_put_be32(frame_queue_writer(queue), 0x05060708);
}

/* ---- What is read ------------------------------------------------------------------------------
 */

typedef enum { READ_ALL, REFUSED_PIECE, REFUSED_PAGES, CUT_SHORT } Outcome;

typedef struct Reading {
    Fixture *fixture;
    TransportLink *link;
    Reader reader;
    int peer;
    unsigned count_refused; /* pages */
    bool is_cut;
} Reading;

static void
reading_open(Reading *reading, Fixture *fixture, const uint8_t *bytes, size_t length)
{
    int ends[2], size = 1 << 20;

    *reading = (Reading){.fixture = fixture};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &size, sizeof size), 0);
    reading->link = link_of(fixture, ends[0]);
    reading->reader.receiver = transport_receiver_new(fixture->ring, reading->link);
    reader_seal(&reading->reader, LIMIT);
    assert_int_equal(send(ends[1], bytes, length, MSG_DONTWAIT), length);
    close(ends[1]);
}

static void
reading_close(Reading *reading)
{
    transport_receiver_free(reading->reader.receiver);
    reader_clear(&reading->reader);
    transport_link_unref(reading->link);
}

/* NULL: refused, or cut short. */
static const uint8_t *
peek(Reading *reading, size_t length)
{
    const uint8_t *bytes;
    ReadResult result;

    while ((result = reader_peek(&reading->reader, length, &bytes)) == READ_WAIT)
        transport_ring_wait(reading->fixture->ring, 0);
    reading->is_cut = result == READ_END;
    return result == READ_OK ? bytes : NULL;
}

static bool
take_value(Reading *reading, uint32_t value)
{
    uint8_t expected[4];
    StreamWriter writer = {expected, 0, sizeof expected};
    const uint8_t *bytes = peek(reading, 4);

    stream_put_be32(&writer, value);
    if (!bytes)
        return false;
    assert_memory_equal(bytes, expected, 4);
    reader_consume(&reading->reader, 4);
    return true;
}

static StreamResult
decode_record(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    return stream_decode_record(bytes, available, "main", STREAM_TAKES_RUNS | STREAM_TAKES_SEALED,
                                context, ret_length, error);
}

/* The pages behind a record, which are as they were sent or fail their checksum. */
static bool
take_bytes(Reading *reading, uint64_t page, uint32_t count, const uint64_t *checksums)
{
    const RamBlock *block = ram(reading->fixture);

    reader_expect_bare(&reading->reader, count * (size_t)PAGE);
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *bytes = peek(reading, PAGE);
        if (!bytes)
            return false;
        bool is_same = memcmp(bytes, ram_block_address(block, page + i), PAGE) == 0;
        bool fits = stream_page_checksum(bytes, block->place, page + i) == checksums[i];
        assert_int_equal(is_same, fits);
        reading->count_refused += !fits;
        reader_consume(&reading->reader, PAGE);
    }
    return true;
}

static bool
take_record(Reading *reading, uint64_t page, uint32_t count, bool is_zero)
{
    StreamRecord record;
    uint64_t checksums[PAGES];
    size_t length;
    ReadResult result;
    g_autoptr(GError) error = NULL;

    while ((result = reader_decode(&reading->reader, decode_record, &record, &length, &error)) ==
           READ_WAIT)
        transport_ring_wait(reading->fixture->ring, 0);
    if (result != READ_OK) {
        assert_true(result == READ_LINK || result == READ_END);
        reading->is_cut = result == READ_END;
        return false;
    }
    assert_int_equal(record.offset, page * PAGE);
    assert_int_equal(record.count_pages, count);
    assert_int_equal(record.flag, is_zero ? STREAM_RAM_ZERO : STREAM_RAM_PAGE);
    for (uint32_t i = 0; !is_zero && i < count; i++)
        checksums[i] = stream_record_checksum(&record, i);
    reader_consume(&reading->reader, length);
    return is_zero || take_bytes(reading, page, count, checksums);
}

static bool
take_memory(Reading *reading, size_t length)
{
    for (size_t at = 0; at < length;) {
        const uint8_t *bytes = peek(reading, 1);
        if (!bytes)
            return false;
        size_t part = MIN(reader_available(&reading->reader), length - at);
        assert_memory_equal(bytes, reading->fixture->memory + at, part);
        reader_consume(&reading->reader, part);
        at += part;
    }
    return true;
}

static bool
take_end(Reading *reading)
{
    const uint8_t *bytes = peek(reading, 1);

    if (!bytes)
        return false;
    assert_int_equal(*bytes, STREAM_EOF);
    reader_consume(&reading->reader, 1);
    return !peek(reading, 1) && reading->is_cut;
}

static Outcome
read_frame(Fixture *fixture, const uint8_t *bytes, size_t length)
{
    Reading reading;

    reading_open(&reading, fixture, bytes, length);
    bool is_all = take_value(&reading, 0x01020304) && take_record(&reading, 2, 3, false) &&
                  take_record(&reading, 5, 2, true) && take_record(&reading, 7, 1, false) &&
                  take_value(&reading, 0x05060708) && take_memory(&reading, SMALL_BYTES) &&
                  take_record(&reading, 8, 1, false) && take_end(&reading);
    Outcome outcome = is_all           ? reading.count_refused ? REFUSED_PAGES : READ_ALL
                      : reading.is_cut ? CUT_SHORT
                                       : REFUSED_PIECE;
    reading_close(&reading);
    return outcome;
}

static Outcome
read_large(Fixture *fixture, const uint8_t *bytes, size_t length)
{
    Reading reading;

    reading_open(&reading, fixture, bytes, length);
    bool is_all = take_value(&reading, 0x01020304) && take_memory(&reading, LARGE_BYTES) &&
                  take_value(&reading, 0x05060708);
    Outcome outcome = is_all ? READ_ALL : reading.is_cut ? CUT_SHORT : REFUSED_PIECE;
    reading_close(&reading);
    return outcome;
}

/* ---- Cases -------------------------------------------------------------------------------------
 */

static void
sealed_frame_is_read_as_it_was_put(void **state)
{
    Fixture fixture;
    (void)state;

    fixture_open(&fixture);
    send_all(&fixture, put_frame);
    assert_int_equal(read_frame(&fixture, fixture.sent->data, fixture.sent->len), READ_ALL);
    const RamBlock *block = ram(&fixture);
    for (uint64_t page = 2; page < 9; page++)
        assert_int_equal(
            block->checksums[page],
            stream_page_checksum(page == 5 || page == 6 ? NULL : ram_block_address(block, page),
                                 block->place, page));
    fixture_close(&fixture);
}

static void
sealed_frame_with_one_bit_changed_anywhere_is_refused(void **state)
{
    unsigned counts[4] = {0};
    Fixture fixture;
    (void)state;

    fixture_open(&fixture);
    send_all(&fixture, put_frame);
    for (guint at = 0; at < fixture.sent->len; at++) {
        /* inside of pages not every byte: they are all alike */
        fixture.sent->data[at] ^= (uint8_t)(1u << at % 8);
        Outcome outcome = read_frame(&fixture, fixture.sent->data, fixture.sent->len);
        fixture.sent->data[at] ^= (uint8_t)(1u << at % 8);
        if (outcome != REFUSED_PIECE && outcome != REFUSED_PAGES)
            fail_msg("byte %u of %u: outcome %u", at, fixture.sent->len, outcome);
        counts[outcome]++;
        if (outcome == REFUSED_PAGES)
            at += 60;
    }
    assert_true(counts[REFUSED_PIECE] > SMALL_BYTES && counts[REFUSED_PAGES] > 300);
    fixture_close(&fixture);
}

static void
sealed_frame_cut_anywhere_is_never_taken_whole(void **state)
{
    Fixture fixture;
    (void)state;

    fixture_open(&fixture);
    send_all(&fixture, put_frame);
    for (guint length = 0; length < fixture.sent->len; length += 1 + length % 61) {
        Outcome outcome = read_frame(&fixture, fixture.sent->data, length);
        assert_true(outcome == CUT_SHORT || outcome == REFUSED_PIECE);
    }
    fixture_close(&fixture);
}

static void
large_piece_is_gathered_and_refused_when_damaged(void **state)
{
    Fixture fixture;
    (void)state;

    fixture_open(&fixture);
    send_all(&fixture, put_large);
    assert_int_equal(read_large(&fixture, fixture.sent->data, fixture.sent->len), READ_ALL);
    for (guint at = 0; at < fixture.sent->len; at += at < 60 ? 1 : 997) {
        fixture.sent->data[at] ^= (uint8_t)(1u << at % 8);
        assert_int_equal(read_large(&fixture, fixture.sent->data, fixture.sent->len),
                         REFUSED_PIECE);
        fixture.sent->data[at] ^= (uint8_t)(1u << at % 8);
    }
    assert_int_equal(read_large(&fixture, fixture.sent->data, fixture.sent->len - 5000),
                     REFUSED_PIECE);
    fixture_close(&fixture);
}

/* Seal and value, twice, each good by itself. */
static void
put_two_values(Fixture *fixture, FrameQueue *queue)
{
    stream_put_be32(frame_queue_writer(queue), 0x01020304);
    frame_queue_put_memory(queue, fixture->memory, 1);
    stream_put_be32(frame_queue_writer(queue), 0x05060708);
}

static void
piece_that_is_lost_or_doubled_is_refused(void **state)
{
    Fixture fixture;
    Reading reading;
    (void)state;

    fixture_open(&fixture);
    send_all(&fixture, put_two_values);
    reading_open(&reading, &fixture, fixture.sent->data + 20, fixture.sent->len - 20);
    assert_null(peek(&reading, 1));
    assert_string_equal(reader_problem(&reading.reader),
                        "a seal of the stream was damaged on its way");
    reading_close(&reading);

    g_autofree uint8_t *doubled = g_malloc(fixture.sent->len + 20);
    memcpy(doubled, fixture.sent->data, 20);
    memcpy(doubled + 20, fixture.sent->data, fixture.sent->len);
    reading_open(&reading, &fixture, doubled, fixture.sent->len + 20);
    assert_true(take_value(&reading, 0x01020304));
    assert_false(take_value(&reading, 0x01020304));
    reading_close(&reading);
    fixture_close(&fixture);
}

static void
piece_longer_than_the_limit_or_shorter_than_its_item_is_refused(void **state)
{
    uint8_t bytes[STREAM_SEAL_BYTES + 4] = {0};
    Fixture fixture;
    Reading reading;
    (void)state;

    fixture_open(&fixture);
    g_autofree uint8_t *memory = g_malloc0(LIMIT + 1);
    stream_put_seal(bytes, memory, LIMIT + 1, 0);
    reading_open(&reading, &fixture, bytes, sizeof bytes);
    assert_null(peek(&reading, 1));
    assert_non_null(strstr(reader_problem(&reading.reader), "longer than anything expected"));
    reading_close(&reading);

    stream_put_seal(bytes, bytes + STREAM_SEAL_BYTES, 4, 0);
    reading_open(&reading, &fixture, bytes, sizeof bytes);
    assert_null(peek(&reading, 5));
    assert_non_null(strstr(reader_problem(&reading.reader), "in the middle of an item"));
    reading_close(&reading);
    fixture_close(&fixture);
}

/* What a guest that runs writes after a page was put changes neither its bytes nor its checksum. */
static void
put_copied(Fixture *fixture, FrameQueue *queue)
{
    uint8_t *page = ram_block_address(ram(fixture), 2);

    frame_queue_copy(queue, true);
    queue->puts_runs = true;
    memset(page, 18, 3 * PAGE);
    for (unsigned i = 0; i < 3; i++)
        frame_queue_put_page(queue, ram(fixture), 2 + i);
    memset(page, 19, 3 * PAGE);
}

static void
copied_pages_are_sent_as_they_were_when_put(void **state)
{
    Fixture fixture;
    Reading reading;
    (void)state;

    fixture_open(&fixture);
    send_all(&fixture, put_copied);
    memset(ram_block_address(ram(&fixture), 2), 18, 3 * PAGE);
    reading_open(&reading, &fixture, fixture.sent->data, fixture.sent->len);
    assert_true(take_record(&reading, 2, 3, false));
    assert_int_equal(reading.count_refused, 0);
    reading_close(&reading);
    fixture_close(&fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sealed_frame_is_read_as_it_was_put),
        cmocka_unit_test(sealed_frame_with_one_bit_changed_anywhere_is_refused),
        cmocka_unit_test(sealed_frame_cut_anywhere_is_never_taken_whole),
        cmocka_unit_test(large_piece_is_gathered_and_refused_when_damaged),
        cmocka_unit_test(piece_that_is_lost_or_doubled_is_refused),
        cmocka_unit_test(piece_longer_than_the_limit_or_shorter_than_its_item_is_refused),
        cmocka_unit_test(copied_pages_are_sent_as_they_were_when_put),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
