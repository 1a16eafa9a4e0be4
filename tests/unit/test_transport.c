/* SPDX-License-Identifier: MIT */
/*
 * Senders over real sockets: echo over all kinds of addresses, large frames, slow peers, ends.
 */
#include "tests/unit/test_transport_pair.h"

#include <netinet/in.h>
#include <stdlib.h>

static int
ring_setup(void **state)
{
    *state = make_ring();
    return 0;
}

static int
ring_teardown(void **state)
{
    transport_ring_free(*state);
    return 0;
}

/* ---- Echo ---- */

/* Both directions, then the end: what client and server links must do whatever they run over. */
static void
check_echo(TransportRing *ring, TransportLink *client, TransportLink *server)
{
    TransportSender *client_sender = transport_sender_new(ring, client);
    TransportReceiver *client_receiver = transport_receiver_new(ring, client);
    TransportSender *server_sender = transport_sender_new(ring, server);
    TransportReceiver *server_receiver = transport_receiver_new(ring, server);
    const uint8_t *bytes;

    send_text(ring, client_sender, "four little words");
    expect_text(ring, server_receiver, "four little words");
    send_text(ring, server_sender, "and an answer");
    expect_text(ring, client_receiver, "and an answer");
    assert_int_equal(transport_sender_accepted_bytes(client_sender), strlen("four little words"));
    assert_int_equal(transport_receiver_count_bytes(client_receiver), strlen("and an answer"));
    transport_link_shutdown(client);
    assert_int_equal(wait_peek(ring, server_receiver, 1, &bytes), TRANSPORT_END);
    transport_sender_free(client_sender);
    transport_receiver_free(client_receiver);
    transport_sender_free(server_sender);
    transport_receiver_free(server_receiver);
}

static void
check_echo_over(TransportRing *ring, const char *uri)
{
    GError *error = NULL;
    TransportListener *listener = transport_listen(uri, &error);
    TransportLink *client = NULL, *server = NULL;

    if (listener == NULL)
        fail_msg("%s", error->message);
    assert_int_equal(transport_accept(listener, ring, &server, NULL), TRANSPORT_WAIT);
    assert_int_equal(wait_connect(ring, transport_listener_address(listener), &client, NULL),
                     TRANSPORT_OK);
    assert_int_equal(wait_accept(ring, listener, &server), TRANSPORT_OK);
    check_echo(ring, client, server);
    transport_link_unref(client);
    transport_link_unref(server);
    transport_listener_free(listener);
}

static void
echo_over_tcp4_arrives(void **state)
{
    check_echo_over(*state, "tcp:127.0.0.1:0");
}

static void
echo_over_tcp_name_arrives(void **state)
{
    g_autoptr(GError) error = NULL;
    TransportListener *listener = transport_listen("tcp:localhost:0", &error);

    /* A minimal system has no /etc/hosts. */
    if (listener == NULL) {
        print_message("skipped: no name to try: %s\n", error->message);
        skip();
    }
    transport_listener_free(listener);
    check_echo_over(*state, "tcp:localhost:0");
}

static void
echo_over_tcp_any_host_arrives(void **state)
{
    check_echo_over(*state, "tcp::0");
}

static void
echo_over_tcp6_arrives(void **state)
{
    g_autoptr(GError) error = NULL;
    TransportListener *listener = transport_listen("tcp:[::1]:0", &error);

    if (listener == NULL) {
        print_message("skipped: no IPv6 loopback here: %s\n", error->message);
        skip();
    }
    transport_listener_free(listener);
    check_echo_over(*state, "tcp:[::1]:0");
}

static void
echo_over_unix_arrives(void **state)
{
    g_autofree char *folder = g_dir_make_tmp("transport-XXXXXX", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", folder);

    check_echo_over(*state, uri);
    assert_int_equal(rmdir(folder), 0); /* the listener removed its path */
}

static void
echo_over_connected_fds_arrives(void **state)
{
    g_autofree char *uri = NULL;
    g_autoptr(GError) error = NULL;
    TransportLink *client, *server = NULL, *second = NULL;
    TransportListener *listener;
    int peer;

    client = make_fd_link(*state, &peer);
    uri = g_strdup_printf("fd:%d", peer);
    listener = transport_listen(uri, NULL);
    assert_non_null(listener);
    assert_string_equal(transport_listener_address(listener), uri);
    assert_int_equal(wait_accept(*state, listener, &server), TRANSPORT_OK);
    assert_int_equal(transport_accept(listener, *state, &second, &error), TRANSPORT_ERROR_RESULT);
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK));
    transport_listener_free(listener);
    check_echo(*state, client, server);
    transport_link_unref(client);
    transport_link_unref(server);
}

