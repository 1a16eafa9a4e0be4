/* SPDX-License-Identifier: MIT */
/*
 * Pause and recovery at the source. The migration role lets go of the links and waits; when
 * somebody wants to go on it connects again, asks for what the destination has of each block, makes
 * dirty what it has not, and pushes on. Whatever breaks on the way leads back to the pause, any
 * number of times: all that a recovery knows comes from the destination's bitmaps, and nothing from
 * what was before. The request role takes the bitmaps in, in pieces, however large they are.
 */
#include "engine/source/source.h"

uint64_t
source_sent_bytes(const Source *source)
{
    uint64_t bytes = source->earlier_bytes;
    if (source->main.sender)
        bytes += transport_sender_accepted_bytes(source->main.sender);
    return bytes;
}

/* ---- Migration role: the pause --------------------------------------------------------------- */

static void
drop_link(TransportLink **link)
{
    if (*link)
        transport_link_shutdown(*link);
    g_clear_pointer(link, transport_link_unref);
}

void
source_let_go(Source *source)
{
    source->earlier_bytes = source_sent_bytes(source);
    source_clear_flag(&source->answers_requests);
    source_clear_flag(&source->expects_bitmaps);
    source_clear_flag(&source->expects_resume);
    source_clear_flag(&source->needs_proof);
    source_drop_connectors(source);
    g_clear_pointer(&source->main.sender, transport_sender_free);
    frame_queue_reset(&source->main);
    if (source_has_token(source))
        frame_queue_unseal(&source->main); /* up to the answer */
    source->is_part_open = false;
    source->end_page = 0;
    source->digest_block = 0;
    source->digest_page = 0;
    drop_link(&source->link);
    drop_link(&source->urgent_link);
    source_set_flag(&source->drops_links);
    transport_ring_notify(source->request.ring);
}

void
source_pause(Source *source)
{
    source_let_go(source);
    source->stage = source_stage_paused;
    source_retry_begin(source);
    context_move(source->faultline, FAULTLINE_STATUS_POSTCOPY_PAUSED);
}

void
source_resume(Source *source, const char *uri)
{
    char *before = __atomic_exchange_n(&source->wanted_uri, g_strdup(uri), __ATOMIC_ACQ_REL);
    g_free(before);
    source_notify(source);
}

bool
source_is_resumed(const Source *source)
{
    return __atomic_load_n(&source->wanted_uri, __ATOMIC_ACQUIRE) ||
           context_status(source->faultline) != FAULTLINE_STATUS_POSTCOPY_PAUSED;
}

void
source_begin_recovery(Source *source)
{
    context_forget_error(source->faultline);
    /* What was asked for is asked for again. */
    __atomic_store_n(&source->requests_tail,
                     __atomic_load_n(&source->requests_head, __ATOMIC_ACQUIRE), __ATOMIC_RELEASE);
    __atomic_store_n(&source->cursor_hint, 0, __ATOMIC_RELAXED);
    record_set_address(source->faultline, source->uri);
    source->stage = source_stage_reconnect;
}

StageResult
source_stage_paused(Source *source, GError **error)
{
    (void)error;
    if (source_flag(&source->drops_links))
        return STAGE_STAY;
    char *uri = __atomic_exchange_n(&source->wanted_uri, NULL, __ATOMIC_ACQ_REL);
    if (!uri && context_status(source->faultline) == FAULTLINE_STATUS_POSTCOPY_PAUSED)
        return source_retry_step(source);
    if (!uri || context_status(source->faultline) != FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP) {
        g_free(uri); /* broken by command before it was looked at */
        return STAGE_STAY;
    }
    source_drop_connectors(source);
    if (__atomic_exchange_n(&source->has_command, false, __ATOMIC_ACQUIRE))
        source->retry =
            (SourceRetry){.began_ns = clock_now_ns(), .connect_ns = source->retry.connect_ns};
    g_free(source->uri);
    source->uri = uri;
    source_begin_recovery(source);
    return STAGE_AGAIN;
}

/* ---- Migration role: the way back ------------------------------------------------------------ */

