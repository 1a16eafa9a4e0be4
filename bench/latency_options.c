/* SPDX-License-Identifier: MIT */
/*
 * Parsing of fault-latency's command line by GOption, and what follows from it.
 */
#include "bench/latency_options.h"

#include <string.h>

#define PRESET_MEMORY  "512M"
#define PRESET_FAULTS  50000
#define PRESET_REPEATS 5
#define PRESET_STRIDE  8
#define PRESET_RUN_S   20
#define SPIN_ON_US     100u
#define SLACK_S        120u /* precopy and drain of a run, beside its touches */

/* What GOption fills. */
typedef struct Texts {
    char *guest, *memory, *push, *threads, *pattern, *preempt, *backing, *transport, *warm;
    char *source_cpus, *destination_cpus, *touch_cpus, *account, *stages, *tls;
    gint64 faults, stride, seed, neighbours;
    gint repeats, seconds;
} Texts;

#define FAIL(error, ...) g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, __VA_ARGS__)

bool
bench_parse_bytes(const char *text, uint64_t *ret_bytes)
{
    char *end;
    uint64_t value = g_ascii_strtoull(text, &end, 10);
    const char *unit = *end ? strchr("KMGT", g_ascii_toupper(*end)) : NULL;

    if (end == text || (*end && (!unit || end[1])))
        return false;
    *ret_bytes = unit ? value << 10 * (unit - "KMGT" + 1) : value;
    return true;
}

char *
push_text(uint64_t push)
{
    if (push == PUSH_FULL)
        return g_strdup("full");
    if (push == PUSH_OFF)
        return g_strdup("off");
    if (push % (1u << 20) == 0)
        return g_strdup_printf("%" G_GUINT64_FORMAT "M", push >> 20);
    return g_strdup_printf("%" G_GUINT64_FORMAT, push);
}

/* ---- One value each
 * ------------------------------------------------------------------------------------------ */

static bool
parse_choice(const char *option, const char *text, const char *const *names, unsigned count,
             unsigned *ret_index, GError **error)
{
    for (*ret_index = 0; *ret_index < count; (*ret_index)++)
        if (strcmp(text, names[*ret_index]) == 0)
            return true;
    g_autofree char *all = g_strjoinv(", ", (char **)names);
    FAIL(error, "%s %s: it takes one of %s", option, text, all);
    return false;
}

static bool
parse_flag(const char *option, const char *text, bool *ret_on, GError **error)
{
    const char *const names[] = {"off", "on", NULL};
    unsigned index;
    if (!parse_choice(option, text, names, 2, &index, error))
        return false;
    *ret_on = index == 1;
    return true;
}

static bool
parse_push(const char *text, uint64_t *ret_push, GError **error)
{
    if (strcmp(text, "full") == 0) {
        *ret_push = PUSH_FULL;
    } else if (strcmp(text, "off") == 0) {
        *ret_push = PUSH_OFF;
    } else if (!bench_parse_bytes(text, ret_push) || !*ret_push) {
        FAIL(error, "--push %s: it takes off, full or bytes a second like 20M", text);
        return false;
    }
    return true;
}

static bool
parse_threads(const char *text, uint64_t *ret_count, GError **error)
{
    *ret_count = g_ascii_strtoull(text, NULL, 10);
    if (*ret_count >= 1 && *ret_count <= BOARD_THREADS_MAX / 2)
        return true;
    FAIL(error, "--threads %s: it takes 1 to %u", text, BOARD_THREADS_MAX / 2);
    return false;
}

static bool
parse_pattern(const char *text, uint64_t *ret_kind, GError **error)
{
    const char *names[PATTERN_COUNT + 1] = {NULL};
    unsigned index;
    memcpy(names, pattern_names, sizeof pattern_names);
    if (!parse_choice("--pattern", text, names, PATTERN_COUNT, &index, error))
        return false;
    *ret_kind = index;
    return true;
}

static bool
parse_tls(const char *text, uint64_t *ret_kind, GError **error)
{
    const char *const names[] = {"off", "psk", NULL};
    unsigned index;
    if (!parse_choice("--tls", text, names, 2, &index, error))
        return false;
    *ret_kind = index;
    return true;
}

