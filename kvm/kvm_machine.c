/* SPDX-License-Identifier: MIT */
/*
 * The KVM machine as a whole: makes the VM, its memory slots, devices and vCPUs, and offers them to
 * the engine through the callbacks of engine/guest.h. Made and freed on the main thread; callbacks
 * run where guest.h says. What each does is in the files that kvm_machine.h lists.
 */
#include "kvm/kvm_machine.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* Both in the PCI hole, where no RAM and no device is. */
#define IDENTITY_MAP_ADDRESS 0xfffbc000ull
#define TSS_ADDRESS          0xfffbd000ul
#define SERIAL_IRQ           4
#define SYSTEM_A_A20         0x02

bool
kvm_fail(GError **error, const char *what)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "KVM machine: %s failed: %m", what);
    return false;
}

/* ---- Making it ------------------------------------------------------------------------------- */

typedef struct Need {
    int capability;
    const char *name;
    const char *since;
} Need;

static const Need needs[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP", "2.6.24"},
    {KVM_CAP_PIT2, "KVM_CAP_PIT2", "2.6.30"},
    {KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR", "2.6.31"},
    {KVM_CAP_ADJUST_CLOCK, "KVM_CAP_ADJUST_CLOCK", "2.6.31"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS", "2.6.35"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS", "2.6.35"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT", "4.12"},
    {KVM_CAP_SREGS2, "KVM_CAP_SREGS2", "5.14"},
    {KVM_CAP_XSAVE2, "KVM_CAP_XSAVE2", "5.17"},
};

static bool
refuse_kvm(int reason, GError **error)
{
    g_autofree char *access =
        g_strdup_printf("Run 'setfacl -m u:%u:rw /dev/kvm' as root", geteuid());
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "Cannot open /dev/kvm: %s. %s, or run the guest made of threads (--guest threads)",
                g_strerror(reason),
                reason == EACCES || reason == EPERM
                    ? access
                    : "Run 'modprobe kvm-amd' or 'modprobe kvm-intel' as root, switch "
                      "virtualisation on in the firmware, and bring /dev/kvm into this container");
    return false;
}

static bool
open_kvm(Machine *machine, GError **error)
{
    machine->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (machine->kvm_fd < 0)
        return refuse_kvm(errno, error);
    int version = ioctl(machine->kvm_fd, KVM_GET_API_VERSION, 0);
    if (version != KVM_API_VERSION) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "Cannot use /dev/kvm: its API version is %d, not %d. Use another kernel",
                    version, KVM_API_VERSION);
        return false;
    }
    return true;
}

static bool
check_needs(Machine *machine, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(needs); i++) {
        if (ioctl(machine->vm_fd, KVM_CHECK_EXTENSION, needs[i].capability) > 0)
            continue;
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "Cannot run a guest: this kernel's KVM lacks %s. Use Linux %s or later",
                    needs[i].name, needs[i].since);
        return false;
    }
    machine->xsave_bytes = (size_t)ioctl(machine->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    int run_bytes = ioctl(machine->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_bytes < (int)sizeof(struct kvm_run))
        return kvm_fail(error, "KVM_GET_VCPU_MMAP_SIZE");
    machine->run_bytes = (size_t)run_bytes;
    return true;
}

