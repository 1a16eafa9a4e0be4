/* SPDX-License-Identifier: MIT */
/*
 * The ram section: its records, which are also all that the urgent channel carries, and the block
 * list. On the way of every page, so nothing here allocates or clears what it need not. Which
 * records a phase allows and what CONTINUE continues, the caller knows.
 */
#include "engine/stream/wire.h"

#define RAM_FLAGS (STREAM_PAGE_BYTES - 1u)

/* QEMU's reader takes a compressed page of at most compressBound(4096) bytes of zlib. */
#define COMPRESSED_PAGE_MAX 4110u

/* Head and name have been taken. */
typedef StreamResult TakeBody(WireReader *reader, const char *channel, StreamRecord *ret,
                              GError **error);

static StreamResult
take_fill(WireReader *reader, const char *channel, StreamRecord *ret, GError **error)
{
    uint8_t fill;

    if (!wire_take_u8(reader, &fill))
        return STREAM_MORE;
    if (fill != 0)
        return wire_bad(error,
                        "decode ram record: fill of ZERO at offset 0x%" PRIx64
                        " in channel %s is 0x%02x, expected 0",
                        ret->offset, channel, fill);
    return STREAM_OK;
}

static StreamResult
take_page(WireReader *reader, G_GNUC_UNUSED const char *channel, StreamRecord *ret,
          G_GNUC_UNUSED GError **error)
{
    ret->page = wire_take(reader, STREAM_PAGE_BYTES);
    ret->page_length = STREAM_PAGE_BYTES;
    return ret->page ? STREAM_OK : STREAM_MORE;
}

static StreamResult
take_xbzrle(WireReader *reader, const char *channel, StreamRecord *ret, GError **error)
{
    uint8_t encoding;
    uint16_t length;

    if (!wire_take_u8(reader, &encoding))
        return STREAM_MORE;
    if (encoding != 1)
        return wire_bad(error,
                        "decode ram record: encoding of XBZRLE in channel %s is %u, expected 1",
                        channel, encoding);
    if (!wire_take_be16(reader, &length))
        return STREAM_MORE;
    if (length == 0 || length > STREAM_PAGE_BYTES)
        return wire_bad(error,
                        "decode ram record: length of XBZRLE in channel %s is %u, expected 1 to %u",
                        channel, length, STREAM_PAGE_BYTES);
    ret->page = wire_take(reader, length);
    ret->page_length = length;
    return ret->page ? STREAM_OK : STREAM_MORE;
}

static StreamResult
take_compressed(WireReader *reader, const char *channel, StreamRecord *ret, GError **error)
{
    uint32_t length;

    if (!wire_take_be32(reader, &length))
        return STREAM_MORE;
    if (length == 0 || length > COMPRESSED_PAGE_MAX)
        return wire_bad(
            error,
            "decode ram record: length of COMPRESS_PAGE in channel %s is %u, expected 1 to %u",
            channel, length, COMPRESSED_PAGE_MAX);
    ret->page = wire_take(reader, length);
    ret->page_length = length;
    return ret->page ? STREAM_OK : STREAM_MORE;
}

static StreamResult
check_total(G_GNUC_UNUSED WireReader *reader, const char *channel, StreamRecord *ret,
            GError **error)
{
    if (ret->offset == 0)
        return wire_bad(error,
                        "decode ram record: total of MEM_SIZE in channel %s is 0, expected the "
                        "bytes of all blocks",
                        channel);
    return STREAM_OK;
}

static StreamResult
check_no_offset(G_GNUC_UNUSED WireReader *reader, const char *channel, StreamRecord *ret,
                GError **error)
{
    if (ret->offset != 0)
        return wire_bad(
            error, "decode ram record: offset of %s in channel %s is 0x%" PRIx64 ", expected 0",
            ret->flag == STREAM_RAM_EOS ? "EOS" : "MULTIFD_FLUSH", channel, ret->offset);
    return STREAM_OK;
}

