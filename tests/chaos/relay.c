/* SPDX-License-Identifier: MIT */
/* See relay.h: connections, passing, the relay's thread. How a strike acts: relay_strike.c. */
#include "tests/chaos/relay_pipe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define POLL_MS    1000
#define MAX_POLLED (2 + 2 * RELAY_CONNECTIONS)

typedef union Address {
    struct sockaddr any;
    struct sockaddr_in tcp;
    struct sockaddr_un local;
} Address;

static socklen_t
parse(const char *uri, Address *ret_address)
{
    memset(ret_address, 0, sizeof *ret_address);
    if (g_str_has_prefix(uri, "unix:")) {
        ret_address->local.sun_family = AF_UNIX;
        g_strlcpy(ret_address->local.sun_path, uri + 5, sizeof ret_address->local.sun_path);
        return sizeof ret_address->local;
    }
    ret_address->tcp.sin_family = AF_INET;
    ret_address->tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ret_address->tcp.sin_port = htons((uint16_t)atoi(strrchr(uri, ':') + 1));
    return sizeof ret_address->tcp;
}

static void
prepare(const Relay *relay, int fd, bool is_tcp)
{
    int one = 1, bytes = (int)relay->queue_bytes;

    if (is_tcp)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (bytes)
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof bytes);
}

static void
open_pipe(RelayPipe *pipe, int from, int to)
{
    *pipe = (RelayPipe){.from = from, .to = to, .bytes = g_malloc(RELAY_BUFFER)};
}

