/* SPDX-License-Identifier: MIT */
/*
 * The clock by which a machine holds its vCPUs when the engine slows them down: one thread, which
 * sleeps while they run at full speed, and else lets them run and holds them in turn.
 */
#ifndef KVM_THROTTLE_CLOCK_H
#define KVM_THROTTLE_CLOCK_H

#include <glib.h>
#include <stdbool.h>

typedef struct ThrottleClock ThrottleClock;

/* hold: true: vCPUs stop as soon as they can and stay until false comes; must not wait for them.
 * Called on the clock's thread or in throttle_clock_set(), under the clock's lock: whatever hold
 * locks comes after that. Errors: HOST. */
ThrottleClock *throttle_clock_new(void (*hold)(void *opaque, bool held), void *opaque,
                                  GError **error);

/* Joins the thread; nothing is held then. NULL: nothing. */
void throttle_clock_free(ThrottleClock *clock);

/* percent: 0..99 of their time that vCPUs are held; 0: on return they are not. Thread: any. */
void throttle_clock_set(ThrottleClock *clock, unsigned percent);

#endif
