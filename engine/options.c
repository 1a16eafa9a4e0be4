/* SPDX-License-Identifier: MIT */
/*
 * The tables of capabilities and parameters, and setting them. Control thread; the migration's
 * threads read values through options_has() and options_get().
 */
#include "engine/migration.h"
#include "engine/stream/stream.h"

#include <string.h>

static const FaultlineCapabilityRow capabilities[] = {
#define CAPABILITY_ROW(name, text, preset, both, help, side)                                       \
    {text, preset, (both) != 0, help, FAULTLINE_SIDE_##side},
    CAPABILITY_LIST(CAPABILITY_ROW)
#undef CAPABILITY_ROW
        {NULL, false, false, NULL, FAULTLINE_SIDE_EACH},
};
G_STATIC_ASSERT(G_N_ELEMENTS(capabilities) == CAPABILITY_COUNT + 1);

static const uint16_t agreement_bits[CAPABILITY_COUNT] = {
#define CAPABILITY_BIT(name, text, preset, both, help, side) both,
    CAPABILITY_LIST(CAPABILITY_BIT)
#undef CAPABILITY_BIT
};

/* No two capabilities are told by the same bit. */
#define PLUS_BIT(name, text, preset, both, help, side) +(both)
#define OR_BIT(name, text, preset, both, help, side)   | (both)
G_STATIC_ASSERT((0 CAPABILITY_LIST(PLUS_BIT)) == (0 CAPABILITY_LIST(OR_BIT)));
#undef PLUS_BIT
#undef OR_BIT

/* A bit has no room for a value: a parameter that must be equal needs a message of its own. */
#define OR_BOTH(name, text, preset, least, greatest, unit, help, type, side, both) || (both)
G_STATIC_ASSERT(!(false PARAMETER_LIST(OR_BOTH)));
#undef OR_BOTH

static const FaultlineParameterRow parameters[] = {
#define PARAMETER_ROW(name, text, preset, least, greatest, unit, help, type, side, both)           \
    {text, preset, least, greatest, unit, help, FAULTLINE_TYPE_##type, FAULTLINE_SIDE_##side, both},
    PARAMETER_LIST(PARAMETER_ROW)
#undef PARAMETER_ROW
        {NULL, 0, 0, 0, NULL, NULL, FAULTLINE_TYPE_INTEGER, FAULTLINE_SIDE_EACH, false},
};
G_STATIC_ASSERT(G_N_ELEMENTS(parameters) == PARAMETER_COUNT + 1);

static const struct {
    Capability one, needs;
} requirements[] = {
#define NEEDS_ROW(one, needs) {CAPABILITY_##one, CAPABILITY_##needs},
    CAPABILITY_NEEDS_LIST(NEEDS_ROW)
#undef NEEDS_ROW
};

static const struct {
    Parameter lower, upper;
} orders[] = {
#define ORDER_ROW(lower, upper) {PARAMETER_##lower, PARAMETER_##upper},
    PARAMETER_ORDER_LIST(ORDER_ROW)
#undef ORDER_ROW
};

void
options_init(Options *options)
{
    for (unsigned i = 0; i < CAPABILITY_COUNT; i++)
        options->capabilities[i] = capabilities[i].preset;
    for (unsigned i = 0; i < PARAMETER_COUNT; i++)
        options->parameters[i] = parameters[i].preset;
}

void
options_clear(Options *options)
{
    for (unsigned i = 0; i < PARAMETER_COUNT; i++)
        g_clear_pointer(&options->texts[i], g_free);
}

uint32_t
options_features(const Options *options)
{
    uint32_t features = STREAM_FEATURES;

    if (!options_has(options, CAPABILITY_PAGE_RUNS))
        features &= ~STREAM_FEATURE_RUNS;
    if (!options_has(options, CAPABILITY_URGENT_REQUESTS))
        features &= ~STREAM_FEATURE_URGENT_REQUESTS;
    if (!options_has(options, CAPABILITY_DISCARD_WORDS))
        features &= ~STREAM_FEATURE_DISCARD_WORDS;
    if (!options_has(options, CAPABILITY_RECOVERY_TOKEN) ||
        !options_has(options, CAPABILITY_POSTCOPY_RAM))
        features &= ~(STREAM_FEATURE_TOKEN | STREAM_FEATURE_FAREWELL);
    if (!options_get(options, PARAMETER_HEARTBEAT_TIMEOUT))
        features &= ~STREAM_FEATURE_HEARTBEAT;
    if (!options_has(options, CAPABILITY_PAGE_CHECKSUMS))
        features &= ~STREAM_FEATURE_CHECKSUMS;
    return features;
}

uint32_t
options_agreement(const Options *options)
{
    uint32_t agreement = 0;
    for (unsigned i = 0; i < CAPABILITY_COUNT; i++)
        if (options_has(options, (Capability)i))
            agreement |= agreement_bits[i];
    return agreement;
}

static void
name_difference(GString *names, const char *name, bool is_on_at_source)
{
    g_string_append_printf(names, "%scapability '%s' is %s at the source and %s at the destination",
                           names->len ? ", " : "", name, is_on_at_source ? "on" : "off",
                           is_on_at_source ? "off" : "on");
}

bool
options_check_agreement(uint32_t source, uint32_t destination, GError **error)
{
    uint32_t differing = source ^ destination;
    g_autoptr(GString) names = g_string_new(NULL);

    for (unsigned i = 0; i < CAPABILITY_COUNT; i++)
        if (differing & agreement_bits[i]) {
            name_difference(names, capabilities[i].name, source & agreement_bits[i]);
            differing &= ~(uint32_t)agreement_bits[i];
        }
    if (differing) {
        g_autofree char *unknown = g_strdup_printf("0x%x (of a later version)", differing);
        name_difference(names, unknown, source & differing);
    }
    if (!names->len)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER,
                "advise postcopy: %s; set it to the same on both sides and migrate again",
                names->str);
    return false;
}

const FaultlineCapabilityRow *
faultline_capability_table(void)
{
    return capabilities;
}

const FaultlineParameterRow *
faultline_parameter_table(void)
{
    return parameters;
}

static int
find_capability(const char *name)
{
    for (int i = 0; i < CAPABILITY_COUNT; i++)
        if (strcmp(capabilities[i].name, name) == 0)
            return i;
    return -1;
}

static int
find_parameter(const char *name)
{
    for (int i = 0; i < PARAMETER_COUNT; i++)
        if (strcmp(parameters[i].name, name) == 0)
            return i;
    return -1;
}

static bool
check_combination(const bool *wanted, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(requirements); i++) {
        if (!wanted[requirements[i].one] || wanted[requirements[i].needs])
            continue;
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "set capability: '%s' needs '%s'; switch '%s' on first, or off last",
                    capabilities[requirements[i].one].name,
                    capabilities[requirements[i].needs].name,
                    capabilities[requirements[i].needs].name);
        return false;
    }
    return true;
}

