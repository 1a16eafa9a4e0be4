/* SPDX-License-Identifier: MIT */
/*
 * The guest beside the fuzzed side: at the destination one that takes whatever device state comes,
 * and whose loading may touch memory; at the source tests/sim's.
 */
#include "tests/fuzz/side.h"
#include "tests/sim/sim_guest.h"
#include "tests/sim/sim_memory.h"

#include <string.h>

#define STATE_LIMIT_BYTES 65536u /* README.md's bound counts with it */

static bool waits[SIM_BLOCKS_MAX][SIM_PAGES_MAX];

void
guest_reset(void)
{
    memset(waits, 0, sizeof waits);
}

static bool
is_there(unsigned block, unsigned page)
{
    uint8_t flags = host.pages[SIM_DESTINATION][block][page];
    return !(flags & REGISTERED) || (flags & VISIBLE);
}

/* One that sleeps does not ask twice; false: it sleeps. */
static bool
touch(unsigned block, unsigned page, uint32_t thread)
{
    uint8_t *bytes;
    if (waits[block][page] && !is_there(block, page))
        return false;
    waits[block][page] = sim_uffd_touch(block, page, thread, page & 1, &bytes) == SIM_TOUCH_WAIT;
    return !waits[block][page];
}

void
guest_touch(unsigned block, unsigned page)
{
    block %= sim.plan.count_blocks;
    page %= sim.plan.blocks[block].count_pages;
    if (side.side == SIM_SOURCE) {
        guest.dirty[block] |= UINT64_C(1) << page;
        sim_tracker_written(sim_source_memory(block) + page * (size_t)SIM_PAGE);
    } else if (side.count_resumes)
        touch(block, page, 200);
}

/* ---- Callbacks of the destination's -----------------------------------------------------------
 */

static bool
do_nothing(void *opaque G_GNUC_UNUSED, GError **error G_GNUC_UNUSED)
{
    return true;
}

static bool
guest_resume(void *opaque G_GNUC_UNUSED, GError **error G_GNUC_UNUSED)
{
    side.count_resumes++;
    guest.ever_ran[SIM_DESTINATION] = true;
    return true;
}

static bool
sync_nothing(void *opaque G_GNUC_UNUSED, unsigned block G_GNUC_UNUSED,
             uint64_t *words G_GNUC_UNUSED, uint64_t count_pages G_GNUC_UNUSED,
             GError **error G_GNUC_UNUSED)
{
    return true;
}

static void
stop_nothing(void *opaque G_GNUC_UNUSED)
{
}

static bool
save_little(void *opaque G_GNUC_UNUSED, FaultlineState *state, GError **error G_GNUC_UNUSED)
{
    faultline_state_add(state, "sim/vcpu", 0, 1, "state", 5);
    return true;
}

static bool
loader_goes_on(void *opaque)
{
    const uint8_t *at = opaque;
    return is_there(at[0], at[1]);
}

/* State that begins with 't' touches the page that follows; with 'e', it is refused. */
static bool
load_any(void *opaque G_GNUC_UNUSED, const char *name, uint32_t instance G_GNUC_UNUSED,
         uint32_t version G_GNUC_UNUSED, const void *bytes, size_t length, GError **error)
{
    const uint8_t *at = bytes;
    sim_check(name[0] && length <= STATE_LIMIT_BYTES, "load_state: '%s', %zu bytes", name, length);
    if (length >= 1 && at[0] == 'e') {
        g_set_error(error, g_quark_from_static_string("fuzz-guest"), 0, "refused");
        return false;
    }
    if (length < 3 || at[0] != 't')
        return true;
    uint8_t where[2] = {at[1] % sim.plan.count_blocks, 0};
    where[1] = (uint8_t)(at[2] % sim.plan.blocks[where[0]].count_pages);
    if (touch(where[0], where[1], 300))
        return true;
    side.nested++;
    bool goes_on = sim_sleep_until(loader_goes_on, where);
    side.nested--;
    if (!goes_on)
        g_set_error(error, g_quark_from_static_string("fuzz-guest"), 0, "the end");
    return goes_on;
}

static pid_t
vcpu_thread(void *opaque G_GNUC_UNUSED, unsigned index)
{
    return index == 0 ? 200 : 0;
}

const FaultlineGuest *
guest_callbacks(void)
{
    static const FaultlineGuest callbacks = {
        .version = FAULTLINE_GUEST_VERSION,
        .machine = "sim-1.0",
        .state_limit_bytes = STATE_LIMIT_BYTES,
        .pause = do_nothing,
        .resume = guest_resume,
        .dirty_log_start = do_nothing,
        .dirty_log_sync = sync_nothing,
        .dirty_log_stop = stop_nothing,
        .save_state = save_little,
        .load_state = load_any,
        .vcpu_thread = vcpu_thread,
    };
    return &callbacks;
}
