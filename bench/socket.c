/* SPDX-License-Identifier: MIT */
/*
 * Plain connections for what the engine is compared with. Each side runs in its own process.
 */
#include "bench/clock.h"
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

/* Listens, and tells the other side where. */
static int
listen_and_tell(bool is_unix, const Netns *netns, int link_fd, Address *ret_address, GError **error)
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
    *ret_address = address;
    return listener;
}

static void
stop_listening(int listener, const Address *address)
{
    close(listener);
    if (address->is.ss_family == AF_UNIX)
        unlink(((const struct sockaddr_un *)&address->is)->sun_path);
}

static int
connect_to(const Address *address, GError **error)
{
    int fd = socket(address->is.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)&address->is, address->length) < 0)
        return fail(fd, "connect", error);
    be_quick(fd, address->is.ss_family == AF_UNIX);
    return fd;
}

int
bench_socket_accept(bool is_unix, const Netns *netns, int link_fd, GError **error)
{
    Address address;
    int listener = listen_and_tell(is_unix, netns, link_fd, &address, error);

    if (listener < 0)
        return -1;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return fail(listener, "accept", error);
    stop_listening(listener, &address);
    be_quick(fd, is_unix);
    return fd;
}

int
bench_socket_connect(bool is_unix, const Netns *netns, int link_fd, GError **error)
{
    Address address;
    (void)is_unix;
    (void)netns;

    if (recv(link_fd, &address, sizeof address, MSG_WAITALL) != sizeof address)
        return fail(-1, "learn the address", error);
    return connect_to(&address, error);
}

/* ---- Pages, each over a connection of its own ------------------------------------------------ */

bool
bench_socket_answer_pages(const FloorPlan *plan, int link_fd, GError **error)
{
    char request[FLOOR_REQUEST_BYTES], page[FAULTLINE_PAGE_BYTES] = {1};
    Address address;
    int listener = listen_and_tell(plan->is_unix, plan->netns, link_fd, &address, error);
    uint64_t count = 0;

    if (listener < 0)
        return false;
    for (bool good = true; good && count < plan->count; count += good) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        good = fd >= 0 && recv(fd, request, sizeof request, MSG_WAITALL) == sizeof request &&
               send(fd, page, sizeof page, MSG_NOSIGNAL) == sizeof page;
        if (fd >= 0)
            close(fd);
    }
    if (count < plan->count)
        fail(-1, "answer", error);
    stop_listening(listener, &address);
    return count == plan->count;
}

bool
bench_socket_ask_pages(const FloorPlan *plan, int link_fd, double *us, GError **error)
{
    const char request[FLOOR_REQUEST_BYTES] = {0};
    char page[FAULTLINE_PAGE_BYTES];
    Address address;

    if (recv(link_fd, &address, sizeof address, MSG_WAITALL) != sizeof address)
        return fail(-1, "learn the address", error) >= 0;
    for (uint64_t i = 0; i < plan->count; i++) {
        uint64_t begin_ns = bench_now_ns();
        int fd = connect_to(&address, error);
        if (fd < 0)
            return false;
        if (send(fd, request, sizeof request, MSG_NOSIGNAL) != sizeof request ||
            recv(fd, page, sizeof page, MSG_WAITALL) != sizeof page)
            return fail(fd, "ask", error) >= 0;
        us[i] = (double)(bench_now_ns() - begin_ns) * 1e-3;
        close(fd);
    }
    return true;
}
