/* SPDX-License-Identifier: MIT */
/*
 * Rising downtime and the policies of the switch to postcopy. Only arithmetic on what it is given;
 * looking at the migration and acting on the answers is left to migrate_perform.c.
 */
#include "kvm/migrate_policy.h"

#include <math.h>
#include <string.h>

#define STALLED_PASSES 2
#define LEAST_SHRINK   20 /* one part in so many; less is noise of the guest */
#define GIB            ((double)(1ull << 30))
#define TIME_LIMIT_MS  (1000.0 * 3600 * 24 * 365)

static double
delay_ms(const MigrateDowntime *downtime)
{
    return (double)downtime->delay_ms_per_gib * (double)downtime->guest_bytes / GIB;
}

uint64_t
migrate_downtime_at(const MigrateDowntime *downtime, uint64_t elapsed_ms)
{
    double delay = delay_ms(downtime);

    if (!downtime->steps || (double)elapsed_ms >= delay * downtime->steps)
        return downtime->limit_ms;
    double step = floor((double)elapsed_ms / delay);
    double first = (double)downtime->limit_ms / downtime->steps;
    return (uint64_t)(first + ((double)downtime->limit_ms - first) * step / downtime->steps);
}

uint64_t
migrate_downtime_full_ms(const MigrateDowntime *downtime)
{
    return (uint64_t)ceil(delay_ms(downtime) * downtime->steps);
}

/* A pass is judged once, when it is first seen. */
static bool
is_stalled(MigrateWatch *watch, uint64_t pass, uint64_t remaining_bytes)
{
    if (watch->count_stalled >= STALLED_PASSES || pass <= watch->pass)
        return watch->count_stalled >= STALLED_PASSES;
    bool is_first = watch->pass == 0;
    watch->pass = pass;
    if (is_first || remaining_bytes < watch->least_bytes - watch->least_bytes / LEAST_SHRINK) {
        watch->least_bytes = remaining_bytes;
        watch->count_stalled = 0;
    } else {
        watch->count_stalled++;
    }
    return watch->count_stalled >= STALLED_PASSES;
}

bool
migrate_policy_wants_postcopy(const MigratePolicy *policy, MigrateWatch *watch, uint64_t elapsed_ms,
                              uint64_t pass, uint64_t remaining_bytes)
{
    switch (policy->kind) {
    case MIGRATE_POSTCOPY_AFTER_PASS:
        return pass > policy->value;
    case MIGRATE_POSTCOPY_TIMEOUT:
        return elapsed_ms >= policy->value;
    case MIGRATE_POSTCOPY_STALL:
        return is_stalled(watch, pass, remaining_bytes);
    default:
        return false;
    }
}

/* ---- Texts ----------------------------------------------------------------------------------- */

static bool
parse_count(const char *text, uint64_t *ret_count)
{
    return g_ascii_string_to_unsigned(text, 10, 0, UINT32_MAX, ret_count, NULL);
}

bool
migrate_policy_parse(const char *text, MigratePolicy *ret_policy)
{
    static const char after_pass[] = "after-pass=", timeout[] = "timeout=";

    *ret_policy = (MigratePolicy){.kind = MIGRATE_POSTCOPY_NEVER};
    if (g_str_equal(text, "never"))
        return true;
    ret_policy->kind = MIGRATE_POSTCOPY_STALL;
    if (g_str_equal(text, "stall"))
        return true;
    ret_policy->kind = MIGRATE_POSTCOPY_AFTER_PASS;
    if (g_str_has_prefix(text, after_pass))
        return parse_count(text + strlen(after_pass), &ret_policy->value);
    ret_policy->kind = MIGRATE_POSTCOPY_TIMEOUT;
    return g_str_has_prefix(text, timeout) &&
           migrate_time_parse(text + strlen(timeout), &ret_policy->value);
}

bool
migrate_time_parse(const char *text, uint64_t *ret_ms)
{
    static const struct {
        const char *unit;
        double ms;
    } units[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}};
    char *unit;

    if (!g_ascii_isdigit(*text) || text[strspn(text, "0123456789.")] == '\0')
        return false;
    double value = g_ascii_strtod(text, &unit);
    if ((size_t)(unit - text) != strspn(text, "0123456789."))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(units); i++) {
        if (!g_str_equal(unit, units[i].unit) || value * units[i].ms > TIME_LIMIT_MS)
            continue;
        *ret_ms = (uint64_t)(value * units[i].ms + 0.5);
        return true;
    }
    return false;
}
