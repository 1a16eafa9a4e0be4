/* SPDX-License-Identifier: MIT */
/*
 * The wire: QEMU's migration stream, version 3, encoded, decoded and checked.
 *
 * Pure functions over bytes: no I/O, no allocation on the way of a page, no knowledge of blocks.
 * What can be checked from the bytes alone (magics, lengths, flags, versions, alignment to a target
 * page) is checked here, before a caller sees a field; what needs the block table or the phase is
 * checked by the caller.
 *
 * Decoders look at `available` bytes and answer
 *   STREAM_OK    an item was decoded; *ret_length bytes belong to it
 *   STREAM_MORE  *ret_length bytes, more than are available, are needed before anything more can
 *                be said; call again from the same place with at least that many
 *   STREAM_BAD   the peer broke the protocol: the GError (FAULTLINE_ERROR_PEER) says what, where
 *                and what was expected
 * and never need more than STREAM_ITEM_MAX bytes at once. Text in items is NUL-terminated, copied.
 * Decoded pointers (payload, page) point into the caller's bytes.
 *
 * Encoders append to a StreamWriter over fixed memory; the caller has sized it (STREAM_*_MAX).
 */
#ifndef ENGINE_STREAM_STREAM_H
#define ENGINE_STREAM_STREAM_H

#include "engine/faultline.h"

#define STREAM_MAGIC       0x5145564du
#define STREAM_VERSION     3u
#define STREAM_NAME_MAX    255u
#define STREAM_PAGE_BYTES  4096u
#define STREAM_ITEM_MAX    (70u * 1024u)
#define STREAM_RAM_VERSION 4u

/* How a TLS peer begins: its hello to a plain destination, its refusal of a plain source. */
#define STREAM_TLS_HELLO  0x1603u
#define STREAM_TLS_ALERT  0x1503u
#define STREAM_RECORD_MAX (8u + 1u + 255u + 4u) /* of a page record without the pages' bytes */
#define STREAM_RETURN_MAX 512u

#define STREAM_SECRET_BYTES 32u
typedef enum { STREAM_CHANNEL_MAIN = 1, STREAM_CHANNEL_URGENT = 2 } StreamChannel;

typedef enum { STREAM_OK, STREAM_MORE, STREAM_BAD } StreamResult;

/* ---- Writing --------------------------------------------------------------------------------- */

typedef struct StreamWriter {
    uint8_t *bytes;
    size_t length, capacity; /* bytes; running over capacity is our own mistake and asserts */
} StreamWriter;

void stream_put_u8(StreamWriter *writer, uint8_t value);
void stream_put_be16(StreamWriter *writer, uint16_t value);
void stream_put_be32(StreamWriter *writer, uint32_t value);
void stream_put_be64(StreamWriter *writer, uint64_t value);
void stream_put_bytes(StreamWriter *writer, const void *bytes, size_t length);
void stream_put_name(StreamWriter *writer, const char *name); /* str8 */

/* Whether every decoder takes this name: 1 to STREAM_NAME_MAX bytes of printable ASCII. */
bool stream_name_is_good(const char *name);

/* ---- Top level: header, configuration, elements ---------------------------------------------- */

typedef enum {
    STREAM_EOF = 0x00,
    STREAM_START = 0x01,
    STREAM_PART = 0x02,
    STREAM_END = 0x03,
    STREAM_FULL = 0x04,
    STREAM_SUBSECTION = 0x05,
    STREAM_VMDESCRIPTION = 0x06,
    STREAM_CONFIGURATION = 0x07,
    STREAM_COMMAND = 0x08,
    STREAM_FOOTER = 0x7e,
} StreamType;

