/* SPDX-License-Identifier: MIT */
/*
 * `faultline demo`: two processes of this program on this host, a guest that never stops writing,
 * one pass of precopy over TCP on loopback, then postcopy; figures and the guest's own verdict at
 * the end. Everything is done by QMP, as any other program would. One thread.
 */
#include "kvm/command.h"
#include "kvm/demo_report.h"
#include "kvm/demo_side.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define POLL_US          20000
#define PASS_POLL_US     2000 /* until the switch: a pass should not go on for long unnoticed */
#define VERDICT_LIMIT_US (60 * G_USEC_PER_SEC)
#define WRITE_RATE       "50000" /* of the thread guest: pages a second and thread */

typedef struct Demo {
    char *memory, *guest, *backing, *write_rate, *boot;
    int cpus, warm_up_s, watch_s;
    char **rest;
    DemoSide source, destination;
    DemoProgress progress;
    bool switching; /* migrate-start-postcopy was said */
} Demo;

static volatile sig_atomic_t interrupted;

static void
interrupt(int number)
{
    (void)number;
    interrupted = 1;
}

static bool
fail(GError **error, const char *text)
{
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_FAILED, text);
    return false;
}

static bool
pause_demo(int64_t us, GError **error)
{
    g_usleep((gulong)us);
    return interrupted ? fail(error, "interrupted; both machines were ended") : true;
}

static bool
set_capabilities(DemoSide *side, GError **error)
{
    static const char *const names[] = {"events", "postcopy-ram", "postcopy-preempt",
                                        "postcopy-blocktime"};
    JsonArray *list = json_array_new();

    for (unsigned i = 0; i < G_N_ELEMENTS(names); i++) {
        JsonObject *row = json_object_new();
        json_object_set_string_member(row, "capability", names[i]);
        json_object_set_boolean_member(row, "state", TRUE);
        json_array_add_object_element(list, row);
    }
    JsonObject *arguments = json_object_new();
    json_object_set_array_member(arguments, "capabilities", list);
    return demo_side_do(side, "migrate-set-capabilities", arguments, error);
}

/* No limit of bandwidth, and no downtime that precopy alone could keep to: the demo wants to show
 * postcopy. */
static bool
set_parameters(DemoSide *side, GError **error)
{
    JsonObject *arguments = json_object_new();

    json_object_set_int_member(arguments, "max-bandwidth", 0);
    json_object_set_int_member(arguments, "downtime-limit", 0);
    return demo_side_do(side, "migrate-set-parameters", arguments, error);
}

static JsonObject *
uri_arguments(const char *uri)
{
    JsonObject *arguments = json_object_new();
    json_object_set_string_member(arguments, "uri", uri);
    return arguments;
}

static void
take_option(GPtrArray *arguments, const char *option, const char *value)
{
    if (!value)
        return;
    g_ptr_array_add(arguments, g_strdup(option));
    g_ptr_array_add(arguments, g_strdup(value));
}

static GPtrArray *
side_arguments(const Demo *demo, bool incoming)
{
    GPtrArray *arguments = g_ptr_array_new_with_free_func(g_free);
    g_autofree char *cpus = g_strdup_printf("%d", demo->cpus);

    take_option(arguments, "--memory", demo->memory);
    take_option(arguments, "--cpus", cpus);
    take_option(arguments, "--guest", demo->guest);
    take_option(arguments, "--backing", demo->backing);
    take_option(arguments, "--write-rate", demo->write_rate);
    take_option(arguments, "--boot", demo->boot);
    take_option(arguments, "--incoming", incoming ? "defer" : NULL);
    g_ptr_array_add(arguments, NULL);
    return arguments;
}

static bool
start_sides(Demo *demo, const char *folder, GError **error)
{
    g_autoptr(GPtrArray) source = side_arguments(demo, false);
    g_autoptr(GPtrArray) destination = side_arguments(demo, true);

    return demo_side_start(&demo->source, "source", folder, (char **)source->pdata, error) &&
           demo_side_start(&demo->destination, "destination", folder, (char **)destination->pdata,
                           error) &&
           set_capabilities(&demo->source, error) && set_capabilities(&demo->destination, error) &&
           set_parameters(&demo->source, error);
}

/* Lets the guest fill its memory. */
static bool
warm_up(Demo *demo, GError **error)
{
    int64_t end_us = g_get_monotonic_time() + demo->warm_up_s * G_USEC_PER_SEC;

    demo_progress_say(&demo->progress, "The guest runs at the source and writes its memory.");
    while (g_get_monotonic_time() < end_us)
        if (!pause_demo(POLL_US, error))
            return false;
    return true;
}

