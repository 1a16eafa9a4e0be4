/* SPDX-License-Identifier: MIT */
/* See move.h. Runs in the test's only thread. */
#include "tests/pair/move.h"
#include "tests/pair/damage.h"
#include "tests/pair/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define MIB             ((uint64_t)1 << 20)
#define PAGES_PER_MIB   256
#define HUGE_SPARE      4
#define CHECKS_ENOUGH   300000 /* once through 1 GiB */
#define CALM_MEMORY_MIB 64     /* so much is filled and swept in no time, whoever the guest is */

static const char *const when_names[] = {
    [MOVE_PRECOPY] = "precopy",
    [MOVE_POSTCOPY_AT_ONCE] = "postcopy_at_once",
    [MOVE_POSTCOPY_AFTER_ONE] = "postcopy_after_one_pass",
    [MOVE_POSTCOPY_IN_THIRD] = "postcopy_in_third_pass",
};

static const char *
or_preset(const char *value, const char *preset)
{
    return value ? value : preset;
}

static uint64_t
memory_mib(const MoveCase *c)
{
    return c->memory_mib ? c->memory_mib : 16;
}

static uint64_t
working_pages(const MoveCase *c)
{
    return (c->working_mib ? c->working_mib : memory_mib(c)) * PAGES_PER_MIB;
}

char *
move_case_name(const MoveCase *c)
{
    GString *name = g_string_new(when_names[c->when]);

    g_string_append_printf(name, "_%s_%s_%s", or_preset(c->guest, "threads"),
                           or_preset(c->backing, "memfd"), or_preset(c->transport, "tcp"));
    if (memory_mib(c) != 16)
        g_string_append_printf(name, "_%" G_GUINT64_FORMAT "_mib", memory_mib(c));
    if (c->cpus > 1)
        g_string_append_printf(name, "_%u_cpus", c->cpus);
    if (c->dirty)
        g_string_append_printf(name, "_dirty_%s", c->dirty);
    if (c->push_mib_per_s)
        g_string_append(name, "_slow_push");
    g_string_append(name, c->preempt ? "_preempt" : "");
    g_string_append(name, c->release_ram ? "_release_ram" : "");
    g_string_append(name, c->blocktime ? "_blocktime" : "");
    g_string_append(name, c->tls ? "_tls" : "");
    g_string_append(name, c->checksums ? "_checksums" : "");
    g_string_append(name, c->stopped ? "_memory_equal" : "_guest_content");
    return g_string_free(name, FALSE);
}

void
move_need(Scene *scene, const MoveCase *c)
{
    static const char *const dirty_ring[] = {"--guest", "kvm",  "--memory", "16M",
                                             "--dirty", "ring", "--paused", NULL};

    scene_need_guest(or_preset(c->guest, "threads"));
    if (memory_mib(c) > CALM_MEMORY_MIB && g_getenv("FAULTLINE_TEST_SMALL"))
        scene_skip("small guests only in this run (FAULTLINE_TEST_SMALL)");
    scene_need_memory(2 * memory_mib(c) * MIB + 512 * MIB);
    if (c->backing && g_str_equal(c->backing, "hugetlb"))
        scene_need_huge_pages(scene, memory_mib(c) + HUGE_SPARE); /* two sides, 2 MiB a page */
    if (c->dirty)
        scene_need_start(scene, dirty_ring);
}

static void
add(GPtrArray *arguments, const char *option, char *value)
{
    g_ptr_array_add(arguments, g_strdup(option));
    g_ptr_array_add(arguments, value);
}

static void
add_capability(GPtrArray *arguments, const char *name, bool on)
{
    if (on)
        add(arguments, "--capability", g_strdup_printf("%s=on", name));
}

static void
add_parameter(GPtrArray *arguments, const char *name, uint64_t value)
{
    add(arguments, "--parameter", g_strdup_printf("%s=%" G_GUINT64_FORMAT, name, value));
}

/* A source that must not converge before postcopy is asked for: no downtime is short enough. One
 * whose passes must last long enough to be seen is held back. */
static void
add_source_parameters(GPtrArray *arguments, const MoveCase *c)
{
    bool small = memory_mib(c) <= CALM_MEMORY_MIB;

    add_parameter(arguments, "downtime-limit", c->when == MOVE_PRECOPY ? 2000 : 0);
    add_parameter(arguments, "max-bandwidth", small ? 4 * memory_mib(c) * MIB : 0);
    if (c->push_mib_per_s)
        add_parameter(arguments, "max-postcopy-bandwidth", c->push_mib_per_s * MIB);
}

