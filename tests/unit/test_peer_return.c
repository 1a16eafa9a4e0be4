/* SPDX-License-Identifier: MIT */
/*
 * A real source against destinations that say something wrong, say it too early, go away or fall
 * silent, over real sockets: the guest goes on at the source unless it was given away, the error
 * says what happened and where the guest is, and nothing hangs. A destination that does as QEMU
 * does, and knows nothing of us, is served to the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tests/unit/support/peer_sink.h"

typedef enum {
    OUTCOME_COMPLETED,
    OUTCOME_KEPT,   /* failed; the guest goes on at the source */
    OUTCOME_LOST,   /* failed; the destination may run it, so it stays stopped */
    OUTCOME_PAUSED, /* postcopy-paused */
    OUTCOME_UNSAID, /* the same, and the destination never said that it loaded the guest */
} Outcome;

typedef struct BadReturn {
    const char *name;
    ScriptShape shape;
    bool is_qemu;
    SinkPlan plan;
    const char *words;
    Outcome outcome;
} BadReturn;

#define FAULTLINE      0
#define QEMU           1
#define NOTHING        ((void)w)
#define COUNT_REQUESTS 100000u

static void
put_message(StreamWriter *w, unsigned type, unsigned length)
{
    stream_put_be16(w, (uint16_t)type);
    stream_put_be16(w, (uint16_t)length);
    for (unsigned i = 0; i < length; i++)
        stream_put_u8(w, 0);
}

static void
put_raw_request(StreamWriter *w, uint64_t start, uint32_t length)
{
    stream_put_be16(w, STREAM_RETURN_REQ_PAGES_ID);
    stream_put_be16(w, 17);
    stream_put_be64(w, start);
    stream_put_be32(w, length);
    stream_put_name(w, "ram0");
}

static void
put_flood(StreamWriter *w)
{
    for (unsigned i = 0; i < COUNT_REQUESTS; i++)
        stream_put_request(w, i ? NULL : "ram0", PEER_PAGES(i * 7 % PEER_RAM0_PAGES),
                           FAULTLINE_PAGE_BYTES);
}

static void
put_bitmap(StreamWriter *w)
{
    stream_put_be16(w, STREAM_RETURN_RECV_BITMAP);
    stream_put_be16(w, 5);
    stream_put_name(w, "ram0");
}

#define SHUT(value) stream_put_return_value(w, STREAM_RETURN_SHUT, value)
#define PONG(value) stream_put_return_value(w, STREAM_RETURN_PONG, value)
#define REQUEST(name, page, count)                                                                 \
    stream_put_request(w, name, PEER_PAGES(page), (uint32_t)PEER_PAGES(count))

