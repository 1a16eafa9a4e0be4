/* SPDX-License-Identifier: MIT */
/*
 * The URIs of channels: parsing, refusing, resolving, and writing them.
 *
 * Any thread; only transport_address_resolve() may block, in the resolver. Sockets are made in
 * connect.c and listen.c.
 */
#include "transport/address.h"

#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <string.h>

#define FORMS "use tcp:HOST:PORT (IPv6 as tcp:[::1]:4444), unix:PATH or fd:NUMBER"

static bool G_GNUC_PRINTF(3, 4) refuse(GError **error, const char *uri, const char *reason, ...)
{
    g_autofree char *text = NULL;
    va_list arguments;

    va_start(arguments, reason);
    text = g_strdup_vprintf(reason, arguments);
    va_end(arguments);
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS,
                "the address '%s' is not acceptable: %s: " FORMS, uri, text);
    return false;
}

/* Digits only: strtoul(3) would take signs and spaces. */
static bool
parse_number(const char *text, unsigned long *ret_number)
{
    size_t length = strlen(text);

    if (length == 0 || length > 9 || strspn(text, "0123456789") != length)
        return false;
    *ret_number = strtoul(text, NULL, 10);
    return true;
}

static bool
parse_port(TransportAddress *address, const char *text, bool is_listen, GError **error)
{
    unsigned long port;

    if (!parse_number(text, &port) || port > 65535 || (port == 0 && !is_listen))
        return refuse(error, address->uri, "the port '%s' is no number from %d to 65535", text,
                      is_listen ? 0 : 1);
    address->port = (unsigned)port;
    return true;
}

static bool
parse_tcp(TransportAddress *address, const char *rest, bool is_listen, GError **error)
{
    const char *end;
    bool is_bracketed = rest[0] == '[';

    if (is_bracketed) {
        end = strchr(++rest, ']');
        if (end == NULL)
            return refuse(error, address->uri, "the bracket around the IPv6 address does not end");
    } else {
        end = strchr(rest, ':');
        if (end != NULL && strchr(end + 1, ':') != NULL)
            return refuse(error, address->uri, "an IPv6 address goes in brackets");
    }
    if (end == NULL || end[is_bracketed] != ':' || end[is_bracketed + 1] == '\0')
        return refuse(error, address->uri, "the port is missing");
    address->host = g_strndup(rest, (gsize)(end - rest));
    if (address->host[0] == '\0' && (is_bracketed || !is_listen))
        return refuse(error, address->uri, "the host is missing");
    return parse_port(address, end + is_bracketed + 1, is_listen, error);
}

static bool
parse_unix(TransportAddress *address, const char *path, GError **error)
{
    const size_t max = sizeof address->path.sun_path - 1;

    if (path[0] == '\0')
        return refuse(error, address->uri, "the path is empty");
    if (strlen(path) > max)
        return refuse(error, address->uri, "the path has %zu bytes, a socket's may have %zu",
                      strlen(path), max);
    address->path.sun_family = AF_UNIX;
    memcpy(address->path.sun_path, path, strlen(path) + 1);
    return true;
}

static bool
parse_fd(TransportAddress *address, const char *rest, GError **error)
{
    unsigned long number;
    int type;
    socklen_t size = sizeof type;

    if (!parse_number(rest, &number))
        return refuse(error, address->uri, "'%s' is no descriptor number", rest);
    address->fd = (int)number;
    if (getsockopt(address->fd, SOL_SOCKET, SO_TYPE, &type, &size) < 0)
        return refuse(error, address->uri,
                      errno == EBADF ? "descriptor %lu is not open (a parent must let the program "
                                       "inherit it)"
                                     : "descriptor %lu is no socket",
                      number);
    if (type != SOCK_STREAM)
        return refuse(error, address->uri, "descriptor %lu is no stream socket", number);
    return true;
}

