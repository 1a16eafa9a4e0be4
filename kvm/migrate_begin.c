/* SPDX-License-Identifier: MIT */
/*
 * The phases begin and prepare of `faultline migrate`. Begin only asks. Prepare changes settings
 * and makes the destination listen: the guest does not notice. One thread.
 */
#include "kvm/command.h"
#include "kvm/migrate.h"

#include "engine/faultline.h"

#include <string.h>

#define LISTEN_LIMIT_US (20 * G_USEC_PER_SEC)
#define POLL_US         20000
#define PRESET_URI      "tcp:127.0.0.1:0"

static bool fail(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool
fail(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, text);
    return false;
}

/* ---- Begin ----------------------------------------------------------------------------------- */

static bool
check_source(Migrate *migrate, GError **error)
{
    MigrateLook look;

    if (!migrate_side_open(&migrate->source, error) ||
        !migrate_side_look(&migrate->source, &look, error))
        return false;
    if (migrate_look_is_under_way(&look) || migrate_look_is(&look, "postcopy-paused"))
        return fail(error,
                    "the source has a migration of status %s already; wait for its end, or "
                    "cancel it",
                    look.status);
    migrate->was_running = migrate_look_runs(&look, "running");
    if (!migrate->was_running && !migrate_look_runs(&look, "paused") &&
        !migrate_look_runs(&look, "prelaunch"))
        return fail(error, "the source has no guest to move: its state is %s", look.run_state);
    return true;
}

static bool
check_destination(Migrate *migrate, GError **error)
{
    MigrateLook look;

    if (!migrate_side_open(&migrate->destination, error) ||
        !migrate_side_look(&migrate->destination, &look, error))
        return false;
    if (!migrate_look_runs(&look, "inmigrate") && !migrate_look_runs(&look, "prelaunch"))
        return fail(error,
                    "the destination cannot take a guest: its state is %s; start one with "
                    "--incoming defer",
                    look.run_state);
    if (migrate_look_is_under_way(&look) && !migrate_look_is(&look, "setup"))
        return fail(error, "the destination is receiving a guest already (%s)", look.status);
    return true;
}

/* Rows of the doctor that are closed, one a line. The machines may have other rights than we: it is
 * advice, and what they refuse by themselves counts. */
static void
ask_doctor(Migrate *migrate)
{
    g_autofree char *program = g_file_read_link("/proc/self/exe", NULL);
    char *arguments[] = {program,           (char *)"doctor",  (char *)"--json",
                         (char *)"--guest", (char *)"threads", NULL};
    g_autofree char *text = NULL;
    unsigned closed = 0;

    if (!program || !g_spawn_sync(NULL, arguments, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL,
                                  &text, NULL, NULL, NULL))
        return;
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_autoptr(JsonNode) node = *lines[i] ? json_from_string(lines[i], NULL) : NULL;
        JsonObject *row = node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
        if (!row ||
            g_strcmp0(json_object_get_string_member_with_default(row, "state", ""), "closed") != 0)
            continue;
        closed++;
        migrate_report_say(&migrate->report, "doctor: %s: %s %s",
                           json_object_get_string_member_with_default(row, "tried", ""),
                           json_object_get_string_member_with_default(row, "found", ""),
                           json_object_get_string_member_with_default(row, "remedy", ""));
    }
    if (closed == 0)
        migrate_report_say(&migrate->report, "doctor: nothing is closed on this host");
}

bool
migrate_begin(Migrate *migrate, GError **error)
{
    if (!check_source(migrate, error) || !check_destination(migrate, error) ||
        !migrate_check_memory(migrate, error))
        return false;
    migrate_report_say(&migrate->report, "the guest %s at the source; the destination waits for it",
                       migrate->was_running ? "runs" : "stands paused");
    if (migrate->options->policy.kind != MIGRATE_POSTCOPY_NEVER)
        ask_doctor(migrate);
    return true;
}

/* ---- Prepare --------------------------------------------------------------------------------- */

