/* SPDX-License-Identifier: MIT */
/*
 * Links: a connected socket that the two threads of its halves, and whoever may end it, share.
 *
 * Any thread. The descriptor is closed with the last reference only, so that its number cannot come
 * to mean another file while some thread still has an operation on it.
 */
#include "transport/link.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

void
transport_link_make_blocking(int fd)
{
    int flags = fcntl(fd, F_GETFL);

    if (flags >= 0 && (flags & O_NONBLOCK) != 0)
        fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
}

/* A host that vanished is found out after KEEP_IDLE_S + KEEP_PROBES * KEEP_INTERVAL_S seconds: by
 * whoever only receives, and from a peer without a heartbeat. */
#define KEEP_IDLE_S     60
#define KEEP_INTERVAL_S 15
#define KEEP_PROBES     6

static void
set_option(int fd, int level, int name, int value)
{
    setsockopt(fd, level, name, &value, sizeof value);
}

static void
set_up_tcp(int fd)
{
    /* A requested page must not wait for the acknowledgement of the one before. */
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, KEEP_IDLE_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, KEEP_INTERVAL_S);
    set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, KEEP_PROBES);
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
}

TransportLink *
transport_link_new(int fd, const char *name)
{
    TransportLink *link = g_new0(TransportLink, 1);
    int domain = AF_UNSPEC;
    socklen_t size = sizeof domain;

    transport_link_make_blocking(fd);
    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
    if (domain == AF_INET || domain == AF_INET6)
        set_up_tcp(fd);
    link->fd = fd;
    link->name = g_strdup(name);
    link->count_references = 1;
    return link;
}

TransportLink *
transport_link_ref(TransportLink *link)
{
    __atomic_add_fetch(&link->count_references, 1, __ATOMIC_RELAXED);
    return link;
}

void
transport_link_unref(TransportLink *link)
{
    /* Each release pairs with the acquire of the last one: all use comes before the close. */
    if (link == NULL || __atomic_sub_fetch(&link->count_references, 1, __ATOMIC_ACQ_REL) != 0)
        return;
    transport_session_free(link->session);
    close(link->fd);
    g_free(link->name);
    g_free(link);
}

/* ---- What waits in the kernel ---------------------------------------------------------------- */

#define UNSENT_BYTES_MAX (128 * 1024)
#define UNREAD_BYTES_MIN (384 * 1024)
#define BYTES_PER_US     3000u /* 24 Gbit/s of a round trip's time */
#define ROUND_TRIP_US    1000u /* from here on the queue is the network's, not ours */

/* The window, not the receive buffer: what is on its way when a buffer gets smaller may find no
 * room and be dropped, and a page in it comes a retransmission later, after 200 ms. */
void
transport_link_shorten_queue(TransportLink *link)
{
    struct tcp_info info;
    socklen_t size = sizeof info;
    int unsent = UNSENT_BYTES_MAX;

    if (getsockopt(link->fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0)
        return;
    setsockopt(link->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof unsent);
    if (info.tcpi_rtt >= ROUND_TRIP_US)
        return;
    int unread = (int)MAX(UNREAD_BYTES_MIN, info.tcpi_rtt * BYTES_PER_US);
    setsockopt(link->fd, IPPROTO_TCP, TCP_WINDOW_CLAMP, &unread, sizeof unread);
}

void
transport_link_shutdown(TransportLink *link)
{
    /* ENOTCONN: the peer was first, which is as good. */
    shutdown(link->fd, SHUT_RDWR);
}
