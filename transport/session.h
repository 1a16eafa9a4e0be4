/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about TLS sessions: the handshake, and records.
 *
 * A session is its link's. One thread shakes hands; after that one thread seals and one opens, each
 * under the session's lock. GnuTLS says that the two need none, but a renewal of keys, which the
 * peer may ask for at any time and GnuTLS does by itself after 2^24 records, changes what both use.
 */
#ifndef TRANSPORT_SESSION_H
#define TRANSPORT_SESSION_H

#include "transport/transport.h"

/* Of a record: its header, the most of plain bytes one carries, the most it is. */
#define SESSION_HEADER_BYTES 5u
#define SESSION_PLAIN_BYTES  16384u
#define SESSION_RECORD_BYTES (SESSION_HEADER_BYTES + SESSION_PLAIN_BYTES + 2048u)

typedef struct TransportSession TransportSession;

/* For the socket fd, which stays the caller's and must stay open as long as hands are shaken.
 * hostname, authz: as transport_connector_secure(), transport_listener_secure(); NULL: none. name:
 * of the peer. Errors: CREDENTIALS, HOST. */
TransportSession *transport_session_new(TransportCredentials *credentials, TransportAuthz *authz,
                                        const char *hostname, int fd, const char *name,
                                        GError **error);
void transport_session_free(TransportSession *session);

/* Goes on with the handshake as far as it gets without blocking. WAIT: *ret_events is what poll(2)
 * has to say about the socket first. Errors: LINK. After one the peer has been told, if there was a
 * way to. */
TransportResult transport_session_shake(TransportSession *session, short *ret_events,
                                        GError **error);

/* Whether a byte has come from the peer. Thread: the one that shakes hands. */
bool transport_session_has_heard(const TransportSession *session);

/* One record of up to SESSION_PLAIN_BYTES (length) into out, where there is room for two of
 * SESSION_RECORD_BYTES: GnuTLS may put news of its own before it. Errors: LINK. */
bool transport_session_seal(TransportSession *session, const void *bytes, size_t length,
                            uint8_t *out, size_t *ret_length, GError **error);

/* How long the record will be whose header this is, with it. 0: it is none. */
size_t transport_session_record_length(const uint8_t *header);

/* What is left of a record that was opened. */
bool transport_session_has_pending(TransportSession *session);

/*
 * Opens a whole record; NULL, 0: takes more of the one before. OK: *ret_length bytes, at most
 * room, are at bytes; it may be none. END: the peer has said that it sends no more. Errors: LINK.
 */
TransportResult transport_session_open(TransportSession *session, const uint8_t *record,
                                       size_t record_length, void *bytes, size_t room,
                                       size_t *ret_length, GError **error);

#endif
