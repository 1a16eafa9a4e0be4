/* SPDX-License-Identifier: MIT */
/*
 * Opening a userfaultfd: device first, system call second, the features both we and the kernel
 * have, and the words when it is not allowed. Set-up only. What is watched is memory.c's, who waits
 * is fault.c's.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "uffd/abi.h"

#define DEVICE "/dev/userfaultfd"
#define SYSCTL "/proc/sys/vm/unprivileged_userfaultfd"

GQuark
uffd_error_quark(void)
{
    return g_quark_from_static_string("uffd-error-quark");
}

static const UffdFeatureRow feature_table[] = {
    {"MISSING_HUGETLBFS", UFFD_FEATURE_MISSING_HUGETLBFS, "guest memory of huge pages", "4.11",
     false},
    {"MISSING_SHMEM", UFFD_FEATURE_MISSING_SHMEM, "guest memory in a memfd", "4.11", false},
    {"THREAD_ID", UFFD_FEATURE_THREAD_ID, "which vCPU waits", "4.14", true},
    {"MINOR_SHMEM", UFFD_FEATURE_MINOR_SHMEM, "placing 4 KiB out of 2 MiB through the alias",
     "5.14", false},
    {"EXACT_ADDRESS", UFFD_FEATURE_EXACT_ADDRESS, "which 4 KiB of a huge page is waited for",
     "5.18", false},
    {NULL, 0, NULL, NULL, false},
};

const UffdFeatureRow *
uffd_feature_table(void)
{
    return feature_table;
}

bool
uffd_fail(GError **error, UffdErrorCode code, int error_number, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *what = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error(error, UFFD_ERROR, (gint)code, "%s: %s", what, g_strerror(error_number));
    return false;
}

/* Without UFFD_USER_MODE_ONLY: KVM touches guest memory in kernel mode. */
static int
open_by_device(int *ret_error)
{
    int device = open(DEVICE, O_RDWR | O_CLOEXEC);
    int fd = -1;

    if (device >= 0) {
        fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
    }
    *ret_error = errno;
    if (device >= 0) {
        close(device);
    }
    return fd;
}

static char *
read_sysctl(void)
{
    char *text = NULL;

    if (!g_file_get_contents(SYSCTL, &text, NULL, NULL)) {
        return g_strdup("not there");
    }
    return g_strstrip(text);
}

static int
open_raw(GError **error)
{
    int device_error = 0;
    int fd = open_by_device(&device_error);

    if (fd >= 0) {
        return fd;
    }
    fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd >= 0) {
        return fd;
    }
    int call_error = errno;

    if (call_error != EPERM && call_error != ENOSYS) {
        uffd_fail(error, UFFD_ERROR_HOST, call_error, "cannot open a userfaultfd");
        return -1;
    }
    g_autofree char *sysctl = read_sysctl();

    g_set_error(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED,
                "cannot open a userfaultfd: " DEVICE ": %s; system call: %s. Give this user read "
                "and write access to " DEVICE " (Linux 6.1 or later), or set the sysctl "
                "vm.unprivileged_userfaultfd=1 (now %s), or give the program CAP_SYS_PTRACE",
                g_strerror(device_error), g_strerror(call_error), sysctl);
    return -1;
}

static bool
negotiate(int fd, uint64_t wanted, uint64_t *ret_features, GError **error)
{
    struct uffdio_api api = {.api = UFFD_API, .features = wanted};

    if (ioctl(fd, UFFDIO_API, &api) != 0) {
        return uffd_fail(error, UFFD_ERROR_UNSUPPORTED, errno,
                         "userfaultfd does not agree to features 0x%" PRIx64
                         "; Linux 4.14 or later is needed",
                         wanted);
    }
    *ret_features = api.features;
    return true;
}

/* The kernel tells its features only to a descriptor that is of no use afterwards. */
static bool
probe_features(uint64_t *ret_features, GError **error)
{
    int fd = open_raw(error);

    if (fd < 0) {
        return false;
    }
    bool done = negotiate(fd, 0, ret_features, error);

    close(fd);
    return done;
}

int
uffd_descriptor_open(uint64_t wanted, uint64_t *ret_features, GError **error)
{
    uint64_t offered = 0;
    uint64_t answered = 0;

    if (!probe_features(&offered, error)) {
        return -1;
    }
    int fd = open_raw(error);

    if (fd < 0) {
        return -1;
    }
    if (!negotiate(fd, wanted & offered, &answered, error)) {
        close(fd);
        return -1;
    }
    *ret_features = wanted & offered;
    return fd;
}

Uffd *
uffd_open(GError **error)
{
    uint64_t wanted = 0;
    uint64_t features = 0;

    for (const UffdFeatureRow *row = feature_table; row->name != NULL; row++) {
        wanted |= row->bit;
    }
    int fd = uffd_descriptor_open(wanted, &features, error);

    if (fd < 0) {
        return NULL;
    }
    for (const UffdFeatureRow *row = feature_table; row->name != NULL; row++) {
        if (row->required && !(features & row->bit)) {
            g_set_error(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED,
                        "userfaultfd of this kernel lacks %s (%s); Linux %s or later is needed",
                        row->name, row->reason, row->kernel);
            close(fd);
            return NULL;
        }
    }
    Uffd *uffd = g_new0(Uffd, 1);

    uffd->fd = fd;
    uffd->features = features;
    return uffd;
}

void
uffd_free(Uffd *uffd)
{
    if (uffd != NULL) {
        close(uffd->fd);
        g_free(uffd);
    }
}

int
uffd_fd(const Uffd *uffd)
{
    return uffd->fd;
}

uint64_t
uffd_features(const Uffd *uffd)
{
    return uffd->features;
}
