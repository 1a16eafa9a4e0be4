/* SPDX-License-Identifier: MIT */
/*
 * The three gates to a userfaultfd that also sees faults of kernel mode (KVM's, a system call's):
 * the device, the sysctl, the capability. Opens by the first that is open; when none is, says of
 * each why and what opens it. The checks of the host say the same words, from here. Set-up only.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd/abi.h"

#define DEVICE         "/dev/userfaultfd"
#define SYSCTL         "vm.unprivileged_userfaultfd"
#define SYSCTL_PATH    "/proc/sys/vm/unprivileged_userfaultfd"
#define CAP_SYS_PTRACE 19

/* Without UFFD_USER_MODE_ONLY: KVM touches guest memory in kernel mode. */
static int
open_by_device(void)
{
    int device = open(DEVICE, O_RDWR | O_CLOEXEC);

    if (device < 0) {
        return -1;
    }
    int fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    int error_number = errno;

    close(device);
    errno = error_number;
    return fd;
}

static int
open_by_call(void)
{
    return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

/* ---- Why a gate is closed -------------------------------------------------------------------- */

uint64_t
uffd_process_status(const char *field, int base)
{
    g_autofree char *text = NULL;
    g_autofree char *line = g_strdup_printf("\n%s:", field);

    if (!g_file_get_contents("/proc/self/status", &text, NULL, NULL)) {
        return 0;
    }
    const char *at = strstr(text, line);

    return at != NULL ? strtoull(at + strlen(line), NULL, base) : 0;
}

static char *
allow_in_filter(void)
{
    return g_strdup("Allow the system call userfaultfd in the seccomp filter (of a container or a "
                    "service manager)");
}

static void
describe_device(UffdGate *gate, int error_number)
{
    gate->reason = g_strdup_printf(DEVICE ": %s", g_strerror(error_number));
    if (error_number == ENOENT || error_number == ENXIO || error_number == ENODEV) {
        gate->remedy =
            g_strdup("Bring " DEVICE " into this container (podman and docker: --device " DEVICE
                     "); Linux 6.1 or later has it");
    } else if (error_number == EACCES) {
        gate->remedy = g_strdup_printf("Run 'setfacl -m u:%u:rw " DEVICE "' as root", geteuid());
    } else {
        gate->remedy =
            g_strdup("Allow " DEVICE " in the device control group, the security module and the "
                     "seccomp filter of this process");
    }
}

static void
describe_sysctl(UffdGate *gate, const char *value, int call_error)
{
    if (value == NULL) {
        gate->reason = g_strdup_printf(
            "there is no sysctl " SYSCTL ", and the system call says: %s", g_strerror(call_error));
        gate->remedy = g_strdup("Use a kernel with CONFIG_USERFAULTFD and mount /proc");
    } else if (g_str_equal(value, "0")) {
        gate->reason = g_strdup("the sysctl " SYSCTL " is 0");
        gate->remedy = g_strdup("Run 'sysctl -w " SYSCTL "=1' as root");
    } else {
        gate->reason = g_strdup_printf("the sysctl " SYSCTL " is %s, but the system call says: %s",
                                       value, g_strerror(call_error));
        gate->remedy = allow_in_filter();
    }
}

static void
describe_capability(UffdGate *gate, bool capable, int call_error)
{
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);

    if (!capable) {
        gate->reason = g_strdup("this process has no CAP_SYS_PTRACE");
        gate->remedy = g_strdup_printf("Run 'setcap cap_sys_ptrace+ep %s' as root",
                                       program != NULL ? program : "PROGRAM");
    } else if (uffd_process_status("Seccomp", 10) == 2) {
        gate->reason = g_strdup_printf("this process has CAP_SYS_PTRACE, but a seccomp filter, and "
                                       "the system call says: %s",
                                       g_strerror(call_error));
        gate->remedy = allow_in_filter();
    } else {
        gate->reason =
            g_strdup_printf("this process has CAP_SYS_PTRACE, but the system call says: %s",
                            g_strerror(call_error));
        gate->remedy =
            g_strdup(call_error == ENOSYS
                         ? "Use a kernel with CONFIG_USERFAULTFD"
                         : "Run it outside of the user namespace: only the capability of the "
                           "initial one counts");
    }
}

/* ---- Trying them ----------------------------------------------------------------------------- */

static bool
try_and_close(int (*try)(void), int *ret_error)
{
    int fd = try();

    *ret_error = errno;
    if (fd >= 0) {
        close(fd);
    }
    return fd >= 0;
}

void
uffd_gates_try(UffdGate gates[UFFD_GATES])
{
    static const UffdGate names[UFFD_GATES] = {
        {.name = "uffd-device", .tried = "userfaultfd by " DEVICE},
        {.name = "uffd-sysctl", .tried = "userfaultfd by the sysctl " SYSCTL},
        {.name = "uffd-capability", .tried = "userfaultfd by CAP_SYS_PTRACE"},
    };
    g_autofree char *value = NULL;
    int device_error;
    int call_error;
    bool called = try_and_close(open_by_call, &call_error);
    bool capable = uffd_process_status("CapEff", 16) >> CAP_SYS_PTRACE & 1;

    memcpy(gates, names, sizeof(names));
    if (g_file_get_contents(SYSCTL_PATH, &value, NULL, NULL)) {
        g_strstrip(value);
    }
    gates[0].is_open = try_and_close(open_by_device, &device_error);
    /* Before Linux 5.2 there is no such sysctl, and nobody is kept out. */
    gates[1].is_open = called && (value == NULL || g_str_equal(value, "1") || !capable);
    gates[2].is_open = called && capable;
    if (!gates[0].is_open) {
        describe_device(&gates[0], device_error);
    }
    if (!gates[1].is_open) {
        describe_sysctl(&gates[1], value, call_error);
    }
    if (!gates[2].is_open) {
        describe_capability(&gates[2], capable, call_error);
    }
}

void
uffd_gates_clear(UffdGate gates[UFFD_GATES])
{
    for (unsigned i = 0; i < UFFD_GATES; i++) {
        g_free(gates[i].reason);
        g_free(gates[i].remedy);
    }
}

static void
refuse(GError **error)
{
    UffdGate gates[UFFD_GATES];
    g_autoptr(GString) text = g_string_new("cannot open a userfaultfd: ");

    uffd_gates_try(gates);
    for (unsigned i = 0; i < UFFD_GATES; i++) {
        g_string_append_printf(text, "%s%s", i > 0 ? "; " : "", gates[i].reason);
    }
    g_string_append(text, ". One of these is enough: ");
    for (unsigned i = 0; i < UFFD_GATES; i++) {
        g_string_append_printf(text, "%s%s", i > 0 ? "; " : "", gates[i].remedy);
    }
    g_set_error_literal(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED, text->str);
    uffd_gates_clear(gates);
}

int
uffd_gate_open(GError **error)
{
    int fd = open_by_device();

    if (fd < 0) {
        fd = open_by_call();
    }
    if (fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM)) {
        uffd_fail(error, UFFD_ERROR_HOST, errno, "cannot open a userfaultfd");
    } else if (fd < 0) {
        refuse(error);
    }
    return fd;
}
