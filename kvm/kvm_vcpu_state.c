/* SPDX-License-Identifier: MIT */
/*
 * One vCPU's complete state: from KVM into a section, and back. The section is checked as a whole
 * before anything of it is set. vCPUs are parked; runs on the engine's migration or package thread.
 *
 * The order of setting: the TSC's frequency before its value; system registers (paging, EFER, the
 * APIC's base) before all that depends on them; the LAPIC before the deadline, which needs its
 * timer mode; events last but debug registers, for they include what is being injected.
 */
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm/kvm_machine.h"
#include "kvm/kvm_parts.h"

#define MSR_TSC_DEADLINE 0x6e0
#define MSRS_MAX         4096

enum {
    PART_TSC_KHZ = 1,
    PART_SREGS,
    PART_REGS,
    PART_XSAVE,
    PART_XCRS,
    PART_MSRS,
    PART_LAPIC,
    PART_MP_STATE,
    PART_EVENTS,
    PART_DEBUGREGS,
};

typedef struct VcpuState {
    uint32_t tsc_khz;
    struct kvm_sregs2 sregs;
    struct kvm_regs regs;
    struct kvm_xcrs xcrs;
    struct kvm_lapic_state lapic;
    struct kvm_mp_state mp_state;
    struct kvm_vcpu_events events;
    struct kvm_debugregs debugregs;
    const void *xsave; /* in the section */
    const struct kvm_msr_entry *msrs;
    size_t count_msrs;
} VcpuState;

/* Structs of a fixed layout, that KVM gives and takes by one ioctl each. */
typedef struct FixedPart {
    uint32_t id;
    const char *name;
    unsigned long get, set;
    size_t offset, length_bytes;
} FixedPart;

#define FIXED(id, name, field, get, set)                                                           \
    {                                                                                              \
        id, name, get, set, offsetof(VcpuState, field), sizeof((VcpuState){0}.field)               \
    }

static const FixedPart sregs_part =
    FIXED(PART_SREGS, "sregs2", sregs, KVM_GET_SREGS2, KVM_SET_SREGS2);
static const FixedPart regs_part = FIXED(PART_REGS, "regs", regs, KVM_GET_REGS, KVM_SET_REGS);
static const FixedPart xcrs_part = FIXED(PART_XCRS, "xcrs", xcrs, KVM_GET_XCRS, KVM_SET_XCRS);
static const FixedPart after_msrs[] = {
    FIXED(PART_MP_STATE, "mp_state", mp_state, KVM_GET_MP_STATE, KVM_SET_MP_STATE),
    FIXED(PART_EVENTS, "vcpu_events", events, KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS),
    FIXED(PART_DEBUGREGS, "debugregs", debugregs, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS),
};
static const FixedPart lapic_part = FIXED(PART_LAPIC, "lapic", lapic, KVM_GET_LAPIC, KVM_SET_LAPIC);

static void *
field_of(VcpuState *state, const FixedPart *part)
{
    return (char *)state + part->offset;
}

static bool
fail_part(const Vcpu *vcpu, const char *verb, const char *name, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "Cannot %s the %s of vCPU %u: %m",
                verb, name, vcpu->index);
    return false;
}

/* ---- MSRs ------------------------------------------------------------------------------------ */

/* kvm_msrs ends in an array of unknown length; this is one with room for one entry. */
typedef union OneMsr {
    struct kvm_msrs msrs;
    uint8_t room[sizeof(struct kvm_msrs) + sizeof(struct kvm_msr_entry)];
} OneMsr;

static bool
get_msr(const Vcpu *vcpu, uint32_t index, uint64_t *ret_data)
{
    OneMsr one = {.room = {0}};
    one.msrs.nmsrs = 1;
    one.msrs.entries[0].index = index;
    if (ioctl(vcpu->fd, KVM_GET_MSRS, &one) != 1)
        return false;
    *ret_data = one.msrs.entries[0].data;
    return true;
}

