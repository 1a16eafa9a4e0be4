/* SPDX-License-Identifier: MIT */
/*
 * Makes a side as the options of an input say, plays the input to it, and checks how it ends.
 */
#include "tests/fuzz/side.h"
#include "engine/context.h"

#include <stdlib.h>
#include <string.h>

#define OPTION_BYTES 2u
#define BUSY_STEPS   20000u /* after the last byte, before the clock is pushed on */

Side side;
SimRun run;

static void
plan(uint8_t options, uint8_t seed)
{
    static uint64_t coverage[SIM_PHASE_COUNT][SIM_POINT_COUNT], outcomes[SIM_OUTCOME_COUNT];
    bool huge = options & SIDE_OPTION_HUGE;

    sim = (Sim){.now_ns = 1000000,
                .seed = seed,
                .random = seed,
                .side = side.side,
                .coverage = coverage,
                .outcomes = outcomes,
                .trace = g_getenv("FUZZ_TRACE") != NULL,
                .on_bug = abort};
    memset(sim.phase_ns, 0xff, sizeof sim.phase_ns);
    sim.plan = (SimPlan){
        .blocks = {{SIM_PAGE, 24, true}, {huge ? 4 * SIM_PAGE : SIM_PAGE, 16, false}},
        .count_blocks = 2,
        .count_vcpus = 1,
        .zap_needed = options & SIDE_OPTION_ZAP,
        .poison = true,
        .idle_ns = sim.now_ns + 1000000,
        .touch_ns = 20000,
        .byte_ps = 1,
        .delay_ns = 100,
        .capacity_bytes = 32768,
        .extent_bytes = 8 * SIM_PAGE,
    };
}

static void
set(const char *name, bool on)
{
    faultline_set_capability(side.faultline, name, on, NULL);
}

static void
make(const SideStart *start, uint8_t options, bool has_checksums)
{
    const FaultlineGuest *callbacks =
        side.side == SIM_SOURCE ? sim_guest_callbacks(SIM_SOURCE) : guest_callbacks();

    side.faultline = faultline_new(callbacks, sim_guest_opaque(side.side),
                                   sim_guest_blocks(side.side), sim.plan.count_blocks, NULL);
    sim_check(side.faultline, "faultline_new");
    set("return-path", !(options & SIDE_OPTION_NO_RETURN));
    set("postcopy-ram", !(options & SIDE_OPTION_PRECOPY));
    set("postcopy-preempt", options & SIDE_OPTION_PREEMPT);
    set("postcopy-blocktime", options & SIDE_OPTION_BLOCKTIME);
    set("page-runs", !(options & SIDE_OPTION_NO_RUNS));
    set("page-checksums", has_checksums);
    set("events", true);
    /* Nobody comes but by the script: an end to coming again by itself. */
    sim_check(faultline_set_parameter(side.faultline, "recover-deadline", 200, NULL), "deadline");
    if (side.side == SIM_SOURCE)
        set("pause-before-switchover", options & SIDE_OPTION_WAITS);
    else
        faultline_set_autostart(side.faultline, !(options & SIDE_OPTION_WAITS));
    if (!start->begins)
        return;
    bool has_begun = side.side == SIM_SOURCE ? faultline_cont(side.faultline, NULL) &&
                                                   faultline_migrate(side.faultline, SIM_URI, NULL)
                                             : faultline_incoming(side.faultline, SIM_URI, NULL);
    sim_check(has_begun, "the migration does not begin");
}

/* Until nothing happens any more. */
static void
play(void)
{
    while (!sim.over)
        if (!sim_schedule_once())
            sim_check_end();
}

static bool
is_over(FaultlineStatus status)
{
    return status == FAULTLINE_STATUS_COMPLETED || status == FAULTLINE_STATUS_FAILED ||
           status == FAULTLINE_STATUS_CANCELLED || status == FAULTLINE_STATUS_POSTCOPY_PAUSED;
}

/* Nobody says that it shall go on. */
static void
end_wait(void)
{
    if (context_status(side.faultline) != FAULTLINE_STATUS_PRE_SWITCHOVER)
        return;
    sim_check(faultline_cancel(side.faultline, NULL), "who waits cannot be cancelled");
    sim.over = false;
    play();
}

static void
check(const SideStart *start)
{
    FaultlineInfo info;

    faultline_query(side.faultline, &info);
    sim_trace("end: %s, %s", faultline_status_name(info.status), info.error);
    bool has_met = sim_network_met();
    sim_check(!start->begins || !has_met || is_over(info.status), "stuck: %s",
              faultline_status_name(info.status));
    sim_check(info.status != FAULTLINE_STATUS_FAILED || info.error[0], "failed without a word");
    if (start->begins && side.side == SIM_DESTINATION) {
        sim_check(side.monitor || side.count_resumes <= 1, "the guest is started %u times",
                  side.count_resumes);
        sim_check(info.status != FAULTLINE_STATUS_COMPLETED || sim_guest_whole(),
                  "completed, and pages are missing");
    }
}

static void
finish(void)
{
    sim.over = true;
    sim.side = side.side;
    g_clear_pointer(&side.session, faultline_session_free);
    g_clear_pointer(&side.monitor, faultline_monitor_free);
    g_clear_pointer(&side.faultline, faultline_free);
    peer_leave();
    sim_transport_check_freed();
    sim_uffd_check_freed();
}

void
side_run(const SideStart *start, const uint8_t *bytes, size_t length)
{
    if (length < OPTION_BYTES)
        return;
    side = (Side){.side = start->side};
    uint8_t options = start->opening ? start->options : bytes[0];
    plan(options, bytes[1]);
    memset(&run, 0, sizeof run);
    sim_transport_reset();
    sim_uffd_reset();
    sim_guest_reset();
    guest_reset();
    sim_enter(SIM_PHASE_SETUP);
    peer_reset();
    bound_begin(fuzz_bound_bytes);
    make(start, options, bytes[1] & SIDE_SEED_CHECKSUMS);
    script_begin(start, bytes + OPTION_BYTES, length - OPTION_BYTES);
    play();
    end_wait();
    check(start);
    finish();
    bound_end();
}
