/* SPDX-License-Identifier: MIT */
/*
 * bench/bulk: throughput, CPU time, downtime and memory of whole migrations, beside a plain
 * transfer of the same bytes in the same run. The coordinating process: options, repeats, report.
 */
#include "bench/bulk_cases.h"
#include "bench/clock.h"
#include "bench/host.h"
#include "bench/latency_options.h"
#include "bench/recovery.h"

#include <stdio.h>
#include <string.h>

#define PRESET_DIRTY "1,1000,10000,100000,1000000"

/* What GOption fills. */
typedef struct Texts {
    char *memory, *sizes, *dirty, *preempt, *backing, *transport, *only, *tls;
    char *source_cpus, *destination_cpus;
    gint64 dirty_by_size;
    gint repeats, limit, breaks, retry;
} Texts;

#define FAIL(error, ...) g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, __VA_ARGS__)

/* GOption would lose a string that it replaces, so presets come afterwards. */
static void
preset_texts(Texts *texts)
{
    const struct {
        char **text;
        const char *preset;
    } presets[] = {
        {&texts->memory, "1G"},  {&texts->sizes, "1G,2G,4G,8G"}, {&texts->dirty, PRESET_DIRTY},
        {&texts->preempt, "on"}, {&texts->backing, "4k"},        {&texts->transport, "tcp"},
        {&texts->only, "all"},   {&texts->tls, "off"},
    };
    for (unsigned i = 0; i < G_N_ELEMENTS(presets); i++)
        if (!*presets[i].text)
            *presets[i].text = g_strdup(presets[i].preset);
}

