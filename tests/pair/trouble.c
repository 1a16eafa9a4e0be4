/* SPDX-License-Identifier: MIT */
/* See trouble.h. What every case asserts in its own way: the guest runs at exactly one side, or at
 * none with everything kept, and its data is right. */
#include "tests/pair/trouble.h"
#include "tests/pair/move.h"
#include "tests/pair/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define HOPS         20
#define CANCELS      10
#define GUEST_CHECKS 4096 /* once through 16 MiB */

static Vm *
start_running_source(Scene *scene, const MoveCase *c)
{
    move_need(scene, c);
    Vm *source = move_start(scene, c, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    return source;
}

static void
require_runs_on(Vm *vm)
{
    vm_wait_run_state(vm, "running");
    vm_wait_checks(vm, GUEST_CHECKS);
}

/* The guest stays where it is and can still be moved. */
static void
require_moves_on(Scene *scene, Vm *source, const MoveCase *c)
{
    require_runs_on(source);
    Vm *destination = move_start(scene, c, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);
    move_begin(source, c, uri);
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    require_runs_on(destination);
    vm_quit(source);
    vm_quit(destination);
}

/* There and back: each hop begins with a new process, as it does in life. */
static void
ping_pong(Scene *scene, const MoveCase *precopy, const MoveCase *postcopy)
{
    Vm *here = start_running_source(scene, postcopy);

    for (unsigned hop = 0; hop < HOPS; hop++) {
        const MoveCase *c = hop % 4 == 3 ? precopy : postcopy;
        const char *on = c == postcopy ? "true" : "false";
        g_autofree char *wish = move_uri(scene, c);
        Vm *there = move_start(scene, c, wish);
        g_autofree char *uri = vm_listening_at(there);
        g_autofree char *capabilities = g_strdup_printf(
            "{\"capabilities\": [{\"capability\": \"postcopy-ram\", \"state\": %s}, "
            "{\"capability\": \"events\", \"state\": true}]}",
            on);
        vm_do(here, "migrate-set-capabilities", capabilities);
        vm_do(here, "migrate-set-parameters", "{\"max-bandwidth\": 0}");
        move_begin(here, c, uri);
        vm_wait_status(here, "completed");
        vm_wait_status(there, "completed");
        vm_quit(here);
        require_runs_on(there);
        here = there;
    }
    vm_quit(here);
}

void
ping_pong_twenty_times_threads(void **state)
{
    static const MoveCase precopy = {.when = MOVE_PRECOPY};
    static const MoveCase postcopy = {.when = MOVE_POSTCOPY_AT_ONCE};

    ping_pong(*state, &precopy, &postcopy);
}

void
ping_pong_twenty_times_kvm(void **state)
{
    static const MoveCase precopy = {.when = MOVE_PRECOPY, .guest = "kvm", .transport = "unix"};
    static const MoveCase postcopy = {
        .when = MOVE_POSTCOPY_AT_ONCE, .guest = "kvm", .transport = "unix"};

    ping_pong(*state, &precopy, &postcopy);
}

void
migrate_to_nobody_leaves_guest_running(void **state)
{
    static const MoveCase c = {.when = MOVE_POSTCOPY_AFTER_ONE};
    Scene *scene = *state;
    Vm *source = start_running_source(scene, &c);
    g_autofree char *nobody = g_strdup_printf("{\"uri\": \"unix:%s/nobody\"}", scene->directory);

    vm_do(source, "migrate", nobody);
    vm_wait_status(source, "failed");
    require_moves_on(scene, source, &c);
}

void
incoming_garbage_ends_its_connection_alone(void **state)
{
    static const MoveCase c = {.when = MOVE_PRECOPY};
    static const char garbage[4096] = "GET / HTTP/1.0\r\n\r\n";
    Scene *scene = *state;
    Vm *source = move_start(scene, &c, NULL);
    Vm *destination = move_start(scene, &c, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(strrchr(uri, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char byte;

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(send(fd, garbage, sizeof(garbage), MSG_NOSIGNAL), sizeof(garbage));
    assert_true(recv(fd, &byte, 1, 0) <= 0);
    close(fd);
    g_autofree char *status = vm_status(destination);
    if (!g_str_equal(status, "setup"))
        scene_fail(scene, "the destination is in status %s after garbage", status);
    move_begin(source, &c, uri);
    vm_wait_status(destination, "completed");
    vm_wait_checks(destination, 4096);
}

/* A destination for the source, and a migration between them that is under way. relay: NULL, or
 * where to store a relay between them. */
static Vm *
begin(Scene *scene, Vm *source, const MoveCase *destination_case, const MoveCase *begin_as,
      Relay **relay)
{
    Vm *destination = move_start(scene, destination_case, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);

    if (relay)
        *relay = relay_new(uri);
    move_begin(source, begin_as, relay ? relay_uri(*relay) : uri);
    return destination;
}

/* Postcopy is possible but not asked for, and no downtime is short enough: precopy goes on until
 * something happens to it. */
static const MoveCase asked = {.when = MOVE_POSTCOPY_AFTER_ONE};
static const MoveCase not_asked = {.when = MOVE_PRECOPY};

/* Its source was cancelled: it ends, or has never heard of it and waits for another. */
static void
require_end_or_listening(Scene *scene, Vm *destination)
{
    for (unsigned i = 0; i < 400; i++) {
        siginfo_t info = {.si_pid = 0};
        waitid(P_PID, (id_t)destination->pid, &info, WEXITED | WNOHANG | WNOWAIT);
        if (info.si_pid) {
            vm_wait_exit(destination);
            return;
        }
        g_usleep(5000);
    }
    g_autofree char *status = vm_status(destination);
    if (!g_str_equal(status, "setup"))
        scene_fail(scene, "the destination goes on, in status %s", status);
    vm_kill(destination);
}

void
cancel_at_random_moments_leaves_guest_running(void **state)
{
    Scene *scene = *state;
    guint32 seed = g_getenv("SEED") ? (guint32)atoi(g_getenv("SEED")) : g_random_int();
    g_autoptr(GRand) random = g_rand_new_with_seed(seed);
    Vm *source = start_running_source(scene, &asked);

    print_message("SEED=%u\n", seed);
    for (unsigned i = 0; i < CANCELS; i++) {
        Vm *destination = begin(scene, source, &asked, &not_asked, NULL);
        g_usleep((gulong)g_rand_int_range(random, 0, 600000));
        vm_do(source, "migrate_cancel", NULL);
        vm_wait_status(source, "cancelled");
        require_end_or_listening(scene, destination);
        require_runs_on(source);
    }
    require_moves_on(scene, source, &asked);
}

void
destination_killed_in_precopy_leaves_guest_running(void **state)
{
    Scene *scene = *state;
    Vm *source = start_running_source(scene, &asked);
    Vm *destination = begin(scene, source, &asked, &not_asked, NULL);

    vm_wait_number(source, "ram.dirty-sync-count", 2);
    vm_kill(destination);
    vm_wait_status(source, "failed");
    require_moves_on(scene, source, &asked);
}

void
link_cut_in_precopy_leaves_guest_running(void **state)
{
    Scene *scene = *state;
    Vm *source = start_running_source(scene, &asked);
    Relay *relay = NULL;
    Vm *destination = begin(scene, source, &asked, &not_asked, &relay);

    vm_wait_number(source, "ram.dirty-sync-count", 2);
    relay_cut(relay);
    vm_wait_status(source, "failed");
    vm_wait_exit(destination);
    relay_free(relay);
    require_moves_on(scene, source, &asked);
}

static void
cut_in_postcopy(Scene *scene, const MoveCase *c)
{
    Vm *source = start_running_source(scene, c);
    Relay *relay = NULL;

    vm_do(source, "migrate-set-capabilities",
          "{\"capabilities\": [{\"capability\": \"auto-recover\", \"state\": false}]}");
    Vm *destination = begin(scene, source, c, c, &relay);

    vm_wait_status(source, "postcopy-active");
    vm_wait_status(destination, "postcopy-active");
    relay_cut(relay);
    vm_wait_status(source, "postcopy-paused");
    vm_wait_status(destination, "postcopy-paused");
    vm_wait_run_state(source, "postmigrate");
    vm_must_refuse(source, "cont", NULL);
    vm_must_refuse(source, "migrate_cancel", NULL);
    if (vm_number(destination, "faultline.missing-pages") == 0)
        scene_fail(scene, "the destination says that nothing is missing");
    /* Kept, not given up: both still answer. */
    vm_checks(destination);
    vm_kill(destination);
    vm_wait_status(source, "postcopy-paused");
    relay_free(relay);
}

void
link_cut_in_postcopy_pauses_both(void **state)
{
    static const MoveCase c = {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1};

    cut_in_postcopy(*state, &c);
}

void
link_cut_in_postcopy_with_preempt_pauses_both(void **state)
{
    static const MoveCase c = {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1, .preempt = true};

    cut_in_postcopy(*state, &c);
}

void
destination_killed_in_postcopy_pauses_source(void **state)
{
    static const MoveCase c = {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1};
    Scene *scene = *state;
    Vm *source = start_running_source(scene, &c);
    Vm *destination = begin(scene, source, &c, &c, NULL);

    vm_wait_status(source, "postcopy-active");
    vm_kill(destination);
    vm_wait_status(source, "postcopy-paused");
    vm_must_refuse(source, "cont", NULL);
}