/* The count of a run, in the place of one page's bytes or fill. */
static StreamResult
take_run(WireReader *reader, const char *channel, StreamRecord *ret, GError **error)
{
    uint32_t count;

    if (!wire_take_be32(reader, &count))
        return STREAM_MORE;
    if (count < 2 || count > STREAM_RUN_PAGES_MAX)
        return wire_bad(error,
                        "decode ram record: count of pages of the run at offset 0x%" PRIx64
                        " in channel %s is %u, expected 2 to %u",
                        ret->offset, channel, count, STREAM_RUN_PAGES_MAX);
    if (ret->offset > UINT64_MAX - (uint64_t)count * STREAM_PAGE_BYTES)
        return wire_bad(error,
                        "decode ram record: the run of %u pages at offset 0x%" PRIx64
                        " in channel %s ends past the greatest offset",
                        count, ret->offset, channel);
    ret->count_pages = count;
    return STREAM_OK;
}

/* Of a sealed PAGE, in the place of its bytes, which come behind. */
static StreamResult
take_checksums(WireReader *reader, StreamRecord *ret)
{
    ret->checksums = wire_take(reader, (size_t)ret->count_pages * sizeof(be64));
    return ret->checksums ? STREAM_OK : STREAM_MORE;
}

/* by the number of the flag's bit; a row without a function is a flag that nobody sends to us */
static const struct {
    TakeBody *take, *take_run;
    bool has_name;
} record_kinds[] = {
    [1] = {take_fill, take_run, true},    [2] = {check_total, NULL, false},
    [3] = {take_page, take_run, true},    [4] = {check_no_offset, NULL, false},
    [6] = {take_xbzrle, NULL, true},      [8] = {take_compressed, NULL, true},
    [9] = {check_no_offset, NULL, false},
};
static_assert(STREAM_RAM_ZERO == 1 << 1 && STREAM_RAM_MEM_SIZE == 1 << 2 &&
                  STREAM_RAM_PAGE == 1 << 3 && STREAM_RAM_EOS == 1 << 4 &&
                  STREAM_RAM_XBZRLE == 1 << 6 && STREAM_RAM_COMPRESS_PAGE == 1 << 8 &&
                  STREAM_RAM_MULTIFD_FLUSH == 1 << 9,
              "rows of record_kinds");

static StreamResult
refuse_flags(unsigned flags, const char *channel, bool with_runs, GError **error)
{
    return wire_bad(error,
                    "decode ram record: flags 0x%x in channel %s are not a known combination; "
                    "expected one of ZERO 0x2, MEM_SIZE 0x4, PAGE 0x8, EOS 0x10, XBZRLE 0x40, "
                    "COMPRESS_PAGE 0x100, MULTIFD_FLUSH 0x200, for pages with CONTINUE 0x20%s",
                    flags, channel, with_runs ? " and RUN 0x400" : "; RUN 0x400 was not agreed on");
}

StreamResult
stream_decode_record(const uint8_t *bytes, size_t available, const char *channel, unsigned takes,
                     StreamRecord *ret, size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    StreamResult result = STREAM_OK;
    bool with_runs = (takes & STREAM_TAKES_RUNS) != 0;
    uint64_t head;

    if (!wire_take_be64(&reader, &head))
        return wire_more(&reader, ret_length);
    unsigned flags = (unsigned)(head & RAM_FLAGS);
    unsigned flag = flags & ~(unsigned)(STREAM_RAM_CONTINUE | STREAM_RAM_RUN);
    unsigned kind = flag ? (unsigned)__builtin_ctz(flag) : 0;
    bool is_continue = (flags & STREAM_RAM_CONTINUE) != 0;
    bool is_run = (flags & STREAM_RAM_RUN) != 0;
    if ((flag & (flag - 1)) != 0 || kind >= G_N_ELEMENTS(record_kinds) ||
        !record_kinds[kind].take || (is_continue && !record_kinds[kind].has_name) ||
        (is_run && !(with_runs && record_kinds[kind].take_run)))
        return refuse_flags(flags, channel, with_runs, error);

    ret->flag = (StreamRamFlag)flag;
    ret->is_continue = is_continue;
    ret->offset = head & ~(uint64_t)RAM_FLAGS;
    ret->name[0] = '\0';
    ret->count_pages = 1;
    ret->page = NULL;
    ret->page_length = 0;
    ret->checksums = NULL;
    bool is_checked = (takes & STREAM_TAKES_SEALED) && flag == STREAM_RAM_PAGE;
    if (record_kinds[kind].has_name && !is_continue)
        result = wire_take_name(&reader, "decode ram record: block name", ret->name, error);
    if (result == STREAM_OK && (is_run || !is_checked))
        result = (is_run ? record_kinds[kind].take_run : record_kinds[kind].take)(&reader, channel,
                                                                                  ret, error);
    if (result == STREAM_OK && is_checked)
        result = take_checksums(&reader, ret);
    *ret_length = reader.position;
    return result;
}

