/* SPDX-License-Identifier: MIT */
/* See damage.h. A relay between the two processes changes bits of what the source sends, so that
 * nearly all of them are bits of pages; one that hits a header ends the connection, which is a good
 * end as well, and then the test tries again. */
#include "tests/pair/damage.h"
#include "tests/pair/move.h"
#include "tests/pair/relay.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define GUEST_CHECKS 4096 /* once through 16 MiB */
#define TRIES        8u
#define SELDOM       1500007u
#define OFTEN        1009u

static char *
verdict_of(Vm *vm)
{
    g_autoptr(JsonNode) reply = vm_call(vm, "query-migrate", NULL);
    JsonObject *object = json_node_get_object(reply);

    if (!json_object_has_member(object, "faultline"))
        return g_strdup("none");
    object = json_object_get_object_member(object, "faultline");
    object = json_object_get_object_member(object, "integrity");
    return g_strdup(json_object_get_string_member(object, "verdict"));
}

void
damage_require_verdict(Vm *vm, const char *verdict)
{
    g_autofree char *found = verdict_of(vm);

    if (!g_str_equal(found, verdict))
        scene_fail(vm->scene, "%s: the verdict is %s, expected %s", vm->label, found, verdict);
}

static Vm *
begin(Scene *scene, Vm *source, const MoveCase *c, Relay **ret_relay)
{
    Vm *destination = move_start(scene, c, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);

    *ret_relay = relay_new(uri);
    move_begin(source, c, relay_uri(*ret_relay));
    return destination;
}

/* The source's status when nothing goes on any more. Free with g_free. */
static char *
await_end(Vm *vm)
{
    static const char *const ends[] = {"completed", "failed", "postcopy-paused", NULL};

    for (int64_t until = g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;
         g_get_monotonic_time() < until; g_usleep(20000)) {
        char *status = vm_status(vm);
        if (g_strv_contains(ends, status))
            return status;
        g_free(status);
    }
    scene_fail(vm->scene, "%s: the migration does not end", vm->label);
}

/* Once; whether damage was met and repaired. */
static bool
move_through_damage(Scene *scene, const MoveCase *c)
{
    Relay *relay;
    Vm *source = move_start(scene, c, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    Vm *destination = begin(scene, source, c, &relay);
    vm_wait_number(destination, "faultline.main-bytes", 100000);
    relay_damage(relay, SELDOM);
    g_autofree char *status = await_end(source);
    bool is_done = g_str_equal(status, "completed");
    int64_t damaged = 0;

    if (is_done) {
        vm_wait_status(destination, "completed");
        damage_require_verdict(source, "passed");
        damage_require_verdict(destination, "passed");
        damaged = vm_number(destination, "faultline.integrity.damaged-pages");
        assert_int_equal(vm_number(destination, "faultline.integrity.asked-again"), damaged);
        assert_int_equal(vm_number(source, "faultline.integrity.damaged-pages"), damaged);
        vm_wait_run_state(destination, "running");
        vm_wait_checks(destination, GUEST_CHECKS);
        vm_quit(destination);
    } else if (g_str_equal(status, "failed")) {
        vm_wait_run_state(source, "running");
        vm_wait_checks(source, GUEST_CHECKS);
    } else {
        vm_wait_status(destination, "postcopy-paused");
        vm_checks(destination);
        vm_kill(destination);
    }
    print_message("%s: %u bits changed, %" G_GINT64_FORMAT " pages damaged\n", status,
                  relay_count_damaged(relay), damaged);
    vm_kill(source);
    relay_free(relay);
    return is_done && damaged > 0;
}

static void
require_repair(Scene *scene, const MoveCase *c)
{
    bool is_repaired = false;

    move_need(scene, c);
    for (unsigned i = 0; i < TRIES && !is_repaired; i++)
        is_repaired = move_through_damage(scene, c);
    if (!is_repaired)
        scene_fail(scene, "no damaged page was repaired in %u migrations", TRIES);
}

void
damaged_pages_of_precopy_are_asked_for_again(void **state)
{
    static const MoveCase c = {.when = MOVE_PRECOPY, .checksums = true};

    require_repair(*state, &c);
}

void
damaged_pages_of_postcopy_are_asked_for_again(void **state)
{
    static const MoveCase cases[] = {
        {.when = MOVE_POSTCOPY_AT_ONCE, .checksums = true, .preempt = true, .push_mib_per_s = 16},
        {.when = MOVE_POSTCOPY_AFTER_ONE, .checksums = true, .push_mib_per_s = 16},
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        require_repair(*state, &cases[i]);
}

void
damage_that_goes_on_in_precopy_leaves_guest_running(void **state)
{
    /* does not converge before somebody asks for postcopy, which nobody does */
    static const MoveCase c = {.when = MOVE_POSTCOPY_AFTER_ONE, .checksums = true};
    Scene *scene = *state;
    Relay *relay;

    move_need(scene, &c);
    Vm *source = move_start(scene, &c, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    Vm *destination = move_start(scene, &c, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);
    relay = relay_new(uri);
    g_autofree char *arguments = g_strdup_printf("{\"uri\": \"%s\"}", relay_uri(relay));
    vm_do(source, "migrate", arguments);
    vm_wait_number(source, "ram.dirty-sync-count", 2);
    relay_damage(relay, OFTEN);
    vm_wait_status(source, "failed");
    vm_wait_exit(destination);
    vm_wait_run_state(source, "running");
    vm_wait_checks(source, GUEST_CHECKS);
    relay_free(relay);
    vm_quit(source);
}

void
damage_that_goes_on_in_postcopy_pauses_both_and_recovers(void **state)
{
    static const MoveCase c = {.when = MOVE_POSTCOPY_AT_ONCE,
                               .checksums = true,
                               .preempt = true,
                               .by_command = true,
                               .push_mib_per_s = 2};
    Scene *scene = *state;
    Relay *relay;

    move_need(scene, &c);
    Vm *source = move_start(scene, &c, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    Vm *destination = begin(scene, source, &c, &relay);
    vm_wait_status(destination, "postcopy-active");
    relay_damage(relay, OFTEN);
    vm_wait_status(source, "postcopy-paused");
    vm_wait_status(destination, "postcopy-paused");
    relay_free(relay);
    g_autofree char *there = g_strdup_printf("{\"uri\": \"unix:%s/again\"}", scene->directory);
    vm_do(destination, "migrate-recover", there);
    g_autofree char *arguments =
        g_strdup_printf("{\"uri\": \"unix:%s/again\", \"resume\": true}", scene->directory);
    vm_do(source, "migrate", arguments);
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    damage_require_verdict(source, "passed");
    damage_require_verdict(destination, "passed");
    vm_wait_checks(destination, GUEST_CHECKS);
    vm_quit(source);
    vm_quit(destination);
}
