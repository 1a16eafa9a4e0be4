/* SPDX-License-Identifier: MIT */
/*
 * Trials of what a guest's memory will be asked for, on memory of our own: one kind of memory, one
 * question, one real page. For check.c only.
 */
#ifndef UFFD_TRIAL_H
#define UFFD_TRIAL_H

#include "uffd/uffd.h"

/* 2 MiB of it, at a multiple of 2 MiB. */
typedef struct TrialKind {
    const char *name; /* "memfd-thp" */
    const char *text; /* "memfd on 2 MiB pages" */
    bool is_memfd;
    bool is_hugetlb;
    bool is_thp;
} TrialKind;

/* The memory of a kind can be had at all; thp: the kernel does back it by 2 MiB. */
bool trial_of_memory(const TrialKind *kind, GError **error);

/* A thread that touches a missing page waits and reads the right bytes, which came by UFFDIO_COPY.
 */
bool trial_of_missing(const TrialKind *kind, GError **error);

/* The same where the page cache has the page: by UFFDIO_CONTINUE. */
bool trial_of_minor(const TrialKind *kind, GError **error);

/* A write is seen once by the tracker, and only the page that was written. */
bool trial_of_tracker(const TrialKind *kind, GError **error);

/* A page can be locked in memory. */
bool trial_of_lock(GError **error);

#endif