StreamResult
stream_decode_block_name(const uint8_t *bytes, size_t available, char *ret_name, size_t *ret_length,
                         GError **error)
{
    WireReader reader = wire_reader(bytes, available);
    StreamResult result = wire_take_name(&reader, "decode block list: block name", ret_name, error);

    *ret_length = reader.position;
    return result;
}

StreamResult
stream_decode_block(const uint8_t *bytes, size_t available, bool with_page_size, StreamBlock *ret,
                    size_t *ret_length, GError **error)
{
    WireReader reader = wire_reader(bytes, available);

    *ret = (StreamBlock){.page_size = 0};
    StreamResult result =
        wire_take_name(&reader, "decode block list: block name", ret->name, error);
    if (result != STREAM_OK) {
        *ret_length = reader.position;
        return result;
    }
    if (!wire_take_be64(&reader, &ret->length))
        return wire_more(&reader, ret_length);
    if (ret->length == 0 || ret->length % STREAM_PAGE_BYTES != 0)
        return wire_bad(error,
                        "decode block list: length of block %s is 0x%" PRIx64
                        ", expected a multiple of %u",
                        ret->name, ret->length, STREAM_PAGE_BYTES);
    if (!with_page_size)
        return wire_ok(&reader, ret_length);

    if (!wire_take_be64(&reader, &ret->page_size))
        return wire_more(&reader, ret_length);
    if (ret->page_size <= STREAM_PAGE_BYTES || (ret->page_size & (ret->page_size - 1)) != 0 ||
        ret->length % ret->page_size != 0)
        return wire_bad(error,
                        "decode block list: page size of block %s is 0x%" PRIx64
                        ", expected a power of two above %u that divides its length 0x%" PRIx64,
                        ret->name, ret->page_size, STREAM_PAGE_BYTES, ret->length);
    return wire_ok(&reader, ret_length);
}

void
stream_put_mem_size(StreamWriter *writer, uint64_t total_bytes)
{
    g_assert(total_bytes % STREAM_PAGE_BYTES == 0);
    stream_put_be64(writer, total_bytes | STREAM_RAM_MEM_SIZE);
}

void
stream_put_block(StreamWriter *writer, const char *name, uint64_t length, uint64_t page_size)
{
    stream_put_name(writer, name);
    stream_put_be64(writer, length);
    if (page_size != 0)
        stream_put_be64(writer, page_size);
}

void
stream_put_record(StreamWriter *writer, StreamRamFlag zero_or_page, const char *name,
                  uint64_t offset)
{
    g_assert(zero_or_page == STREAM_RAM_ZERO || zero_or_page == STREAM_RAM_PAGE);
    g_assert(offset % STREAM_PAGE_BYTES == 0);
    stream_put_be64(writer, offset | (uint64_t)zero_or_page | (name ? 0 : STREAM_RAM_CONTINUE));
    if (name)
        stream_put_name(writer, name);
    if (zero_or_page == STREAM_RAM_ZERO)
        stream_put_u8(writer, 0);
}

void
stream_put_run(StreamWriter *writer, StreamRamFlag zero_or_page, const char *name, uint64_t offset,
               uint32_t count_pages)
{
    g_assert(zero_or_page == STREAM_RAM_ZERO || zero_or_page == STREAM_RAM_PAGE);
    g_assert(offset % STREAM_PAGE_BYTES == 0);
    g_assert(count_pages && count_pages <= STREAM_RUN_PAGES_MAX);
    if (count_pages == 1) {
        stream_put_record(writer, zero_or_page, name, offset);
        return;
    }
    stream_put_be64(writer, offset | (uint64_t)zero_or_page | STREAM_RAM_RUN |
                                (name ? 0 : STREAM_RAM_CONTINUE));
    if (name)
        stream_put_name(writer, name);
    stream_put_be32(writer, count_pages);
}

void
stream_put_eos(StreamWriter *writer)
{
    stream_put_be64(writer, STREAM_RAM_EOS);
}

void
stream_put_multifd_flush(StreamWriter *writer)
{
    stream_put_be64(writer, STREAM_RAM_MULTIFD_FLUSH);
}
