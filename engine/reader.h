/* SPDX-License-Identifier: MIT */
/*
 * Where decoders read from: a link that is still filling, or a package that is wholly in memory.
 * Same verbs for both, so that the elements of a stream are handled by the same code. Owned by the
 * thread that owns the receiver, or loads the package.
 */
#ifndef ENGINE_READER_H
#define ENGINE_READER_H

#include "engine/stream/stream.h"
#include "transport/transport.h"

typedef struct Reader {
    TransportReceiver *receiver; /* NULL: memory */
    const uint8_t *bytes;        /* memory: what is left */
    size_t length;
} Reader;

typedef enum {
    READ_OK,
    READ_WAIT,
    READ_END,  /* the peer closed (the package ended) between two items */
    READ_LINK, /* the link broke, also in the middle of an item */
    READ_BAD,  /* the peer broke the protocol */
} ReadResult;

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
