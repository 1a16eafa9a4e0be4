/* SPDX-License-Identifier: MIT */
/*
 * Words for TLS that fails: what happened, why, and what to do, on either side. Any thread.
 */
#include "transport/tls_error.h"

#include <errno.h>

/* What the peer says when it ends TLS, and what that means to us. */
static const struct {
    gnutls_alert_description_t alert;
    const char *text;
} alerts[] = {
    {GNUTLS_A_CERTIFICATE_EXPIRED,
     "it says that our certificate has expired: renew it, and see that both clocks are right"},
    {GNUTLS_A_UNKNOWN_CA, "it does not know the CA of our certificate: have ours signed by a CA of "
                          "its ca-cert.pem, or add the CA there"},
    {GNUTLS_A_CERTIFICATE_REVOKED, "it says that our certificate is revoked: use another"},
    {GNUTLS_A_CERTIFICATE_REQUIRED,
     "it wants a certificate and we showed none: put client-cert.pem and client-key.pem into the "
     "'dir' of our credentials, or set verify-peer off there"},
    {GNUTLS_A_BAD_CERTIFICATE, "it refuses our certificate (its own message says why): is it valid "
                               "now, signed by a CA it knows, made for our side of TLS, and does "
                               "its 'tls-authz' let us in?"},
    {GNUTLS_A_UNSUPPORTED_CERTIFICATE,
     "our certificate is not made for our side of TLS: make one with the purpose and key usage "
     "for it"},
    {GNUTLS_A_CERTIFICATE_UNKNOWN, "it cannot use our certificate: its own message says why"},
    {GNUTLS_A_ACCESS_DENIED, "it does not let us in: see its 'tls-authz'"},
    {GNUTLS_A_UNKNOWN_PSK_IDENTITY,
     "it has no key of our user name: add USER:KEY to its keys.psk, or set another username here"},
    {GNUTLS_A_DECRYPT_ERROR, "our key is not the one it has: give both sides the same keys.psk"},
    {GNUTLS_A_ILLEGAL_PARAMETER,
     "it cannot agree with what we proved ourselves by: give both sides the same keys.psk, or "
     "certificates on both"},
    {GNUTLS_A_INSUFFICIENT_SECURITY,
     "it wants stronger ciphers or keys than ours: see 'priority' on both sides"},
    {GNUTLS_A_HANDSHAKE_FAILURE, "there is no way to prove oneself that both have: give both sides "
                                 "tls-creds-x509 (with certificates that may sign), or both "
                                 "tls-creds-psk"},
    {GNUTLS_A_PROTOCOL_VERSION, "it speaks no version of TLS that we do: see 'priority'"},
    {GNUTLS_A_UNEXPECTED_MESSAGE, "it does not take us for TLS: is TLS on at both sides?"},
};

/* What our own end found wrong. */
static const struct {
    int code;
    const char *text;
} reasons[] = {
    {GNUTLS_E_NO_CERTIFICATE_FOUND,
     "it shows no certificate: give it client-cert.pem and client-key.pem, or set verify-peer off "
     "here"},
    {GNUTLS_E_CERTIFICATE_REQUIRED,
     "it shows no certificate: give it client-cert.pem and client-key.pem, or set verify-peer off "
     "here"},
    {GNUTLS_E_KEY_USAGE_VIOLATION,
     "a certificate's key usage has no digital signature: make it with signing_key"},
    {GNUTLS_E_INSUFFICIENT_CREDENTIALS,
     "there is no way to prove oneself that both have: give both sides tls-creds-x509 (with "
     "certificates that may sign), or both "
     "tls-creds-psk"},
    {GNUTLS_E_NO_CIPHER_SUITES, "there is no way to prove oneself that both have: give both sides "
                                "tls-creds-x509 (with certificates that may sign), or both "
                                "tls-creds-psk"},
    {GNUTLS_E_UNSUPPORTED_VERSION_PACKET, "it speaks no version of TLS that we do"},
    {GNUTLS_E_DECRYPTION_FAILED, "what it sent is not sealed by the key agreed on"},
};

void
transport_tls_failure_clear(TransportTlsFailure *failure)
{
    g_clear_pointer(&failure->reason, g_free);
    g_clear_pointer(&failure->user, g_free);
}

static bool
is_plain(const TransportTlsFailure *failure)
{
    return failure->has_first_byte && failure->first_byte != 0x15 && failure->first_byte != 0x16;
}

