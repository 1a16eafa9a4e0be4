/* SPDX-License-Identifier: MIT */
/*
 * Parsing of `faultline run`'s options. Takes every text over by a strict rule and says what is
 * wrong, why, and what would be right. Main thread only; what a machine or the engine thinks of a
 * value is left to them.
 */
#include "kvm/run_options.h"
#include "kvm/metrics.h"

#include <string.h>

#define PEER_LOST_AFTER_S 60

/* What GOption fills; checked afterwards. */
typedef struct RawOptions {
    char *memory, *working_set, *write_rate, *guest, *backing, *dirty, *log_level, *on_source_lost;
    char **qmp, **capabilities, **parameters, **objects;
    int cpus, peer_lost_after;
    gboolean paused, insecure;
    char **rest;
} RawOptions;

bool
run_options_refuse(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return false;
}

bool
run_options_parse_size(const char *text, uint64_t *ret_bytes, GError **error)
{
    static const char suffixes[] = "KMGT";
    uint64_t value = 0;
    const char *at = text;

    for (; g_ascii_isdigit(*at); at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10)
            return run_options_refuse(error, "\"%s\" is too large; give a size below 16E", text);
        value = value * 10 + digit;
    }
    const char *suffix = *at ? strchr(suffixes, *at) : NULL;
    if (at == text || (*at && (!suffix || at[1])))
        return run_options_refuse(
            error, "\"%s\" is no size; give digits and at most one of K, M, G, T", text);

    unsigned shift = suffix ? 10 * (unsigned)(suffix - suffixes + 1) : 0;
    if (value > UINT64_MAX >> shift)
        return run_options_refuse(error, "\"%s\" is too large; give a size below 16E", text);
    *ret_bytes = value << shift;
    return true;
}

/* text -> NAME (g_free) and what stands behind the first '='. */
static const char *
split_setting(const char *text, char **ret_name)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text || !equals[1])
        return NULL;
    *ret_name = g_strndup(text, (gsize)(equals - text));
    return equals + 1;
}

bool
run_options_parse_capability(const char *text, RunSetting *ret_setting, GError **error)
{
    g_autofree char *name = NULL;
    const char *value = split_setting(text, &name);

    if (!value || (!g_str_equal(value, "on") && !g_str_equal(value, "off")))
        return run_options_refuse(
            error, "--capability %s: give NAME=on or NAME=off, e.g. postcopy-ram=on", text);
    *ret_setting = (RunSetting){.value = g_str_equal(value, "on")};
    ret_setting->name = g_steal_pointer(&name);
    return true;
}

static bool
is_text_parameter(const char *name)
{
    const FaultlineParameterRow *row = faultline_parameter_table();

    while (row->name && !g_str_equal(row->name, name))
        row++;
    return row->name && row->type == FAULTLINE_TYPE_TEXT;
}

bool
run_options_parse_parameter(const char *text, RunSetting *ret_setting, GError **error)
{
    g_autofree char *name = NULL;
    const char *value = split_setting(text, &name);

    if (!value)
        return run_options_refuse(error, "--parameter %s: give NAME=VALUE, e.g. max-bandwidth=100M",
                                  text);
    *ret_setting = (RunSetting){0};
    if (is_text_parameter(name)) {
        ret_setting->text = g_strdup(value);
        ret_setting->name = g_steal_pointer(&name);
        return true;
    }
    bool is_switch = g_str_equal(value, "on") || g_str_equal(value, "off");
    ret_setting->value = g_str_equal(value, "on");
    if (!is_switch && !run_options_parse_size(value, &ret_setting->value, error)) {
        g_prefix_error(error, "--parameter %s: ", name);
        return false;
    }
    ret_setting->name = g_steal_pointer(&name);
    return true;
}

static bool
take_settings(char **texts, bool (*parse)(const char *, RunSetting *, GError **),
              RunSetting **ret_settings, unsigned *ret_count, GError **error)
{
    unsigned length = texts ? g_strv_length(texts) : 0;

    *ret_settings = g_new0(RunSetting, length + 1);
    for (unsigned i = 0; i < length; i++) {
        if (!parse(texts[i], &(*ret_settings)[i], error))
            return false;
        *ret_count = i + 1;
    }
    return true;
}

