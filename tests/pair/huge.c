/* SPDX-License-Identifier: MIT */
/*
 * 4 KiB fetches out of 2 MiB pages, from outside: the destination of a postcopy maps its guest's
 * memory by 2 MiB pages again once it is whole. The host's setting of shmem THP is changed for the
 * test and restored.
 */
#include "tests/pair/huge.h"
#include "tests/pair/move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define SETTING "/sys/kernel/mm/transparent_hugepage/shmem_enabled"

static char *setting_before; /* between huge_setup and huge_teardown; NULL: no such setting */

static bool
write_setting(const char *value)
{
    FILE *file = fopen(SETTING, "w");
    bool written = file && fputs(value, file) >= 0;
    return file && fclose(file) == 0 && written;
}

/* The word in brackets; free with g_free, NULL where the kernel has no such setting. */
static char *
read_setting(void)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(SETTING, &text, NULL, NULL))
        return NULL;
    const char *open = strchr(text, '['), *close = strchr(text, ']');
    return open && close ? g_strndup(open + 1, (gsize)(close - open - 1)) : NULL;
}

/* KiB of shmem that a process maps by 2 MiB pages, over all its mappings. */
static uint64_t
mapped_huge_kib(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/smaps", (int)pid);
    g_autofree char *text = NULL;
    uint64_t total = 0;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (const char *at = text; (at = strstr(at, "ShmemPmdMapped:")); at += 15)
        total += g_ascii_strtoull(at + 15, NULL, 10);
    return total;
}

static void
move_huge(Scene *scene)
{
    static const MoveCase c = {
        .when = MOVE_POSTCOPY_AFTER_ONE, .memory_mib = 64, .preempt = true, .blocktime = true};
    Vm *source = move_start(scene, &c, NULL);

    vm_wait_checks(source, 1);
    g_autofree char *uri = move_uri(scene, &c);
    Vm *destination = move_start(scene, &c, uri);
    g_autofree char *address = vm_listening_at(destination);
    move_begin(source, &c, address);
    vm_wait_status(source, "completed");
    vm_wait_status(destination, "completed");
    vm_wait_checks(destination, 1000);

    /* Collapsing goes on after `completed`. */
    uint64_t huge_kib = 0;
    for (unsigned i = 0; i < 100 && huge_kib < 32 * 1024; i++) {
        g_usleep(100000);
        huge_kib = mapped_huge_kib(destination->pid);
    }
    printf("%" G_GUINT64_FORMAT " KiB of 65536 are mapped by 2 MiB pages\n", huge_kib);
    assert_true(huge_kib >= 32 * 1024);
    vm_wait_checks(destination, 1000);
    vm_quit(source);
    vm_quit(destination);
}

int
huge_setup(void **state)
{
    setting_before = read_setting();
    return scene_setup(state);
}

int
huge_teardown(void **state)
{
    if (setting_before)
        write_setting(setting_before);
    g_clear_pointer(&setting_before, g_free);
    return scene_teardown(state);
}

void
postcopy_of_huge_pages_ends_on_huge_pages(void **state)
{
    if (!setting_before || !write_setting("advise"))
        scene_skip("shmem THP cannot be set to advise here (" SETTING ")");
    move_huge(*state);
}
