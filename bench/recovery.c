/* SPDX-License-Identifier: MIT */
/*
 * See recovery.h. The destination leads: it breaks the connections, which are its own sockets, and
 * tells the source over the link of the pair what to do. Times are the wall clock's, as the
 * engine's events have them.
 */
#include "bench/recovery.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ABSENT_US 60000u /* how long the path is gone; the source has tried in vain meanwhile */
#define FDS_MAX   1024

typedef struct WaitingTouch {
    const cpu_set_t *cpus;
    volatile uint64_t *word;
    uint64_t value;
    int64_t ended_us;
} WaitingTouch;

typedef struct RecoverySide {
    const RecoveryPlan *plan;
    RecoveryFigures *figures;
    int link_fd;
    Faultline *faultline;
    FaultlineStatus status;
    int64_t setup_us;  /* source: the last attempt began */
    WaitingTouch one;  /* destination: the touch that waits through this break */
    GThread *touching; /* that of one */
} RecoverySide;

static bool
fail(GError **error, const char *text)
{
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, text);
    return false;
}

/* ---- Both sides ------------------------------------------------------------------------------ */

/* Spread over the memory, from its end down: the push goes up. */
static uint64_t
page_of_break(const FaultlineBlock *block, unsigned number)
{
    uint64_t total = block->length_bytes / FAULTLINE_PAGE_BYTES;
    return (RECOVERY_BREAKS_MAX + 1 - number) * (total / (RECOVERY_BREAKS_MAX + 2)) + 1;
}

static uint64_t *
word_of_page(const FaultlineBlock *block, uint64_t page)
{
    return (uint64_t *)(void *)((char *)block->host_address + page * FAULTLINE_PAGE_BYTES);
}

static bool
make_faultline(RecoverySide *side, BenchGuest *guest, const FaultlineBlock *block, GError **error)
{
    const RecoveryPlan *plan = side->plan;

    side->faultline = faultline_new(bench_guest_calls(), guest, block, 1, error);
    return side->faultline &&
           faultline_set_capability(side->faultline, "postcopy-ram", true, error) &&
           faultline_set_capability(side->faultline, "postcopy-preempt", plan->preempt, error) &&
           faultline_set_capability(side->faultline, "auto-recover", plan->is_automatic, error) &&
           faultline_set_parameter(side->faultline, "recover-retry", plan->retry_ms, error) &&
           faultline_set_parameter(side->faultline, "max-postcopy-bandwidth", 1, error);
}

static void
take_events(RecoverySide *side)
{
    FaultlineEvent event;

    while (faultline_next_event(side->faultline, &event)) {
        if (event.kind != FAULTLINE_EVENT_STATUS)
            continue;
        side->status = event.status;
        if (event.status == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP)
            side->setup_us = event.time_us;
    }
}

static bool
wait_status(RecoverySide *side, FaultlineStatus wanted, GError **error)
{
    struct pollfd fds = {.fd = faultline_event_fd(side->faultline), .events = POLLIN};

    for (take_events(side); side->status != wanted; take_events(side)) {
        if (side->status == FAULTLINE_STATUS_FAILED || side->status == FAULTLINE_STATUS_COMPLETED) {
            FaultlineInfo info;
            faultline_query(side->faultline, &info);
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                        "the migration became %s instead of %s: %s",
                        faultline_status_name(side->status), faultline_status_name(wanted),
                        info.error);
            return false;
        }
        if (poll(&fds, 1, -1) < 0 && errno != EINTR)
            return fail(error, "poll failed");
    }
    return true;
}

/* ---- Source ---------------------------------------------------------------------------------- */

static bool
resume_by_command(RecoverySide *side, GError **error)
{
    if (!wait_status(side, FAULTLINE_STATUS_POSTCOPY_PAUSED, error))
        return false;
    side->figures->resume_us = g_get_real_time();
    return faultline_migrate_resume(side->faultline, side->figures->address, error);
}

