/* SPDX-License-Identifier: MIT */
/*
 * Opening a userfaultfd with the features both we and the kernel have, and the words when it lacks
 * one we need. Set-up only. Whether it is allowed at all is gate.c's, what is watched memory.c's,
 * who waits fault.c's.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include "uffd/abi.h"

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
    int fd = uffd_gate_open(error);

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
    int fd = uffd_gate_open(error);

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

char *
uffd_feature_lack(const UffdFeatureRow *row)
{
    return g_strdup_printf("userfaultfd of this kernel lacks %s (%s). Use Linux %s or later",
                           row->name, row->reason, row->kernel);
}

static bool
features_suffice(uint64_t features, GError **error)
{
    for (const UffdFeatureRow *row = feature_table; row->name != NULL; row++) {
        if (row->required && !(features & row->bit)) {
            g_autofree char *text = uffd_feature_lack(row);

            g_set_error_literal(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED, text);
            return false;
        }
    }
    return true;
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
    if (!features_suffice(features, error)) {
        close(fd);
        return NULL;
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
