/* SPDX-License-Identifier: MIT */
/* See migration.h: a paused migration is taken up again, as an operator does it. */
#include "tests/chaos/migration.h"

/* Where the destination listens now, out of query-migrate's socket-address; NULL: nowhere. */
static char *
find_address(Side *side, GError **error)
{
    g_autoptr(JsonNode) answer = qmp_call(side->qmp, "query-migrate", NULL, error);

    if (!answer)
        return NULL;
    JsonObject *object = json_node_get_object(answer);
    JsonArray *list = json_object_has_member(object, "socket-address")
                          ? json_object_get_array_member(object, "socket-address")
                          : NULL;
    if (!list || json_array_get_length(list) == 0) {
        migration_refuse(error, "the destination does not tell where it listens");
        return NULL;
    }
    JsonObject *address = json_array_get_object_element(list, json_array_get_length(list) - 1);
    if (g_str_equal(json_object_get_string_member(address, "type"), "unix"))
        return g_strdup_printf("unix:%s", json_object_get_string_member(address, "path"));
    return g_strdup_printf("tcp:127.0.0.1:%s", json_object_get_string_member(address, "port"));
}

static char *
wish_address(const Migration *migration)
{
    const Plan *plan = migration->plan;
    bool is_unix =
        plan->recovers_elsewhere && migration->recoveries == 0 ? !plan->is_unix : plan->is_unix;
    return is_unix
               ? g_strdup_printf("unix:%s/again-%u", migration->directory, migration->recoveries)
               : g_strdup("tcp:127.0.0.1:0");
}

bool
migration_recover(Migration *migration, GError **error)
{
    g_autofree char *wish = wish_address(migration);
    g_autofree char *there = g_strdup_printf("{\"uri\": \"%s\"}", wish);

    if (!migration->destination.is_unheard &&
        !side_do(&migration->destination, "migrate-recover", there, error))
        return false;
    g_autofree char *address = find_address(&migration->destination, error);
    if (!address)
        return false;
    relay_free(migration->relay);
    migration->relay = relay_new(address, migration->directory, migration->plan->queue_bytes);
    migration->recoveries++;
    migration_arm_if_moment(migration);
    migration_note(migration, "recover at %s", address);
    g_autofree char *here =
        g_strdup_printf("{\"uri\": \"%s\", \"resume\": true}", relay_uri(migration->relay));
    return migration_do_migrate(migration, here, error);
}
