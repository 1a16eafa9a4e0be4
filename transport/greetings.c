/* SPDX-License-Identifier: MIT */
/*
 * Greetings: connected peers of whom the first bytes have to come, oldest first, none of which can
 * keep another from going on, and none of which stays for long.
 *
 * The listener's thread. Nothing is taken off a socket here: its first bytes are looked at. Who
 * says the wrong thing, closes, or says too little for too long loses its connection. There is a
 * limit on their number; who comes when it is reached displaces the oldest, because one that means
 * it has said its first word within milliseconds. What is right is the caller's question. Of each
 * that is turned away it is kept why, and told at most once a second: a flood floods no log.
 */
#include "transport/greetings.h"
#include "transport/refusals.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define COUNT_MAX  128u
#define STAY_MAX   4u /* behind one that was right: they may be its other channels */
#define PATIENCE_S 5u
#define TLS_HANDSHAKE                                                                              \
    0x16u /* RFC 8446, 5.1: the type of a record, and what its version begins with */
#define TLS_MAJOR 0x03u
#define TICK_NS   100000000

typedef struct {
    TransportOp poll;
    int fd;
    char *name;
    int64_t until_us;
} Greeting;

struct TransportGreetings {
    TransportOp timer;
    TransportRing *ring;
    GPtrArray *list; /* Greeting, in the order in which they came */
    struct __kernel_timespec tick;
    TransportRefusals refusals;
    bool tells_now; /* one was right: who waits for more may not ask again */
};

static void
op_done(TransportOp *op, int result)
{
    (void)op, (void)result; /* each step looks at all sockets itself */
}

TransportGreetings *
transport_greetings_new(TransportRing *ring)
{
    TransportGreetings *greetings = g_new0(TransportGreetings, 1);

    greetings->timer.done = op_done;
    greetings->ring = ring;
    greetings->list = g_ptr_array_new();
    greetings->tick = (struct __kernel_timespec){.tv_nsec = TICK_NS};
    return greetings;
}

/* The socket as a link if there is one to be had of it, else NULL and it is closed. false: the
 * kernel still uses the memory. */
static bool
end_greeting(TransportGreetings *greetings, Greeting *greeting, TransportLink **ret_link)
{
    if (!transport_ring_cancel(greetings->ring, &greeting->poll))
        return false;
    if (ret_link != NULL)
        *ret_link = transport_link_new(greeting->fd, greeting->name);
    else
        close(greeting->fd);
    g_free(greeting->name);
    g_free(greeting);
    return true;
}

static void
remove_at(TransportGreetings *greetings, unsigned index, TransportLink **ret_link)
{
    end_greeting(greetings, greetings->list->pdata[index], ret_link);
    g_ptr_array_remove_index(greetings->list, index);
}

bool
transport_greetings_free(TransportGreetings *greetings)
{
    bool is_over;

    if (greetings == NULL)
        return true;
    is_over = transport_ring_cancel(greetings->ring, &greetings->timer);
    while (is_over && greetings->list->len > 0) {
        is_over = end_greeting(greetings, greetings->list->pdata[0], NULL);
        g_ptr_array_remove_index(greetings->list, 0);
    }
    if (!is_over)
        return false;
    g_ptr_array_unref(greetings->list);
    transport_refusals_clear(&greetings->refusals);
    g_free(greetings);
    return true;
}

/* ---- Turning away ---------------------------------------------------------------------------- */

static void
refuse_at(TransportGreetings *greetings, unsigned index, const char *reason)
{
    const Greeting *greeting = greetings->list->pdata[index];

    transport_refusals_add(
        &greetings->refusals,
        g_strdup_printf("connection from %s turned away: %s", greeting->name, reason));
    remove_at(greetings, index, NULL);
}

bool
transport_greetings_displace(TransportGreetings *greetings)
{
    if (greetings->list->len == 0)
        return false;
    refuse_at(greetings, 0,
              "another has connected since, and there is no descriptor left for it: keep strangers "
              "away from the port, or raise ulimit -n");
    return true;
}

char *
transport_greetings_take_refusal(TransportGreetings *greetings, unsigned *ret_count)
{
    return transport_refusals_take(&greetings->refusals, greetings->tells_now, ret_count);
}

void
transport_greetings_add(TransportGreetings *greetings, int fd, const char *name)
{
    Greeting *greeting = g_new0(Greeting, 1);
    int least = TRANSPORT_FIRST_BYTES;

    if (greetings->list->len == COUNT_MAX)
        refuse_at(greetings, 0,
                  "it has not said its first word, and too many others have connected since: keep "
                  "strangers away from the port");
    /* Where the socket knows it (tcp), less than a whole greeting wakes nobody; undone below. */
    setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
    greeting->poll.done = op_done;
    greeting->fd = fd;
    greeting->name = g_strdup(name);
    greeting->until_us = g_get_monotonic_time() + PATIENCE_S * G_USEC_PER_SEC;
    g_ptr_array_add(greetings->list, greeting);
}

