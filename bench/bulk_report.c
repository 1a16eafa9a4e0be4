/* SPDX-License-Identifier: MIT */
/*
 * What bench/bulk tells: tables in Markdown, JSON, columns for gnuplot. Coordinating process.
 */
#include "bench/bulk_cases.h"
#include "bench/host.h"
#include "bench/report.h"

#include <stdio.h>

static double
median(Samples *samples)
{
    return samples_percentile(samples, 50);
}

char *
bulk_text(Samples *samples)
{
    Quantiles least, greatest;

    if (!samples_count(samples))
        return g_strdup("-");
    samples_range(samples, &least, &greatest);
    return report_with_range(median(samples), least.value[0], greatest.value[0]);
}

static double
ratio_to_floor(Bulk *bulk, TransferKind kind)
{
    double floor = median(&bulk->transfers[transfer_floor(kind)].gib_per_s);
    return floor > 0 ? median(&bulk->transfers[kind].gib_per_s) / floor : 0;
}

/* Of the destination, over a plain receive into allocated memory. */
static double
ratio_of_cpu(Bulk *bulk, TransferKind kind)
{
    double floor = median(&bulk->transfers[TRANSFER_PLAIN_ALLOCATED].destination_cpu);
    return floor > 0 ? median(&bulk->transfers[kind].destination_cpu) / floor : 0;
}

/* Of the same without checksums, in the same run. */
static double
ratio_to_unchecked(Samples *checked, Samples *unchecked)
{
    return median(unchecked) > 0 ? median(checked) / median(unchecked) : 0;
}

/* ---- Markdown
 * -----------------------------------------------------------------------------------------------
 */

static void
print_transfers(Bulk *bulk)
{
    printf("\nMedian of the repeats (least..greatest)\n\n"
           "| | GiB/s | of plain | source CPU s/GiB | destination CPU s/GiB | of plain, allocated "
           "| private MiB/GiB, source | destination |\n|---|---|---|---|---|---|---|---|\n");
    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        if (!bulk_has_transfer(bulk, (TransferKind)i))
            continue;
        Transfer *one = &bulk->transfers[i];
        g_autofree char *speed = bulk_text(&one->gib_per_s);
        g_autofree char *source = bulk_text(&one->source_cpu);
        g_autofree char *destination = bulk_text(&one->destination_cpu);
        g_autofree char *more = bulk_text(&one->source_overhead);
        g_autofree char *more_there = bulk_text(&one->destination_overhead);
        printf("| %s | %s | %.2f | %s | %s | %.2f | %s | %s |\n", transfer_names[i], speed,
               ratio_to_floor(bulk, (TransferKind)i), source, destination,
               ratio_of_cpu(bulk, (TransferKind)i), more, more_there);
    }
}

static void
print_checksums(Bulk *bulk)
{
    printf("\nRatio to the same without checksums\n\n"
           "| | GiB/s | source CPU s/GiB | destination CPU s/GiB |\n|---|---|---|---|\n");
    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        TransferKind unchecked = transfer_unchecked((TransferKind)i);
        Transfer *one = &bulk->transfers[i], *other = &bulk->transfers[unchecked];
        if (unchecked == i)
            continue;
        printf("| %s | %.2f | %.2f | %.2f |\n", transfer_names[i],
               ratio_to_unchecked(&one->gib_per_s, &other->gib_per_s),
               ratio_to_unchecked(&one->source_cpu, &other->source_cpu),
               ratio_to_unchecked(&one->destination_cpu, &other->destination_cpu));
    }
}

void
bulk_report_print(Bulk *bulk)
{
    const BulkOptions *options = bulk->options;
    g_autofree char *host = host_summary();
    g_autofree char *source = placement_text(&options->placement.source);
    g_autofree char *destination = placement_text(&options->placement.destination);

    printf("# Bulk transfer\n\n%s.\nMemory %" G_GUINT64_FORMAT
           " MiB %s, %s%s, preempt %s, CPUs: source %s, destination %s, %u repeats.\n",
           host, options->memory_bytes >> 20, backing_names[options->backing],
           options->is_unix ? "unix" : "tcp", options->uses_netns ? " over veth" : "",
           options->preempt ? "on" : "off", source, destination, options->count_repeats);
    if (bulk_has(bulk, BULK_PART_TRANSFERS))
        print_transfers(bulk);
    if (bulk_has_transfer(bulk, TRANSFER_PRECOPY_CHECKED))
        print_checksums(bulk);
    if (bulk_has(bulk, BULK_PART_SWITCHES))
        bulk_switches_print(bulk);
    if (bulk_has(bulk, BULK_PART_RECOVERIES))
        bulk_recoveries_print(bulk);
    if (bulk_has(bulk, BULK_PART_SYNCS))
        bulk_syncs_print(bulk);
}

