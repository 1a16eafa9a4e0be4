/* SPDX-License-Identifier: MIT */
/*
 * TLS links do what plain links do: over every kind of address, with certificates and keys, in
 * pieces of any size, into the caller's memory, and to the end.
 */
#include "tests/unit/test_transport_tls_pair.h"

#include <pthread.h>
#include <stdlib.h>

#define BULK_BYTES (24u * 1024u * 1024u)

typedef struct {
    TransportSender *client_sender, *server_sender;
    TransportReceiver *client_receiver, *server_receiver;
} Ends;

static Ends
make_ends(TransportRing *ring, const TlsMeeting *meeting)
{
    return (Ends){transport_sender_new(ring, meeting->client),
                  transport_sender_new(ring, meeting->server),
                  transport_receiver_new(ring, meeting->client),
                  transport_receiver_new(ring, meeting->server)};
}

static void
free_ends(Ends *ends)
{
    transport_sender_free(ends->client_sender);
    transport_sender_free(ends->server_sender);
    transport_receiver_free(ends->client_receiver);
    transport_receiver_free(ends->server_receiver);
}

static void
check_echo(TransportRing *ring, TlsMeeting *meeting, const char *uri)
{
    const uint8_t *bytes;

    expect_meeting(meeting, ring, uri);
    Ends ends = make_ends(ring, meeting);
    send_text(ring, ends.client_sender, "four little words");
    expect_text(ring, ends.server_receiver, "four little words");
    send_text(ring, ends.server_sender, "and an answer");
    expect_text(ring, ends.client_receiver, "and an answer");
    assert_int_equal(transport_sender_accepted_bytes(ends.client_sender), 17);
    assert_int_equal(transport_receiver_count_bytes(ends.client_receiver), 13);
    transport_link_shutdown(meeting->client);
    assert_int_equal(wait_peek(ring, ends.server_receiver, 1, &bytes), TRANSPORT_END);
    free_ends(&ends);
    meeting_end(meeting);
}

static void
echo_by_keys_over_tcp(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_PSK);

    check_echo(scene->ring, &meeting, "tcp:127.0.0.1:0");
}

static void
echo_by_certificates_over_tcp_checks_the_host_of_the_uri(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_X509);

    meeting.hostname = NULL; /* 127.0.0.1 is in the certificate */
    check_echo(scene->ring, &meeting, "tcp:127.0.0.1:0");
}

static void
echo_by_keys_over_unix(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_PSK);
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", scene->dir);

    check_echo(scene->ring, &meeting, uri);
}

static void
echo_by_certificates_over_unix_checks_the_name_given(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_X509);
    g_autofree char *uri = g_strdup_printf("unix:%s/socket", scene->dir);

    check_echo(scene->ring, &meeting, uri);
}

static void
echo_over_a_connected_descriptor(void **state)
{
    TlsScene *scene = *state;
    TransportRing *ring = scene->ring;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_PSK);
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    g_autofree char *server_uri = g_strdup_printf("fd:%d", fds[0]);
    g_autofree char *client_uri = g_strdup_printf("fd:%d", fds[1]);
    meeting.listener = transport_listen(server_uri, NULL);
    assert_true(
        transport_listener_secure(meeting.listener, meeting.server_credentials, NULL, NULL));
    meeting.connector = transport_connect(ring, client_uri, NULL);
    assert_true(
        transport_connector_secure(meeting.connector, meeting.client_credentials, NULL, NULL));
    meeting.client_result = TRANSPORT_WAIT;
    while (!meeting.client || !meeting.server) {
        meeting_step(&meeting, ring);
        assert_int_not_equal(meeting.client_result, TRANSPORT_ERROR_RESULT);
        if (!meeting.client || !meeting.server)
            transport_ring_wait(ring, now_ns() + PATIENCE_NS);
    }
    Ends ends = make_ends(ring, &meeting);
    send_text(ring, ends.client_sender, "by descriptor");
    expect_text(ring, ends.server_receiver, "by descriptor");
    free_ends(&ends);
    meeting_end(&meeting);
}

static void
client_without_a_certificate_is_fine_where_peers_are_not_verified(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = {.hostname = "localhost"};

    certificates_drop(scene->dir, "client-cert.pem");
    certificates_drop(scene->dir, "client-key.pem");
    meeting.client_credentials =
        credentials_in(scene->dir, TRANSPORT_TLS_X509, TRANSPORT_TLS_CLIENT);
    meeting.server_credentials =
        credentials_of(&(TransportTlsOptions){.kind = TRANSPORT_TLS_X509,
                                              .endpoint = TRANSPORT_TLS_SERVER,
                                              .dir = scene->dir,
                                              .skips_peer = true});
    check_echo(scene->ring, &meeting, "tcp:127.0.0.1:0");
}

