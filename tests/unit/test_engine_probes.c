/* SPDX-License-Identifier: MIT */
/*
 * The USDT probes of a page's walk, as debuggers find them: in the notes of the program and of the
 * shared library that the build made, one at least for each step of the table, and in the script
 * that comes with them.
 */
#include "engine/walk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <gio/gio.h>
#include <string.h>

static char *
beside_build(const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = g_path_get_dirname(self);
    return g_build_filename(folder, "..", "..", name, NULL);
}

/* What readelf says of the notes. */
static char *
notes_of(const char *name)
{
    g_autofree char *path = beside_build(name);
    g_autofree char *program = g_find_program_in_path("readelf");
    char *arguments[] = {program, (char *)"-n", path, NULL};
    char *output = NULL;
    int status = -1;

    if (!program) {
        print_message("readelf is not installed (package binutils)\n");
        skip();
    }
    assert_true(g_spawn_sync(NULL, arguments, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &output,
                             NULL, &status, NULL));
    assert_int_equal(status, 0);
    return output;
}

static char *
probe_name(const FaultlineWalkRow *row)
{
    return g_strdelimit(g_strdup(row->name), "-", '_');
}

static void
expect_probes(const char *file)
{
    g_autofree char *notes = notes_of(file);
    unsigned count = 0;

    for (const FaultlineWalkRow *row = faultline_walk_table(); row->name; row++, count++) {
        g_autofree char *name = probe_name(row);
        g_autofree char *line = g_strdup_printf("Provider: faultline\n    Name: %s\n", name);
        if (!strstr(notes, line))
            fail_msg("%s has no probe faultline:%s", file, name);
    }
    assert_int_equal(count, 12);
}

static void
program_and_library_have_a_probe_for_each_step(void **state)
{
    (void)state;
#ifdef WALK_HAS_PROBES
    expect_probes("faultline");
    expect_probes("libfaultline.so.0");
#else
    print_message("built without probes: <sys/sdt.h> is missing (package systemtap-sdt-dev)\n");
    (void)expect_probes;
    skip();
#endif
}

static void
script_tells_of_each_probe(void **state)
{
    g_autofree char *path = beside_build("../doc/faultline-walk.bt");
    g_autofree char *text = NULL;
    (void)state;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (const FaultlineWalkRow *row = faultline_walk_table(); row->name; row++) {
        g_autofree char *name = probe_name(row);
        g_autofree char *entry = g_strdup_printf("%2u %s", row->number, name);
        if (!strstr(text, entry))
            fail_msg("doc/faultline-walk.bt does not tell of '%s'", entry);
    }
}

/* Each probe that the script attaches to is one of the table. */
static void
script_attaches_to_no_other_probe(void **state)
{
    static const char head[] = "\nusdt:*:faultline:";
    g_autofree char *path = beside_build("../doc/faultline-walk.bt");
    g_autofree char *text = NULL;
    unsigned count = 0;
    (void)state;

    assert_true(g_file_get_contents(path, &text, NULL, NULL));
    for (const char *at = strstr(text, head); at; at = strstr(at + 1, head)) {
        g_autofree char *name = g_strndup(at + strlen(head), strcspn(at + strlen(head), "\n"));
        bool is_known = false;
        for (const FaultlineWalkRow *row = faultline_walk_table(); row->name; row++) {
            g_autofree char *known = probe_name(row);
            is_known |= g_str_equal(name, known);
        }
        if (!is_known)
            fail_msg("there is no probe %s", name);
        count++;
    }
    assert_true(count >= 5);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(program_and_library_have_a_probe_for_each_step),
        cmocka_unit_test(script_tells_of_each_probe),
        cmocka_unit_test(script_attaches_to_no_other_probe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
