/* SPDX-License-Identifier: MIT */
/*
 * Events that are not the migration's: a guest that ends by itself, and the VMM's own.
 */
#include "tests/unit/monitor_client.h"

/* The name of the next event, with its data if it has some; "" when there is none. */
static char *
next_event(Client *client)
{
    g_autoptr(JsonNode) node = next_line(client);
    JsonObject *event = node != NULL ? json_node_get_object(node) : NULL;
    if (event == NULL)
        return g_strdup("");
    const char *name = json_object_get_string_member(event, "event");
    JsonNode *data = json_object_get_member(event, "data");
    g_autofree char *text = data != NULL ? json_to_string(data, FALSE) : g_strdup("");
    return g_strconcat(name, text, NULL);
}

static void
expect_event(Client *client, const char *wanted)
{
    g_autofree char *event = next_event(client);
    assert_string_equal(event, wanted);
}

static void
guest_that_ends_by_itself_is_told_once(void **state)
{
    Client *client = *state;
    negotiate(client);
    assert_true(faultline_cont(client->faultline, NULL));
    faultline_monitor_pump(client->monitor);
    g_string_truncate(client->output, 0);
    client->ended = "shutdown";
    faultline_monitor_pump(client->monitor);
    faultline_monitor_pump(client->monitor);
    expect_event(client, "SHUTDOWN{\"guest\":true,\"reason\":\"guest-shutdown\"}");
    expect_event(client, "STOP");
    expect_silence(client);
    client->ended = NULL; /* another guest came */
    faultline_monitor_pump(client->monitor);
    client->ended = "internal-error";
    faultline_monitor_pump(client->monitor);
    expect_event(client, "STOP");
    expect_silence(client);
}

static void
event_of_the_vmm_goes_to_who_has_negotiated(void **state)
{
    Client *client = *state;
    g_string_truncate(client->output, 0);
    faultline_monitor_send_event(client->monitor, "X_EARLY", NULL);
    expect_silence(client);
    negotiate(client);
    faultline_monitor_send_event(client->monitor, "X_EVENT", "{\"n\": 1}");
    expect_event(client, "X_EVENT{\"n\":1}");
}

/* Else a VMM that watches the descriptor would never hear of what a client's command took. */
static void
events_taken_by_a_clients_command_are_told_to_the_vmm(void **state)
{
    Client *client = *state;
    negotiate(client);
    assert_true(faultline_cont(client->faultline, NULL));
    assert_int_equal(client->count_happened, 0);
    feed(client, "{\"execute\":\"query-status\"}");
    assert_int_equal(client->count_happened, 1);
    faultline_monitor_pump(client->monitor);
    assert_int_equal(client->count_happened, 1);
}

static void
peer_lost_without_a_policy_is_refused(void **state)
{
    negotiate(*state);
    feed(*state, "{\"execute\":\"x-peer-lost\"}");
    expect_error(*state, "GenericError", "no policy");
    feed(*state, "{\"execute\":\"x-take-back\",\"arguments\":{\"directory\":\"/tmp\"}}");
    expect_error(*state, "GenericError", "reads no records");
    g_autofree char *missing = ask_text(*state, "{\"execute\":\"x-query-missing-pages\"}");
    assert_string_equal(missing, "{\"pages\":0,\"count-ranges\":0,\"ranges\":[]}");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(guest_that_ends_by_itself_is_told_once),
        CASE(event_of_the_vmm_goes_to_who_has_negotiated),
        CASE(events_taken_by_a_clients_command_are_told_to_the_vmm),
        CASE(peer_lost_without_a_policy_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