static bool
start_migration(Demo *demo, GError **error)
{
    if (!demo_side_do(&demo->destination, "migrate-incoming", uri_arguments("tcp:127.0.0.1:0"),
                      error))
        return false;
    g_autofree char *address = demo_side_address(&demo->destination, error);
    if (!address)
        return false;
    g_autofree char *text = g_strdup_printf("Precopy, one pass, to %s.", address);
    demo_progress_say(&demo->progress, text);
    return demo_side_do(&demo->source, "migrate", uri_arguments(address), error);
}

static const char *
status_of(JsonNode *reply)
{
    return json_object_get_string_member_with_default(json_node_get_object(reply), "status",
                                                      "none");
}

/* An error when this side's migration cannot complete any more. */
static bool
status_is_good(const DemoSide *side, JsonNode *reply, GError **error)
{
    static const char *const bad[] = {"failed", "failing", "cancelled", "postcopy-paused"};
    const char *status = status_of(reply);

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        if (g_str_equal(status, bad[i])) {
            g_set_error(error, G_IO_ERROR, G_IO_ERROR_FAILED, "the migration is %s at the %s: %s",
                        status, side->name,
                        json_object_get_string_member_with_default(
                            json_node_get_object(reply), "error-desc", "no reason given"));
            return false;
        }
    }
    return true;
}

/* Until both sides have completed; *ret_source, *ret_destination: their last replies. */
static bool
follow(Demo *demo, JsonNode **ret_source, JsonNode **ret_destination, GError **error)
{
    while (pause_demo(demo->switching ? POLL_US : PASS_POLL_US, error)) {
        g_autoptr(JsonNode) source = demo_side_query(&demo->source, error);
        if (!source)
            return false;
        g_autoptr(JsonNode) destination = demo_side_query(&demo->destination, error);
        if (!destination || !status_is_good(&demo->source, source, error) ||
            !status_is_good(&demo->destination, destination, error))
            return false;

        JsonObject *reply = json_node_get_object(source);
        bool source_done = g_str_equal(status_of(source), "completed");
        bool done = source_done && g_str_equal(status_of(destination), "completed");
        demo_progress_show(&demo->progress, reply, done);
        if (done) {
            *ret_source = g_steal_pointer(&source);
            *ret_destination = g_steal_pointer(&destination);
            return true;
        }
        if (!demo->switching && !source_done &&
            demo_report_number(reply, "ram", "dirty-sync-count") >= 2) {
            demo->switching = true;
            demo_progress_say(&demo->progress, "Postcopy: the guest moves on, its pages follow.");
            if (!demo_side_do(&demo->source, "migrate-start-postcopy", NULL, error))
                return false;
        }
    }
    return false;
}

/* The guest runs on for a while; then its verdict must be good and newer than its first one. */
static char *
watch(Demo *demo, GError **error)
{
    int64_t now_us = g_get_monotonic_time();
    int64_t end_us = now_us + demo->watch_s * G_USEC_PER_SEC;
    int64_t limit_us = end_us + VERDICT_LIMIT_US;
    g_autofree char *first = NULL;

    demo_progress_say(&demo->progress, "All pages are there. The guest checks them.");
    while (pause_demo(POLL_US, error)) {
        g_autofree char *verdict = demo_side_verdict(&demo->destination);
        now_us = g_get_monotonic_time();
        if (!first)
            first = g_strdup(verdict);
        if (verdict && g_str_has_prefix(verdict, "bad"))
            return g_steal_pointer(&verdict);
        if (verdict && now_us > end_us && !g_str_equal(verdict, first))
            return g_steal_pointer(&verdict);
        if (now_us > limit_us) {
            fail(error,
                 "the guest at the destination says nothing new of its data: it stands still");
            return NULL;
        }
    }
    return NULL;
}

static bool
move_guest(Demo *demo, const char *folder, GError **error)
{
    g_autoptr(JsonNode) source = NULL;
    g_autoptr(JsonNode) destination = NULL;

    if (!start_sides(demo, folder, error) || !warm_up(demo, error) ||
        !start_migration(demo, error) || !follow(demo, &source, &destination, error))
        return false;
    g_autofree char *verdict = watch(demo, error);
    if (!verdict)
        return false;
    demo_report_print(json_node_get_object(source), json_node_get_object(destination), verdict);
    if (!g_str_has_prefix(verdict, "ok"))
        return fail(error, "the guest found a wrong byte after it arrived");
    if (!demo->switching)
        return fail(error, "precopy moved everything before postcopy could begin; give the guest "
                           "more to write by --write-rate or --memory");
    return true;
}

