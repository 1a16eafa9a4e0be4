/* SPDX-License-Identifier: MIT */
/*
 * The steps of a source's stream, and putting them together. Pure; any thread.
 */
#include <string.h>

#include "tests/unit/support/peer.h"
#include "tests/unit/support/peer_script.h"

#define RAM_SECTION    1u
#define DEVICE_SECTION 2u

/* ---- Pieces ------------------------------------------------------------------------------------
 */

void
script_put_run(StreamWriter *w, const char *name, uint64_t first, uint32_t count)
{
    uint8_t bytes[STREAM_PAGE_BYTES];

    stream_put_run(w, STREAM_RAM_PAGE, name, PEER_PAGES(first), count);
    for (uint64_t page = first; page < first + count; page++) {
        memset(bytes, (int)(page % 255) + 1, sizeof bytes);
        stream_put_bytes(w, bytes, sizeof bytes);
    }
}

void
script_put_page(StreamWriter *w, const char *name, uint64_t page)
{
    script_put_run(w, name, page, 1);
}

void
script_put_zeroes(StreamWriter *w, const char *name, uint64_t first, uint64_t end)
{
    for (uint64_t page = first; page < end; page++)
        stream_put_record(w, STREAM_RAM_ZERO, page == first ? name : NULL, PEER_PAGES(page));
}

void
script_put_device(StreamWriter *w, const char *name, uint32_t length, uint32_t count_bytes)
{
    stream_put_start(w, STREAM_FULL, DEVICE_SECTION, name, 0, 1);
    stream_put_be32(w, length);
    for (uint32_t i = 0; i < count_bytes; i++)
        stream_put_u8(w, (uint8_t)i);
    stream_put_footer(w, DEVICE_SECTION);
}

void
script_put_raw_command(StreamWriter *w, unsigned number, unsigned length)
{
    stream_put_u8(w, STREAM_COMMAND);
    stream_put_be16(w, (uint16_t)number);
    stream_put_be16(w, (uint16_t)length);
    for (unsigned i = 0; i < length; i++)
        stream_put_u8(w, 0);
}

void
script_put_range(StreamWriter *w, const char *name, uint64_t start, uint64_t length)
{
    const StreamRange range = {.start = start, .length = length};
    stream_put_discard(w, name, &range, 1);
}

/* ---- Steps -------------------------------------------------------------------------------------
 */

static void
put_pages(StreamWriter *w)
{
    script_put_page(w, "ram0", 1);
    script_put_zeroes(w, NULL, 0, 1);
    script_put_zeroes(w, NULL, 2, PEER_RAM0_PAGES);
    script_put_page(w, "ram1", 1);
    script_put_zeroes(w, NULL, 0, 1);
    script_put_zeroes(w, NULL, 2, PEER_RAM1_PAGES);
}

static void
put_pushed(StreamWriter *w)
{
    script_put_page(w, "ram0", SCRIPT_FIRST + 2);
    script_put_zeroes(w, NULL, SCRIPT_FIRST + 3, SCRIPT_END);
}

static void
put_urgent(StreamWriter *w)
{
    script_put_page(w, "ram0", SCRIPT_FIRST);
    script_put_zeroes(w, NULL, SCRIPT_FIRST + 1, SCRIPT_FIRST + 2);
}

static void
put_end(StreamWriter *w)
{
    stream_put_part(w, STREAM_END, RAM_SECTION);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);
}

static void
put_state(StreamWriter *w)
{
    script_put_device(w, PEER_DEVICE, 5, 5);
    stream_put_globalstate(w, true);
}

static void
put_description(StreamWriter *w)
{
    static const char json[] = "{\"page_size\": 4096, \"devices\": []}";
    stream_put_u8(w, STREAM_VMDESCRIPTION);
    stream_put_be32(w, sizeof json - 1);
    stream_put_bytes(w, json, sizeof json - 1);
}

/* What comes before the first page; false for another step. */
static bool
put_opening(StreamWriter *w, ScriptStep step)
{
    switch (step) {
    case STEP_HEADER:
        stream_put_header(w);
        break;
    case STEP_CONFIGURATION:
        stream_put_configuration(w, PEER_MACHINE);
        break;
    case STEP_RETURN_PATH:
        script_put_raw_command(w, STREAM_COMMAND_OPEN_RETURN_PATH, 0);
        break;
    case STEP_HELLO:
        stream_put_ping(w, STREAM_HELLO | SCRIPT_FEATURES);
        break;
    case STEP_ADVISE:
        stream_put_advise(w, STREAM_PAGE_BYTES);
        break;
    case STEP_START:
        stream_put_start(w, STREAM_START, RAM_SECTION, "ram", 0, STREAM_RAM_VERSION);
        break;
    case STEP_TOTAL:
        stream_put_mem_size(w, PEER_PAGES(PEER_RAM0_PAGES + PEER_RAM1_PAGES));
        break;
    case STEP_BLOCK0:
        stream_put_block(w, "ram0", PEER_PAGES(PEER_RAM0_PAGES), 0);
        break;
    case STEP_BLOCK1:
        stream_put_block(w, "ram1", PEER_PAGES(PEER_RAM1_PAGES), 0);
        break;
    default:
        return false;
    }
    return true;
}

