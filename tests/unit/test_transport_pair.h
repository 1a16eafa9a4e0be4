/* SPDX-License-Identifier: MIT */
/*
 * What the transport tests share: a ring, and two connected ends on it.
 *
 * All helpers run in the test's thread and fail the test themselves.
 */
#ifndef TESTS_UNIT_TEST_TRANSPORT_PAIR_H
#define TESTS_UNIT_TEST_TRANSPORT_PAIR_H

#include "transport/transport.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Long enough for every machine; reached only by a test that fails. */
#define PATIENCE_NS 20000000000u

static inline uint64_t
now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline TransportRing *
make_ring(void)
{
    GError *error = NULL;
    TransportRing *ring = transport_ring_new(&error);

    if (ring == NULL)
        fail_msg("%s", error->message);
    return ring;
}

static inline TransportLink *
make_link_of(TransportRing *ring, int fd)
{
    g_autofree char *uri = g_strdup_printf("fd:%d", fd);
    TransportConnector *connector = transport_connect(ring, uri, NULL);
    TransportLink *link = NULL;

    assert_non_null(connector);
    assert_int_equal(transport_connect_finish(connector, &link, NULL), TRANSPORT_OK);
    transport_connector_free(connector);
    return link;
}

/* Connects by fd:N; the other end of the socket pair is returned raw. */
static inline TransportLink *
make_fd_link(TransportRing *ring, int *ret_peer)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *ret_peer = fds[1];
    return make_link_of(ring, fds[0]);
}

static inline TransportResult
wait_connect(TransportRing *ring, const char *uri, TransportLink **ret_link, GError **error)
{
    TransportConnector *connector = transport_connect(ring, uri, error);
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    TransportResult r;

    if (connector == NULL)
        return TRANSPORT_ERROR_RESULT;
    while ((r = transport_connect_finish(connector, ret_link, error)) == TRANSPORT_WAIT) {
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
    transport_connector_free(connector);
    return r;
}

static inline TransportResult
wait_accept(TransportRing *ring, TransportListener *listener, TransportLink **ret_link)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    TransportResult r;

    while ((r = transport_accept(listener, ring, ret_link, NULL)) == TRANSPORT_WAIT) {
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
    return r;
}

static inline TransportResult
wait_peek(TransportRing *ring, TransportReceiver *receiver, size_t length,
          const uint8_t **ret_bytes)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    TransportResult r;

    while ((r = transport_peek(receiver, length, ret_bytes)) == TRANSPORT_WAIT) {
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
    return r;
}

static inline TransportResult
wait_sent(TransportRing *ring, TransportSender *sender)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    TransportResult r;

    while ((r = transport_sender_state(sender)) == TRANSPORT_WAIT) {
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
    return r;
}

static inline void
send_text(TransportRing *ring, TransportSender *sender, const char *text)
{
    struct iovec iov = {.iov_base = (void *)text, .iov_len = strlen(text)};

    assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_OK);
    assert_int_equal(wait_sent(ring, sender), TRANSPORT_OK);
}

static inline void
expect_text(TransportRing *ring, TransportReceiver *receiver, const char *text)
{
    const uint8_t *bytes;

    assert_int_equal(wait_peek(ring, receiver, strlen(text), &bytes), TRANSPORT_OK);
    assert_memory_equal(bytes, text, strlen(text));
    transport_consume(receiver, strlen(text));
}

#endif
