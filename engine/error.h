/* SPDX-License-Identifier: MIT */
/* Errors on their way to a caller of the library. */
#ifndef ENGINE_ERROR_H
#define ENGINE_ERROR_H

#include "engine/faultline.h"

/* Makes *error (of uffd/, transport/, GLib or the guest) one of FAULTLINE_ERROR, whose code says
 * what can be done; text and FAULTLINE_ERROR itself stay. NULLs are fine. False always, so that it
 * ends a function that fails. Thread: any. */
bool error_translate(GError **error);

#endif
