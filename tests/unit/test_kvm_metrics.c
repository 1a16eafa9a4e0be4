/* SPDX-License-Identifier: MIT */
/*
 * The metrics: what they say of a snapshot, that promtool takes them, that the manual page names
 * each, and who is answered over HTTP and who is not, with real sockets beside a QMP client.
 */
#include "kvm/metrics.h"
#include "tests/unit/monitor_scene.h"

#include <gio/gio.h>
#include <locale.h>

/* A snapshot with each figure another one. */
static FaultlineInfo *
sample(void)
{
    FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    *info = (FaultlineInfo){
        .status = FAULTLINE_STATUS_POSTCOPY_ACTIVE,
        .run_state = FAULTLINE_RUN_RUNNING,
        .incoming = true,
        .total_time_ms = 1500,
        .downtime_us = 2500,
        .expected_downtime_ms = UINT64_MAX,
        .ram_total_bytes = 1ull << 40,
        .main_bytes = 123456789012345,
        .urgent_bytes = 7,
        .precopy_pages = 8,
        .pushed_pages = 9,
        .requested_pages = 10,
        .neighbour_pages = 15,
        .local_faults = 11,
        .missing_pages = 12,
        .faults_in_flight = 13,
        .longest_stall_ns = 1500000,
        .blocktime_ns = 2000000000,
        .resident_time_us = 3500000,
        .count_vcpus = 2,
        .vcpu_blocktime_ns = {0, 250000000},
        .vcpu_faults = {0, 14},
        .latency = {.count = 6, .total_ns = 30000000, .max_ns = UINT64_MAX},
    };
    return info;
}

/* Faults of about value_ns. */
static void
put_faults(FaultlineLatency *latency, uint64_t value_ns, uint32_t count)
{
    unsigned i = 0;
    g_autofree FaultlineLatency *one = g_new0(FaultlineLatency, 1);
    for (; i < FAULTLINE_LATENCY_BUCKETS; i++) {
        memset(one->buckets, 0, sizeof one->buckets);
        one->buckets[i] = 1;
        if (!faultline_latency_count_below(one, value_ns))
            break;
    }
    assert_true(i < FAULTLINE_LATENCY_BUCKETS);
    latency->buckets[i] += count;
}

static char *
render(const char *name)
{
    g_autofree FaultlineInfo *info = sample();
    GString *text = g_string_new(NULL);

    put_faults(&info->latency, 3000, 1);     /* below all bounds */
    put_faults(&info->latency, 5000, 2);     /* 4.096 to 8.192 us */
    put_faults(&info->latency, 1u << 30, 3); /* on a bound: above it */
    metrics_render(info, name, text);
    return g_string_free(text, FALSE);
}

static void
render_of_a_snapshot_has_base_units(void **state)
{
    static const char *const lines[] = {
        "faultline_machine_info{name=\"a\",side=\"destination\"} 1",
        "faultline_migration_phase{phase=\"postcopy-active\"} 1",
        "faultline_migration_phase{phase=\"completed\"} 0",
        "faultline_guest_running 1",
        "faultline_migration_duration_seconds 1.5",
        "faultline_downtime_seconds 0.0025",
        "faultline_expected_downtime_seconds NaN",
        "faultline_ram_bytes 1099511627776",
        "faultline_channel_bytes_total{channel=\"main\"} 123456789012345",
        "faultline_channel_bytes_total{channel=\"urgent\"} 7",
        "faultline_pages_total{way=\"precopy\"} 8",
        "faultline_pages_total{way=\"pushed\"} 9",
        "faultline_pages_total{way=\"requested\"} 10",
        "faultline_pages_total{way=\"neighbour\"} 15",
        "faultline_local_faults_total 11",
        "faultline_missing_pages 12",
        "faultline_faults_in_flight 13",
        "faultline_longest_stall_seconds 0.0015",
        "faultline_blocktime_seconds_total 2",
        "faultline_resident_seconds 3.5",
        "faultline_vcpu_blocktime_seconds_total{vcpu=\"1\"} 0.25",
        "faultline_vcpu_remote_faults_total{vcpu=\"1\"} 14",
        "faultline_fault_latency_seconds_bucket{le=\"4.096e-06\"} 1",
        "faultline_fault_latency_seconds_bucket{le=\"8.192e-06\"} 3",
        "faultline_fault_latency_seconds_bucket{le=\"1.073741824\"} 3",
        "faultline_fault_latency_seconds_bucket{le=\"2.147483648\"} 6",
        "faultline_fault_latency_seconds_bucket{le=\"+Inf\"} 6",
        "faultline_fault_latency_seconds_sum 0.03",
        "faultline_fault_latency_seconds_count 6",
    };
    g_autofree char *text = render("a");
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(lines); i++) {
        g_autofree char *line = g_strconcat("\n", lines[i], "\n", NULL);
        g_autofree char *whole = g_strconcat("\n", text, NULL);
        if (!strstr(whole, line))
            fail_msg("there is no line '%s' in:\n%s", lines[i], text);
    }
}

