/* SPDX-License-Identifier: MIT */
/*
 * Arrivals: a list of connected peers, oldest first, none of which can keep another from going on,
 * and none of which stays for long.
 *
 * The listener's thread. Each has a time limit (handshake.c), and there is a limit on their number:
 * who comes when it is reached displaces the oldest, because one that means it is through in
 * milliseconds. One that failed stays for a moment, so that it can read why. What a peer has to do
 * is its handshake's; who accepts it from the socket is listen.c.
 */
#include "transport/arrivals.h"
#include "transport/handshake.h"

#include <unistd.h>

#define COUNT_MAX 16u

typedef struct {
    TransportHandshake *handshake;
    char *name;
    bool has_failed;
} Arrival;

struct TransportArrivals {
    TransportCredentials *credentials;
    TransportAuthz *authz;
    GPtrArray *list; /* Arrival, in the order in which they came */
    char *refusal;   /* of the last one turned away; NULL: taken, or none was */
};

static void
free_arrival(gpointer opaque)
{
    Arrival *arrival = opaque;

    transport_handshake_free(arrival->handshake);
    g_free(arrival->name);
    g_free(arrival);
}

TransportArrivals *
transport_arrivals_new(TransportCredentials *credentials, TransportAuthz *authz)
{
    TransportArrivals *arrivals = g_new0(TransportArrivals, 1);

    arrivals->credentials = transport_credentials_ref(credentials);
    arrivals->authz = authz != NULL ? transport_authz_ref(authz) : NULL;
    arrivals->list = g_ptr_array_new_with_free_func(free_arrival);
    return arrivals;
}

void
transport_arrivals_free(TransportArrivals *arrivals)
{
    if (arrivals == NULL)
        return;
    g_ptr_array_unref(arrivals->list);
    transport_credentials_unref(arrivals->credentials);
    transport_authz_unref(arrivals->authz);
    g_free(arrivals->refusal);
    g_free(arrivals);
}

static void
keep_refusal(TransportArrivals *arrivals, char *text)
{
    g_free(arrivals->refusal);
    arrivals->refusal = text;
}

static void
displace_oldest(TransportArrivals *arrivals)
{
    const Arrival *oldest = arrivals->list->pdata[0];

    if (!oldest->has_failed)
        keep_refusal(arrivals,
                     g_strdup_printf("TLS with %s given up: %u others have connected since, and it "
                                     "has not proved itself: keep strangers away from the port",
                                     oldest->name, COUNT_MAX));
    g_ptr_array_remove_index(arrivals->list, 0);
}

void
transport_arrivals_add(TransportArrivals *arrivals, TransportRing *ring, int fd, const char *name)
{
    TransportLink *link = transport_link_new(fd, name);
    g_autoptr(GError) error = NULL;

    link->session =
        transport_session_new(arrivals->credentials, arrivals->authz, NULL, fd, name, &error);
    if (link->session == NULL) {
        keep_refusal(arrivals, g_strdup(error->message));
        transport_link_unref(link);
        return;
    }
    if (arrivals->list->len == COUNT_MAX)
        displace_oldest(arrivals);
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
        keep_refusal(arrivals, g_strdup(error->message));
    }
    return transport_handshake_linger(arrival->handshake) ? TRANSPORT_ERROR_RESULT : TRANSPORT_WAIT;
}

TransportResult
transport_arrivals_step(TransportArrivals *arrivals, TransportLink **ret_link)
{
    for (unsigned i = 0; i < arrivals->list->len;) {
        TransportResult result = step_one(arrivals, arrivals->list->pdata[i], ret_link);

        if (result == TRANSPORT_WAIT)
            i++;
        else
            g_ptr_array_remove_index(arrivals->list, i);
        if (result == TRANSPORT_OK)
            return TRANSPORT_OK;
    }
    return TRANSPORT_WAIT;
}

bool
transport_arrivals_is_empty(const TransportArrivals *arrivals)
{
    return arrivals->list->len == 0;
}

char *
transport_arrivals_take_refusal(TransportArrivals *arrivals)
{
    return g_steal_pointer(&arrivals->refusal);
}
