/* SPDX-License-Identifier: MIT */
/*
 * QMP sockets and their client, with a real Faultline behind them: files at the path, modes,
 * replies, errors, and a client that does not read. The server runs on this thread's main context.
 */
#include "kvm/machine.h"
#include "kvm/monitor_server.h"
#include "kvm/qmp_client.h"
#include "kvm/verdict_file.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

typedef struct Fixture {
    char *folder, *path, *address; /* address: unix: and path */
    Machine *machine;
    Faultline *faultline;
    FaultlineMonitor *monitor;
    bool quit;
} Fixture;

static void
take_quit(void *opaque)
{
    ((Fixture *)opaque)->quit = true;
}

static int
set_up(void **state)
{
    const MachineOptions options = {
        .memory_bytes = 1u << 20, .cpus = 1, .memory = MACHINE_MEMORY_PRIVATE};
    const FaultlineMonitorHost host = {.name = "unit", .quit = take_quit};
    Fixture *fixture = g_new0(Fixture, 1);
    unsigned count;

    fixture->folder = g_dir_make_tmp("faultline-unit-XXXXXX", NULL);
    fixture->path = g_strconcat(fixture->folder, "/qmp", NULL);
    fixture->address = g_strconcat("unix:", fixture->path, NULL);
    fixture->machine = machine_threads.make(&options, NULL);
    const FaultlineBlock *blocks = machine_threads.blocks(fixture->machine, &count);
    fixture->faultline =
        faultline_new(machine_threads.guest, fixture->machine, blocks, count, NULL);
    fixture->monitor = faultline_monitor_new(fixture->faultline, &host, fixture);
    *state = fixture;
    return fixture->monitor ? 0 : -1;
}

static int
tear_down(void **state)
{
    Fixture *fixture = *state;

    faultline_monitor_free(fixture->monitor);
    faultline_free(fixture->faultline);
    machine_threads.free(fixture->machine);
    g_unlink(fixture->path);
    g_rmdir(fixture->folder);
    g_free(fixture->path);
    g_free(fixture->address);
    g_free(fixture->folder);
    g_free(fixture);
    return 0;
}

static MonitorServer *
serve(const Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    MonitorServer *server = monitor_server_new(fixture->monitor, fixture->address, &error);

    if (!server)
        fail_msg("%s", error->message);
    return server;
}

static int
plain_socket(const char *path, bool listening)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    if (listening)
        assert_int_equal(listen(fd, 1), 0);
    return fd;
}

static void
server_new_socket_is_private_and_goes_with_it(void **state)
{
    Fixture *fixture = *state;
    struct stat status;

    MonitorServer *server = serve(fixture);
    assert_int_equal(lstat(fixture->path, &status), 0);
    assert_int_equal(status.st_mode & 07777, 0600);
    monitor_server_free(server);
    assert_int_equal(lstat(fixture->path, &status), -1);
}

static void
server_new_stale_socket_is_replaced(void **state)
{
    Fixture *fixture = *state;

    close(plain_socket(fixture->path, true));
    monitor_server_free(serve(fixture));
}

static void
assert_refused(const Fixture *fixture, const char *reason)
{
    g_autoptr(GError) error = NULL;

    assert_null(monitor_server_new(fixture->monitor, fixture->address, &error));
    assert_non_null(strstr(error->message, reason));
    assert_int_equal(access(fixture->path, F_OK), 0);
}

static void
server_new_live_socket_is_refused(void **state)
{
    Fixture *fixture = *state;

    int fd = plain_socket(fixture->path, true);
    assert_refused(fixture, "another process listens there");
    close(fd);
}

static void
server_new_other_file_is_refused(void **state)
{
    Fixture *fixture = *state;

    assert_true(g_file_set_contents(fixture->path, "precious", -1, NULL));
    assert_refused(fixture, "no socket");
}

static void
server_new_long_path_is_refused(void **state)
{
    Fixture *fixture = *state;
    g_autofree char *name = g_strnfill(108, 'x');
    g_autofree char *path = g_strconcat("unix:", name, NULL);
    g_autoptr(GError) error = NULL;

    assert_null(monitor_server_new(fixture->monitor, path, &error));
    assert_non_null(strstr(error->message, "107 bytes"));
}

/* What a client thread does while this thread serves it; returns NULL or what went wrong. */
typedef struct ClientRun {
    const Fixture *fixture;
    const char *(*talk)(const Fixture *fixture);
    const char *wrong;
    int over; /* atomic */
} ClientRun;

static gpointer
run_client(gpointer data)
{
    ClientRun *run = data;

    run->wrong = run->talk(run->fixture);
    __atomic_store_n(&run->over, 1, __ATOMIC_RELEASE);
    g_main_context_wakeup(NULL);
    return NULL;
}

static void
serve_client(Fixture *fixture, const char *(*talk)(const Fixture *fixture))
{
    ClientRun run = {.fixture = fixture, .talk = talk};
    MonitorServer *server = serve(fixture);
    GThread *thread = g_thread_new("client", run_client, &run);

    while (!__atomic_load_n(&run.over, __ATOMIC_ACQUIRE))
        g_main_context_iteration(NULL, TRUE);
    g_thread_join(thread);
    monitor_server_free(server);
    if (run.wrong)
        fail_msg("%s", run.wrong);
}

static const char *
ask_twice(const Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) first = qmp_client_open(fixture->path, &error);
    g_autoptr(QmpClient) second = first ? qmp_client_open(fixture->path, &error) : NULL;

    if (!second)
        return "no connection";
    for (unsigned i = 0; i < 100; i++) {
        g_autoptr(JsonNode) reply =
            qmp_client_execute(i % 2 ? first : second, "query-status", NULL, &error);
        if (!reply || !JSON_NODE_HOLDS_OBJECT(reply) ||
            !json_object_has_member(json_node_get_object(reply), "status"))
            return "no reply with a status";
    }
    return NULL;
}

