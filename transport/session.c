/* SPDX-License-Identifier: MIT */
/*
 * TLS sessions: who the peer must be, and records sealed and opened in memory.
 *
 * The thread that connects or accepts until hands are shaken; then the two threads of the link's
 * halves, under the lock. Sockets are waited for by handshake.c, moved records by sealed.c and
 * opened.c; what a failure is called stands in tls_error.c.
 */
#include "transport/session.h"
#include "transport/credentials.h"
#include "transport/tls_error.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/socket.h>

struct TransportSession {
    /* Set before hands are shaken. */
    gnutls_session_t tls;
    TransportCredentials *credentials;
    TransportAuthz *authz;
    char *hostname, *name;
    int fd;

    /* While hands are shaken: the thread that does. */
    TransportTlsFailure failure;

    /* Later: under lock, which is held for one record. */
    pthread_mutex_t lock;
    uint8_t *out; /* NULL: nothing is being sealed */
    size_t out_length;
    const uint8_t *in;
    size_t in_left;
    char *end; /* why nothing can be opened any more, and so nothing sealed; NULL: it can */
};

/* ---- The socket, while hands are shaken ---- */

/* GnuTLS asks for no byte beyond the record it needs, so what comes behind the handshake is left
 * in the socket for the receiver. */
static ssize_t
pull_socket(gnutls_transport_ptr_t opaque, void *bytes, size_t length)
{
    TransportSession *session = opaque;
    ssize_t got = recv(session->fd, bytes, length, MSG_DONTWAIT);

    if (got > 0 && !session->failure.has_first_byte) {
        session->failure.has_first_byte = true;
        session->failure.first_byte = *(const uint8_t *)bytes;
    }
    session->failure.code = got < 0 ? errno : 0;
    gnutls_transport_set_errno(session->tls, session->failure.code);
    return got;
}

static ssize_t
push_socket(gnutls_transport_ptr_t opaque, const void *bytes, size_t length)
{
    TransportSession *session = opaque;
    ssize_t done = send(session->fd, bytes, length, MSG_DONTWAIT | MSG_NOSIGNAL);

    session->failure.code = done < 0 ? errno : 0;
    gnutls_transport_set_errno(session->tls, session->failure.code);
    return done;
}

/* GnuTLS would ask the descriptor; pull and push know by themselves. */
static int
pull_timeout(gnutls_transport_ptr_t opaque, unsigned milliseconds)
{
    (void)opaque, (void)milliseconds;
    return 1;
}

/* ---- Memory, afterwards ---- */

static ssize_t
pull_record(gnutls_transport_ptr_t opaque, void *bytes, size_t length)
{
    TransportSession *session = opaque;
    size_t given = MIN(length, session->in_left);

    if (given == 0) {
        gnutls_transport_set_errno(session->tls, EAGAIN);
        return -1;
    }
    memcpy(bytes, session->in, given);
    session->in += given;
    session->in_left -= given;
    return (ssize_t)given;
}

static ssize_t
push_record(gnutls_transport_ptr_t opaque, const void *bytes, size_t length)
{
    TransportSession *session = opaque;

    if (session->out == NULL || session->out_length + length > 2 * SESSION_RECORD_BYTES) {
        gnutls_transport_set_errno(session->tls, EIO);
        return -1;
    }
    memcpy(session->out + session->out_length, bytes, length);
    session->out_length += length;
    return (ssize_t)length;
}

/* ---- Who the peer is ---- */

/* The order of the name is as QEMU writes it, so that its identities can be taken over. */
static bool
read_name(gnutls_session_t tls, char **ret_name)
{
    unsigned count = 0;
    const gnutls_datum_t *chain = gnutls_certificate_get_peers(tls, &count);
    gnutls_x509_crt_t certificate;
    char name[1024];
    size_t size = sizeof name;

    if (chain == NULL || count == 0 || gnutls_x509_crt_init(&certificate) < 0)
        return false;
    bool is_read = gnutls_x509_crt_import(certificate, &chain[0], GNUTLS_X509_FMT_DER) >= 0 &&
                   gnutls_x509_crt_get_dn(certificate, name, &size) >= 0;
    gnutls_x509_crt_deinit(certificate);
    if (is_read)
        *ret_name = g_strdup(name);
    return is_read;
}

