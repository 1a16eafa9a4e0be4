/* SPDX-License-Identifier: MIT */
/*
 * Receivers over real sockets, received by the ring and looked for: order, half-closes, cuts in the
 * middle, resets, spinning, and giving up.
 */
#include "tests/unit/test_transport_pair.h"

#include <poll.h>

static bool looks; /* by transport_receiver_look() */

static int
ring_setup(void **state)
{
    looks = false;
    *state = make_ring();
    return 0;
}

static int
looking_setup(void **state)
{
    ring_setup(state);
    looks = true;
    return 0;
}

static int
ring_teardown(void **state)
{
    transport_ring_free(*state);
    return 0;
}

typedef struct {
    TransportRing *ring;
    TransportLink *link;
    TransportReceiver *receiver;
    int peer;
} Receiving;

static Receiving
begin_receiving(TransportRing *ring)
{
    Receiving receiving = {.ring = ring};

    receiving.link = make_fd_link(ring, &receiving.peer);
    receiving.receiver = transport_receiver_new(ring, receiving.link);
    if (looks)
        transport_receiver_look(receiving.receiver);
    return receiving;
}

static void
end_receiving(Receiving *receiving)
{
    transport_receiver_free(receiving->receiver);
    transport_link_unref(receiving->link);
    if (receiving->peer >= 0)
        close(receiving->peer);
}

static void
peek_in_odd_lengths_keeps_order(void **state)
{
    Receiving receiving = begin_receiving(*state);
    g_autofree uint8_t *chunk = g_malloc(50000);
    uint64_t sent = 0, taken = 0;
    const uint8_t *bytes;

    for (unsigned turn = 0; taken < 8u << 20; turn++) {
        size_t length = turn % 5 == 0 ? TRANSPORT_PEEK_MAX : 1 + turn * 7919u % 60000;
        TransportResult r = transport_peek(receiving.receiver, length, &bytes);

        while (r == TRANSPORT_WAIT) {
            ssize_t n;

            for (size_t i = 0; i < 50000; i++)
                chunk[i] = (uint8_t)((sent + i) % 251);
            n = send(receiving.peer, chunk, 50000, MSG_DONTWAIT);
            sent += n > 0 ? (uint64_t)n : 0;
            transport_ring_wait(*state, now_ns() + PATIENCE_NS);
            r = transport_peek(receiving.receiver, length, &bytes);
        }
        assert_int_equal(r, TRANSPORT_OK);
        for (size_t i = 0; i < length; i++)
            if (bytes[i] != (taken + i) % 251)
                fail_msg("byte %zu is wrong", (size_t)taken + i);
        transport_consume(receiving.receiver, length);
        taken += length;
    }
    assert_int_equal(transport_receiver_count_bytes(receiving.receiver),
                     taken + transport_available(receiving.receiver));
    end_receiving(&receiving);
}

static void
peek_after_half_close_gives_leftovers_then_end(void **state)
{
    Receiving receiving = begin_receiving(*state);
    TransportSender *sender = transport_sender_new(*state, receiving.link);
    const uint8_t *bytes;
    char answer[3];

    assert_int_equal(write(receiving.peer, "abcdef", 6), 6);
    assert_int_equal(shutdown(receiving.peer, SHUT_WR), 0);
    assert_int_equal(wait_peek(*state, receiving.receiver, 4, &bytes), TRANSPORT_OK);
    transport_consume(receiving.receiver, 4);
    assert_int_equal(wait_peek(*state, receiving.receiver, 3, &bytes), TRANSPORT_ERROR_RESULT);
    assert_int_equal(wait_peek(*state, receiving.receiver, 2, &bytes), TRANSPORT_OK);
    assert_memory_equal(bytes, "ef", 2);
    transport_consume(receiving.receiver, 2);
    assert_int_equal(wait_peek(*state, receiving.receiver, 1, &bytes), TRANSPORT_END);
    send_text(*state, sender, "bye"); /* the other half is still open */
    assert_int_equal(recv(receiving.peer, answer, 3, MSG_WAITALL), 3);
    transport_sender_free(sender);
    end_receiving(&receiving);
}

static void
peek_cut_in_the_middle_reports_error(void **state)
{
    Receiving receiving = begin_receiving(*state);
    const uint8_t *bytes;

    assert_int_equal(write(receiving.peer, "abc", 3), 3);
    assert_int_equal(transport_peek(receiving.receiver, 8, &bytes), TRANSPORT_WAIT);
    assert_null(transport_receiver_error(receiving.receiver));
    close(receiving.peer);
    receiving.peer = -1;
    assert_int_equal(wait_peek(*state, receiving.receiver, 8, &bytes), TRANSPORT_ERROR_RESULT);
    assert_int_equal(transport_receiver_error(receiving.receiver)->code, TRANSPORT_ERROR_LINK);
    assert_non_null(strstr(transport_receiver_error(receiving.receiver)->message, "only 3 came"));
    end_receiving(&receiving);
}

