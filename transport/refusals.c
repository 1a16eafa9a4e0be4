/* SPDX-License-Identifier: MIT */
/* See refusals.h. */
#include "transport/refusals.h"

#define TELL_US G_USEC_PER_SEC /* between two that are told */

void
transport_refusals_add(TransportRefusals *refusals, char *text)
{
    g_free(refusals->text);
    refusals->text = text;
    refusals->count++;
}

char *
transport_refusals_take(TransportRefusals *refusals, bool is_last, unsigned *ret_count)
{
    int64_t now_us = g_get_monotonic_time();
    bool is_early = refusals->told_us != 0 && now_us < refusals->told_us + TELL_US;
    g_autofree char *text = NULL;

    if (refusals->text == NULL || (is_early && !is_last))
        return NULL;
    text = g_steal_pointer(&refusals->text);
    refusals->told_us = now_us;
    *ret_count = refusals->count;
    refusals->count = 0;
    if (*ret_count == 1)
        return g_steal_pointer(&text);
    return g_strdup_printf("%s (the last of %u since it was last told)", text, *ret_count);
}

void
transport_refusals_clear(TransportRefusals *refusals)
{
    g_clear_pointer(&refusals->text, g_free);
    refusals->count = 0;
}
