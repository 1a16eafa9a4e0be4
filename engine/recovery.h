/* SPDX-License-Identifier: MIT */
/*
 * Going on after a connection was lost in postcopy: a chapter of faultline.h, which includes it.
 *
 * From the switch-over to postcopy on the guest runs at the destination, and pages that have not
 * moved are kept at the source. When the connection breaks, or a side gives it up because the other
 * broke a rule, both stand in postcopy-paused: the guest runs on what is there and waits where it
 * touches what is not. Then, in this order:
 *
 *   destination                                source
 *     faultline_recover(f, "tcp:[::]:4445")      faultline_migrate_resume(f, "tcp:HOST:4445")
 *     postcopy-recover when a source is there    postcopy-recover-setup, postcopy-recover
 *     postcopy-active: the rest comes            postcopy-active
 *
 * The address may be another one, and of another kind. A connection that breaks again, at whatever
 * point, leads back to postcopy-paused, any number of times; what has come stays.
 */
#ifndef ENGINE_RECOVERY_H
#define ENGINE_RECOVERY_H

#include "faultline.h"

/*
 * At a source in postcopy-paused: connects to uri and sends what the destination has not got. The
 * status is postcopy-recover-setup at once; failure leads back to postcopy-paused, with a new text
 * in FaultlineInfo.error. Thread: control.
 * Errors: STATE when no migration from here is paused, or with release-ram, where the pages that
 * were sent are gone; ARGUMENT for the uri.
 */
bool faultline_migrate_resume(Faultline *faultline, const char *uri, GError **error);

/*
 * At a destination in postcopy-paused: listens at uri (tcp port 0 picks one, and
 * faultline_incoming_address() tells it) for the source to come back. The status stays until it
 * does. Said again: there instead. Thread: control.
 * Errors: STATE unless this is a destination in postcopy-paused; ARGUMENT for the uri; HOST.
 */
bool faultline_recover(Faultline *faultline, const char *uri, GError **error);

/*
 * As faultline_incoming(), at all of uris (NULL ends; up to 8): the source may come by any of them,
 * and come again by another after a break. Between faultlines the source is told all of them.
 */
bool faultline_incoming_several(Faultline *faultline, const char *const *uris, GError **error);

/* All addresses of the last faultline_incoming_several(), as faultline_incoming_address(); empty
 * when there was none. Free with g_strfreev. Thread: control. */
char **faultline_incoming_addresses(const Faultline *faultline);

/* How often and how long a migration stood in postcopy without a connection: from postcopy-paused
 * to postcopy-active or the end. Of one that lasts, until now. */
typedef struct FaultlinePauses {
    uint64_t count, total_us, longest_us;
    /* Auto-recover at a source, of this pause. */
    uint64_t attempts;  /* begun */
    bool will_retry;    /* one is under way, or follows */
    uint64_t next_us;   /* how soon; 0: it is under way */
    char next_uri[256]; /* where; "": not known */
} FaultlinePauses;

/* Those of the last migration; all 0 when there were none. Thread: control. */
void faultline_query_pauses(const Faultline *faultline, FaultlinePauses *ret_pauses);

#endif
