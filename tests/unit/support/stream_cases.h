/* SPDX-License-Identifier: MIT */
/*
 * One good message of every kind: how it is written, read, and what must have been read. Shared by
 * the tests that cut, damage and mutate messages.
 */
#ifndef TESTS_UNIT_SUPPORT_STREAM_CASES_H
#define TESTS_UNIT_SUPPORT_STREAM_CASES_H

#include "engine/stream/stream.h"

#define STREAM_CASE_LIST(X)                                                                        \
    X(header)                                                                                      \
    X(configuration)                                                                               \
    X(validated)                                                                                   \
    X(start)                                                                                       \
    X(full)                                                                                        \
    X(part)                                                                                        \
    X(end)                                                                                         \
    X(eof)                                                                                         \
    X(description)                                                                                 \
    X(footer)                                                                                      \
    X(ping)                                                                                        \
    X(advise)                                                                                      \
    X(short_advise)                                                                                \
    X(listen)                                                                                      \
    X(packaged)                                                                                    \
    X(discard)                                                                                     \
    X(discard_words)                                                                               \
    X(bitmap_command)                                                                              \
    X(sealed)                                                                                      \
    X(digest)                                                                                      \
    X(zero)                                                                                        \
    X(zero_continue)                                                                               \
    X(longest_name)                                                                                \
    X(page)                                                                                        \
    X(page_continue)                                                                               \
    X(run)                                                                                         \
    X(run_continue)                                                                                \
    X(zero_run)                                                                                    \
    X(sealed_page)                                                                                 \
    X(sealed_run)                                                                                  \
    X(mem_size)                                                                                    \
    X(eos)                                                                                         \
    X(flush)                                                                                       \
    X(xbzrle)                                                                                      \
    X(compressed)                                                                                  \
    X(block)                                                                                       \
    X(huge_block)                                                                                  \
    X(block_name)                                                                                  \
    X(device_length)                                                                               \
    X(running)                                                                                     \
    X(paused)                                                                                      \
    X(shut)                                                                                        \
    X(pong)                                                                                        \
    X(request_id)                                                                                  \
    X(request)                                                                                     \
    X(bitmap_message)                                                                              \
    X(resume_ack)                                                                                  \
    X(resend)                                                                                      \
    X(whole)                                                                                       \
    X(verdict)                                                                                     \
    X(switchover_ack)                                                                              \
    X(bitmap)                                                                                      \
    X(multifd_first)                                                                               \
    X(multifd)                                                                                     \
    X(multifd_stale)

typedef enum {
#define STREAM_CASE_ENUM(name) STREAM_CASE_##name,
    STREAM_CASE_LIST(STREAM_CASE_ENUM)
#undef STREAM_CASE_ENUM
        STREAM_CASE_COUNT
} StreamCaseId;

typedef struct StreamCase {
    const char *name;
    void (*encode)(StreamWriter *writer);
    StreamResult (*decode)(const uint8_t *bytes, size_t available, size_t *ret_length,
                           GError **error);
    bool (*check)(void); /* of the last decode, while its bytes live */
    unsigned behind;     /* bytes of what follows that the decoder needs to see */
} StreamCase;

extern const StreamCase stream_cases[STREAM_CASE_COUNT];

#define STREAM_CASE_BYTES_MAX 8192u

/* Bytes of the message alone; bytes has room for STREAM_CASE_BYTES_MAX. */
size_t stream_case_encode(const StreamCase *one, uint8_t *bytes);

/* A copy of exactly length bytes on the heap, so that a sanitizer sees a read behind it. */
uint8_t *stream_case_copy(const uint8_t *bytes, size_t length);

#endif
