/* SPDX-License-Identifier: MIT */
/*
 * The zero-page check, step 7 of a page's walk. ORs blocks of 256 bytes, which compilers turn into
 * vector code, and stops at the first block that is not zero. Any thread.
 */
#include "engine/zero_page.h"

#include <stdint.h>

#define BLOCK_WORDS 32u

/* What gcc says by a macro, clang says by a feature. */
#ifdef __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#endif

/* In precopy the guest writes while we read, as it may: what was read half-written is dirty again,
 * and comes again. The thread sanitizer need not tell. */
#ifdef __SANITIZE_THREAD__
__attribute__((no_sanitize_thread, noinline))
#endif

/* A sanitizer's run-time is not up when the resolvers of clones run, so not there. */
#if defined(__x86_64__) && !defined(HAS_SANITIZER)
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