static bool
make_vm(Machine *machine, GError **error)
{
    uint64_t identity_map = IDENTITY_MAP_ADDRESS;
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    machine->vm_fd = ioctl(machine->kvm_fd, KVM_CREATE_VM, 0);
    if (machine->vm_fd < 0)
        return kvm_fail(error, "KVM_CREATE_VM");
    if (!check_needs(machine, error))
        return false;
    if (ioctl(machine->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0)
        return kvm_fail(error, "KVM_SET_IDENTITY_MAP_ADDR");
    if (ioctl(machine->vm_fd, KVM_SET_TSS_ADDR, TSS_ADDRESS) < 0)
        return kvm_fail(error, "KVM_SET_TSS_ADDR");
    if (ioctl(machine->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return kvm_fail(error, "KVM_CREATE_IRQCHIP");
    if (ioctl(machine->vm_fd, KVM_CREATE_PIT2, &pit) < 0)
        return kvm_fail(error, "KVM_CREATE_PIT2");
    return true;
}

bool
kvm_set_slot(Machine *machine, unsigned index, bool log_dirty, GError **error)
{
    const FaultlineBlock *block = &machine->blocks[index];
    struct kvm_userspace_memory_region region = {
        .slot = index,
        .flags = log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0,
        .guest_phys_addr = block->guest_address,
        .memory_size = block->length_bytes,
        .userspace_addr = (uintptr_t)block->host_address,
    };
    if (ioctl(machine->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return kvm_fail(error, "KVM_SET_USER_MEMORY_REGION");
    return true;
}

static bool
make_memory(Machine *machine, const MachineOptions *options, GError **error)
{
    static const char *const names[MACHINE_BLOCKS_MAX] = {"ram-low", "ram-high"};
    const uint64_t addresses[MACHINE_BLOCKS_MAX] = {0, MACHINE_HIGH_START};
    uint64_t low = MIN(options->memory_bytes, MACHINE_HOLE_START);
    const uint64_t lengths[MACHINE_BLOCKS_MAX] = {low, options->memory_bytes - low};

    if (low < (1 << 20)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "A guest needs 1 MiB of memory or more, not %" G_GUINT64_FORMAT " bytes",
                    options->memory_bytes);
        return false;
    }
    for (unsigned i = 0; i < MACHINE_BLOCKS_MAX && lengths[i] > 0; i++) {
        if (!ram_map(options->memory, names[i], addresses[i], lengths[i], !options->incoming,
                     &machine->blocks[i], error))
            return false;
        machine->count_blocks++;
        if (!kvm_set_slot(machine, i, false, error))
            return false;
    }
    return true;
}

static void
set_serial_irq(void *opaque, bool level)
{
    Machine *machine = opaque;
    struct kvm_irq_level line = {.irq = SERIAL_IRQ, .level = level};
    ioctl(machine->vm_fd, KVM_IRQ_LINE, &line);
}

static void
take_serial_byte(void *opaque, char byte)
{
    report_byte(&((Machine *)opaque)->report, byte);
}

static bool
make_cpus(Machine *machine, const MachineOptions *options, GError **error)
{
    int most = ioctl(machine->vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    most = MIN(most > 0 ? most : 4, 254); /* an xAPIC's id has 8 bits, 255 is all of them */
    if (options->cpus < 1 || options->cpus > (unsigned)most) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "A guest has 1 to %d vCPUs here, not %u", most, options->cpus);
        return false;
    }
    machine->vcpus = g_new0(Vcpu, options->cpus);
    machine->count_cpus = options->cpus;
    for (unsigned i = 0; i < machine->count_cpus; i++) {
        machine->vcpus[i] = (Vcpu){.machine = machine, .index = i, .fd = -1};
    }
    for (unsigned i = 0; i < machine->count_cpus; i++) {
        if (!vcpu_start(machine, i, error))
            return false;
    }
    return true;
}

static void
hold_vcpus(void *opaque, bool held)
{
    vcpu_hold_all(opaque, held);
}

static void
machine_free_kvm(Machine *machine)
{
    throttle_clock_free(machine->clock);
    pthread_mutex_lock(&machine->lock);
    machine->quit = true;
    vcpu_kick_all_locked(machine);
    pthread_mutex_unlock(&machine->lock);
    for (unsigned i = 0; i < machine->count_cpus; i++)
        vcpu_stop(&machine->vcpus[i]);
    serial_free(machine->serial);
    dirty_free(machine->dirty);
    if (machine->vm_fd >= 0)
        close(machine->vm_fd);
    if (machine->kvm_fd >= 0)
        close(machine->kvm_fd);
    for (unsigned i = 0; i < machine->count_blocks; i++)
        ram_unmap(&machine->blocks[i]);
    if (machine->msrs)
        g_array_unref(machine->msrs);
    report_clear(&machine->report);
    pthread_cond_destroy(&machine->changed);
    pthread_mutex_destroy(&machine->lock);
    g_free(machine->failure);
    g_free(machine->vcpus);
    g_free(machine);
}

static bool
build(Machine *machine, const MachineOptions *options, GError **error)
{
    const SerialHost host = {set_serial_irq, take_serial_byte, machine};
    if (!open_kvm(machine, error) || (options->dirty_ring && !ring_probe(machine->kvm_fd, error)) ||
        !make_vm(machine, error) || !make_memory(machine, options, error))
        return false;
    machine->serial = serial_new(options->serial, &host, error);
    if (machine->serial == NULL)
        return false;
    machine->ports.serial = machine->serial;
    machine->dirty = dirty_new(machine, options, error);
    if (machine->dirty == NULL)
        return false;
    machine->clock = throttle_clock_new(hold_vcpus, machine, error);
    return machine->clock && make_cpus(machine, options, error) &&
           vcpu_state_list_msrs(machine, error) &&
           (options->incoming || boot_load(machine, options, error));
}

static Machine *
machine_make_kvm(const MachineOptions *options, GError **error)
{
    Machine *machine = g_new0(Machine, 1);
    machine->kvm_fd = machine->vm_fd = -1;
    machine->incoming = options->incoming;
    machine->ports.system_a = SYSTEM_A_A20;
    pthread_mutex_init(&machine->lock, NULL);
    pthread_cond_init(&machine->changed, NULL);
    report_init(&machine->report);
    if (!build(machine, options, error)) {
        machine_free_kvm(machine);
        return NULL;
    }
    return machine;
}

/* ---- What the engine calls ------------------------------------------------------------------- */

static bool
guest_pause(void *opaque, GError **error)
{
    Machine *machine = opaque;
    if (!vcpu_pause_all(machine, error))
        return false;
    serial_pause(machine->serial);
    dirty_rest(machine);
    return true;
}

static bool
guest_resume(void *opaque, GError **error)
{
    Machine *machine = opaque;
    if (machine->incoming && !state_is_complete(machine, error))
        return false;
    if (!dirty_wake(machine, error) || !vcpu_resume_all(machine, error))
        return false;
    serial_resume(machine->serial);
    return true;
}

static void
guest_throttle(void *opaque, unsigned percent)
{
    throttle_clock_set(((Machine *)opaque)->clock, percent);
}

static bool
guest_dirty_start(void *opaque, GError **error)
{
    return dirty_start(opaque, error);
}

static bool
guest_dirty_sync(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages,
                 GError **error)
{
    return dirty_sync(opaque, block, words, count_pages, error);
}

static void
guest_dirty_stop(void *opaque)
{
    dirty_stop(opaque);
}

static void
add_section(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
            size_t length_bytes)
{
    faultline_state_add(opaque, name, instance, version, bytes, length_bytes);
}

static bool
guest_save(void *opaque, FaultlineState *state, GError **error)
{
    return state_save(opaque, add_section, state, error);
}

static bool
guest_load(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
           size_t length_bytes, GError **error)
{
    return state_load(opaque, name, instance, version, bytes, length_bytes, error);
}

static pid_t
guest_vcpu_thread(void *opaque, unsigned index)
{
    Machine *machine = opaque;
    if (index >= machine->count_cpus)
        return 0;
    return atomic_load_explicit(&machine->vcpus[index].tid, memory_order_relaxed);
}

static const FaultlineBlock *
machine_blocks(Machine *machine, unsigned *ret_count)
{
    *ret_count = machine->count_blocks;
    return machine->blocks;
}

static const char *
machine_verdict(Machine *machine)
{
    return report_verdict(&machine->report);
}

static const char *
machine_end(Machine *machine)
{
    pthread_mutex_lock(&machine->lock);
    const char *end = machine->failure == NULL ? NULL
                      : machine->shut_down     ? "shutdown"
                                               : "internal-error";
    pthread_mutex_unlock(&machine->lock);
    return end;
}

static const FaultlineGuest guest = {
    .version = FAULTLINE_GUEST_VERSION,
    .machine = "faultline-kvm-1.0",
    .pause = guest_pause,
    .resume = guest_resume,
    .dirty_log_start = guest_dirty_start,
    .dirty_log_sync = guest_dirty_sync,
    .dirty_log_stop = guest_dirty_stop,
    .save_state = guest_save,
    .load_state = guest_load,
    .throttle = guest_throttle,
    .vcpu_thread = guest_vcpu_thread,
};

static void
machine_strand(Machine *machine, bool is_stranded)
{
    pthread_mutex_lock(&machine->lock);
    machine->stranded = is_stranded;
    pthread_mutex_unlock(&machine->lock);
}

const MachineKind machine_kvm = {
    .name = "kvm",
    .make = machine_make_kvm,
    .free = machine_free_kvm,
    .guest = &guest,
    .blocks = machine_blocks,
    .verdict = machine_verdict,
    .end = machine_end,
    .strand = machine_strand,
};
