/* SPDX-License-Identifier: MIT */
/*
 * Measuring how fast the guest writes while no migration goes on; faultline.h says how it is used.
 * Control thread; the log is read on the measuring's own thread.
 */
#ifndef ENGINE_DIRTY_RATE_H
#define ENGINE_DIRTY_RATE_H

#include "engine/context.h"

/* Ends a measuring that goes on, whose outcome is then UNSTARTED, joins its thread, and forgets it;
 * a finished one too. Fine when there was none. */
void dirty_rate_give_up(Faultline *faultline);

#endif
