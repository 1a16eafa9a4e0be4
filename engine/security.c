/* SPDX-License-Identifier: MIT */
/*
 * What the parameters tls-creds, tls-hostname and tls-authz mean for a migration: looked up once,
 * when it begins or is resumed, and handed to each connection it makes or accepts. Control thread,
 * and the role that connects, under the context's lock.
 */
#include "engine/security.h"
#include "engine/context.h"
#include "engine/error.h"

static bool
is_set(const char *text)
{
    return text && *text;
}

static bool
refuse(GError **error, const char *format, const char *id)
{
    g_autofree char *text = g_strdup_printf(format, id);

    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return false;
}

static bool
check_ids(const Security *security, const char *creds, const char *authz, GError **error)
{
    static const char missing[] =
        "there is no object '%s'; make it first (object-add, or --object)";
    const char *absent = is_set(creds) && !security_has_object(security, creds)   ? creds
                         : is_set(authz) && !security_has_object(security, authz) ? authz
                                                                                  : NULL;
    const char *format =
        absent == creds ? "set parameter 'tls-creds': %s" : "set parameter 'tls-authz': %s";
    if (absent) {
        g_autofree char *reason = g_strdup_printf(missing, absent);
        return refuse(error, format, reason);
    }
    if (is_set(creds) && !security_find_credentials(security, creds))
        return refuse(error,
                      "set parameter 'tls-creds': object '%s' has no credentials; name one of type "
                      "tls-creds-x509 or tls-creds-psk",
                      creds);
    if (is_set(authz) && !security_find_authz(security, authz))
        return refuse(error,
                      "set parameter 'tls-authz': object '%s' authorizes nobody; name one of type "
                      "authz-simple or authz-list",
                      authz);
    return true;
}

bool
security_check(const Security *security, const char *const *texts, GError **error)
{
    const char *creds = texts[PARAMETER_TLS_CREDS], *authz = texts[PARAMETER_TLS_AUTHZ];

    if (!check_ids(security, creds, authz, error))
        return false;
    if (!is_set(creds) || !is_set(authz))
        return true;
    const TransportCredentials *credentials = security_find_credentials(security, creds);
    if (transport_credentials_verify_peer(credentials))
        return true;
    return refuse(
        error,
        transport_credentials_kind(credentials) == TRANSPORT_TLS_PSK
            ? "set parameter: 'tls-authz' looks at certificates, and 'tls-creds' is '%s', "
              "which has keys; use tls-creds-x509, or unset one of both"
            : "set parameter: 'tls-authz' looks at certificates, and 'tls-creds' is '%s', "
              "whose verify-peer is off; set it on, or unset one of both",
        creds);
}

static void
forget(Security *security)
{
    g_clear_pointer(&security->credentials, transport_credentials_unref);
    g_clear_pointer(&security->authz, transport_authz_unref);
    g_clear_pointer(&security->hostname, g_free);
}

/* Under the lock, because a recovery may connect at any time. */
static void
replace(Faultline *faultline, TransportCredentials *credentials, TransportAuthz *authz,
        const char *hostname)
{
    Security *security = &faultline->security;

    pthread_mutex_lock(&faultline->lock);
    forget(security);
    security->credentials = credentials ? transport_credentials_ref(credentials) : NULL;
    security->authz = authz ? transport_authz_ref(authz) : NULL;
    security->hostname = g_strdup(hostname);
    pthread_mutex_unlock(&faultline->lock);
}

bool
security_take(Faultline *faultline, const char *uri, bool is_listen, GError **error)
{
    Security *security = &faultline->security;
    const char *const *texts = (const char *const *)faultline->options.texts;
    const char *creds = texts[PARAMETER_TLS_CREDS];

    if (!is_set(creds)) {
        replace(faultline, NULL, NULL, NULL);
        return true;
    }
    if (!security_check(security, texts, error)) /* it was removed since */
        return false;
    TransportCredentials *credentials = security_find_credentials(security, creds);
    TransportAuthz *authz = security_find_authz(security, texts[PARAMETER_TLS_AUTHZ]);
    const char *hostname = texts[PARAMETER_TLS_HOSTNAME];
    if (!transport_check_tls(uri, is_listen, credentials, hostname, authz, error)) {
        g_prefix_error(error, "tls-creds '%s': ", creds);
        return error_translate(error);
    }
    replace(faultline, credentials, authz, hostname);
    return true;
}

bool
security_connect(Faultline *faultline, TransportConnector *connector, GError **error)
{
    const Security *security = &faultline->security;
    bool secured = true;

    pthread_mutex_lock(&faultline->lock);
    if (security->credentials)
        secured =
            transport_connector_secure(connector, security->credentials, security->hostname, error);
    pthread_mutex_unlock(&faultline->lock);
    return secured;
}

bool
security_listen(const Faultline *faultline, TransportListener *listener, GError **error)
{
    const Security *security = &faultline->security;

    return !security->credentials ||
           transport_listener_secure(listener, security->credentials, security->authz, error);
}

void
security_clear(Security *security)
{
    forget(security);
    g_clear_pointer(&security->objects, g_hash_table_unref);
}
