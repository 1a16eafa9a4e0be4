/* SPDX-License-Identifier: MIT */
/*
 * QMP sessions: greeting, negotiation, framing however the input is cut, and hostile input.
 */
#include "tests/unit/monitor_client.h"

/* ---- Greeting and negotiation -----------------------------------------------------------------
 */

static void
session_new_greets_with_version_and_oob(void **state)
{
    g_autoptr(JsonNode) node = next_line(*state);
    JsonObject *qmp = json_object_get_object_member(json_node_get_object(node), "QMP");
    JsonObject *version = json_object_get_object_member(qmp, "version");
    assert_true(json_object_has_member(version, "qemu"));
    JsonArray *capabilities = json_object_get_array_member(qmp, "capabilities");
    assert_int_equal(json_array_get_length(capabilities), 1);
    assert_string_equal(json_array_get_string_element(capabilities, 0), "oob");
    expect_silence(*state);
}

static void
command_before_negotiation_is_not_found(void **state)
{
    g_string_truncate(((Client *)*state)->output, 0);
    assert_true(feed(*state, "{\"execute\":\"query-status\"}"));
    expect_error(*state, "CommandNotFound", "qmp_capabilities");
    assert_true(feed(*state, "{\"execute\":\"no-such\"}"));
    expect_error(*state, "CommandNotFound", "qmp_capabilities");
}

static void
negotiation_twice_is_refused(void **state)
{
    negotiate(*state);
    assert_true(feed(*state, NEGOTIATE));
    expect_error(*state, "CommandNotFound", "already complete");
}

static void
negotiation_of_unknown_capability_is_refused_and_can_be_repeated(void **state)
{
    g_string_truncate(((Client *)*state)->output, 0);
    feed(*state, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"x\"]}}");
    expect_error(*state, "GenericError", "'x'");
    feed(*state, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[1]}}");
    expect_error(*state, "GenericError", "string");
    negotiate(*state);
}

static void
oob_without_negotiating_it_is_unexpected(void **state)
{
    negotiate(*state);
    feed(*state, "{\"exec-oob\":\"query-migrate\"}");
    expect_error(*state, "GenericError", "'exec-oob' is unexpected");
}

static void
oob_is_answered_for_marked_commands_only(void **state)
{
    g_string_truncate(((Client *)*state)->output, 0);
    feed(*state, "{\"execute\":\"qmp_capabilities\",\"arguments\":{\"enable\":[\"oob\"]}}");
    expect_line(*state, "{\"return\":{}}");
    feed(*state, "{\"exec-oob\":\"query-migrate\",\"id\":1}");
    expect_line(*state, "{\"return\":{},\"id\":1}");
    feed(*state, "{\"exec-oob\":\"query-status\"}");
    expect_error(*state, "GenericError", "does not support OOB");
}

static void
id_of_any_type_is_echoed_with_returns_and_errors(void **state)
{
    negotiate(*state);
    feed(*state, "{\"execute\":\"query-migrate\",\"id\":{\"a\":[1,\"\xc3\xa9\",null]}}");
    expect_line(*state, "{\"return\":{},\"id\":{\"a\":[1,\"\xc3\xa9\",null]}}");
    feed(*state, "{\"id\":\"q\",\"execute\":\"nonsense\"}");
    expect_line(*state, "{\"error\":{\"class\":\"CommandNotFound\",\"desc\":\"The command nonsense "
                        "has not been found\"},\"id\":\"q\"}");
}

/* ---- Framing ----------------------------------------------------------------------------------
 */

static const char talk[] =
    NEGOTIATE "\r\n"
              "{ \"execute\" :\n  \"query-migrate\",\n\t\"id\": \"a }\\\" {\"\n}"
              "{\"execute\":\"query-name\",\"id\":2}\r\n";

static void
expect_talk(Client *client)
{
    expect_line(client, "{\"return\":{}}");
    expect_line(client, "{\"return\":{},\"id\":\"a }\\\" {\"}");
    expect_line(client, "{\"return\":{\"name\":\"guest-1\"},\"id\":2}");
    expect_silence(client);
}

static void
feed_several_commands_in_one_read_answers_each(void **state)
{
    g_string_truncate(((Client *)*state)->output, 0);
    assert_true(feed(*state, talk));
    expect_talk(*state);
}

