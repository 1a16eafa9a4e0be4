/* SPDX-License-Identifier: MIT */
/*
 * Listeners: binding, the path of a unix socket, and accepting without blocking.
 *
 * Any one thread until the first transport_accept(), then that thread: a one-shot poll on its ring
 * wakes it when a peer comes. With TLS a peer is handed out once it has proved who it is
 * (arrivals.c); what it may do is left to the caller.
 */
#include "transport/address.h"
#include "transport/arrivals.h"
#include "transport/greetings.h"
#include "transport/link.h"
#include "transport/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#define BACKLOG 128 /* a flood must not fill what the kernel keeps for us */

struct TransportListener {
    TransportOp op;
    TransportRing *ring;           /* of the poll; NULL before */
    int fd;                        /* -1: handed out */
    bool is_connected;             /* fd:N of one connected socket: it is the peer */
    TransportArrivals *arrivals;   /* TLS; else NULL */
    TransportGreetings *greetings; /* transport_accept_right(); NULL: nobody is waited for */
    char *uri;                     /* as peers reach it */
    char *made_path;               /* unix: ours to remove, as long as it is made_inode */
    ino_t made_inode;
};

static void
poll_done(TransportOp *op, int result)
{
    (void)op, (void)result; /* transport_accept() asks the socket itself */
}

static bool
set_listen_error(const TransportAddress *address, int code, GError **error)
{
    g_set_error(error, TRANSPORT_ERROR,
                code == EMFILE || code == ENFILE || code == ENOMEM || code == ENOBUFS
                    ? TRANSPORT_ERROR_HOST
                    : TRANSPORT_ERROR_ADDRESS,
                "listening on %s failed: %s: %s", address->uri, g_strerror(code),
                code == EADDRINUSE ? "another program listens there: stop it, or choose another"
                : code == EADDRNOTAVAIL ? "give an address of this host"
                : code == EACCES        ? "choose a port or path this user may use"
                : code == ENOENT        ? "make the directory first"
                                        : "choose another address, or free the resource");
    return false;
}

/* ---- Unix paths ---- */

/* A socket at which nobody listens is what a program that died left behind. Asked with a socket of
 * another type: a destination that listens must not take us for its source (knock.c). */
static bool
is_stale(const struct sockaddr_un *path)
{
    struct stat status;
    int fd, r;

    if (lstat(path->sun_path, &status) < 0 || !S_ISSOCK(status.st_mode))
        return false;
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    r = connect(fd, (const struct sockaddr *)path, sizeof *path) < 0 ? errno : 0;
    close(fd);
    return r == ECONNREFUSED;
}

static int
bind_unix(TransportListener *listener, const TransportAddress *address)
{
    const struct sockaddr *path = (const struct sockaddr *)&address->path;
    struct stat status;
    int code;

    /* bind(2) gives the path the mode of the socket: it is never open to others, not for a moment.
     */
    fchmod(listener->fd, 0600);
    if (bind(listener->fd, path, sizeof address->path) < 0) {
        code = errno;
        if (code != EADDRINUSE || !is_stale(&address->path))
            return code;
        unlink(address->path.sun_path);
        if (bind(listener->fd, path, sizeof address->path) < 0)
            return errno;
    }
    if (stat(address->path.sun_path, &status) == 0) {
        listener->made_path = g_strdup(address->path.sun_path);
        listener->made_inode = status.st_ino;
    }
    return 0;
}

static void
remove_path(TransportListener *listener)
{
    struct stat status;

    if (listener->made_path != NULL && lstat(listener->made_path, &status) == 0 &&
        status.st_ino == listener->made_inode)
        unlink(listener->made_path);
    g_clear_pointer(&listener->made_path, g_free);
}

/* ---- Making one ---- */