static void
add_machine(GPtrArray *arguments, const MoveCase *c)
{
    add(arguments, "--guest", g_strdup(or_preset(c->guest, "threads")));
    add(arguments, "--backing", g_strdup(or_preset(c->backing, "memfd")));
    add(arguments, "--memory", g_strdup_printf("%" G_GUINT64_FORMAT "M", memory_mib(c)));
    add(arguments, "--cpus", g_strdup_printf("%u", c->cpus ? c->cpus : 1));
    if (c->working_mib)
        add(arguments, "--working-set", g_strdup_printf("%" G_GUINT64_FORMAT "M", c->working_mib));
    if (c->write_rate)
        add(arguments, "--write-rate", g_strdup_printf("%" G_GUINT64_FORMAT, c->write_rate));
    if (c->dirty)
        add(arguments, "--dirty", g_strdup(c->dirty));
    if (c->state_dir)
        add(arguments, "--state-dir", g_strdup(c->state_dir));
    if (c->on_source_lost)
        add(arguments, "--on-source-lost", g_strdup(c->on_source_lost));
}

/* Both sides have the same key. */
static void
add_tls(GPtrArray *arguments, Scene *scene, const char *endpoint)
{
    static const char key[] = "qemu:6b65792d6f662d746865732d70616972\n";
    g_autofree char *path = g_build_filename(scene->directory, "keys.psk", NULL);

    if (!g_file_set_contents(path, key, -1, NULL))
        scene_fail(scene, "%s cannot be written", path);
    add(arguments, "--object",
        g_strdup_printf("tls-creds-psk,id=tls0,dir=%s,endpoint=%s", scene->directory, endpoint));
    add(arguments, "--parameter", g_strdup("tls-creds=tls0"));
}

Vm *
move_start(Scene *scene, const MoveCase *c, const char *incoming)
{
    g_autoptr(GPtrArray) arguments = g_ptr_array_new_with_free_func(g_free);

    add_machine(arguments, c);
    add_capability(arguments, "events", true);
    add_capability(arguments, "postcopy-ram", c->when != MOVE_PRECOPY);
    add_capability(arguments, "postcopy-preempt", c->preempt);
    add_capability(arguments, "page-checksums", c->checksums);
    if (c->by_command)
        add(arguments, "--capability", g_strdup("auto-recover=off"));
    if (c->tls)
        add_tls(arguments, scene, incoming ? "server" : "client");
    if (incoming) {
        add_capability(arguments, "postcopy-blocktime", c->blocktime);
        add(arguments, "--incoming", g_strdup(incoming));
        if (c->stopped)
            g_ptr_array_add(arguments, g_strdup("--paused"));
    } else {
        add_capability(arguments, "release-ram", c->release_ram);
        add_source_parameters(arguments, c);
    }
    g_ptr_array_add(arguments, NULL);
    return scene_start(scene, incoming ? "destination" : "source",
                       (const char *const *)arguments->pdata);
}

char *
move_uri(Scene *scene, const MoveCase *c)
{
    if (c->transport && g_str_equal(c->transport, "unix"))
        return g_strdup_printf("unix:%s/link-%u", scene->directory, scene->count_started);
    return g_strdup("tcp:127.0.0.1:0");
}

void
move_begin(Vm *source, const MoveCase *c, const char *uri)
{
    g_autofree char *arguments = g_strdup_printf("{\"uri\": \"%s\"}", uri);

    vm_do(source, "migrate", arguments);
    if (c->when == MOVE_PRECOPY)
        return;
    if (c->when == MOVE_POSTCOPY_AFTER_ONE)
        vm_wait_number(source, "ram.dirty-sync-count", 2);
    if (c->when == MOVE_POSTCOPY_IN_THIRD)
        vm_wait_number(source, "ram.dirty-sync-count", 3);
    vm_do(source, "migrate-start-postcopy", NULL);
}

/* Fails unless the words stand in the events in this order, others between them. */
static void
require_events(Vm *vm, const char *const *words)
{
    g_auto(GStrv) events = g_strsplit(qmp_events(vm->qmp), " ", -1);
    unsigned want = 0;

    for (unsigned i = 0; events[i] && words[want]; i++)
        if (g_str_equal(events[i], words[want]))
            want++;
    if (words[want])
        scene_fail(vm->scene, "%s: event %s is missing, or out of order", vm->label, words[want]);
}

