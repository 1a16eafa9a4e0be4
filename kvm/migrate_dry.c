/* SPDX-License-Identifier: MIT */
/*
 * `faultline migrate --dry-run`: measures how much the guest writes and what the link carries, and
 * tells what migrate_model.h makes of it. One thread.
 *
 * The guest's writes: two measurements by calc-dirty-rate, of which the longer tells the working
 * set. The link: what a real migration carries in its first moments, with the limit that the
 * migration would have, cancelled long before its end. The one without a limit goes on for a while,
 * to see how much of memory is zero, which costs a first pass next to nothing. That it cannot end
 * is held three times: the downtime is 0, the source would wait in pre-switchover, and nobody tells
 * it to go on. What was set for it is set back. A destination that listens already would end with
 * it, and so is not used.
 */
#include "kvm/command.h"
#include "kvm/migrate.h"
#include "kvm/migrate_model.h"

#define SHORT_MS        400
#define LONG_MS         2000
#define POLL_US         5000
#define TRIAL_US        (700 * 1000)
#define TRIAL_ENOUGH_US (20 * 1000)
#define TRIAL_PART      4 /* of its memory is left when there is enough to tell */
#define CONTENT_US      (2 * G_USEC_PER_SEC)
#define WAIT_LIMIT_US   (30 * G_USEC_PER_SEC)
#define MIB             1048576.0

typedef struct Measured {
    JsonNode *parameters;           /* of the source, as they were */
    uint64_t limit, postcopy_limit; /* bytes a second, 0: none */
    double precopy, link;           /* bytes a second: under limit, without; 0: was not measured */
    MigrateWrites writes;
    double guest_bytes, content_part; /* of it that is not zero */
} Measured;

/* What a trial tells, as it goes on. */
typedef struct Trial {
    int64_t until_us, began_us, began_bytes; /* bytes: transferred */
    double link, content_part;
    bool has_link; /* and it holds: what comes later may be zero, and tells of the source alone */
} Trial;

static bool
fail(GError **error, const char *text)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, text);
    return false;
}

static bool
check_interrupt(GError **error)
{
    if (!migrate_take_interrupt())
        return true;
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "cancelled");
    return false;
}

static uint64_t
parameter(const Measured *measured, const char *name)
{
    JsonObject *object = json_node_get_object(measured->parameters);

    return (uint64_t)MAX(json_object_get_int_member_with_default(object, name, 0), 0);
}

/* ---- What the guest writes ------------------------------------------------------------------- */

/* MiB/s. */
static bool
await_rate(MigrateSide *source, double *ret_rate, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + WAIT_LIMIT_US;

    while (g_get_monotonic_time() < until_us && check_interrupt(error)) {
        g_autoptr(JsonNode) node = migrate_side_ask(source, "query-dirty-rate", NULL, error);
        if (!node)
            return false;
        JsonObject *reply = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
        if (reply && json_object_has_member(reply, "dirty-rate")) {
            *ret_rate = (double)json_object_get_int_member(reply, "dirty-rate");
            return true;
        }
        migrate_pause_us(POLL_US);
    }
    return error && *error ? false : fail(error, "source: calc-dirty-rate comes to no end");
}

/* Bytes written at least once in that time. */
static bool
measure_writes(MigrateSide *source, unsigned ms, double *ret_bytes, GError **error)
{
    JsonObject *arguments = json_object_new();
    double rate;

    json_object_set_int_member(arguments, "calc-time", ms);
    json_object_set_string_member(arguments, "calc-time-unit", "millisecond");
    if (!migrate_side_do(source, "calc-dirty-rate", arguments, error) ||
        !await_rate(source, &rate, error))
        return false;
    *ret_bytes = rate * MIB * ms / 1000;
    return true;
}

static bool
measure_guest(Migrate *migrate, Measured *measured, GError **error)
{
    double in_short, in_long;

    if (!measure_writes(&migrate->source, SHORT_MS, &in_short, error) ||
        !measure_writes(&migrate->source, LONG_MS, &in_long, error))
        return false;
    measured->writes = migrate_writes_fit(SHORT_MS / 1000.0, in_short, LONG_MS / 1000.0, in_long,
                                          measured->guest_bytes);
    migrate_report_say(&migrate->report,
                       "the guest has %.0f MiB, writes %.0f MiB/s of it, in a working set of %.0f "
                       "MiB",
                       measured->guest_bytes / MIB, measured->writes.bytes_per_s / MIB,
                       measured->writes.working_bytes / MIB);
    return true;
}