/* Returns 0 or an errno; on failure the socket is closed. */
static int
listen_at(TransportListener *listener, const TransportAddress *address,
          const TransportEndpoint *endpoint)
{
    const struct sockaddr *socket_address = (const struct sockaddr *)&endpoint->storage;
    int one = 1, code = 0;

    listener->fd = socket(socket_address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener->fd < 0)
        return errno;
    if (address->kind == TRANSPORT_ADDRESS_UNIX) {
        code = bind_unix(listener, address);
    } else {
        setsockopt(listener->fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        if (bind(listener->fd, socket_address, endpoint->length) < 0)
            code = errno;
    }
    if (code == 0 && listen(listener->fd, BACKLOG) < 0)
        code = errno;
    if (code != 0) {
        close(listener->fd);
        listener->fd = -1;
    }
    return code;
}

static bool
listen_any(TransportListener *listener, const TransportAddress *address, GError **error)
{
    g_autoptr(GArray) endpoints = transport_address_resolve(address, true, error);
    TransportEndpoint bound = {.length = sizeof bound.storage};
    int code = EADDRNOTAVAIL;

    if (endpoints == NULL)
        return false;
    for (unsigned i = 0; i < endpoints->len && listener->fd < 0; i++)
        code = listen_at(listener, address, &g_array_index(endpoints, TransportEndpoint, i));
    if (listener->fd < 0)
        return set_listen_error(address, code, error);
    if (address->kind == TRANSPORT_ADDRESS_UNIX) {
        listener->uri = g_strdup(address->uri);
        return true;
    }
    getsockname(listener->fd, (struct sockaddr *)&bound.storage, &bound.length);
    listener->uri = transport_endpoint_uri(&bound);
    return true;
}

static bool
listen_fd(TransportListener *listener, const TransportAddress *address, GError **error)
{
    struct sockaddr_storage peer;
    socklen_t peer_length = sizeof peer;
    int is_listening = 0, flags = fcntl(address->fd, F_GETFL);
    socklen_t size = sizeof is_listening;

    getsockopt(address->fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &size);
    if (!is_listening && getpeername(address->fd, (struct sockaddr *)&peer, &peer_length) < 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS,
                    "the address '%s' is not acceptable: the socket neither listens nor is it "
                    "connected: pass one that does or is, or use tcp:HOST:PORT or unix:PATH",
                    address->uri);
        return false;
    }
    if (is_listening)
        fcntl(address->fd, F_SETFL, flags | O_NONBLOCK);
    listener->is_connected = !is_listening;
    listener->fd = address->fd;
    listener->uri = g_strdup(address->uri);
    return true;
}

TransportListener *
transport_listen(const char *uri, GError **error)
{
    g_autoptr(TransportAddress) address = transport_address_new(uri, true, error);
    TransportListener *listener;

    if (address == NULL)
        return NULL;
    listener = g_new0(TransportListener, 1);
    listener->op.done = poll_done;
    listener->fd = -1;
    if (address->kind == TRANSPORT_ADDRESS_FD ? listen_fd(listener, address, error)
                                              : listen_any(listener, address, error))
        return listener;
    transport_listener_free(listener);
    return NULL;
}

bool
transport_listener_secure(TransportListener *listener, TransportCredentials *credentials,
                          TransportAuthz *authz, GError **error)
{
    if (!transport_check_tls(listener->uri, true, credentials, NULL, authz, error))
        return false;
    listener->arrivals = transport_arrivals_new(credentials, authz);
    return true;
}

const char *
transport_listener_address(const TransportListener *listener)
{
    return listener->uri;
}

void
transport_listener_free(TransportListener *listener)
{
    if (listener == NULL)
        return;
    if ((listener->ring != NULL && !transport_ring_cancel(listener->ring, &listener->op)) ||
        !transport_greetings_free(listener->greetings) ||
        !transport_arrivals_free(listener->arrivals)) {
        g_warning("listener at %s freed by another thread while it waited: its memory is kept",
                  listener->uri);
        remove_path(listener);
        return;
    }
    remove_path(listener);
    if (listener->fd >= 0)
        close(listener->fd);
    g_free(listener->uri);
    g_free(listener);
}

/* ---- Accepting ---- */

static TransportResult
refuse_second(const TransportListener *listener, GError **error)
{
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                "accepting a second link on %s failed: it is one connected socket and in use: "
                "pass a listening socket, or use tcp:HOST:PORT or unix:PATH",
                listener->uri);
    return TRANSPORT_ERROR_RESULT;
}

static TransportResult
accept_connected(TransportListener *listener, TransportRing *ring, TransportLink **ret_link,
                 GError **error)
{
    g_autofree char *refusal = NULL;
    unsigned count_refused;

    if (listener->fd >= 0 && listener->arrivals == NULL) {
        *ret_link = transport_link_new(listener->fd, listener->uri);
        listener->fd = -1;
        return TRANSPORT_OK;
    }
    if (listener->arrivals == NULL)
        return refuse_second(listener, error);
    if (listener->fd >= 0) {
        transport_arrivals_add(listener->arrivals, ring, listener->fd, listener->uri);
        listener->fd = -1;
    } else if (transport_arrivals_is_empty(listener->arrivals)) {
        return refuse_second(listener, error);
    }
    if (transport_arrivals_step(listener->arrivals, ret_link) == TRANSPORT_OK)
        return TRANSPORT_OK;
    if (!transport_arrivals_is_empty(listener->arrivals))
        return TRANSPORT_WAIT;
    /* Nobody else can come. */
    refusal = transport_arrivals_take_refusal(listener->arrivals, true, &count_refused);
    g_set_error_literal(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK,
                        refusal != NULL ? refusal : "TLS failed");
    return TRANSPORT_ERROR_RESULT;
}

