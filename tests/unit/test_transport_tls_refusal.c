/* SPDX-License-Identifier: MIT */
/*
 * Everything that keeps two ends from trusting each other: one clear error at each side that can
 * know, and the server goes on for the next that comes.
 */
#include "tests/unit/test_transport_tls_pair.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* What is done to a scene in which all is well, and what the two sides say. */
typedef struct {
    const char *name;
    void (*spoil)(const TlsScene *scene, const char *client_dir);
    TransportTlsKind client_kind, server_kind;
    const char *hostname;
    const char *username;
    const char *identity;                  /* NULL: no authorization */
    const char *client_says, *server_says; /* NULL: nothing is to be known there */
} Refusal;

static void
spoil_server(const char *dir, const CertificateWish *wish)
{
    certificates_replace(dir, "server", wish);
}

static void
server_expired(const TlsScene *scene, const char *client_dir)
{
    (void)client_dir;
    spoil_server(scene->dir, &(CertificateWish){.from_s = -7200, .until_s = -3600});
}

static void
server_not_yet(const TlsScene *scene, const char *client_dir)
{
    (void)client_dir;
    spoil_server(scene->dir, &(CertificateWish){.from_s = 3600, .until_s = 7200});
}

static void
server_of_another_name(const TlsScene *scene, const char *client_dir)
{
    (void)client_dir;
    spoil_server(scene->dir, &(CertificateWish){.dns = "elsewhere.example"});
}

static void
server_made_for_clients(const TlsScene *scene, const char *client_dir)
{
    (void)client_dir;
    spoil_server(scene->dir, &(CertificateWish){.has_wrong_purpose = true});
}

static void
server_that_cannot_sign(const TlsScene *scene, const char *client_dir)
{
    (void)client_dir;
    spoil_server(scene->dir, &(CertificateWish){.cannot_sign = true});
}

static void
copy(const char *from, const char *to, const char *name)
{
    g_autofree char *path = g_build_filename(from, name, NULL);
    g_autofree char *text = NULL;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    certificates_write(to, name, text);
}

static void
server_revoked(const TlsScene *scene, const char *client_dir)
{
    certificates_revoke(scene->dir, "server");
    copy(scene->dir, client_dir, "ca-crl.pem");
    certificates_drop(scene->dir, "ca-crl.pem");
}

/* The server's CA knows the client; the client knows another CA. */
static void
server_of_unknown_ca(const TlsScene *scene, const char *client_dir)
{
    char *other = certificates_make();

    (void)scene;
    copy(other, client_dir, "ca-cert.pem");
    certificates_remove(other);
}

static void
client_expired(const TlsScene *scene, const char *client_dir)
{
    (void)scene;
    certificates_replace(client_dir, "client",
                         &(CertificateWish){.from_s = -7200, .until_s = -3600});
}

static void
client_of_unknown_ca(const TlsScene *scene, const char *client_dir)
{
    char *other = certificates_make();

    (void)scene;
    copy(other, client_dir, "client-cert.pem");
    copy(other, client_dir, "client-key.pem");
    certificates_remove(other);
}

static void
client_without_certificate(const TlsScene *scene, const char *client_dir)
{
    (void)scene;
    certificates_drop(client_dir, "client-cert.pem");
    certificates_drop(client_dir, "client-key.pem");
}

static void
client_made_for_servers(const TlsScene *scene, const char *client_dir)
{
    (void)scene;
    certificates_replace(client_dir, "client", &(CertificateWish){.has_wrong_purpose = true});
}

static void
client_revoked(const TlsScene *scene, const char *client_dir)
{
    (void)client_dir;
    certificates_revoke(scene->dir, "client");
}

static void
key_differs(const TlsScene *scene, const char *client_dir)
{
    (void)scene;
    certificates_write(client_dir, "keys.psk", "qemu:00112233445566778899aabbccddeeff\n");
}

static void
user_unknown(const TlsScene *scene, const char *client_dir)
{
    (void)scene;
    certificates_write(client_dir, "keys.psk", "eve:00112233445566778899aabbccddeeff\n");
}

#define X509 TRANSPORT_TLS_X509
#define PSK  TRANSPORT_TLS_PSK

