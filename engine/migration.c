/* SPDX-License-Identifier: MIT */
/*
 * The commands of a migration: start it in either direction, wish for postcopy, cancel. Control
 * thread; the roles do the rest.
 */
#include "engine/migration.h"
#include "engine/destination/destination.h"
#include "engine/dirty_rate.h"
#include "engine/error.h"
#include "engine/source/source.h"

#include <string.h>

void
migration_end(Faultline *faultline)
{
    if (faultline->threads) {
        if (faultline->source)
            source_stop(faultline->source);
        if (faultline->destination)
            destination_stop(faultline->destination);
        g_clear_pointer(&faultline->threads, role_threads_join);
    }
    g_clear_pointer(&faultline->source, source_free);
    g_clear_pointer(&faultline->destination, destination_free);
}

void
migration_wake(Faultline *faultline)
{
    if (faultline->source && faultline->threads)
        source_notify(faultline->source);
}

/* Ends what the last migration left (it is over, so this does not wait for the network; a source
 * that has not heard so will not any more) and forgets its figures. */
static void
forget_last(Faultline *faultline)
{
    migration_end(faultline);
    dirty_rate_give_up(faultline);
    memset(&faultline->progress, 0, sizeof faultline->progress);
    faultline->progress.expected_downtime_ms = UINT64_MAX;
    pthread_mutex_lock(&faultline->lock);
    g_clear_error(&faultline->error);
    g_clear_pointer(&faultline->refusal, g_free);
    faultline->refused_connections = 0;
    pthread_mutex_unlock(&faultline->lock);
}

static bool
refuse(const char *verb, const char *why, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, "%s: %s", verb, why);
    return false;
}

static bool
check_idle(Faultline *faultline, const char *verb, GError **error)
{
    if (!context_is_busy(faultline))
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                "%s: there's a migration process in progress (%s); wait for its end or cancel it",
                verb, faultline_status_name(context_status(faultline)));
    return false;
}

/* With the role that writes down who owns the guest, if somebody does. */
static bool
start(Faultline *faultline, Role **roles, unsigned count, GError **error)
{
    if (faultline->record.write)
        roles[count++] = &faultline->record.role;
    progress_set(&faultline->progress.started_ns, clock_now_ns());
    context_move(faultline, FAULTLINE_STATUS_SETUP);
    faultline->threads = role_threads_start(roles, count, error);
    if (faultline->threads)
        return true;
    context_move(faultline, FAULTLINE_STATUS_FAILED);
    migration_end(faultline);
    return error_translate(error);
}

bool
migration_check_connections(const Faultline *faultline, const char *uri, GError **error)
{
    if (!options_has(&faultline->options, CAPABILITY_POSTCOPY_PREEMPT) ||
        !g_str_has_prefix(uri, "fd:"))
        return true;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "migrate to %s: it is one connection, and 'postcopy-preempt' needs two; switch it "
                "off, or use tcp: or unix:",
                uri);
    return false;
}

/* A filter that lets a ring be made and not be used would be noticed by roles that wait for ever.
 */
static bool
check_transport(const char *uri, bool is_listen, GError **error)
{
    return (transport_check_uri(uri, is_listen, error) && transport_probe(error)) ||
           error_translate(error);
}

bool
faultline_migrate(Faultline *faultline, const char *uri, GError **error)
{
    switch (faultline_run_state(faultline)) {
    case FAULTLINE_RUN_INMIGRATE:
        return refuse("migrate",
                      "the guest is waiting for an incoming migration; wait until it is here",
                      error);
    case FAULTLINE_RUN_POSTMIGRATE:
        return refuse("migrate",
                      "can't migrate the guest that was given up to an earlier destination", error);
    default:
        break;
    }
    if (!check_idle(faultline, "migrate", error))
        return false;
    if (!check_transport(uri, false, error))
        return false;
    if (!migration_check_connections(faultline, uri, error) ||
        !security_take(faultline, uri, false, error))
        return false;
    forget_last(faultline);
    faultline->source = source_new(faultline, uri, error);
    if (!faultline->source)
        return error_translate(error);
    if (!record_begin(faultline, FAULTLINE_OWNER_HERE, faultline->source->uri, error)) {
        g_clear_pointer(&faultline->source, source_free);
        return false;
    }
    faultline->record.waiters[0] = &faultline->source->migration;
    faultline->record.waiters[1] = NULL;
    Role *roles[3] = {&faultline->source->migration, &faultline->source->request};
    return start(faultline, roles, 2, error);
}

bool
faultline_incoming(Faultline *faultline, const char *uri, GError **error)
{
    return faultline_incoming_several(faultline, (const char *const[]){uri, NULL}, error);
}