static void
peek_after_reset_gives_bytes_then_error(void **state)
{
    TransportListener *listener = transport_listen("tcp:127.0.0.1:0", NULL);
    TransportLink *client = NULL, *server = NULL;
    TransportReceiver *receiver, *unread;
    TransportSender *sender, *server_sender;
    const uint8_t *bytes;

    assert_int_equal(wait_connect(*state, transport_listener_address(listener), &client, NULL),
                     TRANSPORT_OK);
    assert_int_equal(wait_accept(*state, listener, &server), TRANSPORT_OK);
    receiver = transport_receiver_new(*state, client);
    unread = transport_receiver_new(*state, server);
    sender = transport_sender_new(*state, client);
    server_sender = transport_sender_new(*state, server);
    send_text(*state, server_sender, "last");
    assert_int_equal(wait_peek(*state, receiver, 1, &bytes), TRANSPORT_OK);
    send_text(*state, sender, "never read, so that the close resets");
    transport_receiver_free(unread);
    transport_sender_free(server_sender);
    transport_link_unref(server);
    transport_consume(receiver, 1);
    assert_int_equal(wait_peek(*state, receiver, 3, &bytes), TRANSPORT_OK);
    assert_int_equal(wait_peek(*state, receiver, 4, &bytes), TRANSPORT_ERROR_RESULT);
    assert_int_equal(transport_receiver_error(receiver)->code, TRANSPORT_ERROR_LINK);
    transport_consume(receiver, 3);
    assert_int_equal(wait_peek(*state, receiver, 1, &bytes), TRANSPORT_ERROR_RESULT);
    transport_receiver_free(receiver);
    transport_sender_free(sender);
    transport_link_unref(client);
    transport_listener_free(listener);
}

static void
receiver_free_in_flight_closes_the_socket(void **state)
{
    Receiving receiving = begin_receiving(*state);
    struct pollfd closed = {.fd = receiving.peer, .events = POLLIN};
    const uint8_t *bytes;

    assert_int_equal(transport_peek(receiving.receiver, 1, &bytes), TRANSPORT_WAIT);
    transport_receiver_free(receiving.receiver);
    receiving.receiver = NULL;
    transport_link_unref(receiving.link);
    receiving.link = NULL;
    assert_int_equal(poll(&closed, 1, 20000), 1);
    assert_true(closed.revents & POLLHUP);
    end_receiving(&receiving);
}

/* One message a spin, each followed by a look at nothing; then the end, which comes behind the last
 * one without a wait in between. */
static void
spin_shows_each_message_and_the_end(void **state)
{
    Receiving receiving = begin_receiving(*state);
    const uint8_t *bytes;
    TransportResult r;
    bool interrupted;

    for (unsigned i = 0; i < 1000; i++) {
        char byte = (char)i;

        assert_int_equal(transport_peek(receiving.receiver, 1, &bytes), TRANSPORT_WAIT);
        assert_int_equal(write(receiving.peer, &byte, 1), 1);
        if (i == 999)
            assert_int_equal(shutdown(receiving.peer, SHUT_WR), 0);
        while ((r = transport_peek(receiving.receiver, 1, &bytes)) == TRANSPORT_WAIT)
            if (!transport_ring_spin(*state, 1000000, &interrupted))
                transport_ring_wait(*state, now_ns() + PATIENCE_NS);
        assert_int_equal(r, TRANSPORT_OK);
        assert_int_equal(bytes[0], (uint8_t)byte);
        transport_consume(receiving.receiver, 1);
    }
    assert_int_equal(wait_peek(*state, receiving.receiver, 1, &bytes), TRANSPORT_END);
    end_receiving(&receiving);
}

/* News that nobody looks at do not make each spin end at once. */
static void
spin_with_news_of_no_interest_ends(void **state)
{
    Receiving receiving = begin_receiving(*state);
    const uint8_t *bytes;
    unsigned count_news = 0;
    bool interrupted;

    assert_int_equal(transport_peek(receiving.receiver, 1, &bytes), TRANSPORT_WAIT);
    assert_false(transport_ring_spin(*state, 1000,
                                     &interrupted)); /* the receive, or the poll, is under way */
    assert_int_equal(write(receiving.peer, "a", 1), 1);
    while (transport_ring_spin(*state, 1000, &interrupted))
        assert_true(++count_news < 5);
    assert_int_equal(transport_peek(receiving.receiver, 1, &bytes), TRANSPORT_OK);
    end_receiving(&receiving);
}

int
main(void)
{
#define CASE(name)                                                                                 \
    cmocka_unit_test_setup_teardown(name, ring_setup, ring_teardown),                              \
    {                                                                                              \
#name "_by_looking", name, looking_setup, ring_teardown, NULL                              \
    }
    const struct CMUnitTest tests[] = {
        CASE(peek_in_odd_lengths_keeps_order),
        CASE(peek_after_half_close_gives_leftovers_then_end),
        CASE(peek_cut_in_the_middle_reports_error),
        CASE(peek_after_reset_gives_bytes_then_error),
        CASE(spin_shows_each_message_and_the_end),
        CASE(spin_with_news_of_no_interest_ends),
        CASE(receiver_free_in_flight_closes_the_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
