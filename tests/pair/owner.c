/* SPDX-License-Identifier: MIT */
/*
 * See owner.h. A process is killed at a random moment; the survivor comes to rest and says how it
 * stands; then `faultline status` of both state directories together must say the same, and of each
 * alone must not say the contrary.
 */
#include "tests/pair/owner.h"
#include "tests/pair/move.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define ROUNDS       8
#define RANDOM_US    400000
#define GUEST_CHECKS 512

static char *
make_directory(Scene *scene, const char *kind, unsigned number)
{
    g_autofree char *name = g_strdup_printf("%s-%u", kind, number);
    char *path = g_build_filename(scene->directory, name, NULL);

    if (g_mkdir(path, 0700) != 0)
        scene_fail(scene, "cannot make %s", path);
    return path;
}

/* A member of what `faultline status --json` says of the one guest there; "" if it says nothing. */
static char *
ask(Scene *scene, const char *directory, const char *side, const char *member)
{
    g_autofree char *program = scene_program();
    char *argv[] = {program, "status", "--json", (char *)directory, NULL};
    g_autofree char *text = NULL;

    if (!g_spawn_sync(NULL, argv, NULL, G_SPAWN_STDERR_TO_DEV_NULL, NULL, NULL, &text, NULL, NULL,
                      NULL))
        scene_fail(scene, "cannot run %s", program);
    g_autoptr(JsonNode) node = json_from_string(text, NULL);
    JsonObject *object = node ? json_node_get_object(node) : NULL;
    if (object && side)
        object = json_object_has_member(object, side) ? json_object_get_object_member(object, side)
                                                      : NULL;
    return g_strdup(object ? json_object_get_string_member_with_default(object, member, "") : "");
}

static void
copy_records(const char *from, const char *to)
{
    g_autoptr(GDir) names = g_dir_open(from, 0, NULL);
    const char *name;

    while (names && (name = g_dir_read_name(names))) {
        g_autofree char *source = g_build_filename(from, name, NULL);
        g_autofree char *copy = g_build_filename(to, name, NULL);
        g_autofree char *text = NULL;
        gsize length;
        if (g_str_has_suffix(name, ".json") && g_file_get_contents(source, &text, &length, NULL))
            g_file_set_contents(copy, text, (gssize)length, NULL);
    }
}

/* ---- Killed at random ------------------------------------------------------------------------ */

typedef struct Round {
    Scene *scene;
    char *from, *to, *both; /* directories */
    Vm *source, *destination;
    bool kills_source;
} Round;

static bool
is_at_rest(Vm *vm)
{
    static const char *const final[] = {"completed", "failed", "cancelled", "postcopy-paused",
                                        "setup",     "none",   NULL};
    g_autofree char *status = vm_status(vm);
    return g_strv_contains(final, status);
}

static char *
run_state(Vm *vm)
{
    g_autoptr(JsonNode) answer = vm_call(vm, "query-status", NULL);
    return g_strdup(json_object_get_string_member(json_node_get_object(answer), "status"));
}

/* A destination that failed ends by itself; so it is not asked then. */
static bool
has_failed(Round *round, Vm *vm)
{
    g_autofree char *owner = ask(round->scene, round->to, "destination", "owner");
    return vm == round->destination && g_str_equal(owner, "refused");
}

static const char *
find_truth(Round *round)
{
    Vm *survivor = round->kills_source ? round->destination : round->source;

    for (unsigned i = 0; !has_failed(round, survivor) && !is_at_rest(survivor); i++) {
        if (i > DEADLINE_S * 50)
            scene_fail(round->scene, "%s does not come to rest", survivor->label);
        g_usleep(20000);
    }
    if (round->kills_source && has_failed(round, survivor))
        return "source";
    g_autofree char *state = run_state(survivor);
    if (g_str_equal(state, "running"))
        return round->kills_source ? "destination" : "source";
    if (round->kills_source)
        return "source";
    g_autofree char *owner = ask(round->scene, round->to, "destination", "owner");
    bool never_ran = g_str_equal(owner, "coming") || g_str_equal(owner, "refused");
    return never_ran ? "source" : "destination";
}

