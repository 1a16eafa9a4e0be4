/* SPDX-License-Identifier: MIT */
/*
 * QMP sockets of every kind with real clients: tcp and unix, listening and connecting, descriptors
 * by SCM_RIGHTS; and the file that pmemsave writes.
 */
#include "tests/unit/monitor_scene.h"

/* ---- Kinds of sockets --------------------------------------------------------------------------
 */

static gboolean
open_server(gpointer data)
{
    struct {
        Scene *scene;
        const char *address;
        MonitorServer *server;
        GError *error;
        int done;
    } *call = data;
    call->server = monitor_server_new(call->scene->from.monitor, call->address, &call->error);
    __atomic_store_n(&call->done, 1, __ATOMIC_RELEASE);
    return G_SOURCE_REMOVE;
}

/* Opens it on the control thread, as monitors belong to one. */
static MonitorServer *
open_on_loop(Scene *scene, const char *address)
{
    struct {
        Scene *scene;
        const char *address;
        MonitorServer *server;
        GError *error;
        int done;
    } call = {.scene = scene, .address = address};
    g_idle_add(open_server, &call);
    while (!__atomic_load_n(&call.done, __ATOMIC_ACQUIRE))
        g_usleep(1000);
    if (!call.server)
        fail_msg("%s", call.error->message);
    return call.server;
}

static gboolean
close_server(gpointer server)
{
    monitor_server_free(server);
    return G_SOURCE_REMOVE;
}

static void
server_at_tcp_is_talked_to(void **state)
{
    Scene *scene = *state;
    MonitorServer *server = open_on_loop(scene, "tcp:127.0.0.1:0");
    g_autofree char *name = monitor_server_name(server);
    assert_true(g_str_has_prefix(name, "tcp:127.0.0.1:"));
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(strrchr(name, ':') + 1)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    expect(fd, "\"QMP\"");
    say(fd, NEGOTIATE);
    expect(fd, "{\"return\":{}}\r\n");
    close(fd);
    g_idle_add(close_server, server);
}

static void
server_that_connects_greets_who_listens(void **state)
{
    Scene *scene = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_autofree char *path = g_strconcat(scene->folder, "/client", NULL);
    g_autofree char *text = g_strconcat("unix:", path, ",connect", NULL);
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    assert_int_equal(bind(listening, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(listening, 1), 0);
    MonitorServer *server = open_on_loop(scene, text);
    int fd = accept(listening, NULL, NULL);
    expect(fd, "\"QMP\"");
    say(fd, NEGOTIATE "{\"execute\":\"query-name\"}");
    expect(fd, "{\"return\":{\"name\":\"from\"}}");
    close(fd);
    close(listening);
    g_idle_add(close_server, server);
    g_unlink(path);
}

/* ---- Descriptors and files ---------------------------------------------------------------------
 */

static void
say_with_fds(int fd, const char *text, const int *fds, unsigned count)
{
    char control[CMSG_SPACE(4 * sizeof(int))] = {0};
    struct iovec span = {.iov_base = (char *)text, .iov_len = strlen(text)};
    struct msghdr message = {.msg_iov = &span,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};
    struct cmsghdr *part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(part), fds, count * sizeof(int));
    assert_int_equal(sendmsg(fd, &message, MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static void
descriptors_come_with_their_commands(void **state)
{
    const Scene *scene = *state;
    int fd = dial_ready(scene->from.path), ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    say_with_fds(fd, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"a\"},\"id\":1}", ends, 2);
    expect(fd, "{\"return\":{},\"id\":1}");
    say(fd, "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":7,\"opaque\":\"x\"},\"id\":2}");
    expect(fd, "\"fdset-id\":7");
    say(fd, "{\"execute\":\"query-fdsets\",\"id\":3}");
    expect(fd, "\"opaque\":\"x\"}]}],\"id\":3}");
    say(fd, "{\"execute\":\"add-fd\",\"id\":4}");
    expect(fd, "SCM_RIGHTS");
    say(fd, "{\"execute\":\"remove-fd\",\"arguments\":{\"fdset-id\":7},\"id\":5}");
    expect(fd, "{\"return\":{},\"id\":5}");
    say(fd, "{\"execute\":\"closefd\",\"arguments\":{\"fdname\":\"a\"},\"id\":6}");
    expect(fd, "{\"return\":{},\"id\":6}");
    /* Both ends are closed there now: the pipe has no writer but ours. */
    close(ends[1]);
    char byte;
    assert_int_equal(read(ends[0], &byte, 1), 0);
    close(ends[0]);
    close(fd);
}

static void
pmemsave_writes_guest_memory_and_nothing_else(void **state)
{
    Scene *scene = *state;
    int fd = dial_ready(scene->from.path);
    g_autofree char *path = g_strconcat(scene->folder, "/memory", NULL);
    g_autofree char *fifo = g_strconcat(scene->folder, "/fifo", NULL);
    g_autofree char *bytes = NULL;
    gsize length;
    const struct {
        const char *place, *path, *answer;
    } cases[] = {
        {"\"val\":4096,\"size\":8192", path, "{\"return\":{}"},
        {"\"val\":0,\"size\":999999999999", path, "not all guest memory"},
        {"\"val\":0,\"size\":1", fifo, "pmemsave"},
        {"\"val\":0,\"size\":1", "/nonexistent/x", "No such file"},
    };
    assert_int_equal(mkfifo(fifo, 0600), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autofree char *line =
            g_strdup_printf("{\"execute\":\"pmemsave\",\"arguments\":{%s,\"filename\":\"%s\"}}",
                            cases[i].place, cases[i].path);
        say(fd, line);
        expect(fd, cases[i].answer);
    }
    assert_true(g_file_get_contents(path, &bytes, &length, NULL));
    assert_int_equal(length, 8192);
    g_unlink(path);
    g_unlink(fifo);
    close(fd);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(server_at_tcp_is_talked_to),
        CASE(server_that_connects_greets_who_listens),
        CASE(descriptors_come_with_their_commands),
        CASE(pmemsave_writes_guest_memory_and_nothing_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