/* An option with a number of bytes or pages; NULL leaves *ret_value alone. */
static bool
take_size(const char *option, const char *text, uint64_t *ret_value, GError **error)
{
    if (!text || run_options_parse_size(text, ret_value, error))
        return true;
    g_prefix_error(error, "%s: ", option);
    return false;
}

static bool
take_kind(const char *text, RunOptions *options, GError **error)
{
    static const MachineKind *const kinds[] = {&machine_kvm, &machine_threads};

    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        if (g_strcmp0(text ? text : "kvm", kinds[i]->name) == 0) {
            options->kind = kinds[i];
            return true;
        }
    }
    return run_options_refuse(error, "--guest %s: there is no such guest; give kvm or threads",
                              text);
}

static bool
take_backing(const char *text, RunOptions *options, GError **error)
{
    static const char *const names[] = {
        [MACHINE_MEMORY_MEMFD] = "memfd",
        [MACHINE_MEMORY_PRIVATE] = "private",
        [MACHINE_MEMORY_HUGETLB] = "hugetlb",
    };

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        if (g_strcmp0(text ? text : "memfd", names[i]) == 0) {
            options->machine.memory = (MachineMemory)i;
            return true;
        }
    }
    return run_options_refuse(
        error, "--backing %s: there is no such backing; give memfd, private or hugetlb", text);
}

static bool
take_dirty(const char *text, RunOptions *options, GError **error)
{
    options->machine.dirty_ring = g_strcmp0(text, "ring") == 0;
    if (!text || options->machine.dirty_ring || g_str_equal(text, "log"))
        return true;
    return run_options_refuse(
        error, "--dirty %s: there is no such way to track writes; give log or ring", text);
}

static bool
take_memory(const RawOptions *raw, RunOptions *options, GError **error)
{
    uint64_t unit = options->machine.memory == MACHINE_MEMORY_HUGETLB ? 2u << 20 : 4096;

    if (!raw->memory)
        return run_options_refuse(error,
                                  "--memory is missing; give the guest's memory, e.g. --memory 1G");
    if (!take_size("--memory", raw->memory, &options->machine.memory_bytes, error))
        return false;
    if (options->machine.memory_bytes == 0 || options->machine.memory_bytes % unit)
        return run_options_refuse(error, "--memory %s: give a multiple of %s that is not 0",
                                  raw->memory,
                                  unit == 4096 ? "4K" : "2M, the page size of --backing hugetlb");
    if (raw->cpus < 1 || raw->cpus > FAULTLINE_VCPUS_MAX)
        return run_options_refuse(error, "--cpus %d: give 1 to %d", raw->cpus, FAULTLINE_VCPUS_MAX);
    options->machine.cpus = (unsigned)raw->cpus;
    return take_size("--working-set", raw->working_set, &options->machine.write_bytes, error) &&
           take_size("--write-rate", raw->write_rate, &options->machine.write_rate, error);
}

static bool
take_qmp(char **texts, RunOptions *options, GError **error)
{
    options->qmp = texts ? g_strdupv(texts) : g_new0(char *, 1);
    for (unsigned i = 0; options->qmp[i]; i++) {
        MonitorSocket server;
        bool is_good = monitor_socket_parse(options->qmp[i], &server, error);
        bool is_exposed = is_good && !server.connects && !monitor_socket_is_local(&server);
        monitor_socket_clear(&server);
        if (is_exposed && !options->insecure)
            return run_options_refuse(
                error,
                "--qmp %s: other hosts reach it there, and whoever does owns the machine: "
                "nothing asks who they are; give unix:PATH or tcp:127.0.0.1:PORT, or "
                "--insecure if you trust all of that network",
                options->qmp[i]);
        if (!is_good)
            return false;
    }
    return true;
}