/* X(name, number, least payload bytes, greatest payload bytes) */
#define STREAM_COMMAND_LIST(X)                                                                     \
    X(OPEN_RETURN_PATH, 1, 0, 0)                                                                   \
    X(PING, 2, 4, 4)                                                                               \
    X(POSTCOPY_ADVISE, 3, 0, 16)                                                                   \
    X(POSTCOPY_LISTEN, 4, 0, 0)                                                                    \
    X(POSTCOPY_RUN, 5, 0, 0)                                                                       \
    X(POSTCOPY_RAM_DISCARD, 6, 20, 65535)                                                          \
    X(PACKAGED, 7, 4, 4)                                                                           \
    X(ENABLE_COLO, 8, 0, 0)                                                                        \
    X(POSTCOPY_RESUME, 9, 0, 0)                                                                    \
    X(RECV_BITMAP, 10, 2, 256)                                                                     \
    X(SWITCHOVER_START, 11, 0, 0)                                                                  \
    X(DISCARD_WORDS, 64, 20, 522) /* ours, by STREAM_FEATURE_DISCARD_WORDS */                      \
    X(ANSWER, 65, 65, 65)         /* ours, by STREAM_FEATURE_TOKEN */                              \
    X(SEALED, 70, 8, 8)           /* ours, by STREAM_FEATURE_CHECKSUMS: from here on */            \
    X(DIGEST, 71, 18, 520)        /* the same: what was sent of a block */

typedef enum {
#define STREAM_COMMAND_ENUM(name, number, least, greatest) STREAM_COMMAND_##name = number,
    STREAM_COMMAND_LIST(STREAM_COMMAND_ENUM)
#undef STREAM_COMMAND_ENUM
} StreamCommand;

const char *stream_command_name(unsigned command); /* "PING"; "unknown" */

/* File header and configuration: the first bytes of the main channel. machine: the name received;
 * the caller compares. Subsections of the configuration are checked: capabilities and uuid are
 * understood (counted in the struct), others are BAD. */
typedef struct StreamConfiguration {
    char machine[STREAM_NAME_MAX + 1];
    unsigned count_capabilities; /* validated capabilities that the source has on */
    bool has_uuid;
} StreamConfiguration;
StreamResult stream_decode_header(const uint8_t *bytes, size_t available, size_t *ret_length,
                                  GError **error);
/* From byte 0x07 to before the first element. Needs one byte of what follows to know its end. */
StreamResult stream_decode_configuration(const uint8_t *bytes, size_t available,
                                         StreamConfiguration *ret, size_t *ret_length,
                                         GError **error);

/* One element's head: for sections up to (not with) their data, for commands all of it. */
typedef struct StreamElement {
    StreamType type;
    uint32_t section_id;            /* START, PART, END, FULL */
    uint32_t instance, version;     /* START, FULL */
    char name[STREAM_NAME_MAX + 1]; /* START, FULL */
    StreamCommand command;          /* COMMAND */
    const uint8_t *payload;         /* COMMAND */
    uint16_t payload_length;        /* COMMAND */
    uint32_t json_length;           /* VMDESCRIPTION: bytes that follow */
} StreamElement;
StreamResult stream_decode_element(const uint8_t *bytes, size_t available, StreamElement *ret,
                                   size_t *ret_length, GError **error);

/* 0x7e and the id of the section that it ends. */
StreamResult stream_decode_footer(const uint8_t *bytes, size_t available, uint32_t section_id,
                                  const char *name, size_t *ret_length, GError **error);

void stream_put_header(StreamWriter *writer);
void stream_put_configuration(StreamWriter *writer, const char *machine);
void stream_put_start(StreamWriter *writer, StreamType start_or_full, uint32_t section_id,
                      const char *name, uint32_t instance, uint32_t version);
void stream_put_part(StreamWriter *writer, StreamType part_or_end, uint32_t section_id);
void stream_put_footer(StreamWriter *writer, uint32_t section_id);
void stream_put_command(StreamWriter *writer, StreamCommand command, const void *payload,
                        uint16_t length);
void stream_put_ping(StreamWriter *writer, uint32_t value);

