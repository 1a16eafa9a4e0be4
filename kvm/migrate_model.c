/* SPDX-License-Identifier: MIT */
/*
 * Walks through the passes of a migration that does not take place. The rules are those of the
 * engine (a pass ends it when the rest can be sent in the allowed downtime) and of
 * migrate_policy.c. Arithmetic only.
 */
#include "kvm/migrate_model.h"

#include <math.h>

#define BISECTIONS   60
#define SATURATED    64.0  /* exponents: all of the working set was written long ago */
#define SHRINKS      0.999 /* a pass that leaves more than that of the last one goes nowhere */
#define PASSES_LIMIT 1000000
#define NOTHING      1e-9

/* ---- The guest ------------------------------------------------------------------------------- */

/* (1 - exp(-a * k)) / (1 - exp(-a)): falls from k at a = 0 to 1. */
static double
ratio_at(double a, double k)
{
    return expm1(-a * k) / expm1(-a);
}

MigrateWrites
migrate_writes_fit(double s1, double written1, double s2, double written2, double guest_bytes)
{
    double k = s2 / s1, low = NOTHING, high = SATURATED;

    if (written2 <= 0)
        return (MigrateWrites){.working_bytes = guest_bytes};
    double ratio = written1 > 0 ? written2 / written1 : k;
    for (unsigned i = 0; i < BISECTIONS; i++) {
        double middle = (low + high) / 2;
        if (ratio_at(middle, k) > ratio)
            low = middle;
        else
            high = middle;
    }
    MigrateWrites writes = {.working_bytes = MAX(written1, written2) / -expm1(-low * k)};
    writes.bytes_per_s = low * writes.working_bytes / s1;
    if (writes.working_bytes <= guest_bytes)
        return writes;

    /* The working set cannot be told, but it is not larger than the guest. */
    double part = MIN(written2 / guest_bytes, 1 - NOTHING);
    return (MigrateWrites){.working_bytes = guest_bytes,
                           .bytes_per_s = -log1p(-part) * guest_bytes / s2};
}

double
migrate_writes_in(const MigrateWrites *writes, double seconds)
{
    if (writes->working_bytes <= 0)
        return 0;
    return writes->working_bytes * -expm1(-writes->bytes_per_s * seconds / writes->working_bytes);
}

/* ---- Passes ---------------------------------------------------------------------------------- */

static void
end_by_postcopy(const MigratePlan *plan, double seconds, double remaining_bytes,
                MigrateForecast *forecast)
{
    forecast->completes = forecast->postcopy = true;
    forecast->remaining_bytes = MIN(remaining_bytes, plan->guest_bytes);
    forecast->seconds = seconds + forecast->remaining_bytes / plan->postcopy_bytes_per_s;
    forecast->downtime_s = 0;
}

/* The wish comes within the pass that would take until `seconds + pass_s`. */
static bool
is_timed_out(const MigratePlan *plan, double seconds, double pass_s, double pass_bytes,
             MigrateForecast *forecast)
{
    double at_s = (double)plan->policy.value / 1000 - seconds;

    if (plan->policy.kind != MIGRATE_POSTCOPY_TIMEOUT || at_s > pass_s)
        return false;
    at_s = MAX(at_s, 0);
    double unsent = pass_bytes - at_s * plan->bytes_per_s;
    /* Some of what was written had not been sent in this pass anyway. */
    double among = MAX(pass_bytes, plan->writes.working_bytes);
    double written = migrate_writes_in(&plan->writes, at_s) * (1 - unsent / among);
    end_by_postcopy(plan, seconds + at_s, unsent + written, forecast);
    return true;
}

static bool
is_in_vain(const MigratePlan *plan, double seconds, double remaining_bytes, double dirty_bytes)
{
    return plan->policy.kind == MIGRATE_POSTCOPY_NEVER &&
           seconds * 1000 >= (double)migrate_downtime_full_ms(&plan->downtime) &&
           dirty_bytes >= remaining_bytes * SHRINKS;
}

/* The engine asks whether the rest can be sent in the allowed downtime at the bandwidth it had. */
static void
end_pass(const MigratePlan *plan, uint64_t pass, double seconds, double dirty_bytes,
         MigrateForecast *forecast)
{
    double allowed_ms = (double)migrate_downtime_at(&plan->downtime, (uint64_t)(seconds * 1000));
    double needed_s = dirty_bytes / plan->bytes_per_s;
    double downtime_s = dirty_bytes / plan->link_bytes_per_s;
    bool completes = needed_s * 1000 <= allowed_ms;

    *forecast = (MigrateForecast){
        .completes = completes,
        .passes = pass,
        .remaining_bytes = dirty_bytes,
        .seconds = seconds + (completes ? downtime_s : 0),
        .downtime_s = completes ? downtime_s : needed_s,
    };
}

void
migrate_forecast(const MigratePlan *plan, MigrateForecast *ret_forecast)
{
    double seconds = 0, remaining = plan->content_bytes;
    MigrateWatch watch = {0};

    *ret_forecast = (MigrateForecast){.completes = false};
    for (uint64_t pass = 1; pass <= PASSES_LIMIT; pass++) {
        double pass_s = remaining / plan->bytes_per_s;
        ret_forecast->passes = pass;
        if ((pass == 1 && migrate_policy_wants_postcopy(&plan->policy, &watch, 0, pass,
                                                        (uint64_t)plan->guest_bytes)) ||
            is_timed_out(plan, seconds, pass_s, remaining, ret_forecast)) {
            if (!ret_forecast->postcopy)
                end_by_postcopy(plan, 0, remaining, ret_forecast);
            return;
        }
        seconds += pass_s;
        double dirty = migrate_writes_in(&plan->writes, pass_s);
        end_pass(plan, pass, seconds, dirty, ret_forecast);
        if (ret_forecast->completes || is_in_vain(plan, seconds, remaining, dirty))
            return;
        if (migrate_policy_wants_postcopy(&plan->policy, &watch, (uint64_t)(seconds * 1000),
                                          pass + 1, (uint64_t)dirty)) {
            end_by_postcopy(plan, seconds, dirty, ret_forecast);
            return;
        }
        remaining = dirty;
    }
}
