/* SPDX-License-Identifier: MIT */
/*
 * `faultline doctor` where gates are closed for real: for nobody, in a user namespace, behind
 * seccomp filters, without devices, with sysctls off; each must be named with what opens it, and in
 * the words in which a migration is refused. FAULTLINE_TEST_SYSCTL=1 lets it change sysctls of the
 * whole machine for a moment (tests/nested sets it).
 */
#include "tests/unit/doctor_case.h"
#include "tests/unit/support/toy.h"

#include "kvm/machine.h"

#define UFFD_SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"
#define RING_SYSCTL "/proc/sys/kernel/io_uring_disabled"

static const Closer nothing[] = {NULL};
static const Closer nobody[] = {become_nobody, NULL};
static const Closer nobody_without_devices[] = {hide_devices, become_nobody, NULL};
static const Closer without_devices[] = {hide_devices, NULL};
static const char *const of_threads[] = {"--guest", "threads", NULL};
static const char *const of_kvm[] = {NULL};

static bool
sysctl_is(const char *path, char value)
{
    g_autofree char *text = NULL;
    return g_file_get_contents(path, &text, NULL, NULL) && *text == value;
}

static void
skip_unless(bool good, const char *reason)
{
    if (good)
        return;
    print_message("skipped: %s\n", reason);
    skip();
}

/* ---- Gates closed ---------------------------------------------------------------------------- */

static void
doctor_with_all_open_says_ok(void **state)
{
    g_autoptr(Rows) rows = doctor_behind(nothing, of_threads);
    (void)state;

    skip_unless(getuid() == 0 && find_row(rows, "seccomp") &&
                    g_str_equal(row_text(find_row(rows, "seccomp"), "state"), "ok"),
                "needs root and no seccomp filter");
    expect_row(rows, "private-missing", "ok", "UFFDIO_COPY", "");
    expect_row(rows, "memfd-missing", "ok", "UFFDIO_COPY", "");
    expect_row(rows, "memfd-minor", "ok", "UFFDIO_CONTINUE", "");
    expect_row(rows, "io-uring", "ok", "", "");
    if (g_str_equal(row_text(find_row(rows, "private-wp-async"), "state"), "closed")) {
        expect_row(rows, "private-wp-async", "closed", "WP_ASYNC", "Linux 6.7");
        expect_end(rows, false);
    } else {
        expect_end(rows, true);
    }
}

static void
doctor_rows_are_told_apart_and_have_remedies(void **state)
{
    g_autoptr(Rows) rows = doctor_behind(nobody_without_devices, of_kvm);
    (void)state;

    for (unsigned i = 0; i + 1 < rows->nodes->len; i++) {
        JsonObject *row = json_node_get_object(rows->nodes->pdata[i]);
        bool is_ok = g_str_equal(row_text(row, "state"), "ok");
        assert_true(*row_text(row, "name") && *row_text(row, "tried") && *row_text(row, "found"));
        assert_ptr_equal(find_row(rows, row_text(row, "name")), row);
        if (!is_ok && !*row_text(row, "remedy"))
            fail_msg("row %s has no remedy:\n%s", row_text(row, "name"), rows->text);
    }
}

static void
doctor_as_nobody_names_three_gates(void **state)
{
    skip_unless(sysctl_is(UFFD_SYSCTL, '0'), UFFD_SYSCTL " is not 0");
    g_autoptr(Rows) rows = doctor_behind(nobody, of_threads);
    (void)state;

    JsonObject *device = find_row(rows, "uffd-device");
    skip_unless(!device || !g_str_equal(row_text(device, "state"), "ok"),
                "everybody may open /dev/userfaultfd here");
    if (access("/dev/userfaultfd", F_OK) == 0)
        expect_row(rows, "uffd-device", "closed", g_strerror(EACCES), "setfacl -m u:65534:rw");
    expect_row(rows, "uffd-sysctl", "closed", "is 0",
               "'sysctl -w vm.unprivileged_userfaultfd=1' as root");
    expect_row(rows, "uffd-capability", "closed", "no CAP_SYS_PTRACE", "setcap cap_sys_ptrace+ep");
    assert_null(find_row(rows, "memfd-missing"));
    expect_end(rows, false);
}

static void
doctor_in_user_namespace_says_its_capability_does_not_count(void **state)
{
    const Closer closers[] = {become_root_of_namespace, NULL};
    skip_unless(sysctl_is(UFFD_SYSCTL, '0'), UFFD_SYSCTL " is not 0");
    g_autoptr(Rows) rows = doctor_behind(closers, of_threads);
    (void)state;

    expect_row(rows, "uffd-capability", "closed", "has CAP_SYS_PTRACE, but", "user namespace");
    expect_end(rows, false);
}

