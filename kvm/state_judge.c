/* SPDX-License-Identifier: MIT */
/*
 * The judgement: which records belong together, faultline_locate() for the place, and tables of
 * sentences for the rest.
 */
#include "kvm/state_judge.h"
#include "kvm/state_file.h"

#include <string.h>

static const struct {
    const char *name;
    int exit_code;
} verdicts[] = {
#define VERDICT_ROW(name, code, text) {text, code},
    STATE_VERDICT_LIST(VERDICT_ROW)
#undef VERDICT_ROW
};
G_STATIC_ASSERT(G_N_ELEMENTS(verdicts) == STATE_VERDICT_COUNT);

const char *
state_verdict_name(StateVerdict verdict)
{
    return verdicts[verdict].name;
}

int
state_verdict_exit_code(StateVerdict verdict)
{
    return verdicts[verdict].exit_code;
}

const char *
state_place_name(FaultlinePlace place)
{
    static const char *const names[] = {
        [FAULTLINE_PLACE_SOURCE] = "at the source",
        [FAULTLINE_PLACE_DESTINATION] = "at the destination",
        [FAULTLINE_PLACE_EITHER] = "at either side",
        [FAULTLINE_PLACE_CONFLICT] = "claimed by both sides",
    };
    return names[place];
}

/* By what each owner is known. */
static const char *const evidence_of[FAULTLINE_OWNER_COUNT] = {
    [FAULTLINE_OWNER_HERE] = "the source's record says that it owns the guest",
    [FAULTLINE_OWNER_GIVING] = "the source was about to give it away; the destination's record "
                               "would tell whether it took it",
    [FAULTLINE_OWNER_GIVEN] = "the source had sent all that the destination needs to run it; the "
                              "destination's record would tell whether it took it",
    [FAULTLINE_OWNER_THERE] = "the destination had told the source that it has loaded it",
    [FAULTLINE_OWNER_COMING] = "the destination's record says that it has not run there",
    [FAULTLINE_OWNER_TAKING] = "the destination was about to run it; the source's record would "
                               "tell whether it took it back",
    [FAULTLINE_OWNER_REFUSED] = "the destination's record says that it never ran there",
};

/* ---- Which records, and where it is ---------------------------------------------------------- */

static bool
are_of_one_migration(const StateRecord *source, const StateRecord *destination)
{
    return destination->migration == 0 || source->migration == destination->migration;
}

static FaultlinePlace
locate(const StateJudgement *judgement)
{
    const StateFile *source = judgement->source, *destination = judgement->destination;
    return faultline_locate(source ? &source->record->owner : NULL,
                            destination ? &destination->record->owner : NULL);
}

static void
find_evidence(StateJudgement *judgement)
{
    const StateFile *source = judgement->source, *destination = judgement->destination;

    if (judgement->place == FAULTLINE_PLACE_CONFLICT)
        judgement->evidence = "both records say that the guest is theirs";
    else if (source && destination && judgement->place == FAULTLINE_PLACE_EITHER)
        judgement->evidence = "the source was about to give it away, and the destination to run it";
    else if (source && destination && source->record->owner == FAULTLINE_OWNER_GIVEN &&
             destination->record->owner == FAULTLINE_OWNER_TAKING)
        judgement->evidence = "all had left the source, and all had come to the destination";
    else if (destination && destination->record->owner == FAULTLINE_OWNER_HERE)
        judgement->evidence = "the destination's record says that it owns the guest";
    else if (source && (source->record->owner == FAULTLINE_OWNER_HERE ||
                        source->record->owner == FAULTLINE_OWNER_THERE || !destination))
        judgement->evidence = evidence_of[source->record->owner];
    else
        judgement->evidence = evidence_of[destination->record->owner];
}

/* ---- What can be done ------------------------------------------------------------------------ */

static void
settle(StateJudgement *judgement, StateVerdict verdict, const char *remedy)
{
    judgement->verdict = verdict;
    judgement->remedy = remedy;
}

static bool
lives(const StateFile *file)
{
    return file && file->life == STATE_LIFE_RUNS;
}

static bool
is_over(const StateFile *file)
{
    return file && (file->life == STATE_LIFE_GONE || file->life == STATE_LIFE_ENDED);
}

static void
settle_source(StateJudgement *judgement)
{
    const StateFile *source = judgement->source;

    if (!source)
        settle(judgement, STATE_VERDICT_WAITS,
               "Look at the source: it has the guest, or had it when it ended. This side may be "
               "told to receive it again.");
    else if (source->life == STATE_LIFE_UNKNOWN)
        settle(judgement, STATE_VERDICT_WAITS,
               "Run faultline status at the source's host, which knows whether it lives.");
    else if (source->life == STATE_LIFE_ENDED)
        settle(judgement, STATE_VERDICT_FINE, "");
    else if (source->life == STATE_LIFE_GONE)
        settle(judgement, STATE_VERDICT_ENDED,
               "It died with the source's process. Start it again at the source, from its disk.");
    else if (source->record->owner == FAULTLINE_OWNER_GIVEN)
        settle(judgement, STATE_VERDICT_WAITS,
               "It stands at the source, stopped and whole: the source does not know that the "
               "destination never ran it. Say x-take-back with this directory there (typed: "
               "take_back), and it goes on.");
    else
        settle(judgement, STATE_VERDICT_FINE, "");
}