static void
authorized_name_comes_in(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_X509);
    const TransportAuthzRule rules[] = {{"CN=source", false, true}};

    meeting.authz = transport_authz_new(rules, 1, false);
    check_echo(scene->ring, &meeting, "tcp:127.0.0.1:0");
}

/* ---- Bulk, both ways at once, each end on its own thread ---- */

typedef struct {
    TransportLink *link;
    uint8_t seed;
    bool uses_into;
    bool was_good;
} BulkEnd;

static uint8_t
bulk_byte(uint8_t seed, size_t offset)
{
    return (uint8_t)(seed + offset * 7 + (offset >> 12) * 13);
}

/* Pieces of very different sizes, as headers and runs of pages are. */
static unsigned
cut(struct iovec *iov, uint8_t *bytes, size_t length)
{
    static const size_t sizes[] = {8, 4096, 1, 65536, 8, 12288, 16384, 16385, 3};
    unsigned count = 0;

    for (size_t offset = 0; offset < length && count < 64; count++) {
        size_t size = MIN(sizes[count % G_N_ELEMENTS(sizes)], length - offset);

        iov[count] = (struct iovec){bytes + offset, size};
        offset += size;
    }
    return count;
}

static size_t
iov_length(const struct iovec *iov, unsigned count)
{
    size_t length = 0;

    for (unsigned i = 0; i < count; i++)
        length += iov[i].iov_len;
    return length;
}

/* How many bytes came, at least one, into the end of what is there. */
static size_t
take_some(TransportReceiver *receiver, uint8_t *bytes, size_t left, bool uses_into, bool *ret_waits)
{
    const uint8_t *peeked;
    size_t done = 0, wanted = MIN(left, 40000u);

    if (uses_into && left > 8) {
        TransportResult result = transport_receive_into(receiver, bytes, wanted, &done);
        *ret_waits = result == TRANSPORT_WAIT;
        return result == TRANSPORT_OK ? wanted : 0;
    }
    *ret_waits = transport_peek(receiver, 1, &peeked) != TRANSPORT_OK;
    if (*ret_waits)
        return 0;
    done = MIN(left, transport_available(receiver));
    memcpy(bytes, peeked, done);
    transport_consume(receiver, done);
    return done;
}

static void *
bulk_end(void *opaque)
{
    BulkEnd *end = opaque;
    TransportRing *ring = transport_ring_new(NULL);
    TransportSender *sender = transport_sender_new(ring, end->link);
    TransportReceiver *receiver = transport_receiver_new(ring, end->link);
    g_autofree uint8_t *out = g_malloc(BULK_BYTES), *in = g_malloc(BULK_BYTES);
    struct iovec iov[64];
    size_t sent = 0, received = 0;
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;

    for (size_t i = 0; i < BULK_BYTES; i++)
        out[i] = bulk_byte(end->seed, i);
    while ((sent < BULK_BYTES || received < BULK_BYTES ||
            transport_sender_state(sender) == TRANSPORT_WAIT) &&
           now_ns() < deadline_ns && !transport_sender_error(sender) &&
           !transport_receiver_error(receiver)) {
        bool waits = true, can_send = sent < BULK_BYTES;

        if (can_send && transport_sender_state(sender) == TRANSPORT_OK) {
            unsigned count = cut(iov, out + sent, BULK_BYTES - sent);
            transport_send(sender, iov, count);
            sent += iov_length(iov, count);
        }
        if (received < BULK_BYTES)
            received +=
                take_some(receiver, in + received, BULK_BYTES - received, end->uses_into, &waits);
        if (waits && (!can_send || transport_sender_state(sender) == TRANSPORT_WAIT))
            transport_ring_wait(ring, now_ns() + 1000000000u);
    }
    end->was_good = received == BULK_BYTES &&
                    transport_sender_accepted_bytes(sender) == BULK_BYTES &&
                    transport_receiver_count_bytes(receiver) == BULK_BYTES;
    for (size_t i = 0; i < received && end->was_good; i++)
        end->was_good = in[i] == bulk_byte((uint8_t)(end->seed ^ 0x55), i);
    transport_receiver_free(receiver);
    transport_sender_free(sender);
    transport_ring_free(ring);
    return NULL;
}

