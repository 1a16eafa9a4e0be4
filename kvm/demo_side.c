/* SPDX-License-Identifier: MIT */
/*
 * Starts and drives one machine process for the demo, with nothing that another program could not
 * do too: the command line, QMP, the verdict file. One thread.
 */
#include "kvm/demo_side.h"
#include "kvm/verdict_file.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define CONNECT_LIMIT_US (30 * G_USEC_PER_SEC)
#define CONNECT_RETRY_US 20000
#define QUIT_LIMIT_US    (10 * G_USEC_PER_SEC)
#define LISTENING        "incoming: listening at "

/* In the child: it ends with the demo, also when that is killed. */
static void
end_with_parent(gpointer data)
{
    (void)data;
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}

static bool
spawn(DemoSide *side, char **arguments, GError **error)
{
    g_autoptr(GSubprocessLauncher) launcher =
        g_subprocess_launcher_new(G_SUBPROCESS_FLAGS_STDOUT_PIPE);
    g_autoptr(GPtrArray) argv = g_ptr_array_new_with_free_func(g_free);

    g_ptr_array_add(argv, g_file_read_link("/proc/self/exe", error));
    if (!g_ptr_array_index(argv, 0))
        return false;
    g_ptr_array_add(argv, g_strdup("run"));
    for (unsigned i = 0; arguments[i]; i++)
        g_ptr_array_add(argv, g_strdup(arguments[i]));
    g_ptr_array_add(argv, g_strdup("--qmp"));
    g_ptr_array_add(argv, g_strconcat("unix:", side->socket_path, NULL));
    g_ptr_array_add(argv, g_strdup("--verdict"));
    g_ptr_array_add(argv, g_strdup(side->verdict_path));
    g_ptr_array_add(argv, NULL);

    g_subprocess_launcher_set_child_setup(launcher, end_with_parent, NULL, NULL);
    side->process =
        g_subprocess_launcher_spawnv(launcher, (const gchar *const *)argv->pdata, error);
    if (!side->process)
        return false;
    side->output = g_data_input_stream_new(g_subprocess_get_stdout_pipe(side->process));
    return true;
}

static bool
connect_to(DemoSide *side, GError **error)
{
    int64_t end_us = g_get_monotonic_time() + CONNECT_LIMIT_US;

    while (true) {
        g_autoptr(GError) reason = NULL;
        side->client = qmp_client_open(side->socket_path, &reason);
        if (side->client)
            return true;
        if (!g_subprocess_get_identifier(side->process)) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED,
                        "the %s process ended before it could be driven; it says why above",
                        side->name);
            return false;
        }
        if (g_get_monotonic_time() > end_us) {
            g_propagate_error(error, g_steal_pointer(&reason));
            return false;
        }
        g_usleep(CONNECT_RETRY_US);
    }
}

bool
demo_side_start(DemoSide *side, const char *name, const char *folder, char **arguments,
                GError **error)
{
    side->name = name;
    side->socket_path = g_strdup_printf("%s/%s.qmp", folder, name);
    side->verdict_path = g_strdup_printf("%s/%s.verdict", folder, name);
    if (spawn(side, arguments, error) && connect_to(side, error))
        return true;
    g_prefix_error(error, "starting the %s: ", name);
    return false;
}

/* Waits until it has ended; ends it by force when it does not. */
static void
wait_for_end(DemoSide *side)
{
    int64_t end_us = g_get_monotonic_time() + QUIT_LIMIT_US;

    while (g_subprocess_get_identifier(side->process) && g_get_monotonic_time() < end_us)
        g_usleep(CONNECT_RETRY_US);
    if (g_subprocess_get_identifier(side->process)) {
        fprintf(stderr, "faultline demo: the %s did not quit within 10 s and was killed\n",
                side->name);
        g_subprocess_force_exit(side->process);
    }
    g_subprocess_wait(side->process, NULL, NULL);
}

void
demo_side_end(DemoSide *side)
{
    if (side->client) {
        JsonNode *reply = qmp_client_execute(side->client, "quit", NULL, NULL);
        g_clear_pointer(&reply, json_node_unref);
        g_clear_pointer(&side->client, qmp_client_free);
    } else if (side->process) {
        g_subprocess_send_signal(side->process, SIGTERM);
    }
    if (side->process)
        wait_for_end(side);
    if (side->verdict_path)
        unlink(side->verdict_path);
    g_clear_object(&side->output);
    g_clear_object(&side->process);
    g_free(side->socket_path);
    g_free(side->verdict_path);
    memset(side, 0, sizeof *side);
}

bool
demo_side_do(DemoSide *side, const char *command, JsonObject *arguments, GError **error)
{
    g_autoptr(JsonNode) reply = qmp_client_execute(side->client, command, arguments, error);

    if (!reply)
        g_prefix_error(error, "%s: ", side->name);
    return reply != NULL;
}

JsonNode *
demo_side_query(DemoSide *side, GError **error)
{
    g_autoptr(JsonNode) reply = qmp_client_execute(side->client, "query-migrate", NULL, error);

    if (!reply) {
        g_prefix_error(error, "%s: ", side->name);
        return NULL;
    }
    if (!JSON_NODE_HOLDS_OBJECT(reply)) {
        g_set_error(error, G_IO_ERROR, G_IO_ERROR_INVALID_DATA,
                    "%s: the reply to query-migrate is no object", side->name);
        return NULL;
    }
    return g_steal_pointer(&reply);
}

char *
demo_side_address(DemoSide *side, GError **error)
{
    while (true) {
        g_autofree char *line = g_data_input_stream_read_line(side->output, NULL, NULL, error);
        if (!line) {
            if (error && !*error)
                g_set_error(error, G_IO_ERROR, G_IO_ERROR_CLOSED,
                            "the %s ended before it listened; it says why above", side->name);
            return NULL;
        }
        if (g_str_has_prefix(line, LISTENING))
            return g_strdup(line + strlen(LISTENING));
    }
}

char *
demo_side_verdict(const DemoSide *side)
{
    g_autofree char *line = verdict_file_read(side->verdict_path);

    return line && *line && !g_str_equal(line, "none") ? g_steal_pointer(&line) : NULL;
}