static void
feed_cut_at_every_byte_answers_the_same(void **state)
{
    Client *client = *state;
    for (size_t cut = 0; cut <= strlen(talk); cut++) {
        faultline_session_free(client->session);
        client->session = faultline_session_new(client->monitor, collect, client);
        g_string_truncate(client->output, 0);
        assert_true(faultline_session_feed(client->session, talk, cut));
        assert_true(faultline_session_feed(client->session, talk + cut, strlen(talk) - cut));
        expect_talk(client);
    }
}

static void
feed_byte_by_byte_answers_the_same(void **state)
{
    Client *client = *state;
    g_string_truncate(client->output, 0);
    for (size_t i = 0; i < strlen(talk); i++)
        assert_true(faultline_session_feed(client->session, talk + i, 1));
    expect_talk(client);
}

static void
feed_broken_json_costs_one_error_and_the_session_goes_on(void **state)
{
    static const char *const inputs[] = {
        "{\"execute\": }",
        "{execute: 1}",
        "{\"a\":1,}",
        "{]\n",
        "hello {\"execute\":\"quit\"}\n",
        "}\n",
        "1\n",
        "\"text\"\n",
        "{\"execute\":\"query-mig\n",
        "{\"id\":99999999999999999999}",
        "{\"id\":\"\\u0000\"}",
        "[]",
        "[[{\"execute\":\"quit\"}]]",
        "{}",
        "{\"arguments\":{}}",
        "{\"execute\":1}",
        "{\"execute\":null}",
        "{\"execute\":\"query-name\",\"arguments\":[]}",
        "{\"execute\":\"query-name\",\"extra\":1}",
    };
    Client *client = *state;
    negotiate(client);
    for (size_t i = 0; i < G_N_ELEMENTS(inputs); i++) {
        assert_true(feed(client, inputs[i]));
        expect_error(client, "GenericError", "");
        g_autofree char *name = ask_text(client, "{\"execute\":\"query-name\"}");
        assert_string_equal(name, "{\"name\":\"guest-1\"}");
    }
    assert_int_equal(client->count_quits, 0);
}

/* ---- Hostile input: an error line, and that session only is over -------------------------------
 */

static void
expect_end(Client *client, const char *bytes, size_t length_bytes)
{
    negotiate(client);
    client->other = faultline_session_new(client->monitor, collect, client);
    g_string_truncate(client->output, 0);
    assert_false(faultline_session_feed(client->session, bytes, length_bytes));
    expect_error(client, "GenericError", "session ends");
    assert_false(feed(client, "{\"execute\":\"quit\"}"));
    expect_silence(client);
    assert_int_equal(client->count_quits, 0);
    assert_true(faultline_session_feed(client->other, NEGOTIATE, strlen(NEGOTIATE)));
    expect_line(client, "{\"return\":{}}");
}

static void
feed_string_of_2_mib_ends_the_session(void **state)
{
    GString *text = g_string_new("{\"execute\":\"");
    for (unsigned i = 0; i < 2 * 1024 * 1024; i++)
        g_string_append_c(text, 'x');
    expect_end(*state, text->str, text->len);
    g_string_free(text, TRUE);
}

static void
feed_array_of_5000_values_ends_the_session(void **state)
{
    GString *text = g_string_new("{\"execute\":\"query-name\",\"id\":[");
    for (unsigned i = 0; i < 5000; i++)
        g_string_append(text, "0,");
    g_string_append(text, "0]}");
    expect_end(*state, text->str, text->len);
    g_string_free(text, TRUE);
}

static void
feed_array_of_4000_values_is_echoed(void **state)
{
    GString *text = g_string_new("{\"execute\":\"query-migrate\",\"id\":[");
    for (unsigned i = 0; i < 4000; i++)
        g_string_append(text, "0,");
    g_string_append(text, "0]}");
    negotiate(*state);
    assert_true(feed(*state, text->str));
    g_autoptr(JsonNode) line = next_line(*state);
    JsonArray *id = json_object_get_array_member(json_node_get_object(line), "id");
    assert_int_equal(json_array_get_length(id), 4001);
    g_string_free(text, TRUE);
}

static void
feed_depth_of_100000_ends_the_session(void **state)
{
    g_autofree char *deep = g_strnfill(100000, '[');
    expect_end(*state, deep, strlen(deep));
}

static void
feed_depth_of_64_is_parsed(void **state)
{
    negotiate(*state);
    g_autofree char *open = g_strnfill(63, '['), *close = g_strnfill(63, ']');
    g_autofree char *text =
        g_strdup_printf("{\"execute\":\"query-migrate\",\"id\":%s%s}", open, close);
    g_autofree char *expected = g_strdup_printf("{\"return\":{},\"id\":%s%s}", open, close);
    assert_true(feed(*state, text));
    expect_line(*state, expected);
}

static void
feed_binary_ends_the_session(void **state)
{
    expect_end(*state, "\xff\xfe\x80\x81", 4);
}

static void
feed_nul_in_a_string_ends_the_session(void **state)
{
    expect_end(*state, "{\"execute\":\"qu\0it\"}", 18);
}

static void
feed_nul_between_values_ends_the_session(void **state)
{
    expect_end(*state, "\0", 1);
}

static void
feed_invalid_utf8_ends_the_session(void **state)
{
    static const char text[] = "{\"execute\":\"query-\xc3(\"}";
    expect_end(*state, text, strlen(text));
}

static void
feed_half_surrogate_is_refused_and_echoed_as_valid_text(void **state)
{
    negotiate(*state);
    assert_true(feed(*state, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"unix:\\ud800\"}}"));
    expect_error(*state, "GenericError", "");
    assert_true(feed(*state, "{\"execute\":\"query-migrate\",\"id\":\"\\udc00\"}"));
    g_autoptr(JsonNode) line = next_line(*state);
    assert_non_null(line);
}

static void
feed_unterminated_is_silent_until_it_ends(void **state)
{
    negotiate(*state);
    assert_true(feed(*state, "{\"execute\":\"query-migrate\""));
    expect_silence(*state);
    assert_true(feed(*state, "}"));
    expect_line(*state, "{\"return\":{}}");
}

static void
client_that_cannot_take_more_loses_its_session(void **state)
{
    Client *client = *state;
    negotiate(client);
    client->is_full = true;
    assert_false(feed(client, "{\"execute\":\"query-migrate\"}"));
    client->is_full = false;
    assert_false(feed(client, "{\"execute\":\"query-migrate\"}"));
    expect_silence(client);
}

/* Damages valid input at random; the seed is fixed, the sanitizers watch. */
static void
feed_damaged_input_never_crashes(void **state)
{
    Client *client = *state;
    g_autoptr(GRand) rand = g_rand_new_with_seed(20261122);
    static const char bytes[] = "{}[]\",:\\u0d1e-.'/*\n\t \x80\xff";
    static const char line[] =
        "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":[{"
        "\"capability\":"
        "\"events\",\"state\":true}]},\"id\":\"\\ud83d\\ude00\"}\n"
        "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"downtime-limit\":300}}\n";
    for (unsigned round = 0; round < 20000; round++) {
        g_autofree char *text = g_strdup(line);
        for (unsigned n = g_rand_int_range(rand, 1, 6); n > 0; n--)
            text[g_rand_int_range(rand, 0, sizeof line - 1)] =
                bytes[g_rand_int_range(rand, 0, sizeof bytes - 1)];
        faultline_session_free(client->session);
        client->session = faultline_session_new(client->monitor, collect, client);
        feed(client, NEGOTIATE);
        feed(client, text);
        g_string_truncate(client->output, 0);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(session_new_greets_with_version_and_oob),
        CASE(command_before_negotiation_is_not_found),
        CASE(negotiation_twice_is_refused),
        CASE(negotiation_of_unknown_capability_is_refused_and_can_be_repeated),
        CASE(oob_without_negotiating_it_is_unexpected),
        CASE(oob_is_answered_for_marked_commands_only),
        CASE(id_of_any_type_is_echoed_with_returns_and_errors),
        CASE(feed_several_commands_in_one_read_answers_each),
        CASE(feed_cut_at_every_byte_answers_the_same),
        CASE(feed_byte_by_byte_answers_the_same),
        CASE(feed_broken_json_costs_one_error_and_the_session_goes_on),
        CASE(feed_string_of_2_mib_ends_the_session),
        CASE(feed_array_of_5000_values_ends_the_session),
        CASE(feed_array_of_4000_values_is_echoed),
        CASE(feed_depth_of_100000_ends_the_session),
        CASE(feed_depth_of_64_is_parsed),
        CASE(feed_binary_ends_the_session),
        CASE(feed_nul_in_a_string_ends_the_session),
        CASE(feed_nul_between_values_ends_the_session),
        CASE(feed_invalid_utf8_ends_the_session),
        CASE(feed_half_surrogate_is_refused_and_echoed_as_valid_text),
        CASE(feed_unterminated_is_silent_until_it_ends),
        CASE(client_that_cannot_take_more_loses_its_session),
        CASE(feed_damaged_input_never_crashes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
