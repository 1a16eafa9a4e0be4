/* SPDX-License-Identifier: MIT */
/*
 * Each message of the stream on its own: read back as written, cut at every byte, and with every
 * field out of its range.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support/stream_cases.h"

static void
decode_what_was_encoded_gives_it_back(void **state)
{
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    (void)state;

    for (unsigned i = 0; i < STREAM_CASE_COUNT; i++) {
        const StreamCase *one = &stream_cases[i];
        g_autoptr(GError) error = NULL;
        size_t length = stream_case_encode(one, bytes), used = 0;
        uint8_t *copy = stream_case_copy(bytes, length + one->behind);
        StreamResult result = one->decode(copy, length + one->behind, &used, &error);
        bool is_same = result == STREAM_OK && one->check();
        free(copy);
        if (result != STREAM_OK || used != length || error || !is_same)
            fail_msg("%s: result %d, %zu of %zu bytes, fields %d, %s", one->name, result, used,
                     length, is_same, error ? error->message : "");
    }
}

static void
decode_cut_at_every_byte_asks_for_more(void **state)
{
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    (void)state;

    for (unsigned i = 0; i < STREAM_CASE_COUNT; i++) {
        const StreamCase *one = &stream_cases[i];
        size_t length = stream_case_encode(one, bytes) + one->behind;
        for (size_t cut = 0; cut < length; cut++) {
            g_autoptr(GError) error = NULL;
            size_t need = 0;
            uint8_t *copy = stream_case_copy(bytes, cut);
            StreamResult result = one->decode(copy, cut, &need, &error);
            free(copy);
            if (result != STREAM_MORE || need <= cut || need > length || error)
                fail_msg("%s cut at %zu of %zu: result %d, needs %zu", one->name, cut, length,
                         result, need);
        }
    }
}

/* What follows belongs to the next message and is left alone. */
static void
decode_with_more_behind_takes_only_its_own(void **state)
{
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    (void)state;

    for (unsigned i = 0; i < STREAM_CASE_COUNT; i++) {
        const StreamCase *one = &stream_cases[i];
        size_t length = stream_case_encode(one, bytes), used = 0;
        memset(bytes + length, 0xff, sizeof bytes - length);
        assert_int_equal(one->decode(bytes, sizeof bytes, &used, NULL), STREAM_OK);
        assert_int_equal(used, length);
    }
}

/* A good message, the bytes at an offset replaced: refused, and the text has this in it. */
typedef struct BadField {
    StreamCaseId good;
    size_t offset;
    const char *patch;
    size_t patch_length;
    const char *text;
} BadField;
#define BAD(good, offset, patch, text)                                                             \
    {                                                                                              \
        STREAM_CASE_##good, offset, patch, sizeof(patch) - 1, text                                 \
    }