static void
must_not_deny(Round *round, const char *directory, const char *truth)
{
    g_autofree char *said = ask(round->scene, directory, NULL, "guest");
    if (!g_str_equal(said, truth) && !g_str_equal(said, "either"))
        scene_fail(round->scene, "the guest is at the %s, and status %s says '%s'", truth,
                   directory, said);
}

/* Words that nobody waits for may still be on their way to the disk. */
static void
must_agree(Round *round, const char *truth)
{
    for (unsigned i = 0; i < DEADLINE_S * 50; i++) {
        copy_records(round->from, round->both);
        copy_records(round->to, round->both);
        must_not_deny(round, round->from, truth);
        must_not_deny(round, round->to, truth);
        must_not_deny(round, round->both, truth);
        g_autofree char *said = ask(round->scene, round->both, NULL, "guest");
        if (g_str_equal(said, truth))
            return;
        g_usleep(20000);
    }
    scene_fail(round->scene, "the guest is at the %s, and the records do not say so", truth);
}

static void
kill_one(Scene *scene, const MoveCase *c, GRand *random, unsigned number)
{
    Round round = {.scene = scene, .kills_source = g_rand_boolean(random)};
    g_autofree char *from = round.from = make_directory(scene, "from", number);
    g_autofree char *to = round.to = make_directory(scene, "to", number);
    g_autofree char *both = make_directory(scene, "both", number);
    round.both = both;
    MoveCase source = *c, destination = *c;

    source.state_dir = from;
    destination.state_dir = to;
    round.source = move_start(scene, &source, NULL);
    vm_wait_checks(round.source, GUEST_CHECKS);
    round.destination = move_start(scene, &destination, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(round.destination);
    g_autofree char *arguments = g_strdup_printf("{\"uri\": \"%s\"}", uri);
    vm_do(round.source, "migrate", arguments);
    if (c->when != MOVE_PRECOPY) {
        g_usleep((gulong)g_rand_int_range(random, 0, RANDOM_US / 4));
        vm_do(round.source, "migrate-start-postcopy", NULL);
    }
    /* Its pass and its switch-over come later. */
    gint32 range_us = c->when == MOVE_PRECOPY ? 3 * RANDOM_US : RANDOM_US;
    g_usleep((gulong)g_rand_int_range(random, 0, range_us));
    vm_kill(round.kills_source ? round.source : round.destination);
    const char *truth = find_truth(&round);
    print_message("%s killed: the guest is at the %s\n", round.kills_source ? "source" : "dest.",
                  truth);
    must_agree(&round, truth);
    Vm *survivor = round.kills_source ? round.destination : round.source;
    if (has_failed(&round, survivor)) {
        vm_wait_exit(survivor);
        return;
    }
    vm_checks(survivor);
    vm_kill(survivor);
}

static void
kill_many(Scene *scene, const MoveCase *c)
{
    guint32 seed = g_getenv("SEED") ? (guint32)atoi(g_getenv("SEED")) : g_random_int();
    g_autoptr(GRand) random = g_rand_new_with_seed(seed);

    print_message("SEED=%u\n", seed);
    for (unsigned i = 0; i < ROUNDS; i++)
        kill_one(scene, c, random, i);
}

void
process_killed_at_random_leaves_records_that_agree_precopy(void **state)
{
    static const MoveCase c = {.when = MOVE_PRECOPY};
    kill_many(*state, &c);
}

void
process_killed_at_random_leaves_records_that_agree_postcopy(void **state)
{
    static const MoveCase c = {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 32};
    kill_many(*state, &c);
}

void
process_killed_at_random_leaves_records_that_agree_preempt(void **state)
{
    static const MoveCase c = {
        .when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 32, .preempt = true};
    kill_many(*state, &c);
}

/* ---- A directory that cannot be written ------------------------------------------------------ */

static void
remove_state(Scene *scene, const char *directory)
{
    g_autoptr(GDir) names = g_dir_open(directory, 0, NULL);
    const char *name;

    while ((name = g_dir_read_name(names))) {
        g_autofree char *file = g_build_filename(directory, name, NULL);
        g_unlink(file);
    }
    if (g_rmdir(directory) != 0)
        scene_fail(scene, "cannot remove %s", directory);
}

static void
vanish(Scene *scene, bool at_source)
{
    MoveCase source = {.when = MOVE_POSTCOPY_AT_ONCE}, destination = source;
    g_autofree char *directory = make_directory(scene, "state", 0);

    *(at_source ? &source : &destination) =
        (MoveCase){.when = MOVE_POSTCOPY_AT_ONCE, .state_dir = directory};
    Vm *from = move_start(scene, &source, NULL);
    vm_wait_checks(from, GUEST_CHECKS);
    Vm *to = move_start(scene, &destination, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(to);
    g_autofree char *arguments = g_strdup_printf("{\"uri\": \"%s\"}", uri);
    vm_do(from, "migrate", arguments);
    remove_state(scene, directory);
    vm_do(from, "migrate-start-postcopy", NULL);
    vm_wait_status(from, "failed");
    vm_wait_run_state(from, "running");
    vm_wait_checks(from, GUEST_CHECKS);
    if (vm_wait_exit(to) == 0)
        scene_fail(scene, "the destination ended well, and never had a guest");
}

void
state_directory_that_vanished_keeps_the_guest_at_the_source(void **state)
{
    vanish(*state, true);
}

void
state_directory_that_vanished_at_the_destination_gives_the_guest_back(void **state)
{
    vanish(*state, false);
}

/* ---- A source that is lost ------------------------------------------------------------------- */

static void
lose_source(Scene *scene, const char *policy, unsigned number)
{
    g_autofree char *directory = make_directory(scene, policy, number);
    const MoveCase from = {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 1};
    MoveCase to = from;

    to.state_dir = directory;
    to.on_source_lost = policy;
    Vm *source = move_start(scene, &from, NULL);
    vm_wait_checks(source, GUEST_CHECKS);
    Vm *destination = move_start(scene, &to, "tcp:127.0.0.1:0");
    g_autofree char *uri = vm_listening_at(destination);
    move_begin(source, &from, uri);
    vm_wait_status(destination, "postcopy-active");
    vm_must_refuse(destination, "x-peer-lost", NULL);
    vm_kill(source);
    vm_wait_status(destination, "postcopy-paused");
    vm_do(destination, "x-peer-lost", NULL);
    if (g_str_equal(policy, "end")) {
        assert_int_equal(vm_wait_exit(destination), 3);
    } else {
        vm_wait_run_state(destination, g_str_equal(policy, "pause") ? "paused" : "running");
        g_autoptr(JsonNode) missing = vm_call(destination, "x-query-missing-pages", NULL);
        assert_true(json_object_get_int_member(json_node_get_object(missing), "pages") > 0);
        assert_non_null(strstr(qmp_events(destination->qmp), "MIGRATION_SOURCE_LOST"));
        vm_checks(destination);
    }
    g_autofree char *list = g_build_filename(directory, "faultline.missing", NULL);
    assert_true(g_file_test(list, G_FILE_TEST_EXISTS));
    g_autofree char *verdict = ask(scene, directory, NULL, "verdict");
    assert_string_equal(verdict, g_str_equal(policy, "end") ? "ended" : "lacking");
    if (destination->pid)
        vm_kill(destination);
}

void
source_lost_stalls_pauses_or_ends(void **state)
{
    static const char *const policies[] = {"stall", "pause", "end"};

    for (unsigned i = 0; i < G_N_ELEMENTS(policies); i++)
        lose_source(*state, policies[i], i);
}
