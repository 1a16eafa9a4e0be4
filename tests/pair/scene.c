/* SPDX-License-Identifier: MIT */
/* See scene.h: set-up, clean-up, what a host must have, and starting processes. vm.c drives them.
 */
#include "tests/pair/scene.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#define HUGE_PAGES     "/proc/sys/vm/nr_hugepages"
#define START_LIMIT_MS 120000

static void
vm_free(Vm *vm)
{
    qmp_close(vm->qmp);
    if (vm->pid) {
        kill(vm->pid, SIGKILL);
        waitpid(vm->pid, NULL, 0);
    }
    g_free(vm->label);
    g_free(vm->output);
    g_free(vm->verdict);
    g_free(vm->socket);
    g_free(vm);
}

int
scene_setup(void **state)
{
    Scene *scene = g_new0(Scene, 1);

    scene->subject = *state;
    scene->began_us = g_get_monotonic_time();
    scene->directory = g_dir_make_tmp("faultline-pair-XXXXXX", NULL);
    scene->vms = g_ptr_array_new_with_free_func((GDestroyNotify)vm_free);
    scene->huge_pages_before = -1;
    *state = scene;
    return scene->directory ? 0 : -1;
}

/* The last lines of what it printed, and what it says of its migration. */
static void
show(Vm *vm)
{
    g_autofree char *text = NULL;

    g_file_get_contents(vm->output, &text, NULL, NULL);
    const char *tail = text ? text + MAX(0, (gssize)strlen(text) - 4000) : "";
    print_message("---- %s, pid %d, printed:\n%s", vm->label, (int)vm->pid, tail);
    g_autoptr(JsonNode) info =
        vm->qmp && vm->pid ? qmp_call(vm->qmp, "query-migrate", NULL, NULL) : NULL;
    g_autofree char *json = info ? json_to_string(info, FALSE) : g_strdup("no answer");
    print_message("---- %s: query-migrate: %s\n", vm->label, json);
    if (vm->qmp)
        print_message("---- %s: events: %s\n", vm->label, qmp_events(vm->qmp));
}

static void
write_huge_pages(int64_t count)
{
    g_autofree char *text = g_strdup_printf("%" G_GINT64_FORMAT, count);
    int fd = open(HUGE_PAGES, O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        print_message("cannot write %s: %s\n", HUGE_PAGES, g_strerror(errno));
    if (fd >= 0)
        close(fd);
}

static int64_t
read_huge_pages(void)
{
    g_autofree char *text = NULL;
    return g_file_get_contents(HUGE_PAGES, &text, NULL, NULL) ? g_ascii_strtoll(text, NULL, 10)
                                                              : -1;
}

static void
remove_directory(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);

    for (const char *name = dir ? g_dir_read_name(dir) : NULL; name; name = g_dir_read_name(dir)) {
        g_autofree char *file = g_build_filename(path, name, NULL);
        if (g_file_test(file, G_FILE_TEST_IS_DIR))
            remove_directory(file);
        else
            g_unlink(file);
    }
    if (dir)
        g_dir_close(dir);
    g_rmdir(path);
}

int
scene_teardown(void **state)
{
    Scene *scene = *state;

    for (guint i = 0; scene->failed && i < scene->vms->len; i++)
        show(g_ptr_array_index(scene->vms, i));
    g_ptr_array_unref(scene->vms);
    print_message("took %.1f s\n", (double)(g_get_monotonic_time() - scene->began_us) / 1e6);
    if (scene->huge_pages_before >= 0)
        write_huge_pages(scene->huge_pages_before);
    remove_directory(scene->directory);
    g_free(scene->directory);
    g_free(scene);
    return 0;
}

void
scene_fail(Scene *scene, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    scene->failed = true;
    print_error("%s\n", text);
    fail();
    abort(); /* fail() does not come back */
}

void
scene_skip(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    print_message("skipped: %s\n", text);
    g_clear_pointer(&text, g_free);
    skip();
}

void
scene_need_guest(const char *guest)
{
    if (!g_str_equal(guest, "kvm"))
        return;
    if (g_getenv("FAULTLINE_TEST_NO_KVM"))
        scene_skip("no KVM in this run (FAULTLINE_TEST_NO_KVM)");
    if (access("/dev/kvm", R_OK | W_OK) != 0)
        scene_skip("/dev/kvm: %s", g_strerror(errno));
}

