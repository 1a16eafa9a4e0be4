/* SPDX-License-Identifier: MIT */
/*
 * The ram section: its block list, and its records, of which place.c takes the pages. Listen role,
 * in precopy and postcopy; reading a record, also the fault role for the urgent channel.
 */
#include "engine/destination/destination.h"

#include <string.h>

#define RECORDS_BATCH 128u
#define PIECE_PAGES   64u /* of a run that are placed at once */

/* ---- The block list -------------------------------------------------------------------------- */

static StreamResult
decode_block_name(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
                  GError **error)
{
    return stream_decode_block_name(bytes, available, context, ret_length, error);
}

typedef struct BlockDecode {
    bool with_page_size;
    StreamBlock entry;
} BlockDecode;

static StreamResult
decode_block(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
             GError **error)
{
    BlockDecode *decode = context;
    return stream_decode_block(bytes, available, decode->with_page_size, &decode->entry, ret_length,
                               error);
}

static bool
check_block(Destination *destination, const RamBlock *block, const BlockDecode *decode,
            GError **error)
{
    const StreamBlock *entry = &decode->entry;

    if (entry->length != block->is.length_bytes) {
        g_propagate_error(error, destination_peer_error(
                                     "load block list: size mismatch: %s: 0x%" G_GINT64_MODIFIER
                                     "x != 0x%" G_GINT64_MODIFIER
                                     "x here; give both sides the same memory",
                                     entry->name, entry->length, block->is.length_bytes));
        return false;
    }
    if (decode->with_page_size && entry->page_size != block->is.page_size_bytes) {
        g_propagate_error(error, destination_peer_error(
                                     "load block list: mismatched page size of '%s': "
                                     "%" G_GUINT64_FORMAT " != %" G_GUINT64_FORMAT
                                     " here; back both with the same kind of memory",
                                     entry->name, entry->page_size, block->is.page_size_bytes));
        return false;
    }
    if (entry->length > destination->total_bytes - destination->listed_bytes) {
        g_propagate_error(error, destination_peer_error(
                                     "load block list: the blocks are longer than their total"));
        return false;
    }
    destination->listed_bytes += entry->length;
    return true;
}

StageResult
destination_stage_block_list(Destination *destination, GError **error)
{
    char name[STREAM_NAME_MAX + 1];
    BlockDecode decode = {0};
    size_t length;

    StageResult result = destination_read(destination, decode_block_name, name, &length, error);
    if (result != STAGE_AGAIN)
        return result;
    RamBlock *block = ram_blocks_find(destination->blocks, name);
    if (!block) {
        g_propagate_error(error, destination_peer_error("load block list: unknown ramblock '%s', "
                                                        "cannot accept migration; give both sides "
                                                        "the same memory",
                                                        name));
        return STAGE_FAILED;
    }
    decode.with_page_size = destination->has_page_sizes && block->host_pages > 1;
    result = destination_read(destination, decode_block, &decode, &length, error);
    if (result != STAGE_AGAIN)
        return result;
    if (!check_block(destination, block, &decode, error))
        return STAGE_FAILED;
    reader_consume(&destination->reader, length);
    if (destination->listed_bytes == destination->total_bytes)
        destination->stage = destination_stage_records;
    return STAGE_AGAIN;
}

static bool
begin_block_list(Destination *destination, const StreamRecord *record, GError **error)
{
    const char *problem = NULL;
    if (!destination->is_first_section || destination->total_bytes)
        problem = "the block list has no place here";
    else if (record->offset > destination->blocks->total_bytes)
        problem = "it announces more memory than there is here; give both sides the same memory";
    if (problem) {
        g_propagate_error(error, destination_peer_error("load block list: %s", problem));
        return false;
    }
    destination->total_bytes = record->offset;
    destination->stage = destination_stage_block_list;
    return true;
}

/* ---- Records --------------------------------------------------------------------------------- */

typedef struct RecordDecode {
    const char *channel;
    unsigned takes;
    StreamRecord *record;
} RecordDecode;

static StreamResult
decode_record(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
              GError **error)
{
    const RecordDecode *decode = context;
    return stream_decode_record(bytes, available, decode->channel, decode->takes, decode->record,
                                ret_length, error);
}

