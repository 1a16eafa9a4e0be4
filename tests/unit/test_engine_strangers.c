/* SPDX-License-Identifier: MIT */
/*
 * Strangers at the door of a real destination: peers that connect and say nothing, one byte, or the
 * wrong thing, and hundreds at once, while a real migration arrives, and while it recovers; and
 * addresses at which only who asks for it listens. The strangers are sockets of this thread, a
 * flood those of a thread of its own.
 */
#include "tests/unit/support/toy_move.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#define STRANGERS_MAX 200u

static const ToyKind memfd = {.name = "memfd", .pages = 512, .count_vcpus = 2};

typedef struct Strangers {
    int fds[STRANGERS_MAX];
    unsigned count;
} Strangers;

/* A connection to where the destination listens; -1: it takes none. */
static int
connect_to(const char *uri)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    struct sockaddr_in port = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool is_unix = g_str_has_prefix(uri, "unix:");
    const void *address = is_unix ? (const void *)&path : (const void *)&port;

    if (is_unix)
        g_strlcpy(path.sun_path, uri + strlen("unix:"), sizeof path.sun_path);
    else
        port.sin_port = htons((uint16_t)g_ascii_strtoull(strrchr(uri, ':') + 1, NULL, 10));
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    if (connect(fd, address, is_unix ? sizeof path : sizeof port) == 0)
        return fd;
    close(fd);
    return -1;
}

/* count of them, of which each says that (and closes its half, if it is to). */
static void
send_strangers(Strangers *strangers, const char *uri, unsigned count, const char *says, bool closes)
{
    for (unsigned i = 0; i < count && strangers->count < STRANGERS_MAX; i++) {
        int fd = connect_to(uri);
        if (fd < 0)
            return; /* the real source was quicker: nobody listens any more */
        send(fd, says, strlen(says), MSG_NOSIGNAL);
        if (closes)
            shutdown(fd, SHUT_WR);
        strangers->fds[strangers->count++] = fd;
    }
}

static void
end_strangers(Strangers *strangers)
{
    while (strangers->count > 0)
        close(strangers->fds[--strangers->count]);
}

static const struct {
    const char *name, *says;
    unsigned count;
    bool closes;
} kinds[] = {
    {"one that is silent", "", 1, false},
    {"many that are silent", "", 100, false},
    {"one byte", "Q", 3, false},
    {"three right bytes", "QEV", 3, false},
    {"a browser", "GET / HTTP/1.0\r\n\r\n", 3, false},
    {"a port scanner", "", 3, true},
    {"a byte and gone", "Q", 3, true},
    {"more than are kept", "", STRANGERS_MAX, false},
};

static void
move_among(const char *capabilities, ToyLinkKind link, unsigned kind)
{
    Strangers strangers = {.count = 0};
    ToyMove move;

    print_message("%s, %s, %s\n", kinds[kind].name, capabilities,
                  link == TOY_UNIX ? "unix" : "tcp");
    toy_move_begin(&move, &memfd, link);
    toy_move_set(&move, capabilities);
    assert_true(faultline_cont(move.from->faultline, NULL));
    assert_true(faultline_incoming(move.to->faultline, move.link.incoming, NULL));
    g_autofree char *uri = faultline_incoming_address(move.to->faultline);
    send_strangers(&strangers, uri, kinds[kind].count, kinds[kind].says, kinds[kind].closes);
    assert_true(strangers.count == kinds[kind].count);
    assert_true(faultline_migrate(move.from->faultline, uri, NULL));
    send_strangers(&strangers, uri, 10, kinds[kind].says, kinds[kind].closes);
    if (strstr(capabilities, "postcopy-ram"))
        assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_move_expect_moved(&move);
    end_strangers(&strangers);
    toy_move_end(&move);
}

static void
source_among_strangers_is_the_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        move_among("return-path", TOY_TCP, i);
        move_among("postcopy-ram", TOY_TCP, i);
        move_among("postcopy-ram", TOY_UNIX, i);
    }
}

