/* SPDX-License-Identifier: MIT */
/*
 * CPUID of a vCPU: what KVM supports on this host, and who the vCPU is. Main thread. A guest moves
 * only to a host whose KVM supports as much; vcpu_state_load() refuses MSRs and xsave that differ.
 */
#include "kvm/kvm_cpuid.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "engine/faultline.h"

#define ENTRIES_MAX      4096u
#define HAS_HTT          (1u << 28) /* 1: edx */
#define HAS_TSC_DEADLINE (1u << 24) /* 1: ecx */

static struct kvm_cpuid2 *
get_supported(int kvm_fd)
{
    for (uint32_t count = 128; count <= ENTRIES_MAX; count *= 2) {
        struct kvm_cpuid2 *cpuid =
            g_malloc0(sizeof *cpuid + count * sizeof(struct kvm_cpuid_entry2));
        cpuid->nent = count;
        if (ioctl(kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) == 0)
            return cpuid;
        g_free(cpuid);
        if (errno != E2BIG)
            return NULL;
    }
    return NULL;
}

static unsigned
bits_of(unsigned count)
{
    return count > 1 ? g_bit_storage(count - 1) : 0;
}

/* Leaves 0xb and 0x1f: threads (one a core), then cores. */
static void
describe_level(struct kvm_cpuid_entry2 *entry, unsigned index, unsigned count_cpus)
{
    entry->edx = index;
    entry->eax = entry->index == 1 ? bits_of(count_cpus) : 0;
    entry->ebx = entry->index == 0 ? 1 : entry->index == 1 ? count_cpus : 0;
    entry->ecx = entry->index | (entry->index < 2 ? (entry->index + 1) << 8 : 0);
}

static void
describe_vcpu(struct kvm_cpuid_entry2 *entry, unsigned index, unsigned count_cpus, bool deadline)
{
    switch (entry->function) {
    case 0x1:
        entry->ebx = (entry->ebx & 0xff00) | index << 24 | count_cpus << 16;
        entry->edx = (entry->edx & ~HAS_HTT) | (count_cpus > 1 ? HAS_HTT : 0);
        entry->ecx |= deadline ? HAS_TSC_DEADLINE : 0;
        break;
    case 0xb:
    case 0x1f:
        describe_level(entry, index, count_cpus);
        break;
    case 0x8000001e:
        entry->eax = index;
        break;
    }
}

bool
cpuid_set(int kvm_fd, int vcpu_fd, unsigned index, unsigned count_cpus, GError **error)
{
    g_autofree struct kvm_cpuid2 *cpuid = get_supported(kvm_fd);
    if (cpuid == NULL) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                    "KVM machine: KVM_GET_SUPPORTED_CPUID failed: %m");
        return false;
    }
    bool deadline = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    for (uint32_t i = 0; i < cpuid->nent; i++)
        describe_vcpu(&cpuid->entries[i], index, count_cpus, deadline);
    if (ioctl(vcpu_fd, KVM_SET_CPUID2, cpuid) == 0)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "KVM machine: KVM_SET_CPUID2 of vCPU %u failed: %m", index);
    return false;
}
