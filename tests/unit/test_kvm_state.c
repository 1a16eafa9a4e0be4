/* SPDX-License-Identifier: MIT */
/*
 * The machine's device state: what one machine saves, another one loads and its guest runs on, and
 * whatever is not such a state is refused. Single thread beside the machines' own.
 */
#include "tests/unit/kvm_fixture.h"

static void
copy_memory(Machine *to, Machine *from)
{
    unsigned count, count_from;
    const FaultlineBlock *blocks = machine_kvm.blocks(to, &count);
    const FaultlineBlock *blocks_from = machine_kvm.blocks(from, &count_from);
    assert_int_equal(count, count_from);
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(blocks[i].length_bytes, blocks_from[i].length_bytes);
        memcpy(blocks[i].host_address, blocks_from[i].host_address, blocks[i].length_bytes);
    }
}

static Machine *
move_machine(Machine *from, MachineOptions options)
{
    options.incoming = true;
    Machine *to = make_machine(&options);
    copy_memory(to, from);
    g_autoptr(GArray) sections = save_sections(from);
    for (guint i = 0; i < sections->len; i++) {
        GError *error = NULL;
        load_section(to, &g_array_index(sections, Section, i), &error);
        assert_no_error(error);
    }
    machine_kvm.free(from);
    return to;
}

static void
check_moves(unsigned cpus, MachineMemory memory, unsigned count_moves)
{
    skip_without_kvm();
    MachineOptions options = {
        .memory_bytes = 16 * MIB, .cpus = cpus, .serial = "none", .memory = memory};
    Machine *machine = make_machine(&options);
    resume(machine);
    run_until_checked(machine, 1);
    for (unsigned i = 0; i < count_moves; i++) {
        pause_machine(machine);
        uint64_t checks = count_checks(machine);
        machine = move_machine(machine, options);
        resume(machine);
        run_until_checked(machine, checks + 5000);
    }
    machine_kvm.free(machine);
}

static void
state_of_one_vcpu_moved_guest_runs_on(void **unused)
{
    (void)unused;
    check_moves(1, MACHINE_MEMORY_MEMFD, 5);
}

static void
state_of_four_vcpus_moved_guest_runs_on(void **unused)
{
    (void)unused;
    check_moves(4, MACHINE_MEMORY_PRIVATE, 5);
}

/* A move before the guest's first instruction, with its other vCPUs waiting for their INIT. */
static void
state_before_boot_moved_guest_starts(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 2, .serial = "none"};
    Machine *machine = move_machine(make_machine(&options), options);
    resume(machine);
    run_until_checked(machine, 10000);
    machine_kvm.free(machine);
}

/* Every register that was saved is there after the load. Left out: what time or the load changes.
 */
static void
state_loaded_saves_as_the_same_bytes(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 2, .serial = "none"};
    Machine *from = make_machine(&options);
    resume(from);
    run_until_checked(from, 1);
    pause_machine(from);
    g_autoptr(GArray) before = save_sections(from);
    options.incoming = true;
    Machine *to = make_machine(&options);
    copy_memory(to, from);
    for (guint i = 0; i < before->len; i++) {
        GError *error = NULL;
        load_section(to, &g_array_index(before, Section, i), &error);
        assert_no_error(error);
    }
    for (unsigned i = 0; i < options.cpus; i++) {
        struct kvm_regs regs[2];
        struct kvm_sregs2 sregs[2];
        struct kvm_mp_state states[2];
        struct kvm_xcrs xcrs[2];
        char *xsave[2] = {g_malloc0(from->xsave_bytes), g_malloc0(to->xsave_bytes)};
        Machine *machines[2] = {from, to};
        memset(sregs, 0, sizeof sregs);
        memset(xcrs, 0, sizeof xcrs);
        for (unsigned j = 0; j < 2; j++) {
            int fd = machines[j]->vcpus[i].fd;
            assert_int_equal(ioctl(fd, KVM_GET_REGS, &regs[j]), 0);
            assert_int_equal(ioctl(fd, KVM_GET_SREGS2, &sregs[j]), 0);
            assert_int_equal(ioctl(fd, KVM_GET_MP_STATE, &states[j]), 0);
            assert_int_equal(ioctl(fd, KVM_GET_XCRS, &xcrs[j]), 0);
            assert_int_equal(ioctl(fd, KVM_GET_XSAVE2, xsave[j]), 0);
        }
        assert_memory_equal(&regs[0], &regs[1], sizeof regs[0]);
        assert_memory_equal(&sregs[0], &sregs[1], sizeof sregs[0]);
        assert_memory_equal(&states[0], &states[1], sizeof states[0]);
        assert_memory_equal(&xcrs[0], &xcrs[1], sizeof xcrs[0]);
        assert_memory_equal(xsave[0], xsave[1], from->xsave_bytes);
        g_free(xsave[0]);
        g_free(xsave[1]);
        assert_true(regs[0].rip >= 0x7c00 && regs[0].rip < 0xfc00);
    }
    machine_kvm.free(from);
    machine_kvm.free(to);
}

