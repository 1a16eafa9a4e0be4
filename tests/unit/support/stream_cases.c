/* SPDX-License-Identifier: MIT */
/*
 * The table of good messages. Decoders leave what they read in `got`. One thread.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/support/stream_cases.h"

static struct {
    StreamConfiguration configuration;
    StreamElement element;
    StreamAdvise advise;
    StreamRecord record;
    StreamBlock block;
    StreamReturn message;
    StreamMultifd multifd;
    char name[STREAM_NAME_MAX + 1];
    unsigned count;
    uint64_t first_page;
    uint32_t length;
    bool is_running;
    const uint8_t *bits;
} got;

static uint8_t page[STREAM_PAGE_BYTES];

/* ---- Decoders of one signature -----------------------------------------------------------------
 */

#define DECODE(kind, ...)                                                                          \
    static StreamResult decode_##kind(const uint8_t *bytes, size_t available, size_t *ret_length,  \
                                      GError **error)                                              \
    {                                                                                              \
        return __VA_ARGS__;                                                                        \
    }

DECODE(header, stream_decode_header(bytes, available, ret_length, error))
DECODE(configuration,
       stream_decode_configuration(bytes, available, &got.configuration, ret_length, error))
DECODE(footer, stream_decode_footer(bytes, available, 7, "cpu", ret_length, error))
DECODE(record, stream_decode_record(bytes, available, "main", true, &got.record, ret_length, error))
DECODE(sealed_record,
       stream_decode_record(bytes, available, "main", STREAM_TAKES_RUNS | STREAM_TAKES_SEALED,
                            &got.record, ret_length, error))
DECODE(block, stream_decode_block(bytes, available, false, &got.block, ret_length, error))
DECODE(huge_block, stream_decode_block(bytes, available, true, &got.block, ret_length, error))
DECODE(block_name, stream_decode_block_name(bytes, available, got.name, ret_length, error))
DECODE(device_length,
       stream_decode_device_length(bytes, available, "disk", 1000, &got.length, ret_length, error))
DECODE(return, stream_decode_return(bytes, available, &got.message, ret_length, error))
DECODE(bitmap, stream_decode_bitmap(bytes, available, 70, &got.bits, ret_length, error))
DECODE(multifd_first,
       stream_decode_multifd_first(bytes, available, &got.multifd, ret_length, error))
DECODE(multifd, stream_decode_multifd(bytes, available, &got.multifd, ret_length, error))

static StreamResult
decode_element(const uint8_t *bytes, size_t available, size_t *ret_length, GError **error)
{
    StreamResult result = stream_decode_element(bytes, available, &got.element, ret_length, error);
    bool is_good = true;

    if (result != STREAM_OK || got.element.type != STREAM_COMMAND)
        return result;
    if (got.element.command == STREAM_COMMAND_POSTCOPY_ADVISE)
        is_good = stream_parse_advise(&got.element, &got.advise, error);
    if (got.element.command == STREAM_COMMAND_POSTCOPY_RAM_DISCARD)
        is_good = stream_parse_discard(&got.element, got.name, &got.count, error);
    if (got.element.command == STREAM_COMMAND_DISCARD_WORDS)
        is_good =
            stream_parse_discard_words(&got.element, got.name, &got.first_page, &got.count, error);
    if (got.element.command == STREAM_COMMAND_SEALED)
        is_good = stream_parse_sealed(&got.element, &got.length, error);
    if (got.element.command == STREAM_COMMAND_DIGEST)
        is_good = stream_parse_digest(&got.element, got.name, &got.first_page, &got.count, error);
    if (got.element.command == STREAM_COMMAND_RECV_BITMAP)
        is_good = stream_parse_bitmap_name(&got.element, got.name, error);
    return is_good ? STREAM_OK : STREAM_BAD;
}

/* Head, the 104 bytes, footer. */
static StreamResult
decode_globalstate(const uint8_t *bytes, size_t available, size_t *ret_length, GError **error)
{
    size_t head, data, foot;
    StreamResult result = stream_decode_element(bytes, available, &got.element, &head, error);

    *ret_length = head;
    if (result != STREAM_OK)
        return result;
    result =
        stream_decode_globalstate(bytes + head, available - head, &got.is_running, &data, error);
    *ret_length += data;
    if (result != STREAM_OK)
        return result;
    result = stream_decode_footer(bytes + head + data, available - head - data,
                                  STREAM_GLOBALSTATE_SECTION, "globalstate", &foot, error);
    *ret_length += foot;
    return result;
}

