/* SPDX-License-Identifier: MIT */
/*
 * KVM's dirty rings: one a vCPU, filled by the kernel with (slot, page), emptied by us.
 *
 * The kernel may announce the ring and not be up to it, so before the first use a small guest in a
 * process of its own writes known pages, more than the ring takes: it must stop the guest when it
 * is full, name each page, and again after they were re-armed. A KVM that emulates (PVM) was seen
 * to check for a full ring too late and to lose writes. A trial that hangs is killed. Harvests run
 * on the migration thread or on a vCPU whose ring is full, one at a time (kvm_dirty.c).
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvm/kvm_machine.h"

#define RING_BYTES      (1u << 20) /* 65536 entries */
#define RING_OFFSET     (KVM_DIRTY_LOG_PAGE_OFFSET * 4096l)
#define PROBE_PAGES     1000 /* above the 960 at which PROBE_RING is full, below its 1024 */
#define PROBE_ROUNDS    3
#define PROBE_FIRST     16 /* page */
#define PROBE_BYTES     (8u << 20)
#define PROBE_RING      (16u << 10) /* 1024 entries, of which KVM keeps 64 or more in reserve */
#define PROBE_RUNS_MAX  64          /* a round */
#define PROBE_TIMEOUT_S 5

typedef struct VcpuRing {
    struct kvm_dirty_gfn *entries;
    uint32_t next;
} VcpuRing;

struct KvmRing {
    int vm_fd;
    unsigned count_cpus;
    uint32_t count_entries; /* a power of two */
    VcpuRing *rings;
};

static bool
enable(int kvm_fd, int vm_fd, uint32_t bytes)
{
    const int capabilities[] = {KVM_CAP_DIRTY_LOG_RING_ACQ_REL, KVM_CAP_DIRTY_LOG_RING};
    for (unsigned i = 0; i < G_N_ELEMENTS(capabilities); i++) {
        int most = ioctl(kvm_fd, KVM_CHECK_EXTENSION, capabilities[i]);
        struct kvm_enable_cap cap = {.cap = (uint32_t)capabilities[i], .args = {bytes}};
        if (most >= (int)bytes && ioctl(vm_fd, KVM_ENABLE_CAP, &cap) == 0)
            return true;
    }
    return false;
}

/* Hands each new entry to mark. Returns how many there were. */
static uint32_t
drain(struct kvm_dirty_gfn *entries, uint32_t count_entries, uint32_t *next, RingMark mark,
      void *opaque)
{
    uint32_t count = 0;
    for (;; count++) {
        struct kvm_dirty_gfn *entry = &entries[*next & (count_entries - 1)];
        /* Acquire and release pair with the kernel's filling and resetting of the entry. */
        if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY))
            return count;
        mark(opaque, entry->slot, entry->offset);
        __atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        (*next)++;
    }
}

KvmRing *
ring_new(int kvm_fd, int vm_fd, unsigned count_cpus, GError **error)
{
    if (!enable(kvm_fd, vm_fd, RING_BYTES)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "Cannot use the dirty ring: this kernel's KVM does not offer one of %u bytes "
                    "(Linux 5.11): %m. Run without it",
                    RING_BYTES);
        return NULL;
    }
    KvmRing *ring = g_new0(KvmRing, 1);
    ring->vm_fd = vm_fd;
    ring->count_cpus = count_cpus;
    ring->count_entries = RING_BYTES / sizeof(struct kvm_dirty_gfn);
    ring->rings = g_new0(VcpuRing, count_cpus);
    return ring;
}

void
ring_free(KvmRing *ring)
{
    if (ring == NULL)
        return;
    for (unsigned i = 0; i < ring->count_cpus; i++) {
        if (ring->rings[i].entries)
            munmap(ring->rings[i].entries, RING_BYTES);
    }
    g_free(ring->rings);
    g_free(ring);
}

bool
ring_add_vcpu(KvmRing *ring, unsigned index, int vcpu_fd, GError **error)
{
    void *entries =
        mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, RING_OFFSET);
    if (entries == MAP_FAILED)
        return kvm_fail(error, "Mapping a vCPU's dirty ring");
    ring->rings[index].entries = entries;
    return true;
}

bool
ring_harvest(KvmRing *ring, RingMark mark, void *opaque, GError **error)
{
    uint32_t count = 0;
    for (unsigned i = 0; i < ring->count_cpus; i++) {
        VcpuRing *of = &ring->rings[i];
        if (of->entries)
            count += drain(of->entries, ring->count_entries, &of->next, mark, opaque);
    }
    if (count > 0 && ioctl(ring->vm_fd, KVM_RESET_DIRTY_RINGS, 0) < 0)
        return kvm_fail(error, "KVM_RESET_DIRTY_RINGS");
    return true;
}

/* ---- Probe: all of it runs in a child process, so system calls only -------------------------- */

