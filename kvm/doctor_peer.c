/* SPDX-License-Identifier: MIT */
/*
 * What `faultline doctor --to qmp:PATH` tells of the machine at the other end of a QMP socket. Only
 * queries are sent; a faultline takes any number of clients, a QEMU one at a time for each of its
 * sockets. One thread; waits a few seconds for an answer at most.
 */
#include "kvm/doctor.h"
#include "kvm/qmp_client.h"

#define PATIENCE_S 5

typedef struct Peer {
    DoctorReport *report;
    QmpClient *client;
    char *tried;
} Peer;

static JsonObject *
ask(const Peer *peer, const char *command, JsonNode **ret_node, GError **error)
{
    *ret_node = qmp_client_execute(peer->client, command, NULL, error);
    if (!*ret_node)
        return NULL;
    if (JSON_NODE_HOLDS_OBJECT(*ret_node))
        return json_node_get_object(*ret_node);
    g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA, "%s: the answer is no object", command);
    return NULL;
}

static JsonObject *
object_member(JsonObject *object, const char *name)
{
    JsonNode *node = object ? json_object_get_member(object, name) : NULL;

    return node && JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;
}

/* A faultline says so in its package; QEMU has there what its maker wrote, often nothing. */
static char *
version_text(JsonObject *answer)
{
    JsonObject *numbers = object_member(answer, "qemu");
    const char *package = json_object_get_string_member_with_default(answer, "package", "");

    if (!numbers)
        return g_strdup("a version that it does not tell");
    return g_strdup_printf("version %" G_GINT64_FORMAT ".%" G_GINT64_FORMAT ".%" G_GINT64_FORMAT
                           "%s%s%s",
                           json_object_get_int_member_with_default(numbers, "major", 0),
                           json_object_get_int_member_with_default(numbers, "minor", 0),
                           json_object_get_int_member_with_default(numbers, "micro", 0),
                           *package ? " (" : "", package, *package ? ")" : "");
}

static bool
check_version(const Peer *peer, GError **error)
{
    g_autoptr(JsonNode) node = NULL;
    JsonObject *answer = ask(peer, "query-version", &node, error);

    if (!answer)
        return false;
    g_autofree char *text = version_text(answer);
    return doctor_report_add(peer->report, "peer-version", peer->tried, FAULTLINE_CHECK_OK, text);
}

static bool
check_state(const Peer *peer, GError **error)
{
    g_autoptr(JsonNode) node = NULL;
    JsonObject *answer = ask(peer, "query-status", &node, error);

    if (!answer)
        return false;
    const char *state = json_object_get_string_member_with_default(answer, "status", "unknown");
    bool waits = g_str_equal(state, "inmigrate");
    g_autofree char *text =
        g_strdup_printf(waits ? "%s"
                              : "%s, so it does not wait for a guest. Start the destination "
                                "with --incoming (QEMU: -incoming)",
                        state);
    return doctor_report_add(peer->report, "peer-state", "state of that machine",
                             waits ? FAULTLINE_CHECK_OK : FAULTLINE_CHECK_CLOSED, text);
}

static bool
has_postcopy(JsonArray *capabilities)
{
    for (guint i = 0; i < json_array_get_length(capabilities); i++) {
        JsonNode *node = json_array_get_element(capabilities, i);
        JsonObject *row = JSON_NODE_HOLDS_OBJECT(node) ? json_node_get_object(node) : NULL;

        if (row && g_str_equal(json_object_get_string_member_with_default(row, "capability", ""),
                               "postcopy-ram"))
            return json_object_get_boolean_member_with_default(row, "state", FALSE);
    }
    return false;
}

static bool
check_postcopy(const Peer *peer, GError **error)
{
    g_autoptr(JsonNode) node =
        qmp_client_execute(peer->client, "query-migrate-capabilities", NULL, error);

    if (!node)
        return false;
    bool on = JSON_NODE_HOLDS_ARRAY(node) && has_postcopy(json_node_get_array(node));
    return doctor_report_add(
        peer->report, "peer-postcopy-ram", "postcopy-ram of that machine",
        on ? FAULTLINE_CHECK_OK : FAULTLINE_CHECK_WARNING,
        on ? "on" : "off. Run 'migrate_set_capability postcopy-ram on' there, before it listens");
}

bool
doctor_check_peer(DoctorReport *report, const char *socket)
{
    static bool (*const checks[])(const Peer *peer, GError **error) = {check_version, check_state,
                                                                       check_postcopy};
    g_autoptr(GError) error = NULL;
    g_autofree char *tried = g_strdup_printf("machine behind %s", socket);
    g_autoptr(QmpClient) client = qmp_client_open_within(socket, PATIENCE_S, &error);
    const Peer peer = {.report = report, .client = client, .tried = tried};
    bool good = true;

    for (unsigned i = 0; client && i < G_N_ELEMENTS(checks) && !error; i++)
        good = checks[i](&peer, &error) && good;
    if (!error)
        return good;
    g_autofree char *text = g_strdup_printf(
        "%s. Give the path of its QMP socket (--qmp), and this user the right to use it%s",
        error->message,
        g_error_matches(error, G_IO_ERROR, G_IO_ERROR_TIMED_OUT)
            ? "; a QEMU that serves another client there does not answer: give it one more socket"
            : "");
    return doctor_report_add(report, "peer-qmp", tried, FAULTLINE_CHECK_CLOSED, text);
}