static void
arm_poll(TransportListener *listener, TransportRing *ring)
{
    struct io_uring_sqe *sqe = transport_ring_sqe(ring);

    listener->ring = ring;
    io_uring_prep_poll_add(sqe, listener->fd, POLLIN);
    transport_ring_start(ring, &listener->op, sqe);
}

/* A peer that gave up before it was accepted is no error of ours: see accept(2) on such errors. */
static bool
is_passing(int code)
{
    return code == EINTR || code == ECONNABORTED || code == EPROTO || code == ENETDOWN ||
           code == ENETUNREACH || code == EHOSTDOWN || code == EHOSTUNREACH || code == ENONET;
}

/* OK: *ret_fd has connected. WAIT: the ring wakes when somebody does. */
static TransportResult
accept_socket(TransportListener *listener, TransportRing *ring, int *ret_fd, char **ret_name,
              GError **error)
{
    TransportEndpoint peer;
    int fd;

    if (listener->op.is_in_flight)
        transport_ring_reap(ring, &listener->op);
    if (listener->op.is_in_flight)
        return TRANSPORT_WAIT;
    do {
        peer.length = sizeof peer.storage;
        fd = accept4(listener->fd, (struct sockaddr *)&peer.storage, &peer.length, SOCK_CLOEXEC);
    } while (fd < 0 && is_passing(errno));
    if (fd < 0 && errno == EAGAIN) {
        arm_poll(listener, ring);
        return TRANSPORT_WAIT;
    }
    if (fd < 0) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "accepting a link on %s failed: %s: free descriptors or memory (ulimit -n)",
                    listener->uri, g_strerror(errno));
        return TRANSPORT_ERROR_RESULT;
    }
    *ret_fd = fd;
    *ret_name =
        peer.storage.ss_family == AF_UNIX ? g_strdup(listener->uri) : transport_endpoint_uri(&peer);
    return TRANSPORT_OK;
}

/* One for whom nobody waits any more is next. */
static TransportLink *
take_greeting(TransportListener *listener)
{
    return listener->greetings != NULL ? transport_greetings_take(listener->greetings) : NULL;
}

TransportResult
transport_accept(TransportListener *listener, TransportRing *ring, TransportLink **ret_link,
                 GError **error)
{
    TransportResult result;

    if (listener->is_connected)
        return accept_connected(listener, ring, ret_link, error);
    if ((*ret_link = take_greeting(listener)) != NULL)
        return TRANSPORT_OK;
    for (;;) {
        g_autofree char *name = NULL;
        int fd = -1;

        if (listener->arrivals != NULL &&
            transport_arrivals_step(listener->arrivals, ret_link) == TRANSPORT_OK)
            return TRANSPORT_OK;
        result = accept_socket(listener, ring, &fd, &name, error);
        if (result != TRANSPORT_OK)
            return result;
        if (listener->arrivals == NULL) {
            *ret_link = transport_link_new(fd, name);
            return TRANSPORT_OK;
        }
        transport_arrivals_add(listener->arrivals, ring, fd, name);
    }
}

char *
transport_listener_take_refusal(TransportListener *listener, unsigned *ret_count)
{
    if (listener->arrivals != NULL)
        return transport_arrivals_take_refusal(listener->arrivals, false, ret_count);
    return listener->greetings != NULL
               ? transport_greetings_take_refusal(listener->greetings, ret_count)
               : NULL;
}

TransportResult
transport_accept_right(TransportListener *listener, TransportRing *ring, TransportIsRight is_right,
                       TransportLink **ret_link, GError **error)
{
    if (listener->is_connected || listener->arrivals != NULL)
        return transport_accept(listener, ring, ret_link, error);
    if (listener->greetings == NULL)
        listener->greetings = transport_greetings_new(ring);
    for (;;) {
        g_autoptr(GError) cause = NULL;
        g_autofree char *name = NULL;
        int fd = -1;

        /* Looked at after each that comes: a flood must not displace one that has spoken. */
        if (transport_greetings_step(listener->greetings, is_right, ret_link) == TRANSPORT_OK)
            return TRANSPORT_OK;
        TransportResult result = accept_socket(listener, ring, &fd, &name, &cause);
        if (result == TRANSPORT_OK) {
            transport_greetings_add(listener->greetings, fd, name);
        } else if (result == TRANSPORT_WAIT) {
            return result;
        } else if (!transport_greetings_displace(listener->greetings)) {
            g_propagate_error(error, g_steal_pointer(&cause));
            return result;
        }
    }
}

/* ---- Who can come ---- */

bool
transport_listener_is_exposed(const TransportListener *listener)
{
    struct sockaddr_storage bound = {.ss_family = AF_UNSPEC};
    socklen_t length = sizeof bound;

    if (listener->is_connected || listener->arrivals != NULL ||
        getsockname(listener->fd, (struct sockaddr *)&bound, &length) < 0)
        return false;
    return !transport_endpoint_is_local(&bound);
}