static void
doctor_behind_filter_of_the_call_uses_the_device(void **state)
{
    const Closer closers[] = {forbid_uffd_call, NULL};
    skip_unless(access("/dev/userfaultfd", R_OK | W_OK) == 0, "needs /dev/userfaultfd");
    g_autoptr(Rows) rows = doctor_behind(closers, of_threads);
    (void)state;

    expect_row(rows, "seccomp", "warning", "active", "faultline.h");
    expect_row(rows, "uffd-device", "ok", "open", "");
    if (geteuid() == 0)
        expect_row(rows, "uffd-capability", "warning", "seccomp filter", "Allow");
    expect_row(rows, "memfd-missing", "ok", "", "");
}

static void
doctor_behind_filter_of_userfaultfd_says_allow_it(void **state)
{
    const Closer closers[] = {forbid_uffd, NULL};
    skip_unless(getuid() == 0, "needs root");
    g_autoptr(Rows) rows = doctor_behind(closers, of_threads);
    (void)state;

    expect_row(rows, "uffd-capability", "closed", "seccomp filter",
               "Allow the system call userfaultfd");
    assert_null(find_row(rows, "memfd-missing"));
    expect_end(rows, false);
}

static void
doctor_behind_filters_of_io_uring_says_which_call(void **state)
{
    static const struct {
        Closer closers[2];
        const char *call;
    } rows_of[] = {{{forbid_ring_setup, NULL}, "io_uring_setup failed"},
                   {{forbid_ring_enter, NULL}, "io_uring_enter failed"}};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(rows_of); i++) {
        g_autoptr(Rows) rows = doctor_behind(rows_of[i].closers, of_threads);
        expect_row(rows, "io-uring", "closed", rows_of[i].call, "");
        if (access(RING_SYSCTL, F_OK) != 0 || sysctl_is(RING_SYSCTL, '0'))
            expect_row(rows, "io-uring", "closed", "", "seccomp filter");
        assert_null(find_row(rows, "io-uring-flags"));
        expect_end(rows, false);
    }
}

static void
doctor_killed_by_a_filter_says_so(void **state)
{
    const Closer closers[] = {kill_for_uffd, NULL};
    g_autoptr(Rows) rows = doctor_behind(closers, of_threads);
    (void)state;

    expect_row(rows, "doctor", "closed", "signal 31", "SystemCallErrorNumber=EPERM");
    assert_null(find_row(rows, "uffd-device"));
    expect_end(rows, false);
}

static void
doctor_without_devices_needs_kvm_for_kvm_only(void **state)
{
    g_autoptr(Rows) kvm = doctor_behind(without_devices, of_kvm);
    g_autoptr(Rows) threads = doctor_behind(without_devices, of_threads);
    (void)state;

    expect_row(kvm, "kvm", "closed", "/dev/kvm: No such file", "modprobe");
    expect_end(kvm, false);
    expect_row(threads, "kvm", "warning", "/dev/kvm: No such file", "modprobe");
    expect_row(threads, "uffd-device", "warning", "No such file", "--device /dev/userfaultfd");
    expect_row(threads, "uffd-capability", "ok", "", "");
    expect_row(threads, "cpu-dma-latency", "warning", "No such file", "");
    assert_int_equal(threads->exit_code,
                     g_str_equal(row_text(find_row(threads, "memfd-wp-async"), "state"), "ok") ? 0
                                                                                               : 1);
}

static void
doctor_wrong_use_is_refused(void **state)
{
    static const char *const wrong[][3] = {
        {"--guest", "cows", NULL}, {"--to", "qmp:", NULL}, {"more", NULL}, {"--to", NULL}};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
        int code;
        g_autofree char *text = behind(nothing, exec_doctor, wrong[i], &code);
        assert_int_equal(code, 2);
        assert_string_equal(text, "");
    }
}

/* ---- The machine at the other end -------------------------------------------------------------
 */

/* Starts the program with a QMP socket, and waits until that is there. */
static GPid
start_machine(const char *socket, const char *const *more)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *directory = g_path_get_dirname(self);
    g_autofree char *program = g_build_filename(directory, "..", "..", "faultline", NULL);
    g_autofree char *qmp = g_strdup_printf("unix:%s", socket);
    const char *arguments[16] = {program,    "run", "--guest", "threads",
                                 "--memory", "16M", "--qmp",   qmp};
    GPid pid = 0;

    for (unsigned i = 0; more[i]; i++)
        arguments[8 + i] = more[i];
    assert_true(g_spawn_async(NULL, (char **)arguments, NULL,
                              G_SPAWN_DO_NOT_REAP_CHILD | G_SPAWN_STDOUT_TO_DEV_NULL, NULL, NULL,
                              &pid, NULL));
    for (unsigned i = 0; i < 6000 && access(socket, F_OK) != 0; i++)
        g_usleep(10000);
    return pid;
}

