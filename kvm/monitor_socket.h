/* SPDX-License-Identifier: MIT */
/*
 * Addresses of QMP sockets, as --qmp takes them, and the sockets themselves: unix or tcp, listening
 * or connecting to a program that listens. Main thread only; all of it happens at start.
 */
#ifndef KVM_MONITOR_SOCKET_H
#define KVM_MONITOR_SOCKET_H

#include "engine/faultline.h"

#include <sys/stat.h>

typedef struct MonitorSocket {
    char *path;        /* unix; NULL: tcp */
    char *host, *port; /* tcp */
    bool connects;
    int fd;       /* -1: not open */
    dev_t device; /* of the file we made, so that only that one is removed; inode 0: none */
    ino_t inode;
} MonitorSocket;

/* unix:PATH or tcp:HOST:PORT (IPv6 in brackets; an empty HOST is localhost), then none or some of
 * ",connect", and of QEMU's ",server=on" and ",wait=off", which hold anyhow. Errors: ARGUMENT. */
bool monitor_socket_parse(const char *text, MonitorSocket *ret_socket, GError **error);

/* A unix socket, or a host that is this one by its name or number. */
bool monitor_socket_is_local(const MonitorSocket *server);

/* Listens (a unix socket with mode 0600; one at which nobody listens any more is replaced, any
 * other file is an error) or connects. The descriptor is non-blocking. Errors: HOST. */
bool monitor_socket_open(MonitorSocket *server, GError **error);

/* Where a listening tcp socket is, "tcp:127.0.0.1:4444" with the real port (g_free); NULL for
 * others. */
char *monitor_socket_name(const MonitorSocket *server);

/* Closes, removes the file, frees the texts. */
void monitor_socket_clear(MonitorSocket *server);

#endif
