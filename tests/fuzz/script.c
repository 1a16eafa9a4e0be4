/* SPDX-License-Identifier: MIT */
/*
 * Reads the input as a script (side.h) and plays it, a piece whenever nothing else is due.
 */
#include "tests/fuzz/side.h"
#include "engine/context.h"

#include <string.h>

#define WAIT_NS        UINT64_C(2000000)
#define LONG_WAIT_NS   UINT64_C(3000000000)
#define NO_ROOM_NS     5000u /* after which a full link is tried again */
#define LINE_BYTES_MAX 4096u

static struct {
    const uint8_t *at, *end;
    uint64_t due_ns; /* the next piece */
    char channel, rest_channel;
    const uint8_t *rest, *rest_end; /* of the opening: the input comes behind it */
    bool is_over, is_busy;          /* the control thread is in a call */
    uint8_t page[SIM_PAGE];
    size_t page_left;
} script;

void
script_begin(const SideStart *start, const uint8_t *bytes, size_t length)
{
    memset(&script, 0, sizeof script);
    script.at = bytes;
    script.end = bytes + length;
    script.channel = start->channel;
    if (start->opening) {
        script.rest = script.at;
        script.rest_end = script.end;
        script.rest_channel = start->channel;
        script.at = start->opening;
        script.end = start->opening + start->opening_length;
        script.channel = 'm';
    }
}

bool
script_is_over(void)
{
    return script.is_over;
}

static const uint8_t *
find_mark(void)
{
    const uint8_t *mark =
        memmem(script.at, (size_t)(script.end - script.at), SIDE_MARK, SIDE_MARK_BYTES);
    return mark ? mark : script.end;
}

/* ---- What is said ------------------------------------------------------------------------------
 */

static bool
take_line(void *opaque G_GNUC_UNUSED, const char *bytes, size_t length)
{
    sim_check(length > 0 && bytes[length - 1] == '\n', "the monitor sends half a line");
    sim_check(g_utf8_validate(bytes, (gssize)length, NULL), "the monitor sends what is no UTF-8");
    return true;
}

static void
quit_nothing(void *opaque G_GNUC_UNUSED)
{
}

static void
open_monitor(void)
{
    static const FaultlineMonitorHost monitor_host = {.name = "fuzz", .quit = quit_nothing};
    if (!side.monitor)
        side.monitor = faultline_monitor_new(side.faultline, &monitor_host, NULL);
    if (!side.session)
        side.session = faultline_session_new(side.monitor, take_line, NULL);
}

static void
say_to_monitor(const uint8_t *bytes, size_t length)
{
    open_monitor();
    if (!side.session_is_over)
        side.session_is_over = !faultline_session_feed(side.session, (const char *)bytes, length);
}

static void
type_lines(const uint8_t *bytes, size_t length)
{
    open_monitor();
    g_autofree char *text = g_strndup((const char *)bytes, MIN(length, LINE_BYTES_MAX));
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i]; i++) {
        g_autofree char *output = faultline_monitor_hmp(side.monitor, lines[i]);
        sim_check(g_utf8_validate(output, -1, NULL), "HMP prints what is no UTF-8");
    }
}

static void
touch_pairs(const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i + 1 < length; i += 2)
        guest_touch(bytes[i], bytes[i + 1]);
}

/* How many of the bytes were taken. */
static size_t
say(const uint8_t *bytes, size_t length)
{
    switch (script.channel) {
    case 'u':
        return peer_write(1, bytes, length);
    case 'q':
        if (!side.nested)
            say_to_monitor(bytes, length);
        return length;
    case 'h':
        if (!side.nested)
            type_lines(bytes, length);
        return length;
    case 't':
        touch_pairs(bytes, length);
        return length;
    default:
        return peer_write(0, bytes, length);
    }
}

/* ---- What is done ------------------------------------------------------------------------------
 */

static void
command(char letter)
{
    g_autoptr(GError) error = NULL;
    bool ok = true;

    if (side.nested) /* the control thread would wait for who sleeps below it */
        return;
    if (letter == 'p')
        ok = faultline_start_postcopy(side.faultline, &error);
    else if (letter == 'b')
        ok = faultline_pause(side.faultline, &error);
    else if (letter == 'c')
        ok = faultline_cancel(side.faultline, &error);
    else
        ok = faultline_continue(side.faultline, FAULTLINE_STATUS_PRE_SWITCHOVER, &error);
    sim_check(ok == !error, "'%c': %d, and %s error", letter, ok, error ? "an" : "no");
}

