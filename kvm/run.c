/* SPDX-License-Identifier: MIT */
/*
 * `faultline run`: makes a machine and its Faultline, opens the control sockets, and runs the GLib
 * main loop until quit, a signal, or a failed incoming migration. Main thread; the guest's and the
 * engine's threads are their own affair.
 */
#include "kvm/command.h"
#include "kvm/log.h"
#include "kvm/machine.h"
#include "kvm/metrics.h"
#include "kvm/monitor_server.h"
#include "kvm/run_options.h"
#include "kvm/state_dir.h"
#include "kvm/take_back.h"
#include "kvm/verdict_file.h"

#include <glib-unix.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define VERDICT_PERIOD_MS 500

typedef struct Run {
    const RunOptions *options;
    const MachineKind *kind;
    Machine *machine;
    Faultline *faultline;
    FaultlineMonitor *monitor;
    GPtrArray *servers;
    MetricsServer *metrics; /* NULL: none */
    StateDir *state;        /* NULL: no record is kept */
    PeerLost lost;
    GMainLoop *loop;
    bool said_address, said_bad, said_verdict_file;
    uint64_t said_refused;
    FaultlineStatus said_status;
    int exit_code;
} Run;

static void
quit_run(void *opaque)
{
    Run *run = opaque;
    g_main_loop_quit(run->loop);
}

static gboolean
signal_came(gpointer data)
{
    quit_run(data);
    return G_SOURCE_CONTINUE;
}

/* Prints where it listens, once; also when listening began by migrate-incoming. */
static void
say_address(Run *run)
{
    if (run->said_address || !run->options->incoming)
        return;
    g_autofree char *address = faultline_incoming_address(run->faultline);
    if (!address)
        return;
    printf("incoming: listening at %s\n", address);
    fflush(stdout);
    run->said_address = true;
}

static void
log_status(Run *run, const FaultlineInfo *info)
{
    if (info->status == run->said_status)
        return;
    run->said_status = info->status;
    log_say(LOG_INFO, "migration (%s): %s; guest: %s%s%s",
            info->incoming ? "destination" : "source", faultline_status_name(info->status),
            faultline_run_state_name(info->run_state), *info->error ? "; " : "", info->error);
    if (info->status != FAULTLINE_STATUS_COMPLETED)
        return;
    log_say(LOG_INFO,
            "took %" PRIu64 " ms, downtime %.3f ms; pages: precopy %" PRIu64 ", pushed %" PRIu64
            ", requested %" PRIu64 "; remote faults: %" PRIu64 ", p99 %.1f us",
            info->total_time_ms, (double)info->downtime_us / 1e3, info->precopy_pages,
            info->pushed_pages, info->requested_pages, info->latency.count,
            (double)faultline_latency_percentile(&info->latency, 99) / 1e3);
}

static void
log_figures(Run *run)
{
    FaultlineInfo info;

    if (!log_wants(LOG_DEBUG))
        return;
    faultline_query(run->faultline, &info);
    if (info.status != FAULTLINE_STATUS_ACTIVE && info.status != FAULTLINE_STATUS_POSTCOPY_DEVICE &&
        info.status != FAULTLINE_STATUS_POSTCOPY_ACTIVE)
        return;
    log_say(LOG_DEBUG,
            "%s: remaining %" PRIu64 " KiB; main %.1f MB/s, urgent %.1f MB/s; pass %" PRIu64
            ", dirty %" PRIu64 " pages/s; faults %" PRIu64 ", in flight %" PRIu64
            ", longest waits %.3f ms",
            faultline_status_name(info.status), info.ram_remaining_bytes / 1024,
            (double)info.main_bytes_per_s / 1e6, (double)info.urgent_bytes_per_s / 1e6,
            info.dirty_sync_count, info.dirty_pages_per_s, info.latency.count,
            info.faults_in_flight, (double)info.longest_stall_ns / 1e6);
}