/* ---- Sending ---- */

#define COUNT_PIECES 1000u
#define PIECE_BYTES  4097u

static void
send_thousand_pieces_to_slow_reader_arrives(void **state)
{
    const size_t total = (size_t)COUNT_PIECES * PIECE_BYTES;
    g_autofree uint8_t *bytes = g_malloc(total), *got = g_malloc(total);
    g_autofree struct iovec *iov = g_new0(struct iovec, COUNT_PIECES), *copy = NULL;
    TransportSender *sender;
    TransportLink *link;
    int fds[2], peer, small = 1;
    size_t count_got = 0;

    for (size_t i = 0; i < total; i++)
        bytes[i] = (uint8_t)(i * 2654435761u >> 13);
    for (size_t i = 0; i < COUNT_PIECES; i++) /* in no order, some of them empty */
        iov[i] = (struct iovec){.iov_base = bytes + i * PIECE_BYTES,
                                .iov_len = i % 7 == 3 ? 0 : PIECE_BYTES};
    copy = g_memdup2(iov, COUNT_PIECES * sizeof *iov);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof small), 0);
    link = make_link_of(*state, fds[0]);
    peer = fds[1];
    sender = transport_sender_new(*state, link);
    assert_int_equal(transport_send(sender, iov, COUNT_PIECES), TRANSPORT_OK);
    assert_int_equal(transport_send(sender, iov, 1), TRANSPORT_WAIT);
    do {
        ssize_t n = recv(peer, got + count_got, MIN(total - count_got, 3000), MSG_DONTWAIT);

        assert_true(n > 0 || errno == EAGAIN);
        count_got += n > 0 ? (size_t)n : 0;
        if (n < 0)
            transport_ring_wait(*state, now_ns() + 1000000);
    } while (transport_sender_state(sender) == TRANSPORT_WAIT);
    assert_int_equal(transport_sender_state(sender), TRANSPORT_OK);
    transport_sender_free(sender);
    transport_link_unref(link);
    for (ssize_t n; (n = recv(peer, got + count_got, total - count_got, 0)) > 0;)
        count_got += (size_t)n;
    close(peer);
    assert_memory_equal(copy, iov, COUNT_PIECES * sizeof *iov);
    for (size_t i = 0, at = 0; i < COUNT_PIECES; at += iov[i++].iov_len)
        assert_memory_equal(got + at, iov[i].iov_base, iov[i].iov_len);
    assert_int_equal(count_got, total - PIECE_BYTES * ((COUNT_PIECES + 3) / 7));
}

/* The kernel takes less than 2 GiB at once, so that the rest of the frame is our business. */
static void
send_frame_over_2_gib_arrives_in_order(void **state)
{
    const size_t piece_bytes = 2200000, tail_bytes = 60000;
    g_autofree uint8_t *zeros = g_malloc0(piece_bytes), *tail = g_malloc(tail_bytes);
    g_autofree uint8_t *got = g_malloc(tail_bytes);
    g_autofree struct iovec *iov = g_new0(struct iovec, TRANSPORT_IOV_MAX);
    const uint64_t head_bytes = (uint64_t)piece_bytes * (TRANSPORT_IOV_MAX - 1);
    TransportListener *listener = transport_listen("tcp:127.0.0.1:0", NULL);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    TransportLink *link = NULL;
    TransportSender *sender;

    address.sin_port =
        htons((uint16_t)atoi(strrchr(transport_listener_address(listener), ':') + 1));
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(wait_accept(*state, listener, &link), TRANSPORT_OK);
    for (size_t i = 0; i < tail_bytes; i++)
        tail[i] = (uint8_t)(i % 253 + 1);
    for (unsigned i = 0; i < TRANSPORT_IOV_MAX; i++)
        iov[i] = (struct iovec){.iov_base = zeros, .iov_len = piece_bytes};
    iov[TRANSPORT_IOV_MAX - 1] = (struct iovec){.iov_base = tail, .iov_len = tail_bytes};
    sender = transport_sender_new(*state, link);
    assert_int_equal(transport_send(sender, iov, TRANSPORT_IOV_MAX), TRANSPORT_OK);
    for (uint64_t left = head_bytes; left != 0;) { /* TCP drops what is received with MSG_TRUNC */
        ssize_t n = recv(fd, NULL, MIN(left, 16u << 20), MSG_TRUNC | MSG_DONTWAIT);

        assert_true(n > 0 || (n < 0 && errno == EAGAIN));
        left -= n > 0 ? (uint64_t)n : 0;
        if (transport_sender_state(sender) == TRANSPORT_WAIT && n < 0)
            transport_ring_wait(*state, now_ns() + 100000);
    }
    assert_int_equal(wait_sent(*state, sender), TRANSPORT_OK);
    assert_int_equal(recv(fd, got, tail_bytes, MSG_WAITALL), tail_bytes);
    assert_memory_equal(got, tail, tail_bytes);
    assert_int_equal(transport_sender_accepted_bytes(sender), head_bytes + tail_bytes);
    transport_sender_free(sender);
    transport_link_unref(link);
    transport_listener_free(listener);
    close(fd);
}