static bool
is_end(int code)
{
    return code == GNUTLS_E_PREMATURE_TERMINATION || code == GNUTLS_E_PULL_ERROR ||
           code == GNUTLS_E_PUSH_ERROR || code == GNUTLS_E_SESSION_EOF;
}

void
transport_tls_send_alert(gnutls_session_t tls, int code, const TransportTlsFailure *failure)
{
    gnutls_alert_description_t alert = failure->alert;

    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED || is_end(code))
        return;
    if (is_plain(failure))
        alert = GNUTLS_A_UNEXPECTED_MESSAGE;
    else if (alert == 0 && failure->user != NULL)
        alert = GNUTLS_A_DECRYPT_ERROR; /* he is known, and proved it with another key */
    if (alert != 0)
        gnutls_alert_send(tls, GNUTLS_AL_FATAL, alert);
    else
        gnutls_alert_send_appropriate(tls, code);
}

static char *
explain_alert(gnutls_session_t tls)
{
    gnutls_alert_description_t alert = gnutls_alert_get(tls);
    const char *name = gnutls_alert_get_name(alert);

    for (unsigned i = 0; i < G_N_ELEMENTS(alerts); i++)
        if (alerts[i].alert == alert)
            return g_strdup(alerts[i].text);
    return g_strdup_printf("it ended TLS: %s: its own message says why", name ? name : "no reason");
}

/* The first byte of TLS is that of a handshake or an alert. */
static char *
explain_first_byte(const TransportTlsFailure *failure, bool is_server)
{
    if (!is_plain(failure))
        return NULL;
    return g_strdup_printf("it speaks no TLS: its first byte is 0x%02x%s: set 'tls-creds' %s, or "
                           "unset it here",
                           failure->first_byte,
                           failure->first_byte == 'Q' ? ", as a plain migration's" : "",
                           is_server ? "at the source, too" : "at the destination, too");
}

static char *
explain_key(const TransportTlsFailure *failure)
{
    if (failure->is_unknown_user)
        return g_strdup_printf("it says that it is user '%s', who has no key here: add %s:KEY to "
                               "keys.psk, or correct its username",
                               failure->user, failure->user);
    if (failure->user != NULL)
        return g_strdup_printf(
            "its key for user '%s' is not the one here: give both sides the same keys.psk",
            failure->user);
    return NULL;
}

static char *
explain_end(const TransportTlsFailure *failure, bool is_server)
{
    if (failure->code != 0)
        return g_strdup_printf("%s: the peer or the network ended the link: see why the peer "
                               "stopped, and whether 'tls-creds' is set there",
                               g_strerror(failure->code));
    return g_strdup_printf("it closed the connection in the midst: is 'tls-creds' set at the %s, "
                           "too? Its own message says why",
                           is_server ? "source" : "destination");
}

static char *
explain(gnutls_session_t tls, int code, const TransportTlsFailure *failure, bool is_server)
{
    char *text = g_strdup(failure->reason);

    if (text == NULL && code == GNUTLS_E_FATAL_ALERT_RECEIVED)
        text = explain_alert(tls);
    if (text == NULL)
        text = explain_first_byte(failure, is_server);
    if (text == NULL && is_end(code))
        text = explain_end(failure, is_server);
    for (unsigned i = 0; i < G_N_ELEMENTS(reasons) && text == NULL; i++)
        if (reasons[i].code == code)
            text = g_strdup(reasons[i].text);
    if (text == NULL)
        text = explain_key(failure);
    return text;
}

void
transport_tls_set_shake_error(gnutls_session_t tls, int code, const TransportTlsFailure *failure,
                              const TransportCredentials *credentials, const char *name,
                              GError **error)
{
    bool is_server = credentials->endpoint == TRANSPORT_TLS_SERVER;
    g_autofree char *text = explain(tls, code, failure, is_server);

    if (text == NULL)
        text = g_strdup_printf("%s: see whether both sides have credentials of the same kind",
                               gnutls_strerror(code));
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK, "TLS with %s failed: %s", name, text);
}

char *
transport_tls_explain_open(gnutls_session_t tls, int code)
{
    if (code == GNUTLS_E_FATAL_ALERT_RECEIVED)
        return explain_alert(tls);
    return g_strdup_printf("%s: what came was changed on its way, or is no TLS: see who is in "
                           "between, then connect again",
                           gnutls_strerror(code));
}