/* Closed by the destination, not by a migration that is over. */
static void
stranger_that_says_the_wrong_thing_loses_its_connection_alone(void **state)
{
    Strangers strangers = {.count = 0};
    char byte;
    Toy *toy = toy_new(&memfd);
    (void)state;

    assert_true(faultline_incoming(toy->faultline, "tcp:127.0.0.1:0", NULL));
    g_autofree char *uri = faultline_incoming_address(toy->faultline);
    send_strangers(&strangers, uri, 1, "GET / HTTP/1.0\r\n\r\n", false);
    struct pollfd wait = {.fd = strangers.fds[0], .events = POLLIN};
    assert_int_equal(poll(&wait, 1, TOY_TIMEOUT_MS), 1);
    assert_true(recv(strangers.fds[0], &byte, 1, 0) <= 0);
    FaultlineStatus status = faultline_wait(toy->faultline, 0);
    assert_string_equal(faultline_status_name(status), "setup");
    end_strangers(&strangers);
    toy_free(toy);
}

static void
await_refused(Toy *toy, uint64_t count, const char *words)
{
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);

    for (unsigned i = 0; i < TOY_TIMEOUT_MS && info->refused_connections < count; i++) {
        g_usleep(1000);
        faultline_query(toy->faultline, info);
    }
    if (info->refused_connections < count || !strstr(info->refusal, words))
        fail_msg("%" PRIu64 " of %" PRIu64 ", '%s'", info->refused_connections, count,
                 info->refusal);
}

/* The last are told of in one text, after everybody else has gone. */
static void
strangers_turned_away_are_all_counted_and_the_reason_is_told(void **state)
{
    Strangers strangers = {.count = 0};
    Toy *toy = toy_new(&memfd);
    (void)state;

    assert_true(faultline_incoming(toy->faultline, "tcp:127.0.0.1:0", NULL));
    g_autofree char *uri = faultline_incoming_address(toy->faultline);
    send_strangers(&strangers, uri, STRANGERS_MAX, "", false);
    await_refused(toy, 1, "too many others have connected since");
    await_refused(toy, STRANGERS_MAX, "it has said nothing for 5 s (the last of ");
    end_strangers(&strangers);
    send_strangers(&strangers, uri, 1, "QE", false);
    await_refused(toy, STRANGERS_MAX + 1, "no more than 0x51 0x45 ('QE') for 5 s");
    end_strangers(&strangers);
    send_strangers(&strangers, uri, 1, "", true);
    await_refused(toy, STRANGERS_MAX + 2, "it has closed without a word");
    end_strangers(&strangers);
    toy_free(toy);
}

/* ---- A flood ----------------------------------------------------------------------------------
 */

typedef struct Flood {
    Strangers strangers;
    GThread *thread;
    char *uri;
    unsigned poured; /* all that ever connected */
    bool is_over;    /* set with release, read with acquire */
} Flood;

/* As fast as it goes at first, then one now and then, all silent; the oldest makes room. */
static void *
pour(void *context)
{
    Flood *flood = context;
    Strangers *strangers = &flood->strangers;

    while (!__atomic_load_n(&flood->is_over, __ATOMIC_ACQUIRE)) {
        unsigned place = flood->poured % STRANGERS_MAX;
        int fd = connect_to(flood->uri);
        if (fd < 0)
            break; /* it does not listen any more */
        if (flood->poured >= STRANGERS_MAX)
            close(strangers->fds[place]);
        else
            strangers->count++;
        strangers->fds[place] = fd;
        __atomic_store_n(&flood->poured, flood->poured + 1, __ATOMIC_RELEASE);
        if (flood->poured > STRANGERS_MAX)
            g_usleep(10000);
    }
    return NULL;
}

static void
begin_flood(Flood *flood, char *uri)
{
    *flood = (Flood){.uri = uri};
    flood->thread = g_thread_new("flood", pour, flood);
}

