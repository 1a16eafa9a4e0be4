/* SPDX-License-Identifier: MIT */
/*
 * A source's streams, small but complete, made step by step so that a case can put something else
 * before, instead of or after one of the steps. Pure; any thread.
 *
 * Precopy brings every page of the guest of peer.h as a zero page, but page 1 of each block. In
 * postcopy pages SCRIPT_FIRST up to SCRIPT_END of ram0 are discarded; the two first of them are for
 * the urgent channel where there is one.
 */
#ifndef TESTS_UNIT_SUPPORT_PEER_SCRIPT_H
#define TESTS_UNIT_SUPPORT_PEER_SCRIPT_H

#include "engine/stream/stream.h"

#define SCRIPT_FIRST     16u
#define SCRIPT_END       32u
#define SCRIPT_BYTES_MAX (2u << 20)

#define SCRIPT_PUSH_PING 5u /* says that everything before was taken */

typedef enum { SCRIPT_PRECOPY, SCRIPT_POSTCOPY, SCRIPT_PREEMPT } ScriptShape;

/* X(name, in precopy, in postcopy); those of the package stand where they are built. */
#define SCRIPT_STEP_LIST(X)                                                                        \
    X(HEADER, true, true)                                                                          \
    X(CONFIGURATION, true, true)                                                                   \
    X(RETURN_PATH, true, true)                                                                     \
    X(HELLO, true, true)                                                                           \
    X(ADVISE, false, true)                                                                         \
    X(START, true, true)                                                                           \
    X(TOTAL, true, true)                                                                           \
    X(BLOCK0, true, true)                                                                          \
    X(BLOCK1, true, true)                                                                          \
    X(LIST_EOS, true, true)                                                                        \
    X(LIST_FOOTER, true, true)                                                                     \
    X(PASS, true, true)                                                                            \
    X(PAGES, true, true)                                                                           \
    X(PASS_EOS, true, true)                                                                        \
    X(PASS_FOOTER, true, true)                                                                     \
    X(DISCARD, false, true)                                                                        \
    X(DISCARDED, false, true)                                                                      \
    X(PACKAGED, false, true)                                                                       \
    X(LISTEN, false, false)                                                                        \
    X(DEVICE, false, false)                                                                        \
    X(GLOBAL, false, false)                                                                        \
    X(LOADED, false, false)                                                                        \
    X(RUN, false, false)                                                                           \
    X(PACKAGE, false, true)                                                                        \
    X(RUNNING, false, true)                                                                        \
    X(PUSH, false, true)                                                                           \
    X(PUSHED, false, true)                                                                         \
    X(PUSH_EOS, false, true)                                                                       \
    X(PUSH_FOOTER, false, true)                                                                    \
    X(PUSH_PING, false, true)                                                                      \
    X(END, true, true)                                                                             \
    X(STATE, true, false)                                                                          \
    X(COMMIT, true, false)                                                                         \
    X(EOF, true, true)                                                                             \
    X(DESCRIPTION, true, false)                                                                    \
    X(URGENT, false, false)

/* What the script's hello offers. */
#define SCRIPT_FEATURES (STREAM_FEATURES & ~(STREAM_FEATURE_TOKEN | STREAM_FEATURE_HEARTBEAT))

typedef enum {
#define SCRIPT_STEP_ENUM(name, in_precopy, in_postcopy) STEP_##name,
    SCRIPT_STEP_LIST(SCRIPT_STEP_ENUM)
#undef SCRIPT_STEP_ENUM
        STEP_COUNT
} ScriptStep;

typedef enum { CHANGE_NONE, CHANGE_BEFORE, CHANGE_INSTEAD, CHANGE_AFTER } ScriptChangeHow;

typedef struct ScriptChange {
    ScriptChangeHow how;
    ScriptStep at;
    void (*put)(StreamWriter *w);
} ScriptChange;

typedef struct Script {
    StreamWriter main, urgent;
    size_t offsets[STEP_COUNT]; /* in main, behind each step that is there; else 0 */
} Script;

Script *script_new(ScriptShape shape, const ScriptChange *change);
void script_free(Script *script);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(Script, script_free)

/* Pieces, for the changes. */
void script_put_step(StreamWriter *w, ScriptStep step);
void script_put_page(StreamWriter *w, const char *name, uint64_t page);
void script_put_run(StreamWriter *w, const char *name, uint64_t first, uint32_t count);
void script_put_zeroes(StreamWriter *w, const char *name, uint64_t first, uint64_t end);
void script_put_device(StreamWriter *w, const char *name, uint32_t length, uint32_t count_bytes);
/* A command whose length is not what the table says. */
void script_put_raw_command(StreamWriter *w, unsigned number, unsigned length);
void script_put_range(StreamWriter *w, const char *name, uint64_t start, uint64_t length);

#endif
