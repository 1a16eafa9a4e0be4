/* SPDX-License-Identifier: MIT */
/*
 * Objects and the parameters that name them, as QEMU's clients know them: object-add and object-del
 * with nested properties, texts in migrate-set-parameters, wholly or not at all, and all typed.
 */
#include "engine/monitor/monitor.h"
#include "tests/unit/monitor_client.h"
#include "tests/unit/support/certificates.h"

#define RUN(name, arguments) "{\"execute\":\"" name "\",\"arguments\":{" arguments "}}"

static char *dir;

static int
set_up_files(void **state)
{
    dir = certificates_make();
    return set_up(state);
}

static int
tear_down_files(void **state)
{
    certificates_remove(dir);
    return tear_down(state);
}

static void
do_with_dir(Client *client, const char *format)
{
    g_autofree char *command = g_strdup_printf(format, dir);
    json_node_unref(ask(client, command));
}

static void
expect_parameter(Client *client, const char *name, const char *value)
{
    g_autoptr(JsonNode) all = ask(client, RUN("query-migrate-parameters", ""));
    assert_string_equal(json_object_get_string_member(json_node_get_object(all), name), value);
}

static void
credentials_are_added_named_and_removed(void **state)
{
    Client *client = *state;

    negotiate(client);
    expect_parameter(client, "tls-creds", "");
    expect_parameter(client, "tls-hostname", "");
    expect_parameter(client, "tls-authz", "");
    do_with_dir(client, RUN("object-add", "\"qom-type\":\"tls-creds-x509\",\"id\":\"tls0\","
                                          "\"dir\":\"%s\",\"endpoint\":\"server\","
                                          "\"verify-peer\":true"));
    do_with_dir(client, RUN("object-add", "\"qom-type\":\"tls-creds-psk\",\"id\":\"keys\","
                                          "\"dir\":\"%s\",\"username\":\"bob\""));
    json_node_unref(ask(client, RUN("migrate-set-parameters", "\"tls-creds\":\"tls0\","
                                                              "\"tls-hostname\":\"host.example\","
                                                              "\"downtime-limit\":5")));
    expect_parameter(client, "tls-creds", "tls0");
    expect_parameter(client, "tls-hostname", "host.example");
    json_node_unref(ask(client, RUN("migrate-set-parameters", "\"tls-creds\":null,"
                                                              "\"tls-hostname\":\"\"")));
    expect_parameter(client, "tls-creds", "");
    expect_parameter(client, "tls-hostname", "");
    json_node_unref(ask(client, RUN("object-del", "\"id\":\"keys\"")));
    assert_true(feed(client, RUN("object-del", "\"id\":\"keys\"")));
    expect_error(client, "GenericError", "there is none with id 'keys'");
}

static void
authorization_has_nested_rules(void **state)
{
    Client *client = *state;

    negotiate(client);
    json_node_unref(
        ask(client,
            RUN("object-add", "\"qom-type\":\"authz-list\",\"id\":\"who\",\"policy\":\"deny\","
                              "\"rules\":[{\"match\":\"CN=a\",\"policy\":\"allow\","
                              "\"format\":\"exact\"},"
                              "{\"match\":\"CN=b*\",\"policy\":\"allow\",\"format\":\"glob\"}]")));
    json_node_unref(ask(client, RUN("object-add", "\"qom-type\":\"authz-simple\",\"id\":\"one\","
                                                  "\"identity\":\"CN=a,O=b\"")));
    json_node_unref(ask(client, RUN("migrate-set-parameters", "\"tls-authz\":\"who\"")));
    assert_true(feed(client, RUN("object-add", "\"qom-type\":\"authz-list\",\"id\":\"bad\","
                                               "\"rules\":[{\"match\":\"CN=a\"}]")));
    expect_error(client, "GenericError", "'rules.0.policy' is missing");
    assert_true(feed(client, RUN("object-add", "\"qom-type\":\"authz-list\",\"id\":\"bad\","
                                               "\"rules\":[{\"match\":null}]")));
    expect_error(client, "GenericError", "rules.0.match");
}

