/* SPDX-License-Identifier: MIT */
/*
 * Connectors: from a URI to a connected link, over all addresses a name has, in order.
 *
 * The thread of the ring. Only the resolution of a name blocks, in transport_connect(). How long
 * to be patient is left to the caller, who frees the connector to give up.
 */
#include "transport/address.h"
#include "transport/handshake.h"
#include "transport/link.h"
#include "transport/ring.h"

#include <errno.h>
#include <unistd.h>

struct TransportConnector {
    TransportOp op;
    TransportRing *ring;
    TransportAddress *address;
    GArray *endpoints;                 /* NULL for fd:N */
    unsigned next;                     /* of endpoints, to be tried when this one fails */
    int fd;                            /* -1: none */
    int result;                        /* of the connect that is done */
    GString *reasons;                  /* why each endpoint so far failed */
    TransportCredentials *credentials; /* TLS; else NULL */
    char *hostname;                    /* that the peer's certificate must have; NULL: any */
    TransportHandshake *handshake;     /* connected, and shaking hands */
};

static TransportEndpoint *
endpoint_at(TransportConnector *connector, unsigned index)
{
    return &g_array_index(connector->endpoints, TransportEndpoint, index);
}

static void
connect_done(TransportOp *op, int result)
{
    ((TransportConnector *)op)->result = result;
}

static void
close_socket(TransportConnector *connector)
{
    if (connector->fd >= 0)
        close(connector->fd);
    connector->fd = -1;
}

static void
note_failure(TransportConnector *connector, int code)
{
    transport_note_failure(connector->reasons, endpoint_at(connector, connector->next - 1), code);
    close_socket(connector);
}

/* Begins with the next endpoint that gives a socket. false: none is left. */
static bool
try_next(TransportConnector *connector)
{
    while (connector->next < connector->endpoints->len) {
        TransportEndpoint *endpoint = endpoint_at(connector, connector->next++);
        const struct sockaddr *address = (const struct sockaddr *)&endpoint->storage;
        struct io_uring_sqe *sqe;

        connector->fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connector->fd < 0) {
            note_failure(connector, errno);
            continue;
        }
        sqe = transport_ring_sqe(connector->ring);
        io_uring_prep_connect(sqe, connector->fd, address, endpoint->length);
        transport_ring_start(connector->ring, &connector->op, sqe);
        return true;
    }
    return false;
}

static bool
take_fd(TransportConnector *connector, GError **error)
{
    const TransportAddress *address = connector->address;
    struct sockaddr_storage peer;
    socklen_t length = sizeof peer;

    if (getpeername(address->fd, (struct sockaddr *)&peer, &length) < 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS,
                    "the address '%s' is not acceptable: the socket is not connected (%s): pass a "
                    "connected stream socket, or use tcp:HOST:PORT or unix:PATH",
                    address->uri, g_strerror(errno));
        return false;
    }
    connector->fd = address->fd;
    return true;
}

TransportConnector *
transport_connect(TransportRing *ring, const char *uri, GError **error)
{
    g_autoptr(TransportAddress) address = transport_address_new(uri, false, error);
    g_autoptr(GArray) endpoints = NULL;
    TransportConnector *connector;

    if (address == NULL)
        return NULL;
    if (address->kind != TRANSPORT_ADDRESS_FD) {
        endpoints = transport_address_resolve(address, false, error);
        if (endpoints == NULL)
            return NULL;
    }
    connector = g_new0(TransportConnector, 1);
    connector->op.done = connect_done;
    connector->ring = ring;
    connector->address = g_steal_pointer(&address);
    connector->endpoints = g_steal_pointer(&endpoints);
    connector->reasons = g_string_new(NULL);
    connector->fd = -1;
    if (connector->endpoints != NULL) {
        try_next(connector); /* that none began is said by transport_connect_finish() */
    } else if (!take_fd(connector, error)) {
        transport_connector_free(connector);
        return NULL;
    }
    return connector;
}

bool
transport_connector_secure(TransportConnector *connector, TransportCredentials *credentials,
                           const char *hostname, GError **error)
{
    const TransportAddress *address = connector->address;
    bool is_given = hostname != NULL && hostname[0] != '\0';

    if (!transport_check_tls(address->uri, false, credentials, hostname, NULL, error))
        return false;
    connector->credentials = transport_credentials_ref(credentials);
    if (transport_credentials_kind(credentials) == TRANSPORT_TLS_X509)
        connector->hostname = g_strdup(is_given ? hostname : address->host);
    return true;
}

/* Goes on with the connected socket, which link takes over. */
static TransportResult
begin_handshake(TransportConnector *connector, TransportLink *link, GError **error)
{
    link->session = transport_session_new(connector->credentials, NULL, connector->hostname,
                                          link->fd, link->name, error);
    if (link->session == NULL) {
        transport_link_unref(link);
        return TRANSPORT_ERROR_RESULT;
    }
    connector->handshake = transport_handshake_new(connector->ring, link);
    return TRANSPORT_OK;
}

static TransportResult
take_link(TransportConnector *connector, TransportLink **ret_link, GError **error)
{
    TransportLink *link = transport_link_new(connector->fd, connector->address->uri);

    connector->fd = -1;
    if (connector->credentials == NULL) {
        *ret_link = link;
        return TRANSPORT_OK;
    }
    if (begin_handshake(connector, link, error) != TRANSPORT_OK)
        return TRANSPORT_ERROR_RESULT;
    return transport_handshake_step(connector->handshake, ret_link, error);
}

static TransportResult
fail_all(TransportConnector *connector, GError **error)
{
    transport_set_unreachable(connector->address->uri, connector->reasons, error);
    return TRANSPORT_ERROR_RESULT;
}

TransportResult
transport_connect_finish(TransportConnector *connector, TransportLink **ret_link, GError **error)
{
    if (connector->handshake != NULL)
        return transport_handshake_step(connector->handshake, ret_link, error);
    while (connector->fd >= 0) {
        if (connector->op.is_in_flight)
            transport_ring_reap(connector->ring, &connector->op);
        if (connector->op.is_in_flight)
            return TRANSPORT_WAIT;
        if (connector->result == 0)
            return take_link(connector, ret_link, error);
        note_failure(connector, -connector->result);
        try_next(connector);
    }
    return fail_all(connector, error);
}

void
transport_connector_free(TransportConnector *connector)
{
    if (connector == NULL)
        return;
    if (!transport_ring_cancel(connector->ring, &connector->op)) {
        g_warning("connector to %s freed by another thread while it connected: its memory is kept",
                  connector->address->uri);
        return;
    }
    transport_handshake_free(connector->handshake);
    transport_credentials_unref(connector->credentials);
    g_free(connector->hostname);
    close_socket(connector);
    transport_address_free(connector->address);
    if (connector->endpoints != NULL)
        g_array_unref(connector->endpoints);
    g_string_free(connector->reasons, TRUE);
    g_free(connector);
}
