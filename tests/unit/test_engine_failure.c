/* SPDX-License-Identifier: MIT */
/*
 * Migrations that fail: callbacks that refuse at each point, sides that do not match, cancelling.
 * After each the guest is at exactly one side, whole, the error says what failed and where the
 * guest is, and stop and cont work there and nowhere else.
 */
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

static const ToyKind memfd = {.name = "memfd", .pages = 2048, .count_vcpus = 2};
static const ToyKind slow = {
    .name = "slow memfd", .pages = 8192, .count_vcpus = 2, .rest_us = 50000};
static const ToyKind anonymous = {
    .name = "private", .memory = TOY_PRIVATE, .pages = 2048, .count_vcpus = 2};

static void
expect_text(const char *name, const char *text, const char *says)
{
    if (!strstr(text, says))
        fail_msg("%s: '%s' is not in '%s'", name, says, text);
}

/* ---- Callbacks that refuse ---------------------------------------------------------------------
 */

typedef struct Refusal {
    const char *name;
    bool at_source;
    ToyCall call;
    unsigned count; /* the how manieth call */
    const char *says;
} Refusal;

static const Refusal refusals[] = {
    {"start of the log", true, TOY_LOG_START, 1, "start dirty log: toy: refuses to log"},
    {"first sync", true, TOY_LOG_SYNC, 1, "sync dirty log of block 'toy-low': toy: refuses"},
    {"sync of the second block", true, TOY_LOG_SYNC, 2, "block 'toy-high': toy: refuses to sync"},
    {"pause", true, TOY_PAUSE, 1, "pause guest: toy: refuses to pause"},
    {"save", true, TOY_SAVE, 1, "save device state: toy: refuses to save"},
    {"first load", false, TOY_LOAD, 1, "the destination ended the migration"},
    {"last load", false, TOY_LOAD, 2, "the destination ended the migration"},
};

static void
refuse(const ToyKind *kind, const char *capabilities, bool ran, const Refusal *refusal)
{
    ToyMove move;
    bool in_postcopy = strstr(capabilities, "postcopy-ram") != NULL;

    /* A guest that stands is not paused, and a postcopy at once has one sync, under the switch. */
    if (refusal->call == TOY_PAUSE && !ran)
        return;
    print_message("%s, %s, %s, guest %s\n", kind->name, capabilities, refusal->name,
                  ran ? "runs" : "stands");
    toy_move_begin(&move, kind, TOY_UNIX);
    toy_move_set(&move, capabilities);
    if (ran) {
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_expect_progress(move.from);
    } else {
        assert_true(faultline_cont(move.from->faultline, NULL));
        assert_true(faultline_stop(move.from->faultline, NULL));
        move.from->calls[TOY_PAUSE] = 0;
    }
    Toy *fails = refusal->at_source ? move.from : move.to;
    fails->fail_at[refusal->call] = refusal->count;
    toy_move_start(&move);
    if (in_postcopy)
        assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
    expect_text(refusal->name, toy_error(move.from), refusal->says);
    expect_text(refusal->name, toy_error(move.from), "migrate to unix:");
    expect_text(refusal->name, toy_error(move.from),
                ran ? "goes on at the source, whole" : "at the source, whole");
    expect_text(refusal->name, toy_error(move.to), "The guest never ran here");
    if (!refusal->at_source) {
        expect_text(refusal->name, toy_error(move.to), "load device 'toy/vcpu'");
        expect_text(refusal->name, toy_error(move.to), "toy: refuses to load");
    }
    toy_move_expect_kept(&move, ran);
    toy_move_end(&move);
}

static void
callback_that_refuses_in_precopy_leaves_the_guest_at_the_source(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        refuse(&memfd, "return-path", true, &refusals[i]);
        refuse(&anonymous, "return-path", false, &refusals[i]);
    }
}

static void
callback_that_refuses_in_postcopy_leaves_the_guest_at_the_source(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        refuse(&memfd, "postcopy-ram", true, &refusals[i]);
        refuse(&anonymous, "postcopy-ram postcopy-preempt", true, &refusals[i]);
        refuse(&memfd, "postcopy-ram release-ram", false, &refusals[i]);
    }
}