/* ---- Payloads of commands -------------------------------------------------------------------- */

typedef struct StreamAdvise {
    bool is_short; /* the form without fields */
    uint64_t page_sizes, target_page_bytes;
} StreamAdvise;
bool stream_parse_advise(const StreamElement *element, StreamAdvise *ret, GError **error);
void stream_put_advise(StreamWriter *writer, uint64_t page_sizes);

#define STREAM_DISCARD_RANGES 12u /* most in one command that we send */
typedef struct StreamRange {
    uint64_t start, length; /* bytes in the block */
} StreamRange;
/* name: STREAM_NAME_MAX + 1 bytes. ranges: count of them lie in the payload; get one by index. */
bool stream_parse_discard(const StreamElement *element, char *ret_name, unsigned *ret_count,
                          GError **error);
StreamRange stream_discard_range(const StreamElement *element, unsigned index);
void stream_put_discard(StreamWriter *writer, const char *name, const StreamRange *ranges,
                        unsigned count);

/* The same said by words of the bitmap: bit i of word n is page first_page + 64 n + i. first_page:
 * a multiple of 64. name: as above; get a word by its index. */
#define STREAM_DISCARD_WORDS 32u /* most in one command */
bool stream_parse_discard_words(const StreamElement *element, char *ret_name,
                                uint64_t *ret_first_page, unsigned *ret_count, GError **error);
uint64_t stream_discard_word(const StreamElement *element, unsigned index);
void stream_put_discard_words(StreamWriter *writer, const char *name, uint64_t first_page,
                              const uint64_t *words, unsigned count);

/* What a source answers a CHALLENGE with, first of all on the connection. */
typedef struct StreamAnswer {
    uint8_t channel; /* StreamChannel */
    uint8_t nonce[STREAM_SECRET_BYTES], proof[STREAM_SECRET_BYTES];
} StreamAnswer;
StreamAnswer stream_parse_answer(const StreamElement *element);
void stream_put_answer(StreamWriter *writer, const StreamAnswer *answer);
/* SEALED: all that follows on this channel is sealed. features: what the sender understood that
 * both sides have; said so that a damaged hello is found. */
bool stream_parse_sealed(const StreamElement *element, uint32_t *ret_features, GError **error);
void stream_put_sealed(StreamWriter *writer, uint32_t features);

/* DIGEST: sums of the checksums of an extent's pages, for count extents from first_extent on. name:
 * as above; get a sum by its index. */
#define STREAM_DIGEST_PAGES 512u /* of an extent; the last one of a block may have fewer */
#define STREAM_DIGEST_SUMS  32u  /* most in one command */
bool stream_parse_digest(const StreamElement *element, char *ret_name, uint64_t *ret_first_extent,
                         unsigned *ret_count, GError **error);
uint64_t stream_digest_sum(const StreamElement *element, unsigned index);
void stream_put_digest(StreamWriter *writer, const char *name, uint64_t first_extent,
                       const uint64_t *sums, unsigned count);

uint32_t stream_parse_be32(const StreamElement *element); /* PING value, PACKAGED length */
bool stream_parse_bitmap_name(const StreamElement *element, char *ret_name, GError **error);

/* ---- The ram section ------------------------------------------------------------------------- */

typedef enum {
    STREAM_RAM_ZERO = 0x002,
    STREAM_RAM_MEM_SIZE = 0x004,
    STREAM_RAM_PAGE = 0x008,
    STREAM_RAM_EOS = 0x010,
    STREAM_RAM_CONTINUE = 0x020,
    STREAM_RAM_XBZRLE = 0x040,
    STREAM_RAM_COMPRESS_PAGE = 0x100,
    STREAM_RAM_MULTIFD_FLUSH = 0x200,
    STREAM_RAM_RUN = 0x400, /* ours, beside PAGE or ZERO; see STREAM_FEATURE_RUNS */
} StreamRamFlag;

