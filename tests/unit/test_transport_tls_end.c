/* SPDX-License-Identifier: MIT */
/*
 * What may happen to records on their way, and how a TLS link ends: the test stands between the two
 * ends, or is itself one by GnuTLS's own calls.
 */
#include "tests/unit/test_transport_tls_pair.h"

#include <gnutls/gnutls.h>
#include <pthread.h>

/* ---- Between two ends -------------------------------------------------------------------------
 */

typedef struct {
    TlsMeeting meeting;
    int client_fd, server_fd; /* ours */
    TransportSender *sender;  /* of the client */
    TransportReceiver *receiver;
    uint8_t held[70000];
    size_t count_held;
} Middle;

static void
carry(int from, int to)
{
    uint8_t bytes[4096];
    ssize_t got;

    while ((got = recv(from, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        assert_int_equal(send(to, bytes, (size_t)got, 0), got);
}

static int
open_end(char **ret_uri)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    *ret_uri = g_strdup_printf("fd:%d", fds[0]);
    return fds[1];
}

static void
middle_begin(Middle *middle, TlsScene *scene)
{
    g_autofree char *client_uri = NULL, *server_uri = NULL;
    TlsMeeting *meeting = &middle->meeting;

    memset(middle, 0, sizeof *middle);
    *meeting = meeting_of(scene, TRANSPORT_TLS_PSK);
    middle->client_fd = open_end(&client_uri);
    middle->server_fd = open_end(&server_uri);
    meeting->listener = transport_listen(server_uri, NULL);
    meeting->connector = transport_connect(scene->ring, client_uri, NULL);
    assert_true(
        transport_listener_secure(meeting->listener, meeting->server_credentials, NULL, NULL));
    assert_true(
        transport_connector_secure(meeting->connector, meeting->client_credentials, NULL, NULL));
    meeting->client_result = TRANSPORT_WAIT;
    while (!meeting->client || !meeting->server) {
        meeting_step(meeting, scene->ring);
        assert_int_not_equal(meeting->client_result, TRANSPORT_ERROR_RESULT);
        carry(middle->client_fd, middle->server_fd);
        carry(middle->server_fd, middle->client_fd);
        transport_ring_wait(scene->ring, now_ns() + 1000000u);
    }
    carry(middle->client_fd, middle->server_fd);
    middle->sender = transport_sender_new(scene->ring, meeting->client);
    middle->receiver = transport_receiver_new(scene->ring, meeting->server);
}

static void
middle_end(Middle *middle)
{
    transport_sender_free(middle->sender);
    transport_receiver_free(middle->receiver);
    meeting_end(&middle->meeting);
    close(middle->client_fd);
    if (middle->server_fd >= 0)
        close(middle->server_fd);
}

/* What the client has sent is in our hands. */
static void
hold(Middle *middle, TlsScene *scene, const char *text)
{
    ssize_t got;

    send_text(scene->ring, middle->sender, text);
    while ((got = recv(middle->client_fd, middle->held + middle->count_held,
                       sizeof middle->held - middle->count_held, MSG_DONTWAIT)) > 0)
        middle->count_held += (size_t)got;
    assert_true(middle->count_held > strlen(text));
    assert_int_equal(middle->held[0], 23); /* application data */
}

static void
pass_on(Middle *middle, size_t from, size_t to)
{
    assert_int_equal(send(middle->server_fd, middle->held + from, to - from, 0),
                     (ssize_t)(to - from));
}

static void
stop_passing(Middle *middle)
{
    close(middle->server_fd);
    middle->server_fd = -1;
}

static void
expect_failure(Middle *middle, TlsScene *scene, const char *says)
{
    const uint8_t *bytes;

    assert_int_equal(wait_peek(scene->ring, middle->receiver, 1, &bytes), TRANSPORT_ERROR_RESULT);
    const char *text = transport_receiver_error(middle->receiver)->message;
    if (!strstr(text, says))
        fail_msg("%s", text);
}

static void
part_of_a_record_shows_nothing_until_it_is_whole(void **state)
{
    TlsScene *scene = *state;
    const uint8_t *bytes;
    Middle middle;

    middle_begin(&middle, scene);
    hold(&middle, scene, "a text that is sealed");
    for (size_t i = 0; i + 1 < middle.count_held; i++) {
        pass_on(&middle, i, i + 1);
        assert_int_equal(transport_peek(middle.receiver, 1, &bytes), TRANSPORT_WAIT);
        transport_ring_wait(scene->ring, now_ns() + 100000u);
        assert_int_equal(transport_peek(middle.receiver, 1, &bytes), TRANSPORT_WAIT);
        assert_int_equal(transport_available(middle.receiver), 0);
    }
    pass_on(&middle, middle.count_held - 1, middle.count_held);
    expect_text(scene->ring, middle.receiver, "a text that is sealed");
    middle_end(&middle);
}

static void
end_between_two_records_is_the_end(void **state)
{
    TlsScene *scene = *state;
    const uint8_t *bytes;
    Middle middle;

    middle_begin(&middle, scene);
    hold(&middle, scene, "the last");
    pass_on(&middle, 0, middle.count_held);
    stop_passing(&middle);
    expect_text(scene->ring, middle.receiver, "the last");
    assert_int_equal(wait_peek(scene->ring, middle.receiver, 1, &bytes), TRANSPORT_END);
    middle_end(&middle);
}

static void
end_within_a_record_is_an_error(void **state)
{
    TlsScene *scene = *state;

    for (size_t cut = 1; cut < 25; cut += 8) {
        Middle middle;

        middle_begin(&middle, scene);
        hold(&middle, scene, "never whole");
        pass_on(&middle, 0, cut);
        stop_passing(&middle);
        expect_failure(&middle, scene, "the peer closed the link in the middle");
        middle_end(&middle);
    }
}

static void
changed_byte_is_an_error(void **state)
{
    TlsScene *scene = *state;
    Middle middle;

    middle_begin(&middle, scene);
    hold(&middle, scene, "sound");
    middle.held[middle.count_held - 3] ^= 1;
    pass_on(&middle, 0, middle.count_held);
    expect_failure(&middle, scene, "was changed on its way");
    middle_end(&middle);
}

static void
record_that_comes_twice_is_an_error(void **state)
{
    TlsScene *scene = *state;
    Middle middle;

    middle_begin(&middle, scene);
    hold(&middle, scene, "once");
    pass_on(&middle, 0, middle.count_held);
    pass_on(&middle, 0, middle.count_held);
    expect_text(scene->ring, middle.receiver, "once");
    expect_failure(&middle, scene, "was changed on its way");
    middle_end(&middle);
}

static void
what_is_no_record_is_an_error(void **state)
{
    static const char *const strangers[] = {"QEVM\0\0\0\3", "\x17\x03\x03\xff\xff"};
    TlsScene *scene = *state;

    for (unsigned i = 0; i < G_N_ELEMENTS(strangers); i++) {
        Middle middle;

        middle_begin(&middle, scene);
        memcpy(middle.held, strangers[i], 5);
        pass_on(&middle, 0, 5);
        expect_failure(&middle, scene, "is no record of TLS");
        middle_end(&middle);
    }
}

static void
into_memory_ends_where_it_is_given_up(void **state)
{
    TlsScene *scene = *state;
    uint8_t memory[64];
    size_t done = 0;
    Middle middle;

    middle_begin(&middle, scene);
    hold(&middle, scene, "0123456789");
    pass_on(&middle, 0, middle.count_held);
    while (done < 10) {
        assert_int_equal(transport_receive_into(middle.receiver, memory, sizeof memory, &done),
                         TRANSPORT_WAIT);
        transport_ring_wait(scene->ring, now_ns() + 1000000u);
    }
    assert_memory_equal(memory, "0123456789", 10);
    transport_receive_leave(middle.receiver);
    middle.count_held = 0;
    hold(&middle, scene, "and on");
    pass_on(&middle, 0, middle.count_held);
    expect_text(scene->ring, middle.receiver, "and on");
    middle_end(&middle);
}

/* ---- What the peer can have -------------------------------------------------------------------
 */

static void
accepted_bytes_of_a_broken_sender_are_what_the_peer_can_read(void **state)
{
    TlsScene *scene = *state;
    TransportRing *ring = scene->ring;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_PSK);
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", scene->dir);
    size_t length = 8u << 20;
    g_autofree uint8_t *bytes = g_malloc0(length);
    struct iovec iov = {bytes, length};
    uint64_t received = 0;
    TransportResult result;
    const uint8_t *peeked;

    expect_meeting(&meeting, ring, uri);
    TransportSender *sender = transport_sender_new(ring, meeting.client);
    TransportReceiver *receiver = transport_receiver_new(ring, meeting.server);
    assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_OK);
    assert_int_equal(transport_sender_state(sender), TRANSPORT_WAIT); /* nobody reads */
    transport_link_shutdown(meeting.client);
    assert_int_equal(wait_sent(ring, sender), TRANSPORT_ERROR_RESULT);
    while ((result = wait_peek(ring, receiver, 1, &peeked)) == TRANSPORT_OK) {
        received += transport_available(receiver);
        transport_consume(receiver, transport_available(receiver));
    }
    assert_true(received < length);
    assert_int_equal(received, transport_sender_accepted_bytes(sender));
    transport_sender_free(sender);
    transport_receiver_free(receiver);
    meeting_end(&meeting);
}