StageResult
source_stage_reconnect(Source *source, GError **error)
{
    /* Where it came again by itself the link is there. */
    StageResult result =
        source->link ? STAGE_AGAIN : source_connect_link(source, &source->link, error);
    if (result != STAGE_AGAIN)
        return result;
    source->main.sender = transport_sender_new(source->migration.ring, source->link);
    context_move(source->faultline, FAULTLINE_STATUS_POSTCOPY_RECOVER);
    if (source_has_token(source))
        source_set_flag(&source->needs_proof);
    source_publish_link(source, &source->request_link, source->link);
    source->stage = source_has_token(source) ? source_stage_prove : source_stage_ask;
    return STAGE_AGAIN;
}

/* The destination speaks first. What it is asked for leaves together with the answer, and is
 * believed only behind its proof. */
StageResult
source_stage_prove(Source *source, GError **error)
{
    if (!source_flag(&source->has_challenge))
        return source_retry_check(source, error);
    stream_put_answer(frame_queue_writer(&source->main), &source->answer);
    source->stage = source_stage_ask;
    return STAGE_AGAIN;
}

StageResult
source_stage_ask(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    if (source_has_token(source) && source_has_checksums(source))
        frame_queue_seal(&source->main);
    StreamWriter *writer = frame_queue_writer(&source->main);
    source_set_flag(&source->expects_bitmaps);
    for (unsigned i = 0; i < source->blocks->count; i++) {
        uint8_t bytes[1 + STREAM_NAME_MAX];
        StreamWriter name = {.bytes = bytes, .capacity = sizeof bytes};
        stream_put_name(&name, source->blocks->blocks[i].is.name);
        stream_put_command(writer, STREAM_COMMAND_RECV_BITMAP, bytes, (uint16_t)name.length);
    }
    source->stage = source_stage_bitmaps;
    return STAGE_AGAIN;
}

StageResult
source_stage_bitmaps(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result == STAGE_FAILED)
        return result;
    if (!source_flag(&source->has_bitmaps))
        return STAGE_STAY;
    for (unsigned i = 0; i < source->blocks->count; i++)
        source_round_dirty(&source->blocks->blocks[i]);
    progress_set(&source->faultline->progress.remaining_bytes,
                 source_count_dirty(source) * FAULTLINE_PAGE_BYTES);
    source->stage = source_stage_reconnect_urgent;
    return STAGE_AGAIN;
}

StageResult
source_stage_reconnect_urgent(Source *source, GError **error)
{
    StageResult result = source_connect_urgent(source, error);
    if (result != STAGE_AGAIN)
        return result;
    /* Requests may overtake the acknowledgement where they have a channel of their own. */
    source_set_flag(&source->expects_resume);
    source_set_flag(&source->answers_requests);
    stream_put_command(frame_queue_writer(&source->main), STREAM_COMMAND_POSTCOPY_RESUME, NULL, 0);
    source->stage = source_stage_resume;
    return STAGE_AGAIN;
}

StageResult
source_stage_resume(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result == STAGE_FAILED)
        return result;
    if (!source_flag(&source->has_resumed))
        return STAGE_STAY;
    source->retry.active_ns = clock_now_ns();
    context_move(source->faultline, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    transport_link_shorten_queue(source->link);
    source->cursor_block = 0;
    source->cursor_page = 0;
    source->stage = source_stage_push;
    return STAGE_AGAIN;
}

/* ---- Request role: the pause ----------------------------------------------------------------- */

void
source_forget_links(Source *source)
{
    g_clear_pointer(&source->receiver, transport_receiver_free);
    g_clear_pointer(&source->urgent_receiver, transport_receiver_free);
    g_clear_pointer(&source->urgent.sender, transport_sender_free);
    source_drop_request_links(source);
    reader_clear(&source->reader);
    reader_clear(&source->urgent_reader);
    frame_queue_reset(&source->urgent);
    if (source_has_token(source))
        frame_queue_unseal(&source->urgent); /* up to the proof */
    source->is_mute = source->is_deaf = false;
    source->asked = source->asking = source->sending = NULL;
    source->count_noted = source->count_windows = 0;
    source->bitmap_block = 0;
    source->main_heard = source->urgent_heard = source->urgent_sent = (Pulse){0};
    source_clear_flag(&source->has_lost_urgent);
    source->is_in_bitmap = false;
    g_clear_error(&source->request_error);
    source_clear_flag(&source->request_failed);
    source_clear_flag(&source->request_ended);
    source_clear_flag(&source->has_shut);
    source_clear_flag(&source->has_bitmaps);
    source_clear_flag(&source->has_whole);
    source_clear_flag(&source->has_resumed);
    source_clear_flag(&source->has_challenge);
    source_clear_flag(&source->is_proved);
    source_clear_flag(&source->is_urgent_proved);
    source->has_answered_urgent = false;
    source->urgent_proof_bytes = 0;
    source_clear_flag(&source->drops_links);
    source_notify(source);
}

