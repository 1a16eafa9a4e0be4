/* SPDX-License-Identifier: MIT */
/*
 * Closing the gates of a host for one process: a child closes them, then runs the program's doctor
 * or asks the library itself. Nothing of the host is changed, except by what says so.
 */
#ifndef TESTS_UNIT_DOCTOR_CASE_H
#define TESTS_UNIT_DOCTOR_CASE_H

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <json-glib/json-glib.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "engine/faultline.h"

#define NOBODY    65534
#define CANNOT    99 /* exit code of a child that was not allowed to close a gate */
#define UFFD_NEW  0xAA00
#define ARGUMENTS 8

typedef void (*Closer)(void);

static inline void
must(bool done)
{
    if (!done)
        _exit(CANNOT);
}

/* ---- Closers: the child ---------------------------------------------------------------------- */

static inline void
become_nobody(void)
{
    must(setgroups(0, NULL) == 0 && setgid(NOBODY) == 0 && setuid(NOBODY) == 0);
    prctl(PR_SET_DUMPABLE, 1); /* as after a login */
}

static inline void
write_map(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    must(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

/* All capabilities, of a namespace that owns nothing. */
static inline void
become_root_of_namespace(void)
{
    become_nobody();
    must(unshare(CLONE_NEWUSER) == 0);
    write_map("/proc/self/setgroups", "deny");
    write_map("/proc/self/uid_map", "0 65534 1");
    write_map("/proc/self/gid_map", "0 65534 1");
}

static inline void
hide_devices(void)
{
    must(unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
         mount("none", "/dev", "tmpfs", 0, NULL) == 0);
}

/* A call is met whose second argument is that; argument 0: whatever it is. */
static inline void
filter_call(uint32_t number, uint32_t argument, uint32_t action)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, argument, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, action),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    if (argument == 0)
        filter[2] = filter[4];
    struct sock_fprog program = {.len = G_N_ELEMENTS(filter), .filter = filter};

    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static inline void
forbid_uffd_call(void)
{
    filter_call(SYS_userfaultfd, 0, SECCOMP_RET_ERRNO | EPERM);
}

static inline void
forbid_uffd(void)
{
    forbid_uffd_call();
    filter_call(SYS_ioctl, UFFD_NEW, SECCOMP_RET_ERRNO | EPERM);
}

static inline void
kill_for_uffd(void)
{
    filter_call(SYS_userfaultfd, 0, SECCOMP_RET_KILL_PROCESS);
}

static inline void
forbid_ring_setup(void)
{
    filter_call(SYS_io_uring_setup, 0, SECCOMP_RET_ERRNO | EPERM);
}

static inline void
forbid_ring_enter(void)
{
    filter_call(SYS_io_uring_enter, 0, SECCOMP_RET_ERRNO | EPERM);
}

/* ---- Running something behind them ----------------------------------------------------------- */

/* body writes to fd, and returns the exit code. Returns what was written (g_free). Skips the test
 * where a gate could not be closed. */
static inline char *
behind(const Closer *closers, int (*body)(int fd, const void *argument), const void *argument,
       int *ret_code)
{
    GString *text = g_string_new(NULL);
    char bytes[4096];
    ssize_t length;
    int ends[2], status;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        for (; *closers; closers++)
            (*closers)();
        _exit(body(ends[1], argument));
    }
    close(ends[1]);
    while ((length = read(ends[0], bytes, sizeof bytes)) > 0)
        g_string_append_len(text, bytes, length);
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    *ret_code = WEXITSTATUS(status);
    if (*ret_code == CANNOT) {
        g_string_free(text, TRUE);
        print_message("skipped: this process may not close that gate (needs root)\n");
        skip();
    }
    return g_string_free(text, FALSE);
}

/* argument: char *[] of the doctor's arguments. */
static inline int
exec_doctor(int fd, const void *argument)
{
    static char *arguments[ARGUMENTS + 3] = {"faultline", "doctor"};
    char *const *more = argument;

    for (unsigned i = 0; i < ARGUMENTS && more[i]; i++)
        arguments[i + 2] = more[i];
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *directory = g_path_get_dirname(self);
    g_autofree char *program = g_build_filename(directory, "..", "..", "faultline", NULL);
    dup2(fd, STDOUT_FILENO);
    execv(program, arguments);
    return CANNOT - 1;
}

/* ---- What the doctor said -------------------------------------------------------------------- */

typedef struct Rows {
    char *text; /* as it came */
    GPtrArray *nodes;
    int exit_code;
} Rows;

static inline void
rows_free(Rows *rows)
{
    g_ptr_array_unref(rows->nodes);
    g_free(rows->text);
    g_free(rows);
}
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Rows, rows_free)

/* Runs it with --json and reads each line. */
static inline Rows *
doctor_behind(const Closer *closers, const char *const *arguments)
{
    const char *all[ARGUMENTS] = {"--json"};
    Rows *rows = g_new0(Rows, 1);

    for (unsigned i = 0; arguments[i]; i++)
        all[i + 1] = arguments[i];
    rows->nodes = g_ptr_array_new_with_free_func((GDestroyNotify)json_node_unref);
    rows->text = behind(closers, exec_doctor, all, &rows->exit_code);
    g_auto(GStrv) lines = g_strsplit(rows->text, "\n", -1);
    for (unsigned i = 0; lines[i] && *lines[i]; i++) {
        JsonNode *node = json_from_string(lines[i], NULL);
        if (!node || !JSON_NODE_HOLDS_OBJECT(node))
            fail_msg("no JSON object: %s", lines[i]);
        g_ptr_array_add(rows->nodes, node);
    }
    return rows;
}

static inline const char *
row_text(JsonObject *row, const char *member)
{
    return json_object_get_string_member_with_default(row, member, "");
}

/* NULL: no such row. */
static inline JsonObject *
find_row(const Rows *rows, const char *name)
{
    for (unsigned i = 0; i < rows->nodes->len; i++) {
        JsonObject *row = json_node_get_object(rows->nodes->pdata[i]);
        if (g_str_equal(row_text(row, "name"), name))
            return row;
    }
    return NULL;
}

/* The row is there, in that state, and both texts have those words. */
static inline void
expect_row(const Rows *rows, const char *name, const char *state, const char *found,
           const char *remedy)
{
    JsonObject *row = find_row(rows, name);

    if (!row)
        fail_msg("there is no row %s in:\n%s", name, rows->text);
    if (!g_str_equal(row_text(row, "state"), state) || !strstr(row_text(row, "found"), found) ||
        !strstr(row_text(row, "remedy"), remedy))
        fail_msg("row %s: expected %s, \"%s\", \"%s\" in:\n%s", name, state, found, remedy,
                 rows->text);
}

static inline void
expect_end(const Rows *rows, bool can_postcopy)
{
    assert_true(rows->nodes->len > 0);
    JsonObject *last = json_node_get_object(rows->nodes->pdata[rows->nodes->len - 1]);

    if (rows->exit_code != !can_postcopy || json_object_get_boolean_member_with_default(
                                                last, "postcopy", !can_postcopy) != can_postcopy)
        fail_msg("exit code %d:\n%s", rows->exit_code, rows->text);
}

#endif