static void
object_that_is_wrong_is_refused(void **state)
{
    static const struct {
        const char *arguments, *says;
    } bad[] = {
        {"\"id\":\"a\"", "'qom-type' is missing"},
        {"\"qom-type\":\"tls-creds-psk\"", "'id' is missing"},
        {"\"qom-type\":7,\"id\":\"a\"", "'qom-type', expected: string"},
        {"\"qom-type\":\"tls-creds-psk\",\"id\":\"a\",\"dir\":1.5", "'dir'"},
        {"\"qom-type\":\"tls-creds-psk\",\"id\":\"a\",\"dir\":\"/nowhere\"", "keys.psk"},
        {"\"qom-type\":\"secret\",\"id\":\"a\",\"data\":\"x\"", "no type 'secret'"},
    };
    Client *client = *state;

    negotiate(client);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *command =
            g_strdup_printf("{\"execute\":\"object-add\",\"arguments\":{%s}}", bad[i].arguments);
        assert_true(feed(client, command));
        expect_error(client, "GenericError", bad[i].says);
    }
}

static void
texts_are_set_wholly_or_not_at_all(void **state)
{
    Client *client = *state;

    negotiate(client);
    do_with_dir(client, RUN("object-add", "\"qom-type\":\"tls-creds-psk\",\"id\":\"keys\","
                                          "\"dir\":\"%s\",\"endpoint\":\"server\""));
    json_node_unref(ask(client, RUN("object-add", "\"qom-type\":\"authz-simple\",\"id\":\"one\","
                                                  "\"identity\":\"CN=a\"")));
    assert_true(feed(client, RUN("migrate-set-parameters", "\"tls-hostname\":\"changed\","
                                                           "\"tls-creds\":\"keys\","
                                                           "\"tls-authz\":\"one\"")));
    expect_error(client, "GenericError", "tls-authz");
    expect_parameter(client, "tls-hostname", "");
    expect_parameter(client, "tls-creds", "");
    expect_parameter(client, "tls-authz", "");
    assert_true(feed(client, RUN("migrate-set-parameters", "\"tls-creds\":1")));
    expect_error(client, "GenericError", "tls-creds");
    assert_true(feed(client, RUN("migrate-set-parameters", "\"spin-limit\":\"1\"")));
    expect_error(client, "GenericError", "spin-limit");
}

static void
expect_typed(Client *client, const char *line, const char *part)
{
    g_autofree char *output = faultline_monitor_hmp(client->monitor, line);

    if (part ? !strstr(output, part) : *output != '\0')
        fail_msg("%s: '%s'", line, output);
}

static void
all_of_it_can_be_typed(void **state)
{
    Client *client = *state;
    g_autofree char *add = g_strdup_printf("object_add tls-creds-psk,id=keys,dir=%s", dir);

    expect_typed(client, add, NULL);
    expect_typed(client, add, "there is one of this id");
    expect_typed(client, "migrate_set_parameter tls-creds keys", NULL);
    expect_typed(client, "info migrate_parameters", "tls-creds: 'keys'");
    expect_typed(client, "object_del keys", NULL);
    expect_typed(client, "object_del keys", "there is none with id 'keys'");
    expect_typed(client, "object_add", "expecting TYPE");
    expect_typed(client, "migrate_set_parameter tls-creds gone", "no object 'gone'");
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
#define FILES(name) cmocka_unit_test_setup_teardown(name, set_up_files, tear_down_files)
        FILES(credentials_are_added_named_and_removed),
        FILES(authorization_has_nested_rules),
        FILES(object_that_is_wrong_is_refused),
        FILES(texts_are_set_wholly_or_not_at_all),
        FILES(all_of_it_can_be_typed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
