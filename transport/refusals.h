/* SPDX-License-Identifier: MIT */
/*
 * What a listener has to say of peers that it turned away: all are counted, the last one's reason
 * is kept, and it is told at most once a second, as a flood must flood no log. The listener's
 * thread.
 */
#ifndef TRANSPORT_REFUSALS_H
#define TRANSPORT_REFUSALS_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

/* All zeros: there was none. */
typedef struct TransportRefusals {
    char *text;      /* of the last one that was not told; NULL: all were */
    unsigned count;  /* not told */
    int64_t told_us; /* 0: never */
} TransportRefusals;

/* One more; takes over text. */
void transport_refusals_add(TransportRefusals *refusals, char *text);
/* NULL: there is none, or it is too early (is_last: it never is). *ret_count: how many it stands
 * for, and the text says so. */
char *transport_refusals_take(TransportRefusals *refusals, bool is_last, unsigned *ret_count);
void transport_refusals_clear(TransportRefusals *refusals);

#endif
