/* SPDX-License-Identifier: MIT */
/*
 * A 16550 serial port and the place its bytes go to: "stdio", "file:PATH" (appended, created),
 * "unix:PATH" (listens, one client at a time) or "none".
 *
 * The guest is never held up: a byte that the other end does not take at once is dropped, and so is
 * one that nobody listens to.
 *
 * Threads: serial_read, serial_write on any vCPU; one thread of its own carries input to the guest;
 * the rest on the main thread or, with the vCPUs paused, on the engine's.
 */
#ifndef KVM_SERIAL_H
#define KVM_SERIAL_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct Serial Serial;

typedef struct SerialHost {
    void (*set_irq)(void *opaque, bool level); /* level changes only */
    void (*sent)(void *opaque, char byte);     /* each byte the guest sends, sent or dropped */
    void *opaque;
} SerialHost;

/* Made stopped: input waits until serial_resume(). Errors: ARGUMENT, HOST. */
Serial *serial_new(const char *where, const SerialHost *host, GError **error);
void serial_free(Serial *serial);

/* port: 0..7, from 0x3f8 on. */
uint8_t serial_read(Serial *serial, unsigned port);
void serial_write(Serial *serial, unsigned port, uint8_t value);

/* After pause no input changes the port's state or its interrupt. */
void serial_pause(Serial *serial);
void serial_resume(Serial *serial);

#define SERIAL_STATE_VERSION 1
void serial_save(Serial *serial, GByteArray *bytes);
/* Refuses bytes of another length, or a FIFO fuller than it can be. */
bool serial_load(Serial *serial, const uint8_t *bytes, size_t length_bytes, GError **error);

#endif
