/* SPDX-License-Identifier: MIT */
/*
 * `faultline status DIR`: reads the records of a state directory and says for each guest where it
 * is, by which evidence, what is missing, and what can be done. Changes nothing, and needs none of
 * the processes. Main thread only.
 */
#include "kvm/command.h"
#include "kvm/state_judge.h"

#include <inttypes.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

typedef struct Status {
    char *directory;
    gboolean json;
    int exit_code;
} Status;

static const char *
life_text(StateLife life)
{
    static const char *const names[] = {
        [STATE_LIFE_RUNS] = "runs",
        [STATE_LIFE_GONE] = "gone",
        [STATE_LIFE_ENDED] = "ended",
        [STATE_LIFE_UNKNOWN] = "unknown",
    };
    return names[life];
}

static void
worsen(Status *status, int exit_code)
{
    /* A record that cannot be read is no worse than one that says that something is lost. */
    status->exit_code = MAX(status->exit_code, exit_code);
}

/* ---- Text ------------------------------------------------------------------------------------ */

static void
print_side(const StateFile *file)
{
    const StateRecord *record = file->record;
    g_autoptr(GDateTime) local = g_date_time_new_from_unix_local(record->written_us / 1000000);
    g_autofree char *when = g_date_time_format(local, "%Y-%m-%d %H:%M:%S");

    printf("  %-12s %s, migration %s, at %s; process %" PRId64 " on %s %s%s%s\n",
           state_record_side(record->incoming), faultline_owner_name(record->owner), record->status,
           when, record->pid, record->host, life_text(file->life), *record->end ? ": " : "",
           record->end);
}

static void
print_judgement(const StateJudgement *judgement, const char *name)
{
    printf("%s: %s\n", name, state_place_name(judgement->place));
    if (judgement->source)
        print_side(judgement->source);
    if (judgement->destination)
        print_side(judgement->destination);
    if (judgement->former)
        printf("  %-12s %s is of an earlier migration\n", "former", judgement->former->path);
    printf("  %-12s %s\n", "evidence", judgement->evidence);
    if (judgement->knows_missing && judgement->missing_pages)
        printf("  %-12s at most %" PRIu64 " pages (%.1f MiB)\n", "missing",
               judgement->missing_pages,
               (double)judgement->missing_pages * FAULTLINE_PAGE_BYTES / (1 << 20));
    if (*judgement->remedy)
        printf("  %-12s %s\n", "to do", judgement->remedy);
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void
set_side(JsonObject *object, const StateFile *file)
{
    const StateRecord *record = file->record;
    JsonObject *side = json_object_new();

    json_object_set_string_member(side, "file", file->path);
    json_object_set_string_member(side, "owner", faultline_owner_name(record->owner));
    json_object_set_string_member(side, "status", record->status);
    json_object_set_string_member(side, "address", record->address);
    json_object_set_string_member(side, "host", record->host);
    json_object_set_int_member(side, "pid", record->pid);
    json_object_set_string_member(side, "process", life_text(file->life));
    json_object_set_string_member(side, "end", record->end);
    json_object_set_int_member(side, "written-us", record->written_us);
    json_object_set_int_member(side, "missing-pages", (int64_t)record->missing_pages);
    json_object_set_object_member(object, state_record_side(record->incoming), side);
}

static void
print_object(JsonObject *object)
{
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), object);
    g_autofree char *text = json_to_string(node, false);
    printf("%s\n", text);
}

static void
print_json(const StateJudgement *judgement, const char *name)
{
    static const char *const places[] = {
        [FAULTLINE_PLACE_SOURCE] = "source",
        [FAULTLINE_PLACE_DESTINATION] = "destination",
        [FAULTLINE_PLACE_EITHER] = "either",
        [FAULTLINE_PLACE_CONFLICT] = "conflict",
    };
    g_autoptr(JsonObject) object = json_object_new();

    json_object_set_string_member(object, "name", name);
    json_object_set_string_member(object, "guest", places[judgement->place]);
    json_object_set_string_member(object, "verdict", state_verdict_name(judgement->verdict));
    json_object_set_string_member(object, "evidence", judgement->evidence);
    if (judgement->knows_missing)
        json_object_set_int_member(object, "missing-pages", (int64_t)judgement->missing_pages);
    json_object_set_string_member(object, "remedy", judgement->remedy);
    if (judgement->source)
        set_side(object, judgement->source);
    if (judgement->destination)
        set_side(object, judgement->destination);
    print_object(object);
}

