/* SPDX-License-Identifier: MIT */
/*
 * The error domain of the library. Stateless, so every thread may use it; the codes and what a
 * caller does about each are described in faultline.h.
 */
#include "engine/faultline.h"

GQuark
faultline_error_quark(void)
{
    return g_quark_from_static_string("faultline-error-quark");
}
