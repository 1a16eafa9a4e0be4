/* SPDX-License-Identifier: MIT */
/*
 * Clients of a QMP socket that send what no program would send. Each costs its own connection at
 * most: another client is answered meanwhile, and a migration goes through.
 */
#include "tests/unit/monitor_scene.h"

/* ---- Clients that mean no good -----------------------------------------------------------------
 */

/* Sends as long as the server takes it; it may hang up in the middle. */
static void
pour(int fd, const char *bytes, size_t length_bytes)
{
    while (length_bytes > 0) {
        struct pollfd ready = {.fd = fd, .events = POLLOUT};
        if (poll(&ready, 1, PATIENCE_MS) <= 0)
            fail_msg("the server neither reads nor hangs up");
        ssize_t sent = send(fd, bytes, length_bytes, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno != EAGAIN)
            return;
        bytes += MAX(sent, 0);
        length_bytes -= (size_t)MAX(sent, 0);
    }
}

static char *
long_string(void)
{
    g_autofree char *letters = g_strnfill(3u << 20, 'a');
    return g_strdup_printf("{\"execute\":\"%s\"}\n", letters);
}

static char *
deep_nesting(void)
{
    g_autofree char *brackets = g_strnfill(100000, '[');
    return g_strdup_printf("{\"execute\":\"stop\",\"arguments\":{\"a\":%s", brackets);
}

static char *
many_members(void)
{
    GString *text = g_string_new("{\"execute\":\"query-status\",\"arguments\":{");
    for (unsigned i = 0; i < 40000; i++)
        g_string_append_printf(text, "%s\"%u\":0", i ? "," : "", i);
    g_string_append(text, "}}\n");
    return g_string_free(text, FALSE);
}

static char *
half_a_command(void)
{
    return g_strdup("{\"execute\":\"query-st");
}

static char *
not_utf8(void)
{
    return g_strdup("{\"execute\":\"\xff\xfe\xc0\x80\"}\n");
}

static char *
binary(void)
{
    return g_strdup("\x01\x02\x7f\x1b[2J\x16\x03\x01");
}

static char *
broken_lines(void)
{
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < 5000; i++)
        g_string_append(text, "}{\"a\":tru}[1,,2]{\"b\" 1}\n");
    return g_string_free(text, FALSE);
}

static const struct {
    const char *name;
    char *(*make)(void);
    bool is_ended; /* the server hangs up */
} attacks[] = {
    {"a string of 3 MiB", long_string, true},   {"100,000 brackets", deep_nesting, true},
    {"40,000 members", many_members, false},    {"half a command", half_a_command, false},
    {"text that is not UTF-8", not_utf8, true}, {"binary", binary, true},
    {"broken lines", broken_lines, false},
};

static void
expect_hang_up(int fd, const char *name)
{
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char bytes[4096];
    do {
        if (poll(&ready, 1, PATIENCE_MS) <= 0)
            fail_msg("%s: the server does not hang up", name);
    } while (recv(fd, bytes, sizeof bytes, 0) > 0);
}

static void
hostile_client_costs_its_own_connection_at_most(void **state)
{
    const Scene *scene = *state;
    for (size_t i = 0; i < G_N_ELEMENTS(attacks); i++) {
        int fd = dial_ready(scene->from.path);
        g_autofree char *bytes = attacks[i].make();
        pour(fd, bytes, strlen(bytes));
        expect_served(scene);
        if (attacks[i].is_ended)
            expect_hang_up(fd, attacks[i].name);
        close(fd);
    }
    expect_served(scene);
}

static void
hostile_clients_do_not_hold_up_a_migration(void **state)
{
    const Scene *scene = *state;
    int hostile[G_N_ELEMENTS(attacks)], silent = dial_ready(scene->from.path);
    int from = dial_ready(scene->from.path), to = dial_ready(scene->to.path);

    for (size_t i = 0; i < G_N_ELEMENTS(attacks); i++)
        hostile[i] = dial_ready(scene->from.path);
    g_autofree char *uri = g_strconcat("unix:", scene->folder, "/link", NULL);
    g_autofree char *listen = g_strdup_printf(
        "{\"execute\":\"migrate-incoming\",\"arguments\":{\"uri\":\"%s\"},\"id\":1}\n", uri);
    g_autofree char *go =
        g_strdup_printf("{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"%s\"},\"id\":2}\n", uri);
    say(to, listen);
    expect(to, "\"id\":1");
    say(from, go);
    for (size_t i = 0; i < G_N_ELEMENTS(attacks); i++) {
        g_autofree char *bytes = attacks[i].make();
        pour(hostile[i], bytes, strlen(bytes));
    }
    for (unsigned i = 0; i < 100; i++)
        say(silent, "{\"execute\":\"query-commands\"}\n");
    expect(from, "\"id\":2");
    expect(from, "\"STOP\"");
    expect(to, "\"RESUME\"");
    assert_int_equal(faultline_wait(scene->to.faultline, PATIENCE_MS), FAULTLINE_STATUS_COMPLETED);
    for (size_t i = 0; i < G_N_ELEMENTS(attacks); i++)
        close(hostile[i]);
    close(silent);
    close(from);
    close(to);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(hostile_client_costs_its_own_connection_at_most),
        CASE(hostile_clients_do_not_hold_up_a_migration),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