/* Asked for something that can never happen, one would wait for it in vain. */
static bool
check_guest(const Faultline *faultline, const bool *wanted, GError **error)
{
    if (!wanted[CAPABILITY_AUTO_CONVERGE] || faultline->guest.throttle)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED,
                "set capability: '%s' slows vCPUs down, which this machine cannot do (its VMM has "
                "no throttle callback); raise downtime-limit or max-bandwidth, or use postcopy-ram",
                capabilities[CAPABILITY_AUTO_CONVERGE].name);
    return false;
}

bool
faultline_set_capability(Faultline *faultline, const char *name, bool on, GError **error)
{
    int capability = find_capability(name);
    if (capability < 0) {
        g_set_error(
            error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
            "set capability: there is none named '%s'; query-migrate-capabilities lists them",
            name);
        return false;
    }
    if (context_is_busy(faultline)) {
        g_set_error(
            error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
            "set capability '%s': a migration is under way (%s); wait for its end or cancel it",
            name, faultline_status_name(context_status(faultline)));
        return false;
    }
    bool wanted[CAPABILITY_COUNT];
    memcpy(wanted, faultline->options.capabilities, sizeof wanted);
    wanted[capability] = on;
    if (!check_combination(wanted, error) || !check_guest(faultline, wanted, error))
        return false;
    __atomic_store_n(&faultline->options.capabilities[capability], on, __ATOMIC_RELAXED);
    return true;
}

