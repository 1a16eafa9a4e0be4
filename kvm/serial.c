/* SPDX-License-Identifier: MIT */
/*
 * A 16550A as the guest sees it: registers, receive FIFO, interrupts. The transmitter is always
 * empty, for a byte is gone (serial_backend.c) before the write returns.
 *
 * vCPU threads call read and write; one input thread fills the FIFO while the guest runs. All state
 * is under one lock.
 */
#include "kvm/serial.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "engine/faultline.h"
#include "kvm/serial_backend.h"

#define FIFO_BYTES 16u

enum { PORT_DATA, PORT_IER, PORT_IIR, PORT_LCR, PORT_MCR, PORT_LSR, PORT_MSR, PORT_SCR };

#define IER_RECEIVE  0x01
#define IER_TRANSMIT 0x02
#define IER_LINE     0x04
#define IIR_NONE     0x01
#define IIR_TRANSMIT 0x02
#define IIR_RECEIVE  0x04
#define IIR_LINE     0x06
#define IIR_FIFO     0xc0
#define FCR_ENABLE   0x01
#define FCR_CLEAR    0x02
#define LCR_DLAB     0x80
#define MCR_LOOPBACK 0x10
#define LSR_DATA     0x01
#define LSR_OVERRUN  0x02
#define LSR_EMPTY    0x60
#define MSR_PRESENT  0xb0 /* CTS, DSR, DCD */

/* The state as it is saved: bytes only, so that it has neither padding nor byte order. */
typedef struct SerialState {
    uint8_t ier, fcr, lcr, mcr, scr, divisor_low, divisor_high;
    uint8_t overrun;
    uint8_t transmit_pending; /* "transmitter empty" was not read from IIR yet */
    uint8_t count;            /* in fifo, oldest first */
    uint8_t fifo[FIFO_BYTES];
} SerialState;

struct Serial {
    SerialHost host; /* set before any thread starts */
    int wake_fd;
    pthread_t input;

    pthread_mutex_t lock; /* the rest */
    pthread_cond_t stopped;
    SerialBackend backend; /* see serial_backend.h */
    SerialState state;
    bool irq, running, quit;
};

static uint8_t
pending_locked(const SerialState *state)
{
    if ((state->ier & IER_LINE) && state->overrun)
        return IIR_LINE;
    if ((state->ier & IER_RECEIVE) && state->count > 0)
        return IIR_RECEIVE;
    if ((state->ier & IER_TRANSMIT) && state->transmit_pending)
        return IIR_TRANSMIT;
    return IIR_NONE;
}

static void
update_irq_locked(Serial *serial)
{
    bool level = pending_locked(&serial->state) != IIR_NONE;
    if (level != serial->irq) {
        serial->irq = level;
        serial->host.set_irq(serial->host.opaque, level);
    }
}

static void
wake_input(Serial *serial)
{
    uint64_t one = 1;
    (void)!write(serial->wake_fd, &one, sizeof one);
}

static void
push_locked(Serial *serial, uint8_t byte)
{
    SerialState *state = &serial->state;
    if (state->count == FIFO_BYTES) {
        state->overrun = 1;
    } else {
        state->fifo[state->count++] = byte;
    }
}

static uint8_t
pop_locked(Serial *serial)
{
    SerialState *state = &serial->state;
    if (state->count == 0)
        return 0;
    uint8_t byte = state->fifo[0];
    memmove(state->fifo, state->fifo + 1, --state->count);
    if (state->count == 0)
        wake_input(serial);
    return byte;
}

static uint8_t
read_modem_status(const SerialState *state)
{
    if (!(state->mcr & MCR_LOOPBACK))
        return MSR_PRESENT;
    uint8_t mcr = state->mcr; /* looped back: RTS -> CTS, DTR -> DSR, OUT1 -> RI, OUT2 -> DCD */
    return (uint8_t)((mcr & 0x0c) << 4 | (mcr & 0x02) << 3 | (mcr & 0x01) << 5);
}

