/* SPDX-License-Identifier: MIT */
/*
 * The machine's device sections: "faultline/vcpu" (one a vCPU), "faultline/vm", "faultline/serial",
 * saved in this order and so loaded in it: the interrupt controllers come after the LAPICs, because
 * loading the I/O APIC hands its pending interrupts to them.
 *
 * Machine paused; runs on the engine's migration thread (save), package or listen thread (load).
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm_machine.h"
#include "kvm/kvm_parts.h"

#define VCPU_VERSION 1
#define VM_VERSION   1
#define CHIPS        3 /* PIC master, PIC slave, I/O APIC */

enum {
    PART_CHIP = 1, /* and the two that follow */
    PART_PIT = PART_CHIP + CHIPS,
    PART_CLOCK,
    PART_PORTS,
};

/* ---- The VM ---------------------------------------------------------------------------------- */

static bool
save_vm(Machine *machine, GByteArray *section, GError **error)
{
    for (uint32_t i = 0; i < CHIPS; i++) {
        struct kvm_irqchip chip = {.chip_id = i};
        if (ioctl(machine->vm_fd, KVM_GET_IRQCHIP, &chip) < 0)
            return kvm_fail(error, "KVM_GET_IRQCHIP");
        part_add(section, PART_CHIP + i, &chip, sizeof chip);
    }
    struct kvm_pit_state2 pit = {0};
    if (ioctl(machine->vm_fd, KVM_GET_PIT2, &pit) < 0)
        return kvm_fail(error, "KVM_GET_PIT2");
    part_add(section, PART_PIT, &pit, sizeof pit);

    struct kvm_clock_data clock = {0};
    if (ioctl(machine->vm_fd, KVM_GET_CLOCK, &clock) < 0)
        return kvm_fail(error, "KVM_GET_CLOCK");
    uint64_t clock_ns = GUINT64_TO_LE(clock.clock);
    part_add(section, PART_CLOCK, &clock_ns, sizeof clock_ns);

    uint8_t system_a = atomic_load_explicit(&machine->ports.system_a, memory_order_relaxed);
    part_add(section, PART_PORTS, &system_a, sizeof system_a);
    return true;
}

typedef struct VmState {
    struct kvm_irqchip chips[CHIPS];
    struct kvm_pit_state2 pit;
    uint64_t clock_ns;
    uint8_t system_a;
} VmState;

static bool
read_vm(PartReader *reader, VmState *state, GError **error)
{
    static const char *const names[CHIPS] = {"pic-master", "pic-slave", "ioapic"};
    for (uint32_t i = 0; i < CHIPS; i++) {
        if (!part_copy(reader, PART_CHIP + i, names[i], &state->chips[i], sizeof state->chips[i],
                       error))
            return false;
        state->chips[i].chip_id = i;
    }
    return part_copy(reader, PART_PIT, "pit", &state->pit, sizeof state->pit, error) &&
           part_copy(reader, PART_CLOCK, "clock", &state->clock_ns, sizeof state->clock_ns,
                     error) &&
           part_copy(reader, PART_PORTS, "ports", &state->system_a, sizeof state->system_a,
                     error) &&
           part_end(reader, error);
}

/* The guest's clock goes on from where it was, like its TSC: for the guest the time of the move did
 * not pass. */
static bool
load_vm(Machine *machine, const void *bytes, size_t length_bytes, GError **error)
{
    PartReader reader = {.section = "faultline/vm", .at = bytes, .left = length_bytes};
    VmState state = {0};
    if (!read_vm(&reader, &state, error))
        return false;
    for (uint32_t i = 0; i < CHIPS; i++) {
        if (ioctl(machine->vm_fd, KVM_SET_IRQCHIP, &state.chips[i]) < 0)
            return kvm_fail(error, "KVM_SET_IRQCHIP");
    }
    if (ioctl(machine->vm_fd, KVM_SET_PIT2, &state.pit) < 0)
        return kvm_fail(error, "KVM_SET_PIT2");
    struct kvm_clock_data clock = {.clock = GUINT64_FROM_LE(state.clock_ns)};
    if (ioctl(machine->vm_fd, KVM_SET_CLOCK, &clock) < 0)
        return kvm_fail(error, "KVM_SET_CLOCK");
    atomic_store_explicit(&machine->ports.system_a, state.system_a, memory_order_relaxed);
    return true;
}