static bool
parse_command_line(BulkOptions *options, Texts *texts, int *argc, char ***argv, GError **error)
{
    gboolean netns = FALSE, filled = FALSE, checksums = FALSE;
    const GOptionEntry entries[] = {
        {"memory", 0, 0, G_OPTION_ARG_STRING, &texts->memory, "of the transfers", "BYTES"},
        {"sizes", 0, 0, G_OPTION_ARG_STRING, &texts->sizes, "memories to switch over", "BYTES,..."},
        {"dirty-by-size", 0, 0, G_OPTION_ARG_INT64, &texts->dirty_by_size,
         "scattered dirty pages at each size", "PAGES"},
        {"dirty", 0, 0, G_OPTION_ARG_STRING, &texts->dirty,
         "dirty pages at the largest size, dense and scattered", "PAGES,..."},
        {"filled", 0, 0, G_OPTION_ARG_NONE, &filled,
         "switch over memory that has content everywhere", NULL},
        {"checksums", 0, 0, G_OPTION_ARG_NONE, &checksums,
         "transfers with page-checksums as well, and their ratio", NULL},
        {"only", 0, 0, G_OPTION_ARG_STRING, &texts->only,
         "transfers, switches, recoveries, syncs, all", "P"},
        {"preempt", 0, 0, G_OPTION_ARG_STRING, &texts->preempt, "urgent channel", "on|off"},
        {"backing", 0, 0, G_OPTION_ARG_STRING, &texts->backing, "4k, thp, hugetlb, private", "B"},
        {"transport", 0, 0, G_OPTION_ARG_STRING, &texts->transport, "tcp, unix", "T"},
        {"tls", 0, 0, G_OPTION_ARG_STRING, &texts->tls, "transfers by TLS, too: off, psk", "T"},
        {"netns", 0, 0, G_OPTION_ARG_NONE, &netns, "own network namespaces and a veth", NULL},
        {"source-cpus", 0, 0, G_OPTION_ARG_STRING, &texts->source_cpus, "first one", "LIST"},
        {"destination-cpus", 0, 0, G_OPTION_ARG_STRING, &texts->destination_cpus, "second one",
         "LIST"},
        {"breaks", 0, 0, G_OPTION_ARG_INT, &texts->breaks, "recoveries at each size", "N"},
        {"recover-retry", 0, 0, G_OPTION_ARG_INT, &texts->retry, "the parameter", "MS"},
        {"repeats", 0, 0, G_OPTION_ARG_INT, &texts->repeats, "interleaved", "N"},
        {"limit", 0, 0, G_OPTION_ARG_INT, &texts->limit, "most for one migration", "S"},
        {"json", 0, 0, G_OPTION_ARG_FILENAME, &options->json_path,
         "write FILE, and columns for gnuplot beside it", "FILE"},
        {0},
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);

    g_option_context_set_summary(context, "Throughput, CPU time, downtime and memory of "
                                          "migrations, and a plain transfer in the same run.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, argc, argv, error))
        return false;
    preset_texts(texts);
    options->uses_netns = netns;
    options->is_filled = filled;
    options->with_checksums = checksums;
    return true;
}

/* Empty texts give empty lists. */
static GArray *
parse_amounts(const char *option, const char *text, uint64_t unit, GError **error)
{
    g_autoptr(GArray) list = g_array_new(FALSE, FALSE, sizeof(uint64_t));
    g_auto(GStrv) items = g_strsplit(text, ",", -1);

    for (unsigned i = 0; items[i]; i++) {
        uint64_t value;
        if (!bench_parse_bytes(items[i], &value) || !value || value % unit) {
            FAIL(error,
                 "%s %s: it takes a list of amounts like 1M, multiples of %" G_GUINT64_FORMAT,
                 option, text, unit);
            return NULL;
        }
        g_array_append_val(list, value);
    }
    return g_steal_pointer(&list);
}

static bool
take_choice(const char *option, const char *text, const char *const *names, unsigned count,
            unsigned *ret_index, GError **error)
{
    for (*ret_index = 0; *ret_index < count; (*ret_index)++)
        if (g_str_equal(names[*ret_index], text))
            return true;
    FAIL(error, "%s %s: there is no such choice; --help names them", option, text);
    return false;
}

static bool
take_texts(BulkOptions *options, const Texts *texts, GError **error)
{
    const char *const flags[] = {"off", "on"};
    const char *const transports[] = {"tcp", "unix"};
    const char *const tls_kinds[] = {"off", "psk"};
    unsigned preempt, backing, transport, only, tls;

    if (!take_choice("--preempt", texts->preempt, flags, 2, &preempt, error) ||
        !take_choice("--backing", texts->backing, backing_names, BACKING_COUNT, &backing, error) ||
        !take_choice("--transport", texts->transport, transports, 2, &transport, error) ||
        !take_choice("--tls", texts->tls, tls_kinds, 2, &tls, error) ||
        !take_choice("--only", texts->only, bulk_part_names, BULK_PART_COUNT, &only, error))
        return false;
    options->only = (BulkPart)only;
    options->preempt = preempt;
    options->backing = (Backing)backing;
    options->is_unix = transport;
    options->uses_tls = tls;
    uint64_t unit = options->backing == BACKING_HUGETLB ? 2u << 20 : FAULTLINE_PAGE_BYTES;
    if (!bench_parse_bytes(texts->memory, &options->memory_bytes) || !options->memory_bytes ||
        options->memory_bytes % unit || texts->repeats < 1 || texts->limit < 1 ||
        texts->dirty_by_size < 1) {
        FAIL(error, "--memory takes whole pages of the backing, --repeats, --limit and "
                    "--dirty-by-size at least 1");
        return false;
    }
    options->count_repeats = (unsigned)texts->repeats;
    options->limit_s = (unsigned)texts->limit;
    if (texts->breaks < 1 || texts->breaks > (gint)RECOVERY_BREAKS_MAX || texts->retry < 1) {
        FAIL(error, "--breaks takes 1 to %u, --recover-retry at least 1", RECOVERY_BREAKS_MAX);
        return false;
    }
    options->count_breaks = (unsigned)texts->breaks;
    options->retry_ms = (unsigned)texts->retry;
    options->dirty_by_size = (uint64_t)texts->dirty_by_size;
    options->sizes = parse_amounts("--sizes", texts->sizes, unit, error);
    options->dirty = options->sizes ? parse_amounts("--dirty", texts->dirty, 1, error) : NULL;
    return options->dirty && placement_parse(&options->placement, texts->source_cpus,
                                             texts->destination_cpus, NULL, error);
}

static bool
parse(BulkOptions *options, int *argc, char ***argv, GError **error)
{
    Texts texts = {.dirty_by_size = 100000, .repeats = 5, .limit = 300, .breaks = 10, .retry = 6};
    char **all[] = {&texts.memory,  &texts.sizes,     &texts.dirty,       &texts.preempt,
                    &texts.backing, &texts.transport, &texts.source_cpus, &texts.destination_cpus,
                    &texts.only,    &texts.tls};
    bool parsed = parse_command_line(options, &texts, argc, argv, error) &&
                  take_texts(options, &texts, error);

    for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
        g_free(*all[i]);
    return parsed;
}

static bool
run_repeats(Bulk *bulk, GError **error)
{
    const BulkOptions *options = bulk->options;
    Netns *netns = NULL;

    if (options->uses_netns && !(netns = netns_new(error)))
        return false;
    bulk->netns = netns;
    bulk->board = board_new(1, 1, error);
    bool done = bulk->board != NULL;
    for (unsigned repeat = 0; done && repeat < options->count_repeats; repeat++)
        done = bulk_run_repeat(bulk, error);
    if (bulk->board)
        board_free(bulk->board, 1);
    if (netns)
        netns_free(netns);
    return done;
}

/* A hole takes no memory, not even when it is read, if it is private. */
static bool
map_switch_block(Bulk *bulk, uint64_t bytes, GError **error)
{
    const BulkOptions *options = bulk->options;
    bool is_filled = options->is_filled || options->backing == BACKING_HUGETLB;
    Backing backing = is_filled ? options->backing : BACKING_PRIVATE;

    if (!bench_map(backing, bytes, &bulk->switch_block, error))
        return false;
    if (is_filled)
        bench_fill(&bulk->switch_block);
    return true;
}

static bool
measure(Bulk *bulk, GError **error)
{
    const BulkOptions *options = bulk->options;
    uint64_t largest = bulk_largest_size(options);

    if (!bench_clock_calibrate(error) ||
        !host_prepare_backing(options->backing, 2 * MAX(largest, options->memory_bytes), error) ||
        !bench_map(options->backing, options->memory_bytes, &bulk->block, error))
        return false;
    if (bulk_has(bulk, BULK_PART_TRANSFERS))
        bench_fill(&bulk->block);
    bool done = map_switch_block(bulk, largest, error) && run_repeats(bulk, error);
    ram_unmap(&bulk->block);
    if (bulk->switch_block.host_address)
        ram_unmap(&bulk->switch_block);
    host_restore();
    if (!done)
        return false;
    bulk_report_print(bulk);
    return !options->json_path || bulk_report_write(bulk, error);
}

int
main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    BulkOptions options = {0};
    Bulk bulk;
    bool done = parse(&options, &argc, &argv, &error);

    if (done) {
        bulk_init(&bulk, &options);
        done = measure(&bulk, &error);
        bulk_clear(&bulk);
    }
    g_clear_pointer(&options.sizes, g_array_unref);
    g_clear_pointer(&options.dirty, g_array_unref);
    g_free(options.json_path);
    if (!done)
        fprintf(stderr, "bulk: %s\n", error ? error->message : "failed");
    return done ? 0 : 1;
}
