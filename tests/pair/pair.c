/* SPDX-License-Identifier: MIT */
/*
 * Pair tests: a source and a destination process of the program, a real guest, real sockets. The
 * moves stand in one table; each row is a case of its own, named after what is in it.
 *
 *     build/tests/pair/pair [PATTERN]      * and ? in PATTERN
 */
#include "tests/pair/converge.h"
#include "tests/pair/damage.h"
#include "tests/pair/huge.h"
#include "tests/pair/move.h"
#include "tests/pair/orchestrate.h"
#include "tests/pair/progress.h"
#include "tests/pair/heal.h"
#include "tests/pair/owner.h"
#include "tests/pair/resume.h"
#include "tests/pair/trouble.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <cmocka.h>

/* Unless a row says otherwise: 16 MiB memfd, thread guest that writes at full speed, one vCPU, tcp,
 * and the guest itself checks its data at the destination. */
static const MoveCase moves[] = {
    {.when = MOVE_PRECOPY},
    {.when = MOVE_PRECOPY, .stopped = true},
    {.when = MOVE_PRECOPY, .transport = "unix", .cpus = 4},
    {.when = MOVE_PRECOPY, .backing = "private", .stopped = true},
    {.when = MOVE_PRECOPY, .backing = "hugetlb", .stopped = true},
    {.when = MOVE_PRECOPY, .guest = "kvm"},
    {.when = MOVE_PRECOPY, .guest = "kvm", .stopped = true},
    {.when = MOVE_PRECOPY, .guest = "kvm", .dirty = "ring", .cpus = 4},
    {.when = MOVE_PRECOPY, .guest = "kvm", .dirty = "ring", .stopped = true},

    {.when = MOVE_POSTCOPY_AT_ONCE},
    {.when = MOVE_POSTCOPY_AT_ONCE, .preempt = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .stopped = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .transport = "unix", .preempt = true, .cpus = 4},
    {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 4, .blocktime = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .push_mib_per_s = 4, .blocktime = true, .preempt = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .backing = "private"},
    {.when = MOVE_POSTCOPY_AT_ONCE, .backing = "private", .preempt = true, .push_mib_per_s = 4},
    {.when = MOVE_POSTCOPY_AT_ONCE, .backing = "hugetlb"},
    {.when = MOVE_POSTCOPY_AT_ONCE, .backing = "hugetlb", .preempt = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .guest = "kvm"},
    {.when = MOVE_POSTCOPY_AT_ONCE, .guest = "kvm", .preempt = true, .cpus = 4},
    {.when = MOVE_POSTCOPY_AT_ONCE, .guest = "kvm", .push_mib_per_s = 4, .blocktime = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .guest = "kvm", .backing = "private"},
    {.when = MOVE_POSTCOPY_AT_ONCE, .guest = "kvm", .backing = "hugetlb"},

    {.when = MOVE_POSTCOPY_AFTER_ONE},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .preempt = true, .tls = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .stopped = true, .tls = true, .transport = "unix"},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .stopped = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .stopped = true, .preempt = true, .transport = "unix"},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .cpus = 4, .preempt = true, .transport = "unix"},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .release_ram = true, .memory_mib = 64},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .backing = "private", .stopped = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .backing = "private", .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .backing = "private", .release_ram = true, .memory_mib = 64},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .backing = "hugetlb", .stopped = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .backing = "hugetlb", .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .guest = "kvm"},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .guest = "kvm", .stopped = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .guest = "kvm", .cpus = 4, .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .guest = "kvm", .dirty = "ring", .preempt = true},

    {.when = MOVE_POSTCOPY_IN_THIRD},
    {.when = MOVE_POSTCOPY_IN_THIRD, .preempt = true, .transport = "unix"},
    {.when = MOVE_POSTCOPY_IN_THIRD, .stopped = true},
    {.when = MOVE_POSTCOPY_IN_THIRD, .backing = "private"},
    {.when = MOVE_POSTCOPY_IN_THIRD, .guest = "kvm", .preempt = true},
    {.when = MOVE_POSTCOPY_IN_THIRD, .guest = "kvm", .stopped = true},

    {.when = MOVE_PRECOPY, .checksums = true},
    {.when = MOVE_POSTCOPY_AT_ONCE, .backing = "private", .preempt = true, .checksums = true},
    {.when = MOVE_POSTCOPY_IN_THIRD, .backing = "hugetlb", .preempt = true, .checksums = true},
    {.when = MOVE_POSTCOPY_IN_THIRD, .guest = "kvm", .stopped = true, .checksums = true},

    /* More than 3 GiB lie on both sides of the PCI hole. */
    {.when = MOVE_PRECOPY, .memory_mib = 1024, .working_mib = 64},
    {.when = MOVE_POSTCOPY_AT_ONCE, .memory_mib = 1024, .cpus = 4, .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .memory_mib = 1024, .stopped = true, .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .memory_mib = 1024, .guest = "kvm", .preempt = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE, .memory_mib = 5120, .stopped = true},
    {.when = MOVE_POSTCOPY_AFTER_ONE,
     .memory_mib = 5120,
     .guest = "kvm",
     .cpus = 4,
     .stopped = true},
};

static void
run_move(void **state)
{
    Scene *scene = *state;
    move_run(scene, scene->subject);
}

#define TROUBLE(function)                                                                          \
    cmocka_unit_test_prestate_setup_teardown(function, scene_setup, scene_teardown, NULL)

