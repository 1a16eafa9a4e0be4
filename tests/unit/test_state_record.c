/* SPDX-License-Identifier: MIT */
/*
 * Records of who owns a guest: their text and what is refused, the directory they are kept in, and
 * what one or two of them are judged to mean.
 */
#include "kvm/state_dir.h"
#include "kvm/state_file.h"
#include "kvm/state_judge.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <cmocka.h>

typedef struct Scene {
    char *directory;
} Scene;

static int
set_up(void **state)
{
    Scene *scene = g_new0(Scene, 1);
    scene->directory = g_dir_make_tmp("faultline-state-XXXXXX", NULL);
    assert_non_null(scene->directory);
    *state = scene;
    return 0;
}

static int
tear_down(void **state)
{
    Scene *scene = *state;
    g_autoptr(GDir) names = g_dir_open(scene->directory, 0, NULL);
    const char *name;

    while (names && (name = g_dir_read_name(names))) {
        g_autofree char *file = g_build_filename(scene->directory, name, NULL);
        g_unlink(file);
    }
    g_rmdir(scene->directory);
    g_free(scene->directory);
    g_free(scene);
    return 0;
}

static StateRecord *
make_record(bool incoming, FaultlineOwner owner)
{
    StateRecord *record = g_new0(StateRecord, 1);
    record->name = g_strdup("vm/1 \"ä\"");
    record->incoming = incoming;
    record->owner = owner;
    record->status = g_strdup("postcopy-paused");
    record->migration = 0xfedcba9876543210u;
    record->missing_pages = 1234;
    record->address = g_strdup("tcp:[::1]:4444");
    record->host = g_strdup("a");
    record->boot = g_strdup("b");
    record->directory = g_strdup("/c");
    record->pid = 42;
    record->written_us = 1795359941914941;
    record->end = g_strdup("");
    return record;
}

/* ---- Text ------------------------------------------------------------------------------------ */

static void
record_survives_its_text(void **state)
{
    (void)state;
    for (unsigned i = 0; i < FAULTLINE_OWNER_COUNT; i++) {
        g_autoptr(StateRecord) record = make_record(i % 2, (FaultlineOwner)i);
        g_autofree char *text = state_record_format(record);
        g_autoptr(GError) error = NULL;
        g_autoptr(StateRecord) again = state_record_parse(text, &error);
        if (!again)
            fail_msg("%s", error->message);
        g_autofree char *same = state_record_format(again);
        assert_string_equal(text, same);
        assert_int_equal(again->owner, i);
        assert_int_equal(again->incoming, i % 2);
        assert_true(again->migration == record->migration);
        assert_true(again->written_us == record->written_us);
    }
}

static void
expect_refused(const char *text, const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(StateRecord) record = state_record_parse(text, &error);

    assert_null(record);
    if (!strstr(error->message, words))
        fail_msg("\"%s\" lacks \"%s\"", error->message, words);
}

static void
record_cut_at_any_byte_is_refused(void **state)
{
    g_autoptr(StateRecord) record = make_record(true, FAULTLINE_OWNER_HERE);
    g_autofree char *text = state_record_format(record);
    size_t whole = strlen(text) - 2; /* brace and newline */
    (void)state;

    for (size_t length = 0; length <= whole; length++) {
        g_autofree char *cut = g_strndup(text, length);
        g_autoptr(GError) error = NULL;
        g_autoptr(StateRecord) found = state_record_parse(cut, &error);
        if (found)
            fail_msg("a record of %zu bytes of %zu was taken", length, whole);
        assert_non_null(error);
    }
}

/* Replaces what stands behind a member's colon up to the end of its line. */
static char *
with(const char *text, const char *member, const char *value)
{
    g_autofree char *pattern = g_strdup_printf("\"%s\" : [^\n]*", member);
    g_autofree char *replacement = g_strdup_printf("\"%s\" : %s", member, value);
    g_autoptr(GRegex) regex = g_regex_new(pattern, 0, 0, NULL);
    char *changed = g_regex_replace_literal(regex, text, -1, 0, replacement, 0, NULL);
    assert_string_not_equal(changed, text);
    return changed;
}

