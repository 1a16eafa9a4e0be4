/* SPDX-License-Identifier: MIT */
/*
 * The return path of a recorded migration. One thread.
 */
#include <string.h>

#include "tests/unit/support/walk.h"

static bool
walk_request(Walk *walk, const StreamReturn *message, GError **error)
{
    if (message->type == STREAM_RETURN_REQ_PAGES_ID)
        walk->last_request = walk_find_block(walk, message->name);
    if (!walk->last_request)
        return walk_fail(error, "request for no block, name '%s'", message->name);
    if ((message->start + message->length) / STREAM_PAGE_BYTES > walk->last_request->count_pages)
        return walk_fail(error, "request outside of %s", walk->last_request->name);
    walk->count_requests++;
    return true;
}

static bool
walk_pong(Walk *walk, uint32_t value, GError **error)
{
    for (unsigned i = 0; i < walk->count_pings; i++)
        if (walk->pings[i] == value) {
            walk->pings[i] = UINT32_MAX;
            walk->count_pongs++;
            return true;
        }
    return walk_fail(error, "PONG 0x%x without its PING", value);
}

/* What the destination holds is what was sent, less what the break lost. */
static bool
walk_bitmap(Walk *walk, WalkBytes *in, const char *name, GError **error)
{
    WalkBlock *block = walk_find_block(walk, name);
    const uint8_t *bits;
    size_t length = 0;

    if (!block || block != &walk->blocks[walk->count_bitmaps])
        return walk_fail(error, "bitmap of %s out of order", name);
    walk->count_bitmaps++;
    if (stream_decode_bitmap(in->bytes + in->at, in->length - in->at, block->count_pages, &bits,
                             &length, error) != STREAM_OK)
        return walk_fail(error && *error ? NULL : error, "bitmap of %s is cut", name);
    for (uint64_t page = 0; page < block->count_pages; page++) {
        uint8_t held = bits[page / 8] >> page % 8 & 1;
        if (held > block->held[page])
            return walk_fail(error, "bitmap has a page of %s that was not sent", name);
        walk->count_lost += held < block->held[page];
        block->held[page] = held;
    }
    in->at += length;
    return true;
}

bool
walk_return(Walk *walk, const uint8_t *bytes, size_t length_bytes, GError **error)
{
    WalkBytes in = {bytes, length_bytes, 0};

    walk->last_request = NULL;
    while (in.at < in.length) {
        StreamReturn message;
        size_t length = 0;
        bool is_good = true;
        if (walk->has_shut)
            return walk_fail(error, "bytes behind SHUT");
        StreamResult result =
            stream_decode_return(in.bytes + in.at, in.length - in.at, &message, &length, error);
        if (result == STREAM_MORE)
            return walk_fail(error, "return path is cut at %zu", in.at);
        if (result == STREAM_BAD)
            return false;
        in.at += length;
        switch (message.type) {
        case STREAM_RETURN_PONG:
            is_good = walk_pong(walk, message.value, error);
            break;
        case STREAM_RETURN_REQ_PAGES:
        case STREAM_RETURN_REQ_PAGES_ID:
            is_good = walk_request(walk, &message, error);
            break;
        case STREAM_RETURN_RECV_BITMAP:
            is_good = walk->is_resumed && !walk->has_resume_ack
                          ? walk_bitmap(walk, &in, message.name, error)
                          : walk_fail(error, "bitmap outside of a recovery");
            break;
        case STREAM_RETURN_RESUME_ACK:
            is_good = walk->is_resumed && walk->count_bitmaps == walk->count_blocks
                          ? true
                          : walk_fail(error, "RESUME_ACK before all bitmaps");
            walk->has_resume_ack = true;
            break;
        case STREAM_RETURN_SHUT:
            is_good = message.value == 0 || walk_fail(error, "SHUT %u", message.value);
            walk->has_shut = true;
            break;
        case STREAM_RETURN_SWITCHOVER_ACK:
            break;
        case STREAM_RETURN_RESEND:
        case STREAM_RETURN_WHOLE:
        case STREAM_RETURN_VERDICT:
        case STREAM_RETURN_TOKEN:
        case STREAM_RETURN_CHALLENGE:
        case STREAM_RETURN_PROOF:
        case STREAM_RETURN_ADDRESS:
            is_good = walk_fail(error, "message %u, which no QEMU sends", message.type);
            break;
        }
        if (!is_good)
            return false;
    }
    return true;
}
