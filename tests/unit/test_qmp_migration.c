/* SPDX-License-Identifier: MIT */
/*
 * What a QMP client sees of a migration that really happens: the events of each side in their
 * order, the wait before the switch-over, the broken postcopy, the dirty rate, and a descriptor
 * handed over by getfd.
 *
 * The test's thread is the control thread of both guests.
 */
#include "tests/unit/support/toy_move.h"
#include "uffd/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <json-glib/json-glib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const ToyKind quick = {.name = "quick", .pages = 1024, .count_vcpus = 2};
/* Writes little, so that a limited bandwidth keeps it in precopy or postcopy for long. */
static const ToyKind slow = {.name = "slow", .pages = 8192, .count_vcpus = 2, .rest_us = 50000};
static const ToyKind tracked = {
    .name = "tracked", .pages = 1024, .count_vcpus = 2, .is_tracked = true};

/* ---- A client on each side ---------------------------------------------------------------------
 */

typedef struct Watch {
    FaultlineMonitor *monitor;
    FaultlineSession *session;
    GString *lines;
    int fd; /* sent by the client, and not taken yet; -1: none */
} Watch;

static bool
collect(void *opaque, const char *bytes, size_t length_bytes)
{
    g_string_append_len(((Watch *)opaque)->lines, bytes, (gssize)length_bytes);
    return true;
}

static int
take_fd(void *opaque)
{
    Watch *watch = opaque;
    int fd = watch->fd;
    watch->fd = -1;
    return fd;
}

static void
feed(Watch *watch, const char *text)
{
    assert_true(faultline_session_feed(watch->session, text, strlen(text)));
}

static void
watch_open(Watch *watch, Toy *toy)
{
    const FaultlineMonitorHost host = {.name = "toy"};
    *watch = (Watch){.lines = g_string_new(NULL), .fd = -1};
    assert_true(faultline_set_capability(toy->faultline, "events", true, NULL));
    watch->monitor = faultline_monitor_new(toy->faultline, &host, watch);
    watch->session = faultline_session_new(watch->monitor, collect, watch);
    faultline_session_accept_fds(watch->session, take_fd);
    feed(watch, "{\"execute\":\"qmp_capabilities\"}");
}

static void
watch_close(Watch *watch)
{
    faultline_session_free(watch->session);
    faultline_monitor_free(watch->monitor);
    g_string_free(watch->lines, TRUE);
}

/* The reply to a command; what came before it stays for watch_events(). */
static JsonObject *
ask(Watch *watch, const char *command, const char *arguments)
{
    g_autofree char *line =
        g_strdup_printf("{\"execute\":\"%s\",\"arguments\":{%s},\"id\":\"q\"}", command, arguments);
    feed(watch, line);
    g_assert(g_str_has_suffix(watch->lines->str, "\"id\":\"q\"}\r\n"));
    g_string_truncate(watch->lines, watch->lines->len - 2);
    const char *last = strrchr(watch->lines->str, '\n');
    g_autoptr(JsonNode) node = json_from_string(last ? last + 1 : watch->lines->str, NULL);
    g_string_truncate(watch->lines, last ? (gsize)(last + 1 - watch->lines->str) : 0);
    JsonObject *reply = json_node_get_object(node);
    const char *member = json_object_has_member(reply, "error") ? "error" : "return";
    return json_object_ref(json_object_get_object_member(reply, member));
}

static void
run(Watch *watch, const char *command, const char *arguments)
{
    g_autoptr(JsonObject) reply = ask(watch, command, arguments);
    if (json_object_has_member(reply, "desc"))
        fail_msg("%s: %s", command, json_object_get_string_member(reply, "desc"));
}

static void
expect_refusal(Watch *watch, const char *command, const char *arguments, const char *part)
{
    g_autoptr(JsonObject) reply = ask(watch, command, arguments);
    assert_string_equal(json_object_get_string_member_with_default(reply, "class", "none"),
                        "GenericError");
    if (!strstr(json_object_get_string_member(reply, "desc"), part))
        fail_msg("%s lacks '%s'", json_object_get_string_member(reply, "desc"), part);
}

static void
await_status(Watch *watch, const char *status)
{
    const char *now = "";
    for (unsigned i = 0; i < TOY_TIMEOUT_MS / 2; i++) {
        g_autoptr(JsonObject) reply = ask(watch, "query-migrate", "");
        now = json_object_get_string_member_with_default(reply, "status", "none");
        if (g_str_equal(now, status))
            return;
        g_usleep(2000);
    }
    fail_msg("it never came to %s", status);
}

