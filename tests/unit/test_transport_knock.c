/* SPDX-License-Identifier: MIT */
/*
 * Knocking: who listens is found, who does not is not, and the one that listens never notices: its
 * first connection is still the first that somebody makes.
 */
#include "transport/address.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#define KNOCKS 20

/* A listener that accepts without waiting, and its address. */
typedef struct Door {
    int fd;
    char *uri, *path;
    TransportEndpoint endpoint;
} Door;

/* false: this host has no such address. */
static bool
door_open(Door *door, const char *uri)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(TransportAddress) address = transport_address_new(uri, true, &error);
    g_autoptr(GArray) endpoints = transport_address_resolve(address, true, &error);

    assert_null(error);
    *door = (Door){.endpoint = g_array_index(endpoints, TransportEndpoint, 0)};
    struct sockaddr *at = (struct sockaddr *)&door->endpoint.storage;
    door->fd = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (door->fd < 0 || bind(door->fd, at, door->endpoint.length) < 0)
        return false;
    assert_int_equal(listen(door->fd, 4), 0);
    socklen_t length = sizeof door->endpoint.storage;
    assert_int_equal(getsockname(door->fd, at, &length), 0);
    door->uri = transport_endpoint_uri(&door->endpoint);
    door->path = address->kind == TRANSPORT_ADDRESS_UNIX ? g_strdup(address->path.sun_path) : NULL;
    return true;
}

static void
door_close(Door *door)
{
    if (door->fd >= 0)
        close(door->fd);
    if (door->path)
        g_unlink(door->path);
    g_free(door->path);
    g_free(door->uri);
}

static char *
unix_uri(void)
{
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("knock-XXXXXX", &path, NULL);

    close(fd);
    g_unlink(path);
    return g_strdup_printf("unix:%s", path);
}

/* Many knocks, then one who comes in: it alone is seen. */
static void
check_door(const char *uri)
{
    struct sockaddr *at;
    Door door;

    if (!door_open(&door, uri)) {
        door_close(&door);
        print_message("skipped: %s cannot be listened at here\n", uri);
        skip();
    }
    for (unsigned i = 0; i < KNOCKS; i++) {
        g_autoptr(GError) error = NULL;
        if (!transport_knock(door.uri, &error))
            fail_msg("knock %u at %s: %s", i, door.uri, error->message);
    }
    assert_int_equal(accept(door.fd, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);

    at = (struct sockaddr *)&door.endpoint.storage;
    int client = socket(at->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, at, door.endpoint.length), 0);
    int server = accept(door.fd, NULL, NULL);
    assert_true(server >= 0);
    char byte = 0;
    assert_int_equal(write(client, "x", 1), 1);
    assert_int_equal(read(server, &byte, 1), 1);
    assert_int_equal(byte, 'x');
    assert_int_equal(accept(door.fd, NULL, NULL), -1);
    close(server);
    close(client);
    door_close(&door);
}

static void
knock_at_ipv4_is_not_noticed(void **state)
{
    (void)state;
    check_door("tcp:127.0.0.1:0");
}

static void
knock_at_ipv6_is_not_noticed(void **state)
{
    (void)state;
    check_door("tcp:[::1]:0");
}

static void
knock_at_unix_path_is_not_noticed(void **state)
{
    g_autofree char *uri = unix_uri();
    (void)state;
    check_door(uri);
}

static void
expect_refused(const char *uri, int code, const char *words)
{
    g_autoptr(GError) error = NULL;

    assert_false(transport_knock(uri, &error));
    assert_int_equal(error->code, code);
    if (!strstr(error->message, words) || !strstr(error->message, uri))
        fail_msg("\"%s\" is not in \"%s\"", words, error->message);
}

static void
knock_where_nobody_listens_says_refused(void **state)
{
    g_autofree char *path = unix_uri();
    const char *const uris[] = {"tcp:127.0.0.1:0", path};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(uris); i++) {
        Door door;
        assert_true(door_open(&door, uris[i]));
        close(door.fd);
        door.fd = -1;
        /* The port or path stays known; nobody is behind it. */
        expect_refused(door.uri, TRANSPORT_ERROR_LINK, g_strerror(ECONNREFUSED));
        expect_refused(door.uri, TRANSPORT_ERROR_LINK, "Start the destination there first");
        door_close(&door);
    }
    expect_refused(path, TRANSPORT_ERROR_LINK, g_strerror(ENOENT));
}

static void
knock_at_what_cannot_be_tried_says_so(void **state)
{
    g_autofree char *uri = NULL;
    int ends[2];
    (void)state;

    expect_refused("tap:0", TRANSPORT_ERROR_ADDRESS, "kind is not known");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    uri = g_strdup_printf("fd:%d", ends[0]);
    expect_refused(uri, TRANSPORT_ERROR_ADDRESS, "only when it is used");
    assert_int_equal(write(ends[1], "x", 1), 1); /* nothing was closed */
    close(ends[0]);
    close(ends[1]);
}

/* A second listener looks whether the path is left over; the first must not take it for a peer. */
static void
listen_on_taken_path_is_not_noticed(void **state)
{
    g_autofree char *uri = unix_uri();
    g_autoptr(GError) error = NULL;
    Door door;
    (void)state;

    assert_true(door_open(&door, uri));
    assert_null(transport_listen(uri, &error));
    assert_non_null(strstr(error->message, "another program listens there"));
    assert_int_equal(accept(door.fd, NULL, NULL), -1);
    assert_int_equal(errno, EAGAIN);
    door_close(&door);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(knock_at_ipv4_is_not_noticed),
        cmocka_unit_test(knock_at_ipv6_is_not_noticed),
        cmocka_unit_test(knock_at_unix_path_is_not_noticed),
        cmocka_unit_test(knock_where_nobody_listens_says_refused),
        cmocka_unit_test(knock_at_what_cannot_be_tried_says_so),
        cmocka_unit_test(listen_on_taken_path_is_not_noticed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
