/* SPDX-License-Identifier: MIT */
/* See converge.h. The guests write all their 16 MiB at full speed, in less time than one pass takes
 * at 64 MiB/s; only held vCPUs let the rest shrink below 50 ms. */
#include "tests/pair/converge.h"
#include "tests/pair/move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define PASSES_ENOUGH 6
#define GUEST_CHECKS  4096 /* once through 16 MiB */

static const MoveCase threads = {.when = MOVE_PRECOPY};
static const MoveCase kvm = {.when = MOVE_PRECOPY, .guest = "kvm"};

/* A source whose migration has gone on for some passes and would go on for ever. */
static Vm *
start_source(Scene *scene, const MoveCase *c)
{
    move_need(scene, c);
    Vm *source = move_start(scene, c, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    vm_do(source, "migrate-set-parameters",
          "{\"downtime-limit\": 50, \"max-bandwidth\": 67108864, \"cpu-throttle-initial\": 60, "
          "\"cpu-throttle-increment\": 39}");
    return source;
}

static Vm *
start_migration(Scene *scene, Vm *source, const MoveCase *c)
{
    Vm *destination = move_start(scene, c, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);

    move_begin(source, c, uri);
    return destination;
}

static void
cancel(Vm *source, Vm *destination)
{
    vm_do(source, "migrate_cancel", NULL);
    vm_wait_status(source, "cancelled");
    if (vm_number(source, "cpu-throttle-percentage") != 0)
        scene_fail(source->scene, "cancelled, and the guest is still throttled");
    vm_wait_exit(destination);
    vm_wait_run_state(source, "running");
    vm_wait_checks(source, GUEST_CHECKS);
}

static void
switch_on(Vm *source)
{
    vm_do(source, "migrate-set-capabilities",
          "{\"capabilities\": [{\"capability\": \"auto-converge\", \"state\": true}]}");
}

/* The guest is moved whole: once without, which does not end, and once with auto-converge. */
static void
converge(Scene *scene, const MoveCase *c)
{
    Vm *source = start_source(scene, c);
    Vm *destination = start_migration(scene, source, c);

    vm_wait_number(source, "ram.dirty-sync-count", PASSES_ENOUGH);
    if (vm_number(source, "cpu-throttle-percentage") != 0)
        scene_fail(scene, "throttled without auto-converge");
    cancel(source, destination);

    switch_on(source);
    destination = start_migration(scene, source, c);
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    if (vm_number(source, "cpu-throttle-percentage") != 0)
        scene_fail(scene, "completed, and the guest is still throttled");
    vm_wait_run_state(destination, "running");
    vm_quit(source);
    vm_wait_checks(destination, GUEST_CHECKS);
    vm_quit(destination);
}

/* Cancelled while it is slow, twice, the guest goes on and can still be moved. */
static void
cancel_throttled(Scene *scene, const MoveCase *c)
{
    Vm *source = start_source(scene, c);

    switch_on(source);
    vm_do(source, "migrate-set-parameters", "{\"downtime-limit\": 0}");
    for (unsigned i = 0; i < 2; i++) {
        Vm *destination = start_migration(scene, source, c);
        vm_wait_number(source, "cpu-throttle-percentage", 60);
        cancel(source, destination);
    }
    vm_do(source, "migrate-set-parameters", "{\"downtime-limit\": 2000}");
    Vm *destination = start_migration(scene, source, c);
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    vm_wait_checks(destination, GUEST_CHECKS);
    vm_quit(source);
    vm_quit(destination);
}

void
auto_converge_ends_a_precopy_that_would_not_threads(void **state)
{
    converge(*state, &threads);
}

void
auto_converge_ends_a_precopy_that_would_not_kvm(void **state)
{
    converge(*state, &kvm);
}

void
cancel_of_a_throttled_guest_lets_it_run_threads(void **state)
{
    cancel_throttled(*state, &threads);
}

void
cancel_of_a_throttled_guest_lets_it_run_kvm(void **state)
{
    cancel_throttled(*state, &kvm);
}