/* "setup active STOP device ...", as the events told it. */
static char *
watch_events(Watch *watch)
{
    GString *text = g_string_new(NULL);
    faultline_monitor_pump(watch->monitor);
    g_auto(GStrv) lines = g_strsplit(watch->lines->str, "\r\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_autoptr(JsonNode) node = *lines[i] ? json_from_string(lines[i], NULL) : NULL;
        JsonObject *object = node ? json_node_get_object(node) : NULL;
        if (!object || !json_object_has_member(object, "event"))
            continue;
        JsonObject *time = json_object_get_object_member(object, "timestamp");
        assert_true(json_object_get_int_member(time, "seconds") > 1700000000);
        assert_in_range(json_object_get_int_member(time, "microseconds"), 0, 999999);
        const char *name = json_object_get_string_member(object, "event");
        if (g_str_equal(name, "MIGRATION_PASS")) {
            JsonObject *data = json_object_get_object_member(object, "data");
            assert_true(json_object_get_int_member(data, "pass") >= 1);
            continue;
        }
        if (g_str_equal(name, "MIGRATION"))
            name = json_object_get_string_member(json_object_get_object_member(object, "data"),
                                                 "status");
        g_string_append_printf(text, "%s%s", text->len ? " " : "", name);
    }
    return g_string_free(text, FALSE);
}

static void
expect_events(Watch *watch, const char *wanted)
{
    g_autofree char *events = watch_events(watch);
    assert_string_equal(events, wanted);
}

/* ---- A guest on the move, each side with a client ----------------------------------------------
 */

typedef struct Scene {
    ToyMove move;
    Watch from, to;
} Scene;

static void
scene_begin(Scene *scene, const ToyKind *kind, const char *capabilities, uint64_t bandwidth)
{
    toy_move_begin(&scene->move, kind, TOY_UNIX);
    watch_open(&scene->from, scene->move.from);
    watch_open(&scene->to, scene->move.to);
    if (capabilities)
        toy_move_set(&scene->move, capabilities);
    Faultline *source = scene->move.from->faultline;
    assert_true(faultline_set_capability(source, "auto-recover", false, NULL)); /* as a QEMU */
    if (bandwidth) {
        assert_true(faultline_set_parameter(source, "max-bandwidth", bandwidth, NULL));
        assert_true(faultline_set_parameter(source, "max-postcopy-bandwidth", bandwidth, NULL));
        assert_true(faultline_set_parameter(source, "downtime-limit", 0, NULL));
    }
    assert_true(faultline_cont(source, NULL));
    faultline_monitor_pump(scene->from.monitor);
    g_string_truncate(scene->from.lines, 0);
    toy_move_start(&scene->move);
}

static void
scene_end(Scene *scene)
{
    watch_close(&scene->from);
    watch_close(&scene->to);
    toy_move_end(&scene->move);
}

static void
precopy_sends_the_events_of_each_side(void **state)
{
    Scene scene;
    (void)state;
    scene_begin(&scene, &quick, NULL, 0);
    toy_expect_end(scene.move.from, FAULTLINE_STATUS_COMPLETED);
    toy_expect_end(scene.move.to, FAULTLINE_STATUS_COMPLETED);
    expect_events(&scene.from, "setup active STOP device completed");
    expect_events(&scene.to, "setup active RESUME completed");
    toy_move_expect_moved(&scene.move);
    scene_end(&scene);
}

static void
postcopy_sends_the_events_of_each_side(void **state)
{
    Scene scene;
    (void)state;
    scene_begin(&scene, &slow, "postcopy-ram", 4u << 20);
    await_status(&scene.from, "active");
    run(&scene.from, "migrate-start-postcopy", "");
    await_status(&scene.to, "postcopy-active");
    run(&scene.from, "migrate-set-parameters", "\"max-postcopy-bandwidth\":0");
    toy_expect_end(scene.move.from, FAULTLINE_STATUS_COMPLETED);
    toy_expect_end(scene.move.to, FAULTLINE_STATUS_COMPLETED);
    expect_events(&scene.from,
                  "setup active STOP device postcopy-device postcopy-active completed");
    expect_events(&scene.to, "setup active postcopy-device postcopy-active RESUME completed");
    toy_move_expect_moved(&scene.move);
    scene_end(&scene);
}

static void
cancel_sends_its_events_and_keeps_the_guest(void **state)
{
    Scene scene;
    (void)state;
    scene_begin(&scene, &slow, NULL, 1u << 20);
    await_status(&scene.from, "active");
    run(&scene.from, "migrate_cancel", "");
    toy_expect_end(scene.move.from, FAULTLINE_STATUS_CANCELLED);
    expect_events(&scene.from, "setup active cancelling cancelled");
    scene_end(&scene);
}