/* Whatever comes first in the list holds: what the user wants does. */
static void
want(GArray *wanted, const char *name, bool on)
{
    RunSetting setting = {.name = (char *)name, .value = on};

    for (unsigned i = 0; i < wanted->len; i++)
        if (g_str_equal(g_array_index(wanted, RunSetting, i).name, name))
            return;
    g_array_append_val(wanted, setting);
}

static bool
is_wanted(const GArray *wanted, const char *name)
{
    for (unsigned i = 0; i < wanted->len; i++)
        if (g_str_equal(g_array_index(wanted, RunSetting, i).name, name))
            return g_array_index(wanted, RunSetting, i).value != 0;
    return false;
}

static bool
both_know(const Migrate *migrate, const char *name)
{
    return migrate_side_knows_capability(&migrate->source, name) &&
           migrate_side_knows_capability(&migrate->destination, name);
}

/* Names are the options' and constants. */
static GArray *
wanted_capabilities(const Migrate *migrate, const MigrateSide *side)
{
    const MigrateOptions *options = migrate->options;
    GArray *wanted = g_array_new(FALSE, TRUE, sizeof(RunSetting));

    for (unsigned i = 0; i < options->capabilities->len; i++) {
        const RunSetting *setting = &g_array_index(options->capabilities, RunSetting, i);
        want(wanted, setting->name, setting->value != 0);
    }
    want(wanted, "postcopy-ram", options->policy.kind != MIGRATE_POSTCOPY_NEVER);
    want(wanted, "postcopy-preempt",
         is_wanted(wanted, "postcopy-ram") && both_know(migrate, "postcopy-preempt"));
    want(wanted, "return-path", both_know(migrate, "return-path"));
    if (side == &migrate->source)
        want(wanted, "auto-converge", options->auto_converge);
    return wanted;
}

bool
migrate_set_capabilities(MigrateSide *side, const GArray *wanted, GError **error)
{
    g_autoptr(JsonArray) list = json_array_new();

    for (unsigned i = 0; i < wanted->len; i++) {
        const RunSetting *setting = &g_array_index(wanted, RunSetting, i);
        if (!migrate_side_knows_capability(side, setting->name)) {
            if (!setting->value)
                continue;
            return fail(error, "the %s does not know the capability %s", side->name, setting->name);
        }
        JsonObject *row = json_object_new();
        json_object_set_string_member(row, "capability", setting->name);
        json_object_set_boolean_member(row, "state", setting->value != 0);
        json_array_add_object_element(list, row);
    }
    JsonObject *arguments = json_object_new();
    json_object_set_array_member(arguments, "capabilities", g_steal_pointer(&list));
    return migrate_side_do(side, "migrate-set-capabilities", arguments, error);
}

static bool
set_parameters(Migrate *migrate, MigrateSide *side, GError **error)
{
    const MigrateOptions *options = migrate->options;
    JsonObject *arguments = json_object_new();

    if (side == &migrate->source) {
        migrate_side_put_parameter(arguments, "downtime-limit",
                                   migrate_downtime_at(&migrate->downtime, 0));
        if (options->has_bandwidth)
            migrate_side_put_parameter(arguments, "max-bandwidth", options->bytes_per_s);
        if (options->has_postcopy_bandwidth)
            migrate_side_put_parameter(arguments, "max-postcopy-bandwidth",
                                       options->postcopy_bytes_per_s);
    }
    for (unsigned i = 0; i < options->parameters->len; i++) {
        const RunSetting *setting = &g_array_index(options->parameters, RunSetting, i);
        if (setting->text)
            json_object_set_string_member(arguments, setting->name, setting->text);
        else
            migrate_side_put_parameter(arguments, setting->name, setting->value);
    }
    return migrate_side_do(side, "migrate-set-parameters", arguments, error);
}

static bool
set_up(Migrate *migrate, MigrateSide *side, GError **error)
{
    g_autoptr(GArray) wanted = wanted_capabilities(migrate, side);

    return migrate_set_capabilities(side, wanted, error) && set_parameters(migrate, side, error);
}

