/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about TLS that fails: what is noted on the way, and the words.
 */
#ifndef TRANSPORT_TLS_ERROR_H
#define TRANSPORT_TLS_ERROR_H

#include "transport/credentials.h"

/* What GnuTLS's own code does not say. */
typedef struct TransportTlsFailure {
    gnutls_alert_description_t alert; /* what to tell the peer; 0: what GnuTLS would */
    char *reason;                     /* "its certificate is ...: do ..." */
    char *user;                       /* psk, server: who the peer said it was */
    bool is_unknown_user;
    bool has_first_byte; /* something came */
    uint8_t first_byte;
    int code; /* errno of the last call */
} TransportTlsFailure;

void transport_tls_failure_clear(TransportTlsFailure *failure);

/* Tells the peer, if there is a way to, why the handshake ended with code. */
void transport_tls_send_alert(gnutls_session_t tls, int code, const TransportTlsFailure *failure);

/* LINK: why the handshake ended with code. */
void transport_tls_set_shake_error(gnutls_session_t tls, int code,
                                   const TransportTlsFailure *failure,
                                   const TransportCredentials *credentials, const char *name,
                                   GError **error);

/* Why a record could not be opened, and what to do. */
char *transport_tls_explain_open(gnutls_session_t tls, int code);

#endif
