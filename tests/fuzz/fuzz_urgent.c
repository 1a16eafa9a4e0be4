/* SPDX-License-Identifier: MIT */
/*
 * The urgent channel of a side that is in postcopy: at the destination what is sent on it, at the
 * source the requests that come back. The opening brings the side there, so that the input need
 * not. Bit 0 of its first byte is the side.
 */
#include "engine/stream/stream.h"
#include "tests/fuzz/side.h"

#define OPENING_BYTES 4096u
#define RAM_SECTION   1u
#define STATE_SECTION 2u

const size_t fuzz_bound_bytes = 4u << 20;

static void
put_mark(StreamWriter *w, char letter)
{
    stream_put_bytes(w, SIDE_MARK, SIDE_MARK_BYTES);
    stream_put_u8(w, (uint8_t)letter);
}

static void
put_bare(StreamWriter *w, StreamCommand command)
{
    stream_put_command(w, command, NULL, 0);
}

static void
put_package(StreamWriter *w)
{
    uint8_t bytes[OPENING_BYTES];
    StreamWriter package = {bytes, 0, sizeof bytes};

    put_bare(&package, STREAM_COMMAND_POSTCOPY_LISTEN);
    stream_put_start(&package, STREAM_FULL, STATE_SECTION, "sim/vcpu", 0, 1);
    stream_put_be32(&package, 1);
    stream_put_u8(&package, 0);
    stream_put_footer(&package, STATE_SECTION);
    stream_put_globalstate(&package, true);
    stream_put_ping(&package, STREAM_PING_LOADED);
    put_bare(&package, STREAM_COMMAND_POSTCOPY_RUN);
    uint32_t length = GUINT32_TO_BE((uint32_t)package.length);
    stream_put_command(w, STREAM_COMMAND_PACKAGED, &length, sizeof length);
    stream_put_bytes(w, package.bytes, package.length);
}

/* Up to RUN; no page has come, and the first pages are wanted. */
static void
put_source_speaks(StreamWriter *w, const SideStart *start)
{
    static const uint8_t touched[] = {0, 0, 0, 9, 1, 0, 1, 5};

    stream_put_header(w);
    stream_put_configuration(w, "sim-1.0");
    put_bare(w, STREAM_COMMAND_OPEN_RETURN_PATH);
    stream_put_ping(w, STREAM_HELLO | (STREAM_FEATURES & ~STREAM_FEATURE_HEARTBEAT));
    stream_put_advise(w, start->options & SIDE_OPTION_HUGE ? 5 * SIM_PAGE : SIM_PAGE);
    stream_put_start(w, STREAM_START, RAM_SECTION, "ram", 0, STREAM_RAM_VERSION);
    stream_put_mem_size(w, 40 * SIM_PAGE);
    stream_put_block(w, "ram-0", 24 * SIM_PAGE, 0);
    stream_put_block(w, "ram-1", 16 * SIM_PAGE,
                     start->options & SIDE_OPTION_HUGE ? 4 * SIM_PAGE : 0);
    stream_put_eos(w);
    stream_put_footer(w, RAM_SECTION);
    put_package(w);
    put_mark(w, 'w');
    put_mark(w, 't');
    stream_put_bytes(w, touched, sizeof touched);
}

/* The same from the other end. */
static void
put_destination_speaks(StreamWriter *w)
{
    static const uint32_t pongs[] = {STREAM_HELLO_ANSWER | STREAM_FEATURES, STREAM_PING_SETTLED,
                                     STREAM_PING_DISCARDED, STREAM_PING_LOADED,
                                     STREAM_PING_RUNNING};
    put_mark(w, 'p');
    for (unsigned i = 0; i < G_N_ELEMENTS(pongs); i++) {
        put_mark(w, 'w');
        stream_put_return_value(w, STREAM_RETURN_PONG, pongs[i]);
    }
}

int
LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    uint8_t opening[OPENING_BYTES];
    StreamWriter w = {opening, 0, sizeof opening};
    SideStart start = {.begins = true, .channel = 'u', .opening = opening};

    if (length < 2)
        return 0;
    start.side = bytes[0] & 1 ? SIM_DESTINATION : SIM_SOURCE;
    start.options = (bytes[1] | SIDE_OPTION_PREEMPT) &
                    ~(SIDE_OPTION_PRECOPY | SIDE_OPTION_WAITS | SIDE_OPTION_NO_RETURN);
    if (start.side == SIM_DESTINATION)
        put_source_speaks(&w, &start);
    else
        put_destination_speaks(&w);
    start.opening_length = w.length;
    side_run(&start, bytes + 1, length - 1);
    return 0;
}
