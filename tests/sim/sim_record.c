/* SPDX-License-Identifier: MIT */
/*
 * The records of who owns the guest (engine/owner.h), and processes that die.
 *
 * Each side's last durable words are kept as a disk would. Whenever words or the guest's place
 * change, what anybody would conclude who found both sides' words just then, or one side's, is
 * compared with where the guest is: so every instant is one at which both processes might have
 * died. A write can fail, before or after the disk took it. And one process can die for real: it
 * stands still from then on, its connections break, and the other one goes on alone.
 */
#include "tests/sim/sim_record.h"
#include "engine/context.h"
#include "tests/sim/sim_schedule.h"

typedef struct Words {
    bool kept, has;
    FaultlineOwner owner;
    uint64_t migration;
} Words;

static Words words[SIM_SIDES];
static bool was_running[SIM_SIDES]; /* when it died */

static const FaultlineOwner *
found(SimSide side)
{
    return words[side].has ? &words[side].owner : NULL;
}

static void
check_place(const FaultlineOwner *source, const FaultlineOwner *destination)
{
    FaultlinePlace place = faultline_locate(source, destination);
    bool at_destination = sim_guest_ever_ran(SIM_DESTINATION);
    bool at_source = sim_guest_running(SIM_SOURCE) || was_running[SIM_SOURCE];
    const char *source_text = source ? faultline_owner_name(*source) : "nothing";
    const char *destination_text = destination ? faultline_owner_name(*destination) : "nothing";

    sim_check(place != FAULTLINE_PLACE_CONFLICT, "records: source %s, destination %s", source_text,
              destination_text);
    sim_check(!at_destination || place != FAULTLINE_PLACE_SOURCE,
              "the guest is at the destination, and the records say source %s, destination %s",
              source_text, destination_text);
    sim_check(!at_source || place != FAULTLINE_PLACE_DESTINATION,
              "the guest is at the source, and the records say source %s, destination %s",
              source_text, destination_text);
}

void
sim_record_check(void)
{
    if (sim.over)
        return;
    check_place(found(SIM_SOURCE), found(SIM_DESTINATION));
    check_place(found(SIM_SOURCE), NULL);
    check_place(NULL, found(SIM_DESTINATION));
}

static bool
write_words(void *opaque, const FaultlineOwnership *ownership, GError **error)
{
    SimSide side = (SimSide)GPOINTER_TO_UINT(opaque);
    bool fails = sim_inject(SIM_POINT_RECORD);

    sim_check(sim.side == side && ownership->incoming == (side == SIM_DESTINATION),
              "record: another side's words");
    sim_trace("record: %s%s", faultline_owner_name(ownership->owner), fails ? ", fails" : "");
    if (!fails || sim_chance(30))
        words[side] = (Words){.kept = true,
                              .has = true,
                              .owner = ownership->owner,
                              .migration = ownership->migration};
    sim_record_check();
    if (fails)
        g_set_error(error, G_FILE_ERROR, G_FILE_ERROR_NOSPC, "simulated: the disk is full");
    return !fails;
}

void
sim_record_reset(void)
{
    for (unsigned side = 0; side < SIM_SIDES; side++) {
        words[side] = (Words){.kept = sim.plan.records[side]};
        was_running[side] = false;
        sim.dead[side] = false;
    }
}

bool
sim_record_last_words(SimSide side, FaultlineLastWords *ret_words)
{
    *ret_words = (FaultlineLastWords){.owner = words[side].owner,
                                      .migration = words[side].migration,
                                      .has_ended = sim.dead[side]};
    return words[side].has;
}

void
sim_record_attach(SimSide side, Faultline *faultline)
{
    if (sim.plan.records[side])
        faultline_set_record(faultline, write_words, GUINT_TO_POINTER(side));
}

void
sim_record_check_end(void)
{
    sim_record_check();
    bool completed = context_status(run.sides[SIM_SOURCE]) == FAULTLINE_STATUS_COMPLETED &&
                     context_status(run.sides[SIM_DESTINATION]) == FAULTLINE_STATUS_COMPLETED;
    if (!completed || sim_fault_fired(SIM_POINT_RECORD))
        return;
    /* Each side's word alone is enough, except a source's that nobody answered. */
    if (words[SIM_DESTINATION].kept)
        sim_check(faultline_locate(NULL, found(SIM_DESTINATION)) == FAULTLINE_PLACE_DESTINATION,
                  "completed, and the destination's record does not say so");
    if (words[SIM_SOURCE].kept && (sim.plan.return_path || sim.plan.postcopy))
        sim_check(faultline_locate(found(SIM_SOURCE), NULL) == FAULTLINE_PLACE_DESTINATION,
                  "completed, and the source's record does not say so");
}

bool
sim_process_can_die(SimSide side)
{
    if (sim.dead[!side])
        return false;
    for (unsigned i = 0; run.used[side] && i < run.threads[side].count; i++)
        if (run.threads[side].tasks[i].in_kernel)
            return false;
    return run.used[side];
}

void
sim_process_die(SimSide side)
{
    sim_trace("%s dies", side == SIM_SOURCE ? "source" : "destination");
    sim.dead[side] = true;
    was_running[side] = sim_guest_running(side);
    sim_guest_die(side);
    sim_network_cut(UINT_MAX);
    sim_record_check();
}
