/* SPDX-License-Identifier: MIT */
/*
 * Whether somebody listens at an address, without a connection that the listener would ever see: a
 * destination takes the first one for its source, and fails when that one goes again.
 *
 * tcp: a socket filter on our own socket drops the peer's SYN+ACK and lets a refusal through. The
 * handshake never ends, so accept(2) never has it; that the answer came is seen in the socket's
 * count of drops. unix: a datagram socket that connects to a stream socket is refused as of the
 * wrong type, and by nobody where nobody listens. Source: socket(7) SO_ATTACH_FILTER, sock_diag(7)
 * SK_MEMINFO_DROPS (Linux 4.12), connect(2) EPROTOTYPE. Any thread; blocks.
 */
#include "transport/address.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/sock_diag.h>
#include <poll.h>
#include <unistd.h>

#ifndef SO_MEMINFO
#define SO_MEMINFO 55
#endif

#define PATIENCE_US (3 * G_USEC_PER_SEC)
#define POLL_MS     5

/* Offset 13 of a TCP header: its flags. */
static int
drop_answers(int fd)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 13),          BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0x12),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x12, 0, 1), BPF_STMT(BPF_RET | BPF_K, 0),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
    };
    const struct sock_fprog program = {.len = G_N_ELEMENTS(code), .filter = code};

    return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program);
}

static bool
was_answered(int fd)
{
    uint32_t figures[SK_MEMINFO_VARS] = {0};
    socklen_t length = sizeof figures;

    return getsockopt(fd, SOL_SOCKET, SO_MEMINFO, figures, &length) == 0 &&
           figures[SK_MEMINFO_DROPS] > 0;
}

/* Returns 0 or an errno. */
static int
await_answer(int fd)
{
    int64_t end_us = g_get_monotonic_time() + PATIENCE_US;
    int code = 0;
    socklen_t length = sizeof code;

    while (!was_answered(fd)) {
        struct pollfd state = {.fd = fd, .events = POLLOUT};

        if (poll(&state, 1, POLL_MS) > 0)
            return getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &length) < 0 ? errno
                   : code != 0                                              ? code
                                                                            : EPROTO;
        if (g_get_monotonic_time() > end_us)
            return ETIMEDOUT;
    }
    return 0;
}

static int
knock_tcp(const TransportEndpoint *endpoint)
{
    const struct sockaddr *address = (const struct sockaddr *)&endpoint->storage;
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int code;

    if (fd < 0)
        return errno;
    if (drop_answers(fd) < 0 ||
        (connect(fd, address, endpoint->length) < 0 && errno != EINPROGRESS))
        code = errno;
    else
        code = await_answer(fd);
    close(fd);
    return code;
}

static int
knock_unix(const TransportEndpoint *endpoint)
{
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int code;

    if (fd < 0)
        return errno;
    code = connect(fd, (const struct sockaddr *)&endpoint->storage, endpoint->length) < 0
               ? errno
               : EPROTOTYPE;
    close(fd);
    return code == EPROTOTYPE ? 0 : code;
}

bool
transport_knock(const char *uri, GError **error)
{
    g_autoptr(TransportAddress) address = transport_address_new(uri, false, error);
    g_autoptr(GArray) endpoints = NULL;
    g_autoptr(GString) reasons = g_string_new(NULL);

    if (address == NULL)
        return false;
    if (address->kind == TRANSPORT_ADDRESS_FD) {
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS,
                    "who is behind '%s' shows only when it is used. Give tcp:HOST:PORT or "
                    "unix:PATH to have it tried",
                    uri);
        return false;
    }
    endpoints = transport_address_resolve(address, false, error);
    if (endpoints == NULL)
        return false;
    for (unsigned i = 0; i < endpoints->len; i++) {
        const TransportEndpoint *endpoint = &g_array_index(endpoints, TransportEndpoint, i);
        int code =
            address->kind == TRANSPORT_ADDRESS_UNIX ? knock_unix(endpoint) : knock_tcp(endpoint);

        if (code == 0)
            return true;
        transport_note_failure(reasons, endpoint, code);
    }
    transport_set_unreachable(uri, reasons, error);
    return false;
}