static void
render_in_a_locale_with_commas_has_points(void **state)
{
    (void)state;
    if (!setlocale(LC_NUMERIC, "de_DE.UTF-8") && !setlocale(LC_NUMERIC, "fr_FR.UTF-8")) {
        print_message("no locale with a decimal comma is installed\n");
        skip();
    }
    g_autofree char *text = render("a");
    setlocale(LC_NUMERIC, "C");
    assert_non_null(strstr(text, "\nfaultline_resident_seconds 3.5\n"));
}

static void
render_escapes_the_guests_name(void **state)
{
    g_autofree char *text = render("a\"b\\c\nd\xff");
    (void)state;

    assert_non_null(strstr(text, "{name=\"a\\\"b\\\\c\\nd"));
    assert_true(g_utf8_validate(text, -1, NULL));
}

static void
promtool_accepts_the_metrics(void **state)
{
    g_autofree char *program = g_find_program_in_path("promtool");
    g_autofree char *text = render("guest \"1\"");
    (void)state;

    if (!program) {
        print_message("promtool is not installed (package prometheus)\n");
        skip();
    }
    g_autoptr(GError) error = NULL;
    g_autoptr(GSubprocess) child =
        g_subprocess_new(G_SUBPROCESS_FLAGS_STDIN_PIPE | G_SUBPROCESS_FLAGS_STDOUT_PIPE |
                             G_SUBPROCESS_FLAGS_STDERR_MERGE,
                         &error, program, "check", "metrics", NULL);
    assert_non_null(child);
    g_autofree char *output = NULL;
    assert_true(g_subprocess_communicate_utf8(child, text, NULL, &output, NULL, &error));
    if (!g_subprocess_get_successful(child) || *output)
        fail_msg("promtool: %s", output);
}

static void
manual_names_each_metric(void **state)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *folder = g_path_get_dirname(self);
    g_autofree char *path =
        g_build_filename(folder, "..", "..", "doc", "faultline-metrics.7", NULL);
    g_autofree char *page = NULL;
    g_autofree char *text = render("a");
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    unsigned count = 0;
    (void)state;

    assert_true(g_file_get_contents(path, &page, NULL, NULL));
    for (unsigned i = 0; lines[i]; i++) {
        if (!g_str_has_prefix(lines[i], "# TYPE "))
            continue;
        g_auto(GStrv) words = g_strsplit(lines[i], " ", -1);
        g_autofree char *item = g_strconcat("\n.It Cm ", words[2], NULL);
        const char *at = strstr(page, item);
        if (!at || !strchr(" \n", at[strlen(item)]))
            fail_msg("doc/faultline-metrics.7 does not tell of %s", words[2]);
        count++;
    }
    assert_true(count > 15);
}

static void
address_elsewhere_than_here_is_refused(void **state)
{
    static const char *const good[] = {"unix:/tmp/x", "tcp:127.0.0.1:0", "tcp:127.1.2.3:9",
                                       "tcp:[::1]:9", "tcp:localhost:9"};
    static const char *const bad[] = {"",
                                      "unix:",
                                      "/tmp/x",
                                      "tcp:9464",
                                      "tcp::9464",
                                      "tcp:0.0.0.0:9464",
                                      "tcp:[::]:9464",
                                      "tcp:[::ffff:127.0.0.1]:9",
                                      "tcp:192.168.0.1:9464",
                                      "tcp:localhost.example:9464",
                                      "unix:/tmp/x,connect",
                                      "fd:3"};
    MonitorSocket socket;
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        if (!metrics_address_parse(good[i], &socket, NULL))
            fail_msg("%s was refused", good[i]);
        monitor_socket_clear(&socket);
    }
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        if (metrics_address_parse(bad[i], &socket, &error))
            fail_msg("%s was taken", bad[i]);
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    }
}

/* ---- Over HTTP --------------------------------------------------------------------------------
 */

typedef struct Call {
    Scene *scene;
    const char *address;
    MetricsServer *server;
    int done;
} Call;