/* Obeys the destination until that closes the link. */
static bool
obey(RecoverySide *side, GError **error)
{
    struct pollfd fds[] = {{.fd = faultline_event_fd(side->faultline), .events = POLLIN},
                           {.fd = side->link_fd, .events = POLLIN}};
    char byte;

    while (poll(fds, 2, -1) >= 0 || errno == EINTR) {
        take_events(side);
        if (!fds[1].revents)
            continue;
        if (recv(side->link_fd, &byte, 1, 0) != 1)
            return true;
        if (byte == 'R' && !resume_by_command(side, error))
            return false;
        if (byte != 'Q')
            continue;
        if (!wait_status(side, FAULTLINE_STATUS_POSTCOPY_ACTIVE, error))
            return false;
        side->figures->setup_us = side->setup_us;
        if (send(side->link_fd, "q", 1, MSG_NOSIGNAL) != 1)
            return true;
    }
    return fail(error, "poll failed");
}

static FloorPlan
floor_plan(const RecoveryPlan *plan)
{
    return (FloorPlan){.is_unix = plan->is_unix || plan->is_automatic, .count = RECOVERY_FLOOR};
}

static bool
run_source(void *context, int link_fd, GError **error)
{
    RecoverySide *side = context;
    const FaultlineBlock *block = side->plan->source_block;
    const DirtyPlan all = {.count_pages = UINT64_MAX};
    const FloorPlan floor = floor_plan(side->plan);
    char byte;

    side->link_fd = link_fd;
    for (unsigned i = 0; i <= side->plan->count_breaks; i++)
        *word_of_page(block, page_of_break(block, i)) = i + 1;
    if (!bench_socket_ask_pages(&floor, link_fd, side->figures->floor_us, error) ||
        !make_faultline(side, bench_guest_new_source(block, &all), block, error) ||
        !faultline_cont(side->faultline, error))
        return false;
    if (recv(link_fd, &byte, 1, 0) != 1)
        return fail(error, "the destination ended before it listened");
    return faultline_migrate(side->faultline, side->figures->address, error) &&
           faultline_start_postcopy(side->faultline, error) && obey(side, error);
}

/* ---- Destination ----------------------------------------------------------------------------- */

static void *
touch(void *opaque)
{
    WaitingTouch *one = opaque;
    g_autoptr(GError) failed = NULL;

    if (!placement_pin(one->cpus, &failed))
        g_printerr("bench: %s\n", failed->message);
    one->value = *one->word;
    __atomic_store_n(&one->ended_us, g_get_real_time(), __ATOMIC_RELEASE);
    return NULL;
}

/* As a reset does, at both ends, whatever the engine is about to do with them. */
static void
break_connections(int link_fd)
{
    struct sockaddr_storage peer;

    for (int fd = 3; fd < FDS_MAX; fd++) {
        socklen_t length = sizeof peer;
        if (fd != link_fd && getpeername(fd, (struct sockaddr *)&peer, &length) == 0)
            shutdown(fd, SHUT_RDWR);
    }
}

static bool
bring_path_back(RecoverySide *side, const char *away, const char *path, int64_t *ret_us,
                GError **error)
{
    if (side->plan->is_automatic) {
        *ret_us = g_get_real_time();
        return rename(away, path) == 0 || fail(error, "the socket could not be moved back");
    }
    return faultline_recover(side->faultline, side->figures->address, error) &&
           (send(side->link_fd, "R", 1, MSG_NOSIGNAL) == 1 ||
            fail(error, "the source has ended too early"));
}

