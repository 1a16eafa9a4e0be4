/* SPDX-License-Identifier: MIT */
/*
 * `faultline monitor PATH watch`: the picture that answers give, and the program at a pseudo
 * terminal and into a pipe, beside a real machine.
 *
 * The clients are processes of their own, made before this one has threads.
 */
#include "kvm/command.h"
#include "kvm/watch.h"
#include "tests/unit/monitor_scene.h"

#include <pty.h>
#include <stdio.h>
#include <sys/wait.h>

/* The program's own is in main.c. */
int
usage_error(const char *command, const char *reason)
{
    fprintf(stderr, "%s: %s\n", command ? command : "", reason);
    return EXIT_USAGE;
}

/* ---- The picture ----------------------------------------------------------------------------- */

static const char destination_answer[] =
    "{\"status\":\"postcopy-active\",\"faultline\":{\"side\":\"destination\",\"run-state\":"
    "\"running\",\"main-bytes\":1048576,\"main-bytes-per-second\":2500000,\"urgent-bytes\":0,"
    "\"pushed-pages\":7,\"requested-pages\":8,\"neighbour-pages\":9,\"faults\":12,"
    "\"faults-in-flight\":3,\"longest-stall-ns\":4500000,\"fault-p50-ns\":34000,"
    "\"fault-p999-ns\":99000,\"resident-us\":5000,\"expected-resident-ms\":9223372036854775807,"
    "\"fault-histogram\":[0,0,0,1,2,4,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,5]}}";

static const char source_answer[] =
    "{\"status\":\"active\",\"expected-downtime\":31,\"ram\":{\"dirty-sync-count\":4,"
    "\"dirty-pages-rate\":555},\"faultline\":{\"side\":\"source\",\"run-state\":\"running\"}}";

static const char map_answer[] =
    "{\"cells\":[[256,0,0],[256,100,0],[256,256,0],[256,256,1],[0,0,0]]}";

/* All lines, each ended; checks their length. */
static char *
picture(const char *migrate, const char *map, unsigned columns)
{
    g_autoptr(JsonNode) first = json_from_string(migrate, NULL);
    g_autoptr(JsonNode) second = json_from_string(map, NULL);
    assert_non_null(first);
    assert_non_null(second);
    g_autoptr(GPtrArray) lines =
        watch_render("/a", json_node_get_object(first), json_node_get_object(second), columns);
    GString *text = g_string_new(NULL);
    for (guint i = 0; i < lines->len; i++) {
        const WatchLine *line = g_ptr_array_index(lines, i);
        assert_true(strlen(line->text) <= columns);
        g_string_append_printf(text, "%s\n", line->text);
    }
    return g_string_free(text, FALSE);
}

static void
expect_parts(const char *text, const char *const *parts)
{
    for (unsigned i = 0; parts[i]; i++)
        if (!strstr(text, parts[i]))
            fail_msg("'%s' is not in:\n%s", parts[i], text);
}

static void
picture_of_a_destination_shows_faults_and_map(void **state)
{
    static const char *const parts[] = {
        "phase      postcopy-active (destination), guest running\n",
        " 40.2%  2.4 MiB left\n",
        "main            2.5 MB/s         1.0 MiB\n",
        "precopy 0  pushed 7  requested 8  neighbours 9\n",
        "12 remote, 0 local, 3 in flight, the oldest waits 4.50 ms\n",
        "p50 34  p90 0  p99 0  p99.9 99",
        "5 ms so far, expected not known;",
        "< 16 us ######                                            1\n",
        "< 64 us ########################################          6\n",
        "x missing  ! requested\n",
        "\n  .ox! \n",
        NULL,
    };
    g_autofree char *text = picture(destination_answer, map_answer, WATCH_COLUMNS);
    (void)state;

    expect_parts(text, parts);
}

static void
picture_of_a_source_shows_passes_and_downtime(void **state)
{
    static const char *const parts[] = {"phase      active (source), guest running\n",
                                        "pass 4, writes 555 pages/s, expected downtime 31 ms\n",
                                        "x to be sent\n", NULL};
    g_autofree char *text = picture(source_answer, map_answer, WATCH_COLUMNS);
    (void)state;

    expect_parts(text, parts);
    assert_null(strstr(text, "remote"));
}