/* 32-bit code: writes one byte into each of PROBE_PAGES pages, then exits by port 0x10. */
/* clang-format off */
static const uint8_t probe_code[] = {
    0xb9, PROBE_PAGES & 0xff, PROBE_PAGES >> 8, 0, 0, /* again: mov ecx, PROBE_PAGES */
    0xb8, 0x00, 0x00, PROBE_FIRST >> 4, 0x00,         /*        mov eax, PROBE_FIRST * 4096 */
    0xfe, 0x00,                                       /* next:  inc byte [eax] */
    0x05, 0x00, 0x10, 0x00, 0x00,                     /*        add eax, 4096 */
    0xe2, 0xf7,                                       /*        loop next */
    0xe6, 0x10,                                       /*        out 0x10, al */
    0xeb, 0xe9,                                       /*        jmp again */
};
/* clang-format on */

static void
mark_probed(void *opaque, unsigned slot, uint64_t page)
{
    uint8_t *seen = opaque;
    if (slot == 0 && page >= PROBE_FIRST && page < PROBE_FIRST + PROBE_PAGES)
        seen[page - PROBE_FIRST] = 1;
}

static int
make_probe_vcpu(int vm_fd, const uint8_t *memory)
{
    struct kvm_userspace_memory_region region = {.flags = KVM_MEM_LOG_DIRTY_PAGES,
                                                 .memory_size = PROBE_BYTES,
                                                 .userspace_addr = (uintptr_t)memory};
    struct kvm_regs registers = {.rip = 0x1000, .rflags = 2};
    struct kvm_sregs sregs;
    int fd = ioctl(vm_fd, KVM_CREATE_VCPU, 0);
    if (fd < 0 || ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0 ||
        ioctl(fd, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    const struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 16, .type = 3, .present = 1, .db = 1, .s = 1, .g = 1};
    sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
    sregs.cs = data;
    sregs.cs.selector = 8;
    sregs.cs.type = 11;
    sregs.cr0 |= 1; /* PE */
    if (ioctl(fd, KVM_SET_SREGS, &sregs) < 0 || ioctl(fd, KVM_SET_REGS, &registers) < 0)
        return -1;
    return fd;
}

/* One round is several runs: the ring gets full in its midst, must say so, and after it was emptied
 * the guest must go on. */
static bool
probe_rounds(int vm_fd, int vcpu_fd, struct kvm_run *run, struct kvm_dirty_gfn *entries)
{
    const uint32_t count_entries = PROBE_RING / sizeof *entries;
    uint32_t next = 0;
    for (unsigned round = 0; round < PROBE_ROUNDS; round++) {
        uint8_t seen[PROBE_PAGES] = {0};
        unsigned runs = 0, full = 0;
        do {
            if (ioctl(vcpu_fd, KVM_RUN, 0) < 0 || ++runs > PROBE_RUNS_MAX)
                return false;
            full += run->exit_reason == KVM_EXIT_DIRTY_RING_FULL;
            uint32_t count = drain(entries, count_entries, &next, mark_probed, seen);
            if (ioctl(vm_fd, KVM_RESET_DIRTY_RINGS, 0) != (int)count)
                return false;
        } while (run->exit_reason == KVM_EXIT_DIRTY_RING_FULL);
        if (run->exit_reason != KVM_EXIT_IO || full == 0 || memchr(seen, 0, sizeof seen))
            return false;
    }
    return true;
}

static bool
probe(int kvm_fd)
{
    int vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
    int run_bytes = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    uint8_t *memory =
        mmap(NULL, PROBE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (vm_fd < 0 || run_bytes <= 0 || memory == MAP_FAILED || !enable(kvm_fd, vm_fd, PROBE_RING))
        return false;
    memcpy(memory + 0x1000, probe_code, sizeof probe_code);
    int vcpu_fd = make_probe_vcpu(vm_fd, memory);
    if (vcpu_fd < 0)
        return false;
    void *run = mmap(NULL, (size_t)run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, 0);
    void *entries =
        mmap(NULL, PROBE_RING, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu_fd, RING_OFFSET);
    return run != MAP_FAILED && entries != MAP_FAILED && probe_rounds(vm_fd, vcpu_fd, run, entries);
}

static bool
refuse(const char *what, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "Cannot use the dirty ring: on this host a trial of it %s. Run without it: the "
                "dirty bitmap does the same",
                what);
    return false;
}

bool
ring_probe(int kvm_fd, GError **error)
{
    pid_t child = fork();
    if (child < 0)
        return kvm_fail(error, "fork for the trial of the dirty ring");
    if (child == 0)
        _exit(probe(kvm_fd) ? 0 : 1);

    int status = 0;
    for (int64_t end = g_get_monotonic_time() + PROBE_TIMEOUT_S * G_USEC_PER_SEC;;) {
        pid_t ended = waitpid(child, &status, WNOHANG);
        if (ended == child)
            break;
        if (ended < 0 && errno != EINTR)
            return kvm_fail(error, "waitpid for the trial of the dirty ring");
        if (g_get_monotonic_time() > end) {
            /* Not waited for: it may hang in the kernel, where even a kill does not end it. */
            kill(child, SIGKILL);
            return refuse("hangs", error);
        }
        g_usleep(2000);
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return true;
    return refuse("fails: pages that were written get lost when it is full", error);
}