/* ---- Encoders, and what must have been read ----------------------------------------------------
 */

#define CASE(name, statements, expression)                                                         \
    static void encode_##name(StreamWriter *w)                                                     \
    {                                                                                              \
        statements;                                                                                \
    }                                                                                              \
    static bool check_##name(void)                                                                 \
    {                                                                                              \
        return expression;                                                                         \
    }

static bool
is_section(StreamType type, uint32_t id, const char *name, uint32_t instance, uint32_t version)
{
    return got.element.type == type && got.element.section_id == id &&
           strcmp(got.element.name, name) == 0 && got.element.instance == instance &&
           got.element.version == version;
}

static bool
is_command(StreamCommand command, unsigned length)
{
    return got.element.type == STREAM_COMMAND && got.element.command == command &&
           got.element.payload_length == length;
}

static bool
is_record(StreamRamFlag flag, const char *name, uint64_t offset, uint32_t length)
{
    return got.record.flag == flag && got.record.is_continue == (name == NULL) &&
           strcmp(got.record.name, name ? name : "") == 0 && got.record.offset == offset &&
           (length == 0 || got.record.count_pages == 1) && got.record.page_length == length &&
           (got.record.page != NULL) == (length > 0);
}

static bool
is_return(StreamReturnType type, uint32_t value, uint64_t start, uint32_t length, const char *name)
{
    return got.message.type == type && got.message.value == value && got.message.start == start &&
           got.message.length == length && strcmp(got.message.name, name) == 0;
}

static void
put_subsection(StreamWriter *w, const char *name)
{
    stream_put_u8(w, STREAM_SUBSECTION);
    stream_put_name(w, name);
    stream_put_be32(w, 1);
}

static void
put_validated(StreamWriter *w)
{
    stream_put_configuration(w, "pc-1");
    put_subsection(w, "configuration/capabilities");
    stream_put_be32(w, 2);
    stream_put_name(w, "x-ignore-shared");
    stream_put_name(w, "mapped-ram");
    put_subsection(w, "configuration/uuid");
    stream_put_bytes(w, page, 16);
}

static void
put_multifd(StreamWriter *w, uint32_t flags, uint32_t normal, uint32_t zero, uint32_t size)
{
    static const uint32_t head[] = {0x11223344, 1};
    static const char name[256] = "ram0";

    stream_put_be32(w, head[0]);
    stream_put_be32(w, head[1]);
    stream_put_be32(w, flags);
    stream_put_be32(w, 128);
    stream_put_be32(w, normal);
    stream_put_be32(w, size);
    stream_put_be64(w, 9);
    stream_put_be32(w, zero);
    stream_put_bytes(w, page, 28);
    stream_put_bytes(w, name, sizeof name);
    for (unsigned i = 0; i < 128; i++)
        stream_put_be64(w, i < 3 ? i * 4096u : 5);
}

CASE(header, stream_put_header(w), true)
CASE(configuration, stream_put_configuration(w, "none-1.0"),
     strcmp(got.configuration.machine, "none-1.0") == 0 &&
         got.configuration.count_capabilities == 0 && !got.configuration.has_uuid)
CASE(validated, put_validated(w),
     strcmp(got.configuration.machine, "pc-1") == 0 && got.configuration.count_capabilities == 2 &&
         got.configuration.has_uuid)
CASE(start, stream_put_start(w, STREAM_START, 2, "ram", 0, 4),
     is_section(STREAM_START, 2, "ram", 0, 4))
CASE(full, stream_put_start(w, STREAM_FULL, 0x01020304, "cpu", 5, 12),
     is_section(STREAM_FULL, 0x01020304, "cpu", 5, 12))
CASE(part, stream_put_part(w, STREAM_PART, 2), is_section(STREAM_PART, 2, "", 0, 0))
CASE(end, stream_put_part(w, STREAM_END, 2), is_section(STREAM_END, 2, "", 0, 0))
CASE(eof, stream_put_u8(w, STREAM_EOF), got.element.type == STREAM_EOF)
CASE(description, (stream_put_u8(w, STREAM_VMDESCRIPTION), stream_put_be32(w, 0x10203)),
     got.element.type == STREAM_VMDESCRIPTION && got.element.json_length == 0x10203)
CASE(footer, stream_put_footer(w, 7), true)
CASE(ping, stream_put_ping(w, 0xfa170001),
     is_command(STREAM_COMMAND_PING, 4) && stream_parse_be32(&got.element) == 0xfa170001)
