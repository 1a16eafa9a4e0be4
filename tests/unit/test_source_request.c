/* SPDX-License-Identifier: MIT */
/* link: -Wl,--wrap=transport_send */
/*
 * The request role of a real source, stepped by hand over real sockets, without a migration around
 * it: what leaves on the urgent channel, in which order and in how many sends.
 */
#include "engine/source/source.h"
#include "tests/unit/support/peer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SENDS_MAX   256u
#define RECORDS_MAX 4096u

typedef struct Fixture {
    PeerGuest *guest;
    Source *source;
    TransportRing *ring;
    int back, urgent; /* the destination's ends */
    uint64_t count_asked;
    uint64_t pages[RECORDS_MAX]; /* of the records that have come */
    unsigned count_pages;
    GByteArray *received;
} Fixture;

static unsigned count_sends;
static unsigned send_pages[SENDS_MAX]; /* in each: iov entries of a page's length */

TransportResult __real_transport_send(TransportSender *sender, const struct iovec *iov,
                                      unsigned count_iov);
TransportResult __wrap_transport_send(TransportSender *sender, const struct iovec *iov,
                                      unsigned count_iov);

TransportResult
__wrap_transport_send(TransportSender *sender, const struct iovec *iov, unsigned count_iov)
{
    TransportResult result = __real_transport_send(sender, iov, count_iov);
    if (result == TRANSPORT_OK) {
        assert_true(count_sends < SENDS_MAX);
        send_pages[count_sends] = 0;
        for (unsigned i = 0; i < count_iov; i++)
            send_pages[count_sends] += iov[i].iov_len == FAULTLINE_PAGE_BYTES;
        count_sends++;
    }
    return result;
}

/* ---- A source with two links -------------------------------------------------------------------
 */

static TransportLink *
link_new(Fixture *fixture, int *ret_peer)
{
    TransportLink *link = NULL;
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    *ret_peer = ends[1];
    g_autofree char *uri = g_strdup_printf("fd:%d", ends[0]);
    TransportConnector *connector = transport_connect(fixture->ring, uri, NULL);
    assert_non_null(connector);
    while (transport_connect_finish(connector, &link, NULL) == TRANSPORT_WAIT)
        transport_ring_wait(fixture->ring, 0);
    transport_connector_free(connector);
    assert_non_null(link);
    return link;
}

static Fixture *
fixture_new(bool has_urgent, uint64_t neighbour_pages)
{
    static const char *const capabilities[] = {"postcopy-ram", "postcopy-preempt", NULL};
    Fixture *fixture = g_new0(Fixture, 1);
    g_autoptr(GError) error = NULL;

    fixture->guest = peer_guest_new(capabilities);
    for (unsigned i = 0; i < 2; i++) /* no page is zero: each is an entry of a send's array */
        memset(fixture->guest->blocks[i].host_address, 0x5a,
               fixture->guest->blocks[i].length_bytes);
    Faultline *faultline = fixture->guest->faultline;
    assert_true(faultline_set_parameter(faultline, "neighbour-pages", neighbour_pages, NULL));
    fixture->ring = transport_ring_new(&error);
    Source *source = fixture->ring ? source_new(faultline, "unix:/none", &error) : NULL;
    if (!source)
        fail_msg("%s", error->message);
    fixture->source = source;
    source->request.ring = fixture->ring;
    source->request_link = link_new(fixture, &fixture->back);
    if (has_urgent)
        source->request_urgent_link = link_new(fixture, &fixture->urgent);
    source->features = STREAM_FEATURE_COMMIT;
    source->answers_requests = true;
    for (unsigned i = 0; i < source->blocks->count; i++)
        page_bitmap_set_range(source->blocks->blocks[i].dirty, 0,
                              source->blocks->blocks[i].count_pages);
    fixture->received = g_byte_array_new();
    count_sends = 0;
    return fixture;
}

static void
fixture_free(Fixture *fixture)
{
    source_request_close(fixture->source);
    fixture->source->request.ring = NULL;
    transport_ring_free(fixture->ring);
    source_free(fixture->source);
    peer_guest_free(fixture->guest);
    close(fixture->back);
    if (fixture->urgent)
        close(fixture->urgent);
    g_byte_array_unref(fixture->received);
    g_free(fixture);
}

