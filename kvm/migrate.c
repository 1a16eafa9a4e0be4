/* SPDX-License-Identifier: MIT */
/*
 * `faultline migrate`: runs the phases one after the other and ends with an exit code that says
 * where the guest is. The phases are in migrate_begin.c, migrate_perform.c and migrate_finish.c,
 * what a failure calls for in migrate_settle.c. One thread.
 */
#include "kvm/migrate.h"
#include "kvm/command.h"

#include <signal.h>
#include <string.h>

static volatile sig_atomic_t interrupts;

static void
interrupt(int number)
{
    (void)number;
    interrupts = 1;
}

bool
migrate_take_interrupt(void)
{
    bool came = interrupts != 0;

    interrupts = 0;
    return came;
}

void
migrate_pause_us(int64_t us)
{
    g_usleep((gulong)us);
}

static const struct {
    const char *name;
    bool (*run)(Migrate *migrate, GError **error);
    bool can_cancel; /* before it begins, nothing has happened that cancelling would have to undo */
} phases[] = {
    {"begin", migrate_begin, true},      {"prepare", migrate_prepare, true},
    {"perform", migrate_perform, true},  {"finish", migrate_finish, false},
    {"confirm", migrate_confirm, false},
};

static bool
is_interrupted(Migrate *migrate, GError **error)
{
    if (!migrate_take_interrupt())
        return false;
    migrate->is_cancelled = true;
    g_set_error_literal(error, G_IO_ERROR, G_IO_ERROR_CANCELLED, "cancelled");
    return true;
}

static int
run_phases(Migrate *migrate)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(phases); i++) {
        g_autoptr(GError) error = NULL;
        if ((phases[i].can_cancel && is_interrupted(migrate, &error)))
            return migrate_settle(migrate, error);
        migrate_report_phase(&migrate->report, phases[i].name);
        if (!phases[i].run(migrate, &error))
            return migrate_settle(migrate, error);
    }
    const MigrateOutcome outcome = {
        .name = "completed",
        .guest = "destination",
        .text = migrate->was_running ? "The guest has moved and runs at the destination."
                                     : "The guest has moved and stands paused, as before.",
        .exit_code = EXIT_OK,
        .figures = &migrate->last,
    };
    migrate_report_outcome(&migrate->report, &outcome);
    return EXIT_OK;
}

/* No SA_RESTART: a pause ends at once. */
static void
catch_signals(void)
{
    struct sigaction action = {.sa_handler = interrupt};

    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int
migrate_command(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    MigrateOptions *options = migrate_options_parse(argc, argv, &error);

    if (!options)
        return usage_error("migrate", error->message);
    Migrate migrate = {
        .options = options,
        .source = {.name = "source", .path = options->from},
        .destination = {.name = "destination", .path = options->to},
        .downtime = options->downtime,
        .last = {.total_bytes = -1},
    };
    migrate_report_begin(&migrate.report, options->json);
    catch_signals();
    int exit_code = options->dry_run ? migrate_dry_run(&migrate) : run_phases(&migrate);
    migrate_side_close(&migrate.source);
    migrate_side_close(&migrate.destination);
    g_free(migrate.uri);
    migrate_options_free(options);
    return exit_code;
}
