/* SPDX-License-Identifier: MIT */
/* See migration.h: starting both sides, and driving the migration to where it rests. */
#include "tests/chaos/migration.h"
#include "tests/chaos/memory.h"
#include "tests/chaos/records.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#define POLL_US 2000
#define REST_US (60 * 1000) /* both sides stand like that for so long: it is their end */
#define OPERATOR_US                                                                                \
    (300 * 1000) /* so long after the strike somebody looks at a link that hangs                   \
                  */
#define PATIENCE_US    (200 * 1000) /* and so much later its connections are ended for it */
#define HEARTBEAT_MS   3000
#define RECOVERIES_MAX 4
#define MIB            ((uint64_t)1 << 20)

bool
migration_refuse(GError **error, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_set_error_literal(error, G_FILE_ERROR, G_FILE_ERROR_FAILED, text);
    return false;
}

void
migration_note(Migration *migration, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    g_autofree char *text = g_strdup_vprintf(format, arguments);
    va_end(arguments);
    g_string_append_printf(migration->story, "  %8.3f s  %s\n",
                           (double)(g_get_monotonic_time() - migration->began_us) / 1e6, text);
}

void
migration_init(Migration *migration, const Plan *plan, const char *directory)
{
    *migration = (Migration){.plan = plan,
                             .directory = directory,
                             .story = g_string_new(NULL),
                             .outcome = OUTCOME_WRONG,
                             .began_us = g_get_monotonic_time()};
    migration->blow = plan->count_blows ? plan->blows : NULL;
    side_init(&migration->source, "source", directory);
    side_init(&migration->destination, "destination", directory);
}

void
migration_clear(Migration *migration)
{
    relay_free(migration->relay);
    for (unsigned i = 0; i < BLOWS_MAX; i++)
        if (migration->wakers[i])
            g_thread_join(migration->wakers[i]);
    side_clear(&migration->source);
    side_clear(&migration->destination);
    g_string_free(migration->story, TRUE);
}

/* ---- Starting -------------------------------------------------------------------------------- */

static void add(GPtrArray *arguments, const char *format, ...) G_GNUC_PRINTF(2, 3);

static void
add(GPtrArray *arguments, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    g_ptr_array_add(arguments, g_strdup_vprintf(format, list));
    va_end(list);
}

/* A source whose postcopy is waited for does not converge before: no downtime is short enough. */
static void
add_source(GPtrArray *arguments, const Plan *plan)
{
    add(arguments, "--parameter=downtime-limit=%u", plan->is_postcopy ? 0 : 2000);
    /* Precopy alone has to end, however slow a machine is that seals and encrypts. */
    add(arguments, "--capability=auto-converge=%s", plan->is_postcopy ? "off" : "on");
    add(arguments, "--parameter=cpu-throttle-initial=60");
    add(arguments, "--parameter=cpu-throttle-increment=30");
    add(arguments, "--parameter=max-bandwidth=%" G_GUINT64_FORMAT, plan->max_mib_per_s * MIB);
    add(arguments, "--parameter=max-postcopy-bandwidth=%" G_GUINT64_FORMAT,
        plan->push_mib_per_s * MIB);
}

GPtrArray *
migration_arguments(const Migration *migration, const char *incoming)
{
    const Plan *plan = migration->plan;
    const Side *side = incoming ? &migration->destination : &migration->source;
    GPtrArray *arguments = g_ptr_array_new_with_free_func(g_free);

    add(arguments, "--guest=%s", plan->is_kvm ? "kvm" : "threads");
    add(arguments, "--memory=%uM", plan->memory_mib);
    add(arguments, "--cpus=%u", plan->cpus);
    if (plan->write_rate)
        add(arguments, "--write-rate=%u", plan->write_rate);
    add(arguments, "--capability=events=on");
    add(arguments, "--capability=postcopy-ram=%s", plan->is_postcopy ? "on" : "off");
    if (plan->preempt)
        add(arguments, "--capability=postcopy-preempt=on");
    add(arguments, "--capability=page-runs=%s", plan->no_runs ? "off" : "on");
    add(arguments, "--capability=discard-words=%s", plan->no_words ? "off" : "on");
    add(arguments, "--capability=urgent-requests=%s", plan->no_urgent_requests ? "off" : "on");
    add(arguments, "--capability=auto-recover=%s", plan->is_auto ? "on" : "off");
    add(arguments, "--parameter=heartbeat-timeout=%u", HEARTBEAT_MS);
    add(arguments, "--capability=page-checksums=%s", plan->checksums ? "on" : "off");
    if (plan->has_records) {
        g_autofree char *directory = records_directory(migration, side);
        add(arguments, "--name=guest");
        add(arguments, "--state-dir=%s", directory);
    }
    for (unsigned i = 0; incoming && i < plan->addresses; i++)
        add(arguments, "--incoming=%s", incoming);
    if (incoming)
        add(arguments, "--on-source-lost=%s", plan->lost_policy);
    if (plan->has_tls) {
        add(arguments, "--object=tls-creds-psk,id=tls0,dir=%s,endpoint=%s", migration->directory,
            incoming ? "server" : "client");
        add(arguments, "--parameter=tls-creds=tls0");
    }
    if (incoming && plan->arrives_stopped)
        add(arguments, "--paused");
    if (!incoming)
        add_source(arguments, plan);
    return arguments;
}

