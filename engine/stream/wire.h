/* SPDX-License-Identifier: MIT */
/*
 * Private to engine/stream: integers as they lie on the wire, fixed layouts made of them, and a
 * reader that walks over received bytes.
 *
 * A be32 is a struct of bytes: host arithmetic on it does not compile, and a layout made of these
 * has neither padding nor alignment. Variable parts (names, records) are taken one by one from a
 * WireReader, which never touches a byte at or after `available`. Pure functions, any thread.
 */
#ifndef ENGINE_STREAM_WIRE_H
#define ENGINE_STREAM_WIRE_H

#include <assert.h>
#include <inttypes.h>
#include <string.h>

#include "engine/stream/stream.h"

typedef struct {
    uint8_t byte[2];
} be16;
typedef struct {
    uint8_t byte[4];
} be32;
typedef struct {
    uint8_t byte[8];
} be64;

static_assert(sizeof(be16) == 2 && sizeof(be32) == 4 && sizeof(be64) == 8, "no padding");
static_assert(_Alignof(be64) == 1, "may lie at any address of a stream");

static inline uint16_t
be16_load(be16 value)
{
    return (uint16_t)(value.byte[0] << 8 | value.byte[1]);
}

static inline uint32_t
be32_load(be32 value)
{
    uint32_t raw;
    memcpy(&raw, value.byte, sizeof raw);
    return GUINT32_FROM_BE(raw);
}

static inline uint64_t
be64_load(be64 value)
{
    uint64_t raw;
    memcpy(&raw, value.byte, sizeof raw);
    return GUINT64_FROM_BE(raw);
}

static inline be16
be16_make(uint16_t value)
{
    return (be16){{(uint8_t)(value >> 8), (uint8_t)value}};
}

static inline be32
be32_make(uint32_t value)
{
    uint32_t raw = GUINT32_TO_BE(value);
    be32 made;
    memcpy(made.byte, &raw, sizeof raw);
    return made;
}

static inline be64
be64_make(uint64_t value)
{
    uint64_t raw = GUINT64_TO_BE(value);
    be64 made;
    memcpy(made.byte, &raw, sizeof raw);
    return made;
}

/* ---- Fixed layouts --------------------------------------------------------------------------- */

typedef struct {
    be64 page_sizes, target_page_bytes;
} WireAdvise;
static_assert(sizeof(WireAdvise) == 16, "payload of POSTCOPY_ADVISE");

typedef struct {
    be64 start, length;
} WireRange;
static_assert(sizeof(WireRange) == 16, "one range of POSTCOPY_RAM_DISCARD");

typedef struct {
    be64 start;
    be32 length;
} WireRequest;
static_assert(sizeof(WireRequest) == 12, "payload of REQ_PAGES");

typedef struct {
    be32 name_bytes; /* with the NUL */
    char name[32];
    uint8_t has_was_suspended, was_suspended;
    uint8_t zero[66];
} WireGlobalstate;
static_assert(sizeof(WireGlobalstate) == STREAM_GLOBALSTATE_BYTES, "data of globalstate");

typedef struct {
    be32 magic, version;
    uint8_t uuid[16];
    uint8_t channel;
    uint8_t zero[39];
} WireMultifdFirst;
static_assert(sizeof(WireMultifdFirst) == 64, "first packet of a multifd channel");

#define WIRE_MULTIFD_PAGES 128u
typedef struct {
    be32 magic, version, flags, pages_alloc, normal_pages, next_packet_size;
    be64 number;
    be32 zero_pages;
    uint8_t zero[28];
    char name[256];
    be64 offsets[WIRE_MULTIFD_PAGES];
} WireMultifd;
static_assert(offsetof(WireMultifd, number) == 24, "packet_num");
static_assert(offsetof(WireMultifd, zero_pages) == 32, "zero_pages");
static_assert(offsetof(WireMultifd, name) == 64, "block name");
static_assert(offsetof(WireMultifd, offsets) == 320, "offsets");
static_assert(sizeof(WireMultifd) == 1344, "header of a multifd packet");

/* ---- Reading --------------------------------------------------------------------------------- */

typedef struct WireReader {
    const uint8_t *bytes;
    size_t available, position; /* after a failed take: position is how many bytes are needed */
} WireReader;

static inline WireReader
wire_reader(const uint8_t *bytes, size_t available)
{
    return (WireReader){bytes, available, 0};
}

/* NULL when they have not all arrived. */
static inline const void *
wire_take(WireReader *reader, size_t length)
{
    const uint8_t *at = reader->bytes + reader->position;
    reader->position += length;
    return reader->position <= reader->available ? at : NULL;
}

static inline bool
wire_take_u8(WireReader *reader, uint8_t *ret)
{
    const uint8_t *at = wire_take(reader, 1);
    if (at)
        *ret = *at;
    return at != NULL;
}

static inline bool
wire_take_be16(WireReader *reader, uint16_t *ret)
{
    const be16 *at = wire_take(reader, sizeof *at);
    if (at)
        *ret = be16_load(*at);
    return at != NULL;
}

static inline bool
wire_take_be32(WireReader *reader, uint32_t *ret)
{
    const be32 *at = wire_take(reader, sizeof *at);
    if (at)
        *ret = be32_load(*at);
    return at != NULL;
}

static inline bool
wire_take_be64(WireReader *reader, uint64_t *ret)
{
    const be64 *at = wire_take(reader, sizeof *at);
    if (at)
        *ret = be64_load(*at);
    return at != NULL;
}

/* What decoders return when a take failed. */
static inline StreamResult
wire_more(const WireReader *reader, size_t *ret_length)
{
    *ret_length = reader->position;
    return STREAM_MORE;
}

static inline StreamResult
wire_ok(const WireReader *reader, size_t *ret_length)
{
    *ret_length = reader->position;
    return STREAM_OK;
}

/* Sets a FAULTLINE_ERROR_PEER and returns STREAM_BAD. */
StreamResult wire_bad(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* length bytes at text become a NUL-terminated name. BAD when it is empty or has a byte that is no
 * printable ASCII, since names go into messages and JSON. what: "decode ...: block name". */
StreamResult wire_copy_name(const void *text, size_t length, const char *what, char *ret_name,
                            GError **error);

/* A str8; MORE leaves the need in reader->position. */
StreamResult wire_take_name(WireReader *reader, const char *what, char *ret_name, GError **error);

bool wire_is_zero(const void *bytes, size_t length);

#endif