static void
look_at_peer(Run *run, const FaultlineInfo *info)
{
    peer_lost_look(&run->lost, info);
    if (!run->lost.must_end || run->exit_code != EXIT_OK)
        return;
    run->exit_code = EXIT_SOURCE_LOST;
    g_main_loop_quit(run->loop);
}

static bool
peer_lost(void *opaque, GError **error)
{
    Run *run = opaque;
    bool declared = peer_lost_declare(&run->lost, error);

    if (declared && run->lost.must_end) {
        run->exit_code = EXIT_SOURCE_LOST;
        g_main_loop_quit(run->loop);
    }
    return declared;
}

/* Events were told to the monitors, whoever took them: a client's command does so, too. */
static void
events_came(void *opaque)
{
    Run *run = opaque;
    FaultlineInfo info;

    say_address(run);
    faultline_query(run->faultline, &info);
    log_status(run, &info);
    if (info.refused_connections > run->said_refused)
        log_say(LOG_WARNING, "a connection was refused; still waiting for the source: %s",
                info.refusal);
    run->said_refused = info.refused_connections;
    look_at_peer(run, &info);
    /* Who may have given the guest away, and has not heard that it never came, is told first. */
    if (info.incoming && info.status == FAULTLINE_STATUS_FAILED && !info.is_unheard &&
        run->exit_code == EXIT_OK && !faultline_monitor_stays_on_error(run->monitor)) {
        log_say(LOG_ERROR, "the incoming migration failed: %s", info.error);
        run->exit_code = EXIT_FAILED;
        g_main_loop_quit(run->loop);
    }
}

static gboolean
event_came(gint fd, GIOCondition condition, gpointer data)
{
    Run *run = data;
    (void)fd;
    (void)condition;

    faultline_monitor_pump(run->monitor);
    return G_SOURCE_CONTINUE;
}

static gboolean
look_at_verdict(gpointer data)
{
    Run *run = data;
    g_autoptr(GError) error = NULL;
    const char *verdict = run->kind->verdict(run->machine);
    FaultlineInfo info;

    say_address(run);
    faultline_monitor_pump(run->monitor); /* the guest may have ended */
    faultline_query(run->faultline, &info);
    look_at_peer(run, &info);
    log_figures(run);
    if (verdict && g_str_has_prefix(verdict, "bad") && !run->said_bad) {
        log_say(LOG_WARNING, "the guest found a wrong byte: %s", verdict);
        run->said_bad = true;
    }
    if (run->options->verdict &&
        !verdict_file_write(run->options->verdict, verdict ? verdict : "none", &error) &&
        !run->said_verdict_file) {
        log_say(LOG_WARNING, "%s", error->message);
        run->said_verdict_file = true;
    }
    return G_SOURCE_CONTINUE;
}

static bool
set_parameter(Faultline *faultline, const RunSetting *setting, GError **error)
{
    if (setting->text)
        return faultline_set_text_parameter(faultline, setting->name, setting->text, error);
    return faultline_set_parameter(faultline, setting->name, setting->value, error);
}

static bool
apply_settings(Run *run, GError **error)
{
    const RunOptions *options = run->options;

    for (char **object = options->objects; object && *object; object++)
        if (!faultline_add_object_text(run->faultline, *object, error))
            return false;
    for (unsigned i = 0; i < options->count_capabilities; i++)
        if (!faultline_set_capability(run->faultline, options->capabilities[i].name,
                                      options->capabilities[i].value != 0, error))
            return false;
    for (unsigned i = 0; i < options->count_parameters; i++)
        if (!set_parameter(run->faultline, &options->parameters[i], error))
            return false;
    return true;
}

/* Where guest memory is, for debuggers and for tests that read it from outside. */
static void
say_blocks(const FaultlineBlock *blocks, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        printf("ram: %s 0x%" PRIxPTR " 0x%" PRIx64 "\n", blocks[i].name,
               (uintptr_t)blocks[i].host_address, blocks[i].length_bytes);
    fflush(stdout);
}