TransportAddress *
transport_address_new(const char *uri, bool is_listen, GError **error)
{
    g_autoptr(TransportAddress) address = g_new0(TransportAddress, 1);
    bool is_valid;

    address->uri = g_strdup(uri);
    if (g_str_has_prefix(uri, "tcp:")) {
        address->kind = TRANSPORT_ADDRESS_TCP;
        is_valid = parse_tcp(address, uri + strlen("tcp:"), is_listen, error);
    } else if (g_str_has_prefix(uri, "unix:")) {
        address->kind = TRANSPORT_ADDRESS_UNIX;
        is_valid = parse_unix(address, uri + strlen("unix:"), error);
    } else if (g_str_has_prefix(uri, "fd:")) {
        address->kind = TRANSPORT_ADDRESS_FD;
        is_valid = parse_fd(address, uri + strlen("fd:"), error);
    } else {
        is_valid = refuse(error, uri, "its kind is not known");
    }
    return is_valid ? g_steal_pointer(&address) : NULL;
}

void
transport_address_free(TransportAddress *address)
{
    if (address == NULL)
        return;
    g_free(address->uri);
    g_free(address->host);
    g_free(address);
}

static bool
resolve_tcp(const TransportAddress *address, bool is_listen, GArray *endpoints, GError **error)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV | (is_listen ? AI_PASSIVE : 0)};
    struct addrinfo *list = NULL;
    char port[16];
    int r;

    g_snprintf(port, sizeof port, "%u", address->port);
    r = getaddrinfo(address->host[0] != '\0' ? address->host : NULL, port, &hints, &list);
    if (r != 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS,
                    "the host '%s' of '%s' does not resolve: %s: check the name, or give a number",
                    address->host, address->uri,
                    r == EAI_SYSTEM ? g_strerror(errno) : gai_strerror(r));
        return false;
    }
    for (const struct addrinfo *entry = list; entry != NULL; entry = entry->ai_next) {
        TransportEndpoint endpoint = {.length = entry->ai_addrlen};

        memcpy(&endpoint.storage, entry->ai_addr, entry->ai_addrlen);
        g_array_append_val(endpoints, endpoint);
    }
    freeaddrinfo(list);
    return true;
}

GArray *
transport_address_resolve(const TransportAddress *address, bool is_listen, GError **error)
{
    g_autoptr(GArray) endpoints = g_array_new(FALSE, FALSE, sizeof(TransportEndpoint));

    if (address->kind == TRANSPORT_ADDRESS_TCP) {
        if (!resolve_tcp(address, is_listen, endpoints, error))
            return NULL;
    } else {
        TransportEndpoint endpoint = {.length = sizeof address->path};

        memcpy(&endpoint.storage, &address->path, sizeof address->path);
        g_array_append_val(endpoints, endpoint);
    }
    return g_steal_pointer(&endpoints);
}

char *
transport_endpoint_uri(const TransportEndpoint *endpoint)
{
    const struct sockaddr *address = (const struct sockaddr *)&endpoint->storage;
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (address->sa_family == AF_UNIX && endpoint->length > sizeof(sa_family_t))
        return g_strdup_printf("unix:%s", ((const struct sockaddr_un *)address)->sun_path);
    if ((address->sa_family != AF_INET && address->sa_family != AF_INET6) ||
        getnameinfo(address, endpoint->length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return g_strdup("the peer");
    return g_strdup_printf(address->sa_family == AF_INET6 ? "tcp:[%s]:%s" : "tcp:%s:%s", host,
                           port);
}

bool
transport_endpoint_is_local(const struct sockaddr_storage *storage)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)storage;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)storage;

    switch (storage->ss_family) {
    case AF_UNIX:
        return true;
    case AF_INET:
        return ntohl(v4->sin_addr.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
    case AF_INET6:
        return IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr) ||
               (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr) && v6->sin6_addr.s6_addr[12] == 127);
    default:
        return false;
    }
}

bool
transport_check_uri(const char *uri, bool is_listen, GError **error)
{
    g_autoptr(TransportAddress) address = transport_address_new(uri, is_listen, error);
    return address != NULL;
}

void
transport_note_failure(GString *reasons, const TransportEndpoint *endpoint, int code)
{
    g_autofree char *uri = transport_endpoint_uri(endpoint);

    g_string_append_printf(reasons, "%s%s: %s", reasons->len ? ", " : "", uri, g_strerror(code));
}

void
transport_set_unreachable(const char *uri, const GString *reasons, GError **error)
{
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                "connecting to %s failed (%s). Start the destination there first, and open the "
                "firewalls in between",
                uri, reasons->str);
}