static void
require_events_of_case(Vm *source, Vm *destination, const MoveCase *c)
{
    static const char *const precopy_source[] = {"MIGRATION:setup", "MIGRATION:active", "STOP",
                                                 "MIGRATION:completed", NULL};
    static const char *const postcopy_source[] = {
        "MIGRATION:setup",           "MIGRATION:active",    "STOP", "MIGRATION:postcopy-device",
        "MIGRATION:postcopy-active", "MIGRATION:completed", NULL};
    static const char *const precopy_destination[] = {"MIGRATION:active", "MIGRATION:completed",
                                                      NULL};
    static const char *const postcopy_destination[] = {
        "MIGRATION:active", "MIGRATION:postcopy-device", "MIGRATION:postcopy-active",
        "MIGRATION:completed", NULL};
    bool precopy = c->when == MOVE_PRECOPY;

    require_events(source, precopy ? precopy_source : postcopy_source);
    require_events(destination, precopy ? precopy_destination : postcopy_destination);
    if ((strstr(qmp_events(destination->qmp), "RESUME") != NULL) == c->stopped)
        scene_fail(source->scene, "the guest was%s started at the destination",
                   c->stopped ? "" : " not");
}

static void
require_numbers(Vm *source, Vm *destination, const MoveCase *c)
{
    int64_t late = vm_number(destination, "faultline.pushed-pages") +
                   vm_number(destination, "faultline.requested-pages");

    if (vm_number(source, "ram.total") < (int64_t)(memory_mib(c) * MIB))
        scene_fail(source->scene, "ram.total is less than the guest's memory");
    if (vm_number(source, "ram.remaining") != 0 ||
        vm_number(destination, "faultline.missing-pages") != 0)
        scene_fail(source->scene, "completed, but pages are missing");
    if (c->when != MOVE_PRECOPY && late == 0)
        scene_fail(source->scene, "not one page came by postcopy");
    if (c->when == MOVE_PRECOPY && vm_number(source, "ram.postcopy-bytes") != 0)
        scene_fail(source->scene, "precopy counted postcopy bytes");
    /* The guest writes all its memory, and the push takes seconds: it must have waited for pages.
     */
    if (c->push_mib_per_s && vm_number(source, "faultline.requested-pages") == 0)
        scene_fail(source->scene, "not one page was requested");
    if (c->blocktime && c->push_mib_per_s && vm_number(destination, "postcopy-latency") <= 0)
        scene_fail(source->scene, "postcopy-blocktime is on and no latency was measured");
}

/* With release-ram the source must have let go of most of its memory. */
static void
require_released(Vm *source, const MoveCase *c)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps_rollup", (int)source->pid);
    g_autofree char *text = NULL;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    const char *at = strstr(text, "Rss:");
    assert_non_null(at);
    uint64_t resident_kib = g_ascii_strtoull(at + strlen("Rss:"), NULL, 10);
    if (resident_kib > memory_mib(c) * 1024 * 3 / 4) /* a sanitizer has half of that */
        scene_fail(source->scene, "release-ram: %" G_GUINT64_FORMAT " KiB are still resident",
                   resident_kib);
}

void
move_run(Scene *scene, const MoveCase *c)
{
    bool small = memory_mib(c) <= CALM_MEMORY_MIB;

    move_need(scene, c);
    g_autofree char *wish = move_uri(scene, c);
    Vm *source = move_start(scene, c, NULL);
    vm_wait_checks(source, small ? working_pages(c) : 1);
    Vm *destination = move_start(scene, c, wish);
    g_autofree char *uri = vm_listening_at(destination);

    move_begin(source, c, uri);
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    vm_wait_run_state(source, "postmigrate");
    vm_must_refuse(source, "cont", NULL);
    require_events_of_case(source, destination, c);
    require_numbers(source, destination, c);
    if (c->release_ram)
        require_released(source, c);
    if (c->checksums) {
        damage_require_verdict(source, "passed");
        damage_require_verdict(destination, "passed");
    }
    if (c->stopped) {
        memory_require_equal(source, destination);
        vm_do(destination, "cont", NULL);
    }
    vm_wait_run_state(destination, "running");
    vm_quit(source);
    vm_wait_checks(destination, MIN(working_pages(c), CHECKS_ENOUGH));
    vm_quit(destination);
}
