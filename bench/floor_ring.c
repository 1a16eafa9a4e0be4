/* SPDX-License-Identifier: MIT */
/*
 * Round trips over the engine's own transport without the engine: the same rings, the same kind of
 * send and receive, the same spin. What the plain floor lacks of it is io_uring's price; what a
 * fault takes beyond it is the engine's. Runs in two forked processes, like floor.c.
 */
#include "bench/clock.h"
#include "bench/floor.h"
#include "transport/transport.h"

#include <string.h>

typedef struct RingEnd {
    TransportRing *ring;
    TransportLink *link;
    TransportSender *sender;
    TransportReceiver *receiver;
    uint64_t spin_ns;
} RingEnd;

static void
wait_for_news(RingEnd *end)
{
    bool was_interrupted;
    if (!end->spin_ns || !transport_ring_spin(end->ring, end->spin_ns, &was_interrupted))
        transport_ring_wait(end->ring, 0);
}

static bool
ring_end_open(RingEnd *end, int fd, uint64_t spin_ns, GError **error)
{
    g_autofree char *uri = g_strdup_printf("fd:%d", fd);
    TransportResult result = TRANSPORT_WAIT;

    end->spin_ns = spin_ns;
    if (fd < 0 || !(end->ring = transport_ring_new(error)))
        return false;
    TransportConnector *connector = transport_connect(end->ring, uri, error);
    if (!connector)
        return false;
    while ((result = transport_connect_finish(connector, &end->link, error)) == TRANSPORT_WAIT)
        transport_ring_wait(end->ring, 0);
    transport_connector_free(connector);
    if (result != TRANSPORT_OK)
        return false;
    end->sender = transport_sender_new(end->ring, end->link);
    end->receiver = transport_receiver_new(end->ring, end->link);
    return true;
}

static void
ring_end_close(RingEnd *end)
{
    transport_receiver_free(end->receiver);
    transport_sender_free(end->sender);
    transport_link_unref(end->link);
    transport_ring_free(end->ring);
}

static bool
ring_send(RingEnd *end, const void *bytes, size_t length)
{
    const struct iovec iov = {.iov_base = (void *)bytes, .iov_len = length};
    const uint8_t *none;
    TransportResult result;

    /* Nothing is there yet; the receive that this asks for goes with the send. */
    transport_peek(end->receiver, 1, &none);
    /* The frame before has gone when its answer is here; its completion may come later. */
    while ((result = transport_send(end->sender, &iov, 1)) == TRANSPORT_WAIT)
        wait_for_news(end);
    return result == TRANSPORT_OK;
}

static bool
ring_receive(RingEnd *end, size_t length)
{
    const uint8_t *bytes;
    TransportResult result;

    while ((result = transport_peek(end->receiver, length, &bytes)) == TRANSPORT_WAIT)
        wait_for_news(end);
    if (result == TRANSPORT_OK)
        transport_consume(end->receiver, length);
    return result == TRANSPORT_OK;
}

bool
floor_answer_ring(const FloorPlan *plan, int link_fd, GError **error)
{
    static const char page[FAULTLINE_PAGE_BYTES] = {1};
    RingEnd end;
    int fd = bench_socket_connect(plan->is_unix, plan->netns, link_fd, error);

    if (!ring_end_open(&end, fd, plan->spin_ns, error))
        return false;
    while (ring_receive(&end, FLOOR_REQUEST_BYTES))
        if (!ring_send(&end, page, sizeof page))
            break;
    ring_end_close(&end);
    return true;
}

bool
floor_ask_ring(const FloorPlan *plan, int link_fd, double *us, GError **error)
{
    static const char request[FLOOR_REQUEST_BYTES];
    RingEnd end;
    int fd = bench_socket_accept(plan->is_unix, plan->netns, link_fd, error);

    if (!ring_end_open(&end, fd, plan->spin_ns, error))
        return false;
    for (uint64_t i = 0; i < plan->count; i++) {
        uint64_t begin = bench_ticks();
        if (!ring_send(&end, request, sizeof request) ||
            !ring_receive(&end, FAULTLINE_PAGE_BYTES)) {
            g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                                "measure round trips by io_uring: the connection broke");
            return false;
        }
        us[i] = (double)(bench_ticks() - begin) * bench_ns_per_tick() * 1e-3;
    }
    ring_end_close(&end);
    return true;
}