static bool
take_metrics(const RunOptions *options, GError **error)
{
    MonitorSocket socket;
    if (!options->metrics)
        return true;
    bool is_good = metrics_address_parse(options->metrics, &socket, error);
    monitor_socket_clear(&socket);
    return is_good;
}

static bool
take_log_level(const char *text, RunOptions *options, GError **error)
{
    options->log_level = LOG_WARNING;
    return !text || log_level_parse(text, &options->log_level) ||
           run_options_refuse(
               error, "--log-level %s: there is no such level; give error, warning, info or debug",
               text);
}

static bool
take_peer_lost(const RawOptions *raw, RunOptions *options, GError **error)
{
    const char *policy = raw->on_source_lost ? raw->on_source_lost : "stall";

    if (!peer_lost_parse(policy, &options->on_source_lost))
        return run_options_refuse(error, "--on-source-lost %s: give stall, pause or end", policy);
    if (raw->peer_lost_after < 0)
        return run_options_refuse(error, "--peer-lost-after %d: give seconds, or 0",
                                  raw->peer_lost_after);
    options->peer_lost_after_s = (uint64_t)raw->peer_lost_after;
    return true;
}

static bool
serial_is_known(const char *text)
{
    if (g_str_equal(text, "none") || g_str_equal(text, "stdio"))
        return true;
    const char *colon = strchr(text, ':');
    return (g_str_has_prefix(text, "file:") || g_str_has_prefix(text, "unix:")) && colon[1];
}

static bool
take_serial(RunOptions *options, GError **error)
{
    if (!options->serial)
        options->serial = g_strdup("none");
    if (!serial_is_known(options->serial))
        return run_options_refuse(error, "--serial %s: give file:PATH, stdio, unix:PATH or none",
                                  options->serial);
    options->machine.serial = options->serial;
    options->machine.boot = options->boot;
    options->incoming = options->addresses ? options->addresses[0] : NULL;
    options->machine.incoming = options->incoming != NULL;
    if (options->incoming && options->addresses[1] &&
        g_strv_contains((const char *const *)options->addresses, "defer"))
        return run_options_refuse(error, "--incoming defer: give it alone, or only addresses");
    return true;
}

static bool
take_raw(const RawOptions *raw, RunOptions *options, GError **error)
{
    options->paused = raw->paused;
    options->objects = g_strdupv(raw->objects);
    options->insecure = raw->insecure;
    if (!options->name)
        options->name = g_strdup("faultline");
    if (raw->rest)
        return run_options_refuse(error, "\"%s\" belongs to no option; --help lists the options",
                                  raw->rest[0]);
    return take_kind(raw->guest, options, error) && take_backing(raw->backing, options, error) &&
           take_dirty(raw->dirty, options, error) && take_memory(raw, options, error) &&
           take_qmp(raw->qmp, options, error) && take_metrics(options, error) &&
           take_log_level(raw->log_level, options, error) && take_peer_lost(raw, options, error) &&
           take_serial(options, error) &&
           take_settings(raw->capabilities, run_options_parse_capability, &options->capabilities,
                         &options->count_capabilities, error) &&
           take_settings(raw->parameters, run_options_parse_parameter, &options->parameters,
                         &options->count_parameters, error);
}

static void
describe_options(GString *text)
{
    g_string_append(text, "\n\nCapabilities, with what they are at first:\n");
    for (const FaultlineCapabilityRow *row = faultline_capability_table(); row->name; row++)
        g_string_append_printf(text, "  %s=%s  %s%s\n", row->name, row->preset ? "on" : "off",
                               row->help, row->both_sides ? "; equal on both sides" : "");
    g_string_append(text, "\nParameters, with what they are at first and their range:\n");
    for (const FaultlineParameterRow *row = faultline_parameter_table(); row->name; row++) {
        bool is_boolean = row->type == FAULTLINE_TYPE_BOOLEAN;
        if (row->type == FAULTLINE_TYPE_TEXT) {
            g_string_append_printf(text, "  %s=TEXT  %s\n", row->name, row->help);
            continue;
        }
        g_autofree char *range = row->greatest >= INT64_MAX
                                     ? g_strdup_printf("from %" G_GUINT64_FORMAT, row->least)
                                     : g_strdup_printf("%" G_GUINT64_FORMAT "..%" G_GUINT64_FORMAT,
                                                       row->least, row->greatest);
        g_autofree char *preset = is_boolean ? g_strdup(row->preset ? "on" : "off")
                                             : g_strdup_printf("%" G_GUINT64_FORMAT, row->preset);
        g_string_append_printf(text, "  %s=%s  (%s%s%s) %s%s\n", row->name, preset,
                               is_boolean ? "on|off" : range, *row->unit ? " " : "", row->unit,
                               row->help, row->both_sides ? "; equal on both sides" : "");
    }
}

