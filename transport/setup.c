/* SPDX-License-Identifier: MIT */
/*
 * Sets up an io_uring of the kernel, and explains why that is not possible.
 *
 * Flags are tried from the best (Linux 6.1: completions run only when the thread asks for them, so
 * that nothing interrupts it) to none. What to do when io_uring is forbidden is said here and
 * nowhere else. Any thread. ring.c is left with what happens on a ring that exists.
 */
#include "transport/ring.h"

#include <errno.h>

#define SYSCTL_PATH "/proc/sys/kernel/io_uring_disabled"

/* io_uring_setup(2): TASKRUN_FLAG lets liburing see without a system call that work is pending. */
static const unsigned flags_by_preference[] = {
    IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG, /* 6.1 */
    IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG,                               /* 5.19 */
    0,
};

#define FILTER                                                                                     \
    "Allow io_uring_setup, io_uring_enter and io_uring_register in the seccomp filter (of a "      \
    "container or a service manager)"

static void
set_forbidden_error(const char *call, int code, GError **error)
{
    g_autofree char *value = NULL;
    g_autofree char *sysctl = NULL;
    const char *remedy = FILTER;

    if (!g_file_get_contents(SYSCTL_PATH, &value, NULL, NULL)) {
        sysctl = g_strdup("the kernel has no sysctl kernel.io_uring_disabled");
        remedy = FILTER ", or use a kernel with CONFIG_IO_URING";
    } else if (g_str_equal(g_strstrip(value), "0")) {
        sysctl = g_strdup("the sysctl kernel.io_uring_disabled is 0, so a filter forbids it");
    } else {
        sysctl = g_strdup_printf("the sysctl kernel.io_uring_disabled is %s", value);
        remedy = "Run 'sysctl -w kernel.io_uring_disabled=0' as root";
    }
    g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_UNSUPPORTED,
                "%s failed: %s: this process may not use io_uring, which all channels need: %s. %s",
                call, g_strerror(code), sysctl, remedy);
}

static bool
set_setup_error(int code, GError **error)
{
    if (code == EPERM || code == EACCES || code == ENOSYS)
        set_forbidden_error("io_uring_setup", code, error);
    else if (code == ENOMEM)
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "io_uring_setup failed: %s. Free memory, or raise the limit of locked memory "
                    "(ulimit -l)",
                    g_strerror(code));
    else if (code == EMFILE || code == ENFILE)
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_HOST,
                    "io_uring_setup failed: %s. Raise the limit of open files (ulimit -n)",
                    g_strerror(code));
    else
        g_set_error(error, TRANSPORT_ERROR, TRANSPORT_ERROR_UNSUPPORTED,
                    "io_uring_setup failed: %s. Use Linux 5.13 or later with io_uring",
                    g_strerror(code));
    return false;
}

bool
transport_setup(struct io_uring *uring, unsigned entries, GError **error)
{
    struct io_uring_params params;
    int r = -EINVAL;

    for (unsigned i = 0; i < G_N_ELEMENTS(flags_by_preference) && r == -EINVAL; i++) {
        params = (struct io_uring_params){.flags = flags_by_preference[i] | IORING_SETUP_CLAMP |
                                                   IORING_SETUP_CQSIZE,
                                          .cq_entries = 4 * entries};
        r = io_uring_queue_init_params(entries, uring, &params);
    }
    if (r < 0)
        return set_setup_error(-r, error);
    /* RSRC_TAGS came with 5.13, as did the multishot poll, which has no flag of its own. */
    if (!(params.features & IORING_FEAT_EXT_ARG) || !(params.features & IORING_FEAT_RSRC_TAGS)) {
        io_uring_queue_exit(uring);
        return set_setup_error(EINVAL, error);
    }
    return true;
}

/* A filter may forbid the use of what it let us make. */
bool
transport_try(struct io_uring *uring, GError **error)
{
    struct __kernel_timespec patience = {.tv_sec = 5};
    struct io_uring_sqe *sqe = io_uring_get_sqe(uring);
    struct io_uring_cqe *cqe = NULL;

    io_uring_prep_nop(sqe);
    int r = io_uring_submit_and_wait_timeout(uring, &cqe, 1, &patience, NULL);

    if (r < 0) {
        set_forbidden_error("io_uring_enter", -r, error);
        return false;
    }
    io_uring_cqe_seen(uring, cqe);
    return true;
}

bool
transport_probe(GError **error)
{
    struct io_uring uring;

    if (!transport_setup(&uring, 4, error))
        return false;
    bool works = transport_try(&uring, error);

    io_uring_queue_exit(&uring);
    return works;
}
