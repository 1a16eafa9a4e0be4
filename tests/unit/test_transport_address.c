/* SPDX-License-Identifier: MIT */
/*
 * Addresses: what is refused and with which words, refused connections, and paths of unix sockets.
 */
#include "tests/unit/test_transport_pair.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/un.h>

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

/* ---- What is refused ---- */

static void
expect_refusal(const GError *error, const char *uri, const char *words)
{
    if (error == NULL)
        fail_msg("'%s' was taken", uri);
    if (error->domain != TRANSPORT_ERROR || error->code != TRANSPORT_ERROR_ADDRESS ||
        strstr(error->message, uri) == NULL || strstr(error->message, words) == NULL ||
        strstr(error->message, "tcp:HOST:PORT") == NULL)
        fail_msg("'%s' gives '%s' (code %d), wanted: '%s'", uri, error->message, error->code,
                 words);
}

static void
check_refused(TransportRing *ring, const char *uri, const char *words)
{
    g_autoptr(GError) connect_error = NULL, listen_error = NULL;

    assert_null(transport_connect(ring, uri, &connect_error));
    expect_refusal(connect_error, uri, words);
    assert_null(transport_listen(uri, &listen_error));
    expect_refusal(listen_error, uri, words);
}

static void
address_not_acceptable_is_refused_with_its_form(void **state)
{
    static const struct {
        const char *uri, *words;
    } rows[] = {
        {"", "kind is not known"},
        {"tcp", "kind is not known"},
        {"udp:127.0.0.1:4444", "kind is not known"},
        {"exec:true", "kind is not known"},
        {"tcp:", "port is missing"},
        {"tcp:127.0.0.1", "port is missing"},
        {"tcp:127.0.0.1:", "port is missing"},
        {"tcp:127.0.0.1:65536", "port '65536'"},
        {"tcp:127.0.0.1:99999999999", "port '99999999999'"},
        {"tcp:127.0.0.1:-1", "port '-1'"},
        {"tcp:127.0.0.1: 1", "port ' 1'"},
        {"tcp:127.0.0.1:http", "port 'http'"},
        {"tcp:127.0.0.1:44x", "port '44x'"},
        {"tcp:::1:4444", "in brackets"},
        {"tcp:[::1", "bracket"},
        {"tcp:[::1]", "port is missing"},
        {"tcp:[::1]4444", "port is missing"},
        {"tcp:[]:4444", "host is missing"},
        {"unix:", "path is empty"},
        {"fd:", "no descriptor number"},
        {"fd:-1", "no descriptor number"},
        {"fd:seven", "no descriptor number"},
        {"fd:99999999999", "no descriptor number"},
        {"fd:987654", "not open"},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++)
        check_refused(*state, rows[i].uri, rows[i].words);
}

static void
connect_without_host_or_port_is_refused(void **state)
{
    g_autoptr(GError) host_error = NULL, port_error = NULL;

    assert_null(transport_connect(*state, "tcp::4444", &host_error));
    expect_refusal(host_error, "tcp::4444", "host is missing");
    assert_null(transport_connect(*state, "tcp:127.0.0.1:0", &port_error));
    expect_refusal(port_error, "tcp:127.0.0.1:0", "from 1 to 65535");
}

static void
address_unix_path_too_long_is_refused(void **state)
{
    char uri[200] = "unix:/";

    memset(uri + 6, 'p', 107); /* 108 bytes of path */
    check_refused(*state, uri, "108 bytes");
}

static void
address_fd_of_wrong_kind_is_refused(void **state)
{
    int fds[2], datagram = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int lonely = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_autofree char *datagram_uri = g_strdup_printf("fd:%d", datagram);
    g_autofree char *lonely_uri = g_strdup_printf("fd:%d", lonely);
    g_autofree char *pipe_uri = NULL;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    pipe_uri = g_strdup_printf("fd:%d", fds[0]);
    check_refused(*state, pipe_uri, "no socket");
    check_refused(*state, datagram_uri, "no stream socket");
    check_refused(*state, lonely_uri, "connected");
    assert_true(fcntl(lonely, F_GETFD) >= 0); /* a refused descriptor stays the caller's */
    close(fds[0]);
    close(fds[1]);
    close(datagram);
    close(lonely);
}

