/* SPDX-License-Identifier: MIT */
/*
 * Plain connections for what the engine is compared with. Each side runs in its own process.
 */
#include "bench/floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct Address {
    socklen_t length;
    struct sockaddr_storage is;
} Address;

static int
fail(int fd, const char *what, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "plain socket: %s: %s", what,
                g_strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}

static Address
first_address(bool is_unix, const Netns *netns)
{
    Address address = {0};

    if (is_unix) {
        struct sockaddr_un *local = (struct sockaddr_un *)&address.is;
        g_autofree char *path = move_socket_path();
        local->sun_family = AF_UNIX;
        g_strlcpy(local->sun_path, path, sizeof local->sun_path);
        address.length = sizeof *local;
    } else {
        struct sockaddr_in *inet = (struct sockaddr_in *)&address.is;
        inet->sin_family = AF_INET;
        inet_pton(AF_INET, move_host(netns), &inet->sin_addr);
        address.length = sizeof *inet;
    }
    return address;
}

static void
be_quick(int fd, bool is_unix)
{
    const int on = 1;
    if (!is_unix)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

int
bench_socket_accept(bool is_unix, const Netns *netns, int link_fd, GError **error)
{
    Address address = first_address(is_unix, netns);
    int listener = socket(address.is.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (listener < 0)
        return fail(listener, "socket", error);
    if (bind(listener, (struct sockaddr *)&address.is, address.length) < 0 ||
        listen(listener, 1) < 0)
        return fail(listener, "listen", error);
    address.length = sizeof address.is;
    if (!is_unix)
        getsockname(listener, (struct sockaddr *)&address.is, &address.length);
    else
        address.length = sizeof(struct sockaddr_un);
    if (send(link_fd, &address, sizeof address, MSG_NOSIGNAL) != sizeof address)
        return fail(listener, "tell the address", error);
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return fail(listener, "accept", error);
    close(listener);
    if (is_unix)
        unlink(((struct sockaddr_un *)&address.is)->sun_path);
    be_quick(fd, is_unix);
    return fd;
}

int
bench_socket_connect(bool is_unix, const Netns *netns, int link_fd, GError **error)
{
    Address address;
    (void)netns;

    if (recv(link_fd, &address, sizeof address, MSG_WAITALL) != sizeof address)
        return fail(-1, "learn the address", error);
    int fd = socket(address.is.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address.is, address.length) < 0)
        return fail(fd, "connect", error);
    be_quick(fd, is_unix);
    return fd;
}
