/* SPDX-License-Identifier: MIT */
/* See orchestrate.h. One thread, and one for each gate. */
#include "tests/pair/orchestrate.h"
#include "tests/pair/orchestra.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#define FORECASTS 3u

const PolicyCase orchestrate_policies[] = {
    {.name = "orchestrate_converging_moves_the_guest"},
    {.name = "orchestrate_converging_to_a_listener_moves_the_guest", .destination_listens = true},
    {.name = "orchestrate_pause_before_switchover_is_continued",
     .options = {"--capability=pause-before-switchover=on"}},
    {.name = "orchestrate_not_converging_after_pass_switches",
     .options = {"--postcopy=after-pass=1", "--downtime=10ms"},
     .writes_much = true,
     .switches = true},
    {.name = "orchestrate_not_converging_timeout_switches",
     .options = {"--postcopy=timeout=300ms", "--downtime=10ms"},
     .writes_much = true,
     .switches = true},
    {.name = "orchestrate_not_converging_stall_switches",
     .options = {"--postcopy=stall", "--downtime=10ms"},
     .writes_much = true,
     .switches = true},
    {.name = "orchestrate_postcopy_at_once_switches",
     .options = {"--postcopy=after-pass=0", "--capability=postcopy-preempt=off"},
     .writes_much = true,
     .switches = true},
};
const unsigned orchestrate_count_policies = G_N_ELEMENTS(orchestrate_policies);

#define SOURCE(name)      "orchestrate_source_gone_in_" name
#define DESTINATION(name) "orchestrate_destination_gone_in_" name
#define CANCEL(name)      "orchestrate_ctrl_c_in_" name

/* clang-format off */
/* X(machine, its name in the test's) */
#define PHASES(machine, suffix) \
    {DESTINATION("begin") suffix, machine, "query-status", true, false, "destination", 1, "source", "begin"}, \
    {DESTINATION("prepare") suffix, machine, "migrate-incoming", true, false, "destination", 1, "source", "prepare"}, \
    {DESTINATION("perform") suffix, machine, "migrate", false, false, "destination", 1, "source", "perform"}, \
    {DESTINATION("finish") suffix, machine, "query-migrate", true, true, "destination", 5, NULL, "finish"}, \
    {DESTINATION("confirm") suffix, machine, "quit", false, false, "destination", 5, NULL, "confirm"}, \
    {SOURCE("begin") suffix, machine, "query-status", false, false, "source", 5, NULL, "begin"}, \
    {SOURCE("prepare") suffix, machine, "migrate-set-parameters", false, false, "source", 5, NULL, "prepare"}, \
    {SOURCE("perform") suffix, machine, "query-migrate", false, true, "source", 5, NULL, "perform"}, \
    {SOURCE("finish") suffix, machine, "query-migrate", true, true, "source", 0, "destination", NULL}, \
    {SOURCE("confirm") suffix, machine, "quit", false, false, "source", 0, "destination", NULL}, \
    {CANCEL("begin") suffix, machine, "query-memory-size-summary", false, false, NULL, 3, "source", "begin"}, \
    {CANCEL("prepare") suffix, machine, "migrate-incoming", true, false, NULL, 3, "source", "prepare"}, \
    {CANCEL("perform") suffix, machine, "migrate", false, false, NULL, 3, "source", "perform"}, \
    {CANCEL("finish_goes_on") suffix, machine, "query-migrate", true, true, NULL, 0, "destination", NULL}, \
    {CANCEL("confirm_goes_on") suffix, machine, "quit", false, false, NULL, 0, "destination", NULL}
/* clang-format on */

const PhaseCase orchestrate_phases[] = {PHASES("threads", ""), PHASES("kvm", "_kvm")};
const unsigned orchestrate_count_phases = G_N_ELEMENTS(orchestrate_phases);

/* ---- Cases ----------------------------------------------------------------------------------- */

