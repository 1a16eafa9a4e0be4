/* SPDX-License-Identifier: MIT */
/*
 * A chapter of faultline.h, which includes it: trying out what a migration asks of this host.
 */
#ifndef FAULTLINE_CHECK_H
#define FAULTLINE_CHECK_H

#include "guest.h"

typedef struct Faultline Faultline;

typedef enum {
    FAULTLINE_CHECK_OK,
    FAULTLINE_CHECK_WARNING, /* it goes without, or something else does the same: text says what */
    FAULTLINE_CHECK_CLOSED,  /* postcopy cannot work here, or not to that peer */
} FaultlineCheckState;

/* "ok", "warning", "closed"; never NULL. */
const char *faultline_check_state_name(FaultlineCheckState state);

/* Something that was tried. */
typedef struct FaultlineCheck {
    const char *name;  /* for programs, e.g. "uffd-device"; never changes its meaning */
    const char *tried; /* for people, e.g. "userfaultfd by /dev/userfaultfd" */
    FaultlineCheckState state;
    const char *text; /* what came of it; sentences behind the first say what to do about it. In the
                       * same words a migration is refused for that reason */
} FaultlineCheck;

/*
 * Tries all that a migration will ask of this host, for real: userfaultfd (device, sysctl,
 * capability, features), a fault answered in each kind of memory, write tracking, io_uring, limits,
 * with up to 10 MiB of its own memory. What rests on something closed is left out.
 * guest: the one that would be moved, to know whether it keeps a dirty log; NULL: it does.
 * uri: where the destination listens; NULL: not asked. Tried without a connection, so that the
 * destination does not take us for its source; up to 3 s for each address of a host that is silent.
 * take: gets each row, valid during the call. Thread: any; starts one and joins it. A seccomp
 * filter that kills instead of refusing kills here too. Returns whether nothing is closed.
 */
bool faultline_check_host(const FaultlineGuest *guest, const char *uri,
                          void (*take)(void *opaque, const FaultlineCheck *check), void *opaque);

#endif