/* clang-format off */
static const BadField bad_fields[] = {
    BAD(header, 0, "\x51\x45\x56\x4e", "magic is 0x5145564e, expected 0x5145564d"),
    BAD(header, 4, "\0\0\0\2", "version is 2, expected 3"),
    BAD(header, 4, "\0\0\0\4", "version is 4, expected 3"),
    BAD(configuration, 0, "\1", "type is 0x01, expected 0x07"),
    BAD(configuration, 1, "\0\0\0\0", "length of the machine name is 0"),
    BAD(configuration, 1, "\0\0\1\0", "length of the machine name is 256"),
    BAD(configuration, 1, "\xff\xff\xff\xff", "length of the machine name is 4294967295"),
    BAD(configuration, 5, "\0", "machine name has byte 0x00"),
    BAD(configuration, 6, "\x1f", "machine name has byte 0x1f at 1"),
    BAD(configuration, 6, "\x7f", "machine name has byte 0x7f at 1"),
    BAD(validated, 11, "C", "subsection name is Configuration/capabilities"),
    BAD(validated, 10, "\0", "subsection name is empty"),
    BAD(validated, 40, "\2", "version of subsection configuration/capabilities is 2"),
    BAD(validated, 41, "\0\0\0\0", "count of capabilities is 0"),
    BAD(validated, 41, "\0\0\0\3", "count of capabilities is 3"),
    BAD(validated, 46, "X", "capability name is X-ignore-shared"),
    BAD(validated, 45, "\xamapped-ram\xamapped-ram", "capability name mapped-ram comes twice"),
    BAD(validated, 95, "\0", "version of subsection configuration/uuid is 0"),
    BAD(validated, 112, "\5\x12" "configuration/uuid\0\0\0\1", "subsection uuid comes twice"),
    BAD(validated, 112, "\5\x1a" "configuration/capabilities\0\0\0\1",
        "subsection capabilities comes twice"),
    BAD(start, 0, "\5", "type is 0x05"),
    BAD(start, 0, "\7", "type is 0x07"),
    BAD(start, 0, "\x55", "type is 0x55"),
    BAD(start, 0, "\x7e", "type is 0x7e"),
    BAD(start, 0, "\x09", "type is 0x09"),
    BAD(start, 5, "\0", "section head: name is empty"),
    BAD(full, 7, "\n", "section head: name has byte 0x0a"),
    BAD(footer, 0, "\0", "footer of section cpu: type is 0x00, expected 0x7e"),
    BAD(footer, 1, "\0\0\0\x8", "section id is 8, expected 7"),
    BAD(ping, 1, "\0\0", "number is 0, expected 1 to 11 or one of ours, 64 to 71"),
    BAD(ping, 1, "\0\xc", "number is 12, expected 1 to 11 or one of ours, 64 to 71"),
    BAD(ping, 1, "\xff\2", "number is 65282"),
    BAD(ping, 3, "\0\2", "command PING: length is 2, expected 4 to 4"),
    BAD(ping, 3, "\0\5", "command PING: length is 5"),
    BAD(listen, 3, "\0\1", "command POSTCOPY_LISTEN: length is 1"),
    BAD(packaged, 3, "\0\3", "command PACKAGED: length is 3"),
    BAD(advise, 3, "\0\x08", "POSTCOPY_ADVISE: length is 8, expected 0 or 16"),
    BAD(advise, 3, "\0\x11", "POSTCOPY_ADVISE: length is 17"),
    BAD(advise, 5, "\0\0\0\0\0\0\0\0", "page sizes are 0x0"),
    BAD(advise, 11, "\x18", "page sizes are 0x201800"),
    BAD(advise, 19, "\x20", "target page has 8192 bytes, expected 4096"),
    BAD(discard, 3, "\0\x13", "POSTCOPY_RAM_DISCARD: length is 19, expected 20"),
    BAD(discard, 3, "\0\x26", "POSTCOPY_RAM_DISCARD: length is 38"),
    BAD(discard, 5, "\1", "POSTCOPY_RAM_DISCARD: version is 1"),
    BAD(discard, 6, "\xff", "POSTCOPY_RAM_DISCARD: length is 39, expected 258"),
    BAD(discard, 6, "\5", "POSTCOPY_RAM_DISCARD: length is 39, expected 8"),
    BAD(discard, 7, "\x1", "block name has byte 0x01"),
    BAD(discard, 11, "\1", "byte behind block name ram0 is 0x01"),
    BAD(discard, 19, "\1", "range 0 of block ram0 is 0x1001"),
    BAD(discard, 26, "\x08", "range 0 of block ram0 is 0x1000 + 0x800"),
    BAD(discard, 42, "\0", "range 1 of block ram0 is 0x100000000 + 0x0"),
    BAD(discard, 28, "\xff\xff\xff\xff\xff\xff\xf0\0", "range 1 of block ram0 is 0xfffffffffffff000"),
    BAD(ping, 1, "\0\x42", "number is 66"),
    BAD(discard_words, 3, "\0\x13", "DISCARD_WORDS: length is 19, expected 20"),
    BAD(discard_words, 3, "\0\x24", "DISCARD_WORDS: length is 36, expected 13 for the head"),
    BAD(discard_words, 5, "\xff", "DISCARD_WORDS: length is 37, expected 264"),
    BAD(discard_words, 6, "\1", "DISCARD_WORDS: block name has byte 0x01"),
    BAD(discard_words, 10, "\0\0\0\0\0\0\0\x41", "first page of block ram0 is 0x41"),
    BAD(discard_words, 10, "\xff", "first page of block ram0 is 0xff00004000000040"),
    BAD(bitmap_command, 3, "\0\1", "RECV_BITMAP: length is 1"),
    BAD(bitmap_command, 5, "\3", "RECV_BITMAP: length is 5, expected 4"),
    BAD(bitmap_command, 6, "\0", "RECV_BITMAP: block name has byte 0x00"),
    BAD(zero, 6, "\x78\x00", "flags 0x800 in channel main"),
    BAD(zero, 6, "\x70\x00", "flags 0x0 in channel main"),
    BAD(zero, 6, "\x70\x01", "flags 0x1 in"),
    BAD(zero, 6, "\x70\x0a", "flags 0xa in"),
    BAD(zero, 6, "\x70\x80", "flags 0x80 in"),
    BAD(zero, 6, "\x74\x00", "flags 0x400 in"),
    BAD(zero, 6, "\x70\x20", "flags 0x20 in"),
    BAD(zero, 8, "\0", "block name is empty"),
    BAD(zero, 9, "\x80", "block name has byte 0x80"),
    BAD(zero, 13, "\1", "fill of ZERO at offset 0x7000 in channel main is 0x01"),
    BAD(run, 13, "\0\0\0\0", "count of pages of the run at offset 0x7000 in channel main is 0"),
    BAD(run, 13, "\0\0\0\1", "channel main is 1, expected 2 to 256"),
    BAD(run, 13, "\0\0\1\1", "channel main is 257, expected 2 to 256"),
    BAD(run, 13, "\xff\xff\xff\xff", "channel main is 4294967295"),
    BAD(run, 6, "\x74\x0a", "flags 0x40a"),
    BAD(run, 0, "\xff\xff\xff\xff\xff\xff\xf4\x08",
        "the run of 2 pages at offset 0xfffffffffffff000 in channel main ends past"),
    BAD(zero_run, 0, "\xff\xff\xff\xff\xff\xff\x04\x22", "ends past the greatest offset"),
    BAD(zero_run, 8, "\0\1\0\0", "channel main is 65536"),
    BAD(mem_size, 6, "\x04\x04", "flags 0x404"),
    BAD(eos, 6, "\x04\x10", "flags 0x410"),
    BAD(flush, 6, "\x06", "flags 0x600"),
    BAD(xbzrle, 6, "\x24", "flags 0x460"),
    BAD(compressed, 6, "\x25", "flags 0x500"),
    BAD(mem_size, 7, "\x24", "flags 0x24"),
    BAD(mem_size, 4, "\0", "total of MEM_SIZE in channel main is 0"),
    BAD(eos, 7, "\x30", "flags 0x30"),
    BAD(eos, 6, "\x10", "offset of EOS in channel main is 0x1000"),
    BAD(flush, 7, "\x20", "flags 0x220"),
    BAD(flush, 0, "\1", "offset of MULTIFD_FLUSH in channel main is"),
    BAD(xbzrle, 8, "\2", "encoding of XBZRLE in channel main is 2"),
    BAD(xbzrle, 9, "\0\0", "length of XBZRLE in channel main is 0"),
    BAD(xbzrle, 9, "\x10\1", "length of XBZRLE in channel main is 4097"),
    BAD(compressed, 13, "\0\0\0\0", "length of COMPRESS_PAGE in channel main is 0"),
    BAD(compressed, 13, "\0\0\x10\xf", "length of COMPRESS_PAGE in channel main is 4111"),
    BAD(block, 0, "\0", "block name is empty"),
    BAD(block, 11, "\0", "length of block ram0 is 0x0"),
    BAD(block, 12, "\1", "length of block ram0 is 0x5001"),
    BAD(huge_block, 13, "\0\0\0\0\0\0\0\0", "page size of block ram0 is 0x0"),
    BAD(huge_block, 13, "\0\0\0\0\0\0\x10\0", "page size of block ram0 is 0x1000"),
    BAD(huge_block, 18, "\x30", "page size of block ram0 is 0x300000"),
    BAD(huge_block, 18, "\x80", "page size of block ram0 is 0x800000"),
    BAD(block_name, 0, "\0", "block name is empty"),
    BAD(device_length, 0, "\0\0\3\xe9", "section disk: length of the device state is 1001"),
    BAD(running, 25, "\0\0\0\1", "length of the run state is 1, expected 2"),
    BAD(running, 25, "\0\0\0\x21", "length of the run state is 33"),
    BAD(running, 25, "\0\0\0\7", "run state is no text of 6 bytes"),
    BAD(running, 25, "\0\0\0\x9", "run state has byte 0x00"),
    BAD(running, 29, "R", "run state is Running"),
    BAD(running, 61, "\2", "was-suspended is 2, 0"),
    BAD(running, 62, "\2", "was-suspended is 0, 2"),
    BAD(running, 128, "\1", "globalstate: padding"),
    BAD(paused, 129, "\0", "footer of section globalstate: type is 0x00"),
    BAD(shut, 0, "\0\0", "return message: type is 0, expected 1 to 7"),
    BAD(shut, 0, "\0\x8", "return message: type is 8"),
    BAD(shut, 2, "\0\3", "SHUT: length is 3"),
    BAD(pong, 2, "\0\x8", "PONG: length is 8"),
    BAD(resume_ack, 4, "\0\0\0\0", "RESUME_ACK: value is 0, expected 1"),
    BAD(resume_ack, 4, "\0\0\0\2", "RESUME_ACK: value is 2, expected 1"),
    BAD(switchover_ack, 2, "\0\1", "SWITCHOVER_ACK: length is 1"),
    BAD(request, 2, "\0\xd", "REQ_PAGES: length is 13"),
    BAD(request, 11, "\1", "start is 0x1001"),
    BAD(request, 4, "\xff\xff\xff\xff\xff\xff\xf0\0", "start is 0xfffffffffffff000"),
    BAD(request, 14, "\0", "length is 0, expected a multiple"),
    BAD(request, 14, "\x18", "length is 6144, expected a multiple"),
    BAD(request_id, 2, "\0\xd", "REQ_PAGES_ID: length is 13, expected 14"),
    BAD(request_id, 2, "\1\xd", "REQ_PAGES_ID: length is 269"),
    BAD(request_id, 16, "\3", "REQ_PAGES_ID: block name length is 3, expected 4"),
    BAD(request_id, 16, "\5", "REQ_PAGES_ID: block name length is 5, expected 4"),
    BAD(request_id, 17, "\0", "REQ_PAGES_ID: block name has byte 0x00"),
    BAD(bitmap_message, 2, "\0\1", "RECV_BITMAP: length is 1"),
    BAD(bitmap_message, 4, "\xff", "RECV_BITMAP: block name length is 255, expected 4"),
    BAD(bitmap, 7, "\x8", "size is 8, expected 16 for 70 pages"),
    BAD(bitmap, 0, "\xff", "size is 18374686479671623696, expected 16"),
    BAD(bitmap, 16, "\x40", "padding bit 70 is 1"),
    BAD(bitmap, 23, "\x80", "padding bit 127 is 1"),
    BAD(bitmap, 31, "\xee", "end mark is 0x0123456789abcdee"),
    BAD(sealed, 8, "\1", "features 0x1 are followed by 0xffffffe4"),
    BAD(digest, 4, "\x1b", "length is 27, expected 13 for the head"),
    BAD(digest, 6, "\t", "block name has byte 0x09"),
    BAD(resend, 11, "\1", "start is 0x123456001"),
    BAD(whole, 3, "\1", "length is 1, expected 0 to 0"),
    BAD(multifd_first, 3, "\x45", "magic is 0x11223345"),
    BAD(multifd_first, 7, "\2", "version is 2"),
    BAD(multifd_first, 63, "\1", "first multifd packet: padding"),
    BAD(multifd, 0, "\0", "magic is 0x00223344"),
    BAD(multifd, 7, "\0", "version is 0, expected 1"),
    BAD(multifd, 11, "\x6", "flags are 0x6"),
    BAD(multifd, 10, "\1", "flags are 0x101"),
    BAD(multifd, 11, "\x40", "flags 0x40 are of device state"),
    BAD(multifd, 15, "\x81", "pages_alloc is 129"),
    BAD(multifd, 15, "\1", "normal_pages is 2, expected at most 1"),
    BAD(multifd, 15, "\2", "zero_pages is 1, expected at most 0"),
    BAD(multifd, 16, "\xff\xff\xff\xff", "normal_pages is 4294967295"),
    BAD(multifd, 22, "\x10", "next_packet_size is 4096, expected 8192"),
    BAD(multifd, 11, "\2\0\0\0\x80\0\0\0\2\0\x10\0\1", "next_packet_size is 1048577"),
    BAD(multifd, 32, "\xff\xff\xff\xff", "zero_pages is 4294967295"),
    BAD(multifd, 36, "\1", "multifd packet: padding"),
    BAD(multifd, 64, "\0", "block name is empty"),
    BAD(multifd, 65, "\t", "block name has byte 0x09"),
    BAD(multifd, 327, "\1", "offset 0 is 0x1"),
    BAD(multifd, 343, "\1", "offset 2 is 0x2001"),
};
/* clang-format on */