/* The last step of all fails: resume at the destination. */
static void
refuse_resume(const ToyKind *kind, const char *capabilities)
{
    ToyMove move;

    print_message("%s, %s\n", kind->name, capabilities);
    toy_move_begin(&move, kind, TOY_UNIX);
    toy_move_set(&move, capabilities);
    assert_true(faultline_cont(move.from->faultline, NULL));
    move.to->fail_at[TOY_RESUME] = 1;
    toy_move_start(&move);
    if (strstr(capabilities, "postcopy-ram"))
        assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
    expect_text("resume", toy_error(move.to), "resume guest: toy: refuses to resume");
    expect_text("resume", toy_error(move.to), "The guest never ran here");
    expect_text("resume", toy_error(move.from), "goes on at the source, whole");
    toy_move_expect_kept(&move, true);
    toy_move_end(&move);
}

static void
resume_that_refuses_at_the_destination_gives_the_guest_back(void **state)
{
    (void)state;
    refuse_resume(&memfd, "return-path");
    refuse_resume(&memfd, "postcopy-ram");
    refuse_resume(&anonymous, "postcopy-ram postcopy-preempt");
}

/* The migration failed, and then even resuming the guest where it was. */
static void
resume_that_refuses_at_the_source_leaves_it_paused_until_cont(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    assert_true(faultline_cont(move.from->faultline, NULL));
    move.from->fail_at[TOY_SAVE] = 1;
    move.from->fail_at[TOY_RESUME] = 2;
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
    expect_text("resume", toy_error(move.from), "save device state: toy: refuses to save");
    toy_move_expect_kept(&move, false);
    toy_move_end(&move);
}

static void
cont_that_the_vmm_refuses_says_so(void **state)
{
    Toy *toy = toy_new(&memfd);
    g_autoptr(GError) error = NULL;
    (void)state;

    toy->fail_at[TOY_RESUME] = 1;
    assert_false(faultline_cont(toy->faultline, &error));
    expect_text("cont", error->message, "resume guest: toy: refuses to resume");
    assert_int_equal(faultline_run_state(toy->faultline), FAULTLINE_RUN_PRELAUNCH);
    assert_true(faultline_cont(toy->faultline, NULL));
    g_clear_error(&error);
    toy->fail_at[TOY_PAUSE] = 1;
    assert_false(faultline_stop(toy->faultline, &error));
    expect_text("stop", error->message, "pause guest: toy: refuses to pause");
    assert_int_equal(faultline_run_state(toy->faultline), FAULTLINE_RUN_RUNNING);
    toy_free(toy);
}

static void
migration_after_a_failed_one_succeeds(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
        ToyMove move;
        toy_move_begin(&move, &memfd, TOY_UNIX);
        toy_move_set(&move, "postcopy-ram");
        assert_true(faultline_cont(move.from->faultline, NULL));
        Toy *fails = refusals[i].at_source ? move.from : move.to;
        fails->fail_at[refusals[i].call] = refusals[i].count;
        toy_move_start(&move);
        toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
        toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
        /* The same two Faultlines again. */
        toy_move_start(&move);
        assert_true(faultline_start_postcopy(move.from->faultline, NULL));
        toy_move_expect_moved(&move);
        assert_string_equal(toy_error(move.from), "");
        toy_move_end(&move);
    }
}

/* ---- Sides that do not match -------------------------------------------------------------------
 */

typedef struct Mismatch {
    const char *name;
    ToyKind from, to;
    bool from_postcopy, to_postcopy;
    const char *says; /* at the destination */
} Mismatch;

static const Mismatch mismatches[] = {
    {"machine",
     {.name = "one", .pages = 512, .count_vcpus = 1, .machine = "toy-1.0"},
     {.name = "other", .pages = 512, .count_vcpus = 1, .machine = "toy-2.0"},
     false,
     false,
     "machine type received is 'toy-1.0' and local is 'toy-2.0'"},
    {"smaller memory",
     {.name = "one", .pages = 1024, .count_vcpus = 1},
     {.name = "other", .pages = 512, .count_vcpus = 1},
     false,
     false,
     "more memory than there is here"},
    {"larger memory",
     {.name = "one", .pages = 512, .count_vcpus = 1},
     {.name = "other", .pages = 1024, .count_vcpus = 1},
     false,
     false,
     "size mismatch: toy-low: 0xc0000 != 0x180000"},
    {"postcopy-ram here only",
     {.name = "one", .pages = 512, .count_vcpus = 1},
     {.name = "other", .pages = 512, .count_vcpus = 1},
     true,
     false,
     "capability 'postcopy-ram' is on at the source and off at the destination"},
    {"one vCPU more",
     {.name = "one", .pages = 512, .count_vcpus = 2},
     {.name = "other", .pages = 512, .count_vcpus = 1},
     false,
     false,
     "toy: no device 'toy/vcpu' 1"},
};

