/* SPDX-License-Identifier: MIT */
/*
 * Receiving straight into the caller's memory over real sockets: order and exactness beside peeks,
 * what is told of a link that ends in the middle, memory that cannot be written, and giving up.
 */
#include "tests/unit/test_transport_pair.h"

#include <sys/mman.h>

typedef struct {
    TransportRing *ring;
    TransportLink *link;
    TransportReceiver *receiver;
    int peer;
} Receiving;

static Receiving
begin_receiving(void)
{
    Receiving receiving = {.ring = make_ring()};

    receiving.link = make_fd_link(receiving.ring, &receiving.peer);
    receiving.receiver = transport_receiver_new(receiving.ring, receiving.link);
    return receiving;
}

static void
close_peer(Receiving *receiving)
{
    close(receiving->peer);
    receiving->peer = -1;
}

static void
end_receiving(Receiving *receiving)
{
    transport_receiver_free(receiving->receiver);
    transport_link_unref(receiving->link);
    if (receiving->peer >= 0)
        close_peer(receiving);
    transport_ring_free(receiving->ring);
}

static TransportResult
wait_into(Receiving *receiving, void *bytes, size_t length, size_t *ret_done)
{
    uint64_t deadline_ns = now_ns() + PATIENCE_NS;
    size_t before = 0;
    TransportResult r;

    while ((r = transport_receive_into(receiving->receiver, bytes, length, ret_done)) ==
           TRANSPORT_WAIT) {
        assert_true(*ret_done >= before && *ret_done < length);
        before = *ret_done;
        assert_true(now_ns() < deadline_ns);
        transport_ring_wait(receiving->ring, deadline_ns);
    }
    return r;
}

static uint8_t
byte_at(uint64_t at)
{
    return (uint8_t)(at % 251);
}

static void
expect_bytes(const uint8_t *bytes, uint64_t at, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != byte_at(at + i))
            fail_msg("byte %zu is wrong", (size_t)at + i);
}

typedef struct {
    int fd;
    uint64_t length;
} Feeding;

static void *
feed(void *opaque)
{
    const Feeding *feeding = opaque;
    uint8_t chunk[40000];

    for (uint64_t sent = 0; sent < feeding->length;) {
        size_t length = MIN(sizeof chunk - sent % 977 * 40, feeding->length - sent);
        for (size_t i = 0; i < length; i++)
            chunk[i] = byte_at(sent + i);
        ssize_t n = send(feeding->fd, chunk, length, 0);
        assert_true(n > 0);
        sent += (uint64_t)n;
    }
    return NULL;
}

static void
receive_into_among_peeks_keeps_order_and_bounds(void **state)
{
    Receiving receiving = begin_receiving();
    Feeding feeding = {receiving.peer, 24u << 20};
    g_autofree uint8_t *memory = g_malloc((1u << 20) + 2);
    const uint8_t *bytes;
    uint64_t taken = 0;
    pthread_t feeder;
    (void)state;

    assert_int_equal(pthread_create(&feeder, NULL, feed, &feeding), 0);
    for (unsigned turn = 0; taken < feeding.length; turn++) {
        size_t peeked = MIN(turn % 7 ? 12 + turn % 40 : turn * 997 % 9000, feeding.length - taken);
        if (peeked) {
            assert_int_equal(wait_peek(receiving.ring, receiving.receiver, peeked, &bytes),
                             TRANSPORT_OK);
            expect_bytes(bytes, taken, peeked);
            transport_consume(receiving.receiver, peeked);
            taken += peeked;
        }
        size_t length =
            MIN(1 + turn * 7919u % (turn % 3 ? 300000 : 1u << 20), feeding.length - taken);
        size_t done;
        if (!length)
            break;
        memory[0] = memory[length + 1] = 0xfe;
        assert_int_equal(wait_into(&receiving, memory + 1, length, &done), TRANSPORT_OK);
        assert_int_equal(done, length);
        expect_bytes(memory + 1, taken, length);
        assert_int_equal(memory[0], 0xfe);
        assert_int_equal(memory[length + 1], 0xfe);
        taken += length;
    }
    pthread_join(feeder, NULL);
    assert_int_equal(transport_receiver_count_bytes(receiving.receiver), feeding.length);
    end_receiving(&receiving);
}

static void
receive_into_takes_first_what_is_buffered(void **state)
{
    Receiving receiving = begin_receiving();
    const uint8_t *bytes;
    char memory[8] = "";
    size_t done;
    (void)state;

    assert_int_equal(write(receiving.peer, "abcdefgh", 8), 8);
    assert_int_equal(wait_peek(receiving.ring, receiving.receiver, 8, &bytes), TRANSPORT_OK);
    transport_consume(receiving.receiver, 2);
    assert_int_equal(transport_receive_into(receiving.receiver, memory, 3, &done), TRANSPORT_OK);
    assert_memory_equal(memory, "cde", 4);
    assert_int_equal(transport_receive_into(receiving.receiver, memory, 8, &done), TRANSPORT_WAIT);
    assert_int_equal(done, 3);
    assert_memory_equal(memory, "fgh", 3);
    assert_int_equal(write(receiving.peer, "ijklmnop", 8), 8);
    assert_int_equal(wait_into(&receiving, memory, 8, &done), TRANSPORT_OK);
    assert_memory_equal(memory, "fghijklm", 8);
    expect_text(receiving.ring, receiving.receiver, "nop");
    end_receiving(&receiving);
}

