/* SPDX-License-Identifier: MIT */
/*
 * What `faultline doctor` tells of the machine: small machines are made as `faultline run` makes
 * them, the shipped guest runs, and both ways of tracking must name pages that it wrote. So a
 * refusal reads here as there. One thread; the guest's own are joined before a trial ends.
 */
#include "kvm/doctor.h"
#include "kvm/machine.h"

#define GUEST_BYTES (16u << 20)
#define PATIENCE_US (5 * G_USEC_PER_SEC)
#define POLL_US     1000

static bool
any_page_is_dirty(Machine *machine, bool *ret_any, GError **error)
{
    unsigned count_blocks;
    const FaultlineBlock *blocks = machine_kvm.blocks(machine, &count_blocks);

    *ret_any = false;
    for (unsigned i = 0; i < count_blocks; i++) {
        uint64_t count_pages = blocks[i].length_bytes / FAULTLINE_PAGE_BYTES;
        uint64_t count_words = (count_pages + 63) / 64;
        g_autofree uint64_t *words = g_new0(uint64_t, count_words);

        if (!machine_kvm.guest->dirty_log_sync(machine, i, words, count_pages, error))
            return false;
        for (uint64_t word = 0; word < count_words; word++)
            *ret_any |= words[word] != 0;
    }
    return true;
}

static bool
await_dirty_page(Machine *machine, GError **error)
{
    bool any = false;

    for (int64_t end_us = g_get_monotonic_time() + PATIENCE_US;
         !any && g_get_monotonic_time() < end_us; g_usleep(POLL_US))
        if (!any_page_is_dirty(machine, &any, error))
            return false;
    if (!any)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "A guest ran, but KVM named no page that it wrote. Try another kernel");
    return any;
}

static bool
try_tracking(Machine *machine, GError **error)
{
    const FaultlineGuest *guest = machine_kvm.guest;

    if (!guest->dirty_log_start(machine, error))
        return false;
    bool done = guest->resume(machine, error) && await_dirty_page(machine, error);
    /* What went wrong first is what is told. */
    if (!guest->pause(machine, done ? error : NULL))
        done = false;
    guest->dirty_log_stop(machine);
    return done;
}

static bool
try_machine(bool dirty_ring, bool track, GError **error)
{
    const MachineOptions options = {
        .memory_bytes = GUEST_BYTES,
        .cpus = 1,
        .serial = "none",
        .memory = MACHINE_MEMORY_PRIVATE,
        .dirty_ring = dirty_ring,
    };
    Machine *machine = machine_kvm.make(&options, error);

    if (!machine)
        return false;
    bool done = !track || try_tracking(machine, error);
    machine_kvm.free(machine);
    return done;
}

static bool
check_kvm(DoctorReport *report, bool is_needed)
{
    g_autoptr(GError) error = NULL;
    FaultlineCheckState state = is_needed ? FAULTLINE_CHECK_CLOSED : FAULTLINE_CHECK_WARNING;

    if (!try_machine(false, false, &error))
        return doctor_report_add(report, "kvm", "KVM machine", state, error->message);
    doctor_report_add(report, "kvm", "KVM machine", FAULTLINE_CHECK_OK, "can be made");

    bool done = try_machine(false, true, &error);
    doctor_report_add(report, "kvm-dirty-bitmap", "writes of a guest by KVM's dirty bitmap",
                      done ? FAULTLINE_CHECK_OK : state,
                      done ? "a guest ran, and pages that it wrote were told" : error->message);
    g_clear_error(&error);

    bool has_ring = try_machine(true, true, &error);
    doctor_report_add(report, "kvm-dirty-ring", "writes of a guest by KVM's dirty ring",
                      has_ring ? FAULTLINE_CHECK_OK : FAULTLINE_CHECK_WARNING,
                      has_ring ? "a guest ran, and pages that it wrote were told" : error->message);
    return done || !is_needed;
}

static void
check_numa(DoctorReport *report)
{
    unsigned nodes = ram_count_nodes();
    g_autofree char *text = g_strdup_printf("%u nodes; guest memory is spread over them", nodes);

    if (nodes == 0)
        doctor_report_add(report, "numa", "NUMA", FAULTLINE_CHECK_WARNING,
                          "the calls for it are refused. Where there are several nodes, allow "
                          "get_mempolicy and mbind in the seccomp filter, or guest memory is not "
                          "spread over them");
    else
        doctor_report_add(report, "numa", "NUMA", FAULTLINE_CHECK_OK,
                          nodes == 1 ? "one node" : text);
}

bool
doctor_check_machine(DoctorReport *report, bool is_needed)
{
    bool done = check_kvm(report, is_needed);

    check_numa(report);
    return done;
}