void
orchestrate_policy(void **state)
{
    Scene *scene = *state;
    const PolicyCase *c = scene->subject;
    const OrchestraKind kind = {.writes_much = c->writes_much,
                                .incoming = c->destination_listens ? "tcp:127.0.0.1:0" : NULL};
    Orchestra *orchestra = orchestra_new(scene, &kind);

    orchestra_start(orchestra, c->options);
    orchestra_expect_outcome(orchestra, 0, "destination");
    g_autofree char *text = orchestra_said(orchestra);
    if ((strstr(text, "switching to postcopy") != NULL) != c->switches)
        scene_fail(scene, "it %s to postcopy:\n%s", c->switches ? "did not switch" : "switched",
                   text);
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
    vm_quit(orchestra->destination);
    orchestra_free(orchestra);
}

/* Nowhere else. */
static void
require_guest(Orchestra *orchestra, const PhaseCase *c)
{
    bool source_lives = g_strcmp0(c->killed, "source") != 0;
    bool destination_lives = g_strcmp0(c->killed, "destination") != 0;

    if (g_strcmp0(c->guest, "source") == 0 && destination_lives) {
        orchestra_require_moves(orchestra);
        return;
    }
    if (g_strcmp0(c->guest, "source") == 0)
        orchestra_require_runs(orchestra->source);
    else if (c->guest)
        orchestra_require_runs(orchestra->destination);
    if (c->guest && g_str_equal(c->guest, "destination") && source_lives)
        vm_wait_exit(orchestra->source);
    else if (!c->guest && source_lives && g_str_equal(c->phase, "confirm"))
        vm_wait_exit(orchestra->source); /* it had been told so */
    else if (!c->guest && source_lives)
        vm_must_refuse(orchestra->source, "cont", NULL);
    if (!c->guest && destination_lives) {
        g_autofree char *status = vm_status(orchestra->destination);
        if (g_str_equal(status, "completed"))
            scene_fail(orchestra->scene, "the destination completed without its source");
    }
}

void
orchestrate_phase(void **state)
{
    static const char *const options[] = {"--postcopy=after-pass=9", NULL};
    Scene *scene = *state;
    const PhaseCase *c = scene->subject;
    const OrchestraKind kind = {.guest = c->machine};
    Orchestra *orchestra = orchestra_new(scene, &kind);
    Vm *killed = !c->killed                         ? NULL
                 : g_str_equal(c->killed, "source") ? orchestra->source
                                                    : orchestra->destination;
    const GatePlan plan = {.command = c->command,
                           .after = c->after_migrate ? orchestra->gates[0] : NULL,
                           .target = killed ? &killed->pid : &orchestra->pid,
                           .signal = killed ? SIGKILL : SIGINT};

    gate_plan(orchestra->gates[c->at_destination], &plan);
    orchestra_start(orchestra, options);
    g_autofree char *phase = g_strdup_printf("\"text\":\"%s: ", c->phase ? c->phase : "");
    orchestra_expect_end(orchestra, c->exit_code, c->phase ? phase : "\"outcome\":\"completed\"");
    if (!gate_was_hit(orchestra->gates[c->at_destination]))
        scene_fail(scene, "%s never passed the gate", c->command);
    if (killed)
        vm_kill(killed);
    require_guest(orchestra, c);
    orchestra_free(orchestra);
}

void
orchestrate_not_converging_is_cancelled_by_ctrl_c(void **state)
{
    static const char *const options[] = {"--postcopy=never", "--downtime=1ms", NULL};
    Orchestra *orchestra = orchestra_new(*state, &(OrchestraKind){.writes_much = true});

    orchestra_start(orchestra, options);
    vm_wait_number(orchestra->source, "ram.dirty-sync-count", 4);
    kill(orchestra->pid, SIGINT);
    orchestra_expect_outcome(orchestra, 3, "source");
    orchestra_require_moves(orchestra);
    orchestra_free(orchestra);
}

/* In postcopy, and for some seconds. */
static Orchestra *
set_up_postcopy(Scene *scene)
{
    static const char *const options[] = {"--postcopy=after-pass=0", "--postcopy-bandwidth=2M",
                                          NULL};
    Orchestra *orchestra = orchestra_new(scene, &(OrchestraKind){.writes_much = true});

    orchestra_start(orchestra, options);
    vm_wait_status(orchestra->source, "postcopy-active");
    vm_wait_status(orchestra->destination, "postcopy-active");
    return orchestra;
}