static void
accept_one(Relay *relay)
{
    int here = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    Address address;

    if (here < 0)
        return;
    socklen_t length = parse(relay->target, &address);
    bool is_tcp = address.any.sa_family == AF_INET;
    int there = socket(address.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (relay->count == RELAY_CONNECTIONS || connect(there, &address.any, length) != 0) {
        close(here);
        close(there);
        return;
    }
    g_unix_set_fd_nonblocking(there, TRUE, NULL);
    prepare(relay, here, is_tcp);
    prepare(relay, there, is_tcp);
    RelayConnection *connection = &relay->connections[relay->count];
    *connection = (RelayConnection){.index = relay->count - relay->first};
    open_pipe(&connection->ways[RELAY_THERE], here, there);
    open_pipe(&connection->ways[RELAY_BACK], there, here);
    relay->count++;
}

void
relay_connection_close(RelayConnection *connection, bool reset)
{
    struct linger at_once = {.l_onoff = 1};

    if (connection->is_closed)
        return;
    connection->is_closed = true;
    for (int way = 0; way < 2; way++) {
        RelayPipe *pipe = &connection->ways[way];
        if (reset)
            setsockopt(pipe->from, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(pipe->from);
        g_clear_pointer(&pipe->bytes, g_free);
    }
}

/* ---- Passing --------------------------------------------------------------------------------- */

static void
read_more(Relay *relay, RelayConnection *connection, RelayPipe *pipe)
{
    ssize_t count = recv(pipe->from, pipe->bytes, RELAY_BUFFER, 0);

    if (count < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (count <= 0) {
        if (count < 0)
            relay_connection_close(connection, true);
        else
            pipe->has_ended = true;
        return;
    }
    pipe->start = 0;
    pipe->length = (size_t)count;
    relay_strike_look(relay, connection, pipe);
}

static size_t
may_write(const Relay *relay, const RelayPipe *pipe, int64_t now_us)
{
    if (now_us < pipe->hold_until_us || pipe->hangs)
        return 0;
    size_t count = pipe->length;
    if (pipe->has_mark)
        count = MIN(count, pipe->mark);
    if (pipe->split_bytes)
        return MIN(count, 1 + pipe->split_bytes % 7);
    return relay->pace_bytes ? MIN(count, relay->pace_bytes) : count;
}

static void
note_written(const Relay *relay, RelayPipe *pipe, size_t count, int64_t now_us)
{
    pipe->start += count;
    pipe->length -= count;
    pipe->passed += count;
    if (pipe->has_mark)
        pipe->mark -= count;
    if (pipe->split_bytes)
        pipe->split_bytes -= (unsigned)MIN(count, pipe->split_bytes);
    else if (relay->pace_bytes)
        pipe->hold_until_us = now_us + 1000;
}

/* Writes what may be written; what stands at the mark is struck when everything before has gone. */
static void
write_some(Relay *relay, RelayConnection *connection, RelayPipe *pipe, int64_t now_us)
{
    size_t count = may_write(relay, pipe, now_us);

    if (count) {
        ssize_t sent = send(pipe->to, pipe->bytes + pipe->start, count, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR)
            relay_connection_close(connection, true);
        if (sent <= 0)
            return;
        note_written(relay, pipe, (size_t)sent, now_us);
    }
    if (pipe->has_mark && pipe->mark == 0)
        relay_strike_at_mark(relay, connection, pipe);
}

/* An end is passed on when all before it was; both ends, and the connection is over. */
static void
pass_end(RelayConnection *connection)
{
    bool both = true;

    for (int way = 0; way < 2; way++) {
        RelayPipe *pipe = &connection->ways[way];
        if (pipe->has_ended && !pipe->length && !pipe->hangs && !pipe->told_end) {
            shutdown(pipe->to, SHUT_WR);
            pipe->told_end = true;
        }
        both = both && pipe->told_end;
    }
    if (both)
        relay_connection_close(connection, false);
}

/* ---- The thread ------------------------------------------------------------------------------ */

static short
want_of(const RelayConnection *connection, RelayWay way, const Relay *relay, int64_t now_us)
{
    const RelayPipe *in = &connection->ways[way], *out = &connection->ways[!way];
    short events = 0;

    if (!in->length && !in->has_ended && !in->hangs)
        events |= POLLIN;
    if (out->length && may_write(relay, out, now_us))
        events |= POLLOUT;
    return events;
}

/* Sockets that nothing is wanted of are left out: a closed peer would wake us for ever. */
static unsigned
gather(Relay *relay, struct pollfd *polled, int64_t now_us)
{
    unsigned count = 0;

    polled[count++] = (struct pollfd){.fd = relay->wake, .events = POLLIN};
    polled[count++] = (struct pollfd){.fd = relay->listener, .events = POLLIN};
    for (unsigned i = 0; i < relay->count; i++) {
        for (int way = 0; way < 2 && !relay->connections[i].is_closed; way++) {
            short events = want_of(&relay->connections[i], way, relay, now_us);
            if (events)
                polled[count++] =
                    (struct pollfd){.fd = relay->connections[i].ways[way].from, .events = events};
        }
    }
    return count;
}

static int
sleep_ms(const Relay *relay, int64_t now_us)
{
    int64_t next_us = now_us + POLL_MS * 1000;

    if (relay->is_armed && relay->limit_us)
        next_us = MIN(next_us, MAX(relay->limit_us, now_us + 1000));
    for (unsigned i = 0; i < relay->count; i++)
        for (int way = 0; way < 2 && !relay->connections[i].is_closed; way++) {
            const RelayPipe *pipe = &relay->connections[i].ways[way];
            if (pipe->length && pipe->hold_until_us > now_us)
                next_us = MIN(next_us, pipe->hold_until_us);
        }
    return (int)MAX(0, (next_us - now_us + 999) / 1000);
}

static void
work_connection(Relay *relay, RelayConnection *connection, int64_t now_us)
{
    for (int way = 0; way < 2 && !connection->is_closed; way++) {
        RelayPipe *pipe = &connection->ways[way];
        if (!pipe->length && !pipe->has_ended && !pipe->hangs)
            read_more(relay, connection, pipe);
        if (!connection->is_closed && (pipe->length || pipe->has_mark))
            write_some(relay, connection, pipe, now_us);
    }
    if (!connection->is_closed)
        pass_end(connection);
}

static void *
work(void *opaque)
{
    Relay *relay = opaque;
    struct pollfd polled[MAX_POLLED];

    g_mutex_lock(&relay->lock);
    while (!relay->is_ending) {
        int64_t now_us = g_get_monotonic_time();
        unsigned count = gather(relay, polled, now_us);
        int timeout_ms = sleep_ms(relay, now_us);
        uint64_t woken;

        g_mutex_unlock(&relay->lock);
        poll(polled, count, timeout_ms);
        g_mutex_lock(&relay->lock);
        if (polled[0].revents && read(relay->wake, &woken, sizeof woken) < 0)
            break;
        if (polled[1].revents)
            accept_one(relay);
        relay_strike_when_late(relay);
        now_us = g_get_monotonic_time();
        for (unsigned i = 0; i < relay->count; i++)
            if (!relay->connections[i].is_closed)
                work_connection(relay, &relay->connections[i], now_us);
    }
    g_mutex_unlock(&relay->lock);
    return NULL;
}

void
relay_wake(Relay *relay)
{
    uint64_t one = 1;

    if (write(relay->wake, &one, sizeof one) < 0)
        g_error("relay: eventfd: %s", g_strerror(errno));
}

/* ---- For others ------------------------------------------------------------------------------ */

Relay *
relay_new(const char *target, const char *directory, unsigned queue_bytes)
{
    static unsigned count_made;
    bool is_unix = g_str_has_prefix(target, "unix:");
    g_autofree char *path =
        is_unix ? g_strdup_printf("unix:%s/relay-%u", directory, count_made++) : NULL;
    Relay *relay = g_new0(Relay, 1);
    Address own;
    socklen_t length = parse(is_unix ? path : "tcp:127.0.0.1:0", &own);

    relay->target = g_strdup(target);
    relay->queue_bytes = queue_bytes;
    relay->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    relay->listener = socket(own.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (queue_bytes) /* those of its connections are the same */
        setsockopt(relay->listener, SOL_SOCKET, SO_RCVBUF, &queue_bytes, sizeof queue_bytes);
    if (bind(relay->listener, &own.any, length) != 0 || listen(relay->listener, 8) != 0)
        g_error("relay: cannot listen: %s", g_strerror(errno));
    getsockname(relay->listener, &own.any, &length);
    relay->uri = is_unix ? g_steal_pointer(&path)
                         : g_strdup_printf("tcp:127.0.0.1:%u", ntohs(own.tcp.sin_port));
    g_mutex_init(&relay->lock);
    relay->thread = g_thread_new("relay", work, relay);
    return relay;
}

const char *
relay_uri(const Relay *relay)
{
    return relay->uri;
}

void
relay_pace(Relay *relay, unsigned chunk_bytes)
{
    g_mutex_lock(&relay->lock);
    relay->pace_bytes = chunk_bytes;
    g_mutex_unlock(&relay->lock);
    relay_wake(relay);
}

void
relay_cut(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    for (unsigned i = 0; i < relay->count; i++)
        relay_connection_close(&relay->connections[i], true);
    relay->first = relay->count;
    g_mutex_unlock(&relay->lock);
    relay_wake(relay);
}

char *
relay_describe(Relay *relay)
{
    GString *text = g_string_new(NULL);

    g_mutex_lock(&relay->lock);
    for (unsigned i = 0; i < relay->count; i++) {
        const RelayConnection *connection = &relay->connections[i];
        g_string_append_printf(
            text, "%s%s %" G_GUINT64_FORMAT " there, %" G_GUINT64_FORMAT " back%s", i ? "; " : "",
            connection->index ? "urgent" : "main", connection->ways[RELAY_THERE].passed,
            connection->ways[RELAY_BACK].passed, connection->is_closed ? " (closed)" : "");
    }
    g_mutex_unlock(&relay->lock);
    return g_string_free(text, FALSE);
}

void
relay_free(Relay *relay)
{
    if (!relay)
        return;
    relay_cut(relay);
    g_mutex_lock(&relay->lock);
    relay->is_ending = true;
    g_mutex_unlock(&relay->lock);
    relay_wake(relay);
    g_thread_join(relay->thread);
    close(relay->listener);
    close(relay->wake);
    if (g_str_has_prefix(relay->uri, "unix:"))
        unlink(relay->uri + 5);
    g_mutex_clear(&relay->lock);
    g_free(relay->uri);
    g_free(relay->target);
    g_free(relay);
}
