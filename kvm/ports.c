/* SPDX-License-Identifier: MIT */
/*
 * Which device answers which I/O port. Runs on vCPU threads, for exits to user space; the ports of
 * the interrupt controllers, the PIT and 0x61 are the kernel's and never come here.
 */
#include "kvm/ports.h"

#define PORT_SERIAL       0x3f8
#define PORT_SERIAL_COUNT 8
#define PORT_SYSTEM_A     0x92
#define SYSTEM_A_RESET    0x01

static uint8_t
read_byte(Ports *ports, uint16_t port)
{
    if (port >= PORT_SERIAL && port < PORT_SERIAL + PORT_SERIAL_COUNT)
        return serial_read(ports->serial, port - PORT_SERIAL);
    if (port == PORT_SYSTEM_A)
        return atomic_load_explicit(&ports->system_a, memory_order_relaxed);
    return 0xff;
}

static bool
write_byte(Ports *ports, uint16_t port, uint8_t value)
{
    if (port >= PORT_SERIAL && port < PORT_SERIAL + PORT_SERIAL_COUNT) {
        serial_write(ports->serial, port - PORT_SERIAL, value);
    } else if (port == PORT_SYSTEM_A) {
        if (value & SYSTEM_A_RESET)
            return false;
        atomic_store_explicit(&ports->system_a, value, memory_order_relaxed);
    }
    return true;
}

/* A wide access to byte-wide devices is that of the ports in a row, as on the bus. */
void
ports_read(Ports *ports, uint16_t port, void *bytes, unsigned length_bytes)
{
    for (unsigned i = 0; i < length_bytes; i++)
        ((uint8_t *)bytes)[i] = read_byte(ports, (uint16_t)(port + i));
}

bool
ports_write(Ports *ports, uint16_t port, const void *bytes, unsigned length_bytes)
{
    for (unsigned i = 0; i < length_bytes; i++) {
        if (!write_byte(ports, (uint16_t)(port + i), ((const uint8_t *)bytes)[i]))
            return false;
    }
    return true;
}
