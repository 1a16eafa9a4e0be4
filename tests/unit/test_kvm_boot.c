/* SPDX-License-Identifier: MIT */
/*
 * The KVM machine starts boot images and its own guest, answers ports, says what the guest says,
 * and refuses clearly what it cannot do.
 */
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/unit/kvm_fixture.h"

/* Sends DL + '0', port 0x92, port 0x3fa's IIR and the empty port 0x1234 over the serial port. */
static const uint8_t talker_image[] = {
    0x88, 0xd0,       /* mov al, dl */
    0x04, 0x30,       /* add al, '0' */
    0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
    0xee,             /* out dx, al */
    0xe4, 0x92,       /* in al, 0x92 */
    0xee,             /* out dx, al */
    0xba, 0x34, 0x12, /* mov dx, 0x1234 */
    0xee,             /* out dx, al */
    0xec,             /* in al, dx */
    0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
    0xee,             /* out dx, al */
    0xfa, 0xf4,       /* cli; hlt */
};

/* Protected mode, an empty IDT and an exception: no handler, and none for that failure. */
static const uint8_t crash_image[] = {
    0x0f,           0x01, 0x1e, 0x20, 0x7c, /* lidt [0x7c20] */
    0x0f,           0x20, 0xc0,             /* mov eax, cr0 */
    0x0c,           0x01,                   /* or al, 1 */
    0x0f,           0x22, 0xc0,             /* mov cr0, eax */
    0x0f,           0x0b,                   /* ud2 */
    [0x20 + 5] = 0,                         /* 0x7c20: limit 0, base 0 */
};

/* Echoes what it receives, by polling LSR. */
static const uint8_t echo_image[] = {
    0xba, 0xfd, 0x03, /* again: mov dx, 0x3fd */
    0xec,             /* in al, dx */
    0xa8, 0x01,       /* test al, 1 */
    0x74, 0xf8,       /* jz again */
    0xba, 0xf8, 0x03, /* mov dx, 0x3f8 */
    0xec,             /* in al, dx */
    0xee,             /* out dx, al */
    0xeb, 0xf1,       /* jmp again */
};

static char *
write_image(const void *bytes, size_t length_bytes)
{
    GError *error = NULL;
    char *path = NULL;
    int fd = g_file_open_tmp("faultline-image-XXXXXX", &path, &error);
    assert_no_error(error);
    assert_int_equal(write(fd, bytes, length_bytes), length_bytes);
    close(fd);
    return path;
}

static void
expect_make_error(const MachineOptions *options, int code, const char *words)
{
    GError *error = NULL;
    Machine *machine = machine_kvm.make(options, &error);
    assert_null(machine);
    assert_non_null(error);
    if (error->code != code || strstr(error->message, words) == NULL)
        fail_msg("code %d: %s", error->code, error->message);
    g_error_free(error);
}

static void
boot_image_runs_in_real_mode_and_talks_to_a_file(void **unused)
{
    (void)unused;
    skip_without_kvm();
    g_autofree char *image = write_image(talker_image, sizeof talker_image);
    g_autofree char *out = write_image("before ", 7);
    g_autofree char *where = g_strconcat("file:", out, NULL);
    MachineOptions options = {.memory_bytes = MIB, .cpus = 1, .serial = where, .boot = image};
    Machine *machine = make_machine(&options);
    resume(machine);
    g_autofree char *text = NULL;
    gsize length = 0;
    for (unsigned i = 0; i < 1000 && length < 10; i++) {
        g_clear_pointer(&text, g_free);
        g_usleep(5000);
        assert_true(g_file_get_contents(out, &text, &length, NULL));
    }
    assert_int_equal(length, 10);
    assert_memory_equal(text, "before 0\x02\xff", 10);
    machine_kvm.free(machine);
    unlink(image);
    unlink(out);
}

