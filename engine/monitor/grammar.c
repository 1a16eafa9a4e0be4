/* SPDX-License-Identifier: MIT */
/*
 * Whether a text is JSON (RFC 8259), before json-glib sees it: that one takes a good deal that is
 * none, such as comments, hexadecimal numbers and unknown escapes, which frame.c sees otherwise.
 *
 * frame.c has seen to it that brackets match, that they nest at most FRAME_DEPTH_MAX deep and that
 * the text is UTF-8 without control bytes; this file keeps no more than a bit a level. Control
 * thread.
 */
#include <string.h>

#include "engine/monitor/monitor.h"

/* What may come next, inside the innermost bracket. */
typedef enum {
    NEXT_VALUE,        /* after ':' or ',' of an array */
    NEXT_FIRST,        /* after '[': a value, or its end */
    NEXT_MEMBER,       /* after ',' of an object */
    NEXT_FIRST_MEMBER, /* after '{': a member, or its end */
    NEXT_COMMA,        /* after a value: ',', or the end of the bracket */
    NEXT_NOTHING,      /* after the outermost value */
} Next;

typedef struct Grammar {
    const char *at;
    Next next;
    unsigned depth;
    uint64_t arrays; /* bit n: the bracket at depth n is '[' */
} Grammar;

static bool
is_in_array(const Grammar *grammar)
{
    return grammar->depth > 0 && ((grammar->arrays >> (grammar->depth - 1)) & 1);
}

static void
skip_space(Grammar *grammar)
{
    grammar->at += strspn(grammar->at, " \t\r\n");
}

static void
end_value(Grammar *grammar)
{
    grammar->next = grammar->depth == 0 ? NEXT_NOTHING : NEXT_COMMA;
}

static const char *
take_string(Grammar *grammar)
{
    for (grammar->at++; *grammar->at != '"'; grammar->at++) {
        if ((unsigned char)*grammar->at < 0x20)
            return "a string does not end, or has a control byte in it";
        if (*grammar->at != '\\')
            continue;
        grammar->at++;
        if (*grammar->at == '\0' || strchr("\"\\/bfnrtu", *grammar->at) == NULL)
            return "a string has an escape that is none";
        if (*grammar->at != 'u')
            continue;
        for (unsigned i = 1; i <= 4; i++)
            if (!g_ascii_isxdigit(grammar->at[i]))
                return "a string has an escape that is none";
        grammar->at += 4;
    }
    grammar->at++;
    return NULL;
}

/* Digits, at least one. */
static bool
skip_digits(Grammar *grammar)
{
    size_t length = strspn(grammar->at, "0123456789");
    grammar->at += length;
    return length > 0;
}

static const char *
take_number(Grammar *grammar)
{
    grammar->at += *grammar->at == '-';
    bool has_zero = *grammar->at == '0';
    const char *whole = grammar->at;
    bool is_good = skip_digits(grammar) && !(has_zero && grammar->at - whole > 1);
    if (is_good && *grammar->at == '.') {
        grammar->at++;
        is_good = skip_digits(grammar);
    }
    if (is_good && (*grammar->at == 'e' || *grammar->at == 'E')) {
        grammar->at++;
        grammar->at += *grammar->at == '+' || *grammar->at == '-';
        is_good = skip_digits(grammar);
    }
    return is_good ? NULL : "a number is none";
}

static const char *
take_word(Grammar *grammar)
{
    static const char *const words[] = {"true", "false", "null"};
    for (size_t i = 0; i < G_N_ELEMENTS(words); i++) {
        if (!g_str_has_prefix(grammar->at, words[i]))
            continue;
        grammar->at += strlen(words[i]);
        return NULL;
    }
    return "a value is expected";
}

static const char *
open_bracket(Grammar *grammar)
{
    bool is_array = *grammar->at == '[';
    if (grammar->depth == FRAME_DEPTH_MAX)
        return "nested too deep";
    uint64_t bit = UINT64_C(1) << grammar->depth++;
    grammar->arrays = is_array ? grammar->arrays | bit : grammar->arrays & ~bit;
    grammar->next = is_array ? NEXT_FIRST : NEXT_FIRST_MEMBER;
    grammar->at++;
    return NULL;
}

static const char *
take_value(Grammar *grammar)
{
    const char *problem;
    if (*grammar->at == '{' || *grammar->at == '[')
        return open_bracket(grammar);
    if (*grammar->at == '"')
        problem = take_string(grammar);
    else if (*grammar->at == '-' || g_ascii_isdigit(*grammar->at))
        problem = take_number(grammar);
    else
        problem = take_word(grammar);
    end_value(grammar);
    return problem;
}

static const char *
take_member(Grammar *grammar)
{
    if (*grammar->at != '"')
        return "the name of a member is expected";
    const char *problem = take_string(grammar);
    if (problem != NULL)
        return problem;
    skip_space(grammar);
    if (*grammar->at != ':')
        return "':' is expected after the name of a member";
    grammar->at++;
    grammar->next = NEXT_VALUE;
    return NULL;
}

static const char *
take_comma(Grammar *grammar)
{
    if (*grammar->at != ',')
        return "',' is expected between two values";
    grammar->at++;
    grammar->next = is_in_array(grammar) ? NEXT_VALUE : NEXT_MEMBER;
    return NULL;
}

/* The end of the innermost bracket, where it may end. */
static bool
close_bracket(Grammar *grammar)
{
    bool may_end = grammar->next == NEXT_FIRST || grammar->next == NEXT_FIRST_MEMBER ||
                   grammar->next == NEXT_COMMA;
    if (!may_end || grammar->depth == 0 || *grammar->at != (is_in_array(grammar) ? ']' : '}'))
        return false;
    grammar->at++;
    grammar->depth--;
    end_value(grammar);
    return true;
}

const char *
grammar_find_problem(const char *text)
{
    Grammar grammar = {.at = text, .next = NEXT_VALUE};
    const char *problem = NULL;

    while (problem == NULL) {
        skip_space(&grammar);
        if (grammar.next == NEXT_NOTHING)
            return *grammar.at == '\0' ? NULL : "something follows the value";
        if (close_bracket(&grammar))
            continue;
        if (grammar.next == NEXT_MEMBER || grammar.next == NEXT_FIRST_MEMBER)
            problem = take_member(&grammar);
        else if (grammar.next == NEXT_COMMA)
            problem = take_comma(&grammar);
        else
            problem = take_value(&grammar);
    }
    return problem;
}