static void
expect_refusal(Machine *machine, const Section *section)
{
    GError *error = NULL;
    if (load_section(machine, section, &error))
        fail_msg("%s %u of %u bytes was taken", section->name, section->instance,
                 section->bytes->len);
    assert_non_null(error);
    assert_int_equal(error->code, FAULTLINE_ERROR_PEER);
    assert_non_null(strstr(error->message, section->name));
    g_error_free(error);
}

static void
load_state_cut_or_too_long_refuses(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 1, .serial = "none"};
    Machine *machine = make_machine(&options);
    g_autoptr(GArray) sections = save_sections(machine);
    assert_int_equal(sections->len, 3);
    for (guint i = 0; i < sections->len; i++) {
        Section section = g_array_index(sections, Section, i);
        GByteArray *whole = section.bytes;
        bool serial = strcmp(section.name, "faultline/serial") == 0;
        Section named = section;
        for (guint cut = 0; cut <= whole->len + 1; cut += cut > 600 && cut < whole->len ? 7 : 1) {
            if (cut == whole->len)
                continue;
            named.bytes = g_byte_array_new();
            g_byte_array_append(named.bytes, whole->data, MIN(cut, whole->len));
            if (cut > whole->len)
                g_byte_array_append(named.bytes, (const guint8 *)"x", 1);
            if (serial) {
                g_autoptr(GError) error = NULL;
                assert_false(load_section(machine, &named, &error));
                assert_int_equal(error->code, FAULTLINE_ERROR_PEER);
            } else {
                expect_refusal(machine, &named);
            }
            g_byte_array_unref(named.bytes);
        }
    }
    machine_kvm.free(machine);
}

static void
load_state_unknown_section_version_or_instance_refuses(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 2, .serial = "none"};
    Machine *machine = make_machine(&options);
    g_autoptr(GArray) sections = save_sections(machine);
    for (guint i = 0; i < sections->len; i++) {
        Section wrong = g_array_index(sections, Section, i);
        wrong.version++;
        expect_refusal(machine, &wrong);
        wrong.version--;
        wrong.instance += 2;
        expect_refusal(machine, &wrong);
        wrong.instance = g_array_index(sections, Section, i).instance;
        wrong.name = (char *)"faultline/tape";
        expect_refusal(machine, &wrong);
    }
    machine_kvm.free(machine);
}

/* The first MSR's index is changed to one that no KVM has: the error must name it. */
static void
load_state_unknown_msr_refuses_and_names_it(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 1, .serial = "none"};
    Machine *machine = make_machine(&options);
    g_autoptr(GArray) sections = save_sections(machine);
    GByteArray *vcpu = g_array_index(sections, Section, 0).bytes;
    const guint id_msrs = 6;
    guint at = 0;
    while (at + 8 < vcpu->len && vcpu->data[at] != id_msrs) {
        uint32_t length;
        memcpy(&length, vcpu->data + at + 4, 4);
        at += 8 + length;
    }
    assert_int_equal(vcpu->data[at], id_msrs);
    const uint32_t unknown = 0x7f00ba11;
    memcpy(vcpu->data + at + 8, &unknown, 4);
    g_autoptr(GError) error = NULL;
    assert_false(load_section(machine, &g_array_index(sections, Section, 0), &error));
    assert_int_equal(error->code, FAULTLINE_ERROR_PEER);
    assert_non_null(strstr(error->message, "0x7f00ba11"));
    machine_kvm.free(machine);
}

/* A source with fewer vCPUs must not leave a destination with vCPUs that know nothing. */
static void
resume_with_a_section_missing_refuses(void **unused)
{
    (void)unused;
    skip_without_kvm();
    MachineOptions options = {.memory_bytes = 16 * MIB, .cpus = 2, .serial = "none"};
    Machine *from = make_machine(&options);
    g_autoptr(GArray) sections = save_sections(from);
    options.incoming = true;
    for (guint missing = 0; missing < sections->len; missing++) {
        Machine *to = make_machine(&options);
        for (guint i = 0; i < sections->len; i++) {
            if (i != missing)
                assert_true(load_section(to, &g_array_index(sections, Section, i), NULL));
        }
        g_autoptr(GError) error = NULL;
        assert_false(machine_kvm.guest->resume(to, &error));
        assert_non_null(strstr(error->message, g_array_index(sections, Section, missing).name));
        machine_kvm.free(to);
    }
    machine_kvm.free(from);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_of_one_vcpu_moved_guest_runs_on),
        cmocka_unit_test(state_of_four_vcpus_moved_guest_runs_on),
        cmocka_unit_test(state_before_boot_moved_guest_starts),
        cmocka_unit_test(state_loaded_saves_as_the_same_bytes),
        cmocka_unit_test(load_state_cut_or_too_long_refuses),
        cmocka_unit_test(load_state_unknown_section_version_or_instance_refuses),
        cmocka_unit_test(load_state_unknown_msr_refuses_and_names_it),
        cmocka_unit_test(resume_with_a_section_missing_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
