/* SPDX-License-Identifier: MIT */
/*
 * The zero-page check, step 7 of a page's walk. ORs blocks of 256 bytes, which compilers turn into
 * vector code, and stops at the first block that is not zero. Any thread.
 */
#include "engine/zero_page.h"

#include <stdint.h>

#define BLOCK_WORDS 32u

/* In precopy the guest writes while we read, as it may: what was read half-written is dirty again,
 * and comes again. The thread sanitizer need not tell. */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize_thread, noinline))
#endif

/* A sanitizer's run-time is not up when the resolvers of clones run, so not there. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("avx2", "default")))
#endif
bool
zero_page_check(const void *bytes, size_t length_bytes)
{
    const uint64_t *word = bytes;
    const uint64_t *end = word + length_bytes / sizeof *word;

    for (; word < end; word += BLOCK_WORDS) {
        uint64_t all = 0;
        for (unsigned i = 0; i < BLOCK_WORDS; i++)
            all |= word[i];
        if (all)
            return false;
    }
    return true;
}
