/* SPDX-License-Identifier: MIT */
/*
 * What the files of transport/ share about credentials: what GnuTLS needs of them, and words for
 * what is wrong with a certificate. Nothing here changes once it is made; any thread.
 */
#ifndef TRANSPORT_CREDENTIALS_H
#define TRANSPORT_CREDENTIALS_H

#include "transport/transport.h"

#include <gnutls/gnutls.h>
#include <gnutls/x509.h>

struct TransportCredentials {
    unsigned count_references;
    TransportTlsKind kind;
    TransportTlsRole endpoint;
    bool verify_peer;
    char *dir;
    gnutls_priority_t priority;
    /* Of these, one. */
    gnutls_certificate_credentials_t x509;
    gnutls_psk_client_credentials_t psk_client;
    gnutls_psk_server_credentials_t psk_server;
    GHashTable *keys; /* psk_server: user -> GBytes */
};

/* CREDENTIALS; returns false. */
bool transport_set_credentials_error(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Reads the files of x509 credentials. */
bool transport_x509_load(TransportCredentials *credentials, bool skips_own, GError **error);

/* The user's key; NULL: there is no such user. */
GBytes *transport_psk_find(const TransportCredentials *credentials, const char *user);

/* Asked by GnuTLS when a client has said who it is (session.c). */
int transport_session_find_key(gnutls_session_t tls, const char *user, gnutls_datum_t *ret_key);

/* What the bits of a verification that failed (gnutls_certificate_status_t) say of "its"
 * certificate, the reason and the remedy, and the alert that tells the peer (NULL: nobody wants
 * it). whom: the name it was to have; NULL: none. */
char *transport_x509_explain(unsigned status, const char *whom, const char *dir,
                             gnutls_alert_description_t *ret_alert);

#endif
