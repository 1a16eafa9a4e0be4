/* SPDX-License-Identifier: MIT */
/* See resume.h. A relay cuts all connections; the operator lets both sides go on elsewhere;
 * the guest checks its data to the last page. */
#include "tests/pair/resume.h"
#include "tests/pair/move.h"
#include "tests/pair/relay.h"

#define GUEST_CHECKS 4096 /* once through 16 MiB */

static void
cut(Relay *relay, Vm *source, Vm *destination)
{
    relay_cut(relay);
    vm_wait_status(source, "postcopy-paused");
    vm_wait_status(destination, "postcopy-paused");
    if (vm_number(destination, "faultline.missing-pages") == 0)
        scene_fail(source->scene, "nothing was missing when the connection was cut");
}

/* Listens at uri, and connects to where that is. */
static void
go_on(Vm *source, Vm *destination, const char *uri)
{
    g_autofree char *listen = g_strdup_printf("{\"uri\": \"%s\"}", uri);
    g_autofree char *connect = g_strdup_printf("{\"uri\": \"%s\", \"resume\": true}", uri);

    vm_do(destination, "migrate-recover", listen);
    vm_do(source, "migrate", connect);
    vm_wait_status(source, "postcopy-active");
    vm_wait_status(destination, "postcopy-active");
}

static void
cut_and_go_on(Scene *scene, const MoveCase *c, const char *uri)
{
    static const char by_command[] =
        "{\"capabilities\": [{\"capability\": \"auto-recover\", \"state\": false}]}";

    Vm *source = move_start(scene, c, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    Vm *destination = move_start(scene, c, "tcp:127.0.0.1:0");
    g_autofree char *first = vm_listening_at(destination);
    vm_do(source, "migrate-set-capabilities", by_command);
    Relay *relay = relay_new(first);
    move_begin(source, c, relay_uri(relay));
    vm_wait_status(source, "postcopy-active");
    vm_wait_status(destination, "postcopy-active");
    cut(relay, source, destination);
    relay_free(relay);

    go_on(source, destination, uri);
    vm_do(source, "migrate-set-parameters", "{\"max-postcopy-bandwidth\": 0}");
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    vm_quit(source);
    vm_wait_checks(destination, GUEST_CHECKS);
    vm_quit(destination);
}

static void
at_another_port(Scene *scene, const MoveCase *c)
{
    move_need(scene, c); /* a test that is skipped frees nothing */
    /* One that was free a moment ago. */
    Relay *relay = relay_new("tcp:127.0.0.1:1");
    g_autofree char *uri = g_strdup(relay_uri(relay));

    relay_free(relay);
    cut_and_go_on(scene, c, uri);
}

static void
at_a_unix_socket(Scene *scene, const MoveCase *c)
{
    move_need(scene, c);
    g_autofree char *uri = g_strdup_printf("unix:%s/again", scene->directory);

    cut_and_go_on(scene, c, uri);
}

#define SLOWLY .when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1

void
link_cut_in_postcopy_resumes_at_another_port_threads(void **state)
{
    static const MoveCase c = {SLOWLY};
    at_another_port(*state, &c);
}

void
link_cut_in_postcopy_resumes_at_another_port_threads_preempt(void **state)
{
    static const MoveCase c = {SLOWLY, .preempt = true};
    at_another_port(*state, &c);
}

void
link_cut_in_postcopy_resumes_at_a_unix_socket_threads_hugetlb(void **state)
{
    static const MoveCase c = {SLOWLY, .preempt = true, .backing = "hugetlb", .memory_mib = 64};
    at_a_unix_socket(*state, &c);
}

void
link_cut_in_postcopy_resumes_at_a_unix_socket_kvm(void **state)
{
    static const MoveCase c = {SLOWLY, .guest = "kvm"};
    at_a_unix_socket(*state, &c);
}

void
link_cut_in_postcopy_resumes_at_a_unix_socket_kvm_preempt(void **state)
{
    static const MoveCase c = {SLOWLY, .guest = "kvm", .preempt = true};
    at_a_unix_socket(*state, &c);
}

/* Its bitmap takes several frames. */
void
link_cut_in_postcopy_resumes_at_a_unix_socket_threads_one_gib(void **state)
{
    static const MoveCase c = {SLOWLY, .memory_mib = 1024, .working_mib = 16, .preempt = true};
    at_a_unix_socket(*state, &c);
}
