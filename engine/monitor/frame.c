/* SPDX-License-Identifier: MIT */
/*
 * Cuts a client's bytes into JSON values, wherever the reads were cut.
 *
 * It follows strings and brackets only; whether the value is JSON is the parser's business. What
 * the parser must never see is stopped here: values longer than 1 MiB, of more than 4096 values, or
 * nested deeper than 64 (the parser recurses), NUL and other control bytes, text that is not UTF-8,
 * and integers that it would wrap silently. Text outside a value and brackets that do not match
 * cost the rest of their line, as a person at a keyboard expects; limits and binary cost the
 * session.
 */
#include <string.h>

#include "engine/monitor/monitor.h"

Frame *
frame_new(void)
{
    Frame *frame = g_new0(Frame, 1);
    frame->text = g_string_new(NULL);
    return frame;
}

void
frame_free(Frame *frame)
{
    g_string_free(frame->text, TRUE);
    g_free(frame);
}

static void
start_over(Frame *frame)
{
    g_string_truncate(frame->text, 0);
    frame->problem = NULL;
    frame->arrays = 0;
    frame->depth = frame->digits = frame->values = 0;
    frame->in_string = frame->escaped = frame->long_number = frame->skipping = false;
}

static FrameResult
broken(Frame *frame, const char *problem, bool skip_line)
{
    start_over(frame);
    frame->problem = problem;
    frame->skipping = skip_line;
    return FRAME_BROKEN;
}

static FrameResult
hostile(Frame *frame, const char *problem)
{
    start_over(frame);
    frame->problem = problem;
    return FRAME_HOSTILE;
}

static FrameResult
take_open(Frame *frame, char byte)
{
    if (frame->depth == FRAME_DEPTH_MAX)
        return hostile(frame, "nested deeper than 64 levels");
    uint64_t bit = UINT64_C(1) << frame->depth;
    frame->arrays = byte == '[' ? frame->arrays | bit : frame->arrays & ~bit;
    frame->depth++;
    return FRAME_MORE;
}

/* The last bracket is closed. */
static FrameResult
finish(Frame *frame)
{
    if (!g_utf8_validate(frame->text->str, (gssize)frame->text->len, NULL))
        return hostile(frame, "not UTF-8");
    if (frame->long_number)
        return broken(frame, "a number has more than 18 digits in a row", false);
    if (strstr(frame->text->str, "\\u0000") != NULL)
        return broken(frame, "\\u0000 in a string", false);
    return FRAME_VALUE;
}

static FrameResult
take_close(Frame *frame, char byte)
{
    bool is_array = (frame->arrays >> (frame->depth - 1)) & 1;
    if (is_array != (byte == ']'))
        return broken(frame, "brackets do not match", true);
    return --frame->depth == 0 ? finish(frame) : FRAME_MORE;
}

static FrameResult
take_in_string(Frame *frame, char byte)
{
    if (byte == '\n' || byte == '\r')
        return broken(frame, "a string does not end on its line", false);
    if (frame->escaped)
        frame->escaped = false;
    else if (byte == '\\')
        frame->escaped = true;
    else if (byte == '"')
        frame->in_string = false;
    return FRAME_MORE;
}

static FrameResult
take_between(Frame *frame, char byte)
{
    if (byte != '{' && byte != '[')
        return broken(frame, "expecting '{'", byte != '\n');
    g_string_append_c(frame->text, byte);
    return take_open(frame, byte);
}

static FrameResult
take_inside(Frame *frame, char byte)
{
    if (frame->text->len == FRAME_LENGTH_MAX_BYTES)
        return hostile(frame, "longer than 1 MiB");
    g_string_append_c(frame->text, byte);
    if (frame->in_string)
        return take_in_string(frame, byte);
    frame->digits = g_ascii_isdigit(byte) ? frame->digits + 1 : 0;
    frame->long_number |= frame->digits > FRAME_DIGITS_MAX;
    frame->values += byte == ',' || byte == '{' || byte == '[';
    if (frame->values > FRAME_VALUES_MAX)
        return hostile(frame, "more than 4096 values");
    switch (byte) {
    case '"':
        frame->in_string = true;
        return FRAME_MORE;
    case '{':
    case '[':
        return take_open(frame, byte);
    case '}':
    case ']':
        return take_close(frame, byte);
    default:
        return FRAME_MORE;
    }
}

static FrameResult
take_byte(Frame *frame, char byte)
{
    bool is_space = byte == ' ' || byte == '\t' || byte == '\r' || byte == '\n';
    if ((unsigned char)byte < 0x20 && !is_space)
        return hostile(frame, "a control byte");
    if (frame->skipping) {
        frame->skipping = byte != '\n';
        return FRAME_MORE;
    }
    if (frame->depth > 0)
        return take_inside(frame, byte);
    if (is_space)
        return FRAME_MORE;
    if ((unsigned char)byte >= 0x80)
        return hostile(frame, "binary between values");
    return take_between(frame, byte);
}

FrameResult
frame_take(Frame *frame, const char *bytes, size_t length_bytes, size_t *ret_used)
{
    if (frame->depth == 0 && frame->text->len > 0)
        start_over(frame);
    for (size_t i = 0; i < length_bytes; i++) {
        FrameResult result = take_byte(frame, bytes[i]);
        if (result != FRAME_MORE) {
            *ret_used = i + 1;
            return result;
        }
    }
    *ret_used = length_bytes;
    return FRAME_MORE;
}
