/* SPDX-License-Identifier: MIT */
/*
 * The far end of the serial port: stdio, a file, or one client of a unix socket. Sends run on vCPU
 * threads under the port's lock, everything else on the port's input thread; the port's state is
 * serial.c's.
 */
#include "kvm/serial_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/faultline.h"

static bool
open_file(SerialBackend *backend, const char *path, GError **error)
{
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot open %s for the serial port: %s", path, g_strerror(errno));
        return false;
    }
    backend->owns_fd = true;
    backend->out_fd = fd;
    return true;
}

/* At a socket of a process that is gone nobody listens. */
static bool
is_stale(const struct sockaddr_un *address)
{
    struct stat old;

    if (lstat(address->sun_path, &old) < 0 || !S_ISSOCK(old.st_mode))
        return false;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    bool is_refused = fd >= 0 &&
                      connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 &&
                      errno == ECONNREFUSED;
    if (fd >= 0)
        close(fd);
    return is_refused;
}

static bool
open_unix(SerialBackend *backend, const char *path, GError **error)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot listen for the serial port at %s: the path is longer than %zu bytes",
                    path, sizeof address.sun_path - 1);
        return false;
    }
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (is_stale(&address))
        unlink(path);
    /* Linux gives the new file the mode of the unbound socket: it is never open to others. */
    if (fd < 0 || fchmod(fd, 0600) < 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof address) < 0 || listen(fd, 1) < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot listen for the serial port at %s: %s; give another path", path,
                    g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    backend->owns_fd = true;
    backend->listen_fd = fd;
    backend->path = g_strdup(path);
    return true;
}

bool
serial_backend_open(SerialBackend *backend, const char *where, GError **error)
{
    *backend = (SerialBackend){.listen_fd = -1, .out_fd = -1, .in_fd = -1};
    if (where == NULL || strcmp(where, "none") == 0)
        return true;
    if (strcmp(where, "stdio") == 0) {
        backend->out_fd = STDOUT_FILENO;
        backend->in_fd = STDIN_FILENO;
        return true;
    }
    if (g_str_has_prefix(where, "file:") && where[5])
        return open_file(backend, where + 5, error);
    if (g_str_has_prefix(where, "unix:") && where[5])
        return open_unix(backend, where + 5, error);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "Unknown place for the serial port: %s (say stdio, file:PATH, unix:PATH or none)",
                where);
    return false;
}

void
serial_backend_close(SerialBackend *backend)
{
    if (backend->owns_fd) {
        if (backend->out_fd >= 0)
            close(backend->out_fd);
        if (backend->listen_fd >= 0)
            close(backend->listen_fd);
    }
    if (backend->path)
        unlink(backend->path);
    g_free(backend->path);
    *backend = (SerialBackend){.listen_fd = -1, .out_fd = -1, .in_fd = -1};
}

/* poll() first rather than O_NONBLOCK: stdio's open file belongs to others as well, and one byte
 * into a writable file, pipe or terminal does not wait. */
void
serial_backend_send(SerialBackend *backend, uint8_t byte)
{
    struct pollfd ready = {.fd = backend->out_fd, .events = POLLOUT};
    if (ready.fd < 0)
        return;
    if (backend->listen_fd >= 0) {
        (void)!send(ready.fd, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else if (poll(&ready, 1, 0) == 1 && (ready.revents & POLLOUT)) {
        (void)!write(ready.fd, &byte, 1);
    }
}

/* A client that is there is watched even when the guest takes no input, so that its end is seen
 * and the next one let in. */
struct pollfd
serial_backend_poll(const SerialBackend *backend, bool want_input)
{
    if (backend->in_fd >= 0) {
        short events = want_input ? POLLIN : 0;
        return (struct pollfd){.fd = backend->in_fd, .events = events};
    }
    return (struct pollfd){.fd = backend->listen_fd, .events = POLLIN};
}

static void
accept_client(SerialBackend *backend, pthread_mutex_t *lock)
{
    int fd = accept4(backend->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    pthread_mutex_lock(lock);
    backend->in_fd = fd;
    backend->out_fd = fd;
    pthread_mutex_unlock(lock);
}

static void
drop_input(SerialBackend *backend, pthread_mutex_t *lock)
{
    pthread_mutex_lock(lock);
    if (backend->listen_fd >= 0) {
        backend->out_fd = -1;
        close(backend->in_fd);
    }
    backend->in_fd = -1;
    pthread_mutex_unlock(lock);
}

size_t
serial_backend_receive(SerialBackend *backend, uint8_t *bytes, size_t room, pthread_mutex_t *lock)
{
    if (backend->in_fd < 0) {
        if (backend->listen_fd >= 0)
            accept_client(backend, lock);
        return 0;
    }
    if (room == 0) { /* woken by the far end's hang-up alone */
        drop_input(backend, lock);
        return 0;
    }
    ssize_t got = read(backend->in_fd, bytes, room);
    if (got > 0)
        return (size_t)got;
    if (got == 0 || (errno != EAGAIN && errno != EINTR))
        drop_input(backend, lock);
    return 0;
}