static void
check_bulk(TlsScene *scene, bool uses_into)
{
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_PSK);
    BulkEnd ends[2];
    pthread_t thread;

    expect_meeting(&meeting, scene->ring, "tcp:127.0.0.1:0");
    ends[0] = (BulkEnd){.link = meeting.client, .seed = 0x12, .uses_into = uses_into};
    ends[1] = (BulkEnd){.link = meeting.server, .seed = 0x12 ^ 0x55, .uses_into = uses_into};
    assert_int_equal(pthread_create(&thread, NULL, bulk_end, &ends[0]), 0);
    bulk_end(&ends[1]);
    pthread_join(thread, NULL);
    assert_true(ends[0].was_good);
    assert_true(ends[1].was_good);
    meeting_end(&meeting);
}

static void
bulk_both_ways_arrives_whole(void **state)
{
    check_bulk(*state, false);
}

static void
bulk_into_memory_arrives_whole(void **state)
{
    check_bulk(*state, true);
}

/* ---- Two threads of one link ---- */

static void *
receive_bulk(void *opaque)
{
    BulkEnd *end = opaque;
    TransportRing *ring = transport_ring_new(NULL);
    TransportReceiver *receiver = transport_receiver_new(ring, end->link);
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    const uint8_t *bytes;
    size_t received = 0;

    transport_receiver_look(receiver);
    end->was_good = true;
    while (received < BULK_BYTES && end->was_good && now_ns() < deadline_ns) {
        TransportResult result = transport_peek(receiver, 1, &bytes);
        if (result == TRANSPORT_WAIT) {
            transport_ring_wait(ring, now_ns() + 1000000000u);
            continue;
        }
        end->was_good = result == TRANSPORT_OK;
        size_t available = result == TRANSPORT_OK ? transport_available(receiver) : 0;
        for (size_t i = 0; i < available && end->was_good; i++)
            end->was_good = bytes[i] == bulk_byte(end->seed, received + i);
        transport_consume(receiver, available);
        received += available;
    }
    end->was_good = end->was_good && received == BULK_BYTES;
    transport_receiver_free(receiver);
    transport_ring_free(ring);
    return NULL;
}

static void *
send_bulk(void *opaque)
{
    BulkEnd *end = opaque;
    TransportRing *ring = transport_ring_new(NULL);
    TransportSender *sender = transport_sender_new(ring, end->link);
    g_autofree uint8_t *out = g_malloc(BULK_BYTES);
    struct iovec iov[64];
    size_t sent = 0;

    for (size_t i = 0; i < BULK_BYTES; i++)
        out[i] = bulk_byte(end->seed, i);
    while (sent < BULK_BYTES) {
        unsigned count = cut(iov, out + sent, BULK_BYTES - sent);
        transport_send(sender, iov, count);
        sent += iov_length(iov, count);
        if (wait_sent(ring, sender) != TRANSPORT_OK)
            break;
    }
    end->was_good = transport_sender_accepted_bytes(sender) == BULK_BYTES;
    transport_sender_free(sender);
    transport_ring_free(ring);
    return NULL;
}

static void
halves_on_four_threads_do_not_disturb_each_other(void **state)
{
    TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_X509);
    pthread_t threads[4];

    expect_meeting(&meeting, scene->ring, "tcp:localhost:0");
    BulkEnd ends[] = {{.link = meeting.client, .seed = 1},
                      {.link = meeting.server, .seed = 1},
                      {.link = meeting.server, .seed = 2},
                      {.link = meeting.client, .seed = 2}};
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(
            pthread_create(&threads[i], NULL, i % 2 == 0 ? send_bulk : receive_bulk, &ends[i]), 0);
    for (unsigned i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (unsigned i = 0; i < 4; i++)
        assert_true(ends[i].was_good);
    meeting_end(&meeting);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, tls_setup, tls_teardown)
        CASE(echo_by_keys_over_tcp),
        CASE(echo_by_certificates_over_tcp_checks_the_host_of_the_uri),
        CASE(echo_by_keys_over_unix),
        CASE(echo_by_certificates_over_unix_checks_the_name_given),
        CASE(echo_over_a_connected_descriptor),
        CASE(client_without_a_certificate_is_fine_where_peers_are_not_verified),
        CASE(authorized_name_comes_in),
        CASE(bulk_both_ways_arrives_whole),
        CASE(bulk_into_memory_arrives_whole),
        CASE(halves_on_four_threads_do_not_disturb_each_other),
#undef CASE
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