/* ---- pause-before-switchover -------------------------------------------------------------------
 */

static void
begin_waiting(Scene *scene, const char *more)
{
    scene_begin(scene, &quick, more, 0);
    await_status(&scene->from, "pre-switchover");
    assert_false(toy_is_running(scene->move.from));
    assert_int_equal(faultline_run_state(scene->move.from->faultline),
                     FAULTLINE_RUN_FINISH_MIGRATE);
}

static void
pre_switchover_waits_for_continue(void **state)
{
    Scene scene;
    (void)state;
    begin_waiting(&scene, "pause-before-switchover");
    g_usleep(50000);
    await_status(&scene.from, "pre-switchover");
    expect_refusal(&scene.from, "migrate-continue", "\"state\":\"device\"", "device");
    run(&scene.from, "migrate-continue", "\"state\":\"pre-switchover\"");
    toy_expect_end(scene.move.from, FAULTLINE_STATUS_COMPLETED);
    toy_expect_end(scene.move.to, FAULTLINE_STATUS_COMPLETED);
    expect_events(&scene.from, "setup active STOP pre-switchover device completed");
    toy_move_expect_moved(&scene.move);
    scene_end(&scene);
}

static void
pre_switchover_cancelled_runs_the_guest_on(void **state)
{
    Scene scene;
    (void)state;
    begin_waiting(&scene, "pause-before-switchover");
    run(&scene.from, "migrate_cancel", "");
    toy_expect_end(scene.move.from, FAULTLINE_STATUS_CANCELLED);
    expect_events(&scene.from, "setup active STOP pre-switchover cancelling RESUME cancelled");
    toy_move_expect_kept(&scene.move, true);
    scene_end(&scene);
}

static void
pre_switchover_without_destination_runs_the_guest_on(void **state)
{
    Scene scene;
    (void)state;
    begin_waiting(&scene, "pause-before-switchover");
    watch_close(&scene.to);
    toy_renew(scene.move.to);
    toy_expect_end(scene.move.from, FAULTLINE_STATUS_FAILED);
    watch_open(&scene.to, scene.move.to);
    expect_events(&scene.from, "setup active STOP pre-switchover RESUME failed");
    toy_move_expect_kept(&scene.move, true);
    scene_end(&scene);
}

/* ---- migrate-pause -----------------------------------------------------------------------------
 */

static void
pause_breaks_a_postcopy_from_either_side(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        Scene scene;
        scene_begin(&scene, &slow, "postcopy-ram", 1u << 20);
        Watch *side = i ? &scene.to : &scene.from;
        await_status(&scene.from, "active");
        expect_refusal(&scene.from, "migrate-pause", "", "postcopy-active");
        run(&scene.from, "migrate-start-postcopy", "");
        await_status(&scene.from, "postcopy-active");
        await_status(&scene.to, "postcopy-active");
        run(side, "migrate-pause", "");
        toy_expect_end(scene.move.from, FAULTLINE_STATUS_POSTCOPY_PAUSED);
        toy_expect_end(scene.move.to, FAULTLINE_STATUS_POSTCOPY_PAUSED);
        g_autoptr(JsonObject) reply = ask(side, "query-migrate", "");
        assert_non_null(strstr(json_object_get_string_member(reply, "error-desc"), "asked to"));
        expect_refusal(&scene.from, "migrate_cancel", "", "postcopy migration in progress");
        expect_refusal(&scene.to, "migrate", "\"uri\":\"unix:/x\",\"resume\":true",
                       "there is no paused migration");
        expect_refusal(&scene.from, "migrate", "\"uri\":\"unix:/x\"", "given up");
        expect_refusal(&scene.from, "migrate-recover", "\"uri\":\"unix:/x\"", "at a destination");
        expect_refusal(&scene.from, "migrate-pause", "", "postcopy-active");
        expect_events(&scene.from,
                      "setup active STOP device postcopy-device postcopy-active postcopy-paused");
        expect_events(&scene.to,
                      "setup active postcopy-device postcopy-active RESUME postcopy-paused");
        scene_end(&scene);
    }
}

/* ---- calc-dirty-rate ---------------------------------------------------------------------------
 */

