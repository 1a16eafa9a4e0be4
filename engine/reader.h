/* SPDX-License-Identifier: MIT */
/*
 * Where decoders read from: a link that is still filling, or a package that is wholly in memory.
 * Same verbs for both, so that the elements of a stream are handled by the same code. Owned by the
 * thread that owns the receiver, or loads the package.
 *
 * A link may be sealed (stream.h): then no byte of a piece is shown before the whole piece was
 * checked, and damage is told as LINK, as if the link had broken there.
 */
#ifndef ENGINE_READER_H
#define ENGINE_READER_H

#include "engine/stream/stream.h"
#include "transport/transport.h"

typedef struct Reader {
    TransportReceiver *receiver; /* NULL: memory */
    const uint8_t *bytes;        /* memory: what is left */
    size_t length;

    bool is_sealed;
    uint64_t number;      /* of the next piece */
    StreamSeal seal;      /* of the piece that is open, or being gathered */
    size_t left;          /* of the piece that is open: checked, and not yet consumed */
    size_t bare;          /* bytes that come next without a seal: pages */
    GByteArray *gathered; /* a piece too large to be peeked, as far as it has come; NULL: none */
    uint64_t limit;       /* of such a piece */
    const char *problem;  /* what was wrong with a piece; NULL: nothing */
} Reader;

typedef enum {
    READ_OK,
    READ_WAIT,
    READ_END,  /* the peer closed (the package ended) between two items */
    READ_LINK, /* the link broke, also in the middle of an item */
    READ_BAD,  /* the peer broke the protocol */
} ReadResult;

/* What comes from here on is sealed; no piece may be longer than limit (or STREAM_ITEM_MAX, if that
 * is more). */
void reader_seal(Reader *reader, uint64_t limit);
/* Of a sealed link: length bytes come next behind the piece that was consumed, without a seal. */
void reader_expect_bare(Reader *reader, size_t length);
/* Frees what it has gathered, and reads from nothing. */
void reader_clear(Reader *reader);

/* Why LINK was answered. Valid until the next call. */
const char *reader_problem(const Reader *reader);

/* At least length bytes, as transport_peek(); memory that ends early is BAD without an error text.
 */
ReadResult reader_peek(Reader *reader, size_t length, const uint8_t **ret_bytes);
size_t reader_available(const Reader *reader);
void reader_consume(Reader *reader, size_t length);

/* The next length bytes straight into the caller's memory, as transport_receive_into(); not from
 * memory. error is set for LINK. */
ReadResult reader_receive_into(Reader *reader, void *bytes, size_t length, size_t *ret_done,
                               GError **error);

/* Decodes one item at the reader's place. context: what else the decoder wants. */
typedef StreamResult (*ReadDecode)(void *context, const uint8_t *bytes, size_t available,
                                   size_t *ret_length, GError **error);

/*
 * Peeks, and decodes, until decode says OK or BAD or the reader has no more. Nothing is consumed:
 * on OK *ret_length bytes belong to the item, and what it points to is valid until
 * reader_consume(). error is set for BAD and LINK.
 */
ReadResult reader_decode(Reader *reader, ReadDecode decode, void *context, size_t *ret_length,
                         GError **error);

#endif