static GArray *
parse_list(const char *text, bool (*parse)(const char *, uint64_t *, GError **), GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    g_auto(GStrv) items = g_strsplit(text, ",", -1);

    for (unsigned i = 0; items[i]; i++) {
        uint64_t value;
        if (!parse(items[i], &value, error))
            return NULL;
        g_array_append_val(list, value);
    }
    return g_steal_pointer(&list);
}

/* ---- Together
 * ------------------------------------------------------------------------------------------------
 */

/* GOption would lose a string that it replaces, so presets come afterwards. */
static void
preset_text(char **text, const char *preset)
{
    if (!*text)
        *text = g_strdup(preset);
}

static void
preset_texts(LatencyOptions *options, Texts *texts)
{
    preset_text(&texts->guest, "threads");
    preset_text(&texts->memory, PRESET_MEMORY);
    preset_text(&texts->push, "off");
    preset_text(&texts->threads, "1");
    preset_text(&texts->pattern, "random");
    preset_text(&texts->preempt, "on");
    preset_text(&texts->backing, "4k");
    preset_text(&texts->transport, "tcp");
    preset_text(&texts->warm, "on");
    preset_text(&texts->account, "on");
    preset_text(&texts->stages, "on");
    preset_text(&texts->tls, "off");
    preset_text(&options->spin, "auto");
    preset_text(&options->low_latency, "auto");
}

static void
texts_clear(Texts *texts)
{
    char **all[] = {&texts->guest,
                    &texts->memory,
                    &texts->push,
                    &texts->threads,
                    &texts->pattern,
                    &texts->preempt,
                    &texts->backing,
                    &texts->transport,
                    &texts->warm,
                    &texts->source_cpus,
                    &texts->destination_cpus,
                    &texts->touch_cpus,
                    &texts->account,
                    &texts->tls,
                    &texts->stages};
    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        g_clear_pointer(all[i], g_free);
}

