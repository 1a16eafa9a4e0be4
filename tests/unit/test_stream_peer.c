/* SPDX-License-Identifier: MIT */
/*
 * Whole migrations made by the encoders alone, small but complete: walked by the tests' own reader,
 * and parsed by an independent implementation, a Python script that checks every rule (named by
 * FAULTLINE_QSTREAM; skipped where it or python3 is missing).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>

#include "tests/unit/support/walk.h"

#define RAM_SECTION  1u
#define DISK_SECTION 2u
#define BYTES_MAX    (256u * 1024u)
#define COUNT_PAGES  32u
#define PAGES(count) ((uint64_t)(count)*STREAM_PAGE_BYTES)

static uint8_t page[STREAM_PAGE_BYTES];

static void
put_pages(StreamWriter *w, const char *name, unsigned first, unsigned count)
{
    for (unsigned i = first; i < first + count; i++) {
        bool is_zero = i % 3 == 0;
        stream_put_record(w, is_zero ? STREAM_RAM_ZERO : STREAM_RAM_PAGE, i == first ? name : NULL,
                          PAGES(i));
        memset(page, (int)i + 1, sizeof page);
        if (!is_zero)
            stream_put_bytes(w, page, sizeof page);
    }
}

static void
put_open(StreamWriter *w, bool is_postcopy)
{
    stream_put_header(w);
    stream_put_configuration(w, "faultline-1.0");
    stream_put_command(w, STREAM_COMMAND_OPEN_RETURN_PATH, NULL, 0);
    stream_put_ping(w, STREAM_HELLO | STREAM_FEATURES);
    if (is_postcopy)
        stream_put_advise(w, STREAM_PAGE_BYTES);
    stream_put_start(w, STREAM_START, RAM_SECTION, "ram", 0, STREAM_RAM_VERSION);
    stream_put_mem_size(w, PAGES(COUNT_PAGES + 2));
    stream_put_block(w, "ram0", PAGES(COUNT_PAGES), 0);
    stream_put_block(w, "rom0", PAGES(2), 0);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);

    stream_put_part(w, STREAM_PART, RAM_SECTION);
    put_pages(w, "ram0", 0, COUNT_PAGES);
    put_pages(w, "rom0", 0, 2);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);
    /* the first record of this part continues the last block of the one before */
    stream_put_part(w, STREAM_PART, RAM_SECTION);
    if (!is_postcopy)
        put_pages(w, NULL, 1, 1);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);
}

static void
put_devices(StreamWriter *w)
{
    stream_put_start(w, STREAM_FULL, DISK_SECTION, "disk", 0, 1);
    stream_put_be32(w, 5);
    stream_put_bytes(w, "state", 5);
    stream_put_footer(w, DISK_SECTION);
    stream_put_globalstate(w, true);
}

static void
put_end(StreamWriter *w)
{
    stream_put_part(w, STREAM_END, RAM_SECTION);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);
}

static void
put_precopy(StreamWriter *w)
{
    static const char json[] = "{\"page_size\": 4096, \"devices\": ["
                               "{\"name\": \"disk\", \"instance_id\": 0, \"size\": 9}, "
                               "{\"name\": \"globalstate\", \"instance_id\": 0, \"size\": 104}]}";
    put_open(w, false);
    put_end(w);
    put_devices(w);
    stream_put_ping(w, STREAM_PING_COMMIT);
    stream_put_u8(w, STREAM_EOF);
    stream_put_u8(w, STREAM_VMDESCRIPTION);
    stream_put_be32(w, sizeof json - 1);
    stream_put_bytes(w, json, sizeof json - 1);
}

/* Page 5 and 9 go over the urgent channel, the other discarded ones over main. */
static void
put_postcopy(StreamWriter *w, StreamWriter *urgent)
{
    static const StreamRange ranges[] = {{PAGES(4), PAGES(3)}, {PAGES(9), PAGES(1)}};
    uint8_t package_bytes[1024];
    StreamWriter package = {package_bytes, 0, sizeof package_bytes};
    put_open(w, true);
    stream_put_discard(w, "ram0", ranges, 2);
    stream_put_discard(w, "rom0", (StreamRange[]){{0, PAGES(2)}}, 1);
    stream_put_ping(w, STREAM_PING_DISCARDED);

    stream_put_command(&package, STREAM_COMMAND_POSTCOPY_LISTEN, NULL, 0);
    put_devices(&package);
    stream_put_ping(&package, STREAM_PING_LOADED);
    stream_put_command(&package, STREAM_COMMAND_POSTCOPY_RUN, NULL, 0);
    uint32_t length = GUINT32_TO_BE((uint32_t)package.length);
    stream_put_command(w, STREAM_COMMAND_PACKAGED, &length, sizeof length);
    stream_put_bytes(w, package.bytes, package.length);
    stream_put_ping(w, STREAM_PING_RUNNING);

    stream_put_part(w, STREAM_PART, RAM_SECTION);
    put_pages(w, "ram0", 4, 1);
    put_pages(w, NULL, 6, 1);
    put_pages(w, "rom0", 0, 2);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);
    put_end(w);
    stream_put_u8(w, STREAM_EOF);

    put_pages(urgent, "ram0", 5, 1);
    put_pages(urgent, NULL, 9, 1);
}