/* Most pages of one run. */
#define STREAM_RUN_PAGES_MAX 256u

/* One record of ram data, or of the preempt channel. */
typedef struct StreamRecord {
    StreamRamFlag flag; /* without CONTINUE and RUN */
    bool is_continue;   /* name is empty: the last block of this channel */
    uint64_t offset;    /* in the block; MEM_SIZE: total bytes of all blocks */
    char name[STREAM_NAME_MAX + 1];
    uint32_t count_pages; /* PAGE, ZERO: from offset on; more than 1: a run */
    const uint8_t *page;  /* PAGE: STREAM_PAGE_BYTES, of a run NULL: its pages' bytes come behind
                             the record; XBZRLE, COMPRESS_PAGE: data */
    uint32_t page_length;
    const uint8_t *checksums; /* sealed PAGE: be64 for each page, and the bytes of all of them, also
                                 of a single one, come behind the record; else NULL */
} StreamRecord;

/* What a peer may send: bits. SEALED: the channel is. */
#define STREAM_TAKES_RUNS   1u
#define STREAM_TAKES_SEALED 2u
/* channel: "main" or "urgent", for errors. takes: STREAM_TAKES_*. Refuses unknown and
 * impossible flag combinations, offsets that are no multiple of a page where the flags leave that
 * possible, a ZERO fill that is not 0, a run that is no run, too long or past the last offset. */
StreamResult stream_decode_record(const uint8_t *bytes, size_t available, const char *channel,
                                  unsigned takes, StreamRecord *ret, size_t *ret_length,
                                  GError **error);

/* One entry of the block list behind MEM_SIZE. with_page_size, with_address: which optional fields
 * this entry has, as the caller knows of its own block (see stream_decode_block_name). */
typedef struct StreamBlock {
    char name[STREAM_NAME_MAX + 1];
    uint64_t length;
    uint64_t page_size; /* 0: field absent */
} StreamBlock;
/* Only the name, so that the caller can look its own block up before it decodes the whole entry. */
StreamResult stream_decode_block_name(const uint8_t *bytes, size_t available, char *ret_name,
                                      size_t *ret_length, GError **error);
StreamResult stream_decode_block(const uint8_t *bytes, size_t available, bool with_page_size,
                                 StreamBlock *ret, size_t *ret_length, GError **error);

void stream_put_mem_size(StreamWriter *writer, uint64_t total_bytes);
void stream_put_block(StreamWriter *writer, const char *name, uint64_t length, uint64_t page_size);
/* name NULL: CONTINUE. PAGE: the page's bytes follow on the wire, not here. */
void stream_put_record(StreamWriter *writer, StreamRamFlag zero_or_page, const char *name,
                       uint64_t offset);
/* The same for count_pages (1 to STREAM_RUN_PAGES_MAX) pages from offset on: one page is a record
 * as QEMU knows it, more are a run. */
void stream_put_run(StreamWriter *writer, StreamRamFlag zero_or_page, const char *name,
                    uint64_t offset, uint32_t count_pages);
void stream_put_eos(StreamWriter *writer);
void stream_put_multifd_flush(StreamWriter *writer);

/* ---- Device state ---------------------------------------------------------------------------- */

/* Our own device sections: FULL head, be32 length, bytes, footer. The be32 is decoded with
 * stream_parse_device_length; limit: what the guest allows; more is BAD. */
StreamResult stream_decode_device_length(const uint8_t *bytes, size_t available, const char *name,
                                         uint64_t limit_bytes, uint32_t *ret_device_length,
                                         size_t *ret_length, GError **error);

/* "globalstate", 104 bytes: the run state at the source before it was stopped. */
#define STREAM_GLOBALSTATE_BYTES 104u
StreamResult stream_decode_globalstate(const uint8_t *bytes, size_t available, bool *ret_running,
                                       size_t *ret_length, GError **error);