static void
guest_that_crashes_cannot_be_resumed(void **unused)
{
    (void)unused;
    skip_without_kvm();
    g_autofree char *image = write_image(crash_image, sizeof crash_image);
    MachineOptions options = {.memory_bytes = MIB, .cpus = 2, .serial = "none", .boot = image};
    Machine *machine = make_machine(&options);
    assert_null(machine_kvm.end(machine));
    resume(machine);
    GError *error = NULL;
    for (unsigned i = 0; i < 1000 && error == NULL; i++) {
        g_usleep(5000);
        pause_machine(machine);
        machine_kvm.guest->resume(machine, &error);
    }
    assert_non_null(error);
    assert_int_equal(error->code, FAULTLINE_ERROR_STATE);
    assert_non_null(strstr(error->message, "stopped for good"));
    assert_string_equal(machine_kvm.end(machine), "shutdown");
    g_error_free(error);
    pause_machine(machine);
    machine_kvm.free(machine);
    unlink(image);
}

static void
boot_image_missing_empty_or_too_long_refuses(void **unused)
{
    (void)unused;
    skip_without_kvm();
    g_autofree char *zeros = g_malloc0(32769);
    g_autofree char *most = write_image(zeros, 32768);
    g_autofree char *more = write_image(zeros, 32769);
    g_autofree char *empty = write_image(zeros, 0);
    MachineOptions options = {.memory_bytes = MIB, .cpus = 1, .serial = "none", .boot = most};
    machine_kvm.free(make_machine(&options));
    options.boot = more;
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "32769");
    options.boot = empty;
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "this one has 0");
    options.boot = "/nonexistent/image";
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "/nonexistent/image");
    unlink(most);
    unlink(more);
    unlink(empty);
}

static void
make_with_options_that_cannot_work_refuses(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 0, .serial = "none"};
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "vCPUs");
    options.cpus = 100000;
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "vCPUs");
    options.cpus = 1;
    options.serial = "carrier-pigeon";
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "carrier-pigeon");
    options.serial = "file:/nonexistent/directory/file";
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "/nonexistent/directory/file");
    options.serial = "none";
    options.memory_bytes = 16 * MIB + 1;
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "multiple");
    options.memory_bytes = 4096;
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "1 MiB");
    options.memory_bytes = 2 * MIB;
    expect_make_error(&options, FAULTLINE_ERROR_ARGUMENT, "2 MiB");
}

static void
check_shipped(MachineOptions options, uint64_t checks)
{
    skip_without_kvm();
    options.serial = "none";
    Machine *machine = make_machine(&options);
    assert_null(machine_kvm.verdict(machine));
    resume(machine);
    resume(machine);
    run_until_checked(machine, checks);
    pause_machine(machine);
    pause_machine(machine);
    for (unsigned i = 0; i < options.cpus; i++)
        assert_int_not_equal(machine_kvm.guest->vcpu_thread(machine, i), 0);
    assert_int_equal(machine_kvm.guest->vcpu_thread(machine, options.cpus), 0);
    machine_kvm.free(machine);
}

static void
shipped_guest_with_one_vcpu_reports_ok(void **unused)
{
    (void)unused;
    check_shipped((MachineOptions){.memory_bytes = 16 * MIB, .cpus = 1}, 10000);
}

static void
shipped_guest_with_four_vcpus_reports_ok(void **unused)
{
    (void)unused;
    check_shipped((MachineOptions){.memory_bytes = 16 * MIB, .cpus = 4}, 30000);
}

static void
shipped_guest_with_a_pace_reports_ok(void **unused)
{
    (void)unused;
    check_shipped((MachineOptions){.memory_bytes = 16 * MIB, .cpus = 1, .write_rate = 1000}, 1000);
}

static void
shipped_guest_of_fewer_pages_than_vcpus_reports_ok(void **unused)
{
    (void)unused;
    check_shipped((MachineOptions){.memory_bytes = 16 * MIB, .cpus = 4, .write_bytes = 8192}, 100);
}

/* The working set lies below the hole and at the end of high memory; the last page is in it. */
static void
shipped_guest_of_five_gib_uses_high_memory(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {
        .memory_bytes = 5120 * MIB, .cpus = 2, .serial = "none", .write_bytes = 32 * MIB};
    Machine *machine = make_machine(&options);
    unsigned count;
    const FaultlineBlock *blocks = machine_kvm.blocks(machine, &count);
    assert_int_equal(count, 2);
    assert_string_equal(blocks[0].name, "ram-low");
    assert_string_equal(blocks[1].name, "ram-high");
    assert_int_equal(blocks[1].guest_address, 4096 * MIB);
    assert_int_equal(blocks[0].length_bytes + blocks[1].length_bytes, options.memory_bytes);
    resume(machine);
    run_until_checked(machine, 20000);
    pause_machine(machine);
    const char *end = (char *)blocks[1].host_address + blocks[1].length_bytes;
    assert_int_not_equal(*(const uint64_t *)(end - 4096), 0);
    machine_kvm.free(machine);
}