static int
run_demo(Demo *demo)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *folder = g_dir_make_tmp("faultline-demo-XXXXXX", &error);
    bool good = folder != NULL;

    if (good) {
        demo_progress_begin(&demo->progress);
        good = move_guest(demo, folder, &error);
        demo_side_end(&demo->source);
        demo_side_end(&demo->destination);
        g_rmdir(folder);
    }
    if (!good)
        fprintf(stderr, "%sfaultline demo: %s\n", demo->progress.terminal ? "\r\033[K" : "",
                error->message);
    return good ? EXIT_OK : EXIT_FAILED;
}

/* Whether /dev/kvm is there and answers as one; says so where not. */
static bool
has_kvm(void)
{
    int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int version = fd >= 0 ? ioctl(fd, KVM_GET_API_VERSION, 0) : -1;

    if (version != KVM_API_VERSION)
        printf("/dev/kvm cannot be used (%s): the guest is threads of a process.\n",
               version < 0 ? g_strerror(errno) : "another version of its interface");
    if (fd >= 0)
        close(fd);
    return version == KVM_API_VERSION;
}

static void
choose_guest(Demo *demo)
{
    if (!demo->guest)
        demo->guest = g_strdup(has_kvm() ? "kvm" : "threads");
    if (!demo->write_rate && g_str_equal(demo->guest, "threads"))
        demo->write_rate = g_strdup(WRITE_RATE);
    printf("A guest of kind %s with %s of memory moves between two processes of this host.\n",
           demo->guest, demo->memory);
    fflush(stdout);
}

static bool
parse(Demo *demo, int argc, char **argv, GError **error)
{
    const GOptionEntry entries[] = {
        {"memory", 'm', 0, G_OPTION_ARG_STRING, &demo->memory, "guest memory (1G)", "SIZE"},
        {"cpus", 'c', 0, G_OPTION_ARG_INT, &demo->cpus, "vCPUs, or guest threads (2)", "N"},
        {"guest", 0, 0, G_OPTION_ARG_STRING, &demo->guest, "kind of guest (kvm if there is KVM)",
         "kvm|threads"},
        {"boot", 0, 0, G_OPTION_ARG_FILENAME, &demo->boot, "kvm: boot image", "FILE"},
        {"backing", 0, 0, G_OPTION_ARG_STRING, &demo->backing, "guest memory is made of (memfd)",
         "memfd|private|hugetlb"},
        {"write-rate", 0, 0, G_OPTION_ARG_STRING, &demo->write_rate,
         "threads: pages a second and thread (" WRITE_RATE ")", "PAGES"},
        {"warm-up", 0, 0, G_OPTION_ARG_INT, &demo->warm_up_s,
         "let the guest run so long before it moves (3)", "SECONDS"},
        {"watch", 0, 0, G_OPTION_ARG_INT, &demo->watch_s,
         "let it run so long after it has moved (5)", "SECONDS"},
        {G_OPTION_REMAINING, 0, 0, G_OPTION_ARG_STRING_ARRAY, &demo->rest, NULL, NULL},
        G_OPTION_ENTRY_NULL,
    };
    g_autoptr(GOptionContext) context = g_option_context_new(NULL);

    g_set_prgname("faultline demo");
    g_option_context_set_summary(
        context, "Moves a guest that never stops writing between two processes of this host: one\n"
                 "pass of precopy, then postcopy, over TCP on loopback. Prints what it took and\n"
                 "what the guest says of its data.");
    g_option_context_set_description(context, "Exit codes: 0 the guest moved and all its data is "
                                              "right, 1 it is not so, 2 wrong use.");
    g_option_context_add_main_entries(context, entries, NULL);
    if (!g_option_context_parse(context, &argc, &argv, error))
        return false;
    if (demo->rest || demo->warm_up_s < 0 || demo->watch_s < 0)
        return fail(error, demo->rest ? "it takes options only" : "a time cannot be negative");
    if (!demo->memory)
        demo->memory = g_strdup("1G");
    return true;
}

int
demo_command(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    Demo demo = {.cpus = 2, .warm_up_s = 3, .watch_s = 5};
    int exit_code;

    if (parse(&demo, argc, argv, &error)) {
        signal(SIGINT, interrupt);
        signal(SIGTERM, interrupt);
        choose_guest(&demo);
        exit_code = run_demo(&demo);
    } else {
        exit_code = usage_error("demo", error->message);
    }
    g_free(demo.memory);
    g_free(demo.guest);
    g_free(demo.backing);
    g_free(demo.write_rate);
    g_free(demo.boot);
    g_strfreev(demo.rest);
    return exit_code;
}
