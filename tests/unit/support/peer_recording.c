/* SPDX-License-Identifier: MIT */
/*
 * The relay between two Faultlines, and the parser that reads what it kept.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/support/peer_recording.h"

#define PUSH_BYTES_PER_S (4u << 20) /* slow enough that the reader has to ask for pages */

static void
check(bool is_good, const GError *error)
{
    if (!is_good)
        fail_msg("%s", error ? error->message : "no error set");
}

static PeerGuest *
new_side(ScriptShape shape)
{
    static const char *const names[] = {"postcopy-ram", "postcopy-preempt", NULL};
    const char *wanted[3] = {NULL};

    for (unsigned i = 0; i < (unsigned)shape; i++)
        wanted[i] = names[i];
    PeerGuest *guest = peer_guest_new(wanted);
    g_autoptr(GError) error = NULL;

    /* Recorded as two QEMUs would speak. */
    check(faultline_set_capability(guest->faultline, "urgent-requests", false, &error), error);
    check(faultline_set_capability(guest->faultline, "discard-words", false, &error), error);
    check(faultline_set_parameter(guest->faultline, "heartbeat-timeout", 0, &error), error);
    check(faultline_set_capability(guest->faultline, "recovery-token", false, &error), error);
    return guest;
}

PeerRecording *
peer_recording_new(ScriptShape shape, bool with_runs)
{
    PeerRecording *recording = g_new0(PeerRecording, 1);
    g_autoptr(GError) error = NULL;
    bool is_postcopy = shape != SCRIPT_PRECOPY;

    recording->folder = peer_folder_new();
    recording->inner_path = g_build_filename(recording->folder, "inner", NULL);
    g_autofree char *outer_path = g_build_filename(recording->folder, "outer", NULL);
    g_autofree char *inner = g_strdup_printf("unix:%s", recording->inner_path);
    g_autofree char *outer = g_strdup_printf("unix:%s", outer_path);
    recording->listener = peer_listen(outer_path);
    assert_int_equal(fcntl(recording->listener, F_SETFL, O_NONBLOCK), 0);

    recording->source = new_side(shape);
    recording->destination = new_side(shape);
    recording->destination->reads_all = true;
    check(faultline_set_capability(recording->source->faultline, "page-runs", with_runs, &error) &&
              faultline_set_capability(recording->destination->faultline, "page-runs", with_runs,
                                       &error),
          error);
    recording->source->is_always_dirty = is_postcopy;
    peer_guest_fill(recording->source);
    peer_incoming(recording->destination, inner);

    Faultline *source = recording->source->faultline;
    if (is_postcopy) {
        check(faultline_set_parameter(source, "downtime-limit", 0, &error), error);
        check(faultline_set_parameter(source, "max-postcopy-bandwidth", PUSH_BYTES_PER_S, &error),
              error);
    }
    check(faultline_cont(source, &error), error);
    check(faultline_migrate(source, outer, &error), error);
    if (is_postcopy)
        check(faultline_start_postcopy(source, &error), error);
    return recording;
}

void
peer_recording_free(PeerRecording *recording)
{
    for (unsigned i = 0; i < recording->count_channels; i++) {
        peer_link_free(recording->sources[i]);
        peer_link_free(recording->destinations[i]);
    }
    peer_guest_free(recording->source);
    peer_guest_free(recording->destination);
    close(recording->listener);
    peer_folder_free(recording->folder);
    g_free(recording->inner_path);
    g_free(recording);
}

static void
accept_channel(PeerRecording *recording)
{
    int fd = accept4(recording->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    assert_true(recording->count_channels < RECORDING_CHANNELS);
    recording->sources[recording->count_channels] = peer_link_new(fd);
    recording->destinations[recording->count_channels] =
        peer_link_new(peer_connect(recording->inner_path));
    recording->count_channels++;
}

/* What came in at one end goes out at the other; `before` bytes did so already. */
static bool
relay(PeerLink *from, PeerLink *to)
{
    bool has_worked = peer_link_pump(from, 0);
    guint before = to->to_send->len;

    g_byte_array_append(to->to_send, from->received->data + before, from->received->len - before);
    has_worked |= peer_link_pump(to, 0);
    if (from->is_closed && peer_link_is_sent(to) && to->to_send->len == from->received->len)
        peer_link_half_close(to);
    return has_worked;
}

static bool
is_over(const PeerGuest *guest)
{
    FaultlineStatus status = faultline_wait(guest->faultline, 0);
    return status == FAULTLINE_STATUS_COMPLETED || status == FAULTLINE_STATUS_FAILED ||
           status == FAULTLINE_STATUS_POSTCOPY_PAUSED;
}

static void
check_completed(const PeerGuest *guest, const char *side)
{
    FaultlineInfo info;
    faultline_query(guest->faultline, &info);
    if (info.status != FAULTLINE_STATUS_COMPLETED)
        fail_msg("%s: %s: %s", side, faultline_status_name(info.status), info.error);
}

void
peer_recording_run(PeerRecording *recording)
{
    int64_t end_us = g_get_monotonic_time() + PEER_WAIT_MS * (int64_t)1000;
    bool has_worked = true;

    while (has_worked || !is_over(recording->source) || !is_over(recording->destination)) {
        has_worked = false;
        accept_channel(recording);
        for (unsigned i = 0; i < recording->count_channels; i++) {
            has_worked |= relay(recording->sources[i], recording->destinations[i]);
            has_worked |= relay(recording->destinations[i], recording->sources[i]);
        }
        if (!has_worked)
            g_usleep(500);
        if (g_get_monotonic_time() > end_us)
            fail_msg("the migration does not end");
    }
    check_completed(recording->source, "source");
    check_completed(recording->destination, "destination");
}

/* ---- The independent parser --------------------------------------------------------------------
 */

const char *
peer_parser_find(void)
{
    const char *path = g_getenv("FAULTLINE_QSTREAM");
    g_autofree char *python = g_find_program_in_path("python3");

    if (!path)
        path = "../shared/tools/qstream.py";
    if (!python)
        print_message("skipped: python3 is not in PATH\n");
    else if (!g_file_test(path, G_FILE_TEST_EXISTS))
        print_message("skipped: no parser at %s, FAULTLINE_QSTREAM names another\n", path);
    else
        return path;
    return NULL;
}

char *
peer_recording_save(const PeerRecording *recording, const char *name, const GByteArray *bytes)
{
    g_autoptr(GError) error = NULL;
    char *path = g_build_filename(recording->folder, name, NULL);

    check(g_file_set_contents(path, (const char *)bytes->data, (gssize)bytes->len, &error), error);
    return path;
}

void
peer_parser_run(const char *parser, const char *const *arguments)
{
    g_autoptr(GPtrArray) all = g_ptr_array_new();
    g_autoptr(GError) error = NULL;
    g_autofree char *out = NULL, *err = NULL;
    int status = 0;

    g_ptr_array_add(all, (char *)"python3");
    g_ptr_array_add(all, (char *)parser);
    for (; *arguments; arguments++)
        g_ptr_array_add(all, (char *)*arguments);
    g_ptr_array_add(all, NULL);
    check(g_spawn_sync(NULL, (char **)all->pdata, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, &out, &err,
                       &status, &error),
          error);
    if (!g_spawn_check_wait_status(status, NULL))
        fail_msg("%s%s", out, err);
}
