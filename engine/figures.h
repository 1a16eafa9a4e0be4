/* SPDX-License-Identifier: MIT */
/* Parts of faultline_query() that are reckoned from what it has read already. Control thread. */
#ifndef ENGINE_FIGURES_H
#define ENGINE_FIGURES_H

#include "engine/context.h"

void figures_read_channels(Faultline *faultline, FaultlineInfo *info, uint64_t now_ns);
/* Behind channels and missing_pages. */
void figures_read_residence(const Faultline *faultline, FaultlineInfo *info, uint64_t now_ns);

#endif
