/* SPDX-License-Identifier: MIT */
/*
 * Where the serial port's bytes go to and come from. Non-blocking in both directions.
 *
 * Threads: serial_backend_send on vCPU threads, one at a time; serial_backend_receive and _poll on
 * the serial port's input thread; open and close on the main thread.
 */
#ifndef KVM_SERIAL_BACKEND_H
#define KVM_SERIAL_BACKEND_H

#include <glib.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct SerialBackend {
    int listen_fd;      /* unix; -1: none */
    _Atomic int out_fd; /* -1: nobody; input thread sets it for unix */
    int in_fd;          /* -1: nothing to read; input thread */
    bool owns_fd;       /* in_fd and out_fd are ours to close */
    char *path;         /* unix: to remove at the end */
} SerialBackend;

bool serial_backend_open(SerialBackend *backend, const char *where, GError **error);
void serial_backend_close(SerialBackend *backend);

/* Drops the byte when it cannot be taken at once. */
void serial_backend_send(SerialBackend *backend, uint8_t byte);

/* What the input thread must poll; fd -1 when there is nothing. want_input: the guest can take
 * bytes. */
struct pollfd serial_backend_poll(const SerialBackend *backend, bool want_input);

/* After poll said so: accepts a client, or reads up to room bytes. Returns bytes read. */
size_t serial_backend_receive(SerialBackend *backend, uint8_t *bytes, size_t room,
                              pthread_mutex_t *lock);

#endif
