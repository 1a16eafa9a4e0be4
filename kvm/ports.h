/* SPDX-License-Identifier: MIT */
/*
 * The machine's I/O ports: the serial port at 0x3f8 and system port A at 0x92. All others read
 * 0xff and ignore what is written, as an empty bus does.
 *
 * Thread: any vCPU; state functions with the vCPUs paused.
 */
#ifndef KVM_PORTS_H
#define KVM_PORTS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "kvm/serial.h"

typedef struct Ports {
    Serial *serial;           /* set before any thread starts */
    _Atomic uint8_t system_a; /* port 0x92; bit 1 is the A20 gate, which is always open here */
} Ports;

/* One access of 1, 2 or 4 bytes, little-endian, as the CPU made it. */
void ports_read(Ports *ports, uint16_t port, void *bytes, unsigned length_bytes);

/* false when the guest asks for a reset, which this machine does not have. */
bool ports_write(Ports *ports, uint16_t port, const void *bytes, unsigned length_bytes);

#endif