CASE(advise, stream_put_advise(w, 0x201000),
     is_command(STREAM_COMMAND_POSTCOPY_ADVISE, 16) && !got.advise.is_short &&
         got.advise.page_sizes == 0x201000 && got.advise.target_page_bytes == 4096)
CASE(short_advise, stream_put_command(w, STREAM_COMMAND_POSTCOPY_ADVISE, NULL, 0),
     is_command(STREAM_COMMAND_POSTCOPY_ADVISE, 0) && got.advise.is_short)
CASE(listen, stream_put_command(w, STREAM_COMMAND_POSTCOPY_LISTEN, NULL, 0),
     is_command(STREAM_COMMAND_POSTCOPY_LISTEN, 0))
CASE(packaged, stream_put_command(w, STREAM_COMMAND_PACKAGED, "\1\2\3\4", 4),
     is_command(STREAM_COMMAND_PACKAGED, 4) && stream_parse_be32(&got.element) == 0x01020304)
static const StreamRange ranges[] = {{0x1000, 0x3000}, {0x100000000, 0x1000}};
CASE(discard, stream_put_discard(w, "ram0", ranges, 2),
     got.count == 2 && strcmp(got.name, "ram0") == 0 &&
         stream_discard_range(&got.element, 0).start == 0x1000 &&
         stream_discard_range(&got.element, 0).length == 0x3000 &&
         stream_discard_range(&got.element, 1).start == 0x100000000 &&
         stream_discard_range(&got.element, 1).length == 0x1000)
static const uint64_t words[] = {0x8000000000000001, 0, 0x5};
CASE(discard_words, stream_put_discard_words(w, "ram0", 0x4000000040, words, 3),
     got.count == 3 && strcmp(got.name, "ram0") == 0 && got.first_page == 0x4000000040 &&
         stream_discard_word(&got.element, 0) == words[0] &&
         stream_discard_word(&got.element, 1) == words[1] &&
         stream_discard_word(&got.element, 2) == words[2])
CASE(sealed, stream_put_sealed(w, 0x1b), got.length == 0x1b)
CASE(digest, stream_put_digest(w, "ram0", 0x40000040, words, 3),
     got.count == 3 && strcmp(got.name, "ram0") == 0 && got.first_page == 0x40000040 &&
         stream_digest_sum(&got.element, 0) == words[0] &&
         stream_digest_sum(&got.element, 2) == words[2])
CASE(bitmap_command, stream_put_command(w, STREAM_COMMAND_RECV_BITMAP, "\4ram0", 5),
     is_command(STREAM_COMMAND_RECV_BITMAP, 5) && strcmp(got.name, "ram0") == 0)
CASE(zero, stream_put_record(w, STREAM_RAM_ZERO, "ram0", 0x7000),
     is_record(STREAM_RAM_ZERO, "ram0", 0x7000, 0))
CASE(zero_continue, stream_put_record(w, STREAM_RAM_ZERO, NULL, 0x123456000),
     is_record(STREAM_RAM_ZERO, NULL, 0x123456000, 0))
#define NAME_51  "/machine/peripheral-anon/device[0]/a-rather-long-on"
#define NAME_255 NAME_51 NAME_51 NAME_51 NAME_51 NAME_51
static_assert(sizeof(NAME_255) == STREAM_NAME_MAX + 1, "the longest name");
CASE(longest_name, stream_put_record(w, STREAM_RAM_ZERO, NAME_255, 0x1000),
     is_record(STREAM_RAM_ZERO, NAME_255, 0x1000, 0))
CASE(page,
     (stream_put_record(w, STREAM_RAM_PAGE, "ram0", 0), stream_put_bytes(w, page, sizeof page)),
     is_record(STREAM_RAM_PAGE, "ram0", 0, sizeof page))
CASE(page_continue,
     (stream_put_record(w, STREAM_RAM_PAGE, NULL, 0x1000), stream_put_bytes(w, page, sizeof page)),
     is_record(STREAM_RAM_PAGE, NULL, 0x1000, sizeof page))
CASE(run, stream_put_run(w, STREAM_RAM_PAGE, "ram0", 0x7000, 2),
     is_record(STREAM_RAM_PAGE, "ram0", 0x7000, 0) && got.record.count_pages == 2)
CASE(run_continue, stream_put_run(w, STREAM_RAM_PAGE, NULL, 0, STREAM_RUN_PAGES_MAX),
     is_record(STREAM_RAM_PAGE, NULL, 0, 0) && got.record.count_pages == STREAM_RUN_PAGES_MAX)