/* All in one write. */
static void
ask(Fixture *fixture, const uint64_t *pages, unsigned count)
{
    uint8_t bytes[4096];
    StreamWriter writer = {bytes, 0, sizeof bytes};
    const RamBlock *block = &fixture->source->blocks->blocks[0];

    for (unsigned i = 0; i < count; i++)
        stream_put_request(&writer, fixture->count_asked++ ? NULL : "ram0", PEER_PAGES(pages[i]),
                           (uint32_t)block->is.page_size_bytes);
    assert_int_equal(write(fixture->back, bytes, writer.length), (ssize_t)writer.length);
}

static FaultlineInfo
info_of(const Fixture *fixture)
{
    FaultlineInfo info;
    faultline_query(fixture->guest->faultline, &info);
    return info;
}

static void
receive(Fixture *fixture)
{
    static uint8_t bytes[1 << 16];
    ssize_t got;
    StreamRecord record;
    size_t length;

    while (fixture->urgent && (got = recv(fixture->urgent, bytes, sizeof bytes, MSG_DONTWAIT)) > 0)
        g_byte_array_append(fixture->received, bytes, (guint)got);
    while (fixture->received->len &&
           stream_decode_record(fixture->received->data, fixture->received->len, "urgent", false,
                                &record, &length, NULL) == STREAM_OK) {
        assert_true(fixture->count_pages < RECORDS_MAX);
        fixture->pages[fixture->count_pages++] = record.offset / FAULTLINE_PAGE_BYTES;
        g_byte_array_remove_range(fixture->received, 0, (guint)length);
    }
}

/* Steps until everything that was asked for is taken, and what follows from it has left. */
static void
settle(Fixture *fixture)
{
    int64_t end_us = g_get_monotonic_time() + PEER_WAIT_MS * 1000;
    bool is_idle;

    do {
        StepResult result = source_request_step(fixture->source);
        assert_int_not_equal(result, STEP_DONE);
        is_idle = result == STEP_WAIT &&
                  info_of(fixture).postcopy_requests == fixture->count_asked &&
                  frame_queue_is_empty(&fixture->source->urgent);
        if (result == STEP_WAIT && !is_idle)
            transport_ring_wait(fixture->ring, clock_now_ns() + 1000000);
        assert_true(g_get_monotonic_time() < end_us);
    } while (!is_idle);
    receive(fixture);
}

static void
ask_one(Fixture *fixture, uint64_t page)
{
    ask(fixture, &page, 1);
    settle(fixture);
}

static void
expect_pages(const Fixture *fixture, const uint64_t *pages, unsigned count)
{
    assert_int_equal(fixture->count_pages, count);
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(fixture->pages[i], pages[i]);
}

#define EXPECT_PAGES(fixture, ...)                                                                 \
    expect_pages(fixture, (const uint64_t[]){__VA_ARGS__},                                         \
                 G_N_ELEMENTS(((const uint64_t[]){__VA_ARGS__})))

static uint64_t
hint_page(const Fixture *fixture)
{
    uint64_t hint = fixture->source->cursor_hint;
    assert_int_equal(hint >> SOURCE_HINT_SHIFT, 0);
    return hint;
}

/* ---- Batches -----------------------------------------------------------------------------------
 */

static void
request_alone_is_answered_by_one_send(void **state)
{
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    ask_one(fixture, 300);
    EXPECT_PAGES(fixture, 300);
    assert_int_equal(count_sends, 1);
    assert_int_equal(hint_page(fixture), 301);
    fixture_free(fixture);
}

static void
requests_that_came_together_are_answered_by_one_send(void **state)
{
    const uint64_t pages[] = {500, 3,  77,  240, 150, 599, 0,   333,
                              410, 28, 555, 101, 200, 60,  450, 9};
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    ask(fixture, pages, G_N_ELEMENTS(pages));
    settle(fixture);
    expect_pages(fixture, pages, G_N_ELEMENTS(pages));
    assert_int_equal(count_sends, 1);
    assert_int_equal(send_pages[0], G_N_ELEMENTS(pages));
    FaultlineInfo info = info_of(fixture);
    assert_int_equal(info.requested_pages, G_N_ELEMENTS(pages));
    assert_int_equal(info.postcopy_requests, G_N_ELEMENTS(pages));
    assert_int_equal(info.neighbour_pages, 0);
    fixture_free(fixture);
}