/* ---- What the link carries ------------------------------------------------------------------- */

static bool
set_guards(Migrate *migrate, uint64_t limit, GError **error)
{
    g_autoptr(GArray) guards = g_array_new(FALSE, TRUE, sizeof(RunSetting));
    const RunSetting wait = {.name = (char *)"pause-before-switchover", .value = 1};
    JsonObject *arguments = json_object_new();

    g_array_append_val(guards, wait);
    migrate_side_put_parameter(arguments, "downtime-limit", 0);
    migrate_side_put_parameter(arguments, "max-bandwidth", limit);
    return migrate_side_do(&migrate->source, "migrate-set-parameters", arguments, error) &&
           migrate_set_capabilities(&migrate->source, guards, error);
}

static void
restore(Migrate *migrate, const Measured *measured)
{
    static const char *const names[] = {"downtime-limit", "max-bandwidth",
                                        "max-postcopy-bandwidth"};
    MigrateSide *const sides[] = {&migrate->source, &migrate->destination};
    JsonObject *parameters = json_object_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
        migrate_side_put_parameter(parameters, names[i], parameter(measured, names[i]));
    migrate_side_do(&migrate->source, "migrate-set-parameters", parameters, NULL);
    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        if (!sides[i]->capabilities)
            continue;
        JsonObject *arguments = json_object_new();
        json_object_set_member(arguments, "capabilities", json_node_copy(sides[i]->capabilities));
        migrate_side_do(sides[i], "migrate-set-capabilities", arguments, NULL);
    }
}

static double
content_part(const MigrateLook *look)
{
    double seen = (double)look->zero_pages + (double)look->normal_pages;

    return look->zero_pages < 0 || look->normal_pages < 0 || seen == 0
               ? 1
               : (double)look->normal_pages / seen;
}

/* A first pass that was too short to be timed from outside is told by what the source measured
 * itself. Returns whether there is enough to tell. */
static bool
take_look(Trial *trial, const MigrateLook *look, int64_t now_us)
{
    bool is_first = migrate_look_is(look, "active") && look->pass == 1;

    if (is_first && !trial->began_us && look->remaining_bytes < look->total_bytes) {
        trial->began_us = now_us;
        trial->began_bytes = look->transferred_bytes;
    }
    int64_t took_us = trial->began_us ? now_us - trial->began_us : 0;
    bool is_timed = is_first && took_us > TRIAL_ENOUGH_US;
    bool is_over = look->pass > 1 || migrate_look_is(look, "pre-switchover");
    if (is_first || trial->content_part == 0)
        trial->content_part = content_part(look);
    if (is_timed && !trial->has_link)
        trial->link =
            (double)(look->transferred_bytes - trial->began_bytes) * 1e6 / (double)took_us;
    else if (is_over && trial->link <= 0)
        trial->link = (double)look->bytes_per_s;
    trial->has_link |= is_over || took_us > TRIAL_US ||
                       (is_timed && look->remaining_bytes < look->total_bytes / TRIAL_PART);
    return trial->has_link;
}

/* for_content: goes on to see as much of the memory as there is time for. */
static bool
watch_trial(Migrate *migrate, Trial *trial, bool for_content, GError **error)
{
    MigrateLook look;
    bool is_enough = false, is_seen = false;

    while (!is_enough || !is_seen) {
        if (!check_interrupt(error) || !migrate_side_look(&migrate->source, &look, error))
            return false;
        int64_t now_us = g_get_monotonic_time();
        if (migrate_look_is(&look, "failed")) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "trying the link: %s", look.error);
            return false;
        }
        is_enough = take_look(trial, &look, now_us);
        is_seen = !for_content || look.pass > 1 || migrate_look_is(&look, "pre-switchover") ||
                  (trial->began_us && now_us - trial->began_us > CONTENT_US);
        if (now_us > trial->until_us)
            return fail(error, "trying the link: the migration does not begin");
        migrate_pause_us(POLL_US);
    }
    return trial->link > 0 || fail(error, "trying the link: the source tells no bandwidth");
}