/* ---- Request role: bitmaps ------------------------------------------------------------------- */

G_GNUC_PRINTF(1, 2)
static GError *
peer_error(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    GError *error = g_error_new_valist(FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, format, arguments);
    va_end(arguments);
    return error;
}

GError *
source_begin_bitmap(Source *source, const char *name)
{
    if (!source_flag(&source->expects_bitmaps))
        return peer_error("recover: a received bitmap came, and none was asked for");
    if (source->bitmap_block == source->blocks->count)
        return peer_error("recover: a received bitmap of block '%s' came after all of them", name);
    const RamBlock *block = &source->blocks->blocks[source->bitmap_block];
    if (strcmp(name, block->is.name) != 0)
        return peer_error("recover: the received bitmap of block '%s' came, and that of '%s' was "
                          "next",
                          name, block->is.name);
    source->is_in_bitmap = true;
    source->has_bitmap_size = false;
    source->bitmap_word = 0;
    return NULL;
}

/* Dirty is what is not received. */
static void
take_words(RamBlock *block, uint64_t first_word, const uint8_t *bytes, uint64_t count)
{
    for (uint64_t i = 0; i < count; i++)
        page_bitmap_write_word(block->dirty, first_word + i, ~stream_bitmap_word(bytes + 8 * i));
}

static bool
check_padding(const RamBlock *block, uint64_t first_word, const uint8_t *bytes, uint64_t count,
              GError **error)
{
    uint64_t past = block->count_pages % 64;

    if (!past || first_word + count != block->dirty->count_words ||
        !(stream_bitmap_word(bytes + 8 * (count - 1)) >> past))
        return true;
    g_propagate_error(error, peer_error("recover: the received bitmap of block '%s' has bits past "
                                        "its %" G_GUINT64_FORMAT " pages",
                                        block->is.name, block->count_pages));
    return false;
}

/* A piece of it, in the order of the wire; OK: the last one. */
static ReadResult
read_piece(Source *source, RamBlock *block, GError **error)
{
    uint64_t left = block->dirty->count_words - source->bitmap_word;
    const uint8_t *bytes;

    ReadResult result = reader_peek(&source->reader, 8, &bytes);
    if (result != READ_OK)
        return result;
    if (!source->has_bitmap_size) {
        if (!stream_check_bitmap_size(bytes, block->count_pages, error))
            return READ_BAD;
        source->has_bitmap_size = true;
    } else if (left) {
        uint64_t count = MIN(left, reader_available(&source->reader) / 8);
        if (!check_padding(block, source->bitmap_word, bytes, count, error))
            return READ_BAD;
        take_words(block, source->bitmap_word, bytes, count);
        source->bitmap_word += count;
        reader_consume(&source->reader, count * 8);
        return READ_OK;
    } else {
        if (!stream_check_bitmap_end(bytes, error))
            return READ_BAD;
        source->is_in_bitmap = false;
    }
    reader_consume(&source->reader, STREAM_BITMAP_MARK_BYTES);
    return READ_OK;
}

ReadResult
source_read_bitmap(Source *source, GError **error)
{
    ReadResult result = READ_OK;

    while (source->is_in_bitmap && result == READ_OK)
        result = read_piece(source, &source->blocks->blocks[source->bitmap_block], error);
    if (result == READ_END || result == READ_LINK)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                    "recover: the connection broke inside a received bitmap");
    if (result != READ_OK)
        return result;
    if (++source->bitmap_block == source->blocks->count) {
        source_set_flag(&source->has_bitmaps);
        source_notify(source);
    }
    return READ_OK;
}
