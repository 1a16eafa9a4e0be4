/* SPDX-License-Identifier: MIT */
/*
 * What the guest finds when it begins: a boot image at 0x7c00 in real mode, CS:IP 0000:7c00, DL 0,
 * no BIOS; for the shipped guest also its parameter block. Main thread, before vCPUs run.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm_machine.h"

#define BOOT_ADDRESS    0x7c00
#define BOOT_BYTES_MAX  (32u << 10)
#define PAGE_BYTES      FAULTLINE_PAGE_BYTES
#define REPORTS_PER_S   2
#define GUEST_BYTES_MAX (256ull << 30) /* its page directories cover so much address space */

/* As kvm/guest/parameters.inc has it. */
#define PARAMETERS_ADDRESS 0x500
#define PARAMETERS_MAGIC   0x31474c46
#define WORKING_SET_START  0x200000
typedef struct GuestParameters {
    uint32_t magic;
    uint32_t count_cpus;
    uint64_t split, gap_bytes; /* the working set goes on gap_bytes further up from split on */
    uint64_t high_bytes;
    uint64_t count_pages;    /* working set */
    uint64_t report_ticks;   /* TSC ticks between two reports */
    uint64_t ticks_per_page; /* 0: full speed */
} GuestParameters;
G_STATIC_ASSERT(sizeof(GuestParameters) == 56);

extern const uint8_t guest_image[] __attribute__((visibility("hidden")));
extern const uint32_t guest_image_bytes __attribute__((visibility("hidden")));

static void
write_memory(Machine *machine, uint64_t address, const void *bytes, size_t length_bytes)
{
    memcpy((char *)machine->blocks[0].host_address + address, bytes, length_bytes);
    dirty_mark(machine->dirty, 0, address, length_bytes);
}

static bool
load_file(Machine *machine, const char *path, GError **error)
{
    g_autofree char *bytes = NULL;
    gsize length = 0;
    g_autoptr(GError) reason = NULL;
    if (!g_file_get_contents(path, &bytes, &length, &reason)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot read the boot image: %s", reason->message);
        return false;
    }
    if (length == 0 || length > BOOT_BYTES_MAX) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "Cannot boot %s: a boot image has 1 to %u bytes, this one has %zu", path,
                    BOOT_BYTES_MAX, length);
        return false;
    }
    write_memory(machine, BOOT_ADDRESS, bytes, length);
    return true;
}

/* The working set begins at WORKING_SET_START; with high memory, the upper half of it (or what does
 * not fit below) ends at the end of that, so that a small one reaches both. */
static void
place_working_set(const Machine *machine, uint64_t wanted_bytes, GuestParameters *parameters)
{
    uint64_t low = machine->blocks[0].length_bytes - WORKING_SET_START;
    uint64_t high = machine->count_blocks > 1 ? machine->blocks[1].length_bytes : 0;
    uint64_t bytes = MIN(wanted_bytes, low + high) & ~(uint64_t)(PAGE_BYTES - 1);
    uint64_t below_half = (bytes / 2) & ~(uint64_t)(PAGE_BYTES - 1);
    uint64_t upper = MIN(high, MAX(below_half, bytes > low ? bytes - low : 0));
    parameters->high_bytes = high;
    parameters->count_pages = bytes / PAGE_BYTES;
    parameters->split = WORKING_SET_START + bytes - upper;
    parameters->gap_bytes = upper ? MACHINE_HIGH_START + high - upper - parameters->split : 0;
}

static bool
load_shipped(Machine *machine, const MachineOptions *options, GError **error)
{
    uint64_t room = options->memory_bytes;
    if (room <= WORKING_SET_START || room > GUEST_BYTES_MAX - (1ull << 30)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "The shipped guest runs in more than 2 MiB and at most 255 GiB of memory, not "
                    "in %" G_GUINT64_FORMAT " bytes: change --memory, or give a boot image",
                    room);
        return false;
    }
    int khz = ioctl(machine->vcpus[0].fd, KVM_GET_TSC_KHZ);
    uint64_t ticks_per_s = (khz > 0 ? (uint64_t)khz : 1000000) * 1000;
    GuestParameters parameters = {
        .magic = PARAMETERS_MAGIC,
        .count_cpus = machine->count_cpus,
        .report_ticks = ticks_per_s / REPORTS_PER_S,
        .ticks_per_page = options->write_rate ? ticks_per_s / options->write_rate : 0,
    };
    place_working_set(machine, options->write_bytes ? options->write_bytes : room, &parameters);
    write_memory(machine, PARAMETERS_ADDRESS, &parameters, sizeof parameters);
    write_memory(machine, BOOT_ADDRESS, guest_image, guest_image_bytes);
    return true;
}

static bool
set_registers(Vcpu *vcpu, GError **error)
{
    struct kvm_sregs sregs;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return kvm_fail(error, "KVM_GET_SREGS");
    struct kvm_segment *segments[] = {&sregs.cs, &sregs.ds, &sregs.es,
                                      &sregs.fs, &sregs.gs, &sregs.ss};
    for (unsigned i = 0; i < G_N_ELEMENTS(segments); i++) {
        segments[i]->selector = 0;
        segments[i]->base = 0;
    }
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0)
        return kvm_fail(error, "KVM_SET_SREGS");
    struct kvm_regs registers = {.rip = BOOT_ADDRESS, .rsp = BOOT_ADDRESS, .rflags = 2};
    if (ioctl(vcpu->fd, KVM_SET_REGS, &registers) < 0)
        return kvm_fail(error, "KVM_SET_REGS");
    return true;
}

bool
boot_load(Machine *machine, const MachineOptions *options, GError **error)
{
    bool loaded = options->boot ? load_file(machine, options->boot, error)
                                : load_shipped(machine, options, error);
    return loaded && set_registers(&machine->vcpus[0], error);
}