static void
picture_of_nothing_or_of_anything_is_drawn(void **state)
{
    static const char *const answers[] = {
        "{}",
        "{\"status\":\"failed\",\"error-desc\":\"no\\u001b[2J caf\\u00e9\"}",
        "{\"faultline\":{}}",
        "{\"faultline\":7}",
        "{\"status\":\"none\",\"faultline\":{\"side\":\"destination\",\"fault-histogram\":7}}",
    };
    static const char *const maps[] = {"{}", "{\"cells\":[]}", "{\"cells\":7}",
                                       "{\"cells\":[7,[],[1]]}"};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(answers); i++)
        for (unsigned n = 0; n < G_N_ELEMENTS(maps); n++) {
            g_autofree char *text = picture(answers[i], maps[n], 20);
            assert_non_null(strstr(text, "phase "));
            for (const char *at = text; *at; at++)
                assert_true(g_ascii_isprint(*at) || *at == '\n');
        }
}

static void
picture_fits_a_terminal_of_24_rows(void **state)
{
    GString *map = g_string_new("{\"cells\":[");
    (void)state;

    for (unsigned i = 0; i < watch_count_cells(WATCH_ROWS); i++)
        g_string_append_printf(map, "%s[1,0,0]", i ? "," : "");
    g_string_append(map, "]}");
    g_autofree char *text = picture(destination_answer, map->str, WATCH_COLUMNS);
    unsigned rows = 0;
    for (const char *at = text; *at; at++)
        rows += *at == '\n';
    assert_int_equal(rows, WATCH_ROWS - 1); /* one is left for an error */
    g_string_free(map, TRUE);
}

/* ---- The program ----------------------------------------------------------------------------- */

static void
be_client(int path_fd)
{
    char path[128] = {0};
    if (read(path_fd, path, sizeof path - 1) <= 0)
        _exit(99);
    char *arguments[] = {(char *)"monitor", path, (char *)"watch", NULL};
    setenv("TERM", "vt100", 1);
    exit(monitor_command(3, arguments));
}

static void
give_path(const int *path, const Scene *scene)
{
    size_t length = strlen(scene->from.path);
    assert_int_equal(write(path[1], scene->from.path, length), (ssize_t)length);
    close(path[0]);
    close(path[1]);
}

/* Reads until it has `part`. */
static void
expect_shown(int fd, const char *part)
{
    GString *text = g_string_new(NULL);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char bytes[512];
    while (!strstr(text->str, part)) {
        ssize_t got = poll(&ready, 1, PATIENCE_MS) > 0 ? read(fd, bytes, sizeof bytes) : 0;
        if (got <= 0)
            fail_msg("'%s' is not shown; so far: %s", part, text->str);
        g_string_append_len(text, bytes, got);
    }
    g_string_free(text, TRUE);
}

static void
expect_exit(pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void
watch_at_a_terminal_draws_until_q(void **state)
{
    const struct winsize size = {.ws_row = WATCH_ROWS, .ws_col = WATCH_COLUMNS};
    int path[2], terminal;
    void *made;
    (void)state;

    assert_int_equal(pipe(path), 0);
    pid_t child = forkpty(&terminal, NULL, NULL, &size);
    assert_true(child >= 0);
    if (child == 0)
        be_client(path[0]);
    set_up(&made);
    give_path(path, made);
    expect_shown(terminal, "none");
    assert_int_equal(write(terminal, "q", 1), 1);
    /* Who ends at a terminal waits until what it wrote has been read. */
    char bytes[512];
    while (read(terminal, bytes, sizeof bytes) > 0) {
    }
    expect_exit(child);
    close(terminal);
    tear_down(&made);
}

static void
watch_into_a_pipe_prints_once(void **state)
{
    int path[2], output[2];
    void *made;
    (void)state;

    assert_int_equal(pipe(path), 0);
    assert_int_equal(pipe(output), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        dup2(output[1], STDOUT_FILENO);
        close(output[0]);
        close(output[1]);
        be_client(path[0]);
    }
    close(output[1]);
    set_up(&made);
    give_path(path, made);
    expect_shown(output[0], "phase      none\n");
    expect_exit(child);
    close(output[0]);
    tear_down(&made);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(watch_into_a_pipe_prints_once),
        cmocka_unit_test(watch_at_a_terminal_draws_until_q),
        cmocka_unit_test(picture_of_a_destination_shows_faults_and_map),
        cmocka_unit_test(picture_of_a_source_shows_passes_and_downtime),
        cmocka_unit_test(picture_of_nothing_or_of_anything_is_drawn),
        cmocka_unit_test(picture_fits_a_terminal_of_24_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