static void
decode_field_out_of_range_is_refused_by_name(void **state)
{
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad_fields); i++) {
        const BadField *bad = &bad_fields[i];
        const StreamCase *one = &stream_cases[bad->good];
        g_autoptr(GError) error = NULL;
        size_t length = stream_case_encode(one, bytes) + one->behind, used = 0;
        memset(bytes + length, 0, sizeof bytes - length);
        assert_int_equal(one->decode(bytes, length, &used, NULL), STREAM_OK);

        /* a length that was made greater must find bytes, not be cut */
        memcpy(bytes + bad->offset, bad->patch, bad->patch_length);
        StreamResult result = one->decode(bytes, sizeof bytes, &used, &error);
        if (result != STREAM_BAD || !error || !strstr(error->message, bad->text) ||
            !g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER))
            fail_msg("%s at %zu: result %d, expected '%s', text '%s'", one->name, bad->offset,
                     result, bad->text, error ? error->message : "");
    }
}

static void
decode_block_name_not_ending_in_multifd_packet_is_refused(void **state)
{
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    const StreamCase *one = &stream_cases[STREAM_CASE_multifd];
    g_autoptr(GError) error = NULL;
    size_t used;
    (void)state;

    size_t length = stream_case_encode(one, bytes);
    memset(bytes + 64, 'x', 255);
    assert_int_equal(one->decode(bytes, length, &used, &error), STREAM_OK);
    bytes[64 + 255] = 'x';
    assert_int_equal(one->decode(bytes, length, &used, &error), STREAM_BAD);
    assert_non_null(strstr(error->message, "block name does not end"));
}

