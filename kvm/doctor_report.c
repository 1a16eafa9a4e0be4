/* SPDX-License-Identifier: MIT */
/*
 * How `faultline doctor` prints: a row is a line "STATE TRIED: WHAT CAME OF IT" and, where there is
 * something to do, an indented one with it; or one JSON object. One thread.
 */
#include "kvm/doctor.h"

#include <json-glib/json-glib.h>
#include <string.h>

static const char *const colours[] = {
    [FAULTLINE_CHECK_OK] = "\033[32m",
    [FAULTLINE_CHECK_WARNING] = "\033[33m",
    [FAULTLINE_CHECK_CLOSED] = "\033[31m",
};
G_STATIC_ASSERT(G_N_ELEMENTS(colours) == FAULTLINE_CHECK_CLOSED + 1);

static void
print_json(const DoctorReport *report, JsonObject *object)
{
    g_autoptr(JsonNode) node = json_node_init_object(json_node_alloc(), object);
    g_autofree char *line = json_to_string(node, FALSE);

    fprintf(report->stream, "%s\n", line);
    json_object_unref(object);
}

/* Behind the first sentence stands what to do. */
static void
print_row(const DoctorReport *report, const FaultlineCheck *check)
{
    g_auto(GStrv) parts = g_strsplit(check->text, ". ", 2);
    const char *found = parts[0] ? parts[0] : "";
    const char *remedy = parts[0] ? parts[1] : NULL;
    const char *state = faultline_check_state_name(check->state);

    if (report->json) {
        JsonObject *object = json_object_new();
        json_object_set_string_member(object, "name", check->name);
        json_object_set_string_member(object, "state", state);
        json_object_set_string_member(object, "tried", check->tried);
        json_object_set_string_member(object, "found", found);
        if (remedy)
            json_object_set_string_member(object, "remedy", remedy);
        print_json(report, object);
        return;
    }
    fprintf(report->stream, "%s%-7s%s  %s: %s\n", report->colour ? colours[check->state] : "",
            state, report->colour ? "\033[0m" : "", check->tried, found);
    if (remedy)
        fprintf(report->stream, "         %s\n", remedy);
}

void
doctor_report_take(void *opaque, const FaultlineCheck *check)
{
    DoctorReport *report = opaque;

    print_row(report, check);
    fflush(report->stream); /* the next one may be the end of us */
}

bool
doctor_report_add(DoctorReport *report, const char *name, const char *tried,
                  FaultlineCheckState state, const char *text)
{
    const FaultlineCheck check = {.name = name, .tried = tried, .state = state, .text = text};

    doctor_report_take(report, &check);
    return state != FAULTLINE_CHECK_CLOSED;
}

void
doctor_report_end(DoctorReport *report, bool can_postcopy)
{
    if (report->json) {
        JsonObject *object = json_object_new();
        json_object_set_boolean_member(object, "postcopy", can_postcopy);
        print_json(report, object);
    } else {
        fprintf(report->stream, "\n%s\n",
                can_postcopy ? "Postcopy works here."
                             : "Postcopy does not work here: see what is closed.");
    }
    fflush(report->stream);
}