static bool
parse_command_line(LatencyOptions *options, Texts *texts, int *argc, char ***argv, GError **error)
{
    gboolean writes = FALSE, netns = FALSE, checksums = FALSE;
    const GOptionEntry entries[] = {
        {"guest", 0, 0, G_OPTION_ARG_STRING, &texts->guest, "threads, kvm", "KIND"},
        {"memory", 0, 0, G_OPTION_ARG_STRING, &texts->memory, "guest memory", "BYTES"},
        {"threads", 0, 0, G_OPTION_ARG_STRING, &texts->threads, "faulting threads", "N,..."},
        {"pattern", 0, 0, G_OPTION_ARG_STRING, &texts->pattern,
         "random, sequential, reverse, stride, zipf, trace", "KIND,..."},
        {"stride", 0, 0, G_OPTION_ARG_INT64, &texts->stride, "of pattern stride", "PAGES"},
        {"trace", 0, 0, G_OPTION_ARG_FILENAME, &options->trace, "page numbers, one a line", "FILE"},
        {"write", 0, 0, G_OPTION_ARG_NONE, &writes, "touch by writing", NULL},
        {"think", 0, 0, G_OPTION_ARG_DOUBLE, &options->think_us, "pause between touches", "US"},
        {"push", 0, 0, G_OPTION_ARG_STRING, &texts->push, "background: off, RATE, full", "P,..."},
        {"preempt", 0, 0, G_OPTION_ARG_STRING, &texts->preempt, "urgent channel", "on|off"},
        {"tls", 0, 0, G_OPTION_ARG_STRING, &texts->tls, "off, psk", "T,..."},
        {"spin", 0, 0, G_OPTION_ARG_STRING, &options->spin, "engine's spin: auto, on, off or us",
         "SPIN"},
        {"low-latency", 0, 0, G_OPTION_ARG_STRING, &options->low_latency,
         "engine holds cpu_dma_latency", "auto|on|off"},
        {"neighbours", 0, 0, G_OPTION_ARG_INT64, &texts->neighbours, "neighbour-pages", "N"},
        {"checksums", 0, 0, G_OPTION_ARG_NONE, &checksums,
         "each configuration also with page-checksums", NULL},
        {"account", 0, 0, G_OPTION_ARG_STRING, &texts->account, "postcopy-blocktime", "on|off"},
        {"stages", 0, 0, G_OPTION_ARG_STRING, &texts->stages, "trace the walks of pages", "on|off"},
        {"backing", 0, 0, G_OPTION_ARG_STRING, &texts->backing, "4k, thp, hugetlb, private", "B"},
        {"warm", 0, 0, G_OPTION_ARG_STRING, &texts->warm,
         "allocate destination memory by a precopy pass", "on|off"},
        {"transport", 0, 0, G_OPTION_ARG_STRING, &texts->transport, "tcp, unix", "T"},
        {"netns", 0, 0, G_OPTION_ARG_NONE, &netns, "own network namespaces and a veth", NULL},
        {"source-cpus", 0, 0, G_OPTION_ARG_STRING, &texts->source_cpus, "first one", "LIST"},
        {"destination-cpus", 0, 0, G_OPTION_ARG_STRING, &texts->destination_cpus, "second one",
         "LIST"},
        {"touch-cpus", 0, 0, G_OPTION_ARG_STRING, &texts->touch_cpus, "destination's", "LIST"},
        {"faults", 0, 0, G_OPTION_ARG_INT64, &texts->faults, "of a configuration, over all repeats",
         "N"},
        {"repeats", 0, 0, G_OPTION_ARG_INT, &texts->repeats, "interleaved", "N"},
        {"seconds", 0, 0, G_OPTION_ARG_INT, &texts->seconds, "most for the touches of a repeat",
         "S"},
        {"seed", 0, 0, G_OPTION_ARG_INT64, &texts->seed, "of the patterns", "N"},
        {"json", 0, 0, G_OPTION_ARG_FILENAME, &options->json_path,
         "write FILE, and columns for gnuplot beside it", "FILE"},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);

    g_option_context_set_summary(context, "Latency of remote page faults, and the machine's floor "
                                          "in the same run. Lists make all combinations.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error))
        return false;
    preset_texts(options, texts);
    options->writes = writes;
    options->uses_netns = netns;
    options->with_checksums = checksums;
    return true;
}

static bool
take_numbers(LatencyOptions *options, const Texts *texts, GError **error)
{
    uint64_t page_bytes = options->backing == BACKING_HUGETLB ? 2u << 20 : FAULTLINE_PAGE_BYTES;

    if (!bench_parse_bytes(texts->memory, &options->memory_bytes) || !options->memory_bytes ||
        options->memory_bytes % page_bytes || options->memory_bytes > 1ull << 40) {
        FAIL(error, "--memory %s: it takes bytes like 512M, whole pages of the backing",
             texts->memory);
        return false;
    }
    if (texts->faults < 1 || texts->repeats < 1 || texts->seconds < 1 || texts->stride < 1 ||
        options->think_us < 0 || texts->repeats > texts->faults) {
        FAIL(error, "--faults, --repeats, --seconds, --stride: at least 1, --think: at least 0, "
                    "and no fewer faults than repeats");
        return false;
    }
    options->count_faults = (uint64_t)texts->faults;
    options->count_repeats = (unsigned)texts->repeats;
    options->stride = (uint64_t)texts->stride;
    options->seed = (uint64_t)texts->seed;
    options->run_s = (unsigned)texts->seconds;
    options->limit_s = options->run_s + SLACK_S;
    return true;
}

static bool
take_texts(LatencyOptions *options, const Texts *texts, GError **error)
{
    const char *backings[BACKING_COUNT + 1] = {NULL};
    const char *const transports[] = {"tcp", "unix", NULL};
    const char *const guests[] = {"threads", "kvm", NULL};
    unsigned guest, backing, transport;

    memcpy(backings, backing_names, sizeof backing_names);
    if (!parse_choice("--guest", texts->guest, guests, 2, &guest, error) ||
        !parse_choice("--backing", texts->backing, backings, BACKING_COUNT, &backing, error) ||
        !parse_choice("--transport", texts->transport, transports, 2, &transport, error) ||
        !parse_flag("--preempt", texts->preempt, &options->preempt, error) ||
        !parse_flag("--account", texts->account, &options->accounts, error) ||
        !parse_flag("--stages", texts->stages, &options->traces, error) ||
        !parse_flag("--warm", texts->warm, &options->is_warm, error))
        return false;
    options->is_kvm = guest == 1;
    options->backing = (Backing)backing;
    options->is_unix = transport == 1;
    options->pushes = parse_list(texts->push, parse_push, error);
    options->threads = options->pushes ? parse_list(texts->threads, parse_threads, error) : NULL;
    options->patterns = options->threads ? parse_list(texts->pattern, parse_pattern, error) : NULL;
    options->tls = options->patterns ? parse_list(texts->tls, parse_tls, error) : NULL;
    return options->tls && take_numbers(options, texts, error) &&
           placement_parse(&options->placement, texts->source_cpus, texts->destination_cpus,
                           texts->touch_cpus, error);
}

/* A setting that this library may not have. "auto" leaves it as it is; "on" is `on`, and a number
 * is taken where `on` is none of a switch. *ret_value: what it will be. */
static bool
take_setting(LatencyOptions *options, const char *option, const char *wanted, const char *name,
             uint64_t on, const char **ret_is, uint64_t *ret_value, GError **error)
{
    const char *const choices[] = {"auto", "off", "on", NULL};
    bool is_number = on > 1 && g_ascii_isdigit(wanted[0]);
    unsigned choice = 2;
    uint64_t preset;

    *ret_value = 0;
    if (!is_number && !parse_choice(option, wanted, choices, 3, &choice, error))
        return false;
    if (!move_has_setting(name, &preset))
        return true;
    if (is_number)
        *ret_value = g_ascii_strtoull(wanted, NULL, 10);
    else
        *ret_value = choice == 0 ? preset : choice == 2 ? on : 0;
    *ret_is = *ret_value ? "on" : "off";
    if (choice)
        options->settings[options->count_settings++] =
            (MoveSetting){.name = name, .value = *ret_value};
    return true;
}

static bool
take_settings(LatencyOptions *options, GError **error)
{
    uint64_t spin_us, holds_latency;

    if (!take_setting(options, "--spin", options->spin, "spin-limit", SPIN_ON_US, &options->spin_is,
                      &spin_us, error) ||
        !take_setting(options, "--low-latency", options->low_latency, "low-latency", 1,
                      &options->low_latency_is, &holds_latency, error))
        return false;
    options->spin_us = spin_us ? spin_us : SPIN_ON_US;
    return true;
}

/* What the guest in a virtual machine does by itself, or cannot do. */
static bool
check_guest(const LatencyOptions *options, GError **error)
{
    const char *what = NULL;

    if (!options->is_kvm)
        return true;
    if (options->threads->len != 1 || g_array_index(options->threads, uint64_t, 0) != 1)
        what = "--threads: it has one vCPU";
    else if (options->patterns->len != 1 ||
             g_array_index(options->patterns, uint64_t, 0) != PATTERN_RANDOM)
        what = "--pattern: it touches in its own order, each page once before any comes again";
    else if (!options->traces)
        what = "--stages off: they tell which touches waited";
    else if (options->think_us > 0)
        what = "--think: it goes on touching";
    if (what)
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                    "--guest kvm cannot have %s; take --guest threads", what);
    return !what;
}