static void
decode_run_that_was_not_agreed_is_refused(void **state)
{
    static const StreamCaseId runs[] = {STREAM_CASE_run, STREAM_CASE_run_continue,
                                        STREAM_CASE_zero_run};
    uint8_t bytes[STREAM_CASE_BYTES_MAX];
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(runs); i++) {
        g_autoptr(GError) error = NULL;
        StreamRecord record;
        size_t used, length = stream_case_encode(&stream_cases[runs[i]], bytes);
        assert_int_equal(
            stream_decode_record(bytes, length, "urgent", false, &record, &used, &error),
            STREAM_BAD);
        assert_non_null(strstr(error->message, "in channel urgent"));
        assert_non_null(strstr(error->message, "RUN 0x400 was not agreed on"));
    }
}

static void
put_run_of_one_page_is_a_record_of_qemu(void **state)
{
    uint8_t bytes[2][64];
    StreamWriter run = {bytes[0], 0, sizeof bytes[0]}, record = {bytes[1], 0, sizeof bytes[1]};
    (void)state;

    stream_put_run(&run, STREAM_RAM_ZERO, "ram0", 0x3000, 1);
    stream_put_run(&run, STREAM_RAM_PAGE, NULL, 0x5000, 1);
    stream_put_record(&record, STREAM_RAM_ZERO, "ram0", 0x3000);
    stream_put_record(&record, STREAM_RAM_PAGE, NULL, 0x5000);
    assert_int_equal(run.length, record.length);
    assert_memory_equal(bytes[0], bytes[1], run.length);
}

