/* SPDX-License-Identifier: MIT */
/*
 * Parsing of `faultline migrate`'s options: each text by a strict rule, with an error that says
 * what would be right. Main thread only.
 */
#include "kvm/migrate_options.h"
#include "kvm/run_options.h"

#define DOWNTIME  "300ms"
#define DELAY     "5s"
#define STEPS     10
#define STEPS_MAX 1000

/* What GOption fills; checked afterwards. */
typedef struct RawOptions {
    char *downtime, *delay, *bandwidth, *postcopy_bandwidth, *policy;
    char **capabilities, **parameters, **rest;
    int steps;
} RawOptions;

static bool
take_time(const char *option, const char *text, uint64_t *ret_ms, GError **error)
{
    return migrate_time_parse(text, ret_ms) ||
           run_options_refuse(error, "%s: \"%s\" is no time; give e.g. 300ms, 5s or 2m", option,
                              text);
}

static bool
take_rate(const char *option, const char *text, bool *ret_is_given, uint64_t *ret_rate,
          GError **error)
{
    *ret_is_given = text != NULL;
    if (!text || run_options_parse_size(text, ret_rate, error))
        return true;
    g_prefix_error(error, "%s: ", option);
    return false;
}

static bool
take_settings(char **texts, bool (*parse)(const char *, RunSetting *, GError **), GArray *settings,
              GError **error)
{
    for (; texts && *texts; texts++) {
        RunSetting setting;
        if (!parse(*texts, &setting, error))
            return false;
        g_array_append_val(settings, setting);
    }
    return true;
}

static bool
take_sides(const MigrateOptions *options, const RawOptions *raw, GError **error)
{
    if (raw->rest)
        return run_options_refuse(error, "\"%s\" is one word too many; it takes options only",
                                  raw->rest[0]);
    if (!options->from)
        return run_options_refuse(
            error, "--from is missing: give the QMP socket of the machine that moves");
    if (!options->to && !options->dry_run)
        return run_options_refuse(
            error, "--to is missing: give the QMP socket of a machine that was started "
                   "with --incoming");
    if (options->to && g_str_equal(options->to, options->from))
        return run_options_refuse(error, "--from and --to are the same machine");
    return true;
}

static bool
check(MigrateOptions *options, const RawOptions *raw, GError **error)
{
    options->policy.kind = MIGRATE_POSTCOPY_NEVER;
    if (raw->policy && !migrate_policy_parse(raw->policy, &options->policy))
        return run_options_refuse(
            error, "--postcopy %s: give never, after-pass=N, timeout=TIME (e.g. 30s) or stall",
            raw->policy);
    if (raw->steps < 0 || raw->steps > STEPS_MAX)
        return run_options_refuse(error, "--downtime-steps %d: give 0 to %d", raw->steps,
                                  STEPS_MAX);
    options->downtime.steps = (unsigned)raw->steps;
    return take_sides(options, raw, error) &&
           take_time("--downtime", raw->downtime ? raw->downtime : DOWNTIME,
                     &options->downtime.limit_ms, error) &&
           take_time("--downtime-delay", raw->delay ? raw->delay : DELAY,
                     &options->downtime.delay_ms_per_gib, error) &&
           take_rate("--bandwidth", raw->bandwidth, &options->has_bandwidth, &options->bytes_per_s,
                     error) &&
           take_rate("--postcopy-bandwidth", raw->postcopy_bandwidth,
                     &options->has_postcopy_bandwidth, &options->postcopy_bytes_per_s, error) &&
           take_settings(raw->capabilities, run_options_parse_capability, options->capabilities,
                         error) &&
           take_settings(raw->parameters, run_options_parse_parameter, options->parameters, error);
}

static void
describe(GOptionContext *context)
{
    g_option_context_set_summary(
        context,
        "Moves the guest of a running machine to another one, and drives both by their QMP\n"
        "sockets: begin, prepare, perform, finish, confirm. The guest runs at one side\n"
        "only, and what comes of it says at which. Ctrl-C cancels before postcopy.");
    g_option_context_set_description(
        context,
        "Example:\n"
        "  faultline migrate --from /tmp/a --to /tmp/b --uri tcp:HOST:4444 --postcopy stall\n\n"
        "Exit codes: 0 the guest runs at the destination, 1 it failed and the guest is at the "
        "source,\n2 wrong use, 3 it was cancelled and the guest is at the source, 4 postcopy is "
        "paused: keep\nboth machines, 5 the guest is lost, or nobody says where it is. With "
        "--dry-run: 0 it would\ncomplete, 1 it would not, or could not be measured.");
}