void
scene_need_huge_pages(Scene *scene, uint64_t count)
{
    int64_t before = read_huge_pages();

    if (before < 0)
        scene_skip("this kernel has no huge pages");
    scene->huge_pages_before = before;
    write_huge_pages(before + (int64_t)count);
    if (read_huge_pages() < before + (int64_t)count)
        scene_skip("%" G_GUINT64_FORMAT " huge pages of 2 MiB cannot be had: root, and more "
                   "unbroken memory, are needed to raise vm.nr_hugepages",
                   count);
}

static uint64_t
available_bytes(void)
{
    g_autofree char *text = NULL;
    const char *at = g_file_get_contents("/proc/meminfo", &text, NULL, NULL)
                         ? strstr(text, "MemAvailable:")
                         : NULL;
    return at ? g_ascii_strtoull(at + strlen("MemAvailable:"), NULL, 10) * 1024 : 0;
}

void
scene_need_memory(uint64_t bytes)
{
    uint64_t available = available_bytes();

    if (available < bytes)
        scene_skip("needs %" G_GUINT64_FORMAT " MiB of memory, %" G_GUINT64_FORMAT " are free",
                   bytes >> 20, available >> 20);
}

/* build/tests/pair/pair -> build/faultline */
char *
scene_program(void)
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
make_argv(const Vm *vm, const char *const *arguments)
{
    GPtrArray *argv = g_ptr_array_new();

    g_ptr_array_add(argv, scene_program());
    g_ptr_array_add(argv, g_strdup("run"));
    g_ptr_array_add(argv, g_strdup("--qmp"));
    g_ptr_array_add(argv, g_strdup_printf("unix:%s", vm->socket));
    g_ptr_array_add(argv, g_strdup("--verdict"));
    g_ptr_array_add(argv, g_strdup(vm->verdict));
    for (unsigned i = 0; arguments[i]; i++)
        g_ptr_array_add(argv, g_strdup(arguments[i]));
    g_ptr_array_add(argv, NULL);
    return (char **)g_ptr_array_free(argv, FALSE);
}

/* Waits for the control socket; false when the process ends instead. */
static bool
wait_for_socket(Vm *vm)
{
    g_autoptr(GError) error = NULL;
    gint64 until = g_get_monotonic_time() + START_LIMIT_MS * (gint64)1000;

    while (access(vm->socket, F_OK) != 0) {
        if (waitpid(vm->pid, &vm->wait_status, WNOHANG) == vm->pid) {
            vm->pid = 0;
            return false;
        }
        if (g_get_monotonic_time() > until)
            scene_fail(vm->scene, "%s: no control socket after %d ms", vm->label, START_LIMIT_MS);
        g_usleep(5000);
    }
    vm->qmp = qmp_open(vm->socket, START_LIMIT_MS, &error);
    if (!vm->qmp)
        scene_fail(vm->scene, "%s: %s", vm->label, error->message);
    return true;
}

static Vm *
start(Scene *scene, const char *role, const char *const *arguments)
{
    Vm *vm = g_new0(Vm, 1);

    vm->scene = scene;
    vm->label = g_strdup_printf("%s-%u", role, ++scene->count_started);
    vm->output = g_strdup_printf("%s/%s.output", scene->directory, vm->label);
    vm->verdict = g_strdup_printf("%s/%s.verdict", scene->directory, vm->label);
    vm->socket = g_strdup_printf("%s/%s.qmp", scene->directory, vm->label);
    g_ptr_array_add(scene->vms, vm);

    g_auto(GStrv) argv = make_argv(vm, arguments);
    vm->pid = fork();
    if (vm->pid == 0)
        run_child(argv, vm->output);
    return vm;
}

Vm *
scene_start(Scene *scene, const char *role, const char *const *arguments)
{
    Vm *vm = start(scene, role, arguments);

    if (!wait_for_socket(vm))
        scene_fail(scene, "%s ended at its start, wait status 0x%x", vm->label,
                   (unsigned)vm->wait_status);
    return vm;
}

void
scene_need_start(Scene *scene, const char *const *arguments)
{
    Vm *vm = start(scene, "probe", arguments);

    if (wait_for_socket(vm)) {
        vm_kill(vm);
        return;
    }
    g_autofree char *text = NULL;
    char reason[1000];
    g_file_get_contents(vm->output, &text, NULL, NULL);
    /* 1: the machine could not be made; anything else is a fault of the program or of the test. */
    if (!WIFEXITED(vm->wait_status) || WEXITSTATUS(vm->wait_status) != 1)
        scene_fail(scene, "%s ended with wait status 0x%x", vm->label, (unsigned)vm->wait_status);
    g_strlcpy(reason, text ? g_strchomp(text) : "", sizeof(reason));
    g_clear_pointer(&text, g_free);
    scene_skip("%s", reason);
}
