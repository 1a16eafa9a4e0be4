/* SPDX-License-Identifier: MIT */
/*
 * What the tests of the monitor share: a real Faultline with one block of 1 MiB and a guest that
 * does nothing, a monitor on it, and a QMP client that collects the lines it is sent.
 */
#ifndef MONITOR_CLIENT_H
#define MONITOR_CLIENT_H

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>
#include <json-glib/json-glib.h>

#include "engine/faultline.h"

#define RAM_BYTES (1024u * 1024u)
#define NEGOTIATE "{\"execute\":\"qmp_capabilities\"}"

typedef struct Client {
    Faultline *faultline;
    FaultlineMonitor *monitor;
    FaultlineSession *session, *other; /* other: NULL unless a test makes one */
    GString *output;                   /* lines not yet read */
    void *ram;
    int fd;
    unsigned count_quits;
    unsigned count_happened;
    const char *ended; /* what the guest came to by itself; NULL: nothing */
    bool is_full;      /* cannot take more */
} Client;

static inline bool
do_nothing(void *opaque, GError **error)
{
    (void)opaque, (void)error;
    return true;
}

static inline bool
sync_nothing(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    (void)opaque, (void)block, (void)words, (void)count_pages, (void)error;
    return true;
}

static inline void
stop_nothing(void *opaque)
{
    (void)opaque;
}

static inline bool
save_nothing(void *opaque, FaultlineState *state, GError **error)
{
    (void)opaque, (void)state, (void)error;
    return true;
}

static inline bool
load_nothing(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
             size_t length_bytes, GError **error)
{
    (void)opaque, (void)name, (void)instance, (void)version, (void)bytes, (void)length_bytes;
    (void)error;
    return true;
}

static const FaultlineGuest guest = {
    .version = FAULTLINE_GUEST_VERSION,
    .machine = "test-1.0",
    .pause = do_nothing,
    .resume = do_nothing,
    .dirty_log_start = do_nothing,
    .dirty_log_sync = sync_nothing,
    .dirty_log_stop = stop_nothing,
    .save_state = save_nothing,
    .load_state = load_nothing,
};

static inline bool
collect(void *opaque, const char *bytes, size_t length_bytes)
{
    Client *client = opaque;
    assert_true(g_utf8_validate(bytes, (gssize)length_bytes, NULL));
    assert_int_equal(bytes[length_bytes - 1], '\n');
    if (client->is_full)
        return false;
    g_string_append_len(client->output, bytes, (gssize)length_bytes);
    return true;
}

static inline void
count_quit(void *opaque)
{
    ((Client *)opaque)->count_quits++;
}

static inline const char *
tell_end(void *opaque)
{
    return ((Client *)opaque)->ended;
}

static inline void
count_happened(void *opaque)
{
    ((Client *)opaque)->count_happened++;
}

static inline int
set_up(void **state)
{
    Client *client = g_new0(Client, 1);
    client->fd = memfd_create("test-ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(client->fd, RAM_BYTES), 0);
    client->ram = mmap(NULL, RAM_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, client->fd, 0);
    assert_ptr_not_equal(client->ram, MAP_FAILED);
    FaultlineBlock block = {.name = "ram",
                            .host_address = client->ram,
                            .length_bytes = RAM_BYTES,
                            .fd = client->fd,
                            .page_size_bytes = 4096,
                            .shared = true};
    client->faultline = faultline_new(&guest, client, &block, 1, NULL);
    assert_non_null(client->faultline);
    FaultlineMonitorHost host = {
        .name = "guest-1", .quit = count_quit, .guest_end = tell_end, .happened = count_happened};
    client->monitor = faultline_monitor_new(client->faultline, &host, client);
    client->output = g_string_new(NULL);
    client->session = faultline_session_new(client->monitor, collect, client);
    *state = client;
    return 0;
}

static inline int
tear_down(void **state)
{
    Client *client = *state;
    faultline_session_free(client->session);
    faultline_session_free(client->other);
    faultline_monitor_free(client->monitor);
    faultline_free(client->faultline);
    g_string_free(client->output, TRUE);
    munmap(client->ram, RAM_BYTES);
    close(client->fd);
    g_free(client);
    return 0;
}

/* ---- Talking ----------------------------------------------------------------------------------
 */

static inline bool
feed(Client *client, const char *text)
{
    return faultline_session_feed(client->session, text, strlen(text));
}

/* The oldest line that was not read yet, parsed; NULL: none. */
static inline JsonNode *
next_line(Client *client)
{
    char *end = strchr(client->output->str, '\n');
    if (end == NULL)
        return NULL;
    *end = '\0';
    JsonNode *node = json_from_string(client->output->str, NULL);
    assert_non_null(node);
    g_string_erase(client->output, 0, end + 1 - client->output->str);
    return node;
}

static inline char *
next_text(Client *client)
{
    g_autoptr(JsonNode) node = next_line(client);
    return node != NULL ? json_to_string(node, FALSE) : g_strdup("");
}

static inline void
expect_line(Client *client, const char *text)
{
    g_autofree char *line = next_text(client);
    assert_string_equal(line, text);
}

static inline void
expect_silence(Client *client)
{
    assert_string_equal(client->output->str, "");
}

/* One error line of the class, whose text holds part. */
static inline void
expect_error(Client *client, const char *class, const char *part)
{
    g_autoptr(JsonNode) node = next_line(client);
    assert_non_null(node);
    JsonObject *error = json_object_get_object_member(json_node_get_object(node), "error");
    assert_non_null(error);
    assert_string_equal(json_object_get_string_member(error, "class"), class);
    const char *text = json_object_get_string_member(error, "desc");
    if (strstr(text, part) == NULL)
        fail_msg("'%s' lacks '%s'", text, part);
}

static inline void
negotiate(Client *client)
{
    g_string_truncate(client->output, 0);
    assert_true(feed(client, NEGOTIATE));
    expect_line(client, "{\"return\":{}}");
}

/* Runs a command of which nothing but the reply is said; the result. */
static inline JsonNode *
ask(Client *client, const char *command)
{
    assert_true(feed(client, command));
    g_autoptr(JsonNode) node = next_line(client);
    assert_non_null(node);
    JsonObject *reply = json_node_get_object(node);
    if (!json_object_has_member(reply, "return"))
        fail_msg("%s: %s", command, json_to_string(node, FALSE));
    expect_silence(client);
    return json_object_dup_member(reply, "return");
}

static inline char *
ask_text(Client *client, const char *command)
{
    g_autoptr(JsonNode) node = ask(client, command);
    return json_to_string(node, FALSE);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif
