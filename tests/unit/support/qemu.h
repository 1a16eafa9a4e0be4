/* SPDX-License-Identifier: MIT */
/*
 * A QEMU as it is installed, in a process of its own, spoken to by QMP. The test's thread.
 */
#ifndef TESTS_UNIT_SUPPORT_QEMU_H
#define TESTS_UNIT_SUPPORT_QEMU_H

#include <gio/gio.h>

#define QEMU_MACHINE "pc-i440fx-7.2"

typedef struct Qemu {
    GSubprocess *process;
    GDataInputStream *output;
    GString *said; /* what were no answers: messages and events */
} Qemu;

/* Skips the case, and says why, where there is no QEMU that has the machine. */
void qemu_need(void);
/* Stopped, 16 MiB, no devices but the machine's. options: NULL ends. */
Qemu *qemu_start(const char *const *options);
/* Ends the process. */
void qemu_end(Qemu *qemu);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Qemu, qemu_end)

/* A command of its monitor for humans; what that answers, which the caller frees. */
char *qemu_do(Qemu *qemu, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* The same for one that has nothing to answer unless it fails. */
void qemu_must(Qemu *qemu, const char *format, ...) G_GNUC_PRINTF(2, 3);
/* Reads until it has said that; fails if it ends before. */
void qemu_expect(Qemu *qemu, const char *what);
/* Asks until its migration has that status; fails after some seconds. */
void qemu_expect_migration(Qemu *qemu, const char *status);

#endif