static void
mismatch_is_refused_by_the_destination(void **state)
{
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(mismatches); i++) {
        const Mismatch *mismatch = &mismatches[i];
        ToyMove move = {.from = toy_new(&mismatch->from), .to = toy_new(&mismatch->to)};
        print_message("%s\n", mismatch->name);
        toy_fill(move.from);
        toy_link_open(&move.link, TOY_UNIX);
        faultline_set_capability(move.from->faultline, "postcopy-ram", mismatch->from_postcopy,
                                 NULL);
        faultline_set_capability(move.to->faultline, "postcopy-ram", mismatch->to_postcopy, NULL);
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_move_start(&move);
        toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
        toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
        expect_text(mismatch->name, toy_error(move.to), mismatch->says);
        expect_text(mismatch->name, toy_error(move.from), "goes on at the source, whole");
        toy_move_expect_kept(&move, true);
        toy_move_end(&move);
    }
}

/* A source without postcopy-ram says nothing of it: its precopy is taken. */
static void
destination_with_postcopy_ram_alone_takes_precopy(void **state)
{
    ToyMove move;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_UNIX);
    assert_true(faultline_set_capability(move.to->faultline, "postcopy-ram", true, NULL));
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

/* Both sides must agree on preempt; if they do not, the guest must not end up nowhere. */
static void
preempt_on_one_side_only(bool at_source)
{
    ToyMove move;

    print_message("preempt %s only\n", at_source ? "at the source" : "at the destination");
    toy_move_begin(&move, &memfd, TOY_UNIX);
    toy_move_set(&move, "postcopy-ram");
    Toy *has = at_source ? move.from : move.to;
    assert_true(faultline_set_capability(has->faultline, "postcopy-preempt", true, NULL));
    assert_true(
        faultline_set_parameter(move.from->faultline, "max-postcopy-bandwidth", 8 << 20, NULL));
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
    toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
    expect_text("preempt", toy_error(move.from), "goes on at the source, whole");
    const char *says = at_source
                           ? "'postcopy-preempt' is on at the source and off at the destination"
                           : "'postcopy-preempt' is off at the source and on at the destination";
    expect_text("preempt", toy_error(move.from), says);
    expect_text("preempt", toy_error(move.to), says);
    expect_text("preempt", toy_error(move.to), "set it to the same on both sides");
    expect_text("preempt", toy_error(move.to), "look for it at the source");
    assert_int_equal(toy_allocated_bytes(move.to), 0); /* no page was taken */
    toy_move_expect_kept(&move, true);
    toy_move_end(&move);
}

static void
preempt_on_one_side_only_leaves_the_guest_at_one_side(void **state)
{
    (void)state;
    preempt_on_one_side_only(true);
    preempt_on_one_side_only(false);
}