static void
settle_lacking(StateJudgement *judgement)
{
    const StateFile *source = judgement->source;

    if (is_over(source) || (!source && judgement->destination->has_list))
        settle(judgement, STATE_VERDICT_LACKING,
               "The source's process, which alone had the missing pages, is gone: whatever touches "
               "one waits for ever. What is there can be saved by the guest itself; then end it, "
               "and start it again at the destination, from its disk.");
    else if (g_str_equal(judgement->destination->record->status,
                         faultline_status_name(FAULTLINE_STATUS_POSTCOPY_PAUSED)))
        settle(judgement, STATE_VERDICT_WAITS,
               "It waits where it touches a missing page, which the source keeps. Keep both "
               "processes, and connect them again.");
    else
        settle(judgement, STATE_VERDICT_FINE, "");
}

static void
settle_destination(StateJudgement *judgement)
{
    const StateFile *destination = judgement->destination;

    if (!destination)
        settle(
            judgement, STATE_VERDICT_WAITS,
            lives(judgement->source)
                ? "Look at the destination. Do not start it at the source, and keep the source's "
                  "process until the destination has completed."
                : "Look at the destination. Do not start it at the source.");
    else if (destination->life == STATE_LIFE_UNKNOWN)
        settle(judgement, STATE_VERDICT_WAITS,
               "Run faultline status at the destination's host, which knows whether it lives.");
    else if (destination->life == STATE_LIFE_ENDED && !judgement->missing_pages)
        settle(judgement, STATE_VERDICT_FINE, "");
    else if (destination->life == STATE_LIFE_ENDED)
        settle(judgement, STATE_VERDICT_ENDED,
               "It was ended before all of it had come. Start it again at the destination, from "
               "its disk.");
    else if (destination->life == STATE_LIFE_GONE)
        settle(judgement, STATE_VERDICT_ENDED,
               "It died with the destination's process. Start it again from its disk; what a "
               "source still keeps is older than that.");
    else if (judgement->missing_pages)
        settle_lacking(judgement);
    else
        settle(judgement, STATE_VERDICT_FINE, "");
}

static void
settle_all(StateJudgement *judgement)
{
    switch (judgement->place) {
    case FAULTLINE_PLACE_SOURCE:
        settle_source(judgement);
        break;
    case FAULTLINE_PLACE_DESTINATION:
        settle_destination(judgement);
        break;
    case FAULTLINE_PLACE_EITHER:
        settle(judgement, STATE_VERDICT_UNCLEAR,
               "Do not start it anywhere before the other side's record was read too: give "
               "faultline status a directory that has both.");
        break;
    default:
        settle(judgement, STATE_VERDICT_CONFLICT,
               "Do not start it anywhere. Find out which process runs it, and keep both records "
               "for a report of this defect.");
    }
}

StateJudgement
state_judge(const StateFile *source, const StateFile *destination)
{
    StateJudgement judgement = {.source = source, .destination = destination};

    if (source && destination && !are_of_one_migration(source->record, destination->record)) {
        bool is_source = source->record->written_us >= destination->record->written_us;
        judgement.former = is_source ? destination : source;
        judgement.source = is_source ? source : NULL;
        judgement.destination = is_source ? NULL : destination;
    }
    judgement.place = locate(&judgement);
    find_evidence(&judgement);
    if (judgement.place == FAULTLINE_PLACE_DESTINATION) {
        const StateFile *tells = judgement.destination ? judgement.destination : judgement.source;
        judgement.knows_missing = true;
        judgement.missing_pages = tells->record->missing_pages;
    }
    settle_all(&judgement);
    return judgement;
}

/* ---- Before a machine starts ----------------------------------------------------------------- */

static char *
refuse_start(const StateFile *file, const char *what)
{
    return g_strdup_printf("state directory: %s says that the guest '%s' %s; look with faultline "
                           "status, and remove that file if you know better",
                           file->path, file->record->name, what);
}

static bool
is_of(const StateFile *file, const char *stem)
{
    g_autofree char *base = g_path_get_basename(file->path);
    const char *rest = g_str_has_prefix(base, stem) ? base + strlen(stem) : "";
    return g_str_equal(rest, ".source.json") || g_str_equal(rest, ".destination.json");
}

char *
state_judge_start(GPtrArray *files, const char *name, bool incoming)
{
    const StateFile *sides[2] = {NULL, NULL};
    g_autofree char *stem = state_file_stem(name);

    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        if (file->record && g_str_equal(file->record->name, name))
            sides[file->record->incoming] = file;
        else if (!file->record && is_of(file, stem))
            return g_strdup_printf("%s; look at it, and remove it if you know where the guest is",
                                   file->error->message);
    }
    if (!sides[0] && !sides[1])
        return NULL;
    StateJudgement judgement = state_judge(sides[0], sides[1]);
    const StateFile *tells = judgement.destination ? judgement.destination : judgement.source;
    FaultlineOwner owner = tells->record->owner;
    if (incoming) {
        bool had_it = owner == FAULTLINE_OWNER_HERE || owner == FAULTLINE_OWNER_TAKING;
        return tells->record->incoming && had_it && tells->life != STATE_LIFE_ENDED
                   ? refuse_start(tells, "came here and is this side's")
                   : NULL;
    }
    bool is_away = judgement.place == FAULTLINE_PLACE_SOURCE        ? !judgement.source
                   : judgement.place == FAULTLINE_PLACE_DESTINATION ? !judgement.destination
                                                                    : true;
    return is_away ? refuse_start(tells, "is, or may be, at the other side") : NULL;
}
