/* SPDX-License-Identifier: MIT */
/*
 * The dirty log of the KVM machine, by bitmap and by ring: it names exactly the pages that a guest
 * wrote, and over any number of syncs, taken while it runs, loses none. KVM may also name a page
 * that the guest only read or ran: when it has to map one, it maps it to be written, and logs it.
 */
#include "tests/unit/kvm_fixture.h"

#define WRITTEN_FIRST 16
#define WRITTEN_COUNT 128
#define CODE_START    0x7c00

/* Writes one byte into each of pages 16 .. 143, then stays where it is. */
static const uint8_t writer_image[] = {
    0xb9, WRITTEN_COUNT, 0x00,       /*       mov cx, 128 */
    0xb8, 0x00,          0x10,       /*       mov ax, 0x1000 */
    0x8e, 0xd8,                      /* next: mov ds, ax */
    0xfe, 0x06,          0x00, 0x00, /*       inc byte [0] */
    0x05, 0x00,          0x01,       /*       add ax, 0x100 */
    0xe2, 0xf5,                      /*       loop next */
    0xeb, 0xfe,                      /*       jmp $ */
};
#define CODE_END (CODE_START + sizeof writer_image - 2)

typedef struct Logs {
    uint64_t *words[MACHINE_BLOCKS_MAX];
    uint64_t count_pages[MACHINE_BLOCKS_MAX];
    unsigned count_blocks;
} Logs;

static Logs
make_logs(Machine *machine)
{
    Logs logs = {0};
    const FaultlineBlock *blocks = machine_kvm.blocks(machine, &logs.count_blocks);
    for (unsigned i = 0; i < logs.count_blocks; i++) {
        logs.count_pages[i] = blocks[i].length_bytes / FAULTLINE_PAGE_BYTES;
        logs.words[i] = g_new0(uint64_t, (logs.count_pages[i] + 63) / 64);
    }
    return logs;
}

static void
free_logs(Logs *logs)
{
    for (unsigned i = 0; i < logs->count_blocks; i++)
        g_free(logs->words[i]);
}

static void
sync_logs(Machine *machine, Logs *logs)
{
    for (unsigned i = 0; i < logs->count_blocks; i++) {
        GError *error = NULL;
        machine_kvm.guest->dirty_log_sync(machine, i, logs->words[i], logs->count_pages[i], &error);
        assert_no_error(error);
    }
}

static bool
is_set(const Logs *logs, unsigned block, uint64_t page)
{
    return logs->words[block][page / 64] >> (page % 64) & 1;
}

static void
start_log(Machine *machine)
{
    GError *error = NULL;
    machine_kvm.guest->dirty_log_start(machine, &error);
    assert_no_error(error);
}

/* NULL when the host refuses the dirty ring, which must be said with the right code. */
static Machine *
make_machine_or_refuse(const MachineOptions *options)
{
    GError *error = NULL;
    Machine *machine = machine_kvm.make(options, &error);
    if (machine)
        return machine;
    if (!options->dirty_ring)
        fail_msg("%s", error->message);
    assert_int_equal(error->code, FAULTLINE_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error->message, "dirty ring"));
    print_message("skipped: %s\n", error->message);
    g_error_free(error);
    return NULL;
}

/* From its first instruction to its last one. */
static void
run_writer(Machine *machine)
{
    struct kvm_regs regs;
    assert_int_equal(ioctl(machine->vcpus[0].fd, KVM_GET_REGS, &regs), 0);
    regs.rip = CODE_START;
    assert_int_equal(ioctl(machine->vcpus[0].fd, KVM_SET_REGS, &regs), 0);
    for (unsigned i = 0; i < 1000 && regs.rip != CODE_END; i++) {
        resume(machine);
        g_usleep(5000);
        pause_machine(machine);
        assert_int_equal(ioctl(machine->vcpus[0].fd, KVM_GET_REGS, &regs), 0);
    }
    assert_int_equal(regs.rip, CODE_END);
}