/* What hands the guest over; false for another step. */
static bool
put_switchover(StreamWriter *w, ScriptStep step)
{
    switch (step) {
    case STEP_DISCARD:
        script_put_range(w, "ram0", PEER_PAGES(SCRIPT_FIRST),
                         PEER_PAGES(SCRIPT_END - SCRIPT_FIRST));
        break;
    case STEP_DISCARDED:
        stream_put_ping(w, STREAM_PING_DISCARDED);
        break;
    case STEP_LISTEN:
        script_put_raw_command(w, STREAM_COMMAND_POSTCOPY_LISTEN, 0);
        break;
    case STEP_DEVICE:
        script_put_device(w, PEER_DEVICE, 5, 5);
        break;
    case STEP_GLOBAL:
        stream_put_globalstate(w, true);
        break;
    case STEP_LOADED:
        stream_put_ping(w, STREAM_PING_LOADED);
        break;
    case STEP_RUN:
        script_put_raw_command(w, STREAM_COMMAND_POSTCOPY_RUN, 0);
        break;
    case STEP_RUNNING:
        stream_put_ping(w, STREAM_PING_RUNNING);
        break;
    default:
        return false;
    }
    return true;
}

void
script_put_step(StreamWriter *w, ScriptStep step)
{
    if (put_opening(w, step) || put_switchover(w, step))
        return;
    switch (step) {
    case STEP_LIST_EOS:
    case STEP_PASS_EOS:
    case STEP_PUSH_EOS:
        stream_put_eos(w);
        break;
    case STEP_LIST_FOOTER:
    case STEP_PASS_FOOTER:
    case STEP_PUSH_FOOTER:
        stream_put_footer(w, RAM_SECTION);
        break;
    case STEP_PASS:
    case STEP_PUSH:
        stream_put_part(w, STREAM_PART, RAM_SECTION);
        break;
    case STEP_PAGES:
        put_pages(w);
        break;
    case STEP_PUSHED:
        put_pushed(w);
        break;
    case STEP_PUSH_PING:
        stream_put_ping(w, SCRIPT_PUSH_PING);
        break;
    case STEP_END:
        put_end(w);
        break;
    case STEP_STATE:
        put_state(w);
        break;
    case STEP_COMMIT:
        stream_put_ping(w, STREAM_PING_COMMIT);
        break;
    case STEP_EOF:
        stream_put_u8(w, STREAM_EOF);
        break;
    case STEP_DESCRIPTION:
        put_description(w);
        break;
    case STEP_URGENT:
        put_urgent(w);
        break;
    default:
        g_assert_not_reached();
    }
}

/* ---- Whole streams -----------------------------------------------------------------------------
 */

static const struct {
    bool in_precopy, in_postcopy;
} steps[] = {
#define SCRIPT_STEP_ROW(name, in_precopy, in_postcopy) {in_precopy, in_postcopy},
    SCRIPT_STEP_LIST(SCRIPT_STEP_ROW)
#undef SCRIPT_STEP_ROW
};

typedef void PutStep(StreamWriter *w, ScriptStep step, void *context);

static void
put_changed(StreamWriter *w, ScriptStep step, const ScriptChange *change, PutStep *put,
            void *context)
{
    bool is_here = change && change->how != CHANGE_NONE && change->at == step;

    if (is_here && change->how != CHANGE_AFTER && change->put)
        change->put(w);
    if (!is_here || change->how != CHANGE_INSTEAD)
        put(w, step, context);
    if (is_here && change->how == CHANGE_AFTER)
        change->put(w);
}

static void
put_plain(StreamWriter *w, ScriptStep step, G_GNUC_UNUSED void *context)
{
    script_put_step(w, step);
}

static void
put_in_postcopy(StreamWriter *w, ScriptStep step, void *context)
{
    const StreamWriter *package = context;

    if (step == STEP_PACKAGED) {
        uint32_t length = GUINT32_TO_BE((uint32_t)package->length);
        stream_put_command(w, STREAM_COMMAND_PACKAGED, &length, sizeof length);
    } else if (step == STEP_PACKAGE) {
        stream_put_bytes(w, package->bytes, package->length);
    } else {
        script_put_step(w, step);
    }
}

Script *
script_new(ScriptShape shape, const ScriptChange *change)
{
    Script *script = g_new0(Script, 1);
    g_autofree uint8_t *bytes = g_malloc(SCRIPT_BYTES_MAX);
    StreamWriter package = {.bytes = bytes, .capacity = SCRIPT_BYTES_MAX};
    bool is_postcopy = shape != SCRIPT_PRECOPY;

    script->main = (StreamWriter){g_malloc(SCRIPT_BYTES_MAX), 0, SCRIPT_BYTES_MAX};
    script->urgent = (StreamWriter){g_malloc(SCRIPT_BYTES_MAX), 0, SCRIPT_BYTES_MAX};
    for (ScriptStep step = STEP_LISTEN; step <= STEP_RUN; step++)
        put_changed(&package, step, change, put_plain, NULL);
    for (ScriptStep step = 0; step < STEP_COUNT; step++) {
        if (!(is_postcopy ? steps[step].in_postcopy : steps[step].in_precopy))
            continue;
        if (step == STEP_PUSHED && shape == SCRIPT_POSTCOPY)
            put_urgent(&script->main);
        put_changed(&script->main, step, change, put_in_postcopy, &package);
        script->offsets[step] = script->main.length;
    }
    if (shape == SCRIPT_PREEMPT)
        put_changed(&script->urgent, STEP_URGENT, change, put_plain, NULL);
    return script;
}

void
script_free(Script *script)
{
    g_free(script->main.bytes);
    g_free(script->urgent.bytes);
    g_free(script);
}