static const Refusal refusals[] = {
    {"server_expired", server_expired, X509, X509, "localhost", NULL, NULL, "has expired",
     "our certificate has expired"},
    {"server_not_yet_valid", server_not_yet, X509, X509, "localhost", NULL, NULL,
     "is not valid yet", "refuses our certificate"},
    {"server_of_another_name", server_of_another_name, X509, X509, "localhost", NULL, NULL,
     "is for another name than 'localhost'", "refuses our certificate"},
    {"server_name_not_that_of_tls_hostname", NULL, X509, X509, "db.example", NULL, NULL,
     "is for another name than 'db.example'", "refuses our certificate"},
    {"server_made_for_clients", server_made_for_clients, X509, X509, "localhost", NULL, NULL,
     "is not made for this side of TLS", "not made for our side of TLS"},
    {"server_that_cannot_sign", server_that_cannot_sign, X509, X509, "localhost", NULL, NULL,
     "may sign", "may sign"},
    {"server_revoked", server_revoked, X509, X509, "localhost", NULL, NULL, "is revoked",
     "our certificate is revoked"},
    {"server_of_unknown_ca", server_of_unknown_ca, X509, X509, "localhost", NULL, NULL,
     "not signed by a CA that is known here", "does not know the CA of our certificate"},
    {"client_expired", client_expired, X509, X509, "localhost", NULL, NULL,
     "our certificate has expired", "has expired"},
    {"client_of_unknown_ca", client_of_unknown_ca, X509, X509, "localhost", NULL, NULL,
     "does not know the CA of our certificate", "not signed by a CA that is known here"},
    {"client_without_certificate", client_without_certificate, X509, X509, "localhost", NULL, NULL,
     "we showed none", "shows no certificate"},
    {"client_made_for_servers", client_made_for_servers, X509, X509, "localhost", NULL, NULL,
     "not made for our side of TLS", "is not made for this side of TLS"},
    {"client_revoked", client_revoked, X509, X509, "localhost", NULL, NULL,
     "our certificate is revoked", "is revoked"},
    {"client_not_authorized", NULL, X509, X509, "localhost", NULL, "CN=somebody else",
     "does not let us in", "does not let 'CN=source' in"},
    {"key_differs", key_differs, PSK, PSK, NULL, NULL, NULL, "our key is not the one it has",
     "key for user 'qemu' is not the one here"},
    {"user_unknown", user_unknown, PSK, PSK, NULL, "eve", NULL, "no key of our user name",
     "user 'eve', who has no key here"},
    {"keys_against_certificates", NULL, PSK, X509, NULL, NULL, NULL, "that both have",
     "that both have"},
    {"certificates_against_keys", NULL, X509, PSK, "localhost", NULL, NULL, "that both have",
     "that both have"},
};

static void
check_says(const char *who, const char *what, const char *text)
{
    if (!text || !strstr(text, what))
        fail_msg("the %s says '%s', not '%s'", who, text ? text : "nothing", what);
}

/* What the client hears after its own half of the handshake is over: in TLS 1.3 that is before the
 * server has looked at its certificate. */
static void
hear_refusal(TlsMeeting *meeting, TransportRing *ring)
{
    TransportReceiver *receiver = transport_receiver_new(ring, meeting->client);
    TransportSender *sender = transport_sender_new(ring, meeting->client);
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    TransportResult result;
    const uint8_t *bytes;

    send_text(ring, sender, "QEVM, and what a source says before it has heard anything");
    while ((result = transport_peek(receiver, 1, &bytes)) == TRANSPORT_WAIT) {
        meeting_step(meeting, ring);
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
    assert_int_equal(result, TRANSPORT_ERROR_RESULT);
    meeting->client_error = g_error_copy(transport_receiver_error(receiver));
    transport_sender_free(sender);
    transport_receiver_free(receiver);
}

static void
wait_for_both(TlsMeeting *meeting, TransportRing *ring)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;

    while (!meeting->refusal || meeting->client_result == TRANSPORT_WAIT) {
        meeting_step(meeting, ring);
        if (meeting->refusal && meeting->client_result != TRANSPORT_WAIT)
            break;
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
}

/* Somebody who is in order comes after all. */
static void
check_next(const TlsScene *scene, TlsMeeting *meeting)
{
    char *dir = certificates_make();
    bool is_psk = transport_credentials_kind(meeting->server_credentials) == PSK;

    g_clear_pointer(&meeting->connector, transport_connector_free);
    g_clear_error(&meeting->client_error);
    if (is_psk) { /* the keys are the same in every directory */
        transport_credentials_unref(meeting->client_credentials);
        meeting->client_credentials = credentials_in(dir, PSK, TRANSPORT_TLS_CLIENT);
        meeting->connector =
            transport_connect(scene->ring, transport_listener_address(meeting->listener), NULL);
        assert_true(transport_connector_secure(meeting->connector, meeting->client_credentials,
                                               NULL, NULL));
        meeting->client_result = TRANSPORT_WAIT;
        uint64_t deadline_ns = now_ns() + PATIENCE_NS;
        while (!meeting->client || !meeting->server) {
            meeting_step(meeting, scene->ring);
            assert_true(now_ns() < deadline_ns);
            assert_int_not_equal(meeting->client_result, TRANSPORT_ERROR_RESULT);
            if (!meeting->client || !meeting->server)
                transport_ring_wait(scene->ring, deadline_ns);
        }
    }
    certificates_remove(dir);
}

static void
check_refusal(const TlsScene *scene, const Refusal *refusal)
{
    char *client_dir = certificates_make();
    TlsMeeting meeting = {.hostname = refusal->hostname};
    const TransportAuthzRule rule = {refusal->identity, false, true};
    static const char *const names[] = {"ca-cert.pem", "ca-key.pem", "client-cert.pem",
                                        "client-key.pem"};

    print_message("  %s\n", refusal->name);
    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        copy(scene->dir, client_dir, names[i]);
    if (refusal->spoil)
        refusal->spoil(scene, client_dir);
    meeting.client_credentials =
        credentials_of(&(TransportTlsOptions){.kind = refusal->client_kind,
                                              .dir = client_dir,
                                              .skips_own = true,
                                              .username = refusal->username});
    meeting.server_credentials =
        credentials_in(scene->dir, refusal->server_kind, TRANSPORT_TLS_SERVER);
    if (refusal->identity)
        meeting.authz = transport_authz_new(&rule, 1, false);
    meeting_begin(&meeting, scene->ring, "tcp:127.0.0.1:0");
    wait_for_both(&meeting, scene->ring);
    if (meeting.client_result == TRANSPORT_OK)
        hear_refusal(&meeting, scene->ring);
    check_says("client", refusal->client_says, meeting.client_error->message);
    check_says("server", refusal->server_says, meeting.refusal);
    assert_null(meeting.server);
    g_clear_pointer(&meeting.client, transport_link_unref);
    check_next(scene, &meeting);
    meeting_end(&meeting);
    certificates_remove(client_dir);
}

static void
refusals_are_explained_at_both_sides_and_cost_one_connection(void **state)
{
    TlsScene *scene = *state;

    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        check_refusal(scene, &refusals[i]);
        certificates_remove(scene->dir);
        scene->dir = certificates_make();
    }
}

