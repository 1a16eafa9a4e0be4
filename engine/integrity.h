/* SPDX-License-Identifier: MIT */
/*
 * A chapter of faultline.h, which includes it: whether what arrived is what was sent.
 *
 * With capability page-checksums on both sides everything that goes between two faultlines carries
 * checksums. A page that comes damaged is not taken, and is asked for again; where anything else is
 * damaged the connection counts as broken: in precopy the migration fails and the guest goes on at
 * the source, in postcopy it pauses and can be recovered. At the end the destination compares, for
 * all of memory, what it took last with what the source sent last, before it says that it has
 * everything.
 */
#ifndef FAULTLINE_INTEGRITY_H
#define FAULTLINE_INTEGRITY_H

#include <stdint.h>

typedef enum {
    FAULTLINE_VERDICT_UNCHECKED, /* no checksums: one side has them off, or is no faultline; or the
                                    connection broke when all pages had come, before the verdict */
    FAULTLINE_VERDICT_PENDING,   /* it is not over */
    FAULTLINE_VERDICT_PASSED,    /* every page is at the destination as it was sent last */
    FAULTLINE_VERDICT_FAILED,    /* some are not: the error says where */
    FAULTLINE_VERDICT_COUNT
} FaultlineVerdict;

/* "unchecked", "pending", "passed", "failed"; never NULL. */
const char *faultline_verdict_name(FaultlineVerdict verdict);

typedef struct FaultlineIntegrity {
    FaultlineVerdict verdict;
    uint64_t checked_pages; /* source: sent with a checksum; destination: compared with it */
    uint64_t damaged_pages; /* of them: came damaged; at a source as far as it was told */
    uint64_t asked_again;   /* pages that were asked for because of that */
} FaultlineIntegrity;

#endif