static void
record_with_a_wrong_member_is_refused(void **state)
{
    static const struct {
        const char *member, *value, *words;
    } rows[] = {
        {"faultline-record", "2,", "later faultline (version 2, this program knows 1)"},
        {"faultline-record", "0,", "never was a version 0"},
        {"faultline-record", "-1,", "\"faultline-record\" is missing or no count"},
        {"faultline-record", "\"1\",", "\"faultline-record\" is missing or no count"},
        {"name", "7,", "\"name\" is missing or no text"},
        {"side", "\"left\",", "no side \"left\""},
        {"owner", "\"mine\",", "no owner \"mine\""},
        {"owner", "null,", "\"owner\" is missing or no text"},
        {"migration", "\"12\",", "\"12\" is no number of a migration"},
        {"migration", "\"zzzzzzzzzzzzzzzz\",", "no number of a migration"},
        {"missing-pages", "-1,", "\"missing-pages\" is missing or no count"},
        {"missing-pages", "1.5,", "\"missing-pages\" is missing or no count"},
        {"pid", "[],", "\"pid\" is missing or no count"},
        {"end", "{}", "\"end\" is missing or no text"},
    };
    g_autoptr(StateRecord) record = make_record(false, FAULTLINE_OWNER_GIVEN);
    g_autofree char *text = state_record_format(record);
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        g_autofree char *changed = with(text, rows[i].member, rows[i].value);
        expect_refused(changed, rows[i].words);
    }
    expect_refused("", "lacks");
    expect_refused("[]", "no record of faultline's");
    expect_refused("{\"qemu\": 1}", "no record of faultline's");
    expect_refused("\x7f"
                   "ELF",
                   "broken or cut short");
}

/* ---- The directory --------------------------------------------------------------------------- */

static StateFile *
only_file(GPtrArray *files)
{
    assert_int_equal(files->len, 1);
    return g_ptr_array_index(files, 0);
}

static void
directory_keeps_what_was_written_last(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;
    StateDir *dir = state_dir_open(scene->directory, "../vm", false, &error);
    FaultlineOwnership words = {.owner = FAULTLINE_OWNER_GIVEN,
                                .status = "postcopy-device",
                                .migration = 7,
                                .missing_pages = 9,
                                .address = "unix:/x",
                                .may_refuse = true};

    if (!dir)
        fail_msg("%s", error->message);
    assert_true(state_dir_write(dir, &words, &error));
    g_autoptr(GPtrArray) files = state_dir_read(scene->directory, &error);
    StateFile *file = only_file(files);
    assert_string_equal(file->record->name, "../vm");
    assert_int_equal(file->record->owner, FAULTLINE_OWNER_GIVEN);
    assert_int_equal(file->record->missing_pages, 9);
    assert_int_equal(file->life, STATE_LIFE_RUNS);
    state_dir_end(dir, "quit");
    state_dir_free(dir);
    g_autoptr(GPtrArray) after = state_dir_read(scene->directory, &error);
    assert_int_equal(only_file(after)->life, STATE_LIFE_ENDED);
    assert_int_equal(only_file(after)->record->owner, FAULTLINE_OWNER_GIVEN);
}

static void
directory_without_its_process_says_gone(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;
    StateDir *dir = state_dir_open(scene->directory, "vm", true, &error);

    assert_non_null(dir);
    state_dir_free(dir);
    g_autoptr(GPtrArray) files = state_dir_read(scene->directory, &error);
    assert_int_equal(only_file(files)->life, STATE_LIFE_GONE);
}

static void
side_that_is_taken_is_refused(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;
    StateDir *dir = state_dir_open(scene->directory, "vm", false, &error);

    assert_non_null(dir);
    assert_null(state_dir_open(scene->directory, "vm", false, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
    assert_non_null(strstr(error->message, "another process"));
    g_clear_error(&error);
    StateDir *other = state_dir_open(scene->directory, "vm2", false, &error);
    assert_non_null(other);
    state_dir_free(other);
    state_dir_free(dir);
}

/* A disk without room: files cannot grow. */
static void
write_that_fails_leaves_the_old_words(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;
    StateDir *dir = state_dir_open(scene->directory, "vm", false, &error);
    FaultlineOwnership words = {
        .owner = FAULTLINE_OWNER_GIVING, .status = "active", .may_refuse = true};
    struct rlimit before, none = {0, 0};

    assert_non_null(dir);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    none.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &none);
    bool written = state_dir_write(dir, &words, &error);
    setrlimit(RLIMIT_FSIZE, &before);
    assert_false(written);
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST));
    assert_non_null(strstr(error->message, "vm.source.json"));
    g_autoptr(GPtrArray) files = state_dir_read(scene->directory, NULL);
    assert_int_equal(only_file(files)->record->owner, FAULTLINE_OWNER_HERE);
    state_dir_free(dir);
}

static void
directory_that_vanished_fails_the_write(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;
    g_autofree char *below = g_build_filename(scene->directory, "below", NULL);
    FaultlineOwnership words = {
        .owner = FAULTLINE_OWNER_TAKING, .incoming = true, .status = "active", .may_refuse = true};

    assert_int_equal(g_mkdir(below, 0700), 0);
    StateDir *dir = state_dir_open(below, "vm", true, &error);
    assert_non_null(dir);
    g_autofree char *record = g_build_filename(below, "vm.destination.json", NULL);
    g_autofree char *lock = g_build_filename(below, "vm.destination.lock", NULL);
    g_unlink(record);
    g_unlink(lock);
    assert_int_equal(g_rmdir(below), 0);
    /* One of that name which comes later is another one. */
    assert_int_equal(g_mkdir(below, 0700), 0);
    assert_false(state_dir_write(dir, &words, &error));
    assert_non_null(strstr(error->message, "No such file"));
    state_dir_free(dir);
    g_rmdir(below);
}