/* ---- Floods -----------------------------------------------------------------------------------
 */

#define STRANGERS 100u

static int
connect_stranger(const TransportListener *listener)
{
    const char *port = strrchr(transport_listener_address(listener), ':') + 1;
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)g_ascii_strtoull(port, NULL, 10)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* The server alone goes on, as if the client were far away. */
static void
step_server(TlsMeeting *meeting, TransportRing *ring)
{
    assert_int_equal(transport_accept(meeting->listener, ring, &meeting->server, NULL),
                     TRANSPORT_WAIT);
    transport_ring_wait(ring, now_ns() + 1000000);
}

/* Each that has to go is counted, and told of at once or once a second. */
static unsigned
count_refused(TlsMeeting *meeting, TransportRing *ring, unsigned wanted, unsigned *ret_told)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    unsigned count = 0, one;

    for (*ret_told = 0; count < wanted && now_ns() < deadline_ns;) {
        g_autofree char *refusal = transport_listener_take_refusal(meeting->listener, &one);
        if (refusal == NULL) {
            step_server(meeting, ring);
            continue;
        }
        assert_non_null(strstr(refusal, "too many others have connected since"));
        count += one;
        ++*ret_told;
    }
    return count;
}

static void
flood_of_silent_ones_does_not_displace_one_that_has_spoken(void **state)
{
    const TlsScene *scene = *state;
    TlsMeeting meeting = meeting_of(scene, TRANSPORT_TLS_X509);
    int fds[STRANGERS];
    unsigned count_told;

    meeting_begin(&meeting, scene->ring, "tcp:127.0.0.1:0");
    for (unsigned i = 0; i < 3; i++) { /* it says its first word, */
        transport_connect_finish(meeting.connector, &meeting.client, NULL);
        transport_ring_wait(scene->ring, now_ns() + 1000000);
    }
    for (unsigned i = 0; i < 20; i++) /* which is answered */
        step_server(&meeting, scene->ring);
    assert_int_equal(meeting.client_result, TRANSPORT_WAIT);
    for (unsigned i = 0; i < STRANGERS; i++) {
        fds[i] = connect_stranger(meeting.listener);
        step_server(&meeting, scene->ring);
    }
    assert_int_equal(count_refused(&meeting, scene->ring, STRANGERS - 15, &count_told),
                     STRANGERS - 15);
    assert_true(count_told <= 3);
    while (!meeting.client || !meeting.server) {
        meeting_step(&meeting, scene->ring);
        if (meeting.client_result == TRANSPORT_ERROR_RESULT)
            fail_msg("%s", meeting.client_error->message);
        transport_ring_wait(scene->ring, now_ns() + 1000000);
    }
    for (unsigned i = 0; i < STRANGERS; i++)
        close(fds[i]);
    meeting_end(&meeting);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define CASE(name) cmocka_unit_test_setup_teardown(name, tls_setup, tls_teardown)
        CASE(refusals_are_explained_at_both_sides_and_cost_one_connection),
        CASE(flood_of_silent_ones_does_not_displace_one_that_has_spoken),
#undef CASE
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