static void
dirty_rate_of_a_guest_that_writes_is_measured(void **state)
{
    static const ToyKind *const kinds[] = {&quick, &tracked};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++) {
        g_autoptr(GError) error = NULL;
        UffdTracker *tracker = kinds[i]->is_tracked ? uffd_tracker_new(&error) : NULL;
        if (error) {
            print_message("skipped: %s\n", error->message);
            skip();
        }
        uffd_tracker_free(tracker);
        Toy *toy = toy_new(kinds[i]);
        Watch watch;
        FaultlineDirtyRate rate = {0};
        watch_open(&watch, toy);
        toy_fill(toy);
        g_autoptr(JsonObject) before = ask(&watch, "query-dirty-rate", "");
        assert_string_equal(json_object_get_string_member(before, "status"), "unstarted");
        assert_true(faultline_cont(toy->faultline, NULL));
        run(&watch, "calc-dirty-rate",
            "\"calc-time\":200,\"calc-time-unit\":\"millisecond\",\"mode\":\"dirty-bitmap\"");
        expect_refusal(&watch, "calc-dirty-rate", "\"calc-time\":1", "already being measured");
        for (unsigned n = 0; n < TOY_TIMEOUT_MS && rate.state != FAULTLINE_MEASURE_DONE; n++) {
            g_usleep(1000);
            faultline_query_dirty_rate(toy->faultline, &rate);
        }
        assert_in_range(rate.pages, 1, kinds[i]->pages);
        g_autoptr(JsonObject) after =
            ask(&watch, "query-dirty-rate", "\"calc-time-unit\":\"millisecond\"");
        assert_string_equal(json_object_get_string_member(after, "status"), "measured");
        assert_int_equal(json_object_get_int_member(after, "calc-time"), 200);
        assert_true(json_object_has_member(after, "dirty-rate"));
        assert_false(toy->is_logging);
        watch_close(&watch);
        toy_free(toy);
    }
}

static void
dirty_rate_gives_way_to_a_migration(void **state)
{
    Scene scene = {0};
    (void)state;
    toy_move_begin(&scene.move, &quick, TOY_UNIX);
    watch_open(&scene.from, scene.move.from);
    watch_open(&scene.to, scene.move.to);
    assert_true(faultline_cont(scene.move.from->faultline, NULL));
    run(&scene.from, "calc-dirty-rate", "\"calc-time\":60");
    toy_move_start(&scene.move);
    toy_move_expect_moved(&scene.move);
    g_autoptr(JsonObject) reply = ask(&scene.from, "query-dirty-rate", "");
    assert_string_equal(json_object_get_string_member(reply, "status"), "unstarted");
    scene_end(&scene);
}

/* ---- getfd -------------------------------------------------------------------------------------
 */

static void
migrate_to_a_named_descriptor_uses_it_up(void **state)
{
    Scene scene = {0};
    int ends[2];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    toy_move_begin(&scene.move, &quick, TOY_UNIX);
    watch_open(&scene.from, scene.move.from);
    watch_open(&scene.to, scene.move.to);
    assert_true(faultline_cont(scene.move.from->faultline, NULL));
    scene.to.fd = ends[0];
    run(&scene.to, "getfd", "\"fdname\":\"in\"");
    run(&scene.to, "migrate-incoming",
        "\"channels\":[{\"channel-type\":\"main\",\"addr\":{\"transport\":\"socket\","
        "\"type\":\"fd\",\"str\":\"in\"}}]");
    scene.from.fd = ends[1];
    run(&scene.from, "getfd", "\"fdname\":\"out\"");
    run(&scene.from, "migrate", "\"uri\":\"fd:out\"");
    toy_move_expect_moved(&scene.move);
    expect_refusal(&scene.from, "closefd", "\"fdname\":\"out\"", "'out'");
    expect_refusal(&scene.to, "closefd", "\"fdname\":\"in\"", "'in'");
    scene_end(&scene);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precopy_sends_the_events_of_each_side),
        cmocka_unit_test(postcopy_sends_the_events_of_each_side),
        cmocka_unit_test(cancel_sends_its_events_and_keeps_the_guest),
        cmocka_unit_test(pre_switchover_waits_for_continue),
        cmocka_unit_test(pre_switchover_cancelled_runs_the_guest_on),
        cmocka_unit_test(pre_switchover_without_destination_runs_the_guest_on),
        cmocka_unit_test(pause_breaks_a_postcopy_from_either_side),
        cmocka_unit_test(dirty_rate_of_a_guest_that_writes_is_measured),
        cmocka_unit_test(dirty_rate_gives_way_to_a_migration),
        cmocka_unit_test(migrate_to_a_named_descriptor_uses_it_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
