/* SPDX-License-Identifier: MIT */
/*
 * Access patterns. Reproducible: the same seed gives the same touches on every machine.
 */
#include "bench/pattern.h"
#include "engine/faultline.h"

#include <math.h>
#include <string.h>

#define ZIPF_EXPONENT 0.99

#define PATTERN_NAME(name, text) text,
const char *const pattern_names[PATTERN_COUNT] = {PATTERN_LIST(PATTERN_NAME)};

static uint64_t
next_random(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static uint32_t *
permutation(uint64_t count, uint64_t seed)
{
    uint32_t *pages = g_new(uint32_t, count);
    uint64_t state = seed | 1;

    for (uint64_t i = 0; i < count; i++)
        pages[i] = (uint32_t)i;
    for (uint64_t i = count; i > 1; i--) {
        uint64_t other = next_random(&state) % i;
        uint32_t page = pages[i - 1];
        pages[i - 1] = pages[other];
        pages[other] = page;
    }
    return pages;
}

/* Threads take turns, so that together they go once over a random permutation. */
static void
add_random(GArray *touches, const Pattern *pattern, unsigned thread, unsigned count_threads,
           uint64_t count)
{
    g_autofree uint32_t *pages = permutation(pattern->count_pages, pattern->seed);
    for (uint64_t i = thread; touches->len < count && i < pattern->count_pages; i += count_threads)
        g_array_append_val(touches, pages[i]);
}

/* Each thread goes over its own part: upwards, downwards, or by strides, coming back for what a
 * stride left out. */
static void
add_regular(GArray *touches, const Pattern *pattern, unsigned thread, unsigned count_threads,
            uint64_t count)
{
    uint64_t share = pattern->count_pages / count_threads, first = thread * share;
    uint64_t stride = pattern->kind == PATTERN_STRIDE ? MAX(pattern->stride, 1) : 1;

    for (uint64_t offset = 0; offset < stride; offset++) {
        for (uint64_t i = offset; i < share && touches->len < count; i += stride) {
            uint32_t page =
                (uint32_t)(first + (pattern->kind == PATTERN_REVERSE ? share - 1 - i : i));
            g_array_append_val(touches, page);
        }
    }
}

/* Rank r is drawn in proportion to r^-0.99; the ranks are scattered over the memory. Inversion of
 * the continuous distribution, which is all that a hot set needs. */
static void
add_zipf(GArray *touches, const Pattern *pattern, unsigned thread, uint64_t count)
{
    g_autofree uint32_t *pages = permutation(pattern->count_pages, pattern->seed);
    uint64_t state = (pattern->seed + thread) * 0x9e3779b97f4a7c15u | 1;
    double power = 1.0 - ZIPF_EXPONENT;
    double span = pow((double)pattern->count_pages + 1.0, power) - 1.0;

    while (touches->len < count) {
        double uniform = (double)(next_random(&state) >> 11) * 0x1p-53;
        uint64_t rank = (uint64_t)(pow(1.0 + uniform * span, 1.0 / power)) - 1;
        uint32_t page = pages[MIN(rank, pattern->count_pages - 1)];
        g_array_append_val(touches, page);
    }
}

static bool
add_trace(GArray *touches, const Pattern *pattern, unsigned thread, unsigned count_threads,
          uint64_t count, GError **error)
{
    g_autofree char *text = NULL;
    unsigned turn = 0;

    if (!g_file_get_contents(pattern->trace, &text, NULL, error)) {
        g_prefix_error(error, "read trace: ");
        return false;
    }
    g_auto(GStrv) lines = g_strsplit(text, "\n", -1);
    for (unsigned i = 0; lines[i] && touches->len < count; i++) {
        const char *line = g_strstrip(lines[i]);
        char *end;
        if (!*line || *line == '#')
            continue;
        uint32_t page = (uint32_t)(g_ascii_strtoull(line, &end, 0) % pattern->count_pages);
        if (*end) {
            g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                        "read trace %s: line %u, '%s', is no page number", pattern->trace, i + 1,
                        line);
            return false;
        }
        if (turn++ % count_threads == thread)
            g_array_append_val(touches, page);
    }
    return true;
}

GArray *
pattern_make(const Pattern *pattern, unsigned thread, unsigned count_threads,
             uint64_t count_touches, GError **error)
{
    g_autoptr(GArray) touches = g_array_new(FALSE, FALSE, sizeof(uint32_t));
    uint64_t count = count_touches / count_threads;

    switch (pattern->kind) {
    case PATTERN_RANDOM:
        add_random(touches, pattern, thread, count_threads, count);
        break;
    case PATTERN_ZIPF:
        add_zipf(touches, pattern, thread, count);
        break;
    case PATTERN_TRACE:
        if (!add_trace(touches, pattern, thread, count_threads, count, error))
            return NULL;
        break;
    default:
        add_regular(touches, pattern, thread, count_threads, count);
        break;
    }
    return g_steal_pointer(&touches);
}
