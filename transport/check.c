/* SPDX-License-Identifier: MIT */
/*
 * The rows that transport/ has to tell about a host: whether a ring can be made and takes
 * operations, with which flags, and whether a peer listens. Any one thread; the words for what is
 * forbidden are setup.c's and connect.c's.
 */
#include "transport/address.h"
#include "transport/ring.h"

typedef struct {
    void (*take)(void *opaque, const TransportCheck *check);
    void *opaque;
} Check;

static void
say(const Check *check, const char *name, const char *tried, TransportCheckState state,
    const char *text)
{
    const TransportCheck row = {.name = name, .tried = tried, .state = state, .text = text};

    check->take(check->opaque, &row);
}

static void
check_ring(const Check *check)
{
    g_autoptr(GError) error = NULL;
    struct io_uring uring;

    if (!transport_setup(&uring, 4, &error)) {
        say(check, "io-uring", "io_uring", TRANSPORT_CHECK_CLOSED, error->message);
        return;
    }
    bool is_best = (uring.flags & IORING_SETUP_DEFER_TASKRUN) != 0;

    if (!transport_try(&uring, &error)) {
        say(check, "io-uring", "io_uring", TRANSPORT_CHECK_CLOSED, error->message);
    } else {
        say(check, "io-uring", "io_uring", TRANSPORT_CHECK_OK,
            "a ring took and ended an operation");
        say(check, "io-uring-flags", "flags of io_uring",
            is_best ? TRANSPORT_CHECK_OK : TRANSPORT_CHECK_WARNING,
            is_best ? "SINGLE_ISSUER, DEFER_TASKRUN"
                    : "the kernel lacks SINGLE_ISSUER and DEFER_TASKRUN. Use Linux 6.1 or later; "
                      "until then completions interrupt the threads, and faults take longer");
    }
    io_uring_queue_exit(&uring);
}

static void
check_peer(const Check *check, const char *uri)
{
    g_autofree char *tried = g_strdup_printf("destination at %s", uri);
    g_autoptr(GError) error = NULL;

    if (transport_knock(uri, &error))
        say(check, "peer", tried, TRANSPORT_CHECK_OK, "somebody listens");
    else
        say(check, "peer", tried, TRANSPORT_CHECK_CLOSED, error->message);
}

void
transport_check_host(const char *uri, void (*take)(void *opaque, const TransportCheck *check),
                     void *opaque)
{
    const Check check = {.take = take, .opaque = opaque};

    check_ring(&check);
    if (uri != NULL)
        check_peer(&check, uri);
}
