/* SPDX-License-Identifier: MIT */
/*
 * Arrivals: a list of connected peers, oldest first, none of which can keep another from going on,
 * and none of which stays for long.
 *
 * The listener's thread. Each has a time limit (handshake.c), and there is a limit on their number:
 * who comes when it is reached displaces the oldest that has not said a word, because one that
 * means it does so at once, while the end of its handshake comes after a whole round trip. Where
 * all have spoken the oldest gives way. One that failed stays for a moment, so that it can read
 * why. What a peer has to do is its handshake's; who accepts it from the socket is listen.c.
 */
#include "transport/arrivals.h"
#include "transport/handshake.h"
#include "transport/refusals.h"

#include <unistd.h>

#define COUNT_MAX 16u
#define TICK_NS   100000000

typedef struct {
    TransportHandshake *handshake;
    char *name;
    bool has_failed;
} Arrival;

struct TransportArrivals {
    TransportOp timer;   /* for a refusal that is to be told later */
    TransportRing *ring; /* NULL: nobody has come */
    struct __kernel_timespec tick;
    TransportCredentials *credentials;
    TransportAuthz *authz;
    GPtrArray *list; /* Arrival, in the order in which they came */
    TransportRefusals refusals;
    bool tells_now; /* one was let in: who waits for more may not ask again */
};

static void
free_arrival(gpointer opaque)
{
    Arrival *arrival = opaque;

    transport_handshake_free(arrival->handshake);
    g_free(arrival->name);
    g_free(arrival);
}

static void
timer_done(TransportOp *op, int result)
{
    (void)op, (void)result; /* who was woken asks */
}

TransportArrivals *
transport_arrivals_new(TransportCredentials *credentials, TransportAuthz *authz)
{
    TransportArrivals *arrivals = g_new0(TransportArrivals, 1);

    arrivals->timer.done = timer_done;
    arrivals->tick = (struct __kernel_timespec){.tv_nsec = TICK_NS};
    arrivals->credentials = transport_credentials_ref(credentials);
    arrivals->authz = authz != NULL ? transport_authz_ref(authz) : NULL;
    arrivals->list = g_ptr_array_new_with_free_func(free_arrival);
    return arrivals;
}

bool
transport_arrivals_free(TransportArrivals *arrivals)
{
    if (arrivals == NULL)
        return true;
    if (arrivals->ring != NULL && !transport_ring_cancel(arrivals->ring, &arrivals->timer))
        return false;
    g_ptr_array_unref(arrivals->list);
    transport_credentials_unref(arrivals->credentials);
    transport_authz_unref(arrivals->authz);
    transport_refusals_clear(&arrivals->refusals);
    g_free(arrivals);
    return true;
}

/* The first that is silent, or none is. */
static unsigned
find_weakest(const TransportArrivals *arrivals)
{
    for (unsigned i = 0; i < arrivals->list->len; i++) {
        const Arrival *arrival = arrivals->list->pdata[i];
        if (!transport_handshake_has_heard(arrival->handshake))
            return i;
    }
    return 0;
}

static void
displace_weakest(TransportArrivals *arrivals)
{
    unsigned index = find_weakest(arrivals);
    const Arrival *weakest = arrivals->list->pdata[index];

    if (!weakest->has_failed)
        transport_refusals_add(
            &arrivals->refusals,
            g_strdup_printf("TLS with %s given up: too many others have connected since, and it "
                            "has not proved itself: keep strangers away from the port",
                            weakest->name));
    g_ptr_array_remove_index(arrivals->list, index);
}

void
transport_arrivals_add(TransportArrivals *arrivals, TransportRing *ring, int fd, const char *name)
{
    TransportLink *link = transport_link_new(fd, name);
    g_autoptr(GError) error = NULL;

    arrivals->ring = ring;
    link->session =
        transport_session_new(arrivals->credentials, arrivals->authz, NULL, fd, name, &error);
    if (link->session == NULL) {
        transport_refusals_add(&arrivals->refusals, g_strdup(error->message));
        transport_link_unref(link);
        return;
    }
    if (arrivals->list->len == COUNT_MAX)
        displace_weakest(arrivals);
    Arrival *arrival = g_new0(Arrival, 1);
    arrival->handshake = transport_handshake_new(ring, link);
    arrival->name = g_strdup(name);
    g_ptr_array_add(arrivals->list, arrival);
}

/* WAIT: it has not come to an end of any kind. */
static TransportResult
step_one(TransportArrivals *arrivals, Arrival *arrival, TransportLink **ret_link)
{
    g_autoptr(GError) error = NULL;

    if (!arrival->has_failed) {
        TransportResult result = transport_handshake_step(arrival->handshake, ret_link, &error);
        if (result != TRANSPORT_ERROR_RESULT)
            return result;
        arrival->has_failed = true;
        transport_refusals_add(&arrivals->refusals, g_strdup(error->message));
    }
    return transport_handshake_linger(arrival->handshake) ? TRANSPORT_ERROR_RESULT : TRANSPORT_WAIT;
}

static void
start_timer(TransportArrivals *arrivals)
{
    if (arrivals->timer.is_in_flight)
        return;
    struct io_uring_sqe *sqe = transport_ring_sqe(arrivals->ring);
    io_uring_prep_timeout(sqe, &arrivals->tick, 0, 0);
    transport_ring_start(arrivals->ring, &arrivals->timer, sqe);
}

TransportResult
transport_arrivals_step(TransportArrivals *arrivals, TransportLink **ret_link)
{
    arrivals->tells_now = false;
    for (unsigned i = 0; i < arrivals->list->len;) {
        TransportResult result = step_one(arrivals, arrivals->list->pdata[i], ret_link);

        if (result == TRANSPORT_WAIT)
            i++;
        else
            g_ptr_array_remove_index(arrivals->list, i);
        arrivals->tells_now = result == TRANSPORT_OK;
        if (arrivals->tells_now)
            return TRANSPORT_OK;
    }
    if (arrivals->refusals.text != NULL)
        start_timer(arrivals);
    return TRANSPORT_WAIT;
}

bool
transport_arrivals_is_empty(const TransportArrivals *arrivals)
{
    return arrivals->list->len == 0;
}

char *
transport_arrivals_take_refusal(TransportArrivals *arrivals, bool is_last, unsigned *ret_count)
{
    return transport_refusals_take(&arrivals->refusals, is_last || arrivals->tells_now, ret_count);
}
