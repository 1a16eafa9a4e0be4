/* SPDX-License-Identifier: MIT */
/*
 * What the tests of TLS share: credentials of a directory, and two ends that shake hands on one
 * ring. All helpers run in the test's thread and fail the test themselves.
 */
#ifndef TESTS_UNIT_TEST_TRANSPORT_TLS_PAIR_H
#define TESTS_UNIT_TEST_TRANSPORT_TLS_PAIR_H

#include "tests/unit/support/certificates.h"
#include "tests/unit/test_transport_pair.h"

typedef struct TlsScene {
    TransportRing *ring;
    char *dir;
} TlsScene;

static inline int
tls_setup(void **state)
{
    TlsScene *scene = g_new0(TlsScene, 1);

    scene->ring = make_ring();
    scene->dir = certificates_make();
    *state = scene;
    return 0;
}

static inline int
tls_teardown(void **state)
{
    TlsScene *scene = *state;

    transport_ring_free(scene->ring);
    certificates_remove(scene->dir);
    g_free(scene);
    return 0;
}

static inline TransportCredentials *
credentials_of(const TransportTlsOptions *options)
{
    GError *error = NULL;
    TransportCredentials *credentials = transport_credentials_new(options, &error);

    if (!credentials)
        fail_msg("%s", error->message);
    return credentials;
}

static inline TransportCredentials *
credentials_in(const char *dir, TransportTlsKind kind, TransportTlsRole endpoint)
{
    return credentials_of(
        &(TransportTlsOptions){.kind = kind, .endpoint = endpoint, .dir = dir, .skips_own = true});
}

/* Two ends, one of which connects to the other. */
typedef struct TlsMeeting {
    TransportCredentials *client_credentials, *server_credentials; /* NULL: plain */
    TransportAuthz *authz;
    const char *hostname;
    TransportListener *listener;
    TransportConnector *connector;
    TransportLink *client, *server;
    TransportResult client_result;
    GError *client_error;
    char *refusal; /* the server's */
} TlsMeeting;

static inline void
meeting_begin(TlsMeeting *meeting, TransportRing *ring, const char *uri)
{
    GError *error = NULL;

    meeting->listener = transport_listen(uri, &error);
    if (!meeting->listener)
        fail_msg("%s", error->message);
    if (meeting->server_credentials &&
        !transport_listener_secure(meeting->listener, meeting->server_credentials, meeting->authz,
                                   &error))
        fail_msg("%s", error->message);
    meeting->connector =
        transport_connect(ring, transport_listener_address(meeting->listener), &error);
    if (!meeting->connector)
        fail_msg("%s", error->message);
    if (meeting->client_credentials &&
        !transport_connector_secure(meeting->connector, meeting->client_credentials,
                                    meeting->hostname, &error))
        fail_msg("%s", error->message);
    meeting->client_result = TRANSPORT_WAIT;
}

/* One step of both. */
static inline void
meeting_step(TlsMeeting *meeting, TransportRing *ring)
{
    unsigned count_refused;

    if (meeting->client_result == TRANSPORT_WAIT)
        meeting->client_result =
            transport_connect_finish(meeting->connector, &meeting->client, &meeting->client_error);
    if (!meeting->server)
        transport_accept(meeting->listener, ring, &meeting->server, NULL);
    if (!meeting->refusal)
        meeting->refusal = transport_listener_take_refusal(meeting->listener, &count_refused);
}

/* Until both are through, or one is not to be. */
static inline void
meet(TlsMeeting *meeting, TransportRing *ring, const char *uri)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;

    meeting_begin(meeting, ring, uri);
    for (;;) {
        meeting_step(meeting, ring);
        if ((meeting->client && meeting->server) || meeting->refusal ||
            meeting->client_result == TRANSPORT_ERROR_RESULT)
            return;
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(ring, deadline_ns);
    }
}

static inline void
expect_meeting(TlsMeeting *meeting, TransportRing *ring, const char *uri)
{
    meet(meeting, ring, uri);
    if (!meeting->client || !meeting->server)
        fail_msg("client: %s; server: %s",
                 meeting->client_error ? meeting->client_error->message : "through",
                 meeting->refusal ? meeting->refusal : "waits");
}

static inline void
meeting_end(TlsMeeting *meeting)
{
    transport_connector_free(meeting->connector);
    transport_listener_free(meeting->listener);
    transport_link_unref(meeting->client);
    transport_link_unref(meeting->server);
    transport_credentials_unref(meeting->client_credentials);
    transport_credentials_unref(meeting->server_credentials);
    transport_authz_unref(meeting->authz);
    g_clear_error(&meeting->client_error);
    g_free(meeting->refusal);
    memset(meeting, 0, sizeof *meeting);
}

static inline TlsMeeting
meeting_of(const TlsScene *scene, TransportTlsKind kind)
{
    return (TlsMeeting){
        .client_credentials = credentials_in(scene->dir, kind, TRANSPORT_TLS_CLIENT),
        .server_credentials = credentials_in(scene->dir, kind, TRANSPORT_TLS_SERVER),
        .hostname = "localhost"};
}

#endif
