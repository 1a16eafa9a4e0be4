/* SPDX-License-Identifier: MIT */
/* See side.h. */
#include "tests/chaos/side.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define POLL_US    2000
#define TAIL_BYTES 6000

static bool refuse(const Side *side, GError **error, const char *format, ...) G_GNUC_PRINTF(3, 4);

static bool
refuse(const Side *side, GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_FAILED, "%s: %s", side->role, text);
    return false;
}

static int64_t
deadline(void)
{
    return g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;
}

void
side_init(Side *side, const char *role, const char *directory)
{
    *side = (Side){.role = role, .process = -1};
    side->output = g_strdup_printf("%s/%s.output", directory, role);
    side->verdict = g_strdup_printf("%s/%s.verdict", directory, role);
    side->socket = g_strdup_printf("%s/%s.qmp", directory, role);
    g_strlcpy(side->status, "none", sizeof side->status);
}

/* build/tests/chaos/chaos -> build/faultline */
char *
side_program(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *directory = g_path_get_dirname(self);
    return g_build_filename(directory, "..", "..", "faultline", NULL);
}

static void
run_child(char *const *argv, const char *output)
{
    int fd = open(output, O_WRONLY | O_CREAT | O_APPEND, 0600);

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    execv(argv[0], argv);
    _exit(127);
}

static char **
make_argv(const Side *side, GPtrArray *arguments)
{
    GPtrArray *argv = g_ptr_array_new();

    g_ptr_array_add(argv, side_program());
    g_ptr_array_add(argv, g_strdup("run"));
    g_ptr_array_add(argv, g_strdup_printf("--qmp=unix:%s", side->socket));
    g_ptr_array_add(argv, g_strdup_printf("--verdict=%s", side->verdict));
    g_ptr_array_add(argv, g_strdup("--log-level=info"));
    for (guint i = 0; i < arguments->len; i++)
        g_ptr_array_add(argv, g_strdup(g_ptr_array_index(arguments, i)));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

bool
side_start(Side *side, GPtrArray *arguments, GError **error)
{
    g_auto(GStrv) argv = make_argv(side, arguments);
    int64_t until_us = deadline();

    side->pid = fork();
    if (side->pid == 0)
        run_child(argv, side->output);
    side->process = (int)syscall(SYS_pidfd_open, side->pid, 0);
    while (access(side->socket, F_OK) != 0) {
        if (!side_is_alive(side))
            return refuse(side, error, "ended at its start, wait status 0x%x",
                          (unsigned)side->wait_status);
        if (g_get_monotonic_time() > until_us)
            return refuse(side, error, "no control socket after %d s", SIDE_DEADLINE_S);
        g_usleep(POLL_US);
    }
    side->qmp = qmp_open(side->socket, SIDE_DEADLINE_S * 1000, error);
    return side->qmp != NULL;
}

char *
side_listening_at(Side *side, GError **error)
{
    static const char prefix[] = "incoming: listening at ";

    for (int64_t until_us = deadline(); g_get_monotonic_time() < until_us; g_usleep(POLL_US)) {
        g_autofree char *text = NULL;
        g_file_get_contents(side->output, &text, NULL, NULL);
        const char *at = text ? strstr(text, prefix) : NULL;
        const char *end = at ? strchr(at, '\n') : NULL;
        if (end)
            return g_strndup(at + strlen(prefix), (gsize)(end - at) - strlen(prefix));
    }
    refuse(side, error, "no listening address after %d s", SIDE_DEADLINE_S);
    return NULL;
}

bool
side_is_alive(Side *side)
{
    if (side->pid && waitpid(side->pid, &side->wait_status, WNOHANG) == side->pid)
        side->pid = 0;
    return side->pid != 0;
}

/* ---- Looking --------------------------------------------------------------------------------- */

static int64_t
number_of(JsonObject *object, const char *member, const char *name)
{
    JsonObject *inner = json_object_has_member(object, member)
                            ? json_object_get_object_member(object, member)
                            : NULL;
    return inner && json_object_has_member(inner, name) ? json_object_get_int_member(inner, name)
                                                        : 0;
}

static void
note_ours(Side *side, JsonObject *object)
{
    JsonObject *ours = json_object_has_member(object, "faultline")
                           ? json_object_get_object_member(object, "faultline")
                           : NULL;

    side->is_unheard = ours && json_object_has_member(ours, "unheard") &&
                       json_object_get_boolean_member(ours, "unheard");
    if (ours && json_object_has_member(ours, "integrity"))
        g_strlcpy(side->integrity,
                  json_object_get_string_member(json_object_get_object_member(ours, "integrity"),
                                                "verdict"),
                  sizeof side->integrity);
}

static void
note_migration(Side *side, JsonObject *object)
{
    if (json_object_has_member(object, "status"))
        g_strlcpy(side->status, json_object_get_string_member(object, "status"),
                  sizeof side->status);
    if (json_object_has_member(object, "error-desc")) {
        g_free(side->error_text);
        side->error_text = g_strdup(json_object_get_string_member(object, "error-desc"));
    }
    note_ours(side, object);
    side->passes = number_of(object, "ram", "dirty-sync-count");
    side->remaining_bytes = number_of(object, "ram", "remaining");
    side->missing_pages = number_of(object, "faultline", "missing-pages");
}

/* A process that ends while it is asked is no error. */
static JsonNode *
ask(Side *side, const char *command, GError **error)
{
    g_autoptr(GError) reason = NULL;
    JsonNode *answer = qmp_call(side->qmp, command, NULL, &reason);

    if (answer)
        return answer;
    struct pollfd ended = {.fd = side->process, .events = POLLIN};
    if (!strstr(reason->message, "timed out"))
        poll(&ended, 1, SIDE_DEADLINE_S * 1000);
    if (side_is_alive(side))
        refuse(side, error, "does not answer %s: %s", command, reason->message);
    return NULL;
}

bool
side_look(Side *side, GError **error)
{
    if (!side_is_alive(side))
        return false;
    g_autoptr(JsonNode) migration = ask(side, "query-migrate", error);
    if (!migration)
        return false;
    note_migration(side, json_node_get_object(migration));
    g_autoptr(JsonNode) run = ask(side, "query-status", error);
    if (!run)
        return false;
    g_strlcpy(side->run_state, json_object_get_string_member(json_node_get_object(run), "status"),
              sizeof side->run_state);
    return true;
}

bool
side_do(Side *side, const char *command, const char *arguments, GError **error)
{
    g_autoptr(GError) reason = NULL;
    g_autoptr(JsonNode) answer = qmp_call(side->qmp, command, arguments, &reason);

    return answer ||
           refuse(side, error, "%s %s: %s", command, arguments ? arguments : "", reason->message);
}

bool
side_await_end(Side *side, int *ret_code, GError **error)
{
    int64_t until_us = deadline();

    while (side_is_alive(side)) {
        if (g_get_monotonic_time() > until_us)
            return refuse(side, error, "has not ended after %d s", SIDE_DEADLINE_S);
        g_usleep(POLL_US);
    }
    if (!WIFEXITED(side->wait_status))
        return refuse(side, error, "ended by signal %d", WTERMSIG(side->wait_status));
    *ret_code = WEXITSTATUS(side->wait_status);
    return true;
}

bool
side_verdict(Side *side, uint64_t *ret_checks, uint64_t *ret_passes, GError **error)
{
    g_autofree char *line = NULL;

    *ret_checks = *ret_passes = 0;
    if (!g_file_get_contents(side->verdict, &line, NULL, NULL))
        return false;
    if (g_str_has_prefix(line, "bad"))
        return refuse(side, error, "the guest found a wrong byte: %s", g_strchomp(line));
    if (!g_str_has_prefix(line, "ok, "))
        return false;
    const char *passes = strstr(line, " writes, ");
    *ret_checks = g_ascii_strtoull(line + 4, NULL, 10);
    *ret_passes = passes ? g_ascii_strtoull(passes + 9, NULL, 10) : 0;
    return true;
}

void
side_signal(Side *side, int signal)
{
    if (side->process >= 0)
        syscall(SYS_pidfd_send_signal, side->process, signal, NULL, 0);
}

/* ---- When something went wrong --------------------------------------------------------------- */

static void
show_file(const char *directory, const char *name)
{
    g_autofree char *path = g_build_filename(directory, name, NULL);
    g_autofree char *text = NULL;

    if (g_file_get_contents(path, &text, NULL, NULL))
        printf("    %s: %s\n", name, g_strdelimit(g_strchomp(text), "\n", ' '));
}

static void
show_threads(const Side *side)
{
    g_autofree char *tasks = g_strdup_printf("/proc/%d/task", (int)side->pid);
    g_autoptr(GDir) directory = g_dir_open(tasks, 0, NULL);

    for (const char *id = directory ? g_dir_read_name(directory) : NULL; id;
         id = g_dir_read_name(directory)) {
        g_autofree char *task = g_build_filename(tasks, id, NULL);
        printf("  thread %s\n", id);
        show_file(task, "comm");
        show_file(task, "wchan");
        show_file(task, "syscall");
        show_file(task, "stack");
    }
}

static void
show_answer(Side *side, const char *command)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonNode) answer = qmp_call(side->qmp, command, NULL, &error);
    g_autofree char *json = answer ? json_to_string(answer, FALSE) : NULL;

    printf("  %s: %s\n", command, json ? json : error->message);
}

