/* SPDX-License-Identifier: MIT */
/* See relay.h. One thread accepts, one thread a direction copies; they meet in the list of sockets,
 * under the lock. A direction that ends passes the end on (half-close), as a plain wire would. */
#include "tests/pair/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct Relay {
    /* Set before any thread starts. */
    int listener;
    struct sockaddr_in target;
    char *uri;
    GThread *acceptor;

    GMutex lock;
    GArray *sockets;    /* under lock; closed in relay_free only, so that no number is used twice */
    GPtrArray *copiers; /* under lock: threads */
    bool cut;           /* under lock */
    unsigned hung;      /* atomic: sockets of that many first connections hang, */
    unsigned muted;     /* or do so on the way back */

    guint every, damaged; /* atomic */
};

typedef struct Direction {
    Relay *relay;
    unsigned number; /* of the connection */
    int from, to;
    bool is_forward; /* towards uri */
} Direction;

static bool
hangs(const Direction *direction)
{
    const Relay *relay = direction->relay;

    return direction->number < __atomic_load_n(&relay->hung, __ATOMIC_ACQUIRE) ||
           (!direction->is_forward &&
            direction->number < __atomic_load_n(&relay->muted, __ATOMIC_ACQUIRE));
}

/* *left: bytes up to the next one that is changed; 0: none was yet. */
static void
damage(Relay *relay, char *bytes, ssize_t count, guint *left)
{
    guint every = (guint)g_atomic_int_get(&relay->every);

    if (!*left)
        *left = every;
    for (ssize_t at = 0; every && at < count; at++) {
        if (--*left)
            continue;
        *left = every;
        bytes[at] ^= (char)(1 << at % 8);
        g_atomic_int_inc(&relay->damaged);
    }
}

static void *
copy(void *opaque)
{
    Direction *direction = opaque;
    g_autofree char *buffer = g_malloc(65536);
    guint left = 0;
    bool good = true;

    while (good) {
        ssize_t count = recv(direction->from, buffer, 65536, 0);
        good = count > 0;
        if (hangs(direction))
            continue;
        if (direction->is_forward)
            damage(direction->relay, buffer, count, &left);
        for (ssize_t at = 0; good && at < count;) {
            ssize_t sent = send(direction->to, buffer + at, (size_t)(count - at), MSG_NOSIGNAL);
            good = sent > 0;
            at += sent;
        }
    }
    if (!hangs(direction))
        shutdown(direction->to, SHUT_WR);
    shutdown(direction->from, SHUT_RD);
    g_free(direction);
    return NULL;
}

static void
start_copier_locked(Relay *relay, int from, int to, bool is_forward)
{
    Direction *direction = g_new(Direction, 1);

    *direction = (Direction){relay, relay->sockets->len / 2 - 1, from, to, is_forward};
    g_ptr_array_add(relay->copiers, g_thread_new("relay-copy", copy, direction));
}

static void *
accept_all(void *opaque)
{
    Relay *relay = opaque;

    for (;;) {
        int here = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
        if (here < 0)
            return NULL;
        int there = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool connected =
            connect(there, (struct sockaddr *)&relay->target, sizeof(relay->target)) == 0;

        g_mutex_lock(&relay->lock);
        g_array_append_val(relay->sockets, here);
        g_array_append_val(relay->sockets, there);
        if (connected && !relay->cut) {
            start_copier_locked(relay, here, there, true);
            start_copier_locked(relay, there, here, false);
        } else {
            shutdown(here, SHUT_RDWR);
            shutdown(there, SHUT_RDWR);
        }
        g_mutex_unlock(&relay->lock);
    }
}

Relay *
relay_new(const char *uri)
{
    Relay *relay = g_new0(Relay, 1);
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(own);
    const char *port = strrchr(uri, ':');

    relay->target = own;
    relay->target.sin_port = htons((uint16_t)atoi(port + 1));
    relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_assert(bind(relay->listener, (struct sockaddr *)&own, length) == 0);
    g_assert(listen(relay->listener, 8) == 0);
    getsockname(relay->listener, (struct sockaddr *)&own, &length);
    relay->uri = g_strdup_printf("tcp:127.0.0.1:%u", ntohs(own.sin_port));
    relay->sockets = g_array_new(FALSE, FALSE, sizeof(int));
    relay->copiers = g_ptr_array_new();
    g_mutex_init(&relay->lock);
    relay->acceptor = g_thread_new("relay-accept", accept_all, relay);
    return relay;
}

const char *
relay_uri(const Relay *relay)
{
    return relay->uri;
}

void
relay_damage(Relay *relay, guint every)
{
    g_atomic_int_set(&relay->every, (gint)every);
}

guint
relay_count_damaged(Relay *relay)
{
    return (guint)g_atomic_int_get(&relay->damaged);
}

void
relay_cut(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    relay->cut = true;
    for (guint i = 0; i < relay->sockets->len; i++)
        shutdown(g_array_index(relay->sockets, int, i), SHUT_RDWR);
    g_mutex_unlock(&relay->lock);
}

void
relay_hang(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    __atomic_store_n(&relay->hung, relay->sockets->len / 2, __ATOMIC_RELEASE);
    g_mutex_unlock(&relay->lock);
}

void
relay_mute(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    __atomic_store_n(&relay->muted, relay->sockets->len / 2, __ATOMIC_RELEASE);
    g_mutex_unlock(&relay->lock);
}

void
relay_break(Relay *relay)
{
    g_mutex_lock(&relay->lock);
    for (guint i = 0; i < relay->sockets->len; i++)
        shutdown(g_array_index(relay->sockets, int, i), SHUT_RDWR);
    g_mutex_unlock(&relay->lock);
}

void
relay_free(Relay *relay)
{
    if (!relay)
        return;
    relay_cut(relay);
    shutdown(relay->listener, SHUT_RDWR); /* wakes accept */
    g_thread_join(relay->acceptor);
    for (guint i = 0; i < relay->copiers->len; i++)
        g_thread_join(g_ptr_array_index(relay->copiers, i));
    for (guint i = 0; i < relay->sockets->len; i++)
        close(g_array_index(relay->sockets, int, i));
    close(relay->listener);
    g_array_unref(relay->sockets);
    g_ptr_array_unref(relay->copiers);
    g_mutex_clear(&relay->lock);
    g_free(relay->uri);
    g_free(relay);
}
