/* SPDX-License-Identifier: MIT */
/*
 * vCPU threads: each enters the guest, answers its exits and parks while the machine is paused.
 *
 * A pause sets immediate_exit and then signals: a thread about to enter the guest comes back at
 * once, one inside is thrown out, and one that just answered an exit enters once more, so that KVM
 * finishes the access, before it parks. Only a KVM_RUN that ended with EINTR leads to the park, so
 * a parked vCPU has no exit pending.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kvm/kvm_cpuid.h"
#include "kvm/kvm_machine.h"

#define KICK_SIGNAL (SIGRTMIN + 3)
#define STRANDED_S  1
#define PAUSE_S     20 /* longest wait for a vCPU that is held by a missing page */

static void
take_kick(int number)
{
    (void)number; /* it only has to interrupt KVM_RUN */
}

void
vcpu_kick_all_locked(Machine *machine)
{
    for (unsigned i = 0; i < machine->count_cpus; i++) {
        Vcpu *vcpu = &machine->vcpus[i];
        if (!vcpu->started)
            continue;
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
        pthread_kill(vcpu->thread, KICK_SIGNAL);
    }
    pthread_cond_broadcast(&machine->changed);
}

/* It was the guest's own end: a reset or a shutdown, of which this machine does neither. */
static void
note_shutdown(Vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->machine->lock);
    vcpu->machine->shut_down |= vcpu->machine->failure == NULL;
    pthread_mutex_unlock(&vcpu->machine->lock);
}

/* The guest cannot run on: says so once and stops all vCPUs for good. */
static void G_GNUC_PRINTF(2, 3) fail_guest(Vcpu *vcpu, const char *format, ...)
{
    Machine *machine = vcpu->machine;
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *reason = g_strdup_vprintf(format, arguments);
    va_end(arguments);

    pthread_mutex_lock(&machine->lock);
    if (machine->failure == NULL) {
        struct kvm_regs registers = {0};
        ioctl(vcpu->fd, KVM_GET_REGS, &registers);
        machine->failure = g_strdup_printf("vCPU %u: %s (rip 0x%llx)", vcpu->index, reason,
                                           (unsigned long long)registers.rip);
        fprintf(stderr, "faultline: the guest stopped: %s\n", machine->failure);
    }
    machine->running = false;
    vcpu_kick_all_locked(machine);
    pthread_mutex_unlock(&machine->lock);
}

/* ---- Exits ----------------------------------------------------------------------------------- */

static void
answer_port(Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    Ports *ports = &vcpu->machine->ports;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;
    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.direction == KVM_EXIT_IO_IN) {
            ports_read(ports, run->io.port, data, run->io.size);
        } else if (!ports_write(ports, run->io.port, data, run->io.size)) {
            note_shutdown(vcpu);
            fail_guest(vcpu, "it asked for a reset by port 0x92, which this machine does not do");
        }
    }
}

static void
answer_internal_error(Vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;
    const char *kind = run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION
                           ? "an instruction that KVM cannot emulate"
                           : "internal error";
    fail_guest(vcpu, "KVM: %s (%u)", kind, run->internal.suberror);
}

static void
answer_exit(Vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    g_autoptr(GError) error = NULL;
    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        answer_port(vcpu);
        break;
    case KVM_EXIT_MMIO: /* nothing is there: reads give ones, writes go nowhere */
        if (!run->mmio.is_write)
            memset(run->mmio.data, 0xff, sizeof run->mmio.data);
        break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_DIRTY_RING_FULL:
        if (!dirty_ring_full(vcpu->machine->dirty, &error))
            fail_guest(vcpu, "%s", error->message);
        break;
    case KVM_EXIT_SHUTDOWN:
        note_shutdown(vcpu);
        fail_guest(vcpu, "triple fault");
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        answer_internal_error(vcpu);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        fail_guest(vcpu, "the CPU refused to enter it, reason 0x%llx",
                   (unsigned long long)run->fail_entry.hardware_entry_failure_reason);
        break;
    default:
        fail_guest(vcpu, "KVM exit %u, which this machine does not know", run->exit_reason);
    }
}

/* ---- The thread ------------------------------------------------------------------------------ */

/* Waits while the machine is paused or held. false: the thread shall end. */
static bool
park(Vcpu *vcpu)
{
    Machine *machine = vcpu->machine;
    pthread_mutex_lock(&machine->lock);
    if (!machine->running || machine->held) {
        vcpu->parked = true;
        pthread_cond_broadcast(&machine->changed);
    }
    while ((!machine->running || machine->held) && !machine->quit)
        pthread_cond_wait(&machine->changed, &machine->lock);
    vcpu->parked = false;
    bool go_on = !machine->quit;
    /* Under the lock: a pause that comes now sets it again. */
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&machine->lock);
    return go_on;
}