/* ---- Sections -------------------------------------------------------------------------------- */

static bool
save_vcpus(Machine *machine, StateSink sink, void *opaque, GError **error)
{
    for (unsigned i = 0; i < machine->count_cpus; i++) {
        g_autoptr(GByteArray) section = g_byte_array_new();
        if (!vcpu_state_save(&machine->vcpus[i], section, error))
            return false;
        sink(opaque, "faultline/vcpu", i, VCPU_VERSION, section->data, section->len);
    }
    return true;
}

bool
state_save(Machine *machine, StateSink sink, void *opaque, GError **error)
{
    g_autoptr(GByteArray) vm = g_byte_array_new();
    g_autoptr(GByteArray) serial = g_byte_array_new();
    if (!save_vcpus(machine, sink, opaque, error) || !save_vm(machine, vm, error))
        return false;
    sink(opaque, "faultline/vm", 0, VM_VERSION, vm->data, vm->len);
    serial_save(machine->serial, serial);
    sink(opaque, "faultline/serial", 0, SERIAL_STATE_VERSION, serial->data, serial->len);
    return true;
}

static bool
load_vcpu(Machine *machine, uint32_t instance, const void *bytes, size_t length_bytes,
          GError **error)
{
    Vcpu *vcpu = &machine->vcpus[instance];
    vcpu->loaded = vcpu_state_load(vcpu, bytes, length_bytes, error);
    return vcpu->loaded;
}

static bool
load_devices(Machine *machine, uint32_t instance, const void *bytes, size_t length_bytes,
             GError **error)
{
    (void)instance;
    machine->vm_loaded = load_vm(machine, bytes, length_bytes, error);
    return machine->vm_loaded;
}

static bool
load_serial(Machine *machine, uint32_t instance, const void *bytes, size_t length_bytes,
            GError **error)
{
    (void)instance;
    machine->serial_loaded = serial_load(machine->serial, bytes, length_bytes, error);
    return machine->serial_loaded;
}

typedef struct SectionRow {
    const char *name;
    uint32_t version;
    bool every_cpu; /* instances 0 .. count_cpus - 1; else 0 alone */
    bool (*load)(Machine *machine, uint32_t instance, const void *bytes, size_t length_bytes,
                 GError **error);
} SectionRow;

static const SectionRow rows[] = {
    {"faultline/vcpu", VCPU_VERSION, true, load_vcpu},
    {"faultline/vm", VM_VERSION, false, load_devices},
    {"faultline/serial", SERIAL_STATE_VERSION, false, load_serial},
};

bool
state_load(Machine *machine, const char *name, uint32_t instance, uint32_t version,
           const void *bytes, size_t length_bytes, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (strcmp(rows[i].name, name) != 0)
            continue;
        unsigned instances = rows[i].every_cpu ? machine->count_cpus : 1;
        if (version == rows[i].version && instance < instances)
            return rows[i].load(machine, instance, bytes, length_bytes, error);
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "Cannot load section %s %u of version %u: this machine knows instances 0 to %u "
                    "of version %u. Start the destination with the source's options",
                    name, instance, version, instances - 1, rows[i].version);
        return false;
    }
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                "Cannot load section %s: this machine has no such device", name);
    return false;
}

bool
state_is_complete(const Machine *machine, GError **error)
{
    const char *missing = !machine->vm_loaded       ? "faultline/vm"
                          : !machine->serial_loaded ? "faultline/serial"
                                                    : NULL;
    for (unsigned i = 0; i < machine->count_cpus && missing == NULL; i++)
        missing = machine->vcpus[i].loaded ? NULL : "faultline/vcpu";
    if (missing == NULL)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                "Cannot run the guest: its section %s did not arrive, or not for each of the %u "
                "vCPUs. Start the destination with the source's options",
                missing, machine->count_cpus);
    return false;
}
