/* SPDX-License-Identifier: MIT */
/*
 * The options of `faultline run`: every value is taken exactly or refused with a reason.
 */
#include "kvm/run_options.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

static void
parse_size_of_each_form_is_exact(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {{"0", 0},
                {"4096", 4096},
                {"64K", 65536},
                {"16M", 16u << 20},
                {"5G", 5ull << 30},
                {"2T", 2ull << 40},
                {"18446744073709551615", UINT64_MAX},
                {"17179869183G", 17179869183ull << 30}};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(good); i++) {
        uint64_t bytes = 1;
        assert_true(run_options_parse_size(good[i].text, &bytes, NULL));
        assert_true(bytes == good[i].bytes);
    }
}

static void
parse_size_of_wrong_form_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "K",
                                      "-1",
                                      "+1",
                                      " 1",
                                      "1 ",
                                      "1k",
                                      "1KB",
                                      "1KK",
                                      "1g",
                                      "1.5G",
                                      "0x10",
                                      "1e3",
                                      "G1",
                                      "18446744073709551616",
                                      "17179869184G",
                                      "99999999999T"};
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        uint64_t bytes = 77;
        if (run_options_parse_size(bad[i], &bytes, &error))
            fail_msg("\"%s\" was taken", bad[i]);
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        assert_int_equal(bytes, 77);
    }
}

static void
parse_capability_takes_on_and_off_only(void **state)
{
    static const char *const bad[] = {"", "x", "x=", "=on", "x=1", "x=On ", "x=true", "x=on=off"};
    RunSetting setting;
    (void)state;

    assert_true(run_options_parse_capability("postcopy-ram=on", &setting, NULL));
    assert_string_equal(setting.name, "postcopy-ram");
    assert_int_equal(setting.value, 1);
    g_free(setting.name);
    assert_true(run_options_parse_capability("events=off", &setting, NULL));
    assert_int_equal(setting.value, 0);
    g_free(setting.name);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_false(run_options_parse_capability(bad[i], &setting, NULL));
}

static void
parse_parameter_takes_a_size(void **state)
{
    static const char *const bad[] = {"", "x", "x=", "=1", "x=y", "x=-1"};
    RunSetting setting;
    (void)state;

    assert_true(run_options_parse_parameter("max-bandwidth=100M", &setting, NULL));
    assert_string_equal(setting.name, "max-bandwidth");
    assert_int_equal(setting.value, 100u << 20);
    g_free(setting.name);
    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
        assert_false(run_options_parse_parameter(bad[i], &setting, NULL));
}

/* words: arguments behind "run", cut at blanks. */
static RunOptions *
parse(const char *words, GError **error)
{
    g_autofree char *line = g_strdup_printf("run %s", words);
    g_auto(GStrv) argv = g_strsplit(line, " ", -1);
    g_autofree char **copy = g_memdup2(argv, (g_strv_length(argv) + 1) * sizeof *argv);
    return run_options_parse((int)g_strv_length(argv), copy, error);
}

static void
parse_whole_line_fills_everything(void **state)
{
    g_autoptr(GError) error = NULL;
    RunOptions *options =
        parse("--memory 1G --cpus 4 --guest threads --backing private --dirty ring --qmp unix:/a "
              "--qmp unix:/b --incoming defer --paused --name n --working-set 64M --write-rate 9 "
              "--capability a=on --capability b=off --parameter p=3 --verdict /v --serial file:/s "
              "--metrics tcp:127.0.0.1:9 --log-level debug",
              &error);
    (void)state;

    assert_non_null(options);
    assert_true(options->kind == &machine_threads);
    assert_int_equal(options->machine.memory_bytes, 1u << 30);
    assert_int_equal(options->machine.cpus, 4);
    assert_int_equal(options->machine.memory, MACHINE_MEMORY_PRIVATE);
    assert_true(options->machine.dirty_ring);
    assert_true(options->machine.incoming);
    assert_int_equal(options->machine.write_bytes, 64u << 20);
    assert_int_equal(options->machine.write_rate, 9);
    assert_string_equal(options->machine.serial, "file:/s");
    assert_string_equal(options->qmp[0], "unix:/a");
    assert_string_equal(options->qmp[1], "unix:/b");
    assert_null(options->qmp[2]);
    assert_string_equal(options->incoming, "defer");
    assert_true(options->paused);
    assert_string_equal(options->name, "n");
    assert_string_equal(options->verdict, "/v");
    assert_string_equal(options->metrics, "tcp:127.0.0.1:9");
    assert_int_equal(options->log_level, LOG_DEBUG);
    assert_int_equal(options->count_capabilities, 2);
    assert_string_equal(options->capabilities[1].name, "b");
    assert_int_equal(options->count_parameters, 1);
    run_options_free(options);
}