static void
connect_to_name_that_does_not_resolve_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;

    assert_null(transport_connect(*state, "tcp:no-such-host.invalid:4444", &error));
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS));
    assert_non_null(strstr(error->message, "no-such-host.invalid"));
}

/* ---- Connecting and listening ---- */

static void
connect_where_nobody_listens_says_so(void **state)
{
    TransportListener *listener = transport_listen("tcp:127.0.0.1:0", NULL);
    g_autofree char *uri = g_strdup(transport_listener_address(listener));
    g_autoptr(GError) error = NULL;
    TransportLink *link = NULL;

    transport_listener_free(listener);
    assert_int_equal(wait_connect(*state, uri, &link, &error), TRANSPORT_ERROR_RESULT);
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_LINK));
    assert_non_null(strstr(error->message, uri));
    assert_non_null(strstr(error->message, g_strerror(ECONNREFUSED)));
    assert_non_null(strstr(error->message, "Start the destination there first"));
}

static void
connector_free_in_flight_is_clean(void **state)
{
    TransportListener *listener = transport_listen("tcp:127.0.0.1:0", NULL);

    for (unsigned i = 0; i < 4; i++) {
        TransportConnector *connector =
            transport_connect(*state, transport_listener_address(listener), NULL);

        assert_non_null(connector);
        transport_connector_free(connector);
    }
    transport_listener_free(listener);
}

static void
listener_free_while_accept_waits_frees_the_port(void **state)
{
    TransportListener *listener = transport_listen("tcp:127.0.0.1:0", NULL);
    g_autofree char *uri = g_strdup(transport_listener_address(listener));
    TransportLink *link = NULL;

    assert_int_equal(transport_accept(listener, *state, &link, NULL), TRANSPORT_WAIT);
    transport_listener_free(listener);
    listener = transport_listen(uri, NULL);
    assert_non_null(listener);
    assert_string_equal(transport_listener_address(listener), uri);
    transport_listener_free(listener);
}

static void
listen_on_taken_port_is_refused(void **state)
{
    TransportListener *listener = transport_listen("tcp:127.0.0.1:0", NULL);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_null(transport_listen(transport_listener_address(listener), &error));
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS));
    assert_non_null(strstr(error->message, "another program listens there"));
    transport_listener_free(listener);
}