void stream_put_globalstate(StreamWriter *writer,
                            bool running); /* with head and footer's id 0xfff0 */
#define STREAM_GLOBALSTATE_SECTION 0xfff0u

/* ---- Return path ----------------------------------------------------------------------------- */

/* X(name, number, least, greatest payload bytes counted by the header) */
#define STREAM_RETURN_LIST(X)                                                                      \
    X(SHUT, 1, 4, 4)                                                                               \
    X(PONG, 2, 4, 4)                                                                               \
    X(REQ_PAGES_ID, 3, 14, 268)                                                                    \
    X(REQ_PAGES, 4, 12, 12)                                                                        \
    X(RECV_BITMAP, 5, 2, 256)                                                                      \
    X(RESUME_ACK, 6, 4, 4)                                                                         \
    X(SWITCHOVER_ACK, 7, 0, 0)                                                                     \
    X(TOKEN, 64, 32, 32) /* ours, as the next two, by STREAM_FEATURE_TOKEN */                      \
    X(CHALLENGE, 65, 32, 32)                                                                       \
    X(PROOF, 66, 32, 32)                                                                           \
    X(ADDRESS, 67, 2, 256) /* ours, by STREAM_FEATURE_TOKEN: where to come again */                \
    X(RESEND, 70, 14, 268) /* ours, by STREAM_FEATURE_CHECKSUMS: came damaged */                   \
    X(WHOLE, 71, 0, 0)     /* the same: in postcopy, every page is here */                         \
    X(VERDICT, 72, 4, 4)   /* the same: extents that differ */

typedef enum {
#define STREAM_RETURN_ENUM(name, number, least, greatest) STREAM_RETURN_##name = number,
    STREAM_RETURN_LIST(STREAM_RETURN_ENUM)
#undef STREAM_RETURN_ENUM
} StreamReturnType;

typedef struct StreamReturn {
    StreamReturnType type;
    uint32_t value;  /* SHUT, PONG, RESUME_ACK, VERDICT */
    uint64_t start;  /* REQ_PAGES*, RESEND: bytes in the block, a multiple of a target page */
    uint32_t length; /* REQ_PAGES*, RESEND: not 0, a multiple of a target page */
    char name[STREAM_NAME_MAX + 1];      /* REQ_PAGES_ID, RECV_BITMAP, RESEND; ADDRESS: a URI */
    uint8_t secret[STREAM_SECRET_BYTES]; /* TOKEN, CHALLENGE, PROOF; else undefined */
} StreamReturn;
/* Not the uncounted bitmap behind RECV_BITMAP. */
StreamResult stream_decode_return(const uint8_t *bytes, size_t available, StreamReturn *ret,
                                  size_t *ret_length, GError **error);
/* The bitmap behind a RECV_BITMAP message: be64 size, bytes, end mark. count_pages: of the block.
 * OK only when all of it is there (so only for blocks whose bitmap fits into STREAM_ITEM_MAX). */
StreamResult stream_decode_bitmap(const uint8_t *bytes, size_t available, uint64_t count_pages,
                                  const uint8_t **ret_bits, size_t *ret_length, GError **error);
/* The same in pieces, for a bitmap of any size: head, 8 bytes a word, end mark. */
#define STREAM_BITMAP_MARK_BYTES 8u /* of the size before and the mark behind the words */
bool stream_check_bitmap_size(const uint8_t *bytes, uint64_t count_pages, GError **error);
bool stream_check_bitmap_end(const uint8_t *bytes, GError **error);
uint64_t stream_bitmap_word(const uint8_t *bytes); /* bit 0: the first of 64 pages */
void stream_put_bitmap_head(StreamWriter *writer, const char *name, uint64_t count_pages);
void stream_put_bitmap_word(StreamWriter *writer, uint64_t word);
void stream_put_bitmap_end(StreamWriter *writer);

