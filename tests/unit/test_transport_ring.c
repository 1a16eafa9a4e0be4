/* SPDX-License-Identifier: MIT */
/*
 * Rings: what ends a wait, from which thread, and what is said where io_uring is forbidden.
 */
#include "tests/unit/test_transport_pair.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

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

/* ---- Notify and deadline ---- */

static void
notify_before_wait_is_remembered(void **state)
{
    for (unsigned i = 0; i < 100; i++) {
        transport_ring_notify(*state);
        transport_ring_notify(*state);
        transport_ring_wait(*state, 0); /* sleeps for ever if it was lost */
    }
}

typedef struct {
    TransportRing *ring;
    unsigned asked, answered; /* atomic */
} Turns;

#define COUNT_TURNS 2000u

static void *
answer_turns(void *opaque)
{
    Turns *turns = opaque;

    for (unsigned i = 1; i <= COUNT_TURNS; i++) {
        while (__atomic_load_n(&turns->asked, __ATOMIC_ACQUIRE) < i)
            sched_yield();
        if (i % 100 == 0) /* so that some waits sleep for sure */
            g_usleep(2000);
        __atomic_store_n(&turns->answered, i, __ATOMIC_RELEASE);
        transport_ring_notify(turns->ring);
    }
    return NULL;
}

static void
notify_during_wait_wakes_each_time(void **state)
{
    Turns turns = {.ring = *state};
    pthread_t thread;

    assert_int_equal(pthread_create(&thread, NULL, answer_turns, &turns), 0);
    for (unsigned i = 1; i <= COUNT_TURNS; i++) {
        __atomic_store_n(&turns.asked, i, __ATOMIC_RELEASE);
        while (__atomic_load_n(&turns.answered, __ATOMIC_ACQUIRE) < i)
            transport_ring_wait(*state, 0);
    }
    pthread_join(thread, NULL);
}

static void
wait_until_deadline_returns_and_does_not_spin(void **state)
{
    uint64_t deadline_ns = now_ns() + 30000000;
    unsigned count_waits = 0;

    while (now_ns() < deadline_ns) {
        transport_ring_wait(*state, deadline_ns);
        count_waits++;
    }
    assert_in_range(count_waits, 1, 10);
    transport_ring_wait(*state, 1); /* passed long ago */
}

/* ---- Watches ---- */

static void
watch_eventfd_wakes_each_time(void **state)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    uint64_t value;

    assert_true(transport_ring_watch(*state, fd, NULL, NULL));
    for (unsigned i = 0; i < 1000; i++) {
        value = 1;
        assert_int_equal(write(fd, &value, sizeof value), sizeof value);
        while (read(fd, &value, sizeof value) < 0)
            transport_ring_wait(*state, 0);
        assert_int_equal(value, 1);
    }
    transport_ring_free(*state);
    close(fd);
    *state = make_ring();
}

static void *
write_bytes_slowly(void *opaque)
{
    for (unsigned i = 0; i < 200; i++) {
        assert_int_equal(write(*(int *)opaque, "x", 1), 1);
        if (i % 20 == 0)
            g_usleep(1000);
    }
    close(*(int *)opaque);
    return NULL;
}

static void
watch_pipe_wakes_until_its_end(void **state)
{
    int fds[2];
    char byte;
    unsigned count = 0, count_waits = 0;
    ssize_t n;
    pthread_t thread;

    assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
    fcntl(fds[0], F_SETFL, O_NONBLOCK);
    assert_true(transport_ring_watch(*state, fds[0], NULL, NULL));
    assert_int_equal(pthread_create(&thread, NULL, write_bytes_slowly, &fds[1]), 0);
    while ((n = read(fds[0], &byte, 1)) != 0) {
        count += n > 0;
        if (n < 0)
            transport_ring_wait(*state, 0);
    }
    pthread_join(thread, NULL);
    assert_int_equal(count, 200);
    /* The hang-up stays: it must not keep the thread from sleeping. */
    for (uint64_t deadline_ns = now_ns() + 30000000; now_ns() < deadline_ns; count_waits++)
        transport_ring_wait(*state, deadline_ns);
    assert_in_range(count_waits, 1, 10);
    transport_ring_free(*state);
    close(fds[0]);
    *state = make_ring();
}

static void
watch_closed_descriptor_is_refused(void **state)
{
    g_autoptr(GError) error = NULL;

    assert_false(transport_ring_watch(*state, 987654, NULL, &error));
    assert_true(g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST));
    assert_non_null(strstr(error->message, "987654"));
}

/* ---- Wake-ups by links ---- */

static void *
shutdown_later(void *opaque)
{
    g_usleep(20000);
    transport_link_shutdown(opaque);
    transport_link_unref(opaque);
    return NULL;
}

static void
shutdown_by_other_thread_ends_receive(void **state)
{
    int peer;
    TransportLink *link = make_fd_link(*state, &peer);
    TransportReceiver *receiver = transport_receiver_new(*state, link);
    const uint8_t *bytes;
    pthread_t thread;

    assert_int_equal(transport_peek(receiver, 1, &bytes), TRANSPORT_WAIT);
    assert_int_equal(pthread_create(&thread, NULL, shutdown_later, transport_link_ref(link)), 0);
    assert_int_equal(wait_peek(*state, receiver, 1, &bytes), TRANSPORT_END);
    pthread_join(thread, NULL);
    transport_receiver_free(receiver);
    transport_link_unref(link);
    close(peer);
}