/* X(name, shape, peer, moment, what is sent to `w`, then, words, outcome) */
/* clang-format off */
#define RETURN_LIST(X) \
    X(request_in_precopy, PRECOPY, FAULTLINE, PAGES, REQUEST("ram0", 0, 1), GO_ON, "asked before it was given the guest", KEPT) \
    X(request_before_package, PREEMPT, FAULTLINE, HELLO, REQUEST("ram0", 0, 1), GO_ON, "asked before it was given the guest", KEPT) \
    X(request_at_commit, PRECOPY, FAULTLINE, COMMIT, REQUEST("ram0", 0, 1), GO_ON, "asked before it was given the guest", KEPT) \
    X(request_of_unknown_block, POSTCOPY, FAULTLINE, PACKAGE, REQUEST("foo", 0, 1), GO_ON, "there is no RAM block 'foo' here", UNSAID) \
    X(request_of_unknown_block_urgent, PREEMPT, FAULTLINE, PACKAGE, REQUEST("foo", 0, 1), GO_ON, "there is no RAM block 'foo' here", UNSAID) \
    X(request_without_block, POSTCOPY, FAULTLINE, PACKAGE, REQUEST(NULL, 0, 1), GO_ON, "there is no RAM block ''", UNSAID) \
    X(request_past_the_end, POSTCOPY, FAULTLINE, PACKAGE, REQUEST("ram1", PEER_RAM1_PAGES - 1, 2), GO_ON, "not whole pages inside it", UNSAID) \
    X(request_at_the_end, POSTCOPY, FAULTLINE, PACKAGE, REQUEST("ram1", PEER_RAM1_PAGES, 1), GO_ON, "not whole pages inside it", UNSAID) \
    X(request_around_2_64, PREEMPT, FAULTLINE, PACKAGE, put_raw_request(w, UINT64_MAX - 4095, 8192), GO_ON, "start is 0xfffffffffffff000", UNSAID) \
    X(request_in_page, POSTCOPY, FAULTLINE, PACKAGE, put_raw_request(w, 1, 4096), GO_ON, "REQ_PAGES", UNSAID) \
    X(request_of_100, POSTCOPY, FAULTLINE, PACKAGE, put_raw_request(w, 0, 100), GO_ON, "REQ_PAGES", UNSAID) \
    X(request_of_0, POSTCOPY, FAULTLINE, PACKAGE, put_raw_request(w, 0, 0), GO_ON, "REQ_PAGES", UNSAID) \
    X(request_of_all, POSTCOPY, FAULTLINE, PACKAGE, REQUEST("ram0", 0, PEER_RAM0_PAGES), GO_ON, "", COMPLETED) \
    X(request_of_all_urgent, PREEMPT, FAULTLINE, PACKAGE, REQUEST("ram0", 0, PEER_RAM0_PAGES), GO_ON, "", COMPLETED) \
    X(request_flood, POSTCOPY, FAULTLINE, PACKAGE, put_flood(w), GO_ON, "", COMPLETED) \
    X(request_flood_urgent, PREEMPT, FAULTLINE, PACKAGE, put_flood(w), GO_ON, "", COMPLETED) \
    X(type_0, PRECOPY, FAULTLINE, PAGES, put_message(w, 0, 0), GO_ON, "is 0", KEPT) \
    X(type_8, PRECOPY, FAULTLINE, PAGES, put_message(w, 8, 4), GO_ON, "is 8", KEPT) \
    X(type_65535, POSTCOPY, FAULTLINE, PACKAGE, put_message(w, 65535, 4), GO_ON, "is 65535", UNSAID) \
    X(shut_of_3, PRECOPY, FAULTLINE, PAGES, put_message(w, 1, 3), GO_ON, "length is 3", KEPT) \
    X(pong_of_65535, PRECOPY, FAULTLINE, PAGES, put_message(w, 2, 65535), GO_ON, "length is 65535", KEPT) \
    X(request_id_of_13, POSTCOPY, FAULTLINE, PACKAGE, put_message(w, 3, 13), GO_ON, "length is 13", UNSAID) \
    X(request_of_11, POSTCOPY, FAULTLINE, PACKAGE, put_message(w, 4, 11), GO_ON, "length is 11", UNSAID) \
    X(bitmap_in_precopy, PRECOPY, FAULTLINE, PAGES, put_bitmap(w), GO_ON, "none was asked for", KEPT) \
    X(bitmap_in_postcopy, POSTCOPY, FAULTLINE, PACKAGE, put_bitmap(w), GO_ON, "none was asked for", UNSAID) \
    X(resume_ack, PRECOPY, FAULTLINE, PAGES, stream_put_return_value(w, STREAM_RETURN_RESUME_ACK, 1), GO_ON, "nobody asked for that", KEPT) \
    X(switchover_ack, PRECOPY, FAULTLINE, PAGES, put_message(w, 7, 0), GO_ON, "", COMPLETED) \
    X(shut_0_at_connect, PRECOPY, FAULTLINE, CONNECTED, SHUT(0), GO_ON, "ended the migration early, with error 0", KEPT) \
    X(shut_0_at_hello, PRECOPY, FAULTLINE, HELLO, SHUT(0), GO_ON, "ended the migration early, with error 0", KEPT) \
    X(shut_0_at_commit, PRECOPY, FAULTLINE, COMMIT, SHUT(0), GO_ON, "ended the migration early, with error 0", KEPT) \
    X(shut_1_at_hello, PRECOPY, FAULTLINE, HELLO, SHUT(1), GO_ON, "ended the migration early, with error 1", KEPT) \
    X(shut_1_at_pages, PRECOPY, FAULTLINE, PAGES, SHUT(1), GO_ON, "ended the migration early, with error 1", KEPT) \
    X(shut_1_at_commit, PRECOPY, FAULTLINE, COMMIT, SHUT(1), CLOSE, "ended the migration early, with error 1", KEPT) \
    X(shut_1_at_eof, PRECOPY, FAULTLINE, EOF, SHUT(1), GO_ON, "ended the migration with error 1", KEPT) \
    X(shut_1_at_eof_of_qemu, PRECOPY, QEMU, EOF, SHUT(1), GO_ON, "ended the migration with error 1", LOST) \
    X(shut_1_at_hello_preempt, PREEMPT, FAULTLINE, HELLO, SHUT(1), GO_ON, "ended the migration early, with error 1", KEPT) \
    X(shut_1_at_package, POSTCOPY, FAULTLINE, PACKAGE, SHUT(1), GO_ON, "ended the migration early, with error 1", KEPT) \
    X(shut_1_at_package_of_qemu, POSTCOPY, QEMU, PACKAGE, SHUT(1), GO_ON, "ended the migration early, with error 1", KEPT) \
    X(shut_1_at_running_of_qemu, POSTCOPY, QEMU, RUNNING, SHUT(1), GO_ON, "ended the migration early, with error 1", PAUSED) \
    X(shut_0_at_package, POSTCOPY, FAULTLINE, PACKAGE, SHUT(0), GO_ON, "ended the migration early, with error 0", UNSAID) \
    X(shut_1_at_eof_postcopy_of_qemu, POSTCOPY, QEMU, EOF, SHUT(1), GO_ON, "ended the migration with error 1", PAUSED) \
    X(pong_all_ones, PRECOPY, FAULTLINE, PAGES, PONG(0xffffffff), GO_ON, "", COMPLETED) \
    X(pong_0, PRECOPY, FAULTLINE, PAGES, PONG(0), GO_ON, "", COMPLETED) \
    X(pong_all_features, PRECOPY, FAULTLINE, HELLO, PONG(0xfa18ffff), GO_ON, "", COMPLETED) \
    X(pong_less_preempt, PREEMPT, FAULTLINE, HELLO, PONG(STREAM_AGREE_ANSWER | 1), GO_ON, "'postcopy-preempt' is on at the source and off at the destination", KEPT) \
    X(pong_more_capabilities, POSTCOPY, FAULTLINE, HELLO, PONG(STREAM_AGREE_ANSWER | 0x4001), GO_ON, "capability '0x4000 (of a later version)' is off at the source", KEPT) \
    X(pong_of_agreement_in_precopy, PRECOPY, FAULTLINE, HELLO, PONG(STREAM_AGREE_ANSWER | 0x4001), GO_ON, "", COMPLETED) \
    X(pong_unasked_in_postcopy, POSTCOPY, FAULTLINE, PACKAGE, PONG(STREAM_PING_COMMIT), GO_ON, "", COMPLETED) \
    X(close_at_connect, PRECOPY, FAULTLINE, CONNECTED, NOTHING, CLOSE, "", KEPT) \
    X(close_at_hello, PRECOPY, FAULTLINE, HELLO, NOTHING, CLOSE, "", KEPT) \
    X(close_at_pages, PRECOPY, FAULTLINE, PAGES, NOTHING, CLOSE, "", KEPT) \
    X(close_at_stop, PRECOPY, FAULTLINE, STOPPED, NOTHING, CLOSE, "", KEPT) \
    X(close_at_commit, PRECOPY, FAULTLINE, COMMIT, NOTHING, CLOSE, "", KEPT) \
    X(close_at_eof, PRECOPY, FAULTLINE, EOF, NOTHING, CLOSE, "", LOST) \
    X(close_at_eof_of_qemu, PRECOPY, QEMU, EOF, NOTHING, CLOSE, "", LOST) \
    X(close_at_hello_preempt, PREEMPT, FAULTLINE, HELLO, NOTHING, CLOSE, "", KEPT) \
    X(close_at_package, POSTCOPY, FAULTLINE, PACKAGE, NOTHING, CLOSE, "", UNSAID) \
    X(close_at_running, PREEMPT, FAULTLINE, RUNNING, NOTHING, CLOSE, "", PAUSED) \
    X(close_at_pushed, POSTCOPY, FAULTLINE, PUSHED, NOTHING, CLOSE, "", PAUSED) \
    X(close_at_eof_postcopy, POSTCOPY, FAULTLINE, EOF, NOTHING, CLOSE, "", PAUSED) \
    X(half_close_at_hello, PRECOPY, FAULTLINE, HELLO, NOTHING, HALF_CLOSE, "closed the connection", KEPT) \
    X(half_close_at_commit, PRECOPY, FAULTLINE, COMMIT, NOTHING, HALF_CLOSE, "closed the connection", KEPT) \
    X(half_close_at_eof, PRECOPY, FAULTLINE, EOF, NOTHING, HALF_CLOSE, "closed the connection", LOST) \
    X(half_close_at_running, POSTCOPY, FAULTLINE, RUNNING, NOTHING, HALF_CLOSE, "closed the connection", PAUSED)
