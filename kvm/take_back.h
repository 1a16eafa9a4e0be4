/* SPDX-License-Identifier: MIT */
/*
 * x-take-back: a guest that was given away comes back to its source, if the destination's record
 * proves that it never ran there. Main thread.
 */
#ifndef KVM_TAKE_BACK_H
#define KVM_TAKE_BACK_H

#include "engine/faultline.h"

/* name: of the guest. directory: the destination's state directory, or one with a copy of its
 * record. has_ended: somebody has made sure that the destination's process is gone, which a record
 * of another host does not tell. Errors: of faultline_take_back(); ARGUMENT for a directory without
 * such a record; HOST. */
bool take_back(Faultline *faultline, const char *name, const char *directory, bool has_ended,
               GError **error);

#endif
