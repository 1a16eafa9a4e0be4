/* SPDX-License-Identifier: MIT */
/*
 * The texts that say where to: URIs, and sockets of the monitor, and what the program's options
 * take: sizes, capabilities, parameters, times, policies. Nothing is connected to.
 */
#include "tests/fuzz/fuzz.h"

#include "kvm/migrate_options.h"
#include "kvm/monitor_socket.h"
#include "kvm/run_options.h"
#include "transport/address.h"

#include <stdlib.h>
#include <string.h>

const size_t fuzz_bound_bytes = 1u << 20;

/* Who refuses says why, who does not says nothing. */
static void
check(bool ok, GError *error)
{
    if (ok == (error != NULL) || (error && (!error->message || !error->message[0])))
        abort();
    g_clear_error(&error);
}

static void
try_addresses(const char *text)
{
    for (unsigned is_listen = 0; is_listen < 2; is_listen++) {
        GError *error = NULL;
        bool ok = transport_check_uri(text, is_listen, &error);
        check(ok, error);
        error = NULL;
        g_autoptr(TransportAddress) address = transport_address_new(text, is_listen, &error);
        check(address != NULL, error);
        if ((address != NULL) != ok)
            abort();
    }
    GError *error = NULL;
    MonitorSocket socket = {0};
    bool ok = monitor_socket_parse(text, &socket, &error);
    check(ok, error);
    if (ok)
        monitor_socket_clear(&socket);
}

static void
try_setting(bool (*parse)(const char *, RunSetting *, GError **), const char *text)
{
    RunSetting setting = {0};
    GError *error = NULL;
    bool ok = parse(text, &setting, &error);

    check(ok, error);
    if (ok) {
        g_free(setting.name);
        g_free(setting.text);
    }
}

static void
try_values(const char *text)
{
    GError *error = NULL;
    uint64_t number;
    bool ok = run_options_parse_size(text, &number, &error);

    check(ok, error);
    try_setting(run_options_parse_capability, text);
    try_setting(run_options_parse_parameter, text);
    MigratePolicy policy = {0};
    migrate_policy_parse(text, &policy);
    migrate_time_parse(text, &number);
}

/* One option a line. Help would end the process. */
static void
try_options(const char *text)
{
    g_autoptr(GPtrArray) words = g_ptr_array_new();
    g_auto(GStrv) lines = g_strsplit(text, "\n", 32);

    g_ptr_array_add(words, (gpointer) "faultline");
    for (unsigned i = 0; lines[i]; i++) {
        bool asks_help = g_str_has_prefix(lines[i], "--help") ||
                         (lines[i][0] == '-' && lines[i][1] != '-' && strpbrk(lines[i], "h?"));
        if (!asks_help)
            g_ptr_array_add(words, lines[i]);
    }
    g_ptr_array_add(words, NULL);
    GError *error = NULL;
    g_autofree gpointer copy = g_memdup2(words->pdata, words->len * sizeof *words->pdata);
    MigrateOptions *migrate = migrate_options_parse((int)words->len - 1, copy, &error);
    check(migrate != NULL, error);
    g_clear_pointer(&migrate, migrate_options_free);
    error = NULL;
    g_autofree gpointer again = g_memdup2(words->pdata, words->len * sizeof *words->pdata);
    RunOptions *options = run_options_parse((int)words->len - 1, again, &error);
    check(options != NULL, error);
    g_clear_pointer(&options, run_options_free);
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    g_autofree char *text = g_strndup((const char *)bytes, length);

    bound_begin(fuzz_bound_bytes);
    try_addresses(text);
    try_values(text);
    try_options(text);
    bound_end();
    return 0;
}