static gboolean
open_metrics(gpointer data)
{
    Call *call = data;
    if (call->server) {
        g_clear_pointer(&call->server, metrics_server_free);
    } else {
        g_autoptr(GError) error = NULL;
        call->server =
            metrics_server_new(call->scene->from.faultline, "from", call->address, &error);
    }
    __atomic_store_n(&call->done, 1, __ATOMIC_RELEASE);
    return G_SOURCE_REMOVE;
}

/* Opens it, or closes it if it is open, on the control thread. */
static void
turn(Call *call)
{
    __atomic_store_n(&call->done, 0, __ATOMIC_RELEASE);
    g_idle_add(open_metrics, call);
    while (!__atomic_load_n(&call->done, __ATOMIC_ACQUIRE))
        g_usleep(1000);
}

static void
expect_answer(const char *path, const char *request, const char *part)
{
    int fd = dial(path);
    say(fd, request);
    expect(fd, part);
    close(fd);
}

static void
server_at_unix_answers_what_it_should(void **state)
{
    static const struct {
        const char *request, *part;
    } cases[] = {
        {"GET /metrics HTTP/1.0\r\n\r\n", "\nfaultline_guest_running 1\n"},
        {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "faultline_fault_latency_seconds_count 0\n"},
        {"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "{name=\"from\",side=\"source\"} 1\n"},
        {"HEAD /metrics HTTP/1.0\r\n\r\n", "text/plain; version=0.0.4"},
        {"GET / HTTP/1.0\r\n\r\n", " 404 "},
        {"GET /metrics/../x HTTP/1.0\r\n\r\n", " 404 "},
        {"DELETE /metrics HTTP/1.0\r\n\r\n", " 405 "},
        {"POST /metrics HTTP/1.0\r\nContent-Length: 3\r\n\r\nabc", " 405 "},
        {"no request at all\r\n\r\n", ""},
    };
    g_autofree char *path = g_strconcat(((Scene *)*state)->folder, "/metrics", NULL);
    g_autofree char *address = g_strconcat("unix:", path, NULL);
    Call call = {.scene = *state, .address = address};
    struct stat status;

    turn(&call);
    assert_non_null(call.server);
    assert_null(metrics_server_name(call.server));
    assert_int_equal(lstat(path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    for (unsigned i = 0; i < G_N_ELEMENTS(cases); i++)
        expect_answer(path, cases[i].request, cases[i].part);
    turn(&call);
    assert_int_equal(lstat(path, &status), -1);
}

static void
server_at_tcp_tells_its_port(void **state)
{
    Call call = {.scene = *state, .address = "tcp:127.0.0.1:0"};
    turn(&call);
    assert_non_null(call.server);
    g_autofree char *name = metrics_server_name(call.server);
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(strrchr(name, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    say(fd, "GET /metrics HTTP/1.0\r\n\r\n");
    expect(fd, "faultline_guest_running 1");
    close(fd);
    turn(&call);
}

/* More of them than are let in, each with half a request or too much of one. */
static void
clients_that_never_end_hold_up_nobody(void **state)
{
    enum { CLIENTS = 40 };
    Scene *scene = *state;
    g_autofree char *path = g_strconcat(scene->folder, "/metrics", NULL);
    g_autofree char *address = g_strconcat("unix:", path, NULL);
    g_autofree char *header = g_strnfill(64 << 10, 'h');
    Call call = {.scene = scene, .address = address};
    int fds[CLIENTS];

    turn(&call);
    assert_non_null(call.server);
    for (unsigned i = 0; i < CLIENTS; i++) {
        fds[i] = dial(path);
        say(fds[i], "GET /metrics HTTP/1.1\r\nX: ");
        if (i % 2)
            (void)!send(fds[i], header, strlen(header), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    expect_served(scene);
    for (unsigned i = 0; i < CLIENTS; i++)
        close(fds[i]);
    expect_answer(path, "GET /metrics HTTP/1.0\r\n\r\n", "faultline_guest_running 1");
    expect_served(scene);
    turn(&call);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(render_of_a_snapshot_has_base_units),
        cmocka_unit_test(render_in_a_locale_with_commas_has_points),
        cmocka_unit_test(render_escapes_the_guests_name),
        cmocka_unit_test(promtool_accepts_the_metrics),
        cmocka_unit_test(manual_names_each_metric),
        cmocka_unit_test(address_elsewhere_than_here_is_refused),
        CASE(server_at_unix_answers_what_it_should),
        CASE(server_at_tcp_tells_its_port),
        CASE(clients_that_never_end_hold_up_nobody),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
