/* SPDX-License-Identifier: MIT */
/* What a vCPU says of itself by CPUID. Main thread, when the vCPU is made. */
#ifndef KVM_KVM_CPUID_H
#define KVM_KVM_CPUID_H

#include <glib.h>
#include <stdbool.h>

/* All that KVM supports on this host, with the vCPU's own APIC id and one package of count_cpus
 * cores. */
bool cpuid_set(int kvm_fd, int vcpu_fd, unsigned index, unsigned count_cpus, GError **error);

#endif