static bool
make_faultline(Run *run, GError **error)
{
    const RunOptions *options = run->options;
    unsigned count;

    if (options->state_dir && !(run->state = state_dir_open(options->state_dir, options->name,
                                                            options->incoming != NULL, error)))
        return false;
    run->machine = run->kind->make(&options->machine, error);
    if (!run->machine)
        return false;
    const FaultlineBlock *blocks = run->kind->blocks(run->machine, &count);
    say_blocks(blocks, count);
    run->faultline = faultline_new(run->kind->guest, run->machine, blocks, count, error);
    if (run->faultline && run->state)
        faultline_set_record(run->faultline, state_dir_write, run->state);
    return run->faultline && apply_settings(run, error);
}

static const char *
guest_end(void *opaque)
{
    Run *run = opaque;
    return run->kind->end ? run->kind->end(run->machine) : NULL;
}

/* Memory that is not all here would hold up this thread, and with it every monitor. */
static bool
save_memory(void *opaque, uint64_t address, uint64_t length_bytes, const char *path, GError **error)
{
    Run *run = opaque;
    FaultlineInfo info;
    unsigned count;

    faultline_query(run->faultline, &info);
    if (info.missing_pages || info.run_state == FAULTLINE_RUN_INMIGRATE) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "pmemsave: the guest's memory is not all here; wait for status completed");
        return false;
    }
    const FaultlineBlock *blocks = run->kind->blocks(run->machine, &count);
    return ram_write_file(blocks, count, address, length_bytes, path, error);
}

/* Where a socket listens that could choose its port. Takes name, which may be NULL. */
static void
say_server(const char *kind, char *name)
{
    if (name)
        printf("%s: listening at %s\n", kind, name);
    fflush(stdout);
    g_free(name);
}

static bool
take_guest_back(void *opaque, const char *directory, bool has_ended, GError **error)
{
    Run *run = opaque;
    return take_back(run->faultline, run->options->name, directory, has_ended, error);
}

static bool
open_monitor(Run *run, GError **error)
{
    const FaultlineMonitorHost host = {.name = run->options->name,
                                       .quit = quit_run,
                                       .guest_end = guest_end,
                                       .save_memory = save_memory,
                                       .peer_lost = peer_lost,
                                       .take_back = take_guest_back,
                                       .happened = events_came};

    run->monitor = faultline_monitor_new(run->faultline, &host, run);
    run->lost = (PeerLost){.faultline = run->faultline,
                           .monitor = run->monitor,
                           .kind = run->kind,
                           .machine = run->machine,
                           .state = run->state,
                           .policy = run->options->on_source_lost,
                           .after_s = run->options->peer_lost_after_s};
    for (unsigned i = 0; run->options->qmp[i]; i++) {
        MonitorServer *server = monitor_server_new(run->monitor, run->options->qmp[i], error);
        if (!server)
            return false;
        g_ptr_array_add(run->servers, server);
        say_server("qmp", monitor_server_name(server));
    }
    return true;
}

static bool
open_metrics(Run *run, GError **error)
{
    const RunOptions *options = run->options;

    if (!options->metrics)
        return true;
    run->metrics = metrics_server_new(run->faultline, options->name, options->metrics, error);
    if (run->metrics)
        say_server("metrics", metrics_server_name(run->metrics));
    return run->metrics != NULL;
}

/* The guest starts here, or is waited for. */
static bool
begin(Run *run, GError **error)
{
    const RunOptions *options = run->options;

    faultline_set_autostart(run->faultline, !options->paused);
    faultline_set_insecure(run->faultline, options->insecure);
    if (!options->incoming)
        return options->paused || faultline_cont(run->faultline, error);
    if (g_str_equal(options->incoming, "defer"))
        return true;
    if (!faultline_incoming_several(run->faultline, (const char *const *)options->addresses, error))
        return false;
    say_address(run);
    return true;
}

