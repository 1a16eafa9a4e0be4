/* SPDX-License-Identifier: MIT */
/*
 * How figures are written down. Coordinating process.
 */
#include "bench/report.h"
#include "bench/host.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FORMAT_VERSION 1

JsonBuilder *
report_new(const char *name)
{
    JsonBuilder *builder = json_builder_new();

    json_builder_begin_object(builder);
    report_text(builder, "bench", name);
    report_count(builder, "format", FORMAT_VERSION);
    report_open(builder, "machine");
    host_describe(builder);
    report_close(builder);
    return builder;
}

bool
report_write(JsonBuilder *builder, const char *path, GError **error)
{
    json_builder_end_object(builder);
    g_autoptr(JsonNode) root = json_builder_get_root(builder);
    g_autoptr(JsonGenerator) generator = json_generator_new();
    json_generator_set_root(generator, root);
    json_generator_set_pretty(generator, TRUE);
    if (json_generator_to_file(generator, path, error))
        return true;
    g_prefix_error(error, "write %s: ", path);
    return false;
}

/* JSON has no infinities; four significant decimals are more than any figure here is good for. */
void
report_number(JsonBuilder *builder, const char *name, double value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_double_value(builder, isfinite(value) ? round(value * 1e4) / 1e4 : 0.0);
}

void
report_count(JsonBuilder *builder, const char *name, uint64_t value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_int_value(builder, (gint64)MIN(value, (uint64_t)INT64_MAX));
}

void
report_text(JsonBuilder *builder, const char *name, const char *value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_string_value(builder, value);
}

void
report_flag(JsonBuilder *builder, const char *name, bool value)
{
    json_builder_set_member_name(builder, name);
    json_builder_add_boolean_value(builder, value);
}

void
report_open(JsonBuilder *builder, const char *name)
{
    json_builder_set_member_name(builder, name);
    json_builder_begin_object(builder);
}

void
report_close(JsonBuilder *builder)
{
    json_builder_end_object(builder);
}

void
report_samples(JsonBuilder *builder, const char *name, Samples *samples)
{
    Quantiles least, greatest, pooled = samples_quantiles(samples);

    samples_range(samples, &least, &greatest);
    report_open(builder, name);
    report_count(builder, "samples", samples_count(samples));
    report_count(builder, "repeats", samples->repeats->len);
    for (unsigned i = 0; i < QUANTILE_COUNT; i++) {
        report_open(builder, quantile_names[i]);
        report_number(builder, "value", pooled.value[i]);
        report_number(builder, "least", least.value[i]);
        report_number(builder, "greatest", greatest.value[i]);
        report_close(builder);
    }
    report_close(builder);
}

void
report_quantiles(JsonBuilder *builder, const char *name, const Quantiles *quantiles)
{
    report_open(builder, name);
    for (unsigned i = 0; i < QUANTILE_COUNT; i++)
        report_number(builder, quantile_names[i], quantiles->value[i]);
    report_close(builder);
}

void
report_progress(const char *format, ...)
{
    if (!isatty(STDERR_FILENO))
        return;
    va_list arguments;
    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    fprintf(stderr, "\r%-70s\r", text);
}

static int
decimals_of(double value)
{
    return value < 10 ? 2 : value < 1000 ? 1 : 0;
}

char *
report_with_range(double value, double least, double greatest)
{
    int decimals = decimals_of(value);
    return g_strdup_printf("%.*f (%.*f..%.*f)", decimals, value, decimals, least, decimals,
                           greatest);
}

char *
report_path(const char *json_path, const char *ending)
{
    size_t length = strlen(json_path);
    if (g_str_has_suffix(json_path, ".json"))
        length -= strlen(".json");
    return g_strdup_printf("%.*s%s", (int)length, json_path, ending);
}
