/* SPDX-License-Identifier: MIT */
/* See outcome.h. */
#include "tests/chaos/outcome.h"

static const char *const phase_names[] = {
#define PHASE_NAME(name, text) text,
    PHASE_LIST(PHASE_NAME)
#undef PHASE_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(phase_names) == PHASE_COUNT);

static const char *const outcome_names[] = {
#define OUTCOME_NAME(name, text) text,
    OUTCOME_LIST(OUTCOME_NAME)
#undef OUTCOME_NAME
};
G_STATIC_ASSERT(G_N_ELEMENTS(outcome_names) == OUTCOME_COUNT);

#define MAY(name) (1u << OUTCOME_##name)

/* A link that is lost during the switch-over is lost before or after the last byte that the
 * destination needs; what is not known then is asked for. */
#define LINK_LOST                                                                                  \
    {                                                                                              \
        [PHASE_SETUP] = MAY(STAYED), [PHASE_PRECOPY] = MAY(STAYED),                                \
        [PHASE_SWITCHOVER] = MAY(STAYED) | MAY(RECOVERED) | MAY(MOVED),                            \
        [PHASE_POSTCOPY] = MAY(RECOVERED) | MAY(MOVED), [PHASE_RECOVERY] = MAY(RECOVERED),         \
    }

/* Bytes come late, or in pieces; nothing is lost. */
#define LINK_SLOW                                                                                  \
    {                                                                                              \
        [PHASE_SETUP] = MAY(MOVED), [PHASE_PRECOPY] = MAY(MOVED), [PHASE_SWITCHOVER] = MAY(MOVED), \
        [PHASE_POSTCOPY] = MAY(MOVED), [PHASE_RECOVERY] = MAY(RECOVERED),                          \
    }

#define DISK_FULL(in_precopy)                                                                      \
    {                                                                                              \
        [PHASE_SETUP] = MAY(STAYED), [PHASE_PRECOPY] = (in_precopy),                               \
        [PHASE_SWITCHOVER] = MAY(STAYED) | MAY(MOVED), [PHASE_POSTCOPY] = MAY(MOVED),              \
        [PHASE_RECOVERY] = MAY(RECOVERED),                                                         \
    }

static const unsigned defined[FAULT_COUNT][PHASE_COUNT] = {
    [FAULT_CLOSE] = LINK_LOST,
    [FAULT_RESET] = LINK_LOST,
    [FAULT_TRUNCATE] = LINK_LOST,
    [FAULT_HANG] = LINK_LOST,
    /* A page that is damaged is asked for again; damage between pages ends the connection. */
    [FAULT_FLIP] =
        {
            [PHASE_SETUP] = MAY(STAYED) | MAY(MOVED),
            [PHASE_PRECOPY] = MAY(STAYED) | MAY(MOVED),
            [PHASE_SWITCHOVER] = MAY(STAYED) | MAY(RECOVERED) | MAY(MOVED),
            [PHASE_POSTCOPY] = MAY(RECOVERED) | MAY(MOVED),
            [PHASE_RECOVERY] = MAY(RECOVERED),
        },
    [FAULT_DELAY] = LINK_SLOW,
    [FAULT_SPLIT] = LINK_SLOW,
    [FAULT_STOP_SOURCE] = LINK_SLOW,
    [FAULT_STOP_DESTINATION] = LINK_SLOW,
    /* A side that cannot write its record does not let the guest change hands; afterwards it only
     * warns. */
    [FAULT_FILL_SOURCE] = DISK_FULL(MAY(STAYED) | MAY(MOVED)), /* it may be written by then */
    [FAULT_FILL_DESTINATION] = DISK_FULL(MAY(STAYED)),
    [FAULT_KILL_SOURCE] =
        {
            [PHASE_SETUP] = MAY(GONE),
            [PHASE_PRECOPY] = MAY(GONE),
            [PHASE_SWITCHOVER] = MAY(GONE) | MAY(STALLED) | MAY(UNCONFIRMED),
            [PHASE_POSTCOPY] = MAY(STALLED) | MAY(UNCONFIRMED),
            [PHASE_RECOVERY] = MAY(STALLED) | MAY(UNCONFIRMED),
        },
    [FAULT_KILL_DESTINATION] =
        {
            [PHASE_SETUP] = MAY(STAYED),
            [PHASE_PRECOPY] = MAY(STAYED),
            [PHASE_SWITCHOVER] = MAY(STAYED) | MAY(HELD) | MAY(GONE) | MAY(UNDECIDED),
            [PHASE_POSTCOPY] = MAY(HELD) | MAY(GONE),
            [PHASE_RECOVERY] = MAY(HELD) | MAY(GONE),
        },
};

const char *
phase_name(Phase phase)
{
    return phase_names[phase];
}

const char *
outcome_name(Outcome outcome)
{
    return outcome_names[outcome];
}

/* Only the urgent channel is harmed: nobody may notice before the first request is due. */
static unsigned
urgent_mask(const Blow *blow)
{
    const unsigned *of = defined[blow->fault];
    const RelayStrike *strike = &blow->strike;
    bool is_alone = strike->act != RELAY_CALL && strike->connection && !strike->on_all;

    return is_alone ? of[PHASE_SWITCHOVER] | of[PHASE_POSTCOPY] : 0;
}

/* Without postcopy-ram nobody comes again to ask. */
static unsigned
unasked_mask(const Plan *plan, const Blow *blow, Phase phase)
{
    bool can_break =
        blow->strike.act != RELAY_CALL && blow->fault != FAULT_DELAY && blow->fault != FAULT_SPLIT;
    return !plan->is_postcopy && can_break && phase == PHASE_SWITCHOVER
               ? MAY(UNCONFIRMED) | MAY(UNDECIDED)
               : 0;
}

/* Killed after the end, a process takes with it what it has. */
unsigned
outcome_mask(const Plan *plan, const Blow *blow, Phase phase)
{
    if (phase != PHASE_UNHIT)
        return defined[blow->fault][phase] | urgent_mask(blow) | unasked_mask(plan, blow, phase);
    return MAY(MOVED) | (blow->fault == FAULT_KILL_SOURCE ? MAY(UNCONFIRMED) : 0) |
           (blow->fault == FAULT_KILL_DESTINATION ? MAY(GONE) : 0);
}

char *
outcome_describe(unsigned mask)
{
    GString *text = g_string_new(NULL);

    for (unsigned i = 0; i < OUTCOME_COUNT; i++)
        if (mask >> i & 1)
            g_string_append_printf(text, "%s%s", text->len ? ", " : "", outcome_names[i]);
    return g_string_free(text, FALSE);
}