static void
send_nothing_is_taken_at_once(void **state)
{
    struct iovec iov = {.iov_base = NULL, .iov_len = 0};
    int peer;
    TransportLink *link = make_fd_link(*state, &peer);
    TransportSender *sender = transport_sender_new(*state, link);

    assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_OK);
    assert_int_equal(transport_send(sender, NULL, 0), TRANSPORT_OK);
    assert_int_equal(transport_sender_state(sender), TRANSPORT_OK);
    assert_int_equal(transport_sender_accepted_bytes(sender), 0);
    transport_sender_free(sender);
    transport_link_unref(link);
    close(peer);
}

/* Reads what is there, up to max bytes: each read may let the sender go on. Returns how many. */
static size_t
drain(int peer, size_t max)
{
    uint8_t bytes[65536];
    size_t count = 0;

    for (ssize_t n; count < max && (n = recv(peer, bytes, sizeof bytes, MSG_DONTWAIT)) > 0;)
        count += (size_t)n;
    return count;
}

static void
send_broken_midway_counts_accepted_bytes(void **state)
{
    const size_t total = 16u << 20;
    g_autofree uint8_t *bytes = g_malloc0(total);
    struct iovec iov = {.iov_base = bytes, .iov_len = total};
    int peer;
    TransportLink *link = make_fd_link(*state, &peer);
    TransportSender *sender = transport_sender_new(*state, link);
    size_t count_got;

    assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_OK);
    count_got = drain(peer, 1u << 20);
    assert_int_equal(transport_sender_state(sender), TRANSPORT_WAIT);
    transport_link_shutdown(link);
    assert_int_equal(wait_sent(*state, sender), TRANSPORT_ERROR_RESULT);
    count_got += drain(peer, total);
    assert_true(count_got > 0);
    assert_int_equal(transport_sender_accepted_bytes(sender), count_got);
    assert_non_null(transport_sender_error(sender));
    assert_int_equal(transport_sender_error(sender)->code, TRANSPORT_ERROR_LINK);
    assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_ERROR_RESULT);
    transport_sender_free(sender);
    transport_link_unref(link);
    close(peer);
}

static void
sender_free_in_flight_stops_reading_memory(void **state)
{
    const size_t total = 8u << 20;
    uint8_t *bytes = g_malloc0(total);
    struct iovec iov = {.iov_base = bytes, .iov_len = total};
    int peer;
    TransportLink *link = make_fd_link(*state, &peer);
    TransportSender *sender = transport_sender_new(*state, link);
    size_t count_got;

    assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_OK);
    assert_int_equal(transport_sender_state(sender), TRANSPORT_WAIT);
    transport_sender_free(sender);
    memset(bytes, 0xff, total);
    g_free(bytes);
    transport_link_unref(link);
    count_got = drain(peer, total); /* ends: the socket is closed, nothing holds it */
    assert_true(count_got < total);
    assert_int_equal(recv(peer, &count_got, 1, 0), 0);
    close(peer);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, ring_setup, ring_teardown)
    const struct CMUnitTest tests[] = {
        CASE(echo_over_tcp4_arrives),
        CASE(echo_over_tcp_name_arrives),
        CASE(echo_over_tcp_any_host_arrives),
        CASE(echo_over_tcp6_arrives),
        CASE(echo_over_unix_arrives),
        CASE(echo_over_connected_fds_arrives),
        CASE(send_thousand_pieces_to_slow_reader_arrives),
        CASE(send_frame_over_2_gib_arrives_in_order),
        CASE(send_nothing_is_taken_at_once),
        CASE(send_broken_midway_counts_accepted_bytes),
        CASE(sender_free_in_flight_stops_reading_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
