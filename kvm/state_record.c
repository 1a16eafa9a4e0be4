/* SPDX-License-Identifier: MIT */
/*
 * The text of a record. Its version is its first member: whoever reads a later one knows that it
 * must not guess.
 */
#include "kvm/state_record.h"

#include <json-glib/json-glib.h>
#include <string.h>

#define VERSION_MEMBER "faultline-record"
#define NUMBER_DIGITS  16

static bool refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

static bool
refuse(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, text);
    return false;
}

const char *
state_record_side(bool incoming)
{
    return incoming ? "destination" : "source";
}

static void
set_number(JsonObject *object, const char *name, uint64_t value)
{
    json_object_set_int_member(object, name, (int64_t)MIN(value, (uint64_t)INT64_MAX));
}

char *
state_record_format(const StateRecord *record)
{
    g_autoptr(JsonObject) object = json_object_new();
    g_autofree char *migration =
        g_strdup_printf("%0*" G_GINT64_MODIFIER "x", NUMBER_DIGITS, record->migration);
    g_autoptr(GDateTime) utc = g_date_time_new_from_unix_utc(record->written_us / G_USEC_PER_SEC);
    g_autofree char *when = g_date_time_format(utc, "%Y-%m-%dT%H:%M:%SZ");

    json_object_set_int_member(object, VERSION_MEMBER, STATE_RECORD_VERSION);
    json_object_set_string_member(object, "name", record->name);
    json_object_set_string_member(object, "side", state_record_side(record->incoming));
    json_object_set_string_member(object, "owner", faultline_owner_name(record->owner));
    json_object_set_string_member(object, "status", record->status);
    json_object_set_string_member(object, "migration", migration);
    set_number(object, "missing-pages", record->missing_pages);
    json_object_set_string_member(object, "address", record->address);
    json_object_set_string_member(object, "host", record->host);
    json_object_set_string_member(object, "boot", record->boot);
    json_object_set_string_member(object, "directory", record->directory);
    json_object_set_int_member(object, "pid", record->pid);
    json_object_set_string_member(object, "written", when);
    json_object_set_int_member(object, "written-us", record->written_us);
    json_object_set_string_member(object, "end", record->end);

    g_autoptr(JsonNode) root = json_node_init_object(json_node_alloc(), object);
    g_autofree char *text = json_to_string(root, true);
    return g_strconcat(text, "\n", NULL);
}

/* ---- Reading --------------------------------------------------------------------------------- */

static bool
read_text(JsonObject *object, const char *name, char **ret, GError **error)
{
    JsonNode *node = json_object_get_member(object, name);

    if (!node || json_node_get_value_type(node) != G_TYPE_STRING)
        return refuse(error, "it is broken: member \"%s\" is missing or no text", name);
    *ret = json_node_dup_string(node);
    return true;
}

static bool
read_number(JsonObject *object, const char *name, int64_t *ret, GError **error)
{
    JsonNode *node = json_object_get_member(object, name);

    if (!node || json_node_get_value_type(node) != G_TYPE_INT64 || json_node_get_int(node) < 0)
        return refuse(error, "it is broken: member \"%s\" is missing or no count", name);
    *ret = json_node_get_int(node);
    return true;
}

static bool
check_version(JsonNode *root, GError **error)
{
    JsonObject *object = root && JSON_NODE_HOLDS_OBJECT(root) ? json_node_get_object(root) : NULL;
    int64_t version = 0;

    if (!object || !json_object_has_member(object, VERSION_MEMBER))
        return refuse(error, "it is no record of faultline's: it lacks \"" VERSION_MEMBER "\"");
    if (!read_number(object, VERSION_MEMBER, &version, error))
        return false;
    if (version > STATE_RECORD_VERSION)
        return refuse(error,
                      "it was written by a later faultline (version %" G_GINT64_FORMAT
                      ", this program knows %d); read it with that one",
                      version, STATE_RECORD_VERSION);
    return version == STATE_RECORD_VERSION ||
           refuse(error, "it is broken: there never was a version %" G_GINT64_FORMAT, version);
}

static bool
read_owner(JsonObject *object, StateRecord *record, GError **error)
{
    g_autofree char *side = NULL, *owner = NULL;

    if (!read_text(object, "side", &side, error) || !read_text(object, "owner", &owner, error))
        return false;
    record->incoming = g_str_equal(side, state_record_side(true));
    if (!record->incoming && !g_str_equal(side, state_record_side(false)))
        return refuse(error, "it is broken: there is no side \"%s\"", side);
    for (unsigned i = 0; i < FAULTLINE_OWNER_COUNT; i++) {
        record->owner = (FaultlineOwner)i;
        if (g_str_equal(owner, faultline_owner_name(record->owner)))
            return true;
    }
    return refuse(error, "it is broken: there is no owner \"%s\"", owner);
}

static bool
read_migration(JsonObject *object, StateRecord *record, GError **error)
{
    g_autofree char *text = NULL;

    if (!read_text(object, "migration", &text, error))
        return false;
    return (strlen(text) == NUMBER_DIGITS &&
            g_ascii_string_to_unsigned(text, 16, 0, UINT64_MAX, &record->migration, NULL)) ||
           refuse(error, "it is broken: \"%s\" is no number of a migration", text);
}

static bool
read_all(JsonObject *object, StateRecord *record, GError **error)
{
    int64_t missing = 0;
    bool is_good = read_text(object, "name", &record->name, error) &&
                   read_owner(object, record, error) &&
                   read_text(object, "status", &record->status, error) &&
                   read_migration(object, record, error) &&
                   read_number(object, "missing-pages", &missing, error) &&
                   read_text(object, "address", &record->address, error) &&
                   read_text(object, "host", &record->host, error) &&
                   read_text(object, "boot", &record->boot, error) &&
                   read_text(object, "directory", &record->directory, error) &&
                   read_number(object, "pid", &record->pid, error) &&
                   read_number(object, "written-us", &record->written_us, error) &&
                   read_text(object, "end", &record->end, error);
    record->missing_pages = (uint64_t)missing;
    return is_good;
}

StateRecord *
state_record_parse(const char *text, GError **error)
{
    g_autoptr(JsonParser) parser = json_parser_new();
    g_autoptr(StateRecord) record = g_new0(StateRecord, 1);
    g_autoptr(GError) reason = NULL;

    if (!json_parser_load_from_data(parser, text, -1, &reason)) {
        refuse(error, "it is broken or cut short: %s", reason->message);
        return NULL;
    }
    JsonNode *root = json_parser_get_root(parser);
    if (!check_version(root, error) || !read_all(json_node_get_object(root), record, error))
        return NULL;
    return g_steal_pointer(&record);
}

void
state_record_free(StateRecord *record)
{
    if (!record)
        return;
    g_free(record->name);
    g_free(record->status);
    g_free(record->address);
    g_free(record->host);
    g_free(record->boot);
    g_free(record->directory);
    g_free(record->end);
    g_free(record);
}