static void
put_file(const Scene *scene, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(scene->directory, name, NULL);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void
foreign_files_are_told_by_name(void **state)
{
    Scene *scene = *state;
    g_autoptr(StateRecord) record = make_record(false, FAULTLINE_OWNER_HERE);
    g_autofree char *text = state_record_format(record);
    g_autoptr(GError) error = NULL;

    put_file(scene, "vm.source.json", text); /* another guest's */
    put_file(scene, "b.destination.json", "{}");
    put_file(scene, "notes.json", "of no interest");
    put_file(scene, ".c.source.json.new", "left by a crash");
    g_autofree char *pipe = g_build_filename(scene->directory, "p.source.json", NULL);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    g_autoptr(GPtrArray) files = state_dir_read(scene->directory, &error);
    assert_int_equal(files->len, 3);
    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        assert_null(file->record);
        if (!strstr(file->error->message, file->path))
            fail_msg("\"%s\" does not name %s", file->error->message, file->path);
    }
    assert_null(state_dir_read("/nonexistent/faultline", &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST));
}

static void
broken_record_of_the_guest_keeps_it_from_starting(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;

    put_file(scene, "vm.destination.json", "{\"faultline-record\" : 9}");
    assert_null(state_dir_open(scene->directory, "vm", false, &error));
    assert_non_null(strstr(error->message, "later faultline"));
    g_clear_error(&error);
    StateDir *other = state_dir_open(scene->directory, "other", false, &error);
    assert_non_null(other);
    state_dir_free(other);
}

/* ---- The judgement --------------------------------------------------------------------------- */

#define NONE FAULTLINE_OWNER_COUNT

static void
locate_by_both_or_one(void **state)
{
    static const struct {
        FaultlineOwner source, destination;
        FaultlinePlace place;
    } rows[] = {
        {FAULTLINE_OWNER_HERE, NONE, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_GIVING, NONE, FAULTLINE_PLACE_EITHER},
        {FAULTLINE_OWNER_GIVEN, NONE, FAULTLINE_PLACE_EITHER},
        {FAULTLINE_OWNER_THERE, NONE, FAULTLINE_PLACE_DESTINATION},
        {NONE, FAULTLINE_OWNER_COMING, FAULTLINE_PLACE_SOURCE},
        {NONE, FAULTLINE_OWNER_TAKING, FAULTLINE_PLACE_EITHER},
        {NONE, FAULTLINE_OWNER_HERE, FAULTLINE_PLACE_DESTINATION},
        {NONE, FAULTLINE_OWNER_REFUSED, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_HERE, FAULTLINE_OWNER_TAKING, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_HERE, FAULTLINE_OWNER_REFUSED, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_HERE, FAULTLINE_OWNER_HERE, FAULTLINE_PLACE_CONFLICT},
        {FAULTLINE_OWNER_GIVING, FAULTLINE_OWNER_COMING, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_GIVING, FAULTLINE_OWNER_TAKING, FAULTLINE_PLACE_EITHER},
        {FAULTLINE_OWNER_GIVING, FAULTLINE_OWNER_HERE, FAULTLINE_PLACE_DESTINATION},
        {FAULTLINE_OWNER_GIVEN, FAULTLINE_OWNER_COMING, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_GIVEN, FAULTLINE_OWNER_TAKING, FAULTLINE_PLACE_DESTINATION},
        {FAULTLINE_OWNER_GIVEN, FAULTLINE_OWNER_REFUSED, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_THERE, FAULTLINE_OWNER_TAKING, FAULTLINE_PLACE_DESTINATION},
        {FAULTLINE_OWNER_THERE, FAULTLINE_OWNER_REFUSED, FAULTLINE_PLACE_SOURCE},
        {FAULTLINE_OWNER_THERE, FAULTLINE_OWNER_COMING, FAULTLINE_PLACE_CONFLICT},
        {NONE, NONE, FAULTLINE_PLACE_EITHER},
    };
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        FaultlinePlace place =
            faultline_locate(rows[i].source == NONE ? NULL : &rows[i].source,
                             rows[i].destination == NONE ? NULL : &rows[i].destination);
        if (place != rows[i].place)
            fail_msg("source %s, destination %s: %d", faultline_owner_name(rows[i].source),
                     faultline_owner_name(rows[i].destination), place);
    }
}

