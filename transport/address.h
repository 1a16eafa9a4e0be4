/* SPDX-License-Identifier: MIT */
/*
 * The URIs of channels: tcp:HOST:PORT, unix:PATH, fd:N. Parsing blocks never, resolving may
 * (names). Any thread.
 */
#ifndef TRANSPORT_ADDRESS_H
#define TRANSPORT_ADDRESS_H

#include "transport/transport.h"

#include <sys/socket.h>
#include <sys/un.h>

typedef enum {
    TRANSPORT_ADDRESS_TCP,
    TRANSPORT_ADDRESS_UNIX,
    TRANSPORT_ADDRESS_FD,
} TransportAddressKind;

typedef struct {
    TransportAddressKind kind;
    char *uri;
    char *host; /* tcp: without brackets; empty: any, for a listener only */
    unsigned port;
    struct sockaddr_un path; /* unix */
    int fd;                  /* fd: an open stream socket */
} TransportAddress;

/* One socket address a name stands for. */
typedef struct {
    struct sockaddr_storage storage;
    socklen_t length;
} TransportEndpoint;

/* is_listen: an empty host and port 0 are fine. Errors: ADDRESS, with the form that is expected. */
TransportAddress *transport_address_new(const char *uri, bool is_listen, GError **error);
void transport_address_free(TransportAddress *address);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(TransportAddress, transport_address_free)

/* The endpoints of a tcp or unix address, in the order in which to try them. Errors: ADDRESS. */
GArray *transport_address_resolve(const TransportAddress *address, bool is_listen, GError **error);

/* The URI of an endpoint, with numbers. */
char *transport_endpoint_uri(const TransportEndpoint *endpoint);

/* A unix socket, or an address of the loopback interface. */
bool transport_endpoint_is_local(const struct sockaddr_storage *storage);

/* Appends why an endpoint did not answer (an errno). */
void transport_note_failure(GString *reasons, const TransportEndpoint *endpoint, int code);

/* None of the endpoints answered. LINK. */
void transport_set_unreachable(const char *uri, const GString *reasons, GError **error);

/* Whether somebody listens at uri; who does never notices. May take 3 s an endpoint. Errors:
 * ADDRESS, LINK. */
bool transport_knock(const char *uri, GError **error);

#endif