static uint8_t
read_interrupt_id_locked(SerialState *state)
{
    uint8_t id = pending_locked(state);
    if (id == IIR_TRANSMIT)
        state->transmit_pending = 0;
    return id | (state->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

static uint8_t
read_locked(Serial *serial, unsigned port)
{
    SerialState *state = &serial->state;
    bool divisor = state->lcr & LCR_DLAB;
    switch (port) {
    case PORT_DATA:
        return divisor ? state->divisor_low : pop_locked(serial);
    case PORT_IER:
        return divisor ? state->divisor_high : state->ier;
    case PORT_IIR:
        return read_interrupt_id_locked(state);
    case PORT_LCR:
        return state->lcr;
    case PORT_MCR:
        return state->mcr;
    case PORT_LSR: {
        uint8_t overrun = state->overrun ? LSR_OVERRUN : 0;
        state->overrun = 0;
        return LSR_EMPTY | overrun | (state->count > 0 ? LSR_DATA : 0);
    }
    case PORT_MSR:
        return read_modem_status(state);
    default:
        return state->scr;
    }
}

uint8_t
serial_read(Serial *serial, unsigned port)
{
    pthread_mutex_lock(&serial->lock);
    uint8_t value = read_locked(serial, port);
    update_irq_locked(serial);
    pthread_mutex_unlock(&serial->lock);
    return value;
}

static void
transmit_locked(Serial *serial, uint8_t byte)
{
    serial->state.transmit_pending = 1;
    if (serial->state.mcr & MCR_LOOPBACK) {
        push_locked(serial, byte);
        return;
    }
    serial_backend_send(&serial->backend, byte);
    serial->host.sent(serial->host.opaque, (char)byte);
}

static void
write_locked(Serial *serial, unsigned port, uint8_t value)
{
    SerialState *state = &serial->state;
    bool divisor = state->lcr & LCR_DLAB;
    if (port == PORT_DATA && divisor) {
        state->divisor_low = value;
    } else if (port == PORT_DATA) {
        transmit_locked(serial, value);
    } else if (port == PORT_IER && divisor) {
        state->divisor_high = value;
    } else if (port == PORT_IER) {
        if ((value & IER_TRANSMIT) && !(state->ier & IER_TRANSMIT))
            state->transmit_pending = 1;
        state->ier = value & 0x0f;
    } else if (port == PORT_IIR) { /* FCR when written */
        if (value & FCR_CLEAR) {
            state->count = 0;
            wake_input(serial);
        }
        state->fcr = value & 0xc9;
    } else if (port == PORT_LCR) {
        state->lcr = value;
    } else if (port == PORT_MCR) {
        state->mcr = value & 0x1f;
    } else if (port == PORT_SCR) {
        state->scr = value;
    }
}

void
serial_write(Serial *serial, unsigned port, uint8_t value)
{
    pthread_mutex_lock(&serial->lock);
    write_locked(serial, port, value);
    update_irq_locked(serial);
    pthread_mutex_unlock(&serial->lock);
}

/* Bytes may have been read when a pause comes in between: they go into the FIFO in the same
 * critical section that looks at `running`, or wait in `held` until it goes on. */
static bool
deliver(Serial *serial, const uint8_t *held, size_t count)
{
    pthread_mutex_lock(&serial->lock);
    while (count > 0 && !serial->running && !serial->quit)
        pthread_cond_wait(&serial->stopped, &serial->lock);
    for (size_t i = 0; i < count; i++)
        push_locked(serial, held[i]);
    if (count > 0)
        update_irq_locked(serial);
    bool quit = serial->quit;
    pthread_mutex_unlock(&serial->lock);
    return !quit;
}

static void *
run_input(void *opaque)
{
    Serial *serial = opaque;
    for (;;) {
        pthread_mutex_lock(&serial->lock);
        size_t room = serial->running ? FIFO_BYTES - serial->state.count : 0;
        bool quit = serial->quit;
        pthread_mutex_unlock(&serial->lock);
        if (quit)
            return NULL;

        struct pollfd polled[2] = {{.fd = serial->wake_fd, .events = POLLIN},
                                   serial_backend_poll(&serial->backend, room > 0)};
        if (poll(polled, 2, -1) < 0)
            continue;
        uint64_t count;
        if (polled[0].revents)
            (void)!read(serial->wake_fd, &count, sizeof count);
        uint8_t held[FIFO_BYTES];
        size_t got = 0;
        if (polled[1].revents)
            got = serial_backend_receive(&serial->backend, held, room, &serial->lock);
        if (!deliver(serial, held, got))
            return NULL;
    }
}

static void
close_port(Serial *serial)
{
    serial_backend_close(&serial->backend);
    close(serial->wake_fd);
    pthread_mutex_destroy(&serial->lock);
    pthread_cond_destroy(&serial->stopped);
}

Serial *
serial_new(const char *where, const SerialHost *host, GError **error)
{
    g_autofree Serial *serial = g_new0(Serial, 1);
    serial->host = *host;
    if (!serial_backend_open(&serial->backend, where, error))
        return NULL;
    serial->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (serial->wake_fd < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "Cannot make an eventfd for the serial port: %m");
        serial_backend_close(&serial->backend);
        return NULL;
    }
    pthread_mutex_init(&serial->lock, NULL);
    pthread_cond_init(&serial->stopped, NULL);
    errno = pthread_create(&serial->input, NULL, run_input, serial);
    if (errno != 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "Cannot make the serial port's thread: %m");
        close_port(serial);
        return NULL;
    }
    return g_steal_pointer(&serial);
}

void
serial_free(Serial *serial)
{
    if (serial == NULL)
        return;
    pthread_mutex_lock(&serial->lock);
    serial->quit = true;
    pthread_cond_broadcast(&serial->stopped);
    pthread_mutex_unlock(&serial->lock);
    wake_input(serial);
    pthread_join(serial->input, NULL);
    close_port(serial);
    g_free(serial);
}

static void
set_running(Serial *serial, bool running)
{
    pthread_mutex_lock(&serial->lock);
    serial->running = running;
    pthread_cond_broadcast(&serial->stopped);
    pthread_mutex_unlock(&serial->lock);
    wake_input(serial);
}

void
serial_pause(Serial *serial)
{
    set_running(serial, false);
}

void
serial_resume(Serial *serial)
{
    set_running(serial, true);
}

void
serial_save(Serial *serial, GByteArray *bytes)
{
    pthread_mutex_lock(&serial->lock);
    g_byte_array_append(bytes, (const guint8 *)&serial->state, sizeof serial->state);
    pthread_mutex_unlock(&serial->lock);
}

/* The interrupt line itself is part of the interrupt controllers' state, so only our memory of its
 * level follows. */
bool
serial_load(Serial *serial, const uint8_t *bytes, size_t length_bytes, GError **error)
{
    SerialState state;
    if (length_bytes != sizeof state) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "Cannot load the serial port's state: %zu bytes where %zu are due",
                    length_bytes, sizeof state);
        return false;
    }
    memcpy(&state, bytes, sizeof state);
    if (state.count > FIFO_BYTES || state.overrun > 1 || state.transmit_pending > 1) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "Cannot load the serial port's state: its FIFO holds %u of at most %u bytes, "
                    "flags %u and %u",
                    state.count, FIFO_BYTES, state.overrun, state.transmit_pending);
        return false;
    }
    pthread_mutex_lock(&serial->lock);
    serial->state = state;
    serial->irq = pending_locked(&state) != IIR_NONE;
    pthread_mutex_unlock(&serial->lock);
    return true;
}