/* clang-format on */

#define PUT(name, shape, peer, moment, statements, then, words, outcome)                           \
    static void put_##name(StreamWriter *w)                                                        \
    {                                                                                              \
        statements;                                                                                \
    }
RETURN_LIST(PUT)
#undef PUT

static BadReturn returns[] = {
#define ROW(name, shape, peer, moment, statements, then, words, outcome)                           \
    {"migrate_" #name, SCRIPT_##shape, peer, {MOMENT_##moment, put_##name, SINK_##then, 0}, words, \
     OUTCOME_##outcome},
    RETURN_LIST(ROW)
#undef ROW
};

static void
check_text(const FaultlineInfo *info, const char *words)
{
    if (!strstr(info->error, words))
        fail_msg("the error lacks \"%s\": %s", words, info->error);
}

static void
check_outcome(const PeerSink *sink, Outcome outcome, const char *words)
{
    static const struct {
        FaultlineStatus status;
        FaultlineRunState run_state;
        const char *where;
    } expected[] = {
        {FAULTLINE_STATUS_COMPLETED, FAULTLINE_RUN_POSTMIGRATE, ""},
        {FAULTLINE_STATUS_FAILED, FAULTLINE_RUN_RUNNING, "The guest goes on at the source, whole"},
        {FAULTLINE_STATUS_FAILED, FAULTLINE_RUN_POSTMIGRATE,
         "The destination had everything and may run the guest, so it stays stopped here"},
        {FAULTLINE_STATUS_POSTCOPY_PAUSED, FAULTLINE_RUN_POSTMIGRATE,
         "The guest runs at the destination and waits for pages that are kept here"},
        {FAULTLINE_STATUS_POSTCOPY_PAUSED, FAULTLINE_RUN_POSTMIGRATE,
         "has not said that it loaded it; the guest stays stopped here"},
    };
    unsigned count_resumes = peer_count(&sink->guest->count_resumes);
    unsigned count_pauses = peer_count(&sink->guest->count_pauses);
    FaultlineInfo info;

    peer_sink_info(sink, &info);
    if (info.status != expected[outcome].status)
        fail_msg("status is %s, expected %s: %s", faultline_status_name(info.status),
                 faultline_status_name(expected[outcome].status), info.error);
    check_text(&info, words);
    check_text(&info, expected[outcome].where);
    assert_int_equal(info.run_state, expected[outcome].run_state);
    assert_int_equal(count_resumes, count_pauses + (outcome == OUTCOME_KEPT ? 1 : 0));
    assert_true(peer_guest_is_filled(sink->guest));
}

static void
migrate_return_ends_as_it_must(void **state)
{
    const BadReturn *row = *state;
    g_autoptr(PeerSink) sink = peer_sink_new(row->shape, row->is_qemu, &row->plan);

    peer_sink_run(sink, PEER_WAIT_MS);
    check_outcome(sink, row->outcome, row->words);
}

/* ---- Destinations that do nothing wrong --------------------------------------------------------
 */

static ScriptShape shapes[] = {SCRIPT_PRECOPY, SCRIPT_POSTCOPY, SCRIPT_PREEMPT};

static void
migrate_to_faultline_completes(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    g_autoptr(PeerSink) sink = peer_sink_new(shape, false, NULL);

    peer_sink_run(sink, PEER_WAIT_MS);
    check_outcome(sink, OUTCOME_COMPLETED, "");
    assert_int_equal(sink->count_commits, shape == SCRIPT_PRECOPY ? 1 : 0);
}

static void
migrate_to_qemu_completes_without_commit(void **state)
{
    ScriptShape shape = *(ScriptShape *)*state;
    g_autoptr(PeerSink) sink = peer_sink_new(shape, true, NULL);

    peer_sink_run(sink, PEER_WAIT_MS);
    check_outcome(sink, OUTCOME_COMPLETED, "");
    assert_int_equal(sink->count_commits, 0);
    /* hello alone; in postcopy also what must agree, and behind the discards and the package */
    assert_int_equal(sink->count_pings, shape == SCRIPT_PRECOPY ? 1 : 4);
    assert_true(sink->count_pages > 0);
    assert_int_equal(sink->reached, MOMENT_EOF);
}

/* ---- Destinations that do nothing at all -------------------------------------------------------
 */

static void
cancel_gives_the_guest_back(PeerSink *sink)
{
    g_autoptr(GError) error = NULL;

    if (!faultline_cancel(sink->guest->faultline, &error))
        fail_msg("%s", error->message);
    assert_int_equal(faultline_wait(sink->guest->faultline, PEER_WAIT_MS),
                     FAULTLINE_STATUS_CANCELLED);
    assert_int_equal(faultline_run_state(sink->guest->faultline), FAULTLINE_RUN_RUNNING);
}

static void
migrate_to_one_that_never_reads_can_be_cancelled(void **state)
{
    (void)state;
    const SinkPlan plan = {MOMENT_CONNECTED, NULL, SINK_STOP_READING, 0};
    g_autoptr(PeerSink) sink = peer_sink_new(SCRIPT_PRECOPY, false, &plan);

    assert_int_equal(peer_sink_run(sink, 200), FAULTLINE_STATUS_ACTIVE);
    cancel_gives_the_guest_back(sink);
}

static void
migrate_to_one_that_never_answers_can_be_cancelled(void **state)
{
    (void)state;
    const SinkPlan plan = {MOMENT_EOF, NULL, SINK_SILENT, 0};
    g_autoptr(PeerSink) sink = peer_sink_new(SCRIPT_PRECOPY, false, &plan);

    /* The guest is not stopped for one that has not answered yet. */
    peer_sink_run(sink, 200);
    assert_int_equal(sink->reached, MOMENT_PAGES);
    assert_int_equal(faultline_run_state(sink->guest->faultline), FAULTLINE_RUN_RUNNING);
    cancel_gives_the_guest_back(sink);
}

/* No page is lost by it, and the process can still end. */
static void
migrate_to_one_that_stops_reading_in_postcopy_stays(void **state)
{
    (void)state;
    const SinkPlan plan = {MOMENT_RUNNING, NULL, SINK_STOP_READING, 0};
    g_autoptr(PeerSink) sink = peer_sink_new(SCRIPT_POSTCOPY, false, &plan);
    g_autoptr(GError) error = NULL;

    assert_int_equal(peer_sink_run(sink, 200), FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_false(faultline_cancel(sink->guest->faultline, &error));
    assert_true(g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE));
}

#define SHAPE_TEST(name, shape)                                                                    \
    {                                                                                              \
#name "_" #shape, name, NULL, NULL, &shapes[SCRIPT_##shape]                                \
    }

int
main(void)
{
    const struct CMUnitTest others[] = {
        SHAPE_TEST(migrate_to_faultline_completes, PRECOPY),
        SHAPE_TEST(migrate_to_faultline_completes, POSTCOPY),
        SHAPE_TEST(migrate_to_faultline_completes, PREEMPT),
        SHAPE_TEST(migrate_to_qemu_completes_without_commit, PRECOPY),
        SHAPE_TEST(migrate_to_qemu_completes_without_commit, POSTCOPY),
        SHAPE_TEST(migrate_to_qemu_completes_without_commit, PREEMPT),
        cmocka_unit_test(migrate_to_one_that_never_reads_can_be_cancelled),
        cmocka_unit_test(migrate_to_one_that_never_answers_can_be_cancelled),
        cmocka_unit_test(migrate_to_one_that_stops_reading_in_postcopy_stays),
    };
    struct CMUnitTest tests[G_N_ELEMENTS(returns) + G_N_ELEMENTS(others)];

    memcpy(tests, others, sizeof others);
    for (unsigned i = 0; i < G_N_ELEMENTS(returns); i++)
        tests[G_N_ELEMENTS(others) + i] = (struct CMUnitTest){
            returns[i].name, migrate_return_ends_as_it_must, NULL, NULL, &returns[i]};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