bool
vcpu_state_list_msrs(Machine *machine, GError **error)
{
    struct kvm_msr_list none = {0};
    if (ioctl(machine->kvm_fd, KVM_GET_MSR_INDEX_LIST, &none) < 0 && errno != E2BIG)
        return kvm_fail(error, "KVM_GET_MSR_INDEX_LIST");
    g_autofree struct kvm_msr_list *list =
        g_malloc0(sizeof *list + none.nmsrs * sizeof list->indices[0]);
    list->nmsrs = none.nmsrs;
    if (ioctl(machine->kvm_fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
        return kvm_fail(error, "KVM_GET_MSR_INDEX_LIST");

    /* KVM lists what its host might have; this vCPU's CPUID decides what it has. */
    machine->msrs = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    for (uint32_t i = 0; i < list->nmsrs && machine->msrs->len < MSRS_MAX; i++) {
        uint64_t data;
        if (get_msr(&machine->vcpus[0], list->indices[i], &data))
            g_array_append_val(machine->msrs, list->indices[i]);
    }
    return true;
}

static bool
save_msrs(Vcpu *vcpu, GByteArray *section, GError **error)
{
    const GArray *list = vcpu->machine->msrs;
    g_autofree struct kvm_msr_entry *entries = g_new0(struct kvm_msr_entry, list->len + 1);
    for (guint i = 0; i < list->len; i++) {
        uint64_t data = 0;
        entries[i].index = g_array_index(list, uint32_t, i);
        if (!get_msr(vcpu, entries[i].index, &data)) {
            g_autofree char *name = g_strdup_printf("MSR 0x%x", entries[i].index);
            return fail_part(vcpu, "save", name, error);
        }
        entries[i].data = data;
    }
    part_add(section, PART_MSRS, entries, list->len * sizeof *entries);
    return true;
}

static bool
has_msr(const Machine *machine, uint32_t index)
{
    for (guint i = 0; i < machine->msrs->len; i++) {
        if (g_array_index(machine->msrs, uint32_t, i) == index)
            return true;
    }
    return false;
}

static bool
check_msrs(const Vcpu *vcpu, const VcpuState *state, GError **error)
{
    for (size_t i = 0; i < state->count_msrs; i++) {
        if (has_msr(vcpu->machine, state->msrs[i].index))
            continue;
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "Cannot load vCPU %u: its MSR 0x%x is unknown to this host's KVM. The guest "
                    "needs a host with the same CPU features",
                    vcpu->index, state->msrs[i].index);
        return false;
    }
    return true;
}

static bool
set_msr(const Vcpu *vcpu, const struct kvm_msr_entry *entry, GError **error)
{
    OneMsr one = {.room = {0}};
    one.msrs.nmsrs = 1;
    one.msrs.entries[0].index = entry->index;
    one.msrs.entries[0].data = entry->data;
    uint64_t data;
    if (ioctl(vcpu->fd, KVM_SET_MSRS, &one) == 1)
        return true;
    /* Some can be read only; they are right if they are equal. */
    if (get_msr(vcpu, entry->index, &data) && data == entry->data)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                "Cannot load vCPU %u: this host's KVM refuses 0x%llx for MSR 0x%x", vcpu->index,
                (unsigned long long)entry->data, entry->index);
    return false;
}

static bool
set_msrs(const Vcpu *vcpu, const VcpuState *state, bool deadline, GError **error)
{
    for (size_t i = 0; i < state->count_msrs; i++) {
        bool is_deadline = state->msrs[i].index == MSR_TSC_DEADLINE;
        if (is_deadline == deadline && !set_msr(vcpu, &state->msrs[i], error))
            return false;
    }
    return true;
}

/* ---- Saving ---------------------------------------------------------------------------------- */

static bool
get_part(Vcpu *vcpu, VcpuState *state, const FixedPart *part, GError **error)
{
    return ioctl(vcpu->fd, part->get, field_of(state, part)) >= 0 ||
           fail_part(vcpu, "save", part->name, error);
}

static bool
save_part(Vcpu *vcpu, VcpuState *state, const FixedPart *part, GByteArray *section, GError **error)
{
    if (!get_part(vcpu, state, part, error))
        return false;
    part_add(section, part->id, field_of(state, part), part->length_bytes);
    return true;
}

static bool
save_xsave(Vcpu *vcpu, GByteArray *section, GError **error)
{
    g_autofree void *xsave = g_malloc0(vcpu->machine->xsave_bytes);
    if (ioctl(vcpu->fd, KVM_GET_XSAVE2, xsave) < 0)
        return fail_part(vcpu, "save", "xsave", error);
    part_add(section, PART_XSAVE, xsave, vcpu->machine->xsave_bytes);
    return true;
}

