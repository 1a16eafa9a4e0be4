/* SPDX-License-Identifier: MIT */
/*
 * What follows a requested page once it has left: the pusher is told where to go on, and pages that
 * will be asked for next leave on the urgent channel, a few at a time, while nobody waits. Request
 * role; which pages these are, locality.c says.
 *
 * Only towards a faultline: it is whole when all pages are there. A QEMU closes its urgent channel
 * when no page that it asked for is missing, and what is still under way is lost with it.
 */
#include "engine/source/source.h"

#define FRAME_PAGES_MAX 8u   /* neighbours: who asks meanwhile waits for no more than these */
#define LOOKS_MAX       128u /* pages looked at in one step */

static void
queue_window(Source *source, const LocalityWindow *window)
{
    if (source->count_windows == SOURCE_WINDOWS_MAX) {
        source->first_window++;
        source->count_windows--;
    }
    source->windows[(source->first_window + source->count_windows++) % SOURCE_WINDOWS_MAX] =
        *window;
}

static void
set_hint(Source *source, const RamBlock *block, uint64_t page)
{
    uint64_t hint = (uint64_t)block->index << SOURCE_HINT_SHIFT | page;
    __atomic_store_n(&source->cursor_hint, hint, __ATOMIC_RELEASE);
}

/* The pusher goes on behind the window; where a stream comes down, an extent below it. */
static void
hint_behind(Source *source, const RamBlock *block, const LocalityWindow *window)
{
    uint64_t steps = (uint64_t)((int64_t)(window->count - 1) * window->step);
    uint64_t page = (window->page + steps) * block->host_pages;

    if (window->step > 0)
        page += block->host_pages;
    else
        page = page > SOURCE_EXTENT_PAGES ? page - SOURCE_EXTENT_PAGES : 0;
    set_hint(source, block, page);
}

/* most: neighbours under way, in target pages. */
static void
learn(Source *source, const SourceRequest *request, uint64_t most)
{
    const RamBlock *block = &source->blocks->blocks[request->block];
    bool sends = most >= block->host_pages && source->urgent.sender && !source->is_mute &&
                 (source->features & STREAM_FEATURE_COMMIT);
    const LocalityBounds bounds = {
        .count_pages = block->count_pages / block->host_pages,
        .window = sends ? most / block->host_pages : 1,
        .flight = sends ? most / block->host_pages : UINT64_MAX,
    };
    LocalityWindow window;

    switch (locality_note(&source->locality, block->index, request->page / block->host_pages,
                          &bounds, &window)) {
    case LOCALITY_NONE:
        set_hint(source, block, request->page + block->host_pages);
        break;
    case LOCALITY_INSIDE:
        break;
    case LOCALITY_WINDOW:
        hint_behind(source, block, &window);
        if (sends)
            queue_window(source, &window);
        break;
    }
}

void
source_learn_requests(Source *source)
{
    uint64_t most = options_get(&source->faultline->options, PARAMETER_NEIGHBOUR_PAGES);

    for (unsigned i = 0; i < source->count_noted; i++) {
        const SourceRequest *request = &source->noted[i];
        const RamBlock *block = &source->blocks->blocks[request->block];
        if (most)
            learn(source, request, most);
        else
            set_hint(source, block, request->page + block->host_pages);
    }
    source->count_noted = 0;
}

void
source_put_neighbours(Source *source)
{
    unsigned looks = 0;
    uint64_t pages = 0;

    while (source->count_windows && pages < FRAME_PAGES_MAX && looks++ < LOOKS_MAX) {
        LocalityWindow *window = &source->windows[source->first_window % SOURCE_WINDOWS_MAX];
        RamBlock *block = &source->blocks->blocks[window->block];
        uint64_t page = window->page * block->host_pages;
        window->page += (uint64_t)window->step;
        if (!--window->count) {
            source->first_window++;
            source->count_windows--;
        }
        /* A look first: most that are not to be sent cost no exchange of cache lines. */
        if (!page_bitmap_is_set(block->dirty, page) || !source_claim(block, page))
            continue;
        pages += block->host_pages;
        source->neighbour_pages += block->host_pages;
        source_put_claimed(source, block, page);
        if (source->sending)
            break;
    }
}