void
side_show(Side *side)
{
    g_autofree char *text = NULL;

    printf("---- %s: %s, wait status 0x%x, last seen: %s, guest %s, %" G_GINT64_FORMAT
           " pages missing\n",
           side->role, side_is_alive(side) ? "alive" : "ended", (unsigned)side->wait_status,
           side->status, side->run_state, side->missing_pages);
    if (side->error_text)
        printf("  error: %s\n", side->error_text);
    if (side->qmp && side->pid) {
        show_answer(side, "query-migrate");
        show_threads(side);
    }
    if (side->qmp)
        printf("  events: %s\n", qmp_events(side->qmp));
    g_file_get_contents(side->output, &text, NULL, NULL);
    printf("  printed:\n%s\n", text ? text + MAX(0, (gssize)strlen(text) - TAIL_BYTES) : "");
    fflush(stdout);
}

void
side_clear(Side *side)
{
    qmp_close(side->qmp);
    side->qmp = NULL;
    if (side_is_alive(side)) {
        side_signal(side, SIGKILL);
        waitpid(side->pid, &side->wait_status, 0);
        side->pid = 0;
    }
    if (side->process >= 0)
        close(side->process);
    side->process = -1;
    g_free(side->output);
    g_free(side->verdict);
    g_free(side->socket);
    g_free(side->error_text);
}
