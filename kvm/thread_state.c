/* SPDX-License-Identifier: MIT */
/*
 * The device state of a share: section "faultline/thread", one instance a thread, version 1. All
 * fields big-endian, in the order below; then the digests, 8 bytes a table page.
 *
 *   be32 index, be32 count_shares           must be those of the share
 *   be64 first_page, be64 count_pages       likewise
 *   be64 count_working, be64 write_rate
 *   be64 random, be64 count_full, be64 sweep
 *   be64 count_writes, be64 count_checks
 *   160 bytes                               what was found wrong, ended and filled up by zeros
 *
 * Runs on the threads that save_state and load_state name. The bytes come from a peer: nothing is
 * taken over before all of it was checked.
 */
#include "kvm/thread_share.h"
#include "engine/faultline.h"

#include <string.h>

#define FIXED_BYTES (2 * 4 + 9 * 8 + sizeof((ThreadShare *)NULL)->wrong)

static void
put_be32(GByteArray *bytes, uint32_t value)
{
    uint32_t wire = GUINT32_TO_BE(value);
    g_byte_array_append(bytes, (const guint8 *)&wire, sizeof wire);
}

static void
put_be64(GByteArray *bytes, uint64_t value)
{
    uint64_t wire = GUINT64_TO_BE(value);
    g_byte_array_append(bytes, (const guint8 *)&wire, sizeof wire);
}

/* The length was checked before. */
static uint32_t
take_be32(const uint8_t **at)
{
    uint32_t wire;
    memcpy(&wire, *at, sizeof wire);
    *at += sizeof wire;
    return GUINT32_FROM_BE(wire);
}

static uint64_t
take_be64(const uint8_t **at)
{
    uint64_t wire;
    memcpy(&wire, *at, sizeof wire);
    *at += sizeof wire;
    return GUINT64_FROM_BE(wire);
}

GByteArray *
thread_share_save(const ThreadShare *share)
{
    GByteArray *bytes = g_byte_array_new();

    put_be32(bytes, share->index);
    put_be32(bytes, share->count_shares);
    put_be64(bytes, share->first_page);
    put_be64(bytes, share->count_pages);
    put_be64(bytes, share->count_working);
    put_be64(bytes, share->write_rate);
    put_be64(bytes, share->random);
    put_be64(bytes, share->count_full);
    put_be64(bytes, share->sweep);
    put_be64(bytes, share->count_writes);
    put_be64(bytes, share->count_checks);
    g_byte_array_append(bytes, (const guint8 *)share->wrong, sizeof share->wrong);
    for (uint64_t i = 0; i < share->count_tables; i++)
        put_be64(bytes, share->digests[i]);
    return bytes;
}

static bool
refuse(GError **error, FaultlineError code, const ThreadShare *share, const char *reason)
{
    g_set_error(error, FAULTLINE_ERROR, code, "loading the state of guest thread %u: %s",
                share->index, reason);
    return false;
}

static void
take_fields(ThreadShare *share, const uint8_t **at)
{
    share->index = take_be32(at);
    share->count_shares = take_be32(at);
    share->first_page = take_be64(at);
    share->count_pages = take_be64(at);
    share->count_working = take_be64(at);
    share->write_rate = take_be64(at);
    share->random = take_be64(at);
    share->count_full = take_be64(at);
    share->sweep = take_be64(at);
    share->count_writes = take_be64(at);
    share->count_checks = take_be64(at);
    memcpy(share->wrong, *at, sizeof share->wrong);
    *at += sizeof share->wrong;
}

static bool
fields_fit(const ThreadShare *share, const ThreadShare *loaded, GError **error)
{
    if (loaded->count_shares != share->count_shares || loaded->index != share->index ||
        loaded->first_page != share->first_page || loaded->count_pages != share->count_pages)
        return refuse(error, FAULTLINE_ERROR_ARGUMENT, share,
                      "it is of a guest with other memory or threads; start both sides with the "
                      "same --memory and --cpus");
    if (loaded->count_working == 0 ||
        loaded->count_working > share->count_pages - share->count_tables ||
        loaded->count_full > loaded->count_working || loaded->sweep >= share->count_pages ||
        loaded->random == 0)
        return refuse(error, FAULTLINE_ERROR_PEER, share, "a field is out of its range");
    if (!memchr(loaded->wrong, 0, sizeof loaded->wrong) ||
        !g_utf8_validate(loaded->wrong, -1, NULL) || strpbrk(loaded->wrong, "\r\n\033"))
        return refuse(error, FAULTLINE_ERROR_PEER, share, "its verdict is no line of text");
    return true;
}

bool
thread_share_load(ThreadShare *share, uint32_t version, const void *bytes, size_t length_bytes,
                  GError **error)
{
    const uint8_t *at = bytes;
    ThreadShare loaded = *share;

    if (version != THREAD_STATE_VERSION)
        return refuse(error, FAULTLINE_ERROR_UNSUPPORTED, share,
                      "its version is not 1; use the same release of faultline on both sides");
    if (length_bytes < FIXED_BYTES)
        return refuse(error, FAULTLINE_ERROR_PEER, share, "it is cut short");
    take_fields(&loaded, &at);
    if (!fields_fit(share, &loaded, error))
        return false;
    if (length_bytes != FIXED_BYTES + share->count_tables * sizeof(uint64_t))
        return refuse(error, FAULTLINE_ERROR_PEER, share, "its length does not fit its memory");

    loaded.swept_pages = 0;
    *share = loaded;
    for (uint64_t i = 0; i < share->count_tables; i++)
        share->digests[i] = take_be64(&at);
    return true;
}