static void
describe_objects(GString *text)
{
    g_string_append(text, "\nObjects, with their properties:\n");
    for (const FaultlineObjectRow *type = faultline_object_table(); type->type; type++) {
        g_string_append_printf(text, "  %s  %s\n", type->type, type->help);
        for (const FaultlinePropertyRow *row = type->properties; row->name; row++)
            g_string_append_printf(text, "    %s=%s  %s\n", row->name,
                                   row->is_switch ? "on|off" : "TEXT", row->help);
    }
}

static const char output_and_exit_codes[] =
    "Printed on standard output: each block of guest memory, where it is mapped and its length "
    "in bytes, and with --incoming the address:\n"
    "  ram: ram-low 0x7f2a40000000 0x40000000\n"
    "  incoming: listening at tcp:127.0.0.1:4444\n"
    "and for --metrics and each --qmp at tcp, so that PORT may be 0:\n"
    "  qmp: listening at tcp:127.0.0.1:4445\n"
    "A machine whose guest has migrated away stays, stopped, until quit.\n\n"
    "Exit codes:\n"
    "  0  ended by quit, SIGTERM or SIGINT\n"
    "  1  the machine could not be made, the incoming migration failed, or it was ended\n"
    "     while pages of its guest had not moved\n"
    "  2  wrong use\n"
    "  3  the source was lost in postcopy, and --on-source-lost said end\n"
    "  4  ended while it held pages of a guest whose destination was lost";

