/* SPDX-License-Identifier: MIT */
/*
 * A host that vanishes: two ends over TCP in a network of the test's own, which is then switched
 * off, so that nothing says goodbye. Needs root.
 */
#include "tests/unit/test_transport_pair.h"

#include <net/if.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/ioctl.h>

static bool
set_loopback(bool is_up)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = is_up ? IFF_UP : 0};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool was_set = ioctl(fd, SIOCSIFFLAGS, &request) == 0;

    close(fd);
    return was_set;
}

/* The times are ours, or the test would take minutes; that there is a keep-alive is the link's. */
static void
hurry(int fd)
{
    int one = 1, two = 2;

    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &one, sizeof one), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &one, sizeof one), 0);
    assert_int_equal(setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &two, sizeof two), 0);
}

/* Both ends raw, connected. */
static void
connect_both(int ends[2])
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &size), 0);
    ends[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(ends[0], (struct sockaddr *)&address, sizeof address), 0);
    ends[1] = accept(listener, NULL, NULL);
    assert_true(ends[1] >= 0);
    close(listener);
}

static void
receive_from_host_that_vanished_is_an_error(void **state)
{
    const uint8_t *bytes;
    int ends[2];

    if (unshare(CLONE_NEWNET) < 0) {
        print_message("skipped: no network of its own (%s)\n", g_strerror(errno));
        skip();
    }
    assert_true(set_loopback(true));
    connect_both(ends);
    int fd = dup(ends[0]);
    TransportRing *ring = make_ring();
    TransportLink *link = make_link_of(ring, ends[0]);
    TransportReceiver *receiver = transport_receiver_new(ring, link);
    (void)state;

    hurry(fd);
    assert_int_equal(send(ends[1], "last", 4, 0), 4);
    assert_int_equal(wait_peek(ring, receiver, 4, &bytes), TRANSPORT_OK);
    assert_true(set_loopback(false));
    assert_int_equal(wait_peek(ring, receiver, 5, &bytes), TRANSPORT_ERROR_RESULT);
    transport_receiver_free(receiver);
    transport_link_unref(link);
    transport_ring_free(ring);
    close(fd);
    close(ends[1]);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(receive_from_host_that_vanished_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