static void
shipped_guest_with_a_changed_byte_reports_bad_for_ever(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 2, .serial = "none"};
    Machine *machine = make_machine(&options);
    resume(machine);
    run_until_checked(machine, 1);
    pause_machine(machine);
    ((char *)machine->blocks[0].host_address)[2 * MIB + 3000 * 4096 + 2048] ^= 1;
    resume(machine);
    const char *verdict = NULL;
    for (unsigned i = 0; i < 12000; i++) {
        verdict = machine_kvm.verdict(machine);
        if (verdict && g_str_has_prefix(verdict, "bad"))
            break;
        g_usleep(10000);
    }
    assert_non_null(verdict);
    assert_non_null(strstr(verdict, "bad: page 3000 expected "));
    machine_kvm.free(machine);
}

static void
huge_pages_run_or_are_refused_with_the_remedy(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {
        .memory_bytes = 16 * MIB, .cpus = 1, .serial = "none", .memory = MACHINE_MEMORY_HUGETLB};
    GError *error = NULL;
    Machine *machine = machine_kvm.make(&options, &error);
    if (machine == NULL) {
        assert_int_equal(error->code, FAULTLINE_ERROR_UNSUPPORTED);
        assert_non_null(strstr(error->message, "vm.nr_hugepages=8"));
        g_error_free(error);
        return;
    }
    assert_int_equal(machine->blocks[0].page_size_bytes, 2 * MIB);
    resume(machine);
    run_until_checked(machine, 1000);
    machine_kvm.free(machine);
}

static int
connect_to(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* More bytes than the FIFO holds arrive in order, also over a pause, and a second client gets in
 * after the first one left. */
static void
serial_over_a_unix_socket_echoes_in_order(void **unused)
{
    (void)unused;
    skip_without_kvm();
    g_autofree char *image = write_image(echo_image, sizeof echo_image);
    g_autofree char *path = g_strdup_printf("/tmp/faultline-serial-%d", (int)getpid());
    g_autofree char *where = g_strconcat("unix:", path, NULL);
    MachineOptions options = {.memory_bytes = MIB, .cpus = 1, .serial = where, .boot = image};
    Machine *machine = make_machine(&options);
    static const char text[] = "the quick brown fox jumps over the lazy dog";
    for (unsigned client = 0; client < 2; client++) {
        int fd = connect_to(path);
        assert_int_equal(write(fd, text, sizeof text), sizeof text);
        resume(machine);
        char got[sizeof text];
        assert_int_equal(recv(fd, got, sizeof got, MSG_WAITALL), sizeof got);
        assert_string_equal(got, text);
        pause_machine(machine);
        close(fd);
    }
    machine_kvm.free(machine);
    assert_int_not_equal(access(path, F_OK), 0);
    unlink(image);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(boot_image_runs_in_real_mode_and_talks_to_a_file),
        cmocka_unit_test(guest_that_crashes_cannot_be_resumed),
        cmocka_unit_test(boot_image_missing_empty_or_too_long_refuses),
        cmocka_unit_test(make_with_options_that_cannot_work_refuses),
        cmocka_unit_test(shipped_guest_with_one_vcpu_reports_ok),
        cmocka_unit_test(shipped_guest_with_four_vcpus_reports_ok),
        cmocka_unit_test(shipped_guest_with_a_pace_reports_ok),
        cmocka_unit_test(shipped_guest_of_fewer_pages_than_vcpus_reports_ok),
        cmocka_unit_test(shipped_guest_of_five_gib_uses_high_memory),
        cmocka_unit_test(shipped_guest_with_a_changed_byte_reports_bad_for_ever),
        cmocka_unit_test(huge_pages_run_or_are_refused_with_the_remedy),
        cmocka_unit_test(serial_over_a_unix_socket_echoes_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
