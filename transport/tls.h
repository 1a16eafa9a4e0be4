/* SPDX-License-Identifier: MIT */
/*
 * TLS on links, by GnuTLS: who has to prove what, and who may come in. Part of transport.h's
 * chapter, which includes it.
 *
 * Credentials and authorizations are made once, checked then, and never change: any number of
 * connectors and listeners on any threads may hold them. One is handed to a connector or listener
 * before it is first used:
 *
 *     connector = transport_connect(ring, "tcp:host:4444", &error);
 *     transport_connector_secure(connector, credentials, NULL, &error);
 *     ... transport_connect_finish() is OK once the handshake is over, too
 *
 * The link that comes of it is like any other: whoever sends and receives on it cannot tell. The
 * very first bytes of a connection are the handshake's, the connecting side is the TLS client, and
 * the end is a plain close (a close_notify is END as well), as QEMU has it. An end in the middle of
 * a record is an error.
 *
 * What TLS costs the two threads of a link: a mutex of their own around each record of up to 16
 * KiB, because a peer may renew the keys of both directions at any time, and GnuTLS renews its own
 * after 2^24 records; and allocations inside GnuTLS.
 */
#ifndef TRANSPORT_TLS_H
#define TRANSPORT_TLS_H

#include <glib.h>
#include <stdbool.h>

/* Whose side of the handshake credentials are for. */
typedef enum {
    TRANSPORT_TLS_CLIENT, /* connects: the source */
    TRANSPORT_TLS_SERVER, /* listens: the destination */
} TransportTlsRole;

typedef enum { TRANSPORT_TLS_X509, TRANSPORT_TLS_PSK } TransportTlsKind;

typedef struct TransportCredentials TransportCredentials;
typedef struct TransportAuthz TransportAuthz;

/* What credentials are made of; strings are copied. */
typedef struct TransportTlsOptions {
    TransportTlsKind kind;
    TransportTlsRole endpoint;
    /* x509: ca-cert.pem, ca-crl.pem if it is there, and server-cert.pem with server-key.pem or
     * client-cert.pem with client-key.pem, which a client may do without. psk: keys.psk, lines of
     * user:hexkey. */
    const char *dir;
    bool skips_peer;      /* x509: whatever certificate the peer has, if any, is fine */
    bool skips_own;       /* x509: our own certificate is not looked at when it is loaded */
    const char *username; /* psk, client: NULL: "qemu" */
    const char *priority; /* of GnuTLS; NULL: its default, and for psk the key exchanges of that */
} TransportTlsOptions;

/* Reads and checks the files; later changes of them are not seen. Thread: any. Errors: CREDENTIALS:
 * a file is missing or broken, or a certificate that the peer could only refuse. */
TransportCredentials *transport_credentials_new(const TransportTlsOptions *options, GError **error);
TransportCredentials *transport_credentials_ref(TransportCredentials *credentials);
void transport_credentials_unref(TransportCredentials *credentials); /* NULL: nothing */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TransportCredentials, transport_credentials_unref)

TransportTlsKind transport_credentials_kind(const TransportCredentials *credentials);
TransportTlsRole transport_credentials_endpoint(const TransportCredentials *credentials);
/* Whether a peer must show a certificate that is good. */
bool transport_credentials_verify_peer(const TransportCredentials *credentials);

/* One rule of an authorization: who is named, and whether they may come in. */
typedef struct TransportAuthzRule {
    const char *match; /* distinguished name of a certificate */
    bool is_pattern;   /* with * and ? */
    bool is_allowed;
} TransportAuthzRule;

/* The first rule that matches decides; else allows_others. Copied. Thread: any. */
TransportAuthz *transport_authz_new(const TransportAuthzRule *rules, unsigned count,
                                    bool allows_others);
TransportAuthz *transport_authz_ref(TransportAuthz *authz);
void transport_authz_unref(TransportAuthz *authz); /* NULL: nothing */
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TransportAuthz, transport_authz_unref)

/* Thread: any. */
bool transport_authz_allows(const TransportAuthz *authz, const char *name);

/* Whether what follows could work with these arguments, without doing anything. is_listen: hostname
 * is not looked at; else authz is not. Thread: any. Errors: CREDENTIALS, both that do not go
 * together are named. */
bool transport_check_tls(const char *uri, bool is_listen, const TransportCredentials *credentials,
                         const char *hostname, const TransportAuthz *authz, GError **error);

struct TransportConnector;
struct TransportListener;

/* Right after transport_connect(). hostname: whom the server's certificate must name; NULL or
 * "": the host of the tcp URI. Holds credentials. The handshake has 10 s. Errors: CREDENTIALS. */
bool transport_connector_secure(struct TransportConnector *connector,
                                TransportCredentials *credentials, const char *hostname,
                                GError **error);

/* Right after transport_listen(). authz: NULL: whoever proves who he is. Holds both. Up to 16
 * handshakes go on at a time, each for up to 10 s; the oldest gives way to a 17th. What fails costs
 * that connection only: transport_listener_take_refusal(). Errors: CREDENTIALS. */
bool transport_listener_secure(struct TransportListener *listener,
                               TransportCredentials *credentials, TransportAuthz *authz,
                               GError **error);

/* The last connection that transport_accept() or transport_accept_right() turned away since the
 * last call: who it was, why, and what to do; NULL: none. Free with g_free. *ret_count: how many
 * were. Without TLS at most one text a second; the ring wakes for what is kept back, and asking for
 * a peer again brings it. Thread: that of transport_accept(). */
char *transport_listener_take_refusal(struct TransportListener *listener, unsigned *ret_count);

#endif
