/* SPDX-License-Identifier: MIT */
/*
 * What the tests of QMP sockets share: two machines with a monitor and a unix socket each, served
 * by a thread with the main loop, which is their control thread; and a client for the test's own
 * thread, which waits for what it expects.
 */
#ifndef MONITOR_SCENE_H
#define MONITOR_SCENE_H

#include "kvm/machine.h"
#include "kvm/monitor_server.h"

#include <arpa/inet.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib-unix.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 30000 /* bounds every wait, so that a hang fails */
#define NEGOTIATE   "{\"execute\":\"qmp_capabilities\"}\r\n"

typedef struct Side {
    Machine *machine;
    Faultline *faultline;
    FaultlineMonitor *monitor;
    MonitorServer *server;
    char *path;
    guint event_source;
} Side;

typedef struct Scene {
    char *folder;
    Side from, to;
    GThread *thread;
    GMainLoop *loop;
} Scene;

/* ---- The machines ------------------------------------------------------------------------------
 */

static inline gboolean
event_came(gint fd, GIOCondition condition, gpointer data)
{
    (void)fd, (void)condition;
    faultline_monitor_pump(((Side *)data)->monitor);
    return G_SOURCE_CONTINUE;
}

static inline bool
save_memory(void *opaque, uint64_t address, uint64_t length_bytes, const char *path, GError **error)
{
    unsigned count;
    const FaultlineBlock *blocks = machine_threads.blocks(((Side *)opaque)->machine, &count);
    return ram_write_file(blocks, count, address, length_bytes, path, error);
}

static inline void
side_begin(Side *side, const char *folder, const char *name, bool incoming)
{
    const MachineOptions options = {.memory_bytes = 32u << 20,
                                    .cpus = 1,
                                    .memory = MACHINE_MEMORY_PRIVATE,
                                    .write_rate = 1000,
                                    .incoming = incoming};
    const FaultlineMonitorHost host = {.name = name, .save_memory = save_memory};
    g_autoptr(GError) error = NULL;
    unsigned count;

    side->path = g_strconcat(folder, "/", name, NULL);
    g_autofree char *address = g_strconcat("unix:", side->path, ",server=on,wait=off", NULL);
    side->machine = machine_threads.make(&options, &error);
    const FaultlineBlock *blocks = machine_threads.blocks(side->machine, &count);
    side->faultline = faultline_new(machine_threads.guest, side->machine, blocks, count, &error);
    side->monitor = faultline_monitor_new(side->faultline, &host, side);
    side->server = monitor_server_new(side->monitor, address, &error);
    if (!side->server)
        fail_msg("%s", error->message);
    side->event_source =
        g_unix_fd_add(faultline_event_fd(side->faultline), G_IO_IN, event_came, side);
}

static inline void
side_end(Side *side)
{
    g_source_remove(side->event_source);
    monitor_server_free(side->server);
    faultline_monitor_free(side->monitor);
    faultline_free(side->faultline);
    machine_threads.free(side->machine);
    g_free(side->path);
}

static inline gpointer
run_loop(gpointer loop)
{
    g_main_loop_run(loop);
    return NULL;
}

static inline int
set_up(void **state)
{
    Scene *scene = g_new0(Scene, 1);
    scene->folder = g_dir_make_tmp("faultline-hostile-XXXXXX", NULL);
    side_begin(&scene->from, scene->folder, "from", false);
    side_begin(&scene->to, scene->folder, "to", true);
    assert_true(faultline_cont(scene->from.faultline, NULL));
    scene->loop = g_main_loop_new(NULL, FALSE);
    scene->thread = g_thread_new("control", run_loop, scene->loop);
    *state = scene;
    return 0;
}

static inline int
tear_down(void **state)
{
    Scene *scene = *state;
    g_main_loop_quit(scene->loop);
    g_thread_join(scene->thread);
    while (g_main_context_iteration(NULL, FALSE)) {
    }
    side_end(&scene->from);
    side_end(&scene->to);
    g_main_loop_unref(scene->loop);
    g_rmdir(scene->folder);
    g_free(scene->folder);
    g_free(scene);
    return 0;
}

/* ---- A client ----------------------------------------------------------------------------------
 */

static inline int
dial(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Reads until the text holds `part` or the peer closes; all that came (g_free). */
static inline char *
read_until(int fd, const char *part)
{
    GString *text = g_string_new(NULL);
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    char bytes[4096];
    while (!strstr(text->str, part)) {
        if (poll(&ready, 1, PATIENCE_MS) <= 0)
            fail_msg("no answer; so far: %s", text->str);
        ssize_t got = recv(fd, bytes, sizeof bytes, 0);
        if (got <= 0)
            break;
        g_string_append_len(text, bytes, got);
    }
    return g_string_free(text, FALSE);
}

static inline void
say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

static inline void
expect(int fd, const char *part)
{
    g_autofree char *text = read_until(fd, part);
    if (!strstr(text, part))
        fail_msg("'%s' lacks '%s'", text, part);
}

static inline int
dial_ready(const char *path)
{
    int fd = dial(path);
    expect(fd, "\"QMP\"");
    say(fd, NEGOTIATE);
    expect(fd, "{\"return\":{}}");
    return fd;
}

static inline void
expect_served(const Scene *scene)
{
    int fd = dial_ready(scene->from.path);
    say(fd, "{\"execute\":\"query-status\",\"id\":\"alive\"}\n");
    expect(fd, "\"id\":\"alive\"");
    close(fd);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