/* One that listens takes no more settings: it must have those that both sides need. */
static bool
check_listening(Migrate *migrate, GError **error)
{
    g_autoptr(GArray) wanted = wanted_capabilities(migrate, &migrate->destination);
    const FaultlineCapabilityRow *table = faultline_capability_table();

    for (unsigned i = 0; i < wanted->len; i++) {
        const RunSetting *setting = &g_array_index(wanted, RunSetting, i);
        const FaultlineCapabilityRow *row = table;
        while (row->name && !g_str_equal(row->name, setting->name))
            row++;
        if (row->name && row->both_sides &&
            migrate_side_has_capability(&migrate->destination, row->name) != (setting->value != 0))
            return fail(error,
                        "the destination listens already, with the capability %s %s; start it "
                        "with --capability %s=%s, or with --incoming defer",
                        row->name, setting->value ? "off" : "on", row->name,
                        setting->value ? "on" : "off");
    }
    return true;
}

JsonObject *
migrate_uri_arguments(const char *uri)
{
    JsonObject *arguments = json_object_new();

    json_object_set_string_member(arguments, "uri", uri);
    return arguments;
}

/* Its process stays when the migration fails, so that it can say why, and be used again. */
static bool
say_incoming(Migrate *migrate, const char *uri, GError **error)
{
    g_autoptr(GError) reason = NULL;
    JsonObject *arguments = migrate_uri_arguments(uri);

    json_object_set_boolean_member(arguments, "exit-on-error", FALSE);
    if (migrate_side_do(&migrate->destination, "migrate-incoming", arguments, &reason))
        return true;
    if (!strstr(reason->message, "exit-on-error")) {
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    return migrate_side_do(&migrate->destination, "migrate-incoming", migrate_uri_arguments(uri),
                           error); /* a QEMU before 9.1 */
}

/* A listener at any address is reached from this host by loopback. */
static char *
reachable(const char *uri)
{
    static const char *const any[] = {"tcp:0.0.0.0:", "tcp:[::]:"};

    for (unsigned i = 0; i < G_N_ELEMENTS(any); i++)
        if (g_str_has_prefix(uri, any[i]))
            return g_strconcat("tcp:127.0.0.1:", uri + strlen(any[i]), NULL);
    return g_strdup(uri);
}

bool
migrate_listen(Migrate *migrate, GError **error)
{
    const char *wish = migrate->options->uri ? migrate->options->uri : PRESET_URI;
    int64_t until_us = g_get_monotonic_time() + LISTEN_LIMIT_US;
    MigrateLook look;

    if (!say_incoming(migrate, wish, error))
        return false;
    while (true) {
        g_autoptr(GError) reason = NULL;
        g_autofree char *address = migrate_side_listening(&migrate->destination, &reason);
        if (address) {
            g_free(migrate->uri);
            migrate->uri = g_str_has_suffix(wish, ":0") ? reachable(address) : reachable(wish);
            return true;
        }
        if (reason || !migrate_side_look(&migrate->destination, &look, &reason)) {
            g_propagate_error(error, g_steal_pointer(&reason));
            return false;
        }
        if (migrate_look_is(&look, "failed"))
            return fail(error, "destination: listening at %s: %s", wish, look.error);
        if (g_get_monotonic_time() > until_us)
            return fail(error, "destination: it does not say where it listens");
        migrate_pause_us(POLL_US);
    }
}

bool
migrate_prepare(Migrate *migrate, GError **error)
{
    g_autoptr(GError) reason = NULL;
    g_autofree char *address = migrate_side_listening(&migrate->destination, &reason);

    if (reason) {
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    if (!set_up(migrate, &migrate->source, error))
        return false;
    if (address) {
        migrate->uri = migrate->options->uri ? g_strdup(migrate->options->uri) : reachable(address);
        if (!check_listening(migrate, error))
            return false;
    } else if (!set_up(migrate, &migrate->destination, error) || !migrate_listen(migrate, error)) {
        return false;
    }
    migrate_report_say(&migrate->report, "the destination listens at %s", migrate->uri);
    return true;
}
