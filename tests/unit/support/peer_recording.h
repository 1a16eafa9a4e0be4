/* SPDX-License-Identifier: MIT */
/*
 * A whole migration between two Faultlines of this process, through a relay that keeps every byte.
 * One thread, the test's, relays; every wait is bounded.
 */
#ifndef TESTS_UNIT_SUPPORT_PEER_RECORDING_H
#define TESTS_UNIT_SUPPORT_PEER_RECORDING_H

#include "tests/unit/support/peer.h"
#include "tests/unit/support/peer_script.h"

#define RECORDING_CHANNELS 2u

typedef struct PeerRecording {
    PeerGuest *source, *destination;
    /* of channel i: what the source and the destination sent are in `received` */
    PeerLink *sources[RECORDING_CHANNELS], *destinations[RECORDING_CHANNELS];
    unsigned count_channels;
    int listener;
    char *folder, *inner_path;
} PeerRecording;

/* Two filled and connected sides. Postcopy begins at once, and finds every page dirty. */
/* with_runs: both sides have page-runs on. */
PeerRecording *peer_recording_new(ScriptShape shape, bool with_runs);
void peer_recording_free(PeerRecording *recording);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(PeerRecording, peer_recording_free)

/* Until both sides are over; fails if one of them did not complete. */
void peer_recording_run(PeerRecording *recording);

/* An independent parser (FAULTLINE_QSTREAM names it); NULL, with a reason printed: there is none.
 */
const char *peer_parser_find(void);
/* Writes bytes into a file of the recording's folder; its path. */
char *peer_recording_save(const PeerRecording *recording, const char *name,
                          const GByteArray *bytes);
/* Fails with what the parser says if it finds a rule broken or a byte left. arguments: NULL ends.
 */
void peer_parser_run(const char *parser, const char *const *arguments);

#endif