/* Settings can be changed again, and the next trial can begin. */
static bool
await_rest(MigrateSide *side, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + WAIT_LIMIT_US;
    MigrateLook look;

    while (migrate_side_look(side, &look, error)) {
        if (!migrate_look_is_under_way(&look))
            return true;
        if (g_get_monotonic_time() > until_us) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "the trial of the link does not end at the %s; run migrate_cancel at the "
                        "source",
                        side->name);
            return false;
        }
        migrate_pause_us(POLL_US);
    }
    return false;
}

static bool
cancel_trial(Migrate *migrate, GError **error)
{
    return migrate_side_do(&migrate->source, "migrate_cancel", NULL, error) &&
           await_rest(&migrate->source, error) && await_rest(&migrate->destination, error);
}

static bool
run_trial(Migrate *migrate, uint64_t limit, Trial *trial, GError **error)
{
    g_autoptr(GError) reason = NULL;

    *trial = (Trial){.until_us = g_get_monotonic_time() + WAIT_LIMIT_US};
    if (!migrate_prepare(migrate, error) || !set_guards(migrate, limit, error) ||
        !migrate_side_do(&migrate->source, "migrate", migrate_uri_arguments(migrate->uri), error))
        return false;
    bool good = watch_trial(migrate, trial, limit == 0, error);
    bool ended = cancel_trial(migrate, &reason);
    if (!ended && good)
        g_propagate_error(error, g_steal_pointer(&reason));
    return good && ended;
}

static bool
measure_link(Migrate *migrate, Measured *measured, GError **error)
{
    g_autofree char *listening =
        migrate->options->to ? migrate_side_listening(&migrate->destination, error) : NULL;

    if (error && *error)
        return false;
    if (!migrate->options->to || listening) {
        if (measured->limit == 0)
            return fail(error, listening
                                   ? "the destination listens already, and trying the link would "
                                     "end it: start it with --incoming defer, or give --bandwidth"
                                   : "no limit of bandwidth is set, and there is no destination to "
                                     "measure with: give --to or --bandwidth");
        migrate_report_say(&migrate->report, "the link was not measured; the limit is %.1f MiB/s",
                           (double)measured->limit / MIB);
        return true;
    }
    Trial free, limited;
    bool good = run_trial(migrate, 0, &free, error);
    measured->link = measured->precopy = free.link;
    measured->content_part = free.content_part;
    if (good && measured->limit != 0) {
        good = run_trial(migrate, measured->limit, &limited, error);
        measured->precopy = limited.link;
    }
    restore(migrate, measured);
    if (good)
        migrate_report_say(&migrate->report,
                           "the link carries %.1f MiB/s, precopy gets %.1f MiB/s; %.0f%% of "
                           "memory is not zero",
                           measured->link / MIB, measured->precopy / MIB,
                           100 * measured->content_part);
    return good;
}

/* ---- What would happen ----------------------------------------------------------------------- */

static bool
measure(Migrate *migrate, Measured *measured, GError **error)
{
    const MigrateOptions *options = migrate->options;
    MigrateLook look;

    if (options->to ? !migrate_begin(migrate, error)
                    : !migrate_side_look(&migrate->source, &look, error))
        return false;
    g_autoptr(JsonNode) memory =
        migrate_side_ask(&migrate->source, "query-memory-size-summary", NULL, error);
    measured->parameters =
        memory ? migrate_side_ask(&migrate->source, "query-migrate-parameters", NULL, error) : NULL;
    if (!measured->parameters)
        return false;
    if (!JSON_NODE_HOLDS_OBJECT(memory) || !JSON_NODE_HOLDS_OBJECT(measured->parameters))
        return fail(error, "source: an answer is no object");
    measured->guest_bytes = (double)json_object_get_int_member_with_default(
        json_node_get_object(memory), "base-memory", 0);
    migrate->downtime.guest_bytes = (uint64_t)measured->guest_bytes;
    measured->limit =
        options->has_bandwidth ? options->bytes_per_s : parameter(measured, "max-bandwidth");
    measured->postcopy_limit = options->has_postcopy_bandwidth
                                   ? options->postcopy_bytes_per_s
                                   : parameter(measured, "max-postcopy-bandwidth");
    return measure_guest(migrate, measured, error) && measure_link(migrate, measured, error);
}

