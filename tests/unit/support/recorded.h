/* SPDX-License-Identifier: MIT */
/*
 * A recovery as it was recorded between two QEMUs (tests/captures), cut into its steps, for tests
 * that play one of the two sides. One thread.
 */
#ifndef TESTS_UNIT_SUPPORT_RECORDED_H
#define TESTS_UNIT_SUPPORT_RECORDED_H

#include "tests/unit/support/peer.h"
#include "tests/unit/support/walk.h"

#define ACK_BYTES    8u /* RESUME_ACK, and SHUT */
#define RESUME_BYTES 5u /* POSTCOPY_RESUME */

typedef struct Recovery {
    const char *machine, *before, *before_back, *after, *after_back;
    bool with_urgent; /* the source's part only */
} Recovery;

/* What was recorded, and where in it the steps of a recovery end. */
typedef struct Recorded {
    Walk *walk;
    GByteArray *before, *after, *back;
    size_t asked, bitmaps, request; /* in after; in back; in back, the first one */
    uint64_t request_page;
    const char *names[PEER_BLOCKS_MAX + 1];
    uint64_t counts[PEER_BLOCKS_MAX];
} Recorded;

Recorded *recorded_load(const Recovery *recovery);
void recorded_free(Recorded *recorded);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Recorded, recorded_free)

/* What the source said before the break, without the devices in its package. */
GByteArray *recorded_before_without_devices(const Recorded *recorded);

#endif
