/* SPDX-License-Identifier: MIT */
/*
 * TLS as the simulation has it: none. No simulated migration has credentials, so that only what
 * looks for them and finds none is ever called; the engine must not go any further.
 */
#include "tests/sim/sim_pipe.h"

static bool
never(const char *function)
{
    sim_check(false, "%s: without credentials", function);
    return false;
}

TransportCredentials *
transport_credentials_new(const TransportTlsOptions *options G_GNUC_UNUSED, GError **error)
{
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_CREDENTIALS, "simulated: no TLS");
    return NULL;
}

TransportCredentials *
transport_credentials_ref(TransportCredentials *credentials)
{
    never("transport_credentials_ref");
    return credentials;
}

void
transport_credentials_unref(TransportCredentials *credentials)
{
    if (credentials)
        never("transport_credentials_unref");
}

TransportTlsKind
transport_credentials_kind(const TransportCredentials *credentials G_GNUC_UNUSED)
{
    never("transport_credentials_kind");
    return TRANSPORT_TLS_PSK;
}

bool
transport_credentials_verify_peer(const TransportCredentials *credentials G_GNUC_UNUSED)
{
    return never("transport_credentials_verify_peer");
}

TransportAuthz *
transport_authz_new(const TransportAuthzRule *rules G_GNUC_UNUSED, unsigned count G_GNUC_UNUSED,
                    bool allows_others G_GNUC_UNUSED)
{
    never("transport_authz_new");
    return NULL;
}

TransportAuthz *
transport_authz_ref(TransportAuthz *authz)
{
    never("transport_authz_ref");
    return authz;
}

void
transport_authz_unref(TransportAuthz *authz)
{
    if (authz)
        never("transport_authz_unref");
}

bool
transport_check_tls(const char *uri G_GNUC_UNUSED, bool is_listen G_GNUC_UNUSED,
                    const TransportCredentials *credentials G_GNUC_UNUSED,
                    const char *hostname G_GNUC_UNUSED, const TransportAuthz *authz G_GNUC_UNUSED,
                    GError **error G_GNUC_UNUSED)
{
    return never("transport_check_tls");
}

bool
transport_connector_secure(TransportConnector *connector G_GNUC_UNUSED,
                           TransportCredentials *credentials G_GNUC_UNUSED,
                           const char *hostname G_GNUC_UNUSED, GError **error G_GNUC_UNUSED)
{
    return never("transport_connector_secure");
}

bool
transport_listener_secure(TransportListener *listener G_GNUC_UNUSED,
                          TransportCredentials *credentials G_GNUC_UNUSED,
                          TransportAuthz *authz G_GNUC_UNUSED, GError **error G_GNUC_UNUSED)
{
    return never("transport_listener_secure");
}

char *
transport_listener_take_refusal(TransportListener *listener G_GNUC_UNUSED,
                                unsigned *ret_count G_GNUC_UNUSED)
{
    return NULL;
}