static void
parse_short_line_has_presets(void **state)
{
    RunOptions *options = parse("--memory 16M", NULL);
    (void)state;

    assert_non_null(options);
    assert_true(options->kind == &machine_kvm);
    assert_int_equal(options->machine.cpus, 1);
    assert_int_equal(options->machine.memory, MACHINE_MEMORY_MEMFD);
    assert_false(options->machine.incoming);
    assert_false(options->machine.dirty_ring);
    assert_string_equal(options->machine.serial, "none");
    assert_null(options->machine.boot);
    assert_null(options->metrics);
    assert_int_equal(options->log_level, LOG_WARNING);
    run_options_free(options);
}

static void
parse_wrong_line_names_the_option(void **state)
{
    static const struct {
        const char *words, *named;
    } bad[] = {
        {"--cpus 1", "--memory"},
        {"--memory 0", "--memory 0"},
        {"--memory 1000", "--memory 1000"},
        {"--memory 1M --backing hugetlb", "2M"},
        {"--memory 1G --cpus 0", "--cpus 0"},
        {"--memory 1G --cpus 257", "--cpus 257"},
        {"--memory 1G --cpus two", "two"},
        {"--memory 1G --guest qemu", "--guest qemu"},
        {"--memory 1G --backing disk", "--backing disk"},
        {"--memory 1G --dirty no", "--dirty no"},
        {"--memory 1G --qmp /a", "--qmp /a"},
        {"--memory 1G --qmp tcp:0.0.0.0:4444", "other hosts reach it there"},
        {"--memory 1G --qmp tcp:[::]:4444", "--insecure"},
        {"--memory 1G --qmp unix:", "--qmp unix:"},
        {"--memory 1G --qmp unix:/a,fast", "no such option"},
        {"--memory 1G --qmp tcp:4444", "--qmp tcp:4444"},
        {"--memory 1G --qmp tcp:::1:4444", "not well formed"},
        {"--memory 1G --qmp tcp:h:", "not well formed"},
        {"--memory 1G --serial com1", "--serial com1"},
        {"--memory 1G --serial file:", "--serial file:"},
        {"--memory 1G --working-set all", "--working-set"},
        {"--memory 1G --write-rate -5", "--write-rate"},
        {"--memory 1G --capability a", "--capability a"},
        {"--memory 1G --parameter a=b", "--parameter a"},
        {"--memory 1G --metrics tcp:10.0.0.1:9", "--metrics tcp:10.0.0.1:9"},
        {"--memory 1G --metrics unix:/a,connect", "--metrics unix:/a,connect"},
        {"--memory 1G --log-level loud", "--log-level loud"},
        {"--memory 1G --nothing", "nothing"},
        {"--memory 1G word", "word"},
    };
    (void)state;

    for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        if (parse(bad[i].words, &error))
            fail_msg("taken: %s", bad[i].words);
        assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT));
        if (!strstr(error->message, bad[i].named))
            fail_msg("\"%s\": it says: %s", bad[i].words, error->message);
    }
}

/* One line of each level, with log level `level`; what was written (g_free). */
static char *
said_at(LogLevel level)
{
    char *text = NULL;
    size_t length;
    FILE *stream = open_memstream(&text, &length);
    FILE *before = stderr;

    stderr = stream;
    log_set_level(level);
    for (unsigned i = 0; i < LOG_LEVEL_COUNT; i++)
        log_say((LogLevel)i, "line %u", i);
    stderr = before;
    log_set_level(LOG_WARNING);
    fclose(stream);
    return text;
}

static void
log_says_its_level_and_those_below(void **state)
{
    (void)state;
    for (unsigned level = 0; level < LOG_LEVEL_COUNT; level++) {
        g_autofree char *text = said_at((LogLevel)level);
        g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
        assert_int_equal(g_strv_length(lines), level + 2); /* an empty one behind the last */
        g_autofree char *last = g_strdup_printf("faultline run: line %u", level);
        assert_string_equal(lines[level], last);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parse_size_of_each_form_is_exact),
        cmocka_unit_test(parse_size_of_wrong_form_is_refused),
        cmocka_unit_test(parse_capability_takes_on_and_off_only),
        cmocka_unit_test(parse_parameter_takes_a_size),
        cmocka_unit_test(parse_whole_line_fills_everything),
        cmocka_unit_test(parse_short_line_has_presets),
        cmocka_unit_test(parse_wrong_line_names_the_option),
        cmocka_unit_test(log_says_its_level_and_those_below),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