/* ---- The test is the client -------------------------------------------------------------------
 */

typedef struct {
    int fd;
    int code; /* the first that was an error */
} Client;

static bool
said(gnutls_session_t tls, const char *word)
{
    return gnutls_record_send(tls, word, strlen(word)) == (ssize_t)strlen(word);
}

/* GnuTLS says AGAIN after a renewal, also where the socket blocks. */
static bool
heard(gnutls_session_t tls, const char *word)
{
    char bytes[64];
    ssize_t got;

    do {
        got = gnutls_record_recv(tls, bytes, sizeof bytes);
    } while (got == GNUTLS_E_AGAIN);
    return got == (ssize_t)strlen(word) && memcmp(bytes, word, strlen(word)) == 0;
}

static int
renew_and_say_goodbye(gnutls_session_t tls)
{
    if (!said(tls, "before") || !heard(tls, "answer"))
        return GNUTLS_E_INTERNAL_ERROR;
    for (unsigned i = 0; i < 4; i++) {
        int code = gnutls_session_key_update(tls, GNUTLS_KU_PEER);
        if (code < 0)
            return code;
        if (!said(tls, "after") || !heard(tls, "renewed"))
            return GNUTLS_E_INTERNAL_ERROR;
    }
    return gnutls_bye(tls, GNUTLS_SHUT_WR);
}