static void
loop(Run *run)
{
    guint sources[] = {
        g_unix_fd_add(faultline_event_fd(run->faultline), G_IO_IN, event_came, run),
        g_timeout_add(VERDICT_PERIOD_MS, look_at_verdict, run),
        g_unix_signal_add(SIGTERM, signal_came, run),
        g_unix_signal_add(SIGINT, signal_came, run),
    };

    look_at_verdict(run);
    g_main_loop_run(run->loop);
    look_at_verdict(run);
    for (unsigned i = 0; i < G_N_ELEMENTS(sources); i++)
        g_source_remove(sources[i]);
}

static void
end_record(Run *run)
{
    const char *end = run->machine ? guest_end(run) : NULL;

    if (run->exit_code != EXIT_OK)
        end = run->exit_code == EXIT_SOURCE_LOST ? "source-lost" : "failed";
    if (run->state && run->faultline)
        state_dir_end(run->state, end ? end : "quit");
}

static bool
is_in_postcopy(FaultlineStatus status)
{
    return status == FAULTLINE_STATUS_POSTCOPY_DEVICE ||
           status == FAULTLINE_STATUS_POSTCOPY_ACTIVE ||
           status == FAULTLINE_STATUS_POSTCOPY_PAUSED ||
           status == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP ||
           status == FAULTLINE_STATUS_POSTCOPY_RECOVER;
}

/* A guest whose pages are partly at the other side does not survive this process, on whichever
 * side it is. At a destination its threads wait for pages that nobody will bring and can only be
 * ended with the process: so that one ends at once. */
static void
end_lost_guest(Run *run)
{
    FaultlineInfo info;

    faultline_query(run->faultline, &info);
    uint64_t pages =
        info.incoming ? info.missing_pages : info.ram_remaining_bytes / FAULTLINE_PAGE_BYTES;
    if (pages == 0 || !is_in_postcopy(info.status))
        return;
    log_say(LOG_ERROR,
            "ended while %" G_GUINT64_FORMAT
            " pages of the guest had not moved: the guest is lost; "
            "wait for status completed at both sides before you end one",
            pages);
    if (run->exit_code == EXIT_OK)
        run->exit_code = run->lost.is_lost && !info.incoming ? EXIT_DESTINATION_LOST : EXIT_FAILED;
    if (!info.incoming)
        return;
    g_ptr_array_set_size(run->servers, 0);
    g_clear_pointer(&run->metrics, metrics_server_free);
    end_record(run);
    fflush(NULL);
    _exit(run->exit_code);
}

static void
run_clear(Run *run)
{
    if (run->faultline)
        end_lost_guest(run);
    g_clear_pointer(&run->metrics, metrics_server_free);
    g_ptr_array_unref(run->servers);
    if (run->monitor)
        faultline_monitor_free(run->monitor);
    if (run->faultline)
        faultline_free(run->faultline); /* until then it writes records */
    end_record(run);
    g_clear_pointer(&run->state, state_dir_free);
    if (run->machine)
        run->kind->free(run->machine);
    g_main_loop_unref(run->loop);
}

static int
run_machine(const RunOptions *options)
{
    g_autoptr(GError) error = NULL;
    Run run = {
        .options = options,
        .kind = options->kind,
        .servers = g_ptr_array_new_with_free_func((GDestroyNotify)monitor_server_free),
        .loop = g_main_loop_new(NULL, FALSE),
        .exit_code = EXIT_OK,
    };

    if (make_faultline(&run, &error) && open_monitor(&run, &error) && open_metrics(&run, &error) &&
        begin(&run, &error)) {
        loop(&run);
    } else {
        log_say(LOG_ERROR, "%s", error->message);
        run.exit_code = g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT)
                            ? EXIT_USAGE
                            : EXIT_FAILED;
    }
    run_clear(&run);
    return run.exit_code;
}

int
run_command(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    RunOptions *options = run_options_parse(argc, argv, &error);

    if (!options)
        return usage_error("run", error->message);
    log_set_level(options->log_level);
    int exit_code = run_machine(options);
    run_options_free(options);
    return exit_code;
}