static bool
parse(MigrateOptions *options, RawOptions *raw, int argc, char **argv, GError **error)
{
    const GOptionEntry entries[] = {
        {"from", 0, 0, G_OPTION_ARG_FILENAME, &options->from, "QMP socket of the source", "SOCKET"},
        {"to", 0, 0, G_OPTION_ARG_FILENAME, &options->to, "QMP socket of the destination",
         "SOCKET"},
        {"uri", 0, 0, G_OPTION_ARG_STRING, &options->uri,
         "where the destination shall listen (tcp:127.0.0.1:0, a free port)",
         "tcp:HOST:PORT|unix:PATH"},
        {"downtime", 0, 0, G_OPTION_ARG_STRING, &raw->downtime,
         "greatest downtime of precopy (" DOWNTIME ")", "TIME"},
        {"downtime-steps", 0, 0, G_OPTION_ARG_INT, &raw->steps,
         "reach it in so many steps, the first of which is short (10)", "N"},
        {"downtime-delay", 0, 0, G_OPTION_ARG_STRING, &raw->delay,
         "before each step, for each GiB of guest memory (" DELAY ")", "TIME"},
        {"bandwidth", 0, 0, G_OPTION_ARG_STRING, &raw->bandwidth,
         "limit in precopy, bytes a second, 0: none (as set at the source)", "SIZE"},
        {"postcopy-bandwidth", 0, 0, G_OPTION_ARG_STRING, &raw->postcopy_bandwidth,
         "limit in postcopy, of pages nobody waits for (as set at the source)", "SIZE"},
        {"postcopy", 0, 0, G_OPTION_ARG_STRING, &raw->policy, "when to switch to postcopy (never)",
         "never|after-pass=N|timeout=TIME|stall"},
        {"auto-converge", 0, 0, G_OPTION_ARG_NONE, &options->auto_converge,
         "slow vCPUs down when precopy does not converge", NULL},
        {"capability", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->capabilities,
         "set a capability at both sides; again for more", "NAME=on|off"},
        {"parameter", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->parameters,
         "set a parameter at both sides; again for more", "NAME=VALUE"},
        {"keep-source", 0, 0, G_OPTION_ARG_NONE, &options->keep_source,
         "do not end the source's process when the guest has moved", NULL},
        {"dry-run", 0, 0, G_OPTION_ARG_NONE, &options->dry_run,
         "measure, and tell what would happen", NULL},
        {"json", 0, 0, G_OPTION_ARG_NONE, &options->json, "print JSON, one object a line", NULL},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->rest, NULL, NULL},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);

    g_set_prgname("faultline migrate");
    describe(context);
    g_option_context_add_main_entries(context, entries, NULL);
    return g_option_context_parse(context, &argc, &argv, error) && check(options, raw, error);
}

static void
clear_setting(gpointer setting)
{
    g_free(((RunSetting *)setting)->name);
    g_free(((RunSetting *)setting)->text);
}

MigrateOptions *
migrate_options_parse(int argc, char **argv, GError **error)
{
    MigrateOptions *options = g_new0(MigrateOptions, 1);
    RawOptions raw = {.steps = STEPS};

    options->capabilities = g_array_new(FALSE, TRUE, sizeof(RunSetting));
    options->parameters = g_array_new(FALSE, TRUE, sizeof(RunSetting));
    g_array_set_clear_func(options->capabilities, clear_setting);
    g_array_set_clear_func(options->parameters, clear_setting);
    if (!parse(options, &raw, argc, argv, error))
        g_clear_pointer(&options, migrate_options_free);
    g_free(raw.downtime);
    g_free(raw.delay);
    g_free(raw.bandwidth);
    g_free(raw.postcopy_bandwidth);
    g_free(raw.policy);
    g_strfreev(raw.capabilities);
    g_strfreev(raw.parameters);
    g_strfreev(raw.rest);
    return options;
}

void
migrate_options_free(MigrateOptions *options)
{
    g_array_unref(options->capabilities);
    g_array_unref(options->parameters);
    g_free(options->from);
    g_free(options->to);
    g_free(options->uri);
    g_free(options);
}
