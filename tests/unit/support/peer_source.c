/* SPDX-License-Identifier: MIT */
/*
 * A scripted source: plays a script, and checks what became of it at the destination.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>

#include "tests/unit/support/peer_source.h"

#define GROWTH_MAX (64u << 20) /* sanitizers keep freed memory for a while */

static const char *const postcopy[] = {"postcopy-ram", NULL};
static const char *const preempt[] = {"postcopy-ram", "postcopy-preempt", NULL};

PeerSource *
peer_source_new(ScriptShape shape)
{
    PeerSource *source = g_new0(PeerSource, 1);
    int ends[2];

    source->resident_bytes = peer_resident_bytes();
    source->guest = peer_guest_new(shape == SCRIPT_PRECOPY    ? NULL
                                   : shape == SCRIPT_POSTCOPY ? postcopy
                                                              : preempt);
    if (shape == SCRIPT_PREEMPT) {
        source->folder = peer_folder_new();
        g_autofree char *path = g_build_filename(source->folder, "socket", NULL);
        g_autofree char *uri = g_strdup_printf("unix:%s", path);
        peer_incoming(source->guest, uri);
        source->main = peer_link_new(peer_connect(path));
        source->urgent = peer_link_new(peer_connect(path));
        return source;
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    g_autofree char *uri = g_strdup_printf("fd:%d", ends[1]);
    source->main = peer_link_new(ends[0]);
    peer_incoming(source->guest, uri);
    return source;
}

void
peer_source_free(PeerSource *source)
{
    g_clear_pointer(&source->main, peer_link_free);
    g_clear_pointer(&source->urgent, peer_link_free);
    peer_guest_free(source->guest);
    g_clear_pointer(&source->folder, peer_folder_free);
    g_free(source);
}

static bool
is_over(PeerSource *source)
{
    FaultlineStatus status = faultline_wait(source->guest->faultline, 0);
    /* Whoever does not even begin as a source is turned away, and the real one is waited for. */
    bool is_turned_away = status == FAULTLINE_STATUS_SETUP && source->main->is_closed;
    return status == FAULTLINE_STATUS_COMPLETED || status == FAULTLINE_STATUS_FAILED ||
           status == FAULTLINE_STATUS_POSTCOPY_PAUSED || is_turned_away;
}

static void
check_deadline(PeerSource *source, int64_t end_us, const char *what)
{
    if (g_get_monotonic_time() < end_us)
        return;
    fail_msg("%s: nothing moves, status %s", what,
             faultline_status_name(faultline_wait(source->guest->faultline, 0)));
}

static int64_t
deadline_us(void)
{
    return g_get_monotonic_time() + PEER_WAIT_MS * (int64_t)1000;
}

bool
peer_source_has_answered(const PeerSource *source, uint32_t ping)
{
    uint8_t bytes[16];
    StreamWriter pong = {bytes, 0, sizeof bytes};
    const GByteArray *received = source->main->received;

    stream_put_return_value(&pong, STREAM_RETURN_PONG, ping);
    return received->len > 0 && memmem(received->data, received->len, bytes, pong.length) != NULL;
}

static void
send_all(PeerSource *source, PeerLink *link, const uint8_t *bytes, size_t length)
{
    int64_t end_us = deadline_us();

    g_byte_array_append(link->to_send, bytes, (guint)length);
    while (!peer_link_is_sent(link)) {
        peer_link_pump(link, 1);
        peer_link_pump(source->main, 0);
        check_deadline(source, end_us, "send");
    }
}

static void
await_answer(PeerSource *source, uint32_t ping)
{
    int64_t end_us = deadline_us();

    while (!peer_source_has_answered(source, ping) && !source->main->is_closed &&
           !is_over(source)) {
        peer_link_pump(source->main, 2);
        check_deadline(source, end_us, "wait for the ping's answer");
    }
}

/* The destination has listened when it answers the ping behind the package, and everything of main
 * is in its place when it answers the one behind that. */
void
peer_source_play(PeerSource *source, const Script *script, size_t length)
{
    if (!source->urgent) {
        send_all(source, source->main, script->main.bytes, length);
        peer_link_half_close(source->main);
        return;
    }
    size_t first = script->offsets[STEP_RUNNING];
    send_all(source, source->main, script->main.bytes, first);
    await_answer(source, STREAM_PING_RUNNING);
    send_all(source, source->urgent, script->urgent.bytes, script->urgent.length);
    send_all(source, source->main, script->main.bytes + first, length - first);
    await_answer(source, SCRIPT_PUSH_PING);
    peer_link_half_close(source->urgent);
    peer_link_half_close(source->main);
}

FaultlineStatus
peer_source_wait(PeerSource *source)
{
    int64_t end_us = deadline_us();

    while (!is_over(source)) {
        if (!peer_link_pump(source->main, 2) && source->main->is_closed)
            faultline_wait(source->guest->faultline, 5);
        check_deadline(source, end_us, "end");
    }
    while (!source->main->is_deaf && peer_link_pump(source->main, 5))
        continue;
    return faultline_wait(source->guest->faultline, 0);
}

static void
check_text(const FaultlineInfo *info, const char *words, const char *where)
{
    if (!strstr(info->error, words))
        fail_msg("the error lacks \"%s\": %s", words, info->error);
    if (!strstr(info->error, where))
        fail_msg("the error lacks \"%s\": %s", where, info->error);
    if (strlen(info->error) + 1 == sizeof info->error)
        fail_msg("the error was cut: %s", info->error);
}

void
peer_source_check(PeerSource *source, PeerOutcome outcome, const char *words)
{
    FaultlineInfo info;
    FaultlineStatus status = peer_source_wait(source);
    unsigned count_resumes = peer_count(&source->guest->count_resumes);

    faultline_query(source->guest->faultline, &info);
    if (outcome == OUTCOME_PAUSED_OR_COMPLETED)
        outcome = status == FAULTLINE_STATUS_COMPLETED ? OUTCOME_COMPLETED : OUTCOME_PAUSED;
    FaultlineStatus expected = outcome == OUTCOME_COMPLETED ? FAULTLINE_STATUS_COMPLETED
                               : outcome == OUTCOME_FAILED  ? FAULTLINE_STATUS_FAILED
                                                            : FAULTLINE_STATUS_POSTCOPY_PAUSED;
    if (status != expected)
        fail_msg("status is %s, expected %s: %s", faultline_status_name(status),
                 faultline_status_name(expected), info.error);
    if (outcome == OUTCOME_FAILED)
        check_text(&info, words, "The guest never ran here; look for it at the source");
    if (outcome == OUTCOME_PAUSED)
        check_text(&info, words, "The guest runs here");
    assert_int_equal(count_resumes, outcome == OUTCOME_FAILED ? 0 : 1);
    assert_int_equal(info.run_state,
                     outcome == OUTCOME_FAILED ? FAULTLINE_RUN_INMIGRATE : FAULTLINE_RUN_RUNNING);
    uint64_t resident_bytes = peer_resident_bytes();
    if (resident_bytes > source->resident_bytes + GROWTH_MAX)
        fail_msg("memory grew by %" G_GUINT64_FORMAT " bytes",
                 resident_bytes - source->resident_bytes);
}
