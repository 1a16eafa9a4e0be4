/* SPDX-License-Identifier: MIT */
/*
 * QMP's clients on the GLib main loop: bytes, and descriptors that come with them. A client that
 * does not read what it gets is closed when OUTPUT_LIMIT_BYTES wait for it: nothing here ever
 * blocks the main loop, and so the machine. Main thread only. What the bytes mean is left to the
 * engine's monitor, the sockets to monitor_socket.c.
 */
#include "kvm/monitor_server.h"
#include "kvm/monitor_socket.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define OUTPUT_LIMIT_BYTES (1u << 20)
#define INPUT_BYTES        4096
#define CLIENTS_MAX        64
#define FDS_MAX            16 /* that came and nobody took yet; further ones are closed */
#define LAST_WRITE_MS      200

typedef struct Client {
    MonitorServer *server;
    FaultlineSession *session;
    GByteArray *output; /* not taken by the socket yet */
    int fd;
    int fds[FDS_MAX]; /* oldest first */
    unsigned count_fds;
    guint read_source, write_source, close_source; /* 0: none */
} Client;

struct MonitorServer {
    FaultlineMonitor *monitor;
    GPtrArray *clients;
    MonitorSocket socket;
    guint accept_source;
};

static void
drop_source(guint *source)
{
    if (*source)
        g_source_remove(*source);
    *source = 0;
}

static void
client_free(Client *client)
{
    drop_source(&client->read_source);
    drop_source(&client->write_source);
    drop_source(&client->close_source);
    if (client->session)
        faultline_session_free(client->session);
    g_byte_array_unref(client->output);
    for (unsigned i = 0; i < client->count_fds; i++)
        close(client->fds[i]);
    close(client->fd);
    g_free(client);
}

static gboolean
close_client(gpointer data)
{
    Client *client = data;

    client->close_source = 0;
    g_ptr_array_remove_fast(client->server->clients, client);
    return G_SOURCE_REMOVE;
}

/* Closes it from the main loop: the session may be on the stack just now. */
static void
close_client_soon(Client *client)
{
    drop_source(&client->read_source);
    if (!client->close_source)
        client->close_source = g_idle_add(close_client, client);
}

/* Sends what the socket takes; false when the client is gone. */
static bool
send_output(Client *client)
{
    while (client->output->len) {
        ssize_t sent = send(client->fd, client->output->data, client->output->len,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        g_byte_array_remove_range(client->output, 0, (guint)sent);
    }
    return true;
}

static gboolean
write_ready(gint fd, GIOCondition condition, gpointer data)
{
    Client *client = data;
    (void)fd;
    (void)condition;

    if (!send_output(client))
        close_client_soon(client);
    else if (client->output->len)
        return G_SOURCE_CONTINUE;
    client->write_source = 0;
    return G_SOURCE_REMOVE;
}

static bool
write_client(void *opaque, const char *bytes, size_t length_bytes)
{
    Client *client = opaque;

    if (client->close_source)
        return false;
    if (length_bytes > OUTPUT_LIMIT_BYTES - client->output->len) {
        close_client_soon(client);
        return false;
    }
    g_byte_array_append(client->output, (const guint8 *)bytes, (guint)length_bytes);
    if (!send_output(client)) {
        close_client_soon(client);
        return false;
    }
    if (client->output->len && !client->write_source)
        client->write_source = g_unix_fd_add(client->fd, G_IO_OUT, write_ready, client);
    return true;
}

/* ---- What comes in --------------------------------------------------------------------------- */

static int
take_fd(void *opaque)
{
    Client *client = opaque;

    if (!client->count_fds)
        return -1;
    int fd = client->fds[0];
    client->count_fds--;
    memmove(client->fds, client->fds + 1, client->count_fds * sizeof client->fds[0]);
    return fd;
}

static void
keep_fds(Client *client, struct msghdr *message)
{
    for (struct cmsghdr *part = CMSG_FIRSTHDR(message); part; part = CMSG_NXTHDR(message, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < count; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(part) + i * sizeof fd, sizeof fd);
            if (client->count_fds < FDS_MAX)
                client->fds[client->count_fds++] = fd;
            else
                close(fd);
        }
    }
}

static ssize_t
receive(Client *client, char bytes[INPUT_BYTES])
{
    union {
        char bytes[CMSG_SPACE(FDS_MAX * sizeof(int))];
        struct cmsghdr header; /* for its alignment */
    } control;
    struct iovec span = {.iov_base = bytes, .iov_len = INPUT_BYTES};
    struct msghdr message = {.msg_iov = &span,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};

    ssize_t got = recvmsg(client->fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (got >= 0)
        keep_fds(client, &message);
    return got;
}

static gboolean
read_ready(gint fd, GIOCondition condition, gpointer data)
{
    Client *client = data;
    char bytes[INPUT_BYTES];
    (void)fd;
    (void)condition;

    ssize_t got = receive(client, bytes);
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return G_SOURCE_CONTINUE;
    if (got > 0 && faultline_session_feed(client->session, bytes, (size_t)got))
        return client->read_source ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
    client->read_source = 0;
    close_client_soon(client);
    return G_SOURCE_REMOVE;
}

/* ---- Clients come ---------------------------------------------------------------------------- */

static void
add_client(MonitorServer *server, int fd)
{
    Client *client = g_new0(Client, 1);

    client->server = server;
    client->fd = fd;
    client->output = g_byte_array_new();
    g_ptr_array_add(server->clients, client);
    client->session = faultline_session_new(server->monitor, write_client, client);
    faultline_session_accept_fds(client->session, take_fd);
    if (!client->close_source)
        client->read_source = g_unix_fd_add(fd, G_IO_IN, read_ready, client);
}

static gboolean
accept_ready(gint fd, GIOCondition condition, gpointer data)
{
    MonitorServer *server = data;
    (void)condition;

    int client_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client_fd >= 0 && server->clients->len >= CLIENTS_MAX)
        close(client_fd);
    else if (client_fd >= 0)
        add_client(server, client_fd);
    return G_SOURCE_CONTINUE;
}

MonitorServer *
monitor_server_new(FaultlineMonitor *monitor, const char *address, GError **error)
{
    MonitorServer *server = g_new0(MonitorServer, 1);

    server->monitor = monitor;
    server->clients = g_ptr_array_new_with_free_func((GDestroyNotify)client_free);
    if (!monitor_socket_parse(address, &server->socket, error) ||
        !monitor_socket_open(&server->socket, error)) {
        monitor_server_free(server);
        return NULL;
    }
    if (server->socket.connects) {
        add_client(server, server->socket.fd);
        server->socket.fd = -1; /* the client's now */
    } else {
        server->accept_source = g_unix_fd_add(server->socket.fd, G_IO_IN, accept_ready, server);
    }
    return server;
}

char *
monitor_server_name(const MonitorServer *server)
{
    return monitor_socket_name(&server->socket);
}

static void
send_rest(Client *client)
{
    struct pollfd wait = {.fd = client->fd, .events = POLLOUT};

    while (send_output(client) && client->output->len)
        if (poll(&wait, 1, LAST_WRITE_MS) <= 0)
            return;
}

void
monitor_server_free(MonitorServer *server)
{
    drop_source(&server->accept_source);
    for (guint i = 0; i < server->clients->len; i++)
        send_rest(g_ptr_array_index(server->clients, i));
    g_ptr_array_unref(server->clients);
    monitor_socket_clear(&server->socket);
    g_free(server);
}