CASE(zero_run, stream_put_run(w, STREAM_RAM_ZERO, NULL, 0x123456000, 17),
     is_record(STREAM_RAM_ZERO, NULL, 0x123456000, 0) && got.record.count_pages == 17)
CASE(sealed_page, (stream_put_record(w, STREAM_RAM_PAGE, "ram0", 0x7000), stream_put_be64(w, 77)),
     is_record(STREAM_RAM_PAGE, "ram0", 0x7000, 0) && got.record.count_pages == 1 &&
         !got.record.page && stream_record_checksum(&got.record, 0) == 77)
CASE(sealed_run,
     (stream_put_run(w, STREAM_RAM_PAGE, NULL, 0x7000, 2), stream_put_be64(w, 77),
      stream_put_be64(w, 78)),
     is_record(STREAM_RAM_PAGE, NULL, 0x7000, 0) && got.record.count_pages == 2 &&
         stream_record_checksum(&got.record, 1) == 78)
CASE(mem_size, stream_put_mem_size(w, 0x40000000),
     got.record.flag == STREAM_RAM_MEM_SIZE && got.record.offset == 0x40000000)
CASE(eos, stream_put_eos(w), got.record.flag == STREAM_RAM_EOS && got.record.offset == 0)
CASE(flush, stream_put_multifd_flush(w), got.record.flag == STREAM_RAM_MULTIFD_FLUSH)
CASE(xbzrle,
     (stream_put_be64(w, 0x2000 | STREAM_RAM_XBZRLE | STREAM_RAM_CONTINUE), stream_put_u8(w, 1),
      stream_put_be16(w, 3), stream_put_bytes(w, "\0\1x", 3)),
     is_record(STREAM_RAM_XBZRLE, NULL, 0x2000, 3))
CASE(compressed,
     (stream_put_be64(w, 0x2000 | STREAM_RAM_COMPRESS_PAGE), stream_put_name(w, "ram0"),
      stream_put_be32(w, 2), stream_put_bytes(w, "xy", 2)),
     is_record(STREAM_RAM_COMPRESS_PAGE, "ram0", 0x2000, 2))
CASE(block, stream_put_block(w, "ram0", 0x5000, 0),
     strcmp(got.block.name, "ram0") == 0 && got.block.length == 0x5000 && got.block.page_size == 0)
CASE(huge_block, stream_put_block(w, "ram0", 0x400000, 0x200000),
     strcmp(got.block.name, "ram0") == 0 && got.block.length == 0x400000 &&
         got.block.page_size == 0x200000)
CASE(block_name, stream_put_name(w, "ram0"), strcmp(got.name, "ram0") == 0)
CASE(device_length, stream_put_be32(w, 1000), got.length == 1000)
CASE(running, stream_put_globalstate(w, true),
     got.is_running &&is_section(STREAM_FULL, STREAM_GLOBALSTATE_SECTION, "globalstate", 0, 1))
CASE(paused, stream_put_globalstate(w, false), !got.is_running)
CASE(shut, stream_put_return_value(w, STREAM_RETURN_SHUT, 1),
     is_return(STREAM_RETURN_SHUT, 1, 0, 0, ""))
CASE(pong, stream_put_return_value(w, STREAM_RETURN_PONG, 0x42),
     is_return(STREAM_RETURN_PONG, 0x42, 0, 0, ""))
CASE(request_id, stream_put_request(w, "ram0", 0x123456000, 0x2000),
     is_return(STREAM_RETURN_REQ_PAGES_ID, 0, 0x123456000, 0x2000, "ram0"))
CASE(request, stream_put_request(w, NULL, 0x1000, 0x1000),
     is_return(STREAM_RETURN_REQ_PAGES, 0, 0x1000, 0x1000, ""))
CASE(bitmap_message,
     (stream_put_be16(w, STREAM_RETURN_RECV_BITMAP), stream_put_be16(w, 5),
      stream_put_name(w, "ram0")),
     is_return(STREAM_RETURN_RECV_BITMAP, 0, 0, 0, "ram0"))
CASE(resume_ack, stream_put_return_value(w, STREAM_RETURN_RESUME_ACK, 1),
     is_return(STREAM_RETURN_RESUME_ACK, 1, 0, 0, ""))
CASE(resend, stream_put_resend(w, "ram0", 0x123456000, 0x2000),
     is_return(STREAM_RETURN_RESEND, 0, 0x123456000, 0x2000, "ram0"))