static bool
await_filled(Migration *migration, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;

    while (!memory_is_filled(&migration->source, migration->plan->is_kvm)) {
        if (!side_is_alive(&migration->source) || g_get_monotonic_time() > until_us)
            return migration_refuse(error, "the guest has not filled its memory");
        g_usleep(POLL_US);
    }
    return true;
}

static bool
start(Migration *migration, GError **error)
{
    const Plan *plan = migration->plan;
    g_autofree char *wish = plan->is_unix ? g_strdup_printf("unix:%s/link", migration->directory)
                                          : g_strdup("tcp:127.0.0.1:0");
    g_autoptr(GPtrArray) of_source = migration_arguments(migration, NULL);
    g_autoptr(GPtrArray) of_destination = migration_arguments(migration, wish);

    g_autofree char *keys = g_build_filename(migration->directory, "keys.psk", NULL);
    if (plan->has_tls &&
        !g_file_set_contents(keys, "qemu:5ca1ab1e5ca1ab1e5ca1ab1e5ca1ab1e\n", -1, error))
        return false;
    if (!records_prepare(migration, error) || !side_start(&migration->source, of_source, error) ||
        !side_start(&migration->destination, of_destination, error))
        return false;
    g_autofree char *uri = side_listening_at(&migration->destination, error);
    if (!uri || !await_filled(migration, error))
        return false;
    migration->relay = relay_new(uri, migration->directory, plan->queue_bytes);
    return true;
}

/* ---- Driving --------------------------------------------------------------------------------- */

static bool
is_one_of(const char *word, const char *const *words)
{
    return g_strv_contains(words, word);
}

static bool
is_at_rest(const Side *side)
{
    static const char *const ends[] = {"completed", "failed", "cancelled", NULL};
    return !side->pid || is_one_of(side->status, ends);
}

/* Who recovers by itself tries on as long as there can be somebody to come to. */
static bool
is_paused(const Migration *migration, const Side *side)
{
    const Side *other = side == &migration->source ? &migration->destination : &migration->source;
    static const char *const paused[] = {"postcopy-paused", "postcopy-recover-setup", NULL};
    bool nobody_listens = is_at_rest(other) && !(other->pid && other->is_unheard);

    return migration->plan->is_auto ? nobody_listens && is_one_of(side->status, paused)
                                    : g_str_equal(side->status, "postcopy-paused");
}

/* A destination that nobody ever reached waits on. */
static bool
are_at_rest(Migration *migration)
{
    static const char *const waiting[] = {"none", "setup", NULL};
    const Side *source = &migration->source, *destination = &migration->destination;
    bool nobody_came = is_one_of(destination->status, waiting) && is_at_rest(source);

    return (is_at_rest(source) || is_paused(migration, source)) &&
           (is_at_rest(destination) || is_paused(migration, destination) || nobody_came);
}

/* At no moment may both run the guest: the source is asked before and after the destination. */
static bool
look(Migration *migration, GError **error)
{
    g_autoptr(GError) reason = NULL;
    g_autofree char *statuses =
        g_strdup_printf("%s %s", migration->source.status, migration->destination.status);
    bool ran = side_look(&migration->source, &reason) &&
               g_str_equal(migration->source.run_state, "running");

    if (!reason && side_look(&migration->destination, &reason) && ran &&
        g_str_equal(migration->destination.run_state, "running") &&
        side_look(&migration->source, &reason) &&
        g_str_equal(migration->source.run_state, "running"))
        return migration_refuse(error, "two owners: the guest runs at both sides");
    if (reason) {
        g_propagate_error(error, g_steal_pointer(&reason));
        return false;
    }
    g_autofree char *now =
        g_strdup_printf("%s %s", migration->source.status, migration->destination.status);
    if (!g_str_equal(statuses, now))
        migration_note(migration, "source %s, destination %s", migration->source.status,
                       migration->destination.status);
    return true;
}

static void
wish_postcopy(Migration *migration)
{
    const Plan *plan = migration->plan;
    g_autoptr(GError) error = NULL;

    if (migration->wished || !plan->is_postcopy || migration->source.passes < plan->passes ||
        is_at_rest(&migration->source))
        return;
    migration->wished = true;
    if (!side_do(&migration->source, "migrate-start-postcopy", NULL, &error))
        migration_note(migration, "%s", error->message);
}

/* What somebody does who sees that nothing moves: cancels while the source has the guest, breaks
 * the connection when it does not. */
