/* SPDX-License-Identifier: MIT */
/*
 * Recognising streams. Block and page are one number, a place, so that a distance is a subtraction
 * and pages of different blocks are too far apart to have to do with each other.
 */
#include "engine/source/locality.h"

#define BLOCK_SHIFT 48u
#define PAGE_MASK   ((UINT64_C(1) << BLOCK_SHIFT) - 1)
#define STRIDE_MAX  64u  /* steps that may be equal by chance are rarer the shorter they are */
#define NEAR_MAX    8u   /* steps that need not be equal; steps that a stream may leave out */
#define IDLE_MAX    256u /* requests of others: a stream begins anew, or gives its place away */
#define FLIGHT_MAX  32u  /* requests after which the last window is there */

static uint64_t
magnitude(int64_t distance)
{
    return distance < 0 ? -(uint64_t)distance : (uint64_t)distance;
}

void
locality_init(Locality *locality)
{
    *locality = (Locality){0};
}

/* ---- Windows --------------------------------------------------------------------------------- */

/* Steps from page on that stay inside the block. */
static uint64_t
steps_left(uint64_t page, uint64_t count_pages, int64_t step)
{
    uint64_t room = step > 0 ? count_pages - 1 - page : page;
    return room / magnitude(step);
}

static uint64_t
flight_left(const Locality *locality, uint64_t flight)
{
    uint64_t under_way = locality->handed - locality->placed;
    return under_way < flight ? flight - under_way : 0;
}

/* Hands out what lies behind the `kept` steps that were handed out before. */
static LocalityResult
open_window(Locality *locality, LocalityStream *stream, uint64_t kept, const LocalityBounds *bounds,
            LocalityWindow *ret_window)
{
    uint64_t page = stream->at & PAGE_MASK;
    uint64_t end = MIN(stream->window, steps_left(page, bounds->count_pages, stream->step));
    uint64_t count = end > kept ? MIN(end - kept, flight_left(locality, bounds->flight)) : 0;

    stream->ahead = kept + count;
    stream->handed_before = locality->handed;
    locality->handed += count;
    stream->handed = locality->handed;
    if (!count)
        return LOCALITY_INSIDE;
    locality->handed_when = locality->count;
    *ret_window = (LocalityWindow){
        .block = (unsigned)(stream->at >> BLOCK_SHIFT) - 1,
        .page = page + (uint64_t)((int64_t)(kept + 1) * stream->step),
        .step = stream->step,
        .count = count,
    };
    return LOCALITY_WINDOW;
}

/* What a stream that asks again says of pages under way. */
static void
note_placed(Locality *locality, const LocalityStream *stream, bool is_past)
{
    uint64_t placed = is_past ? stream->handed : stream->handed_before;
    locality->placed = MAX(locality->placed, placed);
}

/* ---- Going on -------------------------------------------------------------------------------- */

/* Whether a place lies where the stream is expected; *ret_steps: from its last one, negative or 0
 * for a page it has passed. */
static bool
is_expected(const LocalityStream *stream, uint64_t place, int64_t *ret_steps)
{
    int64_t distance = (int64_t)(place - stream->at);
    uint64_t reach = MAX(stream->ahead, stream->window) + NEAR_MAX;

    if (!stream->step || magnitude(distance) > reach * magnitude(stream->step) ||
        distance % stream->step)
        return false;
    *ret_steps = distance / stream->step;
    return *ret_steps <= (int64_t)(stream->ahead + NEAR_MAX) &&
           *ret_steps >= -(int64_t)stream->window;
}