void stream_put_return_value(StreamWriter *writer, StreamReturnType type, uint32_t value);
/* uri: stream_name_is_good(). */
void stream_put_return_address(StreamWriter *writer, const char *uri);
void stream_put_return_secret(StreamWriter *writer, StreamReturnType type, const uint8_t *secret);
/* name NULL: REQ_PAGES, the block of the last REQ_PAGES_ID. */
void stream_put_request(StreamWriter *writer, const char *name, uint64_t start, uint32_t length);
void stream_put_resend(StreamWriter *writer, const char *name, uint64_t start, uint32_t length);
void stream_put_whole(StreamWriter *writer);

/* ---- Recognising a faultline peer (PING 1) --------------------------------------------------- */

/* A source's first PING carries STREAM_HELLO | its features; a faultline answers
 * STREAM_HELLO_ANSWER | the features both have, a QEMU echoes the PING. */
#define STREAM_HELLO        0xfa170000u
#define STREAM_HELLO_ANSWER 0xfa180000u
#define STREAM_HELLO_MASK   0xffff0000u

/* Before ADVISE a source says in the same way which of the capabilities that must be equal it has
 * on (engine/options.h has their bits), and a faultline answers with its own, so that each of the
 * two can name what differs before a page is taken. */
#define STREAM_PING_AGREE   0xfa1d0000u
#define STREAM_AGREE_ANSWER 0xfa1e0000u
#define STREAM_AGREE_BITS   0x0000ffffu
#define STREAM_FEATURE_COMMIT                                                                      \
    0x0001u /* precopy ends with a PING that the peer answers once the                             \
               device state is loaded, before the EOF that gives the guest                         \
               away; SHUT 1 means: the guest never ran here */
#define STREAM_FEATURE_RUNS                                                                        \
    0x0002u /* on both channels, PAGE or ZERO with RUN 0x400: be64 offset and flags, name unless   \
               CONTINUE, be32 count of pages (2 to STREAM_RUN_PAGES_MAX), which lie one behind the \
               other in the block; then for PAGE their bytes, for ZERO nothing, not even a fill. A \
               source sends runs once it has the answer to its hello, a destination takes them     \
               from that answer on. Only with capability page-runs on both sides */
#define STREAM_FEATURE_DISCARD_WORDS 0x0004u /* command DISCARD_WORDS */
#define STREAM_FEATURE_URGENT_REQUESTS                                                             \
    0x0008u /* with an urgent channel, REQ_PAGES go on that one, against                           \
               the pages: they and their answers then carry each other's                           \
               acknowledgements, which saves a third of the round trip */
#define STREAM_FEATURE_CHECKSUMS                                                                   \
    0x0010u /* all channels are sealed, see above; with it the hello is said, and answered, twice, \
               and the two must agree. Only with capability page-checksums on both sides */
#define STREAM_FEATURE_HEARTBEAT 0x0020u /* beats on every connection; see heartbeat.h */
#define STREAM_FEATURE_TOKEN     0x0040u /* who connects again proves itself; see token.h */
#define STREAM_FEATURE_FAREWELL                                                                    \
    0x0080u /* only with TOKEN: the source says STREAM_PING_FAREWELL when it knows how it ended;   \
               until then the destination, over or not, says its SHUT to whoever proves itself */
#define STREAM_FEATURES                                                                            \
    (STREAM_FEATURE_COMMIT | STREAM_FEATURE_RUNS | STREAM_FEATURE_DISCARD_WORDS |                  \
     STREAM_FEATURE_URGENT_REQUESTS | STREAM_FEATURE_CHECKSUMS | STREAM_FEATURE_HEARTBEAT |        \
     STREAM_FEATURE_TOKEN | STREAM_FEATURE_FAREWELL)