static void
operate(Migration *migration)
{
    Side *sides[] = {&migration->source, &migration->destination};
    bool any_postcopy = false;

    for (unsigned i = 0; i < G_N_ELEMENTS(sides); i++) {
        g_autoptr(GError) error = NULL;
        if (!side_is_alive(sides[i]) || !g_str_equal(sides[i]->status, "postcopy-active"))
            continue;
        any_postcopy = true;
        side_do(sides[i], "migrate-pause", NULL, &error);
        migration_note(migration, "%s: migrate-pause: %s", sides[i]->role,
                       error ? error->message : "done");
    }
    if (any_postcopy || is_at_rest(&migration->source))
        return;
    g_autoptr(GError) error = NULL;
    side_do(&migration->source, "migrate_cancel", NULL, &error);
    migration_note(migration, "migrate_cancel: %s", error ? error->message : "done");
}

/* An operator is faster than the heartbeat, which is left to do it where nobody is called. */
static void
operate_if_hung(Migration *migration)
{
    int64_t struck_us = relay_struck_us(migration->relay);
    int64_t now_us = g_get_real_time();

    if (!migration->blow || migration->blow->fault != FAULT_HANG || !struck_us ||
        migration->plan->is_auto)
        return;
    if (!migration->operated && now_us > struck_us + OPERATOR_US) {
        migration->operated = true;
        operate(migration);
    }
    if (now_us > struck_us + OPERATOR_US + PATIENCE_US)
        relay_cut(migration->relay);
}

/* Sides that recover by themselves do not wait for us between two blows. */
static void
take_next_blow(Migration *migration)
{
    static const char *const broken[] = {"postcopy-paused", "postcopy-recover-setup",
                                         "postcopy-recover", NULL};
    const Plan *plan = migration->plan;

    if (!plan->is_auto || migration->blow != plan->blows || plan->count_blows < 2 ||
        !relay_struck_us(migration->relay) || !is_one_of(migration->source.status, broken))
        return;
    migration->struck_us[0] = relay_disarm(migration->relay);
    migration->blow++;
    migration->is_armed = false;
}

static bool
await_rest(Migration *migration, GError **error)
{
    int64_t until_us = g_get_monotonic_time() + SIDE_DEADLINE_S * G_USEC_PER_SEC;
    int64_t rests_since_us = 0;

    for (;;) {
        int64_t now_us = g_get_monotonic_time();
        if (!look(migration, error))
            return false;
        wish_postcopy(migration);
        take_next_blow(migration);
        migration_arm_if_moment(migration);
        operate_if_hung(migration);
        if (relay_struck_us(migration->relay))
            relay_pace(migration->relay, 0);
        if (!are_at_rest(migration))
            rests_since_us = 0;
        else if (!rests_since_us)
            rests_since_us = now_us;
        else if (now_us > rests_since_us + REST_US)
            return true;
        if (now_us > until_us)
            return migration_refuse(error, "%d s are over, and the sides have not come to rest",
                                    SIDE_DEADLINE_S);
        g_usleep(POLL_US);
    }
}

/* What has not come by now does not come any more; what came at the last moment is seen. */
static bool
end_blow(Migration *migration, GError **error)
{
    if (!migration->blow)
        return true;
    ptrdiff_t index = migration->blow - migration->plan->blows;
    migration->struck_us[index] = relay_disarm(migration->relay);
    migration->blow =
        index + 1 < (ptrdiff_t)migration->plan->count_blows ? migration->blow + 1 : NULL;
    migration->is_armed = migration->operated = false;
    return await_rest(migration, error);
}

/* An operator sees that it can go on, or that the destination is over and would say so. */
static bool
can_recover(const Migration *migration)
{
    const Side *source = &migration->source, *destination = &migration->destination;

    return !migration->plan->is_auto && source->pid && destination->pid &&
           g_str_equal(source->status, "postcopy-paused") &&
           (g_str_equal(destination->status, "postcopy-paused") || destination->is_unheard);
}

bool
migration_do_migrate(Migration *migration, const char *arguments, GError **error)
{
    const Plan *plan = migration->plan;
    Side *source = &migration->source;
    g_autoptr(GError) reason = NULL;
    bool kills = false;
    int ignored;

    if (side_do(source, "migrate", arguments, &reason))
        return true;
    for (unsigned i = 0; i < plan->count_blows; i++)
        kills |= plan->blows[i].fault == FAULT_KILL_SOURCE;
    if (kills && relay_struck_us(migration->relay) && !side_await_end(source, &ignored, NULL))
        return true;
    g_propagate_error(error, g_steal_pointer(&reason));
    return false;
}

bool
migration_drive(Migration *migration, GError **error)
{
    if (!start(migration, error))
        return false;
    uint64_t checks;
    side_verdict(&migration->source, &checks, &migration->passes_before, NULL);
    migration_arm_if_moment(migration);
    g_autofree char *uri = g_strdup_printf("{\"uri\": \"%s\"}", relay_uri(migration->relay));
    if (!migration_do_migrate(migration, uri, error) || !await_rest(migration, error) ||
        !end_blow(migration, error))
        return false;
    while (can_recover(migration)) {
        if (migration->recoveries == RECOVERIES_MAX)
            return migration_refuse(error, "paused again after %d recoveries", RECOVERIES_MAX);
        if (!migration_recover(migration, error) || !await_rest(migration, error) ||
            !end_blow(migration, error))
            return false;
    }
    return true;
}
