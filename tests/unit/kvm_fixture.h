/* SPDX-License-Identifier: MIT */
/* What the tests of the KVM machine share: making one, waiting for its guest, its sections. */
#ifndef TESTS_UNIT_KVM_FIXTURE_H
#define TESTS_UNIT_KVM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm/kvm_machine.h"

#define MIB (1ull << 20)

typedef struct Section {
    char *name;
    uint32_t instance, version;
    GByteArray *bytes;
} Section;

#define assert_no_error(error)                                                                     \
    do {                                                                                           \
        if (error)                                                                                 \
            fail_msg("%s", (error)->message);                                                      \
    } while (0)

static inline bool
kvm_is_here(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

#define skip_without_kvm()                                                                         \
    do {                                                                                           \
        if (!kvm_is_here()) {                                                                      \
            print_message("skipped: /dev/kvm cannot be opened\n");                                 \
            skip();                                                                                \
        }                                                                                          \
    } while (0)

static inline Machine *
make_machine(const MachineOptions *options)
{
    GError *error = NULL;
    Machine *machine = machine_kvm.make(options, &error);
    assert_no_error(error);
    return machine;
}

static inline void
resume(Machine *machine)
{
    GError *error = NULL;
    machine_kvm.guest->resume(machine, &error);
    assert_no_error(error);
}

static inline void
pause_machine(Machine *machine)
{
    GError *error = NULL;
    machine_kvm.guest->pause(machine, &error);
    assert_no_error(error);
}

/* Pages that the guest says it checked. */
static inline uint64_t
count_checks(Machine *machine)
{
    const char *verdict = machine_kvm.verdict(machine);
    unsigned long long checks = 0;
    if (verdict)
        assert_int_equal(sscanf(verdict, "ok, %llu checks", &checks), 1);
    return checks;
}

/* Runs it until the guest has checked so many pages; fails when the guest found a wrong byte, or
 * says nothing for two minutes. */
static inline void
run_until_checked(Machine *machine, uint64_t checks)
{
    int64_t end = g_get_monotonic_time() + 120 * G_USEC_PER_SEC;
    while (count_checks(machine) < checks) {
        if (g_get_monotonic_time() > end)
            fail_msg("the guest checked %llu pages only",
                     (unsigned long long)count_checks(machine));
        g_usleep(10000);
    }
}

static inline void
collect_section(void *opaque, const char *name, uint32_t instance, uint32_t version,
                const void *bytes, size_t length_bytes)
{
    Section section = {g_strdup(name), instance, version, g_byte_array_new()};
    g_byte_array_append(section.bytes, bytes, (guint)length_bytes);
    g_array_append_val((GArray *)opaque, section);
}

static inline void
clear_section(void *section)
{
    g_free(((Section *)section)->name);
    g_byte_array_unref(((Section *)section)->bytes);
}

/* g_array_unref() frees it. */
static inline GArray *
save_sections(Machine *machine)
{
    GError *error = NULL;
    GArray *sections = g_array_new(FALSE, FALSE, sizeof(Section));
    g_array_set_clear_func(sections, clear_section);
    state_save(machine, collect_section, sections, &error);
    assert_no_error(error);
    return sections;
}

static inline bool
load_section(Machine *machine, const Section *section, GError **error)
{
    return machine_kvm.guest->load_state(machine, section->name, section->instance,
                                         section->version, section->bytes->data,
                                         section->bytes->len, error);
}

#endif