/* ---- Looking --------------------------------------------------------------------------------- */

typedef enum { LOOK_RIGHT, LOOK_WRONG, LOOK_SILENT, LOOK_PART } Look;

static Look
look_at(const Greeting *greeting, TransportIsRight is_right, uint8_t *bytes, size_t *ret_length)
{
    ssize_t got = recv(greeting->fd, bytes, TRANSPORT_FIRST_BYTES, MSG_PEEK | MSG_DONTWAIT);

    *ret_length = got > 0 ? (size_t)got : 0;
    if (got == TRANSPORT_FIRST_BYTES)
        return is_right(bytes) ? LOOK_RIGHT : LOOK_WRONG;
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return LOOK_SILENT;
    return got > 0 ? LOOK_PART : LOOK_WRONG;
}

static void
start_timer(TransportGreetings *greetings)
{
    if (greetings->timer.is_in_flight)
        return;
    struct io_uring_sqe *sqe = transport_ring_sqe(greetings->ring);
    io_uring_prep_timeout(sqe, &greetings->tick, 0, 0);
    transport_ring_start(greetings->ring, &greetings->timer, sqe);
}

/* One that said a part would wake us again at once: the timer looks after it. */
static void
wait_for(TransportGreetings *greetings, Greeting *greeting, Look look)
{
    if (look == LOOK_SILENT && !greeting->poll.is_in_flight) {
        struct io_uring_sqe *sqe = transport_ring_sqe(greetings->ring);
        io_uring_prep_poll_add(sqe, greeting->fd, POLLIN | POLLRDHUP);
        transport_ring_start(greetings->ring, &greeting->poll, sqe);
    }
    start_timer(greetings);
}

/* Each byte that is to be seen as text, else a dot: whatever a stranger says, a log stays one. */
static char *
quote(const uint8_t *bytes, size_t length)
{
    g_autoptr(GString) text = g_string_new(NULL);

    for (size_t i = 0; i < length; i++)
        g_string_append_printf(text, "0x%02x ", bytes[i]);
    g_string_append(text, "('");
    for (size_t i = 0; i < length; i++)
        g_string_append_c(text, g_ascii_isprint(bytes[i]) ? (char)bytes[i] : '.');
    g_string_append(text, "')");
    return g_string_free(g_steal_pointer(&text), FALSE);
}

static char *
reason_of(Look look, const uint8_t *bytes, size_t length)
{
    if (look == LOOK_SILENT)
        return g_strdup_printf("it has said nothing for %u s", PATIENCE_S);
    g_autofree char *quoted = quote(bytes, length);
    if (look == LOOK_PART)
        return g_strdup_printf("it has said no more than %s for %u s", quoted, PATIENCE_S);
    if (length == 0)
        return g_strdup("it has closed without a word");
    if (bytes[0] == TLS_HANDSHAKE && bytes[1] == TLS_MAJOR)
        return g_strdup("the peer speaks TLS, and this port is plain: set tls-creds here or take "
                        "them away there");
    return g_strdup_printf("it begins with %s, and not as the migration that is waited for",
                           quoted);
}

static void
choose(TransportGreetings *greetings, unsigned index, TransportLink **ret_link)
{
    int least = 1;

    remove_at(greetings, index, ret_link);
    setsockopt((*ret_link)->fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
    while (index-- > 0)
        refuse_at(greetings, 0, "another has begun to migrate, and this one had said nothing");
    while (greetings->list->len > STAY_MAX)
        refuse_at(greetings, greetings->list->len - 1,
                  "another has begun to migrate, and this one was one too many behind it");
    greetings->tells_now = true;
}

TransportResult
transport_greetings_step(TransportGreetings *greetings, TransportIsRight is_right,
                         TransportLink **ret_link)
{
    int64_t now_us = g_get_monotonic_time();

    greetings->tells_now = false;
    for (unsigned i = 0; i < greetings->list->len;) {
        Greeting *greeting = greetings->list->pdata[i];
        uint8_t bytes[TRANSPORT_FIRST_BYTES];
        size_t length;
        Look look = look_at(greeting, is_right, bytes, &length);

        if (look == LOOK_RIGHT) {
            choose(greetings, i, ret_link);
            return TRANSPORT_OK;
        }
        if (look == LOOK_WRONG || now_us >= greeting->until_us) {
            g_autofree char *reason = reason_of(look, bytes, length);
            refuse_at(greetings, i, reason);
            continue;
        }
        wait_for(greetings, greeting, look);
        i++;
    }
    if (greetings->refusals.text != NULL)
        start_timer(greetings); /* so that it is told when its time has come */
    return TRANSPORT_WAIT;
}

TransportLink *
transport_greetings_take(TransportGreetings *greetings)
{
    TransportLink *link = NULL;
    int least = 1;

    if (greetings->list->len == 0)
        return NULL;
    remove_at(greetings, 0, &link);
    setsockopt(link->fd, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof least);
    return link;
}