static double
least_rate(double link, uint64_t limit)
{
    return limit != 0 && (link <= 0 || (double)limit < link) ? (double)limit : link;
}

static void
forecast(const Migrate *migrate, const Measured *measured, MigratePolicy policy,
         MigrateForecast *ret_forecast)
{
    double precopy = least_rate(measured->precopy, measured->limit);
    double link = MAX(measured->link, precopy);
    const MigratePlan plan = {
        .guest_bytes = measured->guest_bytes,
        .content_bytes = measured->guest_bytes * measured->content_part,
        .writes = measured->writes,
        .bytes_per_s = precopy,
        .link_bytes_per_s = link,
        .postcopy_bytes_per_s = least_rate(link, measured->postcopy_limit),
        .downtime = migrate->downtime,
        .policy = policy,
    };

    migrate_forecast(&plan, ret_forecast);
}

static char *
forecast_text(const MigrateForecast *forecast)
{
    if (!forecast->completes)
        return g_strdup_printf("It does not converge: after %" G_GUINT64_FORMAT
                               " passes and %.1f s, each pass leaves "
                               "%.1f MiB. With a --downtime of %.0f ms it would.",
                               forecast->passes, forecast->seconds, forecast->remaining_bytes / MIB,
                               forecast->downtime_s * 1000);
    if (forecast->postcopy)
        return g_strdup_printf("It switches to postcopy in pass %" G_GUINT64_FORMAT
                               ", with %.1f MiB left, and takes %.1f s; in the downtime only "
                               "device state is sent.",
                               forecast->passes, forecast->remaining_bytes / MIB,
                               forecast->seconds);
    return g_strdup_printf("It converges in %" G_GUINT64_FORMAT " passes and takes %.1f s; the "
                           "guest stands still for %.0f ms.",
                           forecast->passes, forecast->seconds, forecast->downtime_s * 1000);
}

static void
put_forecast(JsonObject *object, const char *name, const MigrateForecast *forecast)
{
    JsonObject *member = json_object_new();

    json_object_set_boolean_member(member, "completes", forecast->completes);
    json_object_set_boolean_member(member, "postcopy", forecast->postcopy);
    json_object_set_int_member(member, "passes", (int64_t)forecast->passes);
    json_object_set_int_member(member, "remaining-bytes", (int64_t)forecast->remaining_bytes);
    json_object_set_double_member(member, "downtime-ms", forecast->downtime_s * 1000);
    json_object_set_double_member(member, "total-ms", forecast->seconds * 1000);
    json_object_set_object_member(object, name, member);
}

static int
tell(Migrate *migrate, const Measured *measured)
{
    static const MigratePolicy stall = {.kind = MIGRATE_POSTCOPY_STALL};
    MigrateForecast asked, instead;

    forecast(migrate, measured, migrate->options->policy, &asked);
    forecast(migrate, measured, stall, &instead);
    if (migrate->report.json) {
        JsonObject *object = json_object_new();
        put_forecast(object, "forecast", &asked);
        if (!asked.completes)
            put_forecast(object, "with-postcopy", &instead);
        migrate_report_object(&migrate->report, object);
        return asked.completes ? EXIT_OK : EXIT_FAILED;
    }
    g_autofree char *text = forecast_text(&asked);
    migrate_report_say(&migrate->report, "%s", text);
    if (!asked.completes) {
        g_autofree char *other = forecast_text(&instead);
        migrate_report_say(&migrate->report, "With --postcopy stall: %s", other);
    }
    return asked.completes ? EXIT_OK : EXIT_FAILED;
}

int
migrate_dry_run(Migrate *migrate)
{
    g_autoptr(GError) error = NULL;
    Measured measured = {.content_part = 1};

    migrate_report_phase(&migrate->report, "dry-run");
    bool good = measure(migrate, &measured, &error);
    int exit_code = good ? tell(migrate, &measured) : migrate_settle(migrate, error);
    g_clear_pointer(&measured.parameters, json_node_unref);
    return exit_code;
}