static const struct CMUnitTest trouble[] = {
    TROUBLE(migrate_to_nobody_leaves_guest_running),
    TROUBLE(incoming_garbage_ends_its_connection_alone),
    TROUBLE(cancel_at_random_moments_leaves_guest_running),
    TROUBLE(destination_killed_in_precopy_leaves_guest_running),
    TROUBLE(link_cut_in_precopy_leaves_guest_running),
    TROUBLE(link_cut_in_postcopy_pauses_both),
    TROUBLE(link_cut_in_postcopy_with_preempt_pauses_both),
    TROUBLE(destination_killed_in_postcopy_pauses_source),
    TROUBLE(link_cut_in_postcopy_resumes_at_another_port_threads),
    TROUBLE(link_cut_in_postcopy_resumes_at_another_port_threads_preempt),
    TROUBLE(link_cut_in_postcopy_resumes_at_a_unix_socket_threads_hugetlb),
    TROUBLE(link_cut_in_postcopy_resumes_at_a_unix_socket_kvm),
    TROUBLE(link_cut_in_postcopy_resumes_at_a_unix_socket_kvm_preempt),
    TROUBLE(link_cut_in_postcopy_resumes_at_a_unix_socket_threads_one_gib),
    TROUBLE(link_broken_in_postcopy_heals),
    TROUBLE(link_broken_in_postcopy_with_preempt_heals),
    TROUBLE(link_cut_for_good_heals_by_another_address),
    TROUBLE(link_hanging_in_postcopy_heals),
    TROUBLE(link_hanging_in_postcopy_with_preempt_heals),
    TROUBLE(last_word_that_is_lost_is_said_again),
    TROUBLE(link_broken_again_and_again_heals_among_strangers),
    TROUBLE(pause_by_command_waits_for_a_command),
    TROUBLE(process_killed_at_random_leaves_records_that_agree_precopy),
    TROUBLE(process_killed_at_random_leaves_records_that_agree_postcopy),
    TROUBLE(process_killed_at_random_leaves_records_that_agree_preempt),
    TROUBLE(state_directory_that_vanished_keeps_the_guest_at_the_source),
    TROUBLE(state_directory_that_vanished_at_the_destination_gives_the_guest_back),
    TROUBLE(source_lost_stalls_pauses_or_ends),
    TROUBLE(damaged_pages_of_precopy_are_asked_for_again),
    TROUBLE(damaged_pages_of_postcopy_are_asked_for_again),
    TROUBLE(damage_that_goes_on_in_precopy_leaves_guest_running),
    TROUBLE(damage_that_goes_on_in_postcopy_pauses_both_and_recovers),
    TROUBLE(auto_converge_ends_a_precopy_that_would_not_threads),
    TROUBLE(auto_converge_ends_a_precopy_that_would_not_kvm),
    TROUBLE(cancel_of_a_throttled_guest_lets_it_run_threads),
    TROUBLE(cancel_of_a_throttled_guest_lets_it_run_kvm),
    TROUBLE(ping_pong_twenty_times_threads),
    TROUBLE(ping_pong_twenty_times_kvm),
    TROUBLE(orchestrate_not_converging_is_cancelled_by_ctrl_c),
    TROUBLE(orchestrate_ctrl_c_in_postcopy_says_why_not_and_goes_on),
    TROUBLE(orchestrate_pause_in_postcopy_keeps_both),
    TROUBLE(orchestrate_break_that_heals_is_followed_to_the_end),
    TROUBLE(orchestrate_destination_gone_in_postcopy_says_lost),
    TROUBLE(orchestrate_other_memory_is_refused),
    TROUBLE(orchestrate_other_blocks_are_refused),
    TROUBLE(orchestrate_progress_at_a_terminal_is_one_line),
    TROUBLE(orchestrate_json_is_one_object_a_line),
    TROUBLE(orchestrate_dry_run_leaves_everything_as_it_was),
    TROUBLE(orchestrate_dry_run_foretells_a_stall),
    cmocka_unit_test_prestate_setup_teardown(postcopy_of_huge_pages_ends_on_huge_pages, huge_setup,
                                             huge_teardown, NULL),
};

static struct CMUnitTest
test_of(const char *name, CMUnitTestFunction function, const void *subject)
{
    return (struct CMUnitTest){.name = name,
                               .test_func = function,
                               .setup_func = scene_setup,
                               .teardown_func = scene_teardown,
                               .initial_state = (void *)(uintptr_t)subject};
}

int
main(int argc, char **argv)
{
    g_autoptr(GArray) tests = g_array_new(FALSE, TRUE, sizeof(struct CMUnitTest));
    g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);

    setvbuf(stdout, NULL, _IOLBF, 0); /* a case lasts for seconds: show each as it ends */
    for (unsigned i = 0; i < G_N_ELEMENTS(moves); i++) {
        char *name = move_case_name(&moves[i]);
        struct CMUnitTest test = test_of(name, run_move, &moves[i]);
        g_ptr_array_add(names, name);
        g_array_append_val(tests, test);
    }
    g_array_append_vals(tests, trouble, G_N_ELEMENTS(trouble));
    for (unsigned i = 0; i < orchestrate_count_policies; i++) {
        const PolicyCase *c = &orchestrate_policies[i];
        struct CMUnitTest test = test_of(c->name, orchestrate_policy, c);
        g_array_append_val(tests, test);
    }
    for (unsigned i = 0; i < orchestrate_count_phases; i++) {
        const PhaseCase *c = &orchestrate_phases[i];
        struct CMUnitTest test = test_of(c->name, orchestrate_phase, c);
        g_array_append_val(tests, test);
    }
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return _cmocka_run_group_tests("pair", (const struct CMUnitTest *)tests->data, tests->len, NULL,
                                   NULL) != 0;
}
