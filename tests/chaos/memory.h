/* SPDX-License-Identifier: MIT */
/*
 * Guest memory of a process, read from outside by /proc/PID/mem. Every byte of the KVM guest's
 * working set follows from the page and its generation, so that all of it can be judged without the
 * guest. Pages that are missing cannot be read: only for sides that have everything.
 */
#ifndef TESTS_CHAOS_MEMORY_H
#define TESTS_CHAOS_MEMORY_H

#include "tests/chaos/side.h"

/* A number that changes when memory does. */
bool memory_digest(Side *side, uint64_t *ret_digest, GError **error);

/* Both guests stand still. */
bool memory_compare(Side *source, Side *destination, GError **error);

/* The KVM guest stands still: every byte of its working set is what it wrote. */
bool memory_check_kvm(Side *side, GError **error);

/* Whether the guest has filled its memory, so that a migration has something to lose. */
bool memory_is_filled(Side *side, bool is_kvm);

#endif