static void
check_exact(Machine *machine)
{
    start_log(machine);
    for (unsigned round = 0; round < 4; round++) {
        Logs logs = make_logs(machine);
        run_writer(machine);
        sync_logs(machine, &logs);
        for (uint64_t page = 0; page < logs.count_pages[0]; page++) {
            bool written = page >= WRITTEN_FIRST && page < WRITTEN_FIRST + WRITTEN_COUNT;
            if (is_set(&logs, 0, page) != written && page != CODE_START / FAULTLINE_PAGE_BYTES)
                fail_msg("round %u: page %llu is %s", round, (unsigned long long)page,
                         written ? "missing" : "named and was not written");
        }
        free_logs(&logs);
    }
    Logs nothing = make_logs(machine);
    sync_logs(machine, &nothing);
    for (uint64_t page = 0; page < nothing.count_pages[0]; page++)
        assert_false(is_set(&nothing, 0, page));
    free_logs(&nothing);
    machine_kvm.guest->dirty_log_stop(machine);
}

static void
check_exact_by(bool ring)
{
    skip_without_kvm();
    char path[] = "/tmp/faultline-image-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, writer_image, sizeof writer_image), sizeof writer_image);
    close(fd);
    MachineOptions options = {
        .memory_bytes = 16 * MIB, .cpus = 1, .serial = "none", .boot = path, .dirty_ring = ring};
    Machine *machine = make_machine_or_refuse(&options);
    unlink(path);
    if (machine == NULL)
        skip();
    check_exact(machine);
    check_exact(machine); /* stopped and started again */
    machine_kvm.free(machine);
}

static void
dirty_bitmap_names_exactly_the_pages_written(void **unused)
{
    (void)unused;
    check_exact_by(false);
}

static void
dirty_ring_names_exactly_the_pages_written(void **unused)
{
    (void)unused;
    check_exact_by(true);
}

static void
compare_with_snapshot(Machine *machine, const Logs *logs, char *const *snapshots,
                      uint64_t *ret_changed)
{
    unsigned count;
    const FaultlineBlock *blocks = machine_kvm.blocks(machine, &count);
    for (unsigned i = 0; i < count; i++) {
        for (uint64_t page = 0; page < logs->count_pages[i]; page++) {
            const char *now = (char *)blocks[i].host_address + page * FAULTLINE_PAGE_BYTES;
            const char *then = snapshots[i] + page * FAULTLINE_PAGE_BYTES;
            if (memcmp(now, then, FAULTLINE_PAGE_BYTES) == 0)
                continue;
            (*ret_changed)++;
            if (!is_set(logs, i, page))
                fail_msg("%s: page %llu was written and is not named", blocks[i].name,
                         (unsigned long long)page);
        }
    }
}

/* The engine's way: copy what the log names while the guest runs, again and again; after the last
 * sync, with the guest paused, the copy must be the memory. */
static void
copy_named_pages(Machine *machine, Logs *logs, char *const *copies)
{
    unsigned count;
    const FaultlineBlock *blocks = machine_kvm.blocks(machine, &count);
    for (unsigned i = 0; i < count; i++) {
        for (uint64_t page = 0; page < logs->count_pages[i]; page++) {
            if (!is_set(logs, i, page))
                continue;
            uint64_t at = page * FAULTLINE_PAGE_BYTES;
            memcpy(copies[i] + at, (char *)blocks[i].host_address + at, FAULTLINE_PAGE_BYTES);
        }
        memset(logs->words[i], 0, (logs->count_pages[i] + 63) / 64 * 8);
    }
}