static void *
run_vcpu(void *opaque)
{
    Vcpu *vcpu = opaque;
    sigset_t kick;
    sigemptyset(&kick);
    sigaddset(&kick, KICK_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
    g_autofree char *name = g_strdup_printf("vcpu %u", vcpu->index);
    pthread_setname_np(pthread_self(), name);
    atomic_store_explicit(&vcpu->tid, (pid_t)syscall(SYS_gettid), memory_order_relaxed);

    bool go_on = park(vcpu);
    while (go_on) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) == 0) {
            answer_exit(vcpu);
        } else if (errno == EINTR) {
            go_on = park(vcpu);
        } else if (errno != EAGAIN) { /* EAGAIN: a waiting vCPU got its INIT or SIPI */
            fail_guest(vcpu, "KVM_RUN failed: %s", g_strerror(errno));
            go_on = park(vcpu);
        }
    }
    return NULL;
}

static bool
start_thread(Vcpu *vcpu, GError **error)
{
    struct sigaction action = {.sa_handler = take_kick};
    sigset_t all, before;
    sigaction(KICK_SIGNAL, &action, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&vcpu->thread, NULL, run_vcpu, vcpu);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    vcpu->started = errno == 0;
    return vcpu->started || kvm_fail(error, "Making a vCPU's thread");
}

bool
vcpu_start(Machine *machine, unsigned index, GError **error)
{
    Vcpu *vcpu = &machine->vcpus[index];
    vcpu->fd = ioctl(machine->vm_fd, KVM_CREATE_VCPU, index);
    if (vcpu->fd < 0)
        return kvm_fail(error, "KVM_CREATE_VCPU");
    void *run = mmap(NULL, machine->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return kvm_fail(error, "Mapping a vCPU's kvm_run");
    vcpu->run = run;
    return cpuid_set(machine->kvm_fd, vcpu->fd, index, machine->count_cpus, error) &&
           dirty_add_vcpu(machine->dirty, index, vcpu->fd, error) && start_thread(vcpu, error);
}

void
vcpu_stop(Vcpu *vcpu)
{
    if (vcpu->started)
        pthread_join(vcpu->thread, NULL);
    if (vcpu->run)
        munmap(vcpu->run, vcpu->machine->run_bytes);
    if (vcpu->fd >= 0)
        close(vcpu->fd);
}

bool
vcpu_pause_all(Machine *machine, GError **error)
{
    struct timespec deadline;
    int failed = 0;
    clock_gettime(CLOCK_MONOTONIC, &deadline);

    pthread_mutex_lock(&machine->lock);
    bool is_stranded = machine->stranded;
    deadline.tv_sec += is_stranded ? STRANDED_S : PAUSE_S;
    machine->running = false;
    vcpu_kick_all_locked(machine);
    for (unsigned i = 0; i < machine->count_cpus && !failed; i++) {
        while (!machine->vcpus[i].parked && !failed)
            failed = pthread_cond_clockwait(&machine->changed, &machine->lock, CLOCK_MONOTONIC,
                                            &deadline);
        if (failed && is_stranded)
            failed = 0; /* it stands in its fault, and parks as it comes out */
        else if (failed)
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                        "Cannot pause the guest: vCPU %u did not stop within %d s; it waits for a "
                        "page that is still at the source. The guest goes on",
                        i, PAUSE_S);
    }
    if (failed) {
        machine->running = true;
        pthread_cond_broadcast(&machine->changed);
    }
    pthread_mutex_unlock(&machine->lock);
    return !failed;
}

void
vcpu_hold_all(Machine *machine, bool held)
{
    pthread_mutex_lock(&machine->lock);
    machine->held = held;
    if (held && machine->running)
        vcpu_kick_all_locked(machine);
    else
        pthread_cond_broadcast(&machine->changed);
    pthread_mutex_unlock(&machine->lock);
}

bool
vcpu_resume_all(Machine *machine, GError **error)
{
    pthread_mutex_lock(&machine->lock);
    bool able = machine->failure == NULL;
    if (able && !machine->running) {
        /* Best effort: spares a Linux guest its complaint about the time that it stood still. */
        for (unsigned i = 0; i < machine->count_cpus; i++)
            ioctl(machine->vcpus[i].fd, KVM_KVMCLOCK_CTRL, 0);
        machine->running = true;
        pthread_cond_broadcast(&machine->changed);
    } else if (!able) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "Cannot run the guest on: it stopped for good, %s", machine->failure);
    }
    pthread_mutex_unlock(&machine->lock);
    return able;
}
