/* SPDX-License-Identifier: MIT */
/* See scene.h: what a test does with a started process, and the waiting, each with a deadline. */
#include "tests/pair/scene.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define POLL_US 5000

static int64_t
deadline(void)
{
    return g_get_monotonic_time() + DEADLINE_S * G_USEC_PER_SEC;
}

/* Sleeps a little; fails the test when the deadline is over or the process has ended. */
static void
wait_more(Vm *vm, int64_t until, const char *what)
{
    if (vm->pid && waitpid(vm->pid, &vm->wait_status, WNOHANG) == vm->pid) {
        vm->pid = 0;
        scene_fail(vm->scene, "%s ended (wait status 0x%x) while we waited for %s", vm->label,
                   (unsigned)vm->wait_status, what);
    }
    if (g_get_monotonic_time() > until)
        scene_fail(vm->scene, "%s: %d s are over, still waiting for %s", vm->label, DEADLINE_S,
                   what);
    g_usleep(POLL_US);
}

/* The rest of the first line of its output that begins with prefix. */
static char *
find_line(Vm *vm, const char *prefix)
{
    g_autofree char *text = NULL;

    if (!g_file_get_contents(vm->output, &text, NULL, NULL))
        return NULL;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    /* The last piece has no newline yet. */
    for (unsigned i = 0; lines[i] && lines[i + 1]; i++)
        if (g_str_has_prefix(lines[i], prefix))
            return g_strdup(lines[i] + strlen(prefix));
    return NULL;
}

char *
vm_listening_at(Vm *vm)
{
    for (int64_t until = deadline();; wait_more(vm, until, "its listening address")) {
        char *uri = find_line(vm, "incoming: listening at ");
        if (uri)
            return uri;
    }
}

JsonNode *
vm_call(Vm *vm, const char *command, const char *arguments)
{
    g_autoptr(GError) error = NULL;
    JsonNode *answer = qmp_call(vm->qmp, command, arguments, &error);

    if (!answer)
        scene_fail(vm->scene, "%s: %s %s: %s", vm->label, command, arguments ? arguments : "",
                   error->message);
    return answer;
}

void
vm_do(Vm *vm, const char *command, const char *arguments)
{
    json_node_unref(vm_call(vm, command, arguments));
}

void
vm_must_refuse(Vm *vm, const char *command, const char *arguments)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = qmp_call(vm->qmp, command, arguments, &error);

    if (answer)
        scene_fail(vm->scene, "%s: %s was not refused", vm->label, command);
    if (strlen(error->message) < strlen("qmp: ") + strlen(command) + 10)
        scene_fail(vm->scene, "%s: %s was refused without a reason", vm->label, command);
}

/* The member of query-migrate at path ("ram.total"), or NULL. *ret_root keeps it alive. */
static JsonNode *
find_member(Vm *vm, const char *path, JsonNode **ret_root)
{
    g_auto(GStrv) names = g_strsplit(path, ".", -1);
    JsonNode *at = *ret_root = vm_call(vm, "query-migrate", NULL);

    for (unsigned i = 0; names[i] && at; i++)
        at = JSON_NODE_HOLDS_OBJECT(at) ? json_object_get_member(json_node_get_object(at), names[i])
                                        : NULL;
    return at;
}

char *
vm_status(Vm *vm)
{
    g_autoptr(JsonNode) root = NULL;
    JsonNode *status = find_member(vm, "status", &root);
    return g_strdup(status ? json_node_get_string(status) : "none");
}

int64_t
vm_number(Vm *vm, const char *path)
{
    g_autoptr(JsonNode) root = NULL;
    JsonNode *number = find_member(vm, path, &root);
    return number ? json_node_get_int(number) : 0;
}

static bool
is_final(const char *status)
{
    static const char *const final[] = {"completed", "failed", "cancelled", "postcopy-paused",
                                        NULL};
    return g_strv_contains(final, status);
}

void
vm_wait_status(Vm *vm, const char *status)
{
    g_autofree char *what = g_strdup_printf("status %s", status);

    for (int64_t until = deadline();; wait_more(vm, until, what)) {
        g_autofree char *now = vm_status(vm);
        if (g_str_equal(now, status))
            return;
        if (is_final(now))
            scene_fail(vm->scene, "%s: status is %s, expected %s", vm->label, now, status);
    }
}

void
vm_wait_number(Vm *vm, const char *path, int64_t least)
{
    for (int64_t until = deadline(); vm_number(vm, path) < least; wait_more(vm, until, path)) {
        g_autofree char *now = vm_status(vm);
        if (is_final(now) && vm_number(vm, path) < least)
            scene_fail(vm->scene, "%s: %s is still below %" G_GINT64_FORMAT ", and status is %s",
                       vm->label, path, least, now);
    }
}

void
vm_wait_run_state(Vm *vm, const char *run_state)
{
    for (int64_t until = deadline();; wait_more(vm, until, run_state)) {
        g_autoptr(JsonNode) answer = vm_call(vm, "query-status", NULL);
        JsonObject *object = json_node_get_object(answer);
        if (g_str_equal(json_object_get_string_member(object, "status"), run_state))
            return;
    }
}

uint64_t
vm_checks(Vm *vm)
{
    g_autofree char *line = NULL;

    if (!g_file_get_contents(vm->verdict, &line, NULL, NULL))
        return 0;
    if (g_str_has_prefix(line, "bad"))
        scene_fail(vm->scene, "%s: the guest found a wrong byte: %s", vm->label, line);
    return g_str_has_prefix(line, "ok, ") ? g_ascii_strtoull(line + 4, NULL, 10) : 0;
}

void
vm_wait_checks(Vm *vm, uint64_t more)
{
    uint64_t from = vm_checks(vm);

    for (int64_t until = deadline(); vm_checks(vm) < from + more;)
        wait_more(vm, until, "checks of the guest");
}

void
vm_kill(Vm *vm)
{
    kill(vm->pid, SIGKILL);
    waitpid(vm->pid, &vm->wait_status, 0);
    vm->pid = 0;
}

int
vm_wait_exit(Vm *vm)
{
    for (int64_t until = deadline(); waitpid(vm->pid, &vm->wait_status, WNOHANG) == 0;) {
        if (g_get_monotonic_time() > until)
            scene_fail(vm->scene, "%s: %d s are over and it has not ended", vm->label, DEADLINE_S);
        g_usleep(POLL_US);
    }
    vm->pid = 0;
    if (!WIFEXITED(vm->wait_status))
        scene_fail(vm->scene, "%s: ended by signal %d", vm->label, WTERMSIG(vm->wait_status));
    return WEXITSTATUS(vm->wait_status);
}

void
vm_quit(Vm *vm)
{
    vm_do(vm, "quit", NULL);
    int code = vm_wait_exit(vm);
    if (code != 0)
        scene_fail(vm->scene, "%s: exit status %d after quit", vm->label, code);
}
