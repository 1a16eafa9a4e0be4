/* SPDX-License-Identifier: MIT */
/*
 * Auto-recover: after a break in postcopy the migration role connects again by itself, at once and
 * then with growing pauses, going round the addresses that the destination has told. While nobody
 * answers the status stays postcopy-paused: attempts may follow each other every few ms, and are
 * news to nobody. A network that swallows packets answers nothing, and the kernel sends the first
 * one again after a second only: an attempt that takes much longer than one that was answered makes
 * room for another, and one of them goes on beside it, for the path may have become a longer one.
 * Whether what answers there is the destination, token.h makes sure. A pause by command lasts until
 * a command ends it: somebody had a reason, and the other side cannot know it. Past the deadline
 * the pause stays, and commands still work.
 */
#include "engine/source/source.h"

#include <string.h>

#define FIRST_WAIT_NS    10000000u
#define ATTEMPT_LEAST_NS 1000000000ull /* for its proof */
#define PATIENT_NS       4000000000ull /* for a connection: two of the kernel's tries */
#define ANSWERED_WAIT_NS                                                                           \
    1000000000ull                /* longest wait where somebody answered, and it failed then */
#define LASTING_NS 1000000000ull /* what goes on for so long is no part of the last pause */

/* ---- Addresses ------------------------------------------------------------------------------- */

static void
add_address(Source *source, const char *uri)
{
    for (unsigned i = 0; i < source->count_addresses; i++)
        if (strcmp(source->addresses[i], uri) == 0)
            return;
    if (source->count_addresses < SOURCE_ADDRESSES_MAX && stream_name_is_good(uri))
        g_strlcpy(source->addresses[source->count_addresses++], uri, STREAM_NAME_MAX + 1);
}

/* All hosts of the destination: by the one that we know. NULL: none is known. */
static char *
replace_any_host(const Source *source, const char *uri)
{
    const char *port = strrchr(uri, ':'), *own_port = strrchr(source->uri, ':');

    if (!g_str_has_prefix(uri, "tcp:0.0.0.0:") && !g_str_has_prefix(uri, "tcp:[::]:"))
        return g_strdup(uri);
    if (!g_str_has_prefix(source->uri, "tcp:") || own_port == source->uri + 3)
        return NULL;
    return g_strdup_printf("%.*s%s", (int)(own_port - source->uri), source->uri, port);
}

void
source_take_address(Source *source, const char *uri)
{
    g_autofree char *reachable = replace_any_host(source, uri);
    bool is_local = g_str_has_prefix(uri, "unix:");

    if (!source->count_addresses && !g_str_has_prefix(source->uri, "fd:"))
        add_address(source, source->uri);
    if (reachable && is_local == g_str_has_prefix(source->uri, "unix:"))
        add_address(source, reachable);
}

/* ---- Attempts -------------------------------------------------------------------------------- */

static bool
can_retry(const Source *source)
{
    return source->retries && source_has_token(source) && source->count_addresses &&
           !source->retry.is_held && !source->retry.is_over;
}

static uint64_t
parameter_ns(const Source *source, Parameter parameter)
{
    return options_get(&source->faultline->options, parameter) * 1000000u;
}

/* Up to a quarter less, so that many that broke together do not come together. */
static uint64_t
spread(uint64_t wait_ns)
{
    uint8_t chance = 128;
    random_fill(&chance, sizeof chance, NULL);
    return wait_ns - wait_ns / 4 * chance / 256;
}

void
source_retry_begin(Source *source)
{
    SourceRetry *retry = &source->retry;
    uint64_t now_ns = clock_now_ns();
    bool is_new = !retry->began_ns || (retry->active_ns && now_ns - retry->active_ns >= LASTING_NS);

    if (is_new) {
        *retry = (SourceRetry){.is_held = retry->is_held,
                               .began_ns = now_ns,
                               .next_ns = now_ns,
                               .connect_ns = retry->connect_ns};
        progress_set(&source->faultline->progress.recover_attempts, 0);
    } else {
        uint64_t longest_ns = parameter_ns(source, PARAMETER_RECOVER_RETRY);
        if (retry->has_answer)
            longest_ns = MAX(longest_ns, ANSWERED_WAIT_NS);
        retry->wait_ns =
            retry->wait_ns ? MIN(2 * retry->wait_ns, longest_ns) : MIN(FIRST_WAIT_NS, longest_ns);
        retry->next_ns = now_ns + spread(retry->wait_ns);
        retry->next = source->count_addresses ? (retry->next + 1) % source->count_addresses : 0;
    }
    progress_set(&source->faultline->progress.recover_address, retry->next);
    retry->is_trying = retry->has_answer = false;
    retry->active_ns = 0;
    progress_set(&source->faultline->progress.recover_next_ns,
                 can_retry(source) ? retry->next_ns : 0);
}

/* True: told for the first time, or before. */
static bool
is_past_deadline(Source *source, uint64_t now_ns)
{
    SourceRetry *retry = &source->retry;
    uint64_t deadline_ns = parameter_ns(source, PARAMETER_RECOVER_DEADLINE);

    if (!deadline_ns || now_ns - retry->began_ns < deadline_ns)
        return false;
    retry->is_over = true;
    source_drop_connectors(source);
    progress_set(&source->faultline->progress.recover_next_ns, 0);
    context_amend_error(source->faultline,
                        "auto-recover has given up after recover-deadline; go on with 'migrate' "
                        "with 'resume'");
    return true;
}