static void
requests_beyond_a_batch_are_answered_by_the_next_send(void **state)
{
    uint64_t pages[SOURCE_BATCH_MAX + 8];
    Fixture *fixture = fixture_new(true, 0);
    (void)state;
    for (unsigned i = 0; i < G_N_ELEMENTS(pages); i++)
        pages[i] = i * 7;
    ask(fixture, pages, G_N_ELEMENTS(pages));
    settle(fixture);
    expect_pages(fixture, pages, G_N_ELEMENTS(pages));
    assert_int_equal(count_sends, 2);
    assert_int_equal(send_pages[0], SOURCE_BATCH_MAX);
    assert_int_equal(send_pages[1], 8);
    fixture_free(fixture);
}

static void
request_for_a_page_that_has_left_sends_nothing(void **state)
{
    const uint64_t pages[] = {300, 300, 200};
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    ask(fixture, pages, 3);
    settle(fixture);
    ask_one(fixture, 200);
    EXPECT_PAGES(fixture, 300, 200);
    assert_int_equal(count_sends, 1);
    assert_int_equal(info_of(fixture).requested_pages, 2);
    fixture_free(fixture);
}

static void
request_of_more_pages_than_a_frame_holds_goes_on_in_the_next(void **state)
{
    uint8_t bytes[64];
    StreamWriter writer = {bytes, 0, sizeof bytes};
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    stream_put_request(&writer, "ram0", 0, (uint32_t)PEER_PAGES(PEER_RAM0_PAGES));
    assert_int_equal(write(fixture->back, bytes, writer.length), (ssize_t)writer.length);
    fixture->count_asked = 1;
    while (fixture->count_pages < PEER_RAM0_PAGES) {
        if (source_request_step(fixture->source) == STEP_WAIT)
            transport_ring_wait(fixture->ring, clock_now_ns() + 1000000);
        receive(fixture);
    }
    for (unsigned i = 0; i < PEER_RAM0_PAGES; i++)
        assert_int_equal(fixture->pages[i], i);
    assert_int_equal(count_sends, (PEER_RAM0_PAGES + FRAME_PAGES - 1) / FRAME_PAGES);
    fixture_free(fixture);
}

/* ---- Neighbours --------------------------------------------------------------------------------
 */

static void
stream_of_requests_brings_neighbours_behind_the_requested_page(void **state)
{
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    ask_one(fixture, 100);
    ask_one(fixture, 101);
    assert_int_equal(count_sends, 2);
    ask_one(fixture, 102);
    EXPECT_PAGES(fixture, 100, 101, 102, 103, 104, 105, 106);
    assert_int_equal(count_sends, 4);
    assert_int_equal(send_pages[2], 1);
    assert_int_equal(send_pages[3], 4);
    FaultlineInfo info = info_of(fixture);
    assert_int_equal(info.requested_pages, 3);
    ask_one(fixture, 107);
    info = info_of(fixture);
    assert_int_equal(info.requested_pages, 4);
    assert_int_equal(info.neighbour_pages, 4 + 8);
    assert_int_equal(info.postcopy_requests, 4);
    assert_int_equal(info.normal_pages, 4 + 4 + 8);
    assert_int_equal(hint_page(fixture), 116);
    fixture_free(fixture);
}

static void
stream_over_pages_that_have_left_skips_them(void **state)
{
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    source_claim(&fixture->source->blocks->blocks[0], 104);
    ask_one(fixture, 100);
    ask_one(fixture, 101);
    ask_one(fixture, 102);
    EXPECT_PAGES(fixture, 100, 101, 102, 103, 105, 106);
    fixture_free(fixture);
}

static void
stream_downwards_sends_the_pusher_below_it(void **state)
{
    Fixture *fixture = fixture_new(true, 16);
    (void)state;
    ask_one(fixture, 590);
    ask_one(fixture, 589);
    ask_one(fixture, 588);
    EXPECT_PAGES(fixture, 590, 589, 588, 587, 586, 585, 584);
    assert_int_equal(hint_page(fixture), 584 - SOURCE_EXTENT_PAGES);
    fixture_free(fixture);
}