/* A step asks for A, is told to wait, and asks for B: what came for A by then must not be slept on.
 */
static void
wait_after_completion_reaped_by_another_call_returns(void **state)
{
    int peers[2];
    TransportLink *links[2];
    TransportReceiver *receivers[2];
    const uint8_t *bytes;

    for (unsigned i = 0; i < 2; i++) {
        links[i] = make_fd_link(*state, &peers[i]);
        receivers[i] = transport_receiver_new(*state, links[i]);
    }
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(transport_peek(receivers[0], 1, &bytes), TRANSPORT_WAIT);
        assert_int_equal(write(peers[0], "a", 1), 1);
        assert_int_equal(transport_peek(receivers[1], 1, &bytes), TRANSPORT_WAIT);
        transport_ring_wait(*state, 0); /* sleeps for ever if it was lost */
        assert_int_equal(wait_peek(*state, receivers[0], 1, &bytes), TRANSPORT_OK);
        transport_consume(receivers[0], 1);
    }
    for (unsigned i = 0; i < 2; i++) {
        transport_receiver_free(receivers[i]);
        transport_link_unref(links[i]);
        close(peers[i]);
    }
}

static void *
serve_on_own_ring(void *opaque)
{
    TransportRing *ring = make_ring();
    TransportLink *link = opaque;
    TransportSender *sender = transport_sender_new(ring, link);
    char byte = 0;
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};

    for (unsigned i = 0; i < 1000; i++) {
        byte = (char)i;
        assert_int_equal(transport_send(sender, &iov, 1), TRANSPORT_OK);
        assert_int_equal(wait_sent(ring, sender), TRANSPORT_OK);
    }
    transport_sender_free(sender);
    transport_ring_free(ring);
    transport_link_unref(link);
    return NULL;
}

static void
link_halves_on_two_rings_work(void **state)
{
    g_autofree char *uri = NULL;
    int peer;
    TransportLink *link = make_fd_link(*state, &peer), *other = NULL;
    TransportReceiver *receiver;
    const uint8_t *bytes;
    pthread_t thread;

    uri = g_strdup_printf("fd:%d", peer);
    assert_int_equal(wait_connect(*state, uri, &other, NULL), TRANSPORT_OK);
    receiver = transport_receiver_new(*state, other);
    assert_int_equal(pthread_create(&thread, NULL, serve_on_own_ring, transport_link_ref(link)), 0);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(wait_peek(*state, receiver, 1, &bytes), TRANSPORT_OK);
        assert_int_equal(bytes[0], (uint8_t)i);
        transport_consume(receiver, 1);
    }
    pthread_join(thread, NULL);
    transport_receiver_free(receiver);
    transport_link_unref(link);
    transport_link_unref(other);
}

/* ---- Where io_uring is forbidden ---- */

static void
forbid_io_uring(unsigned code)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | code),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = G_N_ELEMENTS(filter), .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(99);
}

/* The child that may not use io_uring: 0 is success, each other number a check that failed. */
static int
probe_forbidden(unsigned code)
{
    g_autoptr(GError) error = NULL, ring_error = NULL;

    forbid_io_uring(code);
    if (transport_probe(&error))
        return 1;
    if (!g_error_matches(error, TRANSPORT_ERROR, TRANSPORT_ERROR_UNSUPPORTED))
        return 2;
    if (strstr(error->message, "kernel.io_uring_disabled") == NULL)
        return 3;
    if (strstr(error->message, "seccomp") == NULL)
        return 4;
    if (strstr(error->message, g_strerror((int)code)) == NULL)
        return 5;
    if (transport_ring_new(&ring_error) != NULL)
        return 6;
    return g_strcmp0(error->message, ring_error->message) == 0 ? 0 : 7;
}

static void
check_forbidden(unsigned code)
{
    int status;
    pid_t child = fork();

    assert_true(child >= 0);
    if (child == 0)
        _exit(probe_forbidden(code));
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 99) {
        print_message("skipped: a seccomp filter cannot be installed here\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
probe_forbidden_by_eperm_names_sysctl(void **state)
{
    (void)state;
    check_forbidden(EPERM);
}

static void
probe_forbidden_by_enosys_names_sysctl(void **state)
{
    (void)state;
    check_forbidden(ENOSYS);
}

static void
probe_where_allowed_succeeds(void **state)
{
    (void)state;
    assert_true(transport_probe(NULL));
}

int
main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, ring_setup, ring_teardown)
    const struct CMUnitTest tests[] = {
        CASE(notify_before_wait_is_remembered),
        CASE(notify_during_wait_wakes_each_time),
        CASE(wait_until_deadline_returns_and_does_not_spin),
        CASE(watch_eventfd_wakes_each_time),
        CASE(watch_pipe_wakes_until_its_end),
        CASE(watch_closed_descriptor_is_refused),
        CASE(shutdown_by_other_thread_ends_receive),
        CASE(wait_after_completion_reaped_by_another_call_returns),
        CASE(link_halves_on_two_rings_work),
        cmocka_unit_test(probe_forbidden_by_eperm_names_sysctl),
        cmocka_unit_test(probe_forbidden_by_enosys_names_sysctl),
        cmocka_unit_test(probe_where_allowed_succeeds),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
