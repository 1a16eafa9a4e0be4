/* SPDX-License-Identifier: MIT */
/* Completion at the monitor's prompt: which words are offered after which. */
#include "kvm/monitor_words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

static const struct {
    const char *before, *text, *words; /* with a comma between two */
} cases[] = {
    {"", "mig", "migrate,migrate_set_capability,migrate_set_parameter"},
    {"", "st", "stop"},
    {"", "x", ""},
    {"", "info", "info"},
    {"info ", "", "migrate,migrate_capabilities"},
    {"  info   ", "migrate_", "migrate_capabilities"},
    {"info migrate ", "", ""},
    {"migrate_set_capability ", "post", "postcopy-ram,postcopy-preempt"},
    {"migrate_set_capability postcopy-ram ", "o", "on,off"},
    {"migrate_set_capability postcopy-ram on ", "", ""},
    {"migrate_set_parameter ", "", "downtime-limit"},
    {"migrate_set_parameter downtime-limit ", "", ""},
    {"help ", "s", "stop"},
    {"help info ", "", "migrate,migrate_capabilities"},
};

static void
complete_offers_the_words_that_may_follow(void **state)
{
    static const char *const switches[] = {"on", "off", NULL};
    MonitorWords *words = monitor_words_new();
    (void)state;
    monitor_words_take_help(words, "info migrate -- status\n"
                                   "info migrate_capabilities -- on or off\n"
                                   "migrate [-d] [-r] URI -- move the guest\n"
                                   "migrate_set_capability CAPABILITY on|off -- switch one\n"
                                   "stop|s -- pause the guest\n"
                                   "help|? [COMMAND] -- this list\n");
    monitor_words_take_names(words, "migrate_set_capability",
                             "postcopy-ram: on\npostcopy-preempt: off\n", switches);
    monitor_words_take_names(words, "migrate_set_parameter", "downtime-limit: 300 ms\n", NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_auto(GStrv) found = monitor_words_complete(words, cases[i].before, cases[i].text);
        g_autofree char *text = g_strjoinv(",", found);
        if (!g_str_equal(text, cases[i].words))
            fail_msg("'%s' '%s': %s, not %s", cases[i].before, cases[i].text, text, cases[i].words);
    }
    monitor_words_free(words);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(complete_offers_the_words_that_may_follow)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
