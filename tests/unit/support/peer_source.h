/* SPDX-License-Identifier: MIT */
/*
 * A scripted source against a real destination. One thread, the test's; every wait is bounded.
 */
#ifndef TESTS_UNIT_SUPPORT_PEER_SOURCE_H
#define TESTS_UNIT_SUPPORT_PEER_SOURCE_H

#include "tests/unit/support/peer.h"
#include "tests/unit/support/peer_script.h"

typedef enum {
    OUTCOME_COMPLETED,
    OUTCOME_FAILED,
    OUTCOME_PAUSED,
    OUTCOME_PAUSED_OR_COMPLETED /* as timing has it */
} PeerOutcome;

typedef struct PeerSource {
    PeerGuest *guest;
    PeerLink *main, *urgent; /* urgent: NULL without preempt */
    uint64_t resident_bytes; /* when it was made */
    char *folder;
} PeerSource;

/* A listening destination, connected. */
PeerSource *peer_source_new(ScriptShape shape);
void peer_source_free(PeerSource *source);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PeerSource, peer_source_free)

/* Writes the first `length` bytes of main, the urgent ones once the destination has answered the
 * last ping, and closes its sides; reads what comes. */
void peer_source_play(PeerSource *source, const Script *script, size_t length);
/* Whether PONG of that ping has come. */
bool peer_source_has_answered(const PeerSource *source, uint32_t ping);
/* Until the destination's migration is over; it is a failure when that takes PEER_WAIT_MS. */
FaultlineStatus peer_source_wait(PeerSource *source);
/* Waits; status, words of the error and of where the guest is, how often it was started, memory. */
void peer_source_check(PeerSource *source, PeerOutcome outcome, const char *words);

#endif