static void
end_flood(Flood *flood)
{
    __atomic_store_n(&flood->is_over, true, __ATOMIC_RELEASE);
    g_thread_join(flood->thread);
    end_strangers(&flood->strangers);
    g_free(flood->uri);
}

static void
await(Toy *toy, FaultlineStatus status)
{
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);

    for (unsigned i = 0; i < TOY_TIMEOUT_MS; i++) {
        faultline_query(toy->faultline, info);
        if (info->status == status)
            return;
        g_usleep(1000);
    }
    fail_msg("status %s, not %s: %s", faultline_status_name(info->status),
             faultline_status_name(status), info->error);
}

static void
await_both(ToyMove *move, FaultlineStatus status)
{
    await(move->from, status);
    await(move->to, status);
}

static void
flood_keeps_neither_urgent_channel_nor_recovery_out(void **state)
{
    static const ToyKind slow = {.name = "slow", .pages = 8192, .count_vcpus = 2, .rest_us = 20000};
    ToyMove move;
    Flood flood;
    (void)state;

    toy_move_begin(&move, &slow, TOY_TCP);
    toy_move_set(&move, "postcopy-ram postcopy-preempt");
    Faultline *source = move.from->faultline, *destination = move.to->faultline;
    assert_true(faultline_set_parameter(source, "max-postcopy-bandwidth", 1 << 20, NULL));
    assert_true(faultline_cont(source, NULL));
    assert_true(faultline_incoming(destination, move.link.incoming, NULL));
    g_autofree char *uri = faultline_incoming_address(destination);
    begin_flood(&flood, g_strdup(uri));
    while (__atomic_load_n(&flood.poured, __ATOMIC_ACQUIRE) < STRANGERS_MAX / 2)
        g_usleep(1000);
    assert_true(faultline_migrate(source, uri, NULL));
    assert_true(faultline_start_postcopy(source, NULL));
    await_both(&move, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    end_flood(&flood);
    assert_true(faultline_pause(source, NULL));
    await_both(&move, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    begin_flood(&flood, g_strdup(uri));
    while (__atomic_load_n(&flood.poured, __ATOMIC_ACQUIRE) < STRANGERS_MAX)
        g_usleep(1000);
    assert_true(faultline_migrate_resume(source, uri, NULL));
    await_both(&move, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_true(faultline_set_parameter(source, "max-postcopy-bandwidth", 0, NULL));
    toy_move_expect_moved(&move);
    end_flood(&flood);
    toy_move_end(&move);
}

/* ---- Addresses --------------------------------------------------------------------------------
 */

static void
incoming_where_others_reach_it_needs_a_word(void **state)
{
    static const char *const exposed[] = {"tcp:0.0.0.0:0", "tcp::0", "tcp:[::]:0"};
    static const char *const local[] = {"tcp:127.0.0.1:0", "tcp:127.1.2.3:0"};
    Toy *toy = toy_new(&memfd);
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(exposed); i++) {
        g_autoptr(GError) error = NULL;
        if (faultline_incoming(toy->faultline, exposed[i], &error))
            fail_msg("%s was taken", exposed[i]);
        if (strstr(error->message, "IPv6") || strstr(error->message, "Address family"))
            continue; /* a kernel without it */
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        assert_non_null(strstr(error->message, "other hosts reach it"));
        assert_non_null(strstr(error->message, "--insecure"));
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(local); i++) {
        assert_true(faultline_incoming(toy->faultline, local[i], NULL));
        toy_renew(toy);
    }
    faultline_set_insecure(toy->faultline, true);
    assert_true(faultline_incoming(toy->faultline, exposed[0], NULL));
    toy_free(toy);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(source_among_strangers_is_the_one),
        cmocka_unit_test(stranger_that_says_the_wrong_thing_loses_its_connection_alone),
        cmocka_unit_test(strangers_turned_away_are_all_counted_and_the_reason_is_told),
        cmocka_unit_test(flood_keeps_neither_urgent_channel_nor_recovery_out),
        cmocka_unit_test(incoming_where_others_reach_it_needs_a_word),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