/* Called by GnuTLS when the peer's certificate has come. Not 0: refused. */
static int
verify_peer(gnutls_session_t tls)
{
    TransportSession *session = gnutls_session_get_ptr(tls);
    bool is_server = session->credentials->endpoint == TRANSPORT_TLS_SERVER;
    const char *purpose = is_server ? GNUTLS_KP_TLS_WWW_CLIENT : GNUTLS_KP_TLS_WWW_SERVER;
    gnutls_typed_vdata_st data[] = {
        {.type = GNUTLS_DT_KEY_PURPOSE_OID, .data = (unsigned char *)purpose},
        {.type = GNUTLS_DT_DNS_HOSTNAME, .data = (unsigned char *)session->hostname},
    };
    g_autofree char *name = NULL;
    unsigned status = 0;
    int code =
        gnutls_certificate_verify_peers(tls, data, session->hostname != NULL ? 2 : 1, &status);

    if (code < 0)
        return code;
    if (status != 0) {
        g_autofree char *reason = transport_x509_explain(
            status, session->hostname, session->credentials->dir, &session->failure.alert);
        session->failure.reason = g_strdup_printf("its certificate %s", reason);
        return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
    }
    if (session->authz == NULL)
        return 0;
    if (!read_name(tls, &name) || !transport_authz_allows(session->authz, name)) {
        session->failure.alert = GNUTLS_A_ACCESS_DENIED;
        session->failure.reason =
            g_strdup_printf("'tls-authz' does not let '%s' in: add that name to the authorization "
                            "if it is to come in",
                            name != NULL ? name : "a certificate without a name");
        return GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR;
    }
    return 0;
}

int
transport_session_find_key(gnutls_session_t tls, const char *user, gnutls_datum_t *ret_key)
{
    TransportSession *session = gnutls_session_get_ptr(tls);
    GBytes *key = transport_psk_find(session->credentials, user);
    gsize size;

    g_free(session->failure.user);
    session->failure.user = g_strdup(user);
    if (key == NULL) {
        session->failure.is_unknown_user = true;
        session->failure.alert = GNUTLS_A_UNKNOWN_PSK_IDENTITY;
        return -1;
    }
    const void *bytes = g_bytes_get_data(key, &size);
    ret_key->data = gnutls_malloc(size);
    if (ret_key->data == NULL)
        return -1;
    memcpy(ret_key->data, bytes, size);
    ret_key->size = (unsigned)size;
    return 0;
}

/* ---- Life ---- */

static int
set_credentials(TransportSession *session)
{
    const TransportCredentials *credentials = session->credentials;
    bool is_server = credentials->endpoint == TRANSPORT_TLS_SERVER;

    if (credentials->kind == TRANSPORT_TLS_PSK) {
        if (!is_server)
            return gnutls_credentials_set(session->tls, GNUTLS_CRD_PSK, credentials->psk_client);
        return gnutls_credentials_set(session->tls, GNUTLS_CRD_PSK, credentials->psk_server);
    }
    if (is_server)
        gnutls_certificate_server_set_request(
            session->tls, credentials->verify_peer ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_IGNORE);
    if (credentials->verify_peer)
        gnutls_session_set_verify_function(session->tls, verify_peer);
    return gnutls_credentials_set(session->tls, GNUTLS_CRD_CERTIFICATE, credentials->x509);
}

/* A name, not an address, is told the server, who may have certificates for several. */
static void
tell_hostname(const TransportSession *session)
{
    if (session->hostname != NULL && !g_hostname_is_ip_address(session->hostname))
        gnutls_server_name_set(session->tls, GNUTLS_NAME_DNS, session->hostname,
                               strlen(session->hostname));
}

static int
prepare(TransportSession *session)
{
    /* Tickets would come behind the handshake; no session is ever resumed. */
    unsigned flags = GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS | GNUTLS_NO_SIGNAL;
    bool is_server = session->credentials->endpoint == TRANSPORT_TLS_SERVER;
    int code = gnutls_init(&session->tls, flags | (is_server ? GNUTLS_SERVER : GNUTLS_CLIENT));

    if (code < 0)
        return code;
    gnutls_session_set_ptr(session->tls, session);
    gnutls_transport_set_ptr(session->tls, session);
    gnutls_transport_set_pull_function(session->tls, pull_socket);
    gnutls_transport_set_pull_timeout_function(session->tls, pull_timeout);
    gnutls_transport_set_push_function(session->tls, push_socket);
    gnutls_handshake_set_timeout(session->tls, 0); /* handshake.c's */
    code = gnutls_priority_set(session->tls, session->credentials->priority);
    return code < 0 ? code : set_credentials(session);
}

TransportSession *
transport_session_new(TransportCredentials *credentials, TransportAuthz *authz,
                      const char *hostname, int fd, const char *name, GError **error)
{
    TransportSession *session = g_new0(TransportSession, 1);
    pthread_mutexattr_t attributes;

    /* A record takes microseconds: to look again is cheaper than to sleep. */
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&session->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    session->credentials = transport_credentials_ref(credentials);
    session->authz = authz != NULL ? transport_authz_ref(authz) : NULL;
    session->hostname = g_strdup(hostname);
    session->name = g_strdup(name);
    session->fd = fd;
    int code = prepare(session);
    if (code < 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "TLS with %s failed: no session could be made: %s: free memory", name,
                    gnutls_strerror(code));
        transport_session_free(session);
        return NULL;
    }
    tell_hostname(session);
    return session;
}