CASE(whole, stream_put_whole(w), is_return(STREAM_RETURN_WHOLE, 0, 0, 0, ""))
CASE(verdict, stream_put_return_value(w, STREAM_RETURN_VERDICT, 3),
     is_return(STREAM_RETURN_VERDICT, 3, 0, 0, ""))
CASE(switchover_ack, (stream_put_be16(w, STREAM_RETURN_SWITCHOVER_ACK), stream_put_be16(w, 0)),
     is_return(STREAM_RETURN_SWITCHOVER_ACK, 0, 0, 0, ""))
CASE(bitmap,
     (stream_put_be64(w, 16), stream_put_bytes(w, "\1\0\0\0\0\0\0\0\x20\0\0\0\0\0\0\0", 16),
      stream_put_be64(w, 0x0123456789abcdef)),
     got.bits[0] == 1 && got.bits[8] == 0x20)
CASE(multifd_first,
     (stream_put_be32(w, 0x11223344), stream_put_be32(w, 1), stream_put_bytes(w, page, 16),
      stream_put_u8(w, 3), stream_put_bytes(w, page, 39)),
     got.multifd.is_first &&got.multifd.channel == 3)
CASE(multifd, put_multifd(w, 1, 2, 1, 8192),
     got.multifd.flags == 1 && got.multifd.normal_pages == 2 && got.multifd.zero_pages == 1 &&
         got.multifd.data_length == 8192 && got.multifd.number == 9 &&
         strcmp(got.multifd.name, "ram0") == 0 && got.multifd.offsets[14] == 0x10)
CASE(multifd_stale, put_multifd(w, 0, 0, 0, 4096),
     got.multifd.data_length == 0 && got.multifd.name[0] == '\0')

/* clang-format off */
#define ROW(name, decoder, behind) \
    [STREAM_CASE_##name] = {#name, encode_##name, decode_##decoder, check_##name, behind}
const StreamCase stream_cases[STREAM_CASE_COUNT] = {
    ROW(header, header, 0),             ROW(configuration, configuration, 1),
    ROW(validated, configuration, 1),   ROW(start, element, 0),
    ROW(full, element, 0),              ROW(part, element, 0),
    ROW(end, element, 0),               ROW(eof, element, 0),
    ROW(description, element, 0),       ROW(footer, footer, 0),
    ROW(ping, element, 0),              ROW(advise, element, 0),
    ROW(short_advise, element, 0),      ROW(listen, element, 0),
    ROW(packaged, element, 0),          ROW(discard, element, 0),
    ROW(discard_words, element, 0),
    ROW(bitmap_command, element, 0),    ROW(zero, record, 0),
    ROW(longest_name, record, 0),       ROW(zero_continue, record, 0),      ROW(page, record, 0),
    ROW(page_continue, record, 0),      ROW(run, record, 0),
    ROW(run_continue, record, 0),       ROW(zero_run, record, 0),
    ROW(mem_size, record, 0),
    ROW(eos, record, 0),                ROW(flush, record, 0),
    ROW(xbzrle, record, 0),             ROW(compressed, record, 0),
    ROW(block, block, 0),               ROW(huge_block, huge_block, 0),
    ROW(block_name, block_name, 0),     ROW(device_length, device_length, 0),
    ROW(running, globalstate, 0),       ROW(paused, globalstate, 0),
    ROW(shut, return, 0),               ROW(pong, return, 0),
    ROW(request_id, return, 0),         ROW(request, return, 0),
    ROW(bitmap_message, return, 0),     ROW(resume_ack, return, 0),
    ROW(switchover_ack, return, 0),     ROW(bitmap, bitmap, 0),
    ROW(multifd_first, multifd_first, 0), ROW(multifd, multifd, 0),
    ROW(multifd_stale, multifd, 0),
    ROW(sealed, element, 0),            ROW(digest, element, 0),
    ROW(sealed_page, sealed_record, 0), ROW(sealed_run, sealed_record, 0),
    ROW(resend, return, 0),             ROW(whole, return, 0),
    ROW(verdict, return, 0),
};
/* clang-format on */

size_t
stream_case_encode(const StreamCase *one, uint8_t *bytes)
{
    StreamWriter writer = {bytes, 0, STREAM_CASE_BYTES_MAX - 1};

    one->encode(&writer);
    bytes[writer.length] = STREAM_EOF;
    return writer.length;
}

uint8_t *
stream_case_copy(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length);

    if (length > 0)
        memcpy(copy, bytes, length);
    return copy;
}