static void
end_machine(GPid pid)
{
    kill(pid, SIGTERM);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void
doctor_asks_the_machine_behind_a_qmp_socket(void **state)
{
    static const char *const waits[] = {"--incoming", "tcp:127.0.0.1:0", "--capability",
                                        "postcopy-ram=on", NULL};
    static const char *const runs[] = {"--paused", NULL};
    g_autofree char *folder = g_dir_make_tmp("doctor-XXXXXX", NULL);
    g_autofree char *socket = g_build_filename(folder, "qmp", NULL);
    g_autofree char *to = g_strdup_printf("qmp:%s", socket);
    const char *const asks[] = {"--guest", "threads", "--to", to, NULL};
    (void)state;

    GPid pid = start_machine(socket, waits);
    g_autoptr(Rows) good = doctor_behind(nothing, asks);
    end_machine(pid);
    expect_row(good, "peer-version", "ok", "faultline", "");
    expect_row(good, "peer-state", "ok", "inmigrate", "");
    expect_row(good, "peer-postcopy-ram", "ok", "on", "");

    pid = start_machine(socket, runs);
    g_autoptr(Rows) busy = doctor_behind(nothing, asks);
    end_machine(pid);
    expect_row(busy, "peer-state", "closed", "does not wait for a guest", "--incoming");
    expect_row(busy, "peer-postcopy-ram", "warning", "off", "migrate_set_capability");
    expect_end(busy, false);

    g_autoptr(Rows) nobody_there = doctor_behind(nothing, asks);
    expect_row(nobody_there, "peer-qmp", "closed", socket, "QMP socket");
    expect_end(nobody_there, false);
    rmdir(folder);
}

/* ---- The same words -------------------------------------------------------------------------- */

static void
write_row(void *opaque, const FaultlineCheck *check)
{
    if (check->state == FAULTLINE_CHECK_CLOSED)
        dprintf(*(int *)opaque, "%s\n", check->text);
}

/* Lines: the texts of what is closed, then why a destination is refused. */
static int
print_check_and_refusal(int fd, const void *argument)
{
    const ToyKind kind = {.name = "toy", .pages = 64, .count_vcpus = 1};
    Toy *toy = toy_new(&kind);
    GError *error = NULL;
    (void)argument;

    faultline_check_host(machine_kvm.guest, NULL, write_row, &fd);
    faultline_set_capability(toy->faultline, "postcopy-ram", true, NULL);
    bool allowed = faultline_incoming(toy->faultline, "tcp:127.0.0.1:0", &error);
    dprintf(fd, "%s\n", allowed ? "allowed" : error->message);
    return 0;
}

/* Each sentence of what is closed stands in the refusal. */
static void
expect_same_words(const Closer *closers, unsigned least_closed)
{
    int code;
    g_autofree char *text = behind(closers, print_check_and_refusal, NULL, &code);
    g_auto(GStrv) lines = g_strsplit(g_strchomp(text), "\n", -1);
    unsigned last = g_strv_length(lines) - 1;

    assert_int_equal(code, 0);
    assert_true(last >= least_closed);
    for (unsigned i = 0; i < last; i++) {
        g_auto(GStrv) parts = g_strsplit(lines[i], ". ", 2);
        if (!strstr(lines[last], parts[0]) || !parts[1] || !strstr(lines[last], parts[1]))
            fail_msg("\"%s\" is not in the refusal \"%s\"", lines[i], lines[last]);
    }
}

static void
incoming_without_privilege_is_refused_in_the_words_of_the_check(void **state)
{
    skip_unless(sysctl_is(UFFD_SYSCTL, '0'), UFFD_SYSCTL " is not 0");
    (void)state;
    expect_same_words(nobody_without_devices, 3);
}

static void
incoming_without_io_uring_is_refused_in_the_words_of_the_check(void **state)
{
    const Closer closers[] = {forbid_ring_setup, NULL};
    skip_unless(getuid() == 0, "needs root");
    (void)state;
    expect_same_words(closers, 1);
}

/* Neither may make a ring and then wait for it for ever, and neither has begun. */
static int
print_refusals_of_both(int fd, const void *argument)
{
    const ToyKind kind = {.name = "toy", .pages = 64, .count_vcpus = 1};
    Toy *toy = toy_new(&kind);
    g_autoptr(GError) incoming = NULL, outgoing = NULL;
    (void)argument;

    bool is_refused = !faultline_incoming(toy->faultline, "tcp:127.0.0.1:0", &incoming) &&
                      faultline_wait(toy->faultline, 0) == FAULTLINE_STATUS_NONE &&
                      !faultline_migrate(toy->faultline, "tcp:127.0.0.1:1", &outgoing) &&
                      faultline_wait(toy->faultline, 0) == FAULTLINE_STATUS_NONE;
    if (is_refused)
        dprintf(fd, "%d %s\n%d %s", incoming->code, incoming->message, outgoing->code,
                outgoing->message);
    return 0;
}

static void
migration_behind_a_filter_of_enter_is_refused_before_it_begins(void **state)
{
    const Closer closers[] = {forbid_ring_enter, NULL};
    int code;
    g_autofree char *text = behind(closers, print_refusals_of_both, NULL, &code);
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    g_autofree char *expected =
        g_strdup_printf("%d io_uring_enter failed: ", FAULTLINE_ERROR_UNSUPPORTED);
    (void)state;

    assert_int_equal(g_strv_length(lines), 2);
    assert_true(g_str_has_prefix(lines[0], expected) && strstr(lines[0], "seccomp"));
    assert_string_equal(lines[0], lines[1]);
}

static int
print_kvm_refusal(int fd, const void *argument)
{
    const MachineOptions options = {.memory_bytes = 16u << 20, .cpus = 1, .serial = "none"};
    g_autoptr(GError) error = NULL;
    (void)argument;

    dprintf(fd, "%s", machine_kvm.make(&options, &error) ? "made" : error->message);
    return 0;
}

static void
machine_without_kvm_is_refused_in_the_words_of_the_doctor(void **state)
{
    int code;
    g_autofree char *refusal = behind(without_devices, print_kvm_refusal, NULL, &code);
    g_autoptr(Rows) rows = doctor_behind(without_devices, of_kvm);
    JsonObject *row = find_row(rows, "kvm");
    (void)state;

    g_autofree char *text =
        g_strdup_printf("%s. %s", row_text(row, "found"), row_text(row, "remedy"));
    assert_string_equal(text, refusal);
}

/* ---- Sysctls --------------------------------------------------------------------------------- */

static char
set_sysctl(const char *path, char value)
{
    g_autofree char *before = NULL;

    skip_unless(g_getenv("FAULTLINE_TEST_SYSCTL") && getuid() == 0,
                "changes the machine's sysctls; set FAULTLINE_TEST_SYSCTL=1 and be root");
    skip_unless(g_file_get_contents(path, &before, NULL, NULL), "this kernel has no such sysctl");
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(write(fd, &value, 1), 1);
    close(fd);
    return *before;
}

static void
doctor_with_userfaultfd_sysctl_on_needs_no_other_gate(void **state)
{
    char before = set_sysctl(UFFD_SYSCTL, '1');
    g_autoptr(Rows) rows = doctor_behind(nobody_without_devices, of_threads);
    (void)state;

    set_sysctl(UFFD_SYSCTL, before);
    expect_row(rows, "uffd-sysctl", "ok", "open", "");
    expect_row(rows, "uffd-device", "warning", "No such file", "another way is open");
    expect_row(rows, "uffd-capability", "warning", "no CAP_SYS_PTRACE", "another way is open");
    expect_row(rows, "memfd-missing", "ok", "", "");
}

static void
doctor_with_io_uring_sysctl_off_says_set_it(void **state)
{
    char before = set_sysctl(RING_SYSCTL, '2');
    g_autoptr(Rows) rows = doctor_behind(nothing, of_threads);
    (void)state;

    set_sysctl(RING_SYSCTL, before);
    expect_row(rows, "io-uring", "closed", "kernel.io_uring_disabled is 2",
               "Run 'sysctl -w kernel.io_uring_disabled=0' as root");
    expect_end(rows, false);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(doctor_with_all_open_says_ok),
        cmocka_unit_test(doctor_rows_are_told_apart_and_have_remedies),
        cmocka_unit_test(doctor_as_nobody_names_three_gates),
        cmocka_unit_test(doctor_in_user_namespace_says_its_capability_does_not_count),
        cmocka_unit_test(doctor_behind_filter_of_the_call_uses_the_device),
        cmocka_unit_test(doctor_behind_filter_of_userfaultfd_says_allow_it),
        cmocka_unit_test(doctor_behind_filters_of_io_uring_says_which_call),
        cmocka_unit_test(doctor_killed_by_a_filter_says_so),
        cmocka_unit_test(doctor_without_devices_needs_kvm_for_kvm_only),
        cmocka_unit_test(doctor_wrong_use_is_refused),
        cmocka_unit_test(doctor_asks_the_machine_behind_a_qmp_socket),
        cmocka_unit_test(incoming_without_privilege_is_refused_in_the_words_of_the_check),
        cmocka_unit_test(incoming_without_io_uring_is_refused_in_the_words_of_the_check),
        cmocka_unit_test(migration_behind_a_filter_of_enter_is_refused_before_it_begins),
        cmocka_unit_test(machine_without_kvm_is_refused_in_the_words_of_the_doctor),
        cmocka_unit_test(doctor_with_userfaultfd_sysctl_on_needs_no_other_gate),
        cmocka_unit_test(doctor_with_io_uring_sysctl_off_says_set_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