void
transport_session_free(TransportSession *session)
{
    if (session == NULL)
        return;
    if (session->tls != NULL)
        gnutls_deinit(session->tls);
    transport_tls_failure_clear(&session->failure);
    pthread_mutex_destroy(&session->lock);
    transport_credentials_unref(session->credentials);
    transport_authz_unref(session->authz);
    g_free(session->hostname);
    g_free(session->name);
    g_free(session->end);
    g_free(session);
}

/* ---- The handshake ---- */

static void
begin_records(TransportSession *session)
{
    gnutls_transport_set_pull_function(session->tls, pull_record);
    gnutls_transport_set_push_function(session->tls, push_record);
    session->fd = -1;
}

bool
transport_session_has_heard(const TransportSession *session)
{
    return session->failure.has_first_byte;
}

TransportResult
transport_session_shake(TransportSession *session, short *ret_events, GError **error)
{
    int code;

    do {
        code = gnutls_handshake(session->tls);
    } while (code == GNUTLS_E_INTERRUPTED || code == GNUTLS_E_WARNING_ALERT_RECEIVED);
    if (code == GNUTLS_E_AGAIN) {
        *ret_events = gnutls_record_get_direction(session->tls) == 0 ? POLLIN : POLLOUT;
        return TRANSPORT_WAIT;
    }
    if (code == GNUTLS_E_SUCCESS) {
        begin_records(session);
        return TRANSPORT_OK;
    }
    transport_tls_send_alert(session->tls, code, &session->failure);
    transport_tls_set_shake_error(session->tls, code, &session->failure, session->credentials,
                                  session->name, error);
    return TRANSPORT_ERROR_RESULT;
}

/* ---- Records ---- */

/* The peer's own reason comes first: to the receiving thread, which may not have told it yet.
 * Called with lock. */
static void
set_seal_error(const TransportSession *session, int code, GError **error)
{
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK, "sending to %s failed: TLS%s: %s",
                session->name, session->end != NULL ? "" : " cannot seal, connect again",
                session->end != NULL ? session->end
                : code < 0           ? gnutls_strerror(code)
                                     : "the peer takes only smaller records");
}

bool
transport_session_seal(TransportSession *session, const void *bytes, size_t length, uint8_t *out,
                       size_t *ret_length, GError **error)
{
    ssize_t done;

    pthread_mutex_lock(&session->lock);
    session->out = out;
    session->out_length = 0;
    done = gnutls_record_send(session->tls, bytes, length);
    *ret_length = session->out_length;
    session->out = NULL;
    if (done != (ssize_t)length)
        set_seal_error(session, (int)done, error);
    pthread_mutex_unlock(&session->lock);
    return done == (ssize_t)length;
}

size_t
transport_session_record_length(const uint8_t *header)
{
    size_t length = (size_t)header[3] << 8 | header[4];

    /* change_cipher_spec, alert, handshake, application data; version 3.x */
    if (header[0] < 20 || header[0] > 23 || header[1] != 3)
        return 0;
    length += SESSION_HEADER_BYTES;
    return length <= SESSION_RECORD_BYTES ? length : 0;
}

bool
transport_session_has_pending(TransportSession *session)
{
    return gnutls_record_check_pending(session->tls) != 0;
}

TransportResult
transport_session_open(TransportSession *session, const uint8_t *record, size_t record_length,
                       void *bytes, size_t room, size_t *ret_length, GError **error)
{
    ssize_t got;

    pthread_mutex_lock(&session->lock);
    session->in = record;
    session->in_left = record_length;
    got = gnutls_record_recv(session->tls, bytes, room);
    session->in_left = 0;
    bool is_fine = got >= 0 || got == GNUTLS_E_AGAIN || got == GNUTLS_E_INTERRUPTED ||
                   got == GNUTLS_E_WARNING_ALERT_RECEIVED;
    if (!is_fine && session->end == NULL)
        session->end = transport_tls_explain_open(session->tls, (int)got);
    pthread_mutex_unlock(&session->lock);
    *ret_length = got > 0 ? (size_t)got : 0;
    if (is_fine)
        return got == 0 ? TRANSPORT_END : TRANSPORT_OK;
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK, "receiving from %s failed: TLS: %s",
                session->name, session->end);
    return TRANSPORT_ERROR_RESULT;
}
