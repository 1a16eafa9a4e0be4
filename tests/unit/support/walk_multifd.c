/* SPDX-License-Identifier: MIT */
/*
 * multifd channels of a recorded migration, read up to a SYNC at each flush on the main channel.
 * One thread.
 */
#include <string.h>

#include "tests/unit/support/walk.h"

static bool
walk_packet(Walk *walk, WalkBytes *in, bool *ret_is_sync, GError **error)
{
    StreamMultifd packet;
    size_t length = 0;
    StreamResult result =
        stream_decode_multifd(in->bytes + in->at, in->length - in->at, &packet, &length, error);

    if (result != STREAM_OK)
        return result == STREAM_MORE ? walk_fail(error, "multifd channel ends early") : false;
    if (packet.data_length > in->length - in->at - length)
        return walk_fail(error, "multifd data is cut");
    WalkBlock *block = walk_find_block(walk, packet.name);
    uint32_t count = packet.normal_pages + packet.zero_pages;
    if (count > 0 && !block)
        return walk_fail(error, "multifd packet of no block '%s'", packet.name);
    for (uint32_t i = 0; i < count; i++) {
        uint64_t offset;
        memcpy(&offset, packet.offsets + 8 * i, sizeof offset);
        if (!walk_store(walk, block, GUINT64_FROM_BE(offset), error))
            return false;
    }
    walk->count_multifd_pages += count;
    in->at += length + packet.data_length;
    *ret_is_sync = packet.flags & 1;
    return true;
}

bool
walk_add_multifd(Walk *walk, const uint8_t *bytes, size_t length_bytes, GError **error)
{
    StreamMultifd first;
    size_t length = 0;

    StreamResult result = stream_decode_multifd_first(bytes, length_bytes, &first, &length, error);
    if (result != STREAM_OK)
        return result == STREAM_MORE ? walk_fail(error, "multifd channel is cut") : false;
    g_assert(walk->count_multifd < WALK_CHANNELS_MAX);
    for (unsigned i = 0; i < walk->count_multifd; i++)
        if (walk->multifd[i].bytes[24] == first.channel)
            return walk_fail(error, "multifd channel %u comes twice", first.channel);
    walk->multifd[walk->count_multifd++] = (WalkBytes){bytes, length_bytes, length};
    return true;
}

bool
walk_sync_multifd(Walk *walk, GError **error)
{
    if (walk->count_multifd == 0)
        return walk_fail(error, "flush without multifd channels");
    for (unsigned i = 0; i < walk->count_multifd; i++)
        for (bool is_sync = false; !is_sync;)
            if (!walk_packet(walk, &walk->multifd[i], &is_sync, error))
                return false;
    walk->count_syncs++;
    return true;
}

/* Nothing may be left behind the last sync. */
bool
walk_finish_multifd(Walk *walk, GError **error)
{
    for (unsigned i = 0; i < walk->count_multifd; i++)
        if (walk->multifd[i].at != walk->multifd[i].length)
            return walk_fail(error, "multifd connection %u has packets behind the last flush", i);
    return true;
}