static void
judge_reads_records_of_two_migrations_apart(void **state)
{
    g_autoptr(StateRecord) source = make_record(false, FAULTLINE_OWNER_THERE);
    g_autoptr(StateRecord) destination = make_record(true, FAULTLINE_OWNER_HERE);
    StateFile from = {.record = source, .life = STATE_LIFE_ENDED};
    StateFile to = {.record = destination, .life = STATE_LIFE_RUNS};
    (void)state;

    destination->missing_pages = 0;
    assert_int_equal(state_judge(&from, &to).verdict, STATE_VERDICT_FINE);
    /* It came back later, and is the source's no more than the former destination's. */
    source->migration = 1;
    source->owner = FAULTLINE_OWNER_HERE;
    source->written_us = destination->written_us + 1;
    StateJudgement judgement = state_judge(&from, &to);
    assert_int_equal(judgement.place, FAULTLINE_PLACE_SOURCE);
    assert_ptr_equal(judgement.former, &to);
    destination->written_us += 2;
    judgement = state_judge(&from, &to);
    assert_int_equal(judgement.place, FAULTLINE_PLACE_DESTINATION);
    assert_ptr_equal(judgement.former, &from);
}

static void
judge_tells_a_pause_from_a_loss(void **state)
{
    g_autoptr(StateRecord) source = make_record(false, FAULTLINE_OWNER_THERE);
    g_autoptr(StateRecord) destination = make_record(true, FAULTLINE_OWNER_HERE);
    StateFile from = {.record = source, .life = STATE_LIFE_RUNS};
    StateFile to = {.record = destination, .life = STATE_LIFE_RUNS};
    (void)state;

    assert_int_equal(state_judge(&from, &to).verdict, STATE_VERDICT_WAITS);
    from.life = STATE_LIFE_GONE;
    StateJudgement judgement = state_judge(&from, &to);
    assert_int_equal(judgement.verdict, STATE_VERDICT_LACKING);
    assert_int_equal(judgement.missing_pages, 1234);
    to.life = STATE_LIFE_GONE;
    assert_int_equal(state_judge(&from, &to).verdict, STATE_VERDICT_ENDED);
    source->owner = FAULTLINE_OWNER_HERE;
    assert_int_equal(state_judge(&from, &to).verdict, STATE_VERDICT_CONFLICT);
    source->owner = FAULTLINE_OWNER_GIVEN;
    assert_int_equal(state_judge(&from, NULL).verdict, STATE_VERDICT_UNCLEAR);
}

static void
guest_given_away_does_not_start_here_again(void **state)
{
    Scene *scene = *state;
    g_autoptr(GError) error = NULL;
    StateDir *dir = state_dir_open(scene->directory, "vm", false, &error);
    FaultlineOwnership words = {.owner = FAULTLINE_OWNER_GIVING, .status = "active"};

    assert_non_null(dir);
    assert_true(state_dir_write(dir, &words, &error));
    state_dir_free(dir);
    assert_null(state_dir_open(scene->directory, "vm", false, &error));
    assert_non_null(strstr(error->message, "is, or may be, at the other side"));
    g_clear_error(&error);
    /* It may come back. */
    dir = state_dir_open(scene->directory, "vm", true, &error);
    assert_non_null(dir);
    words = (FaultlineOwnership){
        .owner = FAULTLINE_OWNER_HERE, .incoming = true, .migration = 5, .status = "completed"};
    assert_true(state_dir_write(dir, &words, &error));
    state_dir_free(dir);
    /* Its process died: here it is started again, and not received. */
    assert_null(state_dir_open(scene->directory, "vm", true, &error));
    assert_non_null(strstr(error->message, "is this side's"));
    g_clear_error(&error);
    dir = state_dir_open(scene->directory, "vm", false, &error);
    if (!dir)
        fail_msg("%s", error->message);
    state_dir_free(dir);
}

int
main(void)
{
#define WITH_SCENE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(record_survives_its_text),
        cmocka_unit_test(record_cut_at_any_byte_is_refused),
        cmocka_unit_test(record_with_a_wrong_member_is_refused),
        WITH_SCENE(directory_keeps_what_was_written_last),
        WITH_SCENE(directory_without_its_process_says_gone),
        WITH_SCENE(side_that_is_taken_is_refused),
        WITH_SCENE(write_that_fails_leaves_the_old_words),
        WITH_SCENE(directory_that_vanished_fails_the_write),
        WITH_SCENE(foreign_files_are_told_by_name),
        WITH_SCENE(broken_record_of_the_guest_keeps_it_from_starting),
        cmocka_unit_test(locate_by_both_or_one),
        cmocka_unit_test(judge_reads_records_of_two_migrations_apart),
        cmocka_unit_test(judge_tells_a_pause_from_a_loss),
        WITH_SCENE(guest_given_away_does_not_start_here_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
