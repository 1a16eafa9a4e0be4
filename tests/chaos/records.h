/* SPDX-License-Identifier: MIT */
/*
 * The records of who owns the guest, which both sides keep in a small file system each (tmpfs, in
 * this process's own mount namespace), so that it can be filled; and whether `faultline status`
 * tells the truth from them.
 */
#ifndef TESTS_CHAOS_RECORDS_H
#define TESTS_CHAOS_RECORDS_H

#include "tests/chaos/migration.h"

/* Whether this process may mount; without, records are kept in plain directories. */
bool records_can_fill(void);

bool records_prepare(Migration *migration, GError **error);

/* The directory of a side. Free with g_free. */
char *records_directory(const Migration *migration, const Side *side);

/* Not one byte more can be written there. Thread: any. */
void records_fill(const Migration *migration, const Side *side);
void records_make_room(const Migration *migration);

/* Both records, read together, say where the guest is, or leave it open where they may. */
bool records_check(Migration *migration, GError **error);

#endif
