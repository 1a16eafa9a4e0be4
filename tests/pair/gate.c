/* SPDX-License-Identifier: MIT */
/* See gate.h. One thread polls listener, client, machine and the pipe that ends it. Commands are
 * found in whole lines, as the program writes one command at a time. */
#include "tests/pair/gate.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define BUFFER_BYTES 65536

enum { LISTENER, CLIENT, MACHINE, END, COUNT };

struct Gate {
    /* Set before the thread starts, and by gate_plan() before a client comes. */
    GThread *thread;
    GatePlan plan;
    struct sockaddr_un target;
    int end[2];

    struct pollfd fds[COUNT]; /* the thread's */
    bool was_hit;             /* atomic */
    bool has_migrated;        /* atomic: "migrate" has passed */
};

static struct sockaddr_un
address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    return address;
}

static bool
is_dead(pid_t pid)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/stat", (int)pid);
    g_autofree char *text = NULL;

    return !g_file_get_contents(path, &text, NULL, NULL) || strstr(text, ") Z ");
}

static void
hit(Gate *gate)
{
    const pid_t *target = gate->plan.target;

    while (__atomic_load_n(target, __ATOMIC_ACQUIRE) == 0)
        g_usleep(1000);
    kill(*target, gate->plan.signal);
    /* Killed means gone, not going. Its parent, this process, reaps it later. */
    while (gate->plan.signal == SIGKILL && !is_dead(*target))
        g_usleep(1000);
    __atomic_store_n(&gate->was_hit, true, __ATOMIC_RELEASE);
}

static bool
names(const char *line, const char *command)
{
    g_autofree char *member = g_strdup_printf("\"execute\":\"%s\"", command);

    return strstr(line, member) != NULL;
}

static void
watch(Gate *gate, const char *line)
{
    bool is_open =
        !gate->plan.after || __atomic_load_n(&gate->plan.after->has_migrated, __ATOMIC_ACQUIRE);

    if (gate->plan.command && is_open && !gate_was_hit(gate) && names(line, gate->plan.command))
        hit(gate);
    if (names(line, "migrate"))
        __atomic_store_n(&gate->has_migrated, true, __ATOMIC_RELEASE);
}

static void
change(const Gate *gate, char *text)
{
    const char *from = gate->plan.from;

    for (char *at = from ? strstr(text, from) : NULL; at; at = strstr(at, from))
        memcpy(at, gate->plan.to, strlen(from));
}

static void
hang_up(Gate *gate)
{
    for (unsigned i = CLIENT; i <= MACHINE; i++) {
        if (gate->fds[i].fd >= 0)
            close(gate->fds[i].fd);
        gate->fds[i].fd = -1;
    }
}

static void
accept_client(Gate *gate)
{
    gate->fds[CLIENT].fd = accept(gate->fds[LISTENER].fd, NULL, NULL);
    gate->fds[MACHINE].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(gate->fds[MACHINE].fd, (struct sockaddr *)&gate->target, sizeof gate->target) != 0)
        hang_up(gate);
}

static void
copy(Gate *gate, unsigned from, unsigned to)
{
    g_autofree char *bytes = g_malloc(BUFFER_BYTES + 1);
    ssize_t length = recv(gate->fds[from].fd, bytes, BUFFER_BYTES, 0);

    if (length <= 0) {
        hang_up(gate);
        return;
    }
    bytes[length] = '\0';
    if (from == CLIENT)
        watch(gate, bytes);
    else
        change(gate, bytes);
    if (send(gate->fds[to].fd, bytes, (size_t)length, MSG_NOSIGNAL) != length)
        hang_up(gate);
}

/* A machine that is gone is one whose socket nobody listens at: so is its gate. */
static void *
serve(void *opaque)
{
    Gate *gate = opaque;

    while (true) {
        int listener = gate->fds[LISTENER].fd;
        if (gate->fds[CLIENT].fd >= 0)
            gate->fds[LISTENER].fd = -1; /* one at a time */
        poll(gate->fds, COUNT, -1);
        gate->fds[LISTENER].fd = listener;
        if (gate->fds[END].revents)
            return NULL;
        if (gate->fds[CLIENT].fd < 0) {
            accept_client(gate);
            continue;
        }
        if (gate->fds[CLIENT].revents)
            copy(gate, CLIENT, MACHINE);
        if (gate->fds[MACHINE].fd >= 0 && gate->fds[MACHINE].revents)
            copy(gate, MACHINE, CLIENT);
    }
}

Gate *
gate_new(const char *path, const char *target_path)
{
    Gate *gate = g_new0(Gate, 1);
    struct sockaddr_un address = address_of(path);

    gate->target = address_of(target_path);
    for (unsigned i = 0; i < COUNT; i++)
        gate->fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    gate->fds[LISTENER].fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(gate->fds[LISTENER].fd, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(gate->fds[LISTENER].fd, 8) != 0 || pipe(gate->end) != 0)
        g_error("gate at %s: it cannot be made", path);
    gate->fds[END].fd = gate->end[0];
    gate->thread = g_thread_new("gate", serve, gate);
    return gate;
}

void
gate_plan(Gate *gate, const GatePlan *plan)
{
    gate->plan = *plan;
}

bool
gate_was_hit(Gate *gate)
{
    return __atomic_load_n(&gate->was_hit, __ATOMIC_ACQUIRE);
}

void
gate_free(Gate *gate)
{
    close(gate->end[1]);
    g_thread_join(gate->thread);
    hang_up(gate);
    close(gate->fds[LISTENER].fd);
    close(gate->end[0]);
    g_free(gate);
}