bool
latency_options_parse(LatencyOptions *options, int *argc, char ***argv, GError **error)
{
    Texts texts = {.faults = PRESET_FAULTS,
                   .stride = PRESET_STRIDE,
                   .seed = 1,
                   .neighbours = -1,
                   .repeats = PRESET_REPEATS,
                   .seconds = PRESET_RUN_S};

    *options = (LatencyOptions){.spin_is = "n/a", .low_latency_is = "n/a"};
    bool parsed = parse_command_line(options, &texts, argc, argv, error) &&
                  take_texts(options, &texts, error) && check_guest(options, error) &&
                  take_settings(options, error);
    if (parsed && texts.neighbours >= 0)
        options->settings[options->count_settings++] =
            (MoveSetting){.name = "neighbour-pages", .value = (uint64_t)texts.neighbours};
    for (guint i = 0; parsed && i < options->patterns->len; i++) {
        if (g_array_index(options->patterns, uint64_t, i) == PATTERN_TRACE && !options->trace) {
            FAIL(error, "--pattern trace: it needs --trace FILE");
            parsed = false;
        }
    }
    texts_clear(&texts);
    return parsed;
}

void
latency_options_clear(LatencyOptions *options)
{
    g_clear_pointer(&options->pushes, g_array_unref);
    g_clear_pointer(&options->threads, g_array_unref);
    g_clear_pointer(&options->patterns, g_array_unref);
    g_clear_pointer(&options->tls, g_array_unref);
    g_clear_pointer(&options->trace, g_free);
    g_clear_pointer(&options->json_path, g_free);
    g_clear_pointer(&options->spin, g_free);
    g_clear_pointer(&options->low_latency, g_free);
}
