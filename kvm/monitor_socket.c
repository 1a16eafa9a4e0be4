/* SPDX-License-Identifier: MIT */
/*
 * Opens the sockets of monitor_socket.h. Whoever can reach a QMP socket owns the machine: a unix
 * socket is for its owner only, and tcp is for whom the network lets through. Main thread only;
 * resolving a name and connecting may wait.
 */
#include "kvm/monitor_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATH_LIMIT 107 /* sun_path without its final zero */

/* ---- The address ----------------------------------------------------------------------------- */

static bool
refuse(const char *text, const char *reason, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "--qmp %s: %s; give unix:PATH or tcp:HOST:PORT, with ,connect behind it to connect "
                "instead of listening",
                text, reason);
    return false;
}

static bool
take_option(const char *option, MonitorSocket *server)
{
    static const struct {
        const char *name;
        bool connects;
    } options[] = {
        {"connect", true},    {"server=off", true}, {"server", false},
        {"server=on", false}, {"wait=off", false},  {"nowait", false},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(options); i++) {
        if (!g_str_equal(option, options[i].name))
            continue;
        server->connects |= options[i].connects;
        return true;
    }
    return false;
}

static bool
take_tcp(const char *host_port, MonitorSocket *server)
{
    const char *colon = strrchr(host_port, ':');
    if (!colon || !colon[1])
        return false;
    g_autofree char *host = g_strndup(host_port, (gsize)(colon - host_port));
    size_t length = strlen(host);
    bool is_bracketed = length > 2 && host[0] == '[' && host[length - 1] == ']';
    if (strchr(host, ':') && !is_bracketed)
        return false;
    server->host = is_bracketed ? g_strndup(host + 1, length - 2) : g_strdup(host);
    server->port = g_strdup(colon + 1);
    return true;
}

bool
monitor_socket_parse(const char *text, MonitorSocket *ret_socket, GError **error)
{
    g_auto(GStrv) parts = g_strsplit(text, ",", -1);

    *ret_socket = (MonitorSocket){.fd = -1};
    for (unsigned i = 1; parts[0] && parts[i]; i++)
        if (!take_option(parts[i], ret_socket))
            return refuse(text, "there is no such option", error);
    if (parts[0] && g_str_has_prefix(parts[0], "tcp:")) {
        if (take_tcp(parts[0] + strlen("tcp:"), ret_socket))
            return true;
        return refuse(text, "host and port are not well formed", error);
    }
    if (!parts[0] || !g_str_has_prefix(parts[0], "unix:"))
        return refuse(text, "there is no such kind of socket", error);
    const char *path = parts[0] + strlen("unix:");
    if (!*path || strlen(path) > PATH_LIMIT)
        return refuse(text, "a path has 1 to 107 bytes", error);
    ret_socket->path = g_strdup(path);
    return true;
}

bool
monitor_socket_is_local(const MonitorSocket *server)
{
    const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    bool is_loopback = false;

    if (server->path || !*server->host || g_str_equal(server->host, "localhost"))
        return true;
    if (getaddrinfo(server->host, NULL, &hints, &found) != 0)
        return false;
    if (found->ai_family == AF_INET) {
        const struct sockaddr_in *address = (const void *)found->ai_addr;
        is_loopback = ntohl(address->sin_addr.s_addr) >> IN_CLASSA_NSHIFT == IN_LOOPBACKNET;
    } else if (found->ai_family == AF_INET6) {
        const struct sockaddr_in6 *address = (const void *)found->ai_addr;
        is_loopback = IN6_IS_ADDR_LOOPBACK(&address->sin6_addr);
    }
    freeaddrinfo(found);
    return is_loopback;
}

/* ---- Unix ------------------------------------------------------------------------------------ */

static bool
fail(GError **error, const char *path, const char *reason)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "opening the socket %s: %s; give another address for it", path, reason);
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
listen_unix(MonitorSocket *server, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct stat status;

    g_strlcpy(address.sun_path, server->path, sizeof address.sun_path);
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

static bool
connect_unix(MonitorSocket *server, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    g_strlcpy(address.sun_path, server->path, sizeof address.sun_path);
    server->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server->fd < 0 ||
        connect(server->fd, (const struct sockaddr *)&address, sizeof address) < 0)
        return fail(error, server->path, g_strerror(errno));
    return true;
}

/* ---- TCP ------------------------------------------------------------------------------------- */

static int
open_tcp(const struct addrinfo *info, bool connects)
{
    int on = 1, fd = socket(info->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (!connects)
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int result = connects ? connect(fd, info->ai_addr, info->ai_addrlen)
                          : bind(fd, info->ai_addr, info->ai_addrlen);
    if (result == 0 && !connects)
        result = listen(fd, SOMAXCONN);
    if (result == 0)
        return fd;
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
}

static bool
open_any_tcp(MonitorSocket *server, GError **error)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo *found = NULL;
    const char *host = *server->host ? server->host : "localhost";
    g_autofree char *name = g_strdup_printf("tcp:%s:%s", host, server->port);

    int failed = getaddrinfo(host, server->port, &hints, &found);
    if (failed)
        return fail(error, name, gai_strerror(failed));
    errno = EADDRNOTAVAIL;
    for (const struct addrinfo *info = found; info && server->fd < 0; info = info->ai_next)
        server->fd = open_tcp(info, server->connects);
    int reason = errno;
    freeaddrinfo(found);
    return server->fd >= 0 || fail(error, name, g_strerror(reason));
}

bool
monitor_socket_open(MonitorSocket *server, GError **error)
{
    bool is_open;

    if (!server->path)
        is_open = open_any_tcp(server, error);
    else
        is_open = server->connects ? connect_unix(server, error) : listen_unix(server, error);
    if (is_open)
        fcntl(server->fd, F_SETFL, fcntl(server->fd, F_GETFL) | O_NONBLOCK);
    return is_open;
}

char *
monitor_socket_name(const MonitorSocket *server)
{
    struct sockaddr_storage address;
    socklen_t length = sizeof address;
    char host[NI_MAXHOST], port[NI_MAXSERV];

    if (server->path || server->connects || server->fd < 0 ||
        getsockname(server->fd, (struct sockaddr *)&address, &length) < 0 ||
        getnameinfo((struct sockaddr *)&address, length, host, sizeof host, port, sizeof port,
                    NI_NUMERICHOST | NI_NUMERICSERV) != 0)
        return NULL;
    return g_strdup_printf(strchr(host, ':') ? "tcp:[%s]:%s" : "tcp:%s:%s", host, port);
}

void
monitor_socket_clear(MonitorSocket *server)
{
    struct stat status;

    if (server->fd >= 0)
        close(server->fd);
    if (server->inode && lstat(server->path, &status) == 0 && status.st_dev == server->device &&
        status.st_ino == server->inode)
        unlink(server->path);
    g_free(server->path);
    g_free(server->host);
    g_free(server->port);
    *server = (MonitorSocket){.fd = -1};
}
