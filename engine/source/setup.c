/* SPDX-License-Identifier: MIT */
/*
 * The first stages of the migration role: connect, and open the stream up to the block list. Also
 * the second connection, before a switch to postcopy with preempt.
 */
#include "engine/source/source.h"

static TransportConnector *
begin_connect(Source *source, GError **error)
{
    TransportConnector *connector = transport_connect(source->migration.ring, source->uri, error);

    if (connector && !security_connect(source->faultline, connector, error))
        g_clear_pointer(&connector, transport_connector_free);
    return connector;
}

StageResult
source_connect_link(Source *source, TransportLink **ret_link, GError **error)
{
    g_autoptr(GError) cause = NULL;

    if (!source->connector)
        source->connector = begin_connect(source, &cause);
    TransportResult result = TRANSPORT_ERROR_RESULT;
    if (source->connector)
        result = transport_connect_finish(source->connector, ret_link, &cause);
    if (result == TRANSPORT_WAIT)
        return STAGE_STAY;
    g_clear_pointer(&source->connector, transport_connector_free);
    if (result == TRANSPORT_OK)
        return STAGE_AGAIN;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "connect: %s",
                cause ? cause->message : "failed");
    return STAGE_FAILED;
}

void
source_publish_link(Source *source, TransportLink **slot, TransportLink *link)
{
    __atomic_store_n(slot, transport_link_ref(link), __ATOMIC_RELEASE);
    transport_ring_notify(source->request.ring);
}

StageResult
source_stage_connect(Source *source, GError **error)
{
    uint64_t now_ns = clock_now_ns();

    if (!source->retry.knocked_ns)
        source->retry.knocked_ns = now_ns;
    StageResult result = source_connect_link(source, &source->link, error);
    if (result != STAGE_AGAIN)
        return result;
    source->retry.connect_ns = now_ns - source->retry.knocked_ns;
    source->main.sender = transport_sender_new(source->migration.ring, source->link);
    source_publish_link(source, &source->request_link, source->link);
    source->stage = source_stage_open;
    return STAGE_AGAIN;
}

static void
put_block_list(StreamWriter *writer, const RamBlocks *blocks, bool with_page_sizes)
{
    stream_put_mem_size(writer, blocks->total_bytes);
    for (unsigned i = 0; i < blocks->count; i++) {
        const RamBlock *block = &blocks->blocks[i];
        bool with_size = with_page_sizes && block->host_pages > 1;
        stream_put_block(writer, block->is.name, block->is.length_bytes,
                         with_size ? block->is.page_size_bytes : 0);
    }
}

/* Unsealed: with checksums it is told twice, as the hello is. */
static void
put_first_beat(const Source *source, StreamWriter *writer)
{
    if (!(source->offers & STREAM_FEATURE_HEARTBEAT))
        return;
    stream_put_ping(writer, STREAM_PING_BEAT | (uint32_t)source->heartbeat_ms);
    if (source->offers & STREAM_FEATURE_CHECKSUMS)
        stream_put_ping(writer, STREAM_PING_BEAT | (uint32_t)source->heartbeat_ms);
}

StageResult
source_stage_open(Source *source, GError **error)
{
    StreamWriter *writer = frame_queue_writer(&source->main);
    (void)error;

    stream_put_header(writer);
    stream_put_configuration(writer, source->faultline->machine);
    if (source->has_return_path) {
        stream_put_command(writer, STREAM_COMMAND_OPEN_RETURN_PATH, NULL, 0);
        stream_put_ping(writer, STREAM_HELLO | source->offers);
        if (source->offers & STREAM_FEATURE_CHECKSUMS)
            stream_put_ping(writer, STREAM_HELLO | source->offers);
        put_first_beat(source, writer);
    }
    if (source->can_postcopy && source->has_return_path)
        stream_put_ping(writer, STREAM_PING_AGREE | source->agreement);
    if (source->can_postcopy)
        stream_put_advise(writer, source->blocks->page_sizes);
    stream_put_start(writer, STREAM_START, SOURCE_RAM_SECTION, "ram", 0, STREAM_RAM_VERSION);
    put_block_list(writer, source->blocks, source->can_postcopy);
    stream_put_eos(writer);
    stream_put_footer(writer, SOURCE_RAM_SECTION);

    source->stage = source_stage_log;
    return STAGE_AGAIN;
}

/* The header leaves first: a destination does not wait long for somebody who says nothing. */
StageResult
source_stage_log(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    if (!source_start_log(source, error))
        return STAGE_FAILED;
    progress_set(&source->faultline->progress.active_ns, clock_now_ns());
    context_move(source->faultline, FAULTLINE_STATUS_ACTIVE);
    source->stage = source->has_return_path && (source->offers & STREAM_FEATURE_CHECKSUMS)
                        ? source_stage_agree
                        : source_stage_pass;
    return STAGE_AGAIN;
}

StageResult
source_connect_urgent(Source *source, GError **error)
{
    if (!source->has_preempt)
        return STAGE_AGAIN;
    if (!source->urgent_link) {
        StageResult result = source_connect_link(source, &source->urgent_link, error);
        if (result != STAGE_AGAIN)
            return result;
        source_publish_link(source, &source->request_urgent_link, source->urgent_link);
    }
    if (!source_has_token(source) || source_flag(&source->is_urgent_proved))
        return STAGE_AGAIN;
    return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_STAY;
}

StageResult
source_stage_urgent(Source *source, GError **error)
{
    /* The destination counts connections: main is surely accepted once it has answered. And the
     * guest is not stopped for one that may never answer. */
    if (!source_has_answer(source))
        return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_STAY;
    StageResult result = source_connect_urgent(source, error);
    if (result != STAGE_AGAIN)
        return result;
    source_announce(source, NULL);
    source->stage = source_stage_settle;
    return STAGE_AGAIN;
}

/* What is on its way would be read while the guest stands. Meanwhile it is put on record that the
 * guest may go there. */
StageResult
source_stage_settle(Source *source, GError **error)
{
    StageResult result = source_flush(source, error);
    if (result != STAGE_AGAIN)
        return result;
    source_name_migration(source);
    if (source->features & STREAM_FEATURE_COMMIT) {
        if (!source->asked_settled)
            stream_put_ping(frame_queue_writer(&source->main), STREAM_PING_SETTLED);
        source->asked_settled = source->may_be_missed = true;
        if (!source_flag(&source->has_settled))
            return source_flush(source, error) == STAGE_FAILED ? STAGE_FAILED : STAGE_STAY;
    }
    result = source_announce(source, error);
    if (result != STAGE_AGAIN)
        return result;
    source->stage = source_stage_stop;
    return STAGE_AGAIN;
}