#define STREAM_PING_DISCARDED 2u
#define STREAM_PING_LOADED    3u
#define STREAM_PING_RUNNING   4u
#define STREAM_PING_COMMIT    0xfa190000u
#define STREAM_PING_SETTLED                                                                        \
    0xfa1a0000u /* before the guest is stopped for postcopy, to a faultline: once it is answered,  \
                   nothing that was sent before waits to be read while the guest stands. With      \
                   checksums also at the end of precopy, with numbers from 1 on added */
#define STREAM_PING_SETTLED_MASK 0xffff0000u
#define STREAM_PING_MIGRATION                                                                      \
    0xfa1c0000u /* four of them, to a faultline, once: the low 16 bits of each, the first one's    \
                   highest, are a number of this migration, for records that outlive it */

#define STREAM_PING_BEAT                                                                           \
    0xfa1b0000u /* with STREAM_FEATURE_HEARTBEAT, and beside the hello that offers it: the low 16  \
                   bits are the timeout in ms; twice where that is said twice. Not answered; PONG  \
                   of this value is the destination's */
#define STREAM_PING_FAREWELL                                                                       \
    0xfa1f0000u /* with STREAM_FEATURE_FAREWELL: the last that a source says: it has heard the     \
                   SHUT, and put it on record. Not answered */

/* ---- Seals and checksums ----------------------------------------------------------------------
 */

/*
 * With STREAM_FEATURE_CHECKSUMS everything between the two sides is sealed, in both directions: on
 * the main channel behind the command SEALED, on the return path behind the second answer to the
 * hello, on the urgent channel from its first byte on. Headers, commands, messages, the package and
 * device state then come in pieces, each behind a seal:
 *
 *     be32 length of the piece, be32 check of the seal, be64 checksum of the piece
 *
 * The check covers length, checksum and the piece's number on its channel (from 0 on), so that a
 * piece is neither lost nor doubled, and no length is believed before. An item lies in one piece. A
 * piece that holds a PAGE record ends with it; the record carries be64 checksums, one a page, and
 * the pages' bytes come behind the piece, unsealed: one that is damaged is refused alone, while a
 * damaged piece ends the connection, for nobody knows where the next one begins.
 *
 * A page's checksum is XXH3 of its bytes, in which name of the block and number of the page are
 * mixed: a page at the wrong place is found as well. Not against forgers: TLS is.
 */
#define STREAM_SEAL_BYTES 16u

typedef struct StreamSeal {
    uint32_t length; /* not 0 */
    uint64_t checksum;
} StreamSeal;

/* Writes STREAM_SEAL_BYTES at `at`. */
void stream_put_seal(uint8_t *at, const void *piece, uint32_t length, uint64_t number);
/* bytes: STREAM_SEAL_BYTES. false: damaged. */
bool stream_parse_seal(const uint8_t *bytes, uint64_t number, StreamSeal *ret);
bool stream_check_piece(const StreamSeal *seal, const void *piece);

/* What the places of a block's pages have in common. */
uint64_t stream_block_place(const char *name);
/* page NULL: all zero. */
uint64_t stream_page_checksum(const void *page, uint64_t block_place, uint64_t number);
uint64_t stream_record_checksum(const StreamRecord *record, unsigned index);

/* ---- multifd packets (decoding only, for recorded streams) ----------------------------------- */

typedef struct StreamMultifd {
    bool is_first;   /* the 64 bytes that open the channel */
    uint8_t channel; /* first packet */
    uint32_t flags, normal_pages, zero_pages, data_length;
    uint64_t number;
    char name[256];
    const uint8_t *offsets; /* be64 each, normal pages first */
} StreamMultifd;
StreamResult stream_decode_multifd_first(const uint8_t *bytes, size_t available, StreamMultifd *ret,
                                         size_t *ret_length, GError **error);
/* The header, without the data_length bytes behind it (0 when there are no normal pages). */
StreamResult stream_decode_multifd(const uint8_t *bytes, size_t available, StreamMultifd *ret,
                                   size_t *ret_length, GError **error);

#endif