bool
faultline_get_capability(const Faultline *faultline, const char *name)
{
    int capability = find_capability(name);
    return capability >= 0 && options_has(&faultline->options, (Capability)capability);
}

static bool
check_order(const Options *options, Parameter parameter, uint64_t value, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(orders); i++) {
        Parameter lower = orders[i].lower, upper = orders[i].upper;
        uint64_t least = parameter == lower ? value : options_get(options, lower);
        uint64_t greatest = parameter == upper ? value : options_get(options, upper);
        if ((parameter != lower && parameter != upper) || least <= greatest)
            continue;
        const FaultlineParameterRow *other = &parameters[parameter == lower ? upper : lower];
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "set parameter '%s': %" G_GUINT64_FORMAT
                    " is %s '%s', which is %" G_GUINT64_FORMAT
                    "; change that one first, or both in one command",
                    parameters[parameter].name, value, parameter == lower ? "above" : "below",
                    other->name, parameter == lower ? greatest : least);
        return false;
    }
    return true;
}

static bool
check_is_text(const FaultlineParameterRow *row, bool is_text, GError **error)
{
    if ((row->type == FAULTLINE_TYPE_TEXT) == is_text)
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, "set parameter '%s': it takes %s",
                row->name, is_text ? "no text, but a number" : "a text, not a number");
    return false;
}

bool
faultline_set_parameter(Faultline *faultline, const char *name, uint64_t value, GError **error)
{
    int parameter = find_parameter(name);
    if (parameter < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "set parameter: there is none named '%s'; query-migrate-parameters lists them",
                    name);
        return false;
    }
    const FaultlineParameterRow *row = &parameters[parameter];
    if (!check_is_text(row, false, error))
        return false;
    if (value < row->least || value > row->greatest) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "set parameter '%s': %" G_GUINT64_FORMAT
                    " is out of range; it takes %" G_GUINT64_FORMAT " to %" G_GUINT64_FORMAT " %s",
                    name, value, row->least, row->greatest, row->unit);
        return false;
    }
    if (!check_order(&faultline->options, (Parameter)parameter, value, error))
        return false;
    __atomic_store_n(&faultline->options.parameters[parameter], value, __ATOMIC_RELAXED);
    migration_wake(faultline); /* who waits for the old limit looks at the new one */
    return true;
}

uint64_t
faultline_get_parameter(const Faultline *faultline, const char *name)
{
    int parameter = find_parameter(name);
    return parameter < 0 ? 0 : options_get(&faultline->options, (Parameter)parameter);
}

/* ---- Texts ----------------------------------------------------------------------------------- */

bool
faultline_set_text_parameter(Faultline *faultline, const char *name, const char *value,
                             GError **error)
{
    const char *texts[PARAMETER_COUNT];
    int parameter = find_parameter(name);

    if (parameter < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "set parameter: there is none named '%s'; query-migrate-parameters lists them",
                    name);
        return false;
    }
    if (!check_is_text(&parameters[parameter], true, error))
        return false;
    memcpy(texts, faultline->options.texts, sizeof texts);
    texts[parameter] = value;
    if (!security_check(&faultline->security, texts, error))
        return false;
    g_free(faultline->options.texts[parameter]);
    faultline->options.texts[parameter] = g_strdup(value);
    return true;
}

const char *
faultline_get_text_parameter(const Faultline *faultline, const char *name)
{
    int parameter = find_parameter(name);
    const char *text = parameter < 0 ? NULL : faultline->options.texts[parameter];

    return text ? text : "";
}