static GOptionContext *
make_context(RawOptions *raw, RunOptions *options)
{
    const GOptionEntry entries[] = {
        {"memory", 'm', 0, G_OPTION_ARG_STRING, &raw->memory, "guest memory, e.g. 512M, 5G",
         "SIZE"},
        {"cpus", 'c', 0, G_OPTION_ARG_INT, &raw->cpus, "vCPUs, or guest threads (1)", "N"},
        {"guest", 0, 0, G_OPTION_ARG_STRING, &raw->guest, "kind of guest (kvm)", "kvm|threads"},
        {"boot", 0, 0, G_OPTION_ARG_FILENAME, &options->boot, "kvm: boot image, up to 32K", "FILE"},
        {"serial", 0, 0, G_OPTION_ARG_STRING, &options->serial, "kvm: serial port (none)",
         "file:PATH|stdio|unix:PATH|none"},
        {"qmp", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->qmp, "control socket; may be repeated",
         "unix:PATH|tcp:HOST:PORT[,connect]"},
        {"metrics", 0, 0, G_OPTION_ARG_STRING, &options->metrics,
         "serve figures for Prometheus, at the loopback interface", "unix:PATH|tcp:127.0.0.1:PORT"},
        {"incoming", 0, 0, G_OPTION_ARG_STRING_ARRAY, &options->addresses,
         "wait for a guest; may be repeated; defer: listen when migrate-incoming says so",
         "URI|defer"},
        {"insecure", 0, 0, G_OPTION_ARG_NONE, &raw->insecure,
         "listen also where other hosts can reach it without TLS", NULL},
        {"paused", 0, 0, G_OPTION_ARG_NONE, &raw->paused,
         "do not start the guest, also not when it has arrived", NULL},
        {"backing", 0, 0, G_OPTION_ARG_STRING, &raw->backing, "guest memory is made of (memfd)",
         "memfd|private|hugetlb"},
        {"dirty", 0, 0, G_OPTION_ARG_STRING, &raw->dirty, "kvm: how writes are tracked (log)",
         "log|ring"},
        {"name", 0, 0, G_OPTION_ARG_STRING, &options->name, "name of the guest", "NAME"},
        {"working-set", 0, 0, G_OPTION_ARG_STRING, &raw->working_set,
         "threads: memory that is written (all)", "SIZE"},
        {"write-rate", 0, 0, G_OPTION_ARG_STRING, &raw->write_rate,
         "threads: pages a second and thread (0: full speed)", "PAGES"},
        {"capability", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->capabilities,
         "migration capability; may be repeated", "NAME=on|off"},
        {"parameter", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->parameters,
         "migration parameter; may be repeated", "NAME=VALUE"},
        {"object", 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->objects,
         "credentials or an authorization; may be repeated", "TYPE,id=ID,NAME=VALUE,..."},
        {"verdict", 0, 0, G_OPTION_ARG_FILENAME, &options->verdict,
         "write what the guest says of its data there, twice a second", "FILE"},
        {"state-dir", 0, 0, G_OPTION_ARG_FILENAME, &options->state_dir,
         "keep a record there of who owns the guest, for faultline status", "DIR"},
        {"on-source-lost", 0, 0, G_OPTION_ARG_STRING, &raw->on_source_lost,
         "what a destination does whose source is gone for good (stall)", "stall|pause|end"},
        {"peer-lost-after", 0, 0, G_OPTION_ARG_INT, &raw->peer_lost_after,
         "a pause after which the other side counts as gone (60; 0: only when told)", "SECONDS"},
        {"log-level", 0, 0, G_OPTION_ARG_STRING, &raw->log_level,
         "what is said on standard error (warning)", "error|warning|info|debug"},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &raw->rest, NULL, NULL},
        G_OPTION_ENTRY_NULL,
    };

    GOptionContext *context = g_option_context_new(NULL);
    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_summary(
        context, "Runs a machine until it is told to quit, or waits for one that migrates here.");
    g_autoptr(GString) description = g_string_new(output_and_exit_codes);
    describe_options(description);
    describe_objects(description);
    g_option_context_set_description(context, description->str);
    return context;
}

static void
raw_clear(RawOptions *raw)
{
    g_free(raw->memory);
    g_free(raw->working_set);
    g_free(raw->write_rate);
    g_free(raw->guest);
    g_free(raw->backing);
    g_free(raw->dirty);
    g_free(raw->log_level);
    g_free(raw->on_source_lost);
    g_strfreev(raw->qmp);
    g_strfreev(raw->capabilities);
    g_strfreev(raw->parameters);
    g_strfreev(raw->objects);
    g_strfreev(raw->rest);
}

RunOptions *
run_options_parse(int argc, char **argv, GError **error)
{
    RawOptions raw = {.cpus = 1, .peer_lost_after = PEER_LOST_AFTER_S};
    RunOptions *options = g_new0(RunOptions, 1);
    g_autoptr(GOptionContext) context = make_context(&raw, options);
    g_autoptr(GError) reason = NULL;
    bool good = true;

    g_set_prgname("faultline run");
    if (!g_option_context_parse(context, &argc, &argv, &reason))
        good = run_options_refuse(error, "%s", reason->message);
    if (!good || !take_raw(&raw, options, error))
        g_clear_pointer(&options, run_options_free);
    raw_clear(&raw);
    return options;
}

static void
free_settings(RunSetting *settings, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        g_free(settings[i].name), g_free(settings[i].text);
    g_free(settings);
}

void
run_options_free(RunOptions *options)
{
    g_free(options->boot);
    g_free(options->serial);
    g_strfreev(options->qmp);
    g_free(options->metrics);
    g_strfreev(options->addresses);
    g_free(options->name);
    g_free(options->verdict);
    g_free(options->state_dir);
    free_settings(options->capabilities, options->count_capabilities);
    free_settings(options->parameters, options->count_parameters);
    g_strfreev(options->objects);
    g_free(options);
}