static void
print_broken(const Status *status, const StateFile *file)
{
    fprintf(stderr, "faultline status: %s\n", file->error->message);
    if (!status->json)
        return;
    g_autoptr(JsonObject) object = json_object_new();
    json_object_set_string_member(object, "file", file->path);
    json_object_set_string_member(object, "error", file->error->message);
    print_object(object);
}

/* ---- All of a directory ---------------------------------------------------------------------- */

/* The destination's record of the guest whose source's is `source`. */
static const StateFile *
find_destination(const GPtrArray *files, const char *name)
{
    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        if (file->record && file->record->incoming && g_str_equal(file->record->name, name))
            return file;
    }
    return NULL;
}

static bool
has_source(const GPtrArray *files, const char *name)
{
    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        if (file->record && !file->record->incoming && g_str_equal(file->record->name, name))
            return true;
    }
    return false;
}

static void
tell_guest(Status *status, const StateFile *source, const StateFile *destination)
{
    StateJudgement judgement = state_judge(source, destination);
    const char *name = (source ? source : destination)->record->name;

    (status->json ? print_json : print_judgement)(&judgement, name);
    worsen(status, state_verdict_exit_code(judgement.verdict));
}

static void
tell_all(Status *status, const GPtrArray *files)
{
    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        if (!file->record) {
            print_broken(status, file);
            worsen(status, EXIT_FAILED);
        } else if (!file->record->incoming) {
            tell_guest(status, file, find_destination(files, file->record->name));
        } else if (!has_source(files, file->record->name)) {
            tell_guest(status, NULL, file);
        }
    }
}

static bool
parse(Status *status, int argc, char **argv, GError **error)
{
    const GOptionEntry entries[] = {
        {"json", 0, 0, G_OPTION_ARG_NONE, &status->json, "print JSON, one object a guest", NULL},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new("DIR");

    g_option_context_add_main_entries(context, entries, NULL);
    g_option_context_set_summary(
        context, "Reads the records that machines with --state-dir DIR keep, of one side of a\n"
                 "migration or of both, and says for each guest where it is, how that is known,\n"
                 "what is missing, and what can be done. Needs none of the processes.");
    g_option_context_set_description(
        context, "Exit codes, of several guests the greatest:\n"
                 "  0  it is known where each guest is, and nothing is to be done\n"
                 "  1  there is no record, or one that cannot be read\n"
                 "  2  wrong use\n"
                 "  3  it is known, but something is to be done, or looked at elsewhere\n"
                 "  4  it is known, and the guest died with its process\n"
                 "  5  it is known, and pages of the guest are gone for good\n"
                 "  6  these records do not tell: the other side's is needed\n"
                 "  7  both sides claim the guest");
    g_set_prgname("faultline status");
    if (!g_option_context_parse(context, &argc, &argv, error))
        return false;
    if (argc == 2) {
        status->directory = argv[1];
        return true;
    }
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT, "give one state directory");
    return false;
}

int
status_command(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Status status = {.exit_code = EXIT_OK};

    if (!parse(&status, argc, argv, &error))
        return usage_error("status", error->message);
    g_autoptr(GPtrArray) files = state_dir_read(status.directory, &error);
    if (!files) {
        fprintf(stderr, "faultline status: %s\n", error->message);
        return EXIT_FAILED;
    }
    if (files->len == 0) {
        fprintf(stderr,
                "faultline status: there is no record in %s; machines keep one with --state-dir\n",
                status.directory);
        return EXIT_FAILED;
    }
    tell_all(&status, files);
    return status.exit_code;
}