void
orchestrate_ctrl_c_in_postcopy_says_why_not_and_goes_on(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);

    kill(orchestra->pid, SIGINT);
    orchestra_wait_for(orchestra, "migrate_pause");
    vm_do(orchestra->source, "migrate-set-parameters", "{\"max-postcopy-bandwidth\": 0}");
    orchestra_expect_outcome(orchestra, 0, "destination");
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
    orchestra_free(orchestra);
}

void
orchestrate_pause_in_postcopy_keeps_both(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);

    vm_do(orchestra->source, "migrate-pause", NULL);
    orchestra_expect_outcome(orchestra, 4, "destination");
    vm_wait_status(orchestra->source, "postcopy-paused");
    vm_wait_status(orchestra->destination, "postcopy-paused");
    vm_must_refuse(orchestra->source, "cont", NULL);
    orchestra_free(orchestra);
}

/* The destination lets nobody in for a while: the source tries, and somebody watches. */
void
orchestrate_break_that_heals_is_followed_to_the_end(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);
    g_autofree char *address = vm_listening_at(orchestra->destination);
    g_autofree char *where = g_strdup_printf("{\"uri\": \"%s\"}", address);

    vm_do(orchestra->destination, "migrate-pause", NULL);
    vm_wait_status(orchestra->source, "postcopy-paused");
    orchestra_wait_for(orchestra, "connects again by itself");
    vm_wait_status(orchestra->destination, "postcopy-paused");
    vm_do(orchestra->destination, "migrate-recover", where);
    vm_do(orchestra->source, "migrate-set-parameters", "{\"max-postcopy-bandwidth\": 0}");
    orchestra_expect_outcome(orchestra, 0, "destination");
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
    orchestra_free(orchestra);
}

void
orchestrate_destination_gone_in_postcopy_says_lost(void **state)
{
    Orchestra *orchestra = set_up_postcopy(*state);

    vm_kill(orchestra->destination);
    orchestra_expect_outcome(orchestra, 5, "none");
    vm_must_refuse(orchestra->source, "cont", NULL);
    orchestra_free(orchestra);
}

void
orchestrate_other_memory_is_refused(void **state)
{
    static const char *const options[] = {NULL};
    Orchestra *orchestra = orchestra_new(*state, &(OrchestraKind){.other_memory = "32M"});

    orchestra_start(orchestra, options);
    orchestra_expect_outcome(orchestra, 1, "source");
    g_autofree char *text = orchestra_said(orchestra);
    assert_non_null(strstr(text, "same memory"));
    orchestra_require_runs(orchestra->source);
    orchestra_free(orchestra);
}

void
orchestrate_other_blocks_are_refused(void **state)
{
    static const char *const options[] = {"--postcopy=after-pass=1", NULL};
    static const struct {
        GatePlan plan; /* what the destination seems to have */
        const char *says;
    } changes[] = {
        {{.from = "\"ram-low\"", .to = "\"ram-xyz\""}, "RAM block 'ram-low'"},
        {{.from = "\"length\":16777216", .to = "\"length\":16777999"},
         "length of RAM block 'ram-low': the source has 16777216 bytes"},
        {{.from = "\"page-size\":4096", .to = "\"page-size\":8192"},
         "page-size of RAM block 'ram-low': the source has 4096 bytes and the destination 8192"},
    };
    Orchestra *orchestra = orchestra_new(*state, &(OrchestraKind){.guest = "threads"});

    for (unsigned i = 0; i < G_N_ELEMENTS(changes); i++) {
        gate_plan(orchestra->gates[1], &changes[i].plan);
        orchestra_start(orchestra, options);
        orchestra_expect_outcome(orchestra, 1, "source");
        g_autofree char *text = orchestra_said(orchestra);
        if (!strstr(text, changes[i].says) || !strstr(text, "nothing had begun"))
            scene_fail(orchestra->scene, "it lacks \"%s\":\n%s", changes[i].says, text);
    }
    gate_plan(orchestra->gates[1], &(GatePlan){.command = NULL});
    orchestra_require_moves(orchestra);
    orchestra_free(orchestra);
}