static void
listen_on_listening_fd_accepts_many(void **state)
{
    g_autofree char *folder = g_dir_make_tmp("transport-XXXXXX", NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *listen_uri = NULL, *connect_uri = NULL;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    TransportListener *listener;

    g_snprintf(address.sun_path, sizeof address.sun_path, "%s/socket", folder);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    listen_uri = g_strdup_printf("fd:%d", fd);
    connect_uri = g_strdup_printf("unix:%s", address.sun_path);
    listener = transport_listen(listen_uri, NULL);
    assert_non_null(listener);
    for (unsigned i = 0; i < 3; i++) {
        TransportLink *client = NULL, *server = NULL;

        assert_int_equal(transport_accept(listener, *state, &server, NULL), TRANSPORT_WAIT);
        assert_int_equal(wait_connect(*state, connect_uri, &client, NULL), TRANSPORT_OK);
        assert_int_equal(wait_accept(*state, listener, &server), TRANSPORT_OK);
        transport_link_unref(client);
        transport_link_unref(server);
    }
    transport_listener_free(listener);
    assert_int_equal(unlink(address.sun_path), 0); /* not made by the listener, so not removed */
    assert_int_equal(rmdir(folder), 0);
}

/* ---- Unix paths ---- */

typedef struct {
    char *folder, *path, *uri;
} UnixPath;

static UnixPath
make_path(void)
{
    UnixPath path = {.folder = g_dir_make_tmp("transport-XXXXXX", NULL)};

    path.path = g_build_filename(path.folder, "socket", NULL);
    path.uri = g_strconcat("unix:", path.path, NULL);
    return path;
}

static void
remove_path(UnixPath *path)
{
    assert_int_equal(rmdir(path->folder), 0);
    g_free(path->folder);
    g_free(path->path);
    g_free(path->uri);
}

static void
listen_unix_makes_mode_0600(void **state)
{
    UnixPath path = make_path();
    mode_t mask = umask(0);
    TransportListener *listener = transport_listen(path.uri, NULL);
    struct stat status;

    (void)state;
    umask(mask);
    assert_non_null(listener);
    assert_int_equal(stat(path.path, &status), 0);
    assert_true(S_ISSOCK(status.st_mode));
    assert_int_equal(status.st_mode & 07777, 0600);
    transport_listener_free(listener);
    remove_path(&path);
}

static void
listen_unix_on_stale_path_replaces_it(void **state)
{
    UnixPath path = make_path();
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    TransportListener *listener;
    TransportLink *link = NULL;

    g_strlcpy(address.sun_path, path.path, sizeof address.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    close(fd);
    listener = transport_listen(path.uri, NULL);
    assert_non_null(listener);
    assert_int_equal(wait_connect(*state, path.uri, &link, NULL), TRANSPORT_OK);
    transport_link_unref(link);
    transport_listener_free(listener);
    remove_path(&path);
}

static void
listen_unix_on_live_path_is_refused(void **state)
{
    UnixPath path = make_path();
    TransportListener *listener = transport_listen(path.uri, NULL);
    g_autoptr(GError) error = NULL;
    TransportLink *link = NULL;

    assert_null(transport_listen(path.uri, &error));
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS));
    assert_int_equal(wait_connect(*state, path.uri, &link, NULL), TRANSPORT_OK);
    transport_link_unref(link);
    transport_listener_free(listener);
    remove_path(&path);
}

static void
listen_unix_on_ordinary_file_leaves_it(void **state)
{
    UnixPath path = make_path();
    g_autoptr(GError) error = NULL;
    g_autofree char *content = NULL;

    (void)state;
    assert_true(g_file_set_contents(path.path, "kept", -1, NULL));
    assert_null(transport_listen(path.uri, &error));
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_ADDRESS));
    assert_true(g_file_get_contents(path.path, &content, NULL, NULL));
    assert_string_equal(content, "kept");
    unlink(path.path);
    remove_path(&path);
}

static void
listener_free_leaves_path_of_its_successor(void **state)
{
    UnixPath path = make_path();
    TransportListener *old = transport_listen(path.uri, NULL), *new;
    struct stat status;

    (void)state;
    assert_int_equal(unlink(path.path), 0);
    new = transport_listen(path.uri, NULL);
    assert_non_null(new);
    transport_listener_free(old);
    assert_int_equal(stat(path.path, &status), 0);
    transport_listener_free(new);
    remove_path(&path);
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, ring_setup, ring_teardown)
    const struct CMUnitTest tests[] = {
        CASE(address_not_acceptable_is_refused_with_its_form),
        CASE(connect_without_host_or_port_is_refused),
        CASE(address_unix_path_too_long_is_refused),
        CASE(address_fd_of_wrong_kind_is_refused),
        CASE(connect_to_name_that_does_not_resolve_is_refused),
        CASE(connect_where_nobody_listens_says_so),
        CASE(connector_free_in_flight_is_clean),
        CASE(listener_free_while_accept_waits_frees_the_port),
        CASE(listen_on_taken_port_is_refused),
        CASE(listen_on_listening_fd_accepts_many),
        CASE(listen_unix_makes_mode_0600),
        CASE(listen_unix_on_stale_path_replaces_it),
        CASE(listen_unix_on_live_path_is_refused),
        CASE(listen_unix_on_ordinary_file_leaves_it),
        CASE(listener_free_leaves_path_of_its_successor),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