static void *
run_client(void *opaque)
{
    static const unsigned char key[] = "000102030405060708090a0b0c0d0e0f"
                                       "101112131415161718191a1b1c1d1e1f";
    const gnutls_datum_t datum = {(unsigned char *)key, sizeof key - 1};
    Client *client = opaque;
    gnutls_psk_client_credentials_t credentials;
    gnutls_session_t tls;

    gnutls_psk_allocate_client_credentials(&credentials);
    gnutls_psk_set_client_credentials(credentials, "qemu", &datum, GNUTLS_PSK_KEY_HEX);
    gnutls_init(&tls, GNUTLS_CLIENT);
    gnutls_priority_set_direct(tls, "NORMAL:+ECDHE-PSK:+DHE-PSK:+PSK", NULL);
    gnutls_credentials_set(tls, GNUTLS_CRD_PSK, credentials);
    gnutls_transport_set_int(tls, client->fd);
    do {
        client->code = gnutls_handshake(tls);
    } while (client->code == GNUTLS_E_AGAIN);
    if (client->code == GNUTLS_E_SUCCESS)
        client->code = renew_and_say_goodbye(tls);
    gnutls_deinit(tls);
    gnutls_psk_free_client_credentials(credentials);
    shutdown(client->fd, SHUT_RDWR); /* whoever waits for more has failed */
    return NULL;
}

static void
peer_that_renews_the_keys_is_followed_and_its_goodbye_is_the_end(void **state)
{
    TlsScene *scene = *state;
    TransportRing *ring = scene->ring;
    g_autofree char *uri = NULL;
    Client client = {.fd = open_end(&uri)};
    TransportCredentials *credentials =
        credentials_in(scene->dir, TRANSPORT_TLS_PSK, TRANSPORT_TLS_SERVER);
    TransportListener *listener = transport_listen(uri, NULL);
    TransportLink *link = NULL;
    const uint8_t *bytes;
    pthread_t thread;

    assert_true(transport_listener_secure(listener, credentials, NULL, NULL));
    assert_int_equal(pthread_create(&thread, NULL, run_client, &client), 0);
    assert_int_equal(wait_accept(ring, listener, &link), TRANSPORT_OK);
    TransportSender *sender = transport_sender_new(ring, link);
    TransportReceiver *receiver = transport_receiver_new(ring, link);
    expect_text(ring, receiver, "before");
    send_text(ring, sender, "answer");
    for (unsigned i = 0; i < 4; i++) {
        expect_text(ring, receiver, "after");
        send_text(ring, sender, "renewed");
    }
    assert_int_equal(wait_peek(ring, receiver, 1, &bytes), TRANSPORT_END);
    pthread_join(thread, NULL);
    assert_int_equal(client.code, GNUTLS_E_SUCCESS);
    transport_sender_free(sender);
    transport_receiver_free(receiver);
    transport_link_unref(link);
    transport_listener_free(listener);
    transport_credentials_unref(credentials);
    close(client.fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, tls_setup, tls_teardown)
        CASE(part_of_a_record_shows_nothing_until_it_is_whole),
        CASE(end_between_two_records_is_the_end),
        CASE(end_within_a_record_is_an_error),
        CASE(changed_byte_is_an_error),
        CASE(record_that_comes_twice_is_an_error),
        CASE(what_is_no_record_is_an_error),
        CASE(into_memory_ends_where_it_is_given_up),
        CASE(accepted_bytes_of_a_broken_sender_are_what_the_peer_can_read),
        CASE(peer_that_renews_the_keys_is_followed_and_its_goodbye_is_the_end),
#undef CASE
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