typedef struct PagesDecode {
    const ComingRun *coming;
    StreamRecord *record;
} PagesDecode;

/* As many whole pages of the run that is coming as are here. */
static StreamResult
decode_pages(void *context, const uint8_t *bytes, size_t available, size_t *ret_length,
             GError **error)
{
    const PagesDecode *decode = context;
    const ComingRun *coming = decode->coming;
    uint64_t count = MIN(MIN(coming->count, PIECE_PAGES), available / FAULTLINE_PAGE_BYTES);
    (void)error;

    *ret_length = MAX(count, 1) * FAULTLINE_PAGE_BYTES;
    if (!count)
        return STREAM_MORE;
    *decode->record = (StreamRecord){.flag = STREAM_RAM_PAGE,
                                     .is_continue = true,
                                     .offset = coming->page * FAULTLINE_PAGE_BYTES,
                                     .count_pages = (uint32_t)count,
                                     .page = bytes,
                                     .page_length = (uint32_t)*ret_length};
    return STREAM_OK;
}

ReadResult
destination_read_record(Reader *reader, const PageChannel *channel, StreamRecord *ret,
                        size_t *ret_length, GError **error)
{
    if (channel->coming.count) {
        if (reader->is_sealed && !reader->bare)
            reader_expect_bare(reader, channel->coming.count * FAULTLINE_PAGE_BYTES);
        PagesDecode pages = {&channel->coming, ret};
        return reader_decode(reader, decode_pages, &pages, ret_length, error);
    }
    unsigned takes = (destination_flag(&channel->takes_runs) ? STREAM_TAKES_RUNS : 0) |
                     (reader->is_sealed ? STREAM_TAKES_SEALED : 0);
    RecordDecode decode = {channel->name, takes, ret};
    return reader_decode(reader, decode_record, &decode, ret_length, error);
}

static bool
take_record(Destination *destination, const StreamRecord *record, GError **error)
{
    switch (record->flag) {
    case STREAM_RAM_PAGE:
    case STREAM_RAM_ZERO:
        if (destination->is_first_section || !destination->total_bytes) {
            g_propagate_error(error, destination_peer_error(
                                         "load ram: a page came before the end of the block list"));
            return false;
        }
        return destination_take_record(destination, &destination->main, record, error);
    case STREAM_RAM_EOS:
        destination->stage = destination_stage_footer;
        return destination_flush_run(destination, &destination->main, error);
    case STREAM_RAM_MEM_SIZE:
        return begin_block_list(destination, record, error);
    default:
        g_propagate_error(error,
                          destination_peer_error(
                              "load ram: flags 0x%x need xbzrle, compress or multifd, which "
                              "are not supported %s; switch them off at the source",
                              record->flag, destination->in_postcopy ? "in postcopy" : "here"));
        return false;
    }
}

static StageResult
read_record(Destination *destination, GError **error)
{
    PageChannel *channel = &destination->main;
    StreamRecord record;
    size_t length;

    StageResult result = destination_stage_of(
        destination_read_record(&destination->reader, channel, &record, &length, error), error);
    if (result == STAGE_STAY && !destination_flush_run(destination, channel, error))
        return STAGE_FAILED;
    /* What came before the link broke is good, and somebody may wait for it. */
    if (result == STAGE_FAILED)
        destination_flush_run(destination, channel, NULL);
    if (result != STAGE_AGAIN)
        return result;
    if (!take_record(destination, &record, error))
        return STAGE_FAILED;
    reader_consume(&destination->reader, length);
    return STAGE_AGAIN;
}

StageResult
destination_stage_records(Destination *destination, GError **error)
{
    StageResult result = STAGE_AGAIN;

    for (unsigned count = 0; count < RECORDS_BATCH && result == STAGE_AGAIN &&
                             destination->stage == destination_stage_records;
         count++)
        result = destination_is_receiving(destination) ? destination_receive_run(destination, error)
                                                       : read_record(destination, error);
    return result;
}

StageResult
destination_stage_footer(Destination *destination, GError **error)
{
    StageResult result = destination_stage_of(
        destination_read_footer(&destination->reader, destination->ram_section, "ram", error),
        error);
    if (result == STAGE_AGAIN)
        destination->stage = destination_stage_element;
    return result;
}