/* How long one attempt has the field alone: as long as two answers took, and no less than the pause
 * between two attempts. */
static uint64_t
patience_ns(const Source *source)
{
    return MAX(parameter_ns(source, PARAMETER_RECOVER_RETRY), 2 * source->retry.connect_ns);
}

StageResult
source_retry_step(Source *source)
{
    SourceRetry *retry = &source->retry;
    uint64_t deadline_ns = parameter_ns(source, PARAMETER_RECOVER_DEADLINE);

    if (!can_retry(source))
        return STAGE_STAY;
    uint64_t now_ns = clock_now_ns();
    if (is_past_deadline(source, now_ns))
        return STAGE_STAY;
    if (now_ns < retry->next_ns) {
        uint64_t end_ns = deadline_ns ? retry->began_ns + deadline_ns : retry->next_ns;
        source->migration.wake_ns = MIN(retry->next_ns, end_ns);
        return STAGE_STAY;
    }
    retry->is_trying = true;
    retry->knocked_ns = now_ns;
    retry->until_ns = now_ns + patience_ns(source);
    progress_add(&source->faultline->progress.recover_attempts, 1);
    g_free(source->uri);
    source->uri = g_strdup(source->addresses[retry->next]);
    source->stage = source_stage_knock;
    return STAGE_AGAIN;
}

void
source_drop_connectors(Source *source)
{
    g_clear_pointer(&source->connector, transport_connector_free);
    g_clear_pointer(&source->retry.patient, transport_connector_free);
}

/* The one that is patient, if the other one has nothing to say. */
static StageResult
look_at_patient(Source *source, uint64_t now_ns)
{
    SourceRetry *retry = &source->retry;

    if (!retry->patient)
        return STAGE_STAY;
    TransportResult result = transport_connect_finish(retry->patient, &source->link, NULL);
    if (result == TRANSPORT_OK) {
        g_free(source->uri);
        source->uri = g_strdup(source->addresses[retry->patient_address]);
        retry->knocked_ns = retry->patient_knocked_ns;
        return STAGE_AGAIN;
    }
    if (result != TRANSPORT_WAIT || now_ns >= retry->patient_until_ns)
        g_clear_pointer(&retry->patient, transport_connector_free);
    return STAGE_STAY;
}

/* It has taken too long: another one begins at once, and it goes on if none does so yet. */
static void
lose_patience(Source *source, uint64_t now_ns)
{
    SourceRetry *retry = &source->retry;

    if (!retry->patient) {
        retry->patient = g_steal_pointer(&source->connector);
        retry->patient_address = retry->next;
        retry->patient_knocked_ns = retry->knocked_ns;
        retry->patient_until_ns = now_ns + PATIENT_NS;
    }
    g_clear_pointer(&source->connector, transport_connector_free);
    retry->next = (retry->next + 1) % source->count_addresses;
    retry->next_ns = now_ns;
    progress_set(&source->faultline->progress.recover_address, retry->next);
    progress_set(&source->faultline->progress.recover_next_ns, now_ns);
    source->stage = source_stage_paused;
}

/* Somebody has answered; false: a command came in between. */
static bool
let_in(Source *source, uint64_t now_ns)
{
    SourceRetry *retry = &source->retry;

    source_drop_connectors(source);
    if (!context_move_from(source->faultline, FAULTLINE_STATUS_POSTCOPY_PAUSED,
                           FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP)) {
        g_clear_pointer(&source->link, transport_link_unref);
        return false;
    }
    retry->connect_ns = now_ns - retry->knocked_ns;
    retry->has_answer = true;
    retry->until_ns = now_ns + MAX(ATTEMPT_LEAST_NS, 2 * retry->wait_ns);
    source_begin_recovery(source);
    return true;
}

/* Connects, while the status is still postcopy-paused: a command may come in between. */
StageResult
source_stage_knock(Source *source, GError **error)
{
    SourceRetry *retry = &source->retry;
    uint64_t now_ns = clock_now_ns();
    g_autoptr(GError) cause = NULL;
    (void)error;

    if (source_is_resumed(source)) {
        source_drop_connectors(source);
        source->stage = source_stage_paused;
        return STAGE_AGAIN;
    }
    StageResult result = source_connect_link(source, &source->link, &cause);
    if (result != STAGE_AGAIN && look_at_patient(source, now_ns) == STAGE_AGAIN)
        result = STAGE_AGAIN;
    if (result == STAGE_AGAIN) {
        if (!let_in(source, now_ns))
            source->stage = source_stage_paused;
    } else if (result == STAGE_FAILED) {
        source->stage = source_stage_paused;
        source_retry_begin(source);
    } else if (now_ns >= retry->until_ns) {
        lose_patience(source, now_ns);
    } else {
        source->migration.wake_ns = retry->until_ns;
        return STAGE_STAY;
    }
    return STAGE_AGAIN;
}

StageResult
source_retry_check(Source *source, GError **error)
{
    if (!source->retry.is_trying)
        return STAGE_STAY;
    if (clock_now_ns() < source->retry.until_ns) {
        source->migration.wake_ns = source->retry.until_ns;
        return STAGE_STAY;
    }
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK,
                "connect: the destination has not answered; another attempt follows");
    return STAGE_FAILED;
}