static bool
touch_through_break(RecoverySide *side, const FaultlineBlock *block, unsigned number,
                    GError **error)
{
    RecoveryFigures *figures = side->figures;
    const char *path = figures->address + strlen("unix:");
    g_autofree char *away = g_strconcat(path, ".away", NULL);
    WaitingTouch *one = &side->one;
    int64_t back_us = 0;
    char byte;

    *one = (WaitingTouch){.cpus = &side->plan->placement->touch,
                          .word = word_of_page(block, page_of_break(block, number))};
    if (side->plan->is_automatic && rename(path, away) < 0)
        return fail(error, "the socket could not be moved away");
    break_connections(side->link_fd);
    if (!wait_status(side, FAULTLINE_STATUS_POSTCOPY_PAUSED, error))
        return false;
    side->touching = g_thread_new("touch", touch, one);
    g_usleep(ABSENT_US);
    bool waited = !__atomic_load_n(&one->ended_us, __ATOMIC_ACQUIRE);
    if (!bring_path_back(side, away, path, &back_us, error))
        return false; /* it waits for ever; the process ends */
    g_thread_join(g_steal_pointer(&side->touching));
    if (!wait_status(side, FAULTLINE_STATUS_POSTCOPY_ACTIVE, error))
        return false;
    if (send(side->link_fd, "Q", 1, MSG_NOSIGNAL) != 1 || recv(side->link_fd, &byte, 1, 0) != 1)
        return fail(error, "the source has ended too early");
    if (!waited)
        return fail(error, "a page came before it was touched; take more memory");
    if (one->value != number + 1)
        return fail(error, "a page that was waited for has other content than at the source");
    if (!side->plan->is_automatic)
        back_us = figures->resume_us;
    figures->page_ms[number] = (double)(one->ended_us - back_us) * 1e-3;
    figures->attempt_ms[number] = (double)(one->ended_us - MAX(figures->setup_us, back_us)) * 1e-3;
    return true;
}

static bool
listen_there(RecoverySide *side, const char *path, GError **error)
{
    bool is_unix = side->plan->is_unix || side->plan->is_automatic;
    g_autofree char *uri = is_unix ? g_strconcat("unix:", path, NULL) : g_strdup("tcp:127.0.0.1:0");

    if (!faultline_incoming(side->faultline, uri, error))
        return false;
    g_autofree char *address = faultline_incoming_address(side->faultline);
    g_strlcpy(side->figures->address, address, sizeof side->figures->address);
    return send(side->link_fd, "A", 1, MSG_NOSIGNAL) == 1 ||
           fail(error, "the source has ended too early");
}

static bool
run_destination(void *context, int link_fd, GError **error)
{
    RecoverySide *side = context;
    const RecoveryPlan *plan = side->plan;
    const TouchPlan nobody = {0};
    const FloorPlan floor = floor_plan(plan);
    g_autofree char *path = move_socket_path();
    FaultlineBlock block;

    side->link_fd = link_fd;
    if (!bench_socket_answer_pages(&floor, link_fd, error) ||
        !bench_map(plan->backing, plan->source_block->length_bytes, &block, error))
        return false;
    BenchGuest *guest =
        bench_guest_new_destination(&block, &nobody, &plan->placement->touch, NULL, -1, error);
    bool done = guest && make_faultline(side, guest, &block, error) &&
                listen_there(side, path, error) &&
                wait_status(side, FAULTLINE_STATUS_POSTCOPY_ACTIVE, error);
    for (unsigned i = 0; done && i < plan->count_breaks; i++)
        done = touch_through_break(side, &block, i, error);
    unlink(path);
    return done; /* both leave by exit, in the middle of postcopy */
}

bool
recovery_run(const RecoveryPlan *plan, RecoveryFigures *figures, GError **error)
{
    RecoverySide source = {.plan = plan, .figures = figures};
    RecoverySide destination = source;
    ForkedChild children[2] = {
        {"source", run_source, &source, &plan->placement->source, NULL, 0, figures->errors[0]},
        {"destination", run_destination, &destination, &plan->placement->destination, NULL, 1,
         figures->errors[1]},
    };

    memset(figures, 0, sizeof *figures);
    return forked_pair_run(children, plan->limit_s, error);
}