static void
check_nothing_lost(bool ring, unsigned cpus)
{
    skip_without_kvm();
    MachineOptions options = {
        .memory_bytes = 16 * MIB, .cpus = cpus, .serial = "none", .dirty_ring = ring};
    Machine *machine = make_machine_or_refuse(&options);
    if (machine == NULL)
        skip();
    resume(machine);
    run_until_checked(machine, 1);

    Logs logs = make_logs(machine);
    char *copies[MACHINE_BLOCKS_MAX] = {NULL};
    start_log(machine);
    for (unsigned i = 0; i < logs.count_blocks; i++)
        copies[i] = g_memdup2(machine->blocks[i].host_address, machine->blocks[i].length_bytes);
    for (unsigned pass = 0; pass < 20; pass++) {
        g_usleep(20000);
        sync_logs(machine, &logs);
        copy_named_pages(machine, &logs, copies);
    }
    g_usleep(20000);
    pause_machine(machine);
    sync_logs(machine, &logs);
    uint64_t changed = 0;
    compare_with_snapshot(machine, &logs, copies, &changed);
    assert_true(changed > 0);
    copy_named_pages(machine, &logs, copies);
    changed = 0;
    compare_with_snapshot(machine, &logs, copies, &changed);
    assert_int_equal(changed, 0);
    machine_kvm.guest->dirty_log_stop(machine);

    uint64_t checks = count_checks(machine);
    resume(machine);
    run_until_checked(machine, checks + 5000);
    machine_kvm.free(machine);
    for (unsigned i = 0; i < logs.count_blocks; i++)
        g_free(copies[i]);
    free_logs(&logs);
}

static void
dirty_bitmap_synced_while_running_loses_nothing(void **unused)
{
    (void)unused;
    check_nothing_lost(false, 1);
    check_nothing_lost(false, 4);
}

static void
dirty_ring_synced_while_running_loses_nothing(void **unused)
{
    (void)unused;
    check_nothing_lost(true, 1);
    check_nothing_lost(true, 4);
}

/* 80,000 pages and no sync: more than one vCPU's ring holds, so its vCPU has to empty it. */
static void
dirty_ring_full_guest_goes_on_and_nothing_is_lost(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {
        .memory_bytes = 320 * MIB, .cpus = 1, .serial = "none", .dirty_ring = true};
    Machine *machine = make_machine_or_refuse(&options);
    if (machine == NULL)
        skip();
    start_log(machine);
    resume(machine);
    run_until_checked(machine, 1);
    pause_machine(machine);
    Logs logs = make_logs(machine);
    sync_logs(machine, &logs);
    for (uint64_t page = 512; page < logs.count_pages[0]; page++) {
        if (!is_set(&logs, 0, page))
            fail_msg("page %llu was filled and is not named", (unsigned long long)page);
    }
    free_logs(&logs);
    machine_kvm.free(machine);
}

static void
dirty_mark_by_the_machine_is_named_once(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 1, .serial = "none"};
    Machine *machine = make_machine(&options);
    start_log(machine);
    dirty_mark(machine->dirty, 0, 5 * 4096 + 4095, 2);
    Logs logs = make_logs(machine);
    sync_logs(machine, &logs);
    for (uint64_t page = 0; page < logs.count_pages[0]; page++)
        assert_int_equal(is_set(&logs, 0, page), page == 5 || page == 6);
    logs.words[0][0] = 0;
    sync_logs(machine, &logs);
    assert_int_equal(logs.words[0][0], 0);
    free_logs(&logs);
    machine_kvm.free(machine);
}

static void
dirty_sync_of_a_block_that_is_none_refuses(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 1, .serial = "none"};
    Machine *machine = make_machine(&options);
    uint64_t words[64] = {0};
    assert_false(machine_kvm.guest->dirty_log_sync(machine, 1, words, 4096, NULL));
    assert_false(machine_kvm.guest->dirty_log_sync(machine, 0, words, 4095, NULL));
    machine_kvm.free(machine);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dirty_bitmap_names_exactly_the_pages_written),
        cmocka_unit_test(dirty_ring_names_exactly_the_pages_written),
        cmocka_unit_test(dirty_bitmap_synced_while_running_loses_nothing),
        cmocka_unit_test(dirty_ring_synced_while_running_loses_nothing),
        cmocka_unit_test(dirty_ring_full_guest_goes_on_and_nothing_is_lost),
        cmocka_unit_test(dirty_mark_by_the_machine_is_named_once),
        cmocka_unit_test(dirty_sync_of_a_block_that_is_none_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
