/* SPDX-License-Identifier: MIT */
/* See recovery.h. */
#include "tests/bench/recovery.h"
#include "bench/recovery.h"
#include "uffd/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

#define MEMORY_BYTES (16u << 20)

/* Three breaks each; the run fails by itself where a page has other content. */
void
recovery_by_itself_and_by_command_times_every_break(void **state)
{
    g_autoptr(GError) error = NULL;
    FaultlineBlock block;
    Placement placement;
    (void)state;

    Uffd *uffd = uffd_open(&error);
    if (!uffd) {
        print_message("skipped: %s\n", error->message);
        skip();
    }
    uffd_free(uffd);
    RecoveryFigures *figures = bench_shared_memory(sizeof *figures, &error);
    assert_non_null(figures);
    assert_true(placement_parse(&placement, NULL, NULL, NULL, &error));
    assert_true(bench_map(BACKING_PRIVATE, MEMORY_BYTES, &block, &error));
    for (unsigned i = 0; i < 4; i++) {
        const RecoveryPlan plan = {.source_block = &block,
                                   .backing = BACKING_SMALL,
                                   .is_automatic = i & 1,
                                   .preempt = i & 2,
                                   .retry_ms = 5,
                                   .count_breaks = 3,
                                   .limit_s = 60,
                                   .placement = &placement};
        if (!recovery_run(&plan, figures, &error))
            fail_msg("%s", error->message);
        for (unsigned j = 0; j < plan.count_breaks; j++) {
            assert_true(figures->attempt_ms[j] > 0);
            assert_true(figures->page_ms[j] >= figures->attempt_ms[j]);
        }
        for (unsigned j = 0; j < RECOVERY_FLOOR; j++)
            assert_true(figures->floor_us[j] > 0);
    }
    ram_unmap(&block);
    munmap(figures, sizeof *figures);
}