static void
execute_by_two_clients_is_answered(void **state)
{
    serve_client(*state, ask_twice);
}

static const char *
ask_wrongly(const Fixture *fixture)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(QmpClient) client = qmp_client_open(fixture->path, &error);

    if (!client)
        return "no connection";
    g_autoptr(JsonNode) none = qmp_client_execute(client, "no-such-command", NULL, &error);
    if (none || !g_error_matches(error, G_IO_ERROR, G_IO_ERROR_FAILED))
        return "an unknown command was not refused";
    g_clear_error(&error);
    g_autoptr(JsonNode) reply = qmp_client_execute(client, "query-status", NULL, &error);
    return reply ? NULL : "the connection did not live on";
}

static void
execute_unknown_command_is_an_error(void **state)
{
    serve_client(*state, ask_wrongly);
}

static const char *
ask_to_quit(const Fixture *fixture)
{
    g_autoptr(QmpClient) client = qmp_client_open(fixture->path, NULL);
    g_autoptr(JsonNode) reply = client ? qmp_client_execute(client, "quit", NULL, NULL) : NULL;

    return reply ? NULL : "no reply to quit";
}

static void
execute_quit_is_answered_and_told(void **state)
{
    Fixture *fixture = *state;

    serve_client(fixture, ask_to_quit);
    assert_true(fixture->quit);
}

/* Commands without end, and no answer read: the server must hang up rather than wait or grow. */
static const char *
never_read(const Fixture *fixture)
{
    static const char request[] = "{\"execute\":\"query-migrate-parameters\"}\n";
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const char *wrong = NULL;

    g_strlcpy(address.sun_path, fixture->path, sizeof address.sun_path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        wrong = "no connection";
    if (send(fd, "{\"execute\":\"qmp_capabilities\"}\n", 31, MSG_NOSIGNAL) != 31)
        wrong = "nothing was sent";
    unsigned sent = 0;
    while (!wrong && send(fd, request, sizeof request - 1, MSG_NOSIGNAL) > 0)
        if (++sent == 1000000)
            wrong = "the server took a million requests whose answers nobody reads";
    close(fd);
    return wrong ? wrong : ask_twice(fixture);
}

static void
client_that_never_reads_is_closed(void **state)
{
    serve_client(*state, never_read);
}

static void
open_no_server_is_an_error(void **state)
{
    Fixture *fixture = *state;
    g_autoptr(GError) error = NULL;

    assert_null(qmp_client_open(fixture->path, &error));
    assert_non_null(strstr(error->message, fixture->path));
}

/* A machine that accepts and greets, as far as `says` goes, and then never says a word. */
static gpointer
be_silent(gpointer opaque)
{
    static const char greeting[] = "{\"QMP\": {}}\n{\"return\": {}}\n";
    int *fds = opaque, fd = accept(fds[0], NULL, NULL);
    char byte;

    if (fd >= 0 && fds[1])
        send(fd, greeting, strlen(greeting), MSG_NOSIGNAL);
    while (fd >= 0 && recv(fd, &byte, 1, 0) > 0)
        ;
    close(fd);
    return NULL;
}

static void
expect_silence_told(const Fixture *fixture, bool greets)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fds[] = {socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), greets};
    g_autoptr(GError) error = NULL;

    g_strlcpy(address.sun_path, fixture->path, sizeof address.sun_path);
    assert_int_equal(bind(fds[0], (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fds[0], 1), 0);
    GThread *thread = g_thread_new("silent", be_silent, fds);
    g_autoptr(QmpClient) client = qmp_client_open_within(fixture->path, 1, &error);
    assert_int_equal(client != NULL, greets);
    if (client)
        assert_null(qmp_client_execute(client, "query-migrate", NULL, &error));
    assert_true(g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT));
    assert_non_null(strstr(error->message, "has not answered for 1 s"));
    g_clear_pointer(&client, qmp_client_free);
    g_thread_join(thread);
    close(fds[0]);
    g_unlink(fixture->path);
}

static void
silent_machine_is_given_up_with_a_reason(void **state)
{
    expect_silence_told(*state, false);
    expect_silence_told(*state, true);
}

static void
verdict_file_is_read_as_written(void **state)
{
    Fixture *fixture = *state;
    g_autoptr(GError) error = NULL;
    g_autofree char *nowhere = g_strconcat(fixture->folder, "/none/verdict", NULL);

    assert_null(verdict_file_read(fixture->path));
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *text = g_strdup_printf("ok, %u checks", i);
        assert_true(verdict_file_write(fixture->path, text, NULL));
        g_autofree char *read = verdict_file_read(fixture->path);
        assert_string_equal(read, text);
    }
    assert_false(verdict_file_write(nowhere, "ok", &error));
    assert_non_null(strstr(error->message, nowhere));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(server_new_socket_is_private_and_goes_with_it),
        CASE(server_new_stale_socket_is_replaced),
        CASE(server_new_live_socket_is_refused),
        CASE(server_new_other_file_is_refused),
        CASE(server_new_long_path_is_refused),
        CASE(execute_by_two_clients_is_answered),
        CASE(execute_unknown_command_is_an_error),
        CASE(execute_quit_is_answered_and_told),
        CASE(client_that_never_reads_is_closed),
        CASE(open_no_server_is_an_error),
        CASE(silent_machine_is_given_up_with_a_reason),
        CASE(verdict_file_is_read_as_written),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