static void
preempt_over_one_connection_is_refused_at_once(void **state)
{
    ToyMove move;
    g_autoptr(GError) error = NULL;
    (void)state;

    toy_move_begin(&move, &memfd, TOY_FD);
    toy_move_set(&move, "postcopy-ram postcopy-preempt");
    assert_false(faultline_migrate(move.from->faultline, move.link.outgoing, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
    expect_text("fd", error->message, "'postcopy-preempt' needs two");
    /* The descriptor is still the caller's. */
    assert_true(faultline_set_capability(move.from->faultline, "postcopy-preempt", false, NULL));
    assert_true(faultline_set_capability(move.to->faultline, "postcopy-preempt", false, NULL));
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

/* ---- No destination ----------------------------------------------------------------------------
 */

static void
connection_refused_leaves_the_guest_at_the_source(void **state)
{
    static const char *const uris[] = {"unix:/nonexistent/link", "tcp:127.0.0.1:1"};
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(uris); i++) {
        ToyMove move;
        toy_move_begin(&move, &memfd, TOY_UNIX);
        assert_true(faultline_cont(move.from->faultline, NULL));
        assert_true(faultline_migrate(move.from->faultline, uris[i], NULL));
        toy_expect_end(move.from, FAULTLINE_STATUS_FAILED);
        expect_text(uris[i], toy_error(move.from), "connect: ");
        expect_text(uris[i], toy_error(move.from), "goes on at the source, whole");
        toy_move_expect_kept(&move, true);
        assert_int_equal(move.from->calls[TOY_LOG_START], 0);
        toy_move_end(&move);
    }
}

/* ---- Cancel ------------------------------------------------------------------------------------
 */

static void
cancel_in_precopy_keeps_the_guest_running(void **state)
{
    (void)state;
    for (unsigned limit = 0; limit < 2; limit++) {
        ToyMove move;
        toy_move_begin(&move, limit ? &memfd : &anonymous, TOY_UNIX);
        assert_true(faultline_set_parameter(move.from->faultline, "max-bandwidth", 64 << 10, NULL));
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_move_start(&move);
        if (limit)
            faultline_wait(move.from->faultline, 200);
        assert_true(faultline_cancel(move.from->faultline, NULL));
        toy_expect_end(move.from, FAULTLINE_STATUS_CANCELLED);
        if (limit) {
            toy_expect_end(move.to, FAULTLINE_STATUS_FAILED);
            expect_text("cancel", toy_error(move.to), "The guest never ran here");
        } else {
            toy_renew(move.to); /* which perhaps met nobody, and waits on */
        }
        assert_true(faultline_cancel(move.from->faultline, NULL));
        assert_int_equal(move.from->calls[TOY_PAUSE], 0);
        toy_move_expect_kept(&move, true);

        /* And the next one goes through. */
        assert_true(faultline_set_parameter(move.from->faultline, "max-bandwidth", 0, NULL));
        assert_true(faultline_cont(move.from->faultline, NULL));
        toy_move_start(&move);
        toy_move_expect_moved(&move);
        toy_move_end(&move);
    }
}

static void
cancel_in_postcopy_is_refused(void **state)
{
    ToyMove move;
    g_autoptr(GError) error = NULL;
    (void)state;

    toy_move_begin(&move, &slow, TOY_UNIX);
    toy_move_set(&move, "postcopy-ram");
    assert_true(
        faultline_set_parameter(move.from->faultline, "max-postcopy-bandwidth", 1 << 20, NULL));
    assert_true(faultline_cont(move.from->faultline, NULL));
    toy_move_start(&move);
    assert_true(faultline_start_postcopy(move.from->faultline, NULL));
    FaultlineInfo info = {0};
    for (unsigned i = 0; i < TOY_TIMEOUT_MS && info.status != FAULTLINE_STATUS_POSTCOPY_ACTIVE;
         i++) {
        faultline_wait(move.from->faultline, 1);
        faultline_query(move.from->faultline, &info);
    }
    assert_int_equal(info.status, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_false(faultline_cancel(move.from->faultline, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
    expect_text("cancel", error->message, "the guest runs at the destination");
    assert_true(faultline_set_parameter(move.from->faultline, "max-postcopy-bandwidth", 0, NULL));
    toy_move_expect_moved(&move);
    toy_move_end(&move);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(callback_that_refuses_in_precopy_leaves_the_guest_at_the_source),
        cmocka_unit_test(callback_that_refuses_in_postcopy_leaves_the_guest_at_the_source),
        cmocka_unit_test(resume_that_refuses_at_the_destination_gives_the_guest_back),
        cmocka_unit_test(resume_that_refuses_at_the_source_leaves_it_paused_until_cont),
        cmocka_unit_test(cont_that_the_vmm_refuses_says_so),
        cmocka_unit_test(migration_after_a_failed_one_succeeds),
        cmocka_unit_test(mismatch_is_refused_by_the_destination),
        cmocka_unit_test(destination_with_postcopy_ram_alone_takes_precopy),
        cmocka_unit_test(preempt_on_one_side_only_leaves_the_guest_at_one_side),
        cmocka_unit_test(preempt_over_one_connection_is_refused_at_once),
        cmocka_unit_test(connection_refused_leaves_the_guest_at_the_source),
        cmocka_unit_test(cancel_in_precopy_keeps_the_guest_running),
        cmocka_unit_test(cancel_in_postcopy_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
