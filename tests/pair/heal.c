/* SPDX-License-Identifier: MIT */
/* See heal.h. What every case asserts: the guest arrives whole at the destination, with its data
 * right and without anybody typing a command, and runs nowhere else. */
#include "tests/pair/heal.h"
#include "tests/pair/move.h"
#include "tests/pair/relay.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <cmocka.h>

#define GUEST_CHECKS 4096 /* once through 16 MiB */
#define STRANGERS    12
#define BREAKS       5

static const MoveCase plain = {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1};
static const MoveCase preempt = {
    .when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1, .preempt = true};

typedef struct Heal {
    Scene *scene;
    Vm *source, *destination;
    Relay *relay;
    char *direct; /* where the destination listens, without the relay */
} Heal;

static void
begin(Heal *heal, Scene *scene, const MoveCase *c, unsigned heartbeat_ms)
{
    g_autofree char *parameters = g_strdup_printf(
        "{\"heartbeat-timeout\": %u, \"max-postcopy-bandwidth\": 65536}", heartbeat_ms);

    *heal = (Heal){.scene = scene};
    move_need(scene, c);
    heal->source = move_start(scene, c, NULL);
    vm_wait_checks(heal->source, GUEST_CHECKS);
    heal->destination = move_start(scene, c, "tcp:127.0.0.1:0");
    heal->direct = vm_listening_at(heal->destination);
    heal->relay = relay_new(heal->direct);
    vm_do(heal->source, "migrate-set-parameters", parameters);
    move_begin(heal->source, c, relay_uri(heal->relay));
    vm_wait_status(heal->source, "postcopy-active");
    vm_wait_status(heal->destination, "postcopy-active");
}

/* A pause is not the end here. */
static void
wait_status(const Heal *heal, Vm *vm, const char *status)
{
    int64_t end_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;

    for (;;) {
        g_autofree char *now = vm_status(vm);
        if (g_str_equal(now, status) || g_str_equal(now, "completed"))
            return;
        if (g_str_equal(now, "failed") || g_get_monotonic_time() > end_us)
            scene_fail(heal->scene, "%s: status is %s, expected %s", vm->label, now, status);
        g_usleep(5000);
    }
}

/* vm_wait_number() takes a pause for an end too. */
static void
wait_number(const Heal *heal, Vm *vm, const char *path, int64_t least)
{
    int64_t end_us = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;

    while (vm_number(vm, path) < least) {
        g_autofree char *now = vm_status(vm);
        if (g_str_equal(now, "completed")) /* the guest was quicker to ask for all of it */
            return;
        if (g_get_monotonic_time() > end_us)
            scene_fail(heal->scene, "%s: %s stays below %d", vm->label, path, (int)least);
        g_usleep(5000);
    }
}

static void
wait_pauses(Heal *heal, int64_t count)
{
    wait_number(heal, heal->source, "faultline.pauses", count);
    wait_number(heal, heal->destination, "faultline.pauses", count);
}

static void
be_quick(Heal *heal)
{
    vm_do(heal->source, "migrate-set-parameters", "{\"max-postcopy-bandwidth\": 0}");
}

static void
check_end(Heal *heal)
{
    wait_status(heal, heal->source, "completed");
    wait_status(heal, heal->destination, "completed");
    vm_wait_run_state(heal->source, "postmigrate");
    vm_must_refuse(heal->source, "cont", NULL);
    vm_wait_run_state(heal->destination, "running");
    vm_wait_checks(heal->destination, GUEST_CHECKS);
    vm_quit(heal->source);
    vm_quit(heal->destination);
    relay_free(heal->relay);
    g_free(heal->direct);
}

/* At full speed to the end. */
static void
finish(Heal *heal, int64_t least_pauses)
{
    wait_pauses(heal, least_pauses);
    be_quick(heal);
    check_end(heal);
}

static void
break_once(Scene *scene, const MoveCase *c)
{
    Heal heal;

    begin(&heal, scene, c, 5000);
    relay_break(heal.relay);
    finish(&heal, 1);
}

void
link_broken_in_postcopy_heals(void **state)
{
    break_once(*state, &plain);
}

void
link_broken_in_postcopy_with_preempt_heals(void **state)
{
    break_once(*state, &preempt);
}

/* The relay refuses all who come later; the destination has told where it is. */
void
link_cut_for_good_heals_by_another_address(void **state)
{
    Heal heal;

    begin(&heal, *state, &preempt, 5000);
    relay_cut(heal.relay);
    finish(&heal, 1);
}

static void
hang_once(Scene *scene, const MoveCase *c)
{
    Heal heal;

    begin(&heal, scene, c, 500);
    relay_hang(heal.relay);
    finish(&heal, 1);
}

void
link_hanging_in_postcopy_heals(void **state)
{
    hang_once(*state, &plain);
}

void
link_hanging_in_postcopy_with_preempt_heals(void **state)
{
    hang_once(*state, &preempt);
}

/* The destination has everything and says so, and nobody hears it: the source has to come for it,
 * and the destination to be there. */
void
last_word_that_is_lost_is_said_again(void **state)
{
    Heal heal;

    begin(&heal, *state, &plain, 2000);
    relay_mute(heal.relay);
    be_quick(&heal);
    wait_status(&heal, heal.destination, "completed");
    if (vm_number(heal.destination, "faultline.pauses") != 0)
        scene_fail(heal.scene, "the destination did not have everything before it was lost");
    check_end(&heal);
}

/* Some say nothing, some the wrong thing, and none is let in. How many came: a guest that has all
 * of its memory waits for nobody any more. */
static unsigned
send_strangers(const Heal *heal, int *fds)
{
    static const char garbage[512] = "GET / HTTP/1.0\r\n\r\n";
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(strrchr(heal->direct, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    for (unsigned i = 0; i < STRANGERS; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (connect(fds[i], (struct sockaddr *)&address, sizeof address) < 0) {
            close(fds[i]);
            wait_status(heal, heal->destination, "completed");
            return i;
        }
        if (i % 2)
            assert_int_equal(send(fds[i], garbage, sizeof garbage, MSG_NOSIGNAL), sizeof garbage);
    }
    return STRANGERS;
}

void
link_broken_again_and_again_heals_among_strangers(void **state)
{
    Heal heal;
    int fds[STRANGERS];

    begin(&heal, *state, &preempt, 5000);
    for (int64_t i = 1; i <= BREAKS; i++) {
        unsigned count = send_strangers(&heal, fds);
        relay_break(heal.relay);
        wait_pauses(&heal, i);
        wait_status(&heal, heal.destination, "postcopy-active");
        wait_status(&heal, heal.source, "postcopy-active");
        for (unsigned j = 0; j < count; j++)
            close(fds[j]);
    }
    finish(&heal, BREAKS);
}

void
pause_by_command_waits_for_a_command(void **state)
{
    Heal heal;

    begin(&heal, *state, &preempt, 5000);
    vm_do(heal.source, "migrate-pause", NULL);
    vm_wait_status(heal.source, "postcopy-paused");
    vm_wait_status(heal.destination, "postcopy-paused");
    if (vm_number(heal.source, "faultline.recover-attempts") != 0)
        scene_fail(heal.scene, "the source connected again, and was told to pause");
    g_autofree char *resume =
        g_strdup_printf("{\"uri\": \"%s\", \"resume\": true}", relay_uri(heal.relay));
    vm_do(heal.source, "migrate", resume);
    wait_status(&heal, heal.source, "postcopy-active");
    finish(&heal, 1);
}
