/* SPDX-License-Identifier: MIT */
/*
 * Unix sockets for QMP on the GLib main loop. A client that does not read what it gets is closed
 * when OUTPUT_LIMIT_BYTES wait for it: nothing here ever blocks the main loop, and so the machine.
 * Main thread only. What the bytes mean is left to the engine's monitor.
 */
#include "kvm/monitor_server.h"

#include <errno.h>
#include <glib-unix.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define OUTPUT_LIMIT_BYTES (1u << 20)
#define INPUT_BYTES        4096
#define CLIENTS_MAX        64
#define LAST_WRITE_MS      200

typedef struct Client {
    MonitorServer *server;
    FaultlineSession *session;
    GByteArray *output; /* not taken by the socket yet */
    int fd;
    guint read_source, write_source, close_source; /* 0: none */
} Client;

struct MonitorServer {
    FaultlineMonitor *monitor;
    GPtrArray *clients;
    char *path;
    int fd;
    guint accept_source;
    dev_t device; /* of the socket we made, so that only that one is removed */
    ino_t inode;
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

static gboolean
read_ready(gint fd, GIOCondition condition, gpointer data)
{
    Client *client = data;
    char bytes[INPUT_BYTES];
    (void)condition;

    ssize_t got = recv(fd, bytes, sizeof bytes, MSG_DONTWAIT);
    if (got < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return G_SOURCE_CONTINUE;
    if (got > 0 && faultline_session_feed(client->session, bytes, (size_t)got))
        return client->read_source ? G_SOURCE_CONTINUE : G_SOURCE_REMOVE;
    client->read_source = 0;
    close_client_soon(client);
    return G_SOURCE_REMOVE;
}

static gboolean
accept_ready(gint fd, GIOCondition condition, gpointer data)
{
    MonitorServer *server = data;
    (void)condition;

    int client_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (client_fd < 0)
        return G_SOURCE_CONTINUE;
    if (server->clients->len >= CLIENTS_MAX) {
        close(client_fd);
        return G_SOURCE_CONTINUE;
    }

    Client *client = g_new0(Client, 1);
    client->server = server;
    client->fd = client_fd;
    client->output = g_byte_array_new();
    g_ptr_array_add(server->clients, client);
    client->session = faultline_session_new(server->monitor, write_client, client);
    if (client->session && !client->close_source)
        client->read_source = g_unix_fd_add(client_fd, G_IO_IN, read_ready, client);
    else
        close_client_soon(client);
    return G_SOURCE_CONTINUE;
}

static bool
fail(GError **error, const char *path, const char *reason)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "opening the QMP socket %s: %s; give another path by --qmp", path, reason);
    return false;
}

/* Makes room for a socket at path: removes one that refuses connections, as its owner is gone. */
static bool
remove_stale(const struct sockaddr_un *address, GError **error)
{
    const char *path = address->sun_path;
    struct stat status;

    if (lstat(path, &status) < 0)
        return errno == ENOENT ? true : fail(error, path, g_strerror(errno));
    if (!S_ISSOCK(status.st_mode))
        return fail(error, path, "there is a file that is no socket");

    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return fail(error, path, g_strerror(errno));
    int result = connect(fd, (const struct sockaddr *)address, sizeof *address);
    int reason = errno;
    close(fd);
    if (result == 0 || reason == EAGAIN)
        return fail(error, path, "another process listens there");
    if (reason != ECONNREFUSED)
        return fail(error, path, g_strerror(reason));
    if (unlink(path) < 0 && errno != ENOENT)
        return fail(error, path, g_strerror(errno));
    return true;
}

static bool
listen_at(MonitorServer *server, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    if (g_strlcpy(address.sun_path, server->path, sizeof address.sun_path) >=
        sizeof address.sun_path)
        return fail(error, server->path, "the path is longer than 107 bytes");
    if (!remove_stale(&address, error))
        return false;
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    /* Linux gives the new file the mode of the unbound socket: it is never open to others. */
    if (server->fd < 0 || fchmod(server->fd, 0600) < 0 ||
        bind(server->fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return fail(error, server->path, g_strerror(errno));
    if (lstat(server->path, &status) == 0) {
        server->device = status.st_dev;
        server->inode = status.st_ino;
    }
    if (listen(server->fd, SOMAXCONN) < 0)
        return fail(error, server->path, g_strerror(errno));
    return true;
}

MonitorServer *
monitor_server_new(FaultlineMonitor *monitor, const char *path, GError **error)
{
    MonitorServer *server = g_new0(MonitorServer, 1);

    server->monitor = monitor;
    server->path = g_strdup(path);
    server->fd = -1;
    server->clients = g_ptr_array_new_with_free_func((GDestroyNotify)client_free);
    if (!listen_at(server, error)) {
        monitor_server_free(server);
        return NULL;
    }
    server->accept_source = g_unix_fd_add(server->fd, G_IO_IN, accept_ready, server);
    return server;
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
    struct stat status;

    drop_source(&server->accept_source);
    for (guint i = 0; i < server->clients->len; i++)
        send_rest(g_ptr_array_index(server->clients, i));
    g_ptr_array_unref(server->clients);
    if (server->fd >= 0)
        close(server->fd);
    if (server->inode && lstat(server->path, &status) == 0 && status.st_dev == server->device &&
        status.st_ino == server->inode)
        unlink(server->path);
    g_free(server->path);
    g_free(server);
}
