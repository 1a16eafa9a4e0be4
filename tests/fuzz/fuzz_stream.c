/* SPDX-License-Identifier: MIT */
/*
 * The decoders alone, over a whole migration as a reader of recordings sees it: what a QEMU may
 * send that our engine never asks for (multifd packets, subsections, bitmaps of a recovery) is
 * reached here. An input is pieces behind marks (side.h): m main, u urgent, r return path, f a
 * multifd channel, R: what follows on main is a recovery.
 */
#include "tests/fuzz/fuzz.h"
#include "tests/unit/support/walk.h"

#include <string.h>

#define MARK                                                                                       \
    "\xf5"                                                                                         \
    "fz"
#define MARK_BYTES 3u

/* What walk.c keeps of blocks, a byte a page of WALK_BLOCKS_MAX blocks; the decoders keep nothing.
 */
const size_t fuzz_bound_bytes = 8u << 20;

static void
take_piece(Walk *walk, char letter, const uint8_t *bytes, size_t length)
{
    g_autoptr(GError) error = NULL;

    switch (letter) {
    case 'u':
        walk_urgent(walk, bytes, length, &error);
        break;
    case 'r':
        walk_return(walk, bytes, length, &error);
        break;
    case 'f':
        if (walk->count_multifd < WALK_CHANNELS_MAX)
            walk_add_multifd(walk, bytes, length, &error);
        break;
    case 'R':
        walk->is_resumed = true;
        walk_main(walk, bytes, length, &error);
        break;
    default:
        walk_main(walk, bytes, length, &error);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    const uint8_t *end = bytes + length;
    char letter = 'm';

    if (length == 0)
        return 0;
    bound_begin(fuzz_bound_bytes);
    Walk *walk = walk_new();
    walk->takes_runs = *bytes & 1;
    walk->is_cut = *bytes++ & 2;
    while (bytes < end) {
        const uint8_t *mark = memmem(bytes, (size_t)(end - bytes), MARK, MARK_BYTES);
        const uint8_t *stop = mark ? mark : end;
        if (stop > bytes)
            take_piece(walk, letter, bytes, (size_t)(stop - bytes));
        bytes = mark ? MIN(mark + MARK_BYTES + 1, end) : end;
        if (mark && mark + MARK_BYTES < end)
            letter = (char)mark[MARK_BYTES];
    }
    walk_free(walk);
    bound_end();
    return 0;
}