static LocalityResult
go_on(Locality *locality, LocalityStream *stream, uint64_t place, int64_t steps,
      const LocalityBounds *bounds, LocalityWindow *ret_window)
{
    bool was_idle = locality->count - stream->when > IDLE_MAX;
    stream->when = locality->count;
    if (steps <= 0)
        return LOCALITY_INSIDE;
    bool is_past = (uint64_t)steps > stream->ahead;
    uint64_t kept = is_past ? 0 : stream->ahead - (uint64_t)steps;
    note_placed(locality, stream, is_past);
    stream->at = place;
    stream->ahead = kept;
    if (was_idle)
        stream->window = LOCALITY_FIRST;
    else if (kept && kept >= stream->window / 2)
        return LOCALITY_INSIDE;
    else
        stream->window *= 2;
    stream->window = MIN(stream->window, bounds->window);
    return open_window(locality, stream, kept, bounds, ret_window);
}

/* ---- Recognising ----------------------------------------------------------------------------- */

/* Index of the last place asked for, then of the one before, ... */
static unsigned
older(const Locality *locality, unsigned age)
{
    return (locality->next + LOCALITY_LAST - 1 - age) % LOCALITY_LAST;
}

/* Whether the page `age` requests ago came by a step that fits: the step of the stream, or 0. */
static int64_t
step_through(const Locality *locality, unsigned age, uint64_t place)
{
    uint64_t middle = locality->last[older(locality, age)];
    int64_t step = (int64_t)(place - middle);
    bool is_near = false;

    for (unsigned i = age + 1; i < LOCALITY_LAST; i++) {
        int64_t before = (int64_t)(middle - locality->last[older(locality, i)]);
        if (before == step)
            return step;
        is_near |= magnitude(before) <= NEAR_MAX && (before < 0) == (step < 0) && before;
    }
    if (!is_near || magnitude(step) > NEAR_MAX)
        return 0;
    return step < 0 ? -1 : 1;
}

static int64_t
recognise(const Locality *locality, uint64_t place)
{
    for (unsigned age = 0; age + 1 < LOCALITY_LAST; age++) {
        uint64_t distance = magnitude((int64_t)(place - locality->last[older(locality, age)]));
        int64_t step = distance && distance <= STRIDE_MAX ? step_through(locality, age, place) : 0;
        if (step)
            return step;
    }
    return 0;
}

/* A stream that is still in use keeps its place: with more of them than places, some are served
 * rather than none. */
static LocalityStream *
find_room(Locality *locality)
{
    LocalityStream *oldest = &locality->streams[0];
    for (unsigned i = 0; i < LOCALITY_STREAMS; i++) {
        LocalityStream *stream = &locality->streams[i];
        if (!stream->step)
            return stream;
        if (stream->when < oldest->when)
            oldest = stream;
    }
    return locality->count - oldest->when > IDLE_MAX ? oldest : NULL;
}

static LocalityResult
begin(Locality *locality, uint64_t place, const LocalityBounds *bounds, LocalityWindow *ret_window)
{
    int64_t step = recognise(locality, place);
    LocalityStream *stream = step ? find_room(locality) : NULL;

    if (!stream) {
        locality->last[locality->next] = place;
        locality->next = (locality->next + 1) % LOCALITY_LAST;
        return LOCALITY_NONE;
    }
    *stream = (LocalityStream){.at = place,
                               .step = step,
                               .window = MIN(LOCALITY_FIRST, bounds->window),
                               .when = locality->count};
    return open_window(locality, stream, 0, bounds, ret_window);
}

LocalityResult
locality_note(Locality *locality, unsigned block, uint64_t page, const LocalityBounds *bounds,
              LocalityWindow *ret_window)
{
    uint64_t place = ((uint64_t)block + 1) << BLOCK_SHIFT | page;
    int64_t steps;

    if (++locality->count - locality->handed_when > FLIGHT_MAX)
        locality->placed = locality->handed;
    for (unsigned i = 0; i < LOCALITY_STREAMS; i++) {
        LocalityStream *stream = &locality->streams[i];
        if (is_expected(stream, place, &steps))
            return go_on(locality, stream, place, steps, bounds, ret_window);
    }
    return begin(locality, place, bounds, ret_window);
}
