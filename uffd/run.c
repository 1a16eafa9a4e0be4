/* SPDX-License-Identifier: MIT */
/*
 * Gathering pages that come in ascending order, so that up to 64 of them are placed by one call.
 * Each placing thread has its own run. What becomes of the bytes meanwhile, and how the run is
 * placed, is the way's.
 */
#include "uffd/memory.h"

#include "uffd/abi.h"

struct UffdRun {
    UffdMemory *memory; /* NULL: empty */
    uint64_t offset;
    uint64_t length;
    uint64_t zeros; /* bit i: page i came as zeros */
    uint8_t *stage; /* RUN_PAGES pages: stays in the processor's second-level cache */
};

UffdRun *
uffd_run_new(void)
{
    UffdRun *run = g_new0(UffdRun, 1);

    run->stage = g_malloc(RUN_PAGES * TARGET_PAGE_BYTES);
    return run;
}

void
uffd_run_free(UffdRun *run)
{
    if (run != NULL) {
        g_free(run->stage);
        g_free(run);
    }
}

UffdMemory *
uffd_run_memory(const UffdRun *run)
{
    return run->memory;
}

UffdResult
uffd_run_flush(UffdRun *run, uint64_t *ret_offset, uint64_t *ret_length)
{
    UffdMemory *memory = run->memory;

    *ret_offset = 0;
    *ret_length = 0;
    if (memory == NULL) {
        return UFFD_PLACED;
    }
    UffdResult result =
        memory->way->place_run(memory, run->offset, run->length, run->stage, run->zeros);

    if (result == UFFD_PLACED || result == UFFD_ALREADY) {
        *ret_offset = run->offset;
        *ret_length = run->length;
    }
    run->memory = NULL;
    return result;
}

static bool
continues(const UffdRun *run, const UffdMemory *memory, uint64_t offset)
{
    return run->memory == memory && run->offset + run->length == offset &&
           run->length < RUN_PAGES * TARGET_PAGE_BYTES;
}

UffdResult
uffd_run_add(UffdRun *run, UffdMemory *memory, uint64_t offset, const void *bytes,
             uint64_t *ret_offset, uint64_t *ret_length)
{
    UffdResult result = UFFD_PLACED;

    g_assert(memory->layout.page_bytes == TARGET_PAGE_BYTES);
    *ret_offset = 0;
    *ret_length = 0;
    if (!continues(run, memory, offset)) {
        result = uffd_run_flush(run, ret_offset, ret_length);
        if (result == UFFD_GONE || result == UFFD_FAILED) {
            return result;
        }
        run->memory = memory;
        run->offset = offset;
        run->length = 0;
        run->zeros = 0;
    }
    memory->way->gather(memory, offset, bytes, run->stage + run->length);
    run->zeros |= (uint64_t)(bytes == NULL) << (run->length / TARGET_PAGE_BYTES);
    run->length += TARGET_PAGE_BYTES;
    return result;
}