bool
vcpu_state_save(Vcpu *vcpu, GByteArray *section, GError **error)
{
    g_autofree VcpuState *state = g_new0(VcpuState, 1);
    /* First: it takes an INIT or SIPI that is pending, which changes the rest. */
    if (!get_part(vcpu, state, &after_msrs[0], error))
        return false;
    int khz = ioctl(vcpu->fd, KVM_GET_TSC_KHZ);
    uint32_t tsc_khz = GUINT32_TO_LE(khz > 0 ? (uint32_t)khz : 0);
    part_add(section, PART_TSC_KHZ, &tsc_khz, sizeof tsc_khz);
    if (!save_part(vcpu, state, &sregs_part, section, error) ||
        !save_part(vcpu, state, &regs_part, section, error) || !save_xsave(vcpu, section, error) ||
        !save_part(vcpu, state, &xcrs_part, section, error) || !save_msrs(vcpu, section, error) ||
        !save_part(vcpu, state, &lapic_part, section, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(after_msrs); i++) {
        if (!save_part(vcpu, state, &after_msrs[i], section, error))
            return false;
    }
    return true;
}

/* ---- Loading --------------------------------------------------------------------------------- */

static bool
read_part(PartReader *reader, VcpuState *state, const FixedPart *part, GError **error)
{
    return part_copy(reader, part->id, part->name, field_of(state, part), part->length_bytes,
                     error);
}

static bool
read_msrs(PartReader *reader, VcpuState *state, GError **error)
{
    const size_t most = MSRS_MAX * sizeof(struct kvm_msr_entry);
    const uint8_t *bytes;
    size_t length;
    if (!part_next(reader, PART_MSRS, "msrs", 0, most, &bytes, &length, error))
        return false;
    if (length % sizeof(struct kvm_msr_entry) != 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                    "Cannot load section %s: %zu bytes are no whole number of MSRs",
                    reader->section, length);
        return false;
    }
    state->count_msrs = length / sizeof(struct kvm_msr_entry);
    state->msrs = g_memdup2(bytes, length); /* parts are not aligned */
    return true;
}

static bool
read_state(const Vcpu *vcpu, PartReader *reader, VcpuState *state, GError **error)
{
    size_t xsave_bytes = vcpu->machine->xsave_bytes;
    const uint8_t *xsave;
    if (!part_copy(reader, PART_TSC_KHZ, "tsc_khz", &state->tsc_khz, sizeof state->tsc_khz,
                   error) ||
        !read_part(reader, state, &sregs_part, error) ||
        !read_part(reader, state, &regs_part, error) ||
        !part_next(reader, PART_XSAVE, "xsave", xsave_bytes, xsave_bytes, &xsave, &xsave_bytes,
                   error))
        return false;
    state->xsave = g_memdup2(xsave, xsave_bytes);
    if (!read_part(reader, state, &xcrs_part, error) || !read_msrs(reader, state, error) ||
        !read_part(reader, state, &lapic_part, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(after_msrs); i++) {
        if (!read_part(reader, state, &after_msrs[i], error))
            return false;
    }
    return part_end(reader, error) && check_msrs(vcpu, state, error);
}

static bool
set_part(const Vcpu *vcpu, VcpuState *state, const FixedPart *part, GError **error)
{
    return ioctl(vcpu->fd, part->set, field_of(state, part)) >= 0 ||
           fail_part(vcpu, "load", part->name, error);
}

static bool
set_tsc_frequency(const Vcpu *vcpu, const VcpuState *state, GError **error)
{
    unsigned long khz = GUINT32_FROM_LE(state->tsc_khz);
    int own = ioctl(vcpu->fd, KVM_GET_TSC_KHZ);
    /* Within 250 ppm, what NTP corrects, it is the same clock. */
    if (khz == 0 || own <= 0 || labs((long)khz - own) <= own / 4000)
        return true;
    return ioctl(vcpu->fd, KVM_SET_TSC_KHZ, khz) >= 0 ||
           fail_part(vcpu, "load", "TSC frequency", error);
}

static bool
set_state(const Vcpu *vcpu, VcpuState *state, GError **error)
{
    if (!set_tsc_frequency(vcpu, state, error) || !set_part(vcpu, state, &sregs_part, error) ||
        !set_part(vcpu, state, &regs_part, error))
        return false;
    if (ioctl(vcpu->fd, KVM_SET_XSAVE, state->xsave) < 0)
        return fail_part(vcpu, "load", "xsave", error);
    if (!set_part(vcpu, state, &xcrs_part, error) || !set_msrs(vcpu, state, false, error) ||
        !set_part(vcpu, state, &lapic_part, error) || !set_msrs(vcpu, state, true, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(after_msrs); i++) {
        if (!set_part(vcpu, state, &after_msrs[i], error))
            return false;
    }
    return true;
}

bool
vcpu_state_load(Vcpu *vcpu, const void *bytes, size_t length_bytes, GError **error)
{
    g_autofree char *section = g_strdup_printf("faultline/vcpu %u", vcpu->index);
    PartReader reader = {.section = section, .at = bytes, .left = length_bytes};
    g_autofree VcpuState *state = g_new0(VcpuState, 1);
    bool loaded = read_state(vcpu, &reader, state, error) && set_state(vcpu, state, error);
    g_free((void *)state->xsave);
    g_free((void *)state->msrs);
    return loaded;
}