static void
request_that_comes_between_two_frames_of_neighbours_goes_first(void **state)
{
    const uint64_t urgent = 500;
    Fixture *fixture = fixture_new(true, 64);
    (void)state;
    for (uint64_t page = 100; page < 131; page++)
        ask_one(fixture, page);
    /* 131 is the page behind a window; what follows it takes several frames. */
    unsigned before = fixture->count_pages;
    uint64_t next = fixture->pages[before - 1] + 1;
    ask(fixture, &next, 1);
    while (!fixture->source->count_windows) {
        if (source_request_step(fixture->source) == STEP_WAIT)
            transport_ring_wait(fixture->ring, clock_now_ns() + 1000000);
    }
    ask(fixture, &urgent, 1);
    settle(fixture);
    unsigned at = before;
    while (at < fixture->count_pages && fixture->pages[at] != urgent)
        at++;
    assert_in_range(at, before + 1, fixture->count_pages - 2);
    fixture_free(fixture);
}

static void
no_stream_brings_neighbours_where_they_are_off_or_not_understood(void **state)
{
    (void)state;
    for (unsigned is_off = 0; is_off < 2; is_off++) {
        Fixture *fixture = fixture_new(true, is_off ? 0 : 16);
        if (!is_off)
            fixture->source->features = 0; /* a QEMU */
        for (uint64_t page = 100; page < 120; page++)
            ask_one(fixture, page);
        assert_int_equal(fixture->count_pages, 20);
        assert_int_equal(info_of(fixture).neighbour_pages, 0);
        assert_int_equal(count_sends, 20);
        assert_in_range(hint_page(fixture), 120, 121);
        fixture_free(fixture);
    }
}

static void
stream_of_large_host_pages_brings_whole_ones(void **state)
{
    (void)state;
    for (unsigned most = 3; most < 5; most++) {
        Fixture *fixture = fixture_new(true, most);
        RamBlock *block = &fixture->source->blocks->blocks[0];
        block->host_pages = 4;
        block->is.page_size_bytes = 4 * FAULTLINE_PAGE_BYTES;
        ask_one(fixture, 100);
        ask_one(fixture, 104);
        ask_one(fixture, 108);
        unsigned expected = most == 3 ? 12 : 16;
        assert_int_equal(fixture->count_pages, expected);
        for (unsigned i = 0; i < expected; i++)
            assert_int_equal(fixture->pages[i], 100 + i);
        fixture_free(fixture);
    }
}

static void
requests_without_urgent_channel_are_left_to_the_pusher(void **state)
{
    const uint64_t pages[] = {590, 589, 588};
    Fixture *fixture = fixture_new(false, 16);
    SourceRequest request;
    (void)state;
    ask(fixture, pages, 3);
    settle(fixture);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(source_requests_pop(fixture->source, &request));
        assert_int_equal(request.page, pages[i]);
    }
    assert_false(source_requests_pop(fixture->source, &request));
    assert_int_equal(hint_page(fixture), 587 - SOURCE_EXTENT_PAGES);
    assert_int_equal(count_sends, 0);
    fixture_free(fixture);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_alone_is_answered_by_one_send),
        cmocka_unit_test(requests_that_came_together_are_answered_by_one_send),
        cmocka_unit_test(requests_beyond_a_batch_are_answered_by_the_next_send),
        cmocka_unit_test(request_for_a_page_that_has_left_sends_nothing),
        cmocka_unit_test(request_of_more_pages_than_a_frame_holds_goes_on_in_the_next),
        cmocka_unit_test(stream_of_requests_brings_neighbours_behind_the_requested_page),
        cmocka_unit_test(stream_over_pages_that_have_left_skips_them),
        cmocka_unit_test(stream_downwards_sends_the_pusher_below_it),
        cmocka_unit_test(request_that_comes_between_two_frames_of_neighbours_goes_first),
        cmocka_unit_test(no_stream_brings_neighbours_where_they_are_off_or_not_understood),
        cmocka_unit_test(stream_of_large_host_pages_brings_whole_ones),
        cmocka_unit_test(requests_without_urgent_channel_are_left_to_the_pusher),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
