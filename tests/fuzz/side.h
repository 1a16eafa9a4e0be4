/* SPDX-License-Identifier: MIT */
/*
 * One real side of a migration, alone with an input that plays everybody else: the peer on the main
 * and the urgent channel, the guest's vCPUs, the client of the monitor.
 *
 * The engine runs as in tests/sim, in one thread, on simulated channels, memory and clock, so that
 * an input always does the same; what sim finds wrong (a page received twice or shown before it
 * came, a ring used by a foreign thread, a thing not freed, a role that never ends) is a finding
 * here as well. peer.c moves the bytes, script.c reads the input, side.c makes and frees the side.
 *
 * An input is two bytes of options (side.c), then bytes for the harness's first channel, with marks
 * between them: MARK and one letter, which says where the bytes behind it go.
 *
 *     m u    main, urgent channel               q h    QMP bytes, HMP lines
 *     P      then one byte: a page of it, on the channel of before
 *     w W    the time that follows: 2 ms, 3 s   t      pairs of bytes: block, page that a vCPU
 *     x X    the peer closes main, urgent              touches (destination) or writes (source)
 *     k      all links break                    p b c n  start-postcopy, pause, cancel, continue
 *     r R    the side pauses or not, and then is told to recover; the peer makes new links
 */
#ifndef TESTS_FUZZ_SIDE_H
#define TESTS_FUZZ_SIDE_H

#include "tests/fuzz/fuzz.h"
#include "tests/sim/sim_schedule.h"

#define SIDE_MARK                                                                                  \
    "\xf5"                                                                                         \
    "fz"
#define SIDE_MARK_BYTES 3u

/* Bits of the first byte of options; the second one seeds the scheduler, but for one bit. */
enum {
    SIDE_OPTION_PRECOPY = 1, /* postcopy-ram is off */
    SIDE_OPTION_PREEMPT = 2,
    SIDE_OPTION_BLOCKTIME = 4,
    SIDE_OPTION_NO_RUNS = 8,
    SIDE_OPTION_HUGE = 16,
    SIDE_OPTION_ZAP = 32,
    SIDE_OPTION_WAITS = 64, /* source: pause-before-switchover; destination: no autostart */
    SIDE_OPTION_NO_RETURN = 128,
    SIDE_SEED_CHECKSUMS = 128, /* of the second byte */
};

typedef struct SideStart {
    SimSide side;
    bool begins;  /* the migration: incoming, or cont and migrate */
    char channel; /* a letter of the marks: where the input's first bytes go */
    /* what the peer says first, before the input; NULL: nothing */
    uint8_t options; /* instead of the input's, where there is an opening */
    const uint8_t *opening;
    size_t opening_length;
} SideStart;

/* Runs one input, and checks what must hold whatever it is. */
void side_run(const SideStart *start, const uint8_t *bytes, size_t length_bytes);

/* ---- side.c, for the others */

typedef struct Side {
    Faultline *faultline;
    SimSide side;
    FaultlineMonitor *monitor; /* made when a client first speaks */
    FaultlineSession *session;
    bool session_is_over;
    unsigned count_resumes, nested; /* a load_state that sleeps */
} Side;
extern Side side;

/* ---- guest.c */

/* The destination's guest, which takes any device state; the source's is sim's. */
const FaultlineGuest *guest_callbacks(void);
/* A vCPU of the destination touches a page, one of the source writes it. */
void guest_touch(unsigned block, unsigned page);
void guest_reset(void);

/* ---- peer.c */

void peer_reset(void);
/* What the side sent is taken off the links, which are accepted if they have to be. */
void peer_drain(void);
/* Takes a part of the bytes, as far as the link has room; all of them when nobody reads it. */
size_t peer_write(unsigned link, const uint8_t *bytes, size_t length);
void peer_close(unsigned link);
void peer_close_all(void);
/* What is said from now on goes to links that are made anew: a recovery. */
void peer_start_over(void);
/* Before the links are looked at: the side has given all of its own back. */
void peer_leave(void);

/* ---- script.c */

void script_begin(const SideStart *start, const uint8_t *bytes, size_t length);
/* Goes on from where it stood. */
void script_advance(void);
/* Everything was said and the links are closed. */
bool script_is_over(void);

#endif