static void
put_return(StreamWriter *w, bool is_postcopy)
{
    /* a QEMU's answer: the PING's own value */
    stream_put_return_value(w, STREAM_RETURN_PONG, STREAM_HELLO | STREAM_FEATURES);
    if (is_postcopy) {
        for (uint32_t ping = STREAM_PING_DISCARDED; ping <= STREAM_PING_RUNNING; ping++)
            stream_put_return_value(w, STREAM_RETURN_PONG, ping);
        stream_put_request(w, "ram0", PAGES(5), STREAM_PAGE_BYTES);
        stream_put_request(w, NULL, PAGES(9), STREAM_PAGE_BYTES);
    } else {
        stream_put_return_value(w, STREAM_RETURN_PONG, STREAM_PING_COMMIT);
    }
    stream_put_return_value(w, STREAM_RETURN_SHUT, 0);
}

/* ---- The three channels of one migration -------------------------------------------------------
 */

typedef struct Channels {
    StreamWriter main, urgent, back;
} Channels;

static void
channels_free(Channels *channels)
{
    g_free(channels->main.bytes);
    g_free(channels->urgent.bytes);
    g_free(channels->back.bytes);
    g_free(channels);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Channels, channels_free)

static Channels *
channels_new(bool is_postcopy)
{
    Channels *channels = g_new0(Channels, 1);

    channels->main = (StreamWriter){g_malloc(BYTES_MAX), 0, BYTES_MAX};
    channels->urgent = (StreamWriter){g_malloc(BYTES_MAX), 0, BYTES_MAX};
    channels->back = (StreamWriter){g_malloc(BYTES_MAX), 0, BYTES_MAX};
    if (is_postcopy)
        put_postcopy(&channels->main, &channels->urgent);
    else
        put_precopy(&channels->main);
    put_return(&channels->back, is_postcopy);
    return channels;
}

static void
check(bool is_good, const char *what, const GError *error)
{
    if (!is_good)
        fail_msg("%s: %s", what, error ? error->message : "no error set");
}

static bool is_precopy = false, is_postcopy = true;

static void
encode_migration_is_walked_to_the_end(void **state)
{
    g_autoptr(Channels) made = channels_new(*(bool *)*state);
    g_autoptr(Walk) walk = walk_new();
    g_autoptr(GError) error = NULL;

    check(walk_main(walk, made->main.bytes, made->main.length, &error), "main", error);
    check(walk_urgent(walk, made->urgent.bytes, made->urgent.length, &error), "urgent", error);
    check(walk_return(walk, made->back.bytes, made->back.length, &error), "return path", error);
    assert_true(walk_is_whole(walk));
    assert_true(walk->was_running && walk->has_shut);
    assert_int_equal(walk->count_pongs, walk->count_pings);
    assert_int_equal(walk->count_postcopy, walk->count_discarded);
    assert_int_equal(walk->count_discarded, *(bool *)*state ? 6 : 0);
}

/* ---- The independent parser --------------------------------------------------------------------
 */

/* NULL: it cannot run here, and why has been printed. */
static const char *
find_script(void)
{
    const char *path = g_getenv("FAULTLINE_QSTREAM");
    g_autofree char *python = g_find_program_in_path("python3");

    if (!path)
        path = "../shared/tools/qstream.py";
    if (!python)
        print_message("skipped: python3 is not in PATH\n");
    else if (!g_file_test(path, G_FILE_TEST_EXISTS))
        print_message("skipped: no parser at %s, FAULTLINE_QSTREAM names another\n", path);
    else
        return path;
    return NULL;
}

static char *
save(const char *folder, const char *name, const StreamWriter *writer)
{
    char *path = g_build_filename(folder, name, NULL);
    g_autoptr(GError) error = NULL;

    check(g_file_set_contents(path, (const char *)writer->bytes, (gssize)writer->length, &error),
          path, error);
    return path;
}

static void
run(char **arguments)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL, *err = NULL;
    int status = 0;

    check(g_spawn_sync(NULL, arguments, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err, &status,
                       &error),
          "python3", error);
    if (!g_spawn_check_wait_status(status, NULL))
        fail_msg("%s%s", out, err);
}

static void
encode_migration_passes_an_independent_parser(void **state)
{
    const char *script = find_script();
    if (!script)
        skip();
    g_autoptr(Channels) made = channels_new(*(bool *)*state);
    g_autoptr(GError) error = NULL;
    g_autofree char *folder = g_dir_make_tmp("faultline-stream-XXXXXX", &error);

    check(folder != NULL, "temporary folder", error);
    g_autofree char *main_path = save(folder, "main", &made->main);
    g_autofree char *urgent_path = save(folder, "urgent", &made->urgent);
    g_autofree char *back_path = save(folder, "back", &made->back);
    run((char *[]){(char *)"python3", (char *)script, main_path, (char *)"--preempt-file",
                   urgent_path, NULL});
    run((char *[]){(char *)"python3", (char *)script, (char *)"--rp", back_path, NULL});
    g_unlink(main_path);
    g_unlink(urgent_path);
    g_unlink(back_path);
    g_rmdir(folder);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        {"encode_precopy_is_walked_to_the_end", encode_migration_is_walked_to_the_end, NULL, NULL,
         &is_precopy},
        {"encode_postcopy_is_walked_to_the_end", encode_migration_is_walked_to_the_end, NULL, NULL,
         &is_postcopy},
        {"encode_precopy_passes_an_independent_parser",
         encode_migration_passes_an_independent_parser, NULL, NULL, &is_precopy},
        {"encode_postcopy_passes_an_independent_parser",
         encode_migration_passes_an_independent_parser, NULL, NULL, &is_postcopy},
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