static char *
settings_of(Vm *vm)
{
    g_autoptr(JsonNode) capabilities = vm_call(vm, "query-migrate-capabilities", NULL);
    g_autoptr(JsonNode) parameters = vm_call(vm, "query-migrate-parameters", NULL);
    g_autofree char *first = json_to_string(capabilities, FALSE);
    g_autofree char *second = json_to_string(parameters, FALSE);

    return g_strconcat(first, second, NULL);
}

void
orchestrate_dry_run_leaves_everything_as_it_was(void **state)
{
    static const char *const options[] = {"--dry-run", "--postcopy=stall", "--downtime=10ms", NULL};
    Orchestra *orchestra = orchestra_new(*state, &(OrchestraKind){.writes_much = true});
    g_autofree char *source = settings_of(orchestra->source);
    g_autofree char *destination = settings_of(orchestra->destination);

    orchestra_start(orchestra, options);
    orchestra_expect_end(orchestra, 0, "\"forecast\":{\"completes\":true,\"postcopy\":true");
    g_autofree char *source_after = settings_of(orchestra->source);
    g_autofree char *destination_after = settings_of(orchestra->destination);
    assert_string_equal(source, source_after);
    assert_string_equal(destination, destination_after);
    orchestra_require_moves(orchestra);
    orchestra_free(orchestra);
}

static int64_t
number_after(Scene *scene, const char *text, const char *words)
{
    const char *at = strstr(text, words);

    if (!at)
        scene_fail(scene, "it lacks \"%s\":\n%s", words, text);
    return g_ascii_strtoll(at + strlen(words), NULL, 10);
}

/* A guest that writes all of its memory in each pass; its passes are counted, not timed. They take
 * a second, so that it does so too where it has to wait for a processor. */
static bool
is_foretold(Scene *scene)
{
    static const char *const dry[] = {"--dry-run", "--postcopy=stall", "--downtime=10ms",
                                      "--bandwidth=16M", NULL};
    Orchestra *orchestra = orchestra_new(scene, &(OrchestraKind){.writes_much = true});

    orchestra_start(orchestra, dry);
    orchestra_expect_end(orchestra, 0, "\"postcopy\":true");
    g_autofree char *forecast = orchestra_said(orchestra);
    int64_t passes = number_after(scene, forecast, "\"passes\":");
    int64_t left = number_after(scene, forecast, "\"remaining-bytes\":");

    orchestra_start(orchestra, dry + 1);
    orchestra_expect_outcome(orchestra, 0, "destination");
    g_autofree char *text = orchestra_said(orchestra);
    int64_t switched_in = number_after(scene, text, "switching to postcopy in pass ");
    /* printed as "N MiB are left", of 16 */
    int64_t left_then = number_after(scene, strstr(text, "switching"), ", ") << 20;
    vm_wait_exit(orchestra->source);
    orchestra_require_runs(orchestra->destination);
    bool is_right = switched_in - 1 == passes && ABS(left_then - left) <= left * 3 / 10;
    if (!is_right)
        print_message("foretold %" G_GINT64_FORMAT " passes and %" G_GINT64_FORMAT " bytes:\n%s\n",
                      passes, left, text);
    vm_kill(orchestra->destination);
    orchestra_free(orchestra);
    return is_right;
}

/* Where others take the processors between the measurement and the migration the two differ; a
 * forecast that is wrong is wrong each time. */
void
orchestrate_dry_run_foretells_a_stall(void **state)
{
    bool is_right = false;

    for (unsigned i = 0; i < FORECASTS && !is_right; i++)
        is_right = is_foretold(*state);
    if (!is_right)
        scene_fail(*state, "%u forecasts were wrong", FORECASTS);
}