static void
command_name_of_each_number_is_known(void **state)
{
    (void)state;
    assert_string_equal(stream_command_name(STREAM_COMMAND_PING), "PING");
    assert_string_equal(stream_command_name(STREAM_COMMAND_SWITCHOVER_START), "SWITCHOVER_START");
    assert_string_equal(stream_command_name(0), "unknown");
    assert_string_equal(stream_command_name(12), "unknown");
    assert_string_equal(stream_command_name(UINT32_MAX), "unknown");
}

static void
page_checksum_knows_block_number_and_bytes(void **state)
{
    static uint8_t page[STREAM_PAGE_BYTES];
    uint64_t place = stream_block_place("ram");
    (void)state;

    page[9] = 1;
    uint64_t checksum = stream_page_checksum(page, place, 7);
    assert_int_equal(stream_page_checksum(page, place, 7), checksum);
    assert_int_not_equal(stream_page_checksum(page, place, 8), checksum);
    assert_int_not_equal(stream_page_checksum(page, stream_block_place("rom"), 7), checksum);
    assert_int_not_equal(stream_page_checksum(NULL, place, 7), checksum);
    page[STREAM_PAGE_BYTES - 1] = 0x80;
    assert_int_not_equal(stream_page_checksum(page, place, 7), checksum);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_what_was_encoded_gives_it_back),
        cmocka_unit_test(decode_cut_at_every_byte_asks_for_more),
        cmocka_unit_test(decode_with_more_behind_takes_only_its_own),
        cmocka_unit_test(decode_field_out_of_range_is_refused_by_name),
        cmocka_unit_test(decode_block_name_not_ending_in_multifd_packet_is_refused),
        cmocka_unit_test(decode_run_that_was_not_agreed_is_refused),
        cmocka_unit_test(put_run_of_one_page_is_a_record_of_qemu),
        cmocka_unit_test(command_name_of_each_number_is_known),
        cmocka_unit_test(page_checksum_knows_block_number_and_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