/* The operator's part of a recovery, and the peer's. */
static void
recover(bool breaks)
{
    g_autoptr(GError) error = NULL;

    peer_start_over();
    if (side.nested)
        return;
    if (breaks)
        faultline_pause(side.faultline, NULL);
    bool ok = side.side == SIM_SOURCE ? faultline_migrate_resume(side.faultline, SIM_URI, &error)
                                      : faultline_recover(side.faultline, SIM_URI, &error);
    sim_check(ok == !error, "recover: %d, and %s error", ok, error ? "an" : "no");
    script.channel = 'm';
    script.due_ns = sim.now_ns + WAIT_NS;
}

/* Behind a mark. */
static void
obey(char letter)
{
    switch (letter) {
    case 'm':
    case 'u':
        peer_write(letter == 'u', NULL, 0); /* connects, if it has not yet */
        script.channel = letter;
        break;
    case 'q':
    case 'h':
    case 't':
        script.channel = letter;
        break;
    case 'P':
        if (script.at < script.end)
            memset(script.page, *script.at++, sizeof script.page);
        script.page_left = sizeof script.page;
        break;
    case 'w':
    case 'W':
        script.due_ns = sim.now_ns + (letter == 'w' ? WAIT_NS : LONG_WAIT_NS);
        break;
    case 'x':
    case 'X':
        peer_close(letter == 'X');
        break;
    case 'r':
    case 'R':
        recover(letter == 'R');
        break;
    case 'k':
        sim_network_cut(UINT_MAX);
        break;
    case 'p':
    case 'b':
    case 'c':
    case 'n':
        command(letter);
        break;
    }
}

/* Says what it can of the bytes; false: not all of them. */
static bool
say_some(const uint8_t *bytes, size_t length, size_t *ret_said)
{
    *ret_said = say(bytes, length);
    if (*ret_said == length)
        return true;
    script.due_ns = sim.now_ns + NO_ROOM_NS;
    return false;
}

static void
step(void)
{
    size_t said;
    const uint8_t *mark = find_mark();

    if (script.page_left) {
        say_some(script.page + SIM_PAGE - script.page_left, script.page_left, &said);
        script.page_left -= said;
    } else if (mark > script.at) {
        say_some(script.at, (size_t)(mark - script.at), &said);
        script.at += said;
    } else if (script.end - script.at > (ptrdiff_t)SIDE_MARK_BYTES) {
        script.at += SIDE_MARK_BYTES + 1;
        obey((char)script.at[-1]);
    } else if (script.rest) {
        script.at = script.rest;
        script.end = script.rest_end;
        script.channel = script.rest_channel;
        script.rest = NULL;
        script.due_ns = sim.now_ns + WAIT_NS;
    } else {
        peer_close_all();
        script.is_over = true;
    }
}

void
script_advance(void)
{
    script.due_ns = 0;
    script.is_busy = true;
    while (!script.is_over && script.due_ns == 0)
        step();
    script.is_busy = false;
}

uint64_t
sim_control_next_ns(void)
{
    peer_drain();
    return script.is_over || script.is_busy ? NEVER : script.due_ns;
}

void
sim_control_step(void)
{
    sim.side = side.side;
    script_advance();
}

/* Nothing else will happen, and somebody sleeps in a callback. */
void
sim_check_end(void)
{
    if (script.is_over || script.is_busy)
        sim.over = true;
    else
        script_advance();
}

/* The simulation has threads for one thing at a time. */
bool __real_faultline_measure_dirty_rate(Faultline *faultline, uint64_t time_ms, GError **error);
bool __wrap_faultline_measure_dirty_rate(Faultline *faultline, uint64_t time_ms, GError **error);

bool
__wrap_faultline_measure_dirty_rate(Faultline *faultline, uint64_t time_ms, GError **error)
{
    if (!run.used[side.side])
        return __real_faultline_measure_dirty_rate(faultline, time_ms, error);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, "simulated: no more threads");
    return false;
}

bool
sim_is_paused(void)
{
    return context_status(side.faultline) == FAULTLINE_STATUS_POSTCOPY_PAUSED;
}

bool
sim_is_recovering(void)
{
    FaultlineStatus status = context_status(side.faultline);
    return status == FAULTLINE_STATUS_POSTCOPY_RECOVER_SETUP ||
           status == FAULTLINE_STATUS_POSTCOPY_RECOVER;
}