/* ---- JSON and columns
 * ----------------------------------------------------------------------------------------- */

void
bulk_write_figure(JsonBuilder *json, const char *name, Samples *samples)
{
    Quantiles least, greatest;

    if (!samples_count(samples))
        return;
    samples_range(samples, &least, &greatest);
    report_open(json, name);
    report_number(json, "value", median(samples));
    report_number(json, "least", least.value[0]);
    report_number(json, "greatest", greatest.value[0]);
    report_close(json);
}

static void
write_options(JsonBuilder *json, const BulkOptions *options)
{
    g_autofree char *source = placement_text(&options->placement.source);
    g_autofree char *destination = placement_text(&options->placement.destination);

    report_open(json, "options");
    report_count(json, "memory-bytes", options->memory_bytes);
    report_text(json, "backing", backing_names[options->backing]);
    report_text(json, "transport", options->is_unix ? "unix" : "tcp");
    report_flag(json, "netns", options->uses_netns);
    report_flag(json, "preempt", options->preempt);
    report_count(json, "repeats", options->count_repeats);
    report_text(json, "source-cpus", source);
    report_text(json, "destination-cpus", destination);
    report_close(json);
}

static void
write_transfers(JsonBuilder *json, Bulk *bulk)
{
    json_builder_set_member_name(json, "transfers");
    json_builder_begin_array(json);
    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        if (!bulk_has_transfer(bulk, (TransferKind)i))
            continue;
        Transfer *one = &bulk->transfers[i];
        json_builder_begin_object(json);
        report_text(json, "name", transfer_names[i]);
        bulk_write_figure(json, "gib-per-s", &one->gib_per_s);
        report_text(json, "floor", transfer_names[transfer_floor((TransferKind)i)]);
        report_number(json, "ratio-to-floor", ratio_to_floor(bulk, (TransferKind)i));
        bulk_write_figure(json, "source-cpu-s-per-gib", &one->source_cpu);
        bulk_write_figure(json, "destination-cpu-s-per-gib", &one->destination_cpu);
        report_number(json, "destination-cpu-ratio-to-plain-allocated",
                      ratio_of_cpu(bulk, (TransferKind)i));
        bulk_write_figure(json, "source-private-mib-per-gib", &one->source_overhead);
        bulk_write_figure(json, "destination-private-mib-per-gib", &one->destination_overhead);
        json_builder_end_object(json);
    }
    json_builder_end_array(json);
}

static bool
write_columns(Bulk *bulk, GError **error)
{
    g_autoptr(GString) text = g_string_new("transfer GiB/s least greatest\n");
    g_autofree char *path = report_path(bulk->options->json_path, ".throughput.dat");

    for (unsigned i = 0; i < TRANSFER_COUNT; i++) {
        if (!bulk_has_transfer(bulk, (TransferKind)i))
            continue;
        Quantiles least, greatest;
        if (!bulk_has_transfer(bulk, (TransferKind)i))
            continue;
        samples_range(&bulk->transfers[i].gib_per_s, &least, &greatest);
        g_string_append_printf(text, "\"%s\" %.4f %.4f %.4f\n", transfer_names[i],
                               median(&bulk->transfers[i].gib_per_s), least.value[0],
                               greatest.value[0]);
    }
    return g_file_set_contents(path, text->str, -1, error);
}

bool
bulk_report_write(Bulk *bulk, GError **error)
{
    g_autoptr(JsonBuilder) json = report_new("bulk");

    write_options(json, bulk->options);
    if (bulk_has(bulk, BULK_PART_TRANSFERS))
        write_transfers(json, bulk);
    if (bulk_has(bulk, BULK_PART_SWITCHES))
        bulk_switches_write(json, bulk);
    if (bulk_has(bulk, BULK_PART_RECOVERIES))
        bulk_recoveries_write(json, bulk);
    if (bulk_has(bulk, BULK_PART_SYNCS))
        bulk_syncs_write(json, bulk);
    if (!report_write(json, bulk->options->json_path, error))
        return false;
    return !bulk_has(bulk, BULK_PART_TRANSFERS) || write_columns(bulk, error);
}