/* What was asked for before comes through the buffer. */
static void
receive_into_behind_a_peek_under_way_gets_its_bytes(void **state)
{
    Receiving receiving = begin_receiving();
    const uint8_t *bytes;
    char memory[4];
    size_t done;
    (void)state;

    assert_int_equal(transport_peek(receiving.receiver, 2, &bytes), TRANSPORT_WAIT);
    assert_int_equal(transport_receive_into(receiving.receiver, memory, 4, &done), TRANSPORT_WAIT);
    assert_int_equal(done, 0);
    assert_int_equal(write(receiving.peer, "abcdef", 6), 6);
    assert_int_equal(wait_into(&receiving, memory, 4, &done), TRANSPORT_OK);
    assert_memory_equal(memory, "abcd", 4);
    expect_text(receiving.ring, receiving.receiver, "ef");
    end_receiving(&receiving);
}

static void
receive_into_of_a_closed_link_tells_end_or_error(void **state)
{
    char memory[8];
    size_t done;
    (void)state;

    for (unsigned sent = 0; sent < 2; sent++) {
        Receiving receiving = begin_receiving();
        const uint8_t *bytes;

        assert_int_equal(write(receiving.peer, "abc", sent * 3), sent * 3);
        close_peer(&receiving);
        assert_int_equal(wait_into(&receiving, memory, 8, &done),
                         sent ? TRANSPORT_ERROR_RESULT : TRANSPORT_END);
        assert_int_equal(done, sent * 3);
        assert_memory_equal(memory, "abc", sent * 3);
        if (sent) {
            const GError *error = transport_receiver_error(receiving.receiver);
            assert_int_equal(error->code, TRANSPORT_ERROR_LINK);
            assert_non_null(strstr(error->message, "of 8 bytes only 3 came"));
        }
        assert_int_equal(wait_peek(receiving.ring, receiving.receiver, 1, &bytes), TRANSPORT_END);
        end_receiving(&receiving);
    }
}

static void
receive_into_memory_that_is_not_there_is_a_host_error(void **state)
{
    Receiving receiving = begin_receiving();
    size_t page = 4096, done;
    (void)state;

    uint8_t *memory = mmap(NULL, 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    assert_int_equal(write(receiving.peer, "abc", 3), 3);
    assert_int_equal(wait_into(&receiving, memory, page, &done), TRANSPORT_ERROR_RESULT);
    assert_int_equal(done, 0);
    assert_int_equal(transport_receiver_error(receiving.receiver)->code, TRANSPORT_ERROR_HOST);
    munmap(memory, 2 * page);
    end_receiving(&receiving);
}

/* is_submitted: the kernel knows of the receive already. */
static void
begin_in_the_middle(Receiving *receiving, char *memory, bool is_submitted)
{
    size_t done;

    assert_int_equal(write(receiving->peer, "abc", 3), 3);
    while (transport_receive_into(receiving->receiver, memory, 8, &done) == TRANSPORT_WAIT &&
           done < 3)
        transport_ring_wait(receiving->ring, now_ns() + PATIENCE_NS);
    if (is_submitted)
        transport_ring_wait(receiving->ring, now_ns() + 1000000);
}

static void
receive_leave_lets_go_of_the_memory(void **state)
{
    (void)state;

    for (unsigned submitted = 0; submitted < 2; submitted++) {
        Receiving receiving = begin_receiving();
        char memory[8] = "--------";

        transport_receive_leave(receiving.receiver); /* nothing is under way */
        begin_in_the_middle(&receiving, memory, submitted);
        transport_receive_leave(receiving.receiver);
        assert_int_equal(write(receiving.peer, "defgh", 5), 5);
        expect_text(receiving.ring, receiving.receiver, "defgh");
        assert_memory_equal(memory, "abc-----", 8);
        end_receiving(&receiving);
    }
}

static void
receiver_free_in_the_middle_lets_go_of_the_memory(void **state)
{
    (void)state;

    for (unsigned submitted = 0; submitted < 2; submitted++) {
        Receiving receiving = begin_receiving();
        char memory[8] = "--------";

        begin_in_the_middle(&receiving, memory, submitted);
        transport_receiver_free(receiving.receiver);
        receiving.receiver = NULL;
        assert_int_equal(write(receiving.peer, "defgh", 5), 5);
        transport_ring_wait(receiving.ring, now_ns() + 1000000);
        assert_memory_equal(memory, "abc-----", 8);
        end_receiving(&receiving);
    }
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(receive_into_among_peeks_keeps_order_and_bounds),
        cmocka_unit_test(receive_into_takes_first_what_is_buffered),
        cmocka_unit_test(receive_into_behind_a_peek_under_way_gets_its_bytes),
        cmocka_unit_test(receive_into_of_a_closed_link_tells_end_or_error),
        cmocka_unit_test(receive_into_memory_that_is_not_there_is_a_host_error),
        cmocka_unit_test(receive_leave_lets_go_of_the_memory),
        cmocka_unit_test(receiver_free_in_the_middle_lets_go_of_the_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