bool
faultline_incoming_several(Faultline *faultline, const char *const *uris, GError **error)
{
    FaultlineRunState state = faultline_run_state(faultline);
    if (state != FAULTLINE_RUN_PRELAUNCH && state != FAULTLINE_RUN_INMIGRATE)
        return refuse("migrate-incoming",
                      "there is a guest here; start a machine of its own for it", error);
    if (!check_idle(faultline, "migrate-incoming", error))
        return false;
    for (const char *const *uri = uris; *uri; uri++)
        if (!check_transport(*uri, true, error) || !security_take(faultline, *uri, true, error))
            return false;
    forget_last(faultline);
    faultline->destination = destination_new(faultline, uris, error);
    if (!faultline->destination)
        return error_translate(error);
    Destination *destination = faultline->destination;
    if (!record_begin(faultline, FAULTLINE_OWNER_COMING, destination->address, error)) {
        g_clear_pointer(&faultline->destination, destination_free);
        return false;
    }
    faultline->record.waiters[0] = &destination->listen;
    faultline->record.waiters[1] = &destination->package;
    context_set_run_state(faultline, FAULTLINE_RUN_INMIGRATE);
    Role *roles[4] = {&destination->listen, &destination->package, &destination->fault};
    return start(faultline, roles, 3, error);
}

char *
faultline_incoming_address(const Faultline *faultline)
{
    return faultline->destination ? g_strdup(faultline->destination->address) : NULL;
}

char **
faultline_incoming_addresses(const Faultline *faultline)
{
    const Destination *destination = faultline->destination;
    GPtrArray *addresses = g_ptr_array_new();

    for (unsigned i = 0; destination && i < destination->count_addresses; i++)
        g_ptr_array_add(addresses, g_strdup(destination->addresses[i]));
    g_ptr_array_add(addresses, NULL);
    return (char **)g_ptr_array_free(addresses, FALSE);
}

bool
faultline_start_postcopy(Faultline *faultline, GError **error)
{
    FaultlineStatus status = context_status(faultline);

    if (!options_has(&faultline->options, CAPABILITY_POSTCOPY_RAM))
        return refuse(
            "migrate-start-postcopy",
            "enable postcopy-ram with migrate_set_capability before the start of migration", error);
    if (!faultline->source || status == FAULTLINE_STATUS_COMPLETED ||
        status == FAULTLINE_STATUS_FAILED || status == FAULTLINE_STATUS_CANCELLED)
        return refuse("migrate-start-postcopy",
                      "start a migration from here first: postcopy begins inside one", error);
    __atomic_store_n(&faultline->source->wants_postcopy, true, __ATOMIC_RELEASE);
    source_notify(faultline->source);
    return true;
}

bool
faultline_cancel(Faultline *faultline, GError **error)
{
    if (context_is_connected(faultline) ||
        context_status(faultline) == FAULTLINE_STATUS_POSTCOPY_PAUSED)
        return refuse("migrate_cancel",
                      "postcopy migration in progress, cannot cancel: the guest runs at the "
                      "destination and needs the pages kept at the source",
                      error);
    if (!context_is_busy(faultline))
        return true;
    if (!faultline->source)
        return refuse("migrate_cancel",
                      "this is the destination; cancel at the source, or quit this process", error);
    if (source_cancel(faultline->source))
        return true;
    return refuse(
        "migrate_cancel",
        "the guest is being handed over, and the destination may run it already; wait for "
        "the outcome",
        error);
}

bool
faultline_continue(Faultline *faultline, FaultlineStatus expected, GError **error)
{
    FaultlineStatus status = context_status(faultline);

    if (expected != FAULTLINE_STATUS_PRE_SWITCHOVER) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "migrate-continue: no migration waits in state '%s'; it waits in '%s', with "
                    "capability pause-before-switchover",
                    faultline_status_name(expected),
                    faultline_status_name(FAULTLINE_STATUS_PRE_SWITCHOVER));
        return false;
    }
    if (!faultline->source || status != expected) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "migrate-continue: the migration is not in the expected state: %s; it stands "
                    "in '%s'",
                    faultline_status_name(expected), faultline_status_name(status));
        return false;
    }
    source_set_flag(&faultline->source->wants_switchover);
    source_notify(faultline->source);
    return true;
}

bool
faultline_pause(Faultline *faultline, GError **error)
{
    if (!context_is_connected(faultline))
        return refuse("migrate-pause",
                      "it only works in postcopy-active and while one recovers; before the switch "
                      "use migrate_cancel",
                      error);
    if (faultline->source) {
        source_set_flag(&faultline->source->wants_break);
        source_notify(faultline->source);
    } else {
        destination_set_flag(&faultline->destination->wants_break);
        destination_notify(faultline->destination, &faultline->destination->listen);
    }
    return true;
}
