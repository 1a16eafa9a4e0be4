/* SPDX-License-Identifier: MIT */
/*
 * Recovery with somebody at the other end who is not the peer, or lies: each of it leads back to
 * the pause with a text that says why, and costs nothing: the real peer recovers afterwards.
 */
#include "engine/stream/stream.h"
#include "tests/unit/support/peer.h"
#include "tests/unit/support/toy_move.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const ToyKind slow = {.name = "slow", .pages = 8192, .count_vcpus = 2, .rest_us = 20000};

typedef struct Scene {
    ToyMove move;
    char *folder, *path, *uri;
} Scene;

typedef struct Lie {
    void (*put)(StreamWriter *writer, const Toy *toy);
    const char *words;
} Lie;

static void
await(Toy *toy, FaultlineStatus status)
{
    FaultlineInfo info = {0};
    for (unsigned i = 0; i < TOY_TIMEOUT_MS; i++) {
        faultline_query(toy->faultline, &info);
        if (info.status == status)
            return;
        g_usleep(1000);
    }
    fail_msg("status %s, not %s: %s", faultline_status_name(info.status),
             faultline_status_name(status), info.error);
}

static void
await_both(Scene *scene, FaultlineStatus status)
{
    await(scene->move.from, status);
    await(scene->move.to, status);
}

static void
begin_pause(Scene *scene)
{
    ToyMove *move = &scene->move;
    toy_move_begin(move, &slow, TOY_UNIX);
    /* A QEMU has no token, and who knows one may lie as well. */
    toy_move_set(move, "postcopy-ram postcopy-preempt -recovery-token -auto-recover");
    assert_true(
        faultline_set_parameter(move->from->faultline, "max-postcopy-bandwidth", 1 << 20, NULL));
    assert_true(faultline_cont(move->from->faultline, NULL));
    toy_move_start(move);
    assert_true(faultline_start_postcopy(move->from->faultline, NULL));
    await_both(scene, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_true(faultline_pause(move->from->faultline, NULL));
    await_both(scene, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    scene->folder = peer_folder_new();
    scene->path = g_build_filename(scene->folder, "socket", NULL);
    scene->uri = g_strdup_printf("unix:%s", scene->path);
}

static void
end_whole(Scene *scene, bool is_listening)
{
    assert_true(is_listening || faultline_recover(scene->move.to->faultline, scene->uri, NULL));
    assert_true(faultline_migrate_resume(scene->move.from->faultline, scene->uri, NULL));
    await_both(scene, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    assert_true(
        faultline_set_parameter(scene->move.from->faultline, "max-postcopy-bandwidth", 0, NULL));
    toy_move_expect_moved(&scene->move);
    toy_move_end(&scene->move);
    peer_folder_free(scene->folder);
    g_free(scene->path);
    g_free(scene->uri);
}

/* Until the other side closes. */
static void
say(int fd, const StreamWriter *writer)
{
    uint8_t bytes[4096];
    size_t sent = 0;
    while (sent < writer->length) {
        ssize_t done = send(fd, writer->bytes + sent, writer->length - sent, MSG_NOSIGNAL);
        if (done <= 0)
            break;
        sent += (size_t)done;
    }
    while (recv(fd, bytes, sizeof bytes, 0) > 0)
        continue;
    close(fd);
}

static void
expect_words(Toy *toy, const char *words)
{
    await(toy, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    if (!strstr(toy_error(toy), words))
        fail_msg("'%s' lacks '%s'", toy_error(toy), words);
}

/* ---- A source that lies ------------------------------------------------------------------------
 */

static void
ask_bitmap(StreamWriter *writer, const char *name)
{
    uint8_t bytes[1 + STREAM_NAME_MAX];
    StreamWriter text = {.bytes = bytes, .capacity = sizeof bytes};
    stream_put_name(&text, name);
    stream_put_command(writer, STREAM_COMMAND_RECV_BITMAP, bytes, (uint16_t)text.length);
}

static void
put_unknown_block(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    ask_bitmap(writer, "no-such-ram");
}

static void
put_block_twice(StreamWriter *writer, const Toy *toy)
{
    ask_bitmap(writer, toy->blocks[0].name);
    ask_bitmap(writer, toy->blocks[0].name);
}

static void
put_early_resume(StreamWriter *writer, const Toy *toy)
{
    ask_bitmap(writer, toy->blocks[0].name);
    stream_put_command(writer, STREAM_COMMAND_POSTCOPY_RESUME, NULL, 0);
}

static void
put_resume(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    stream_put_command(writer, STREAM_COMMAND_POSTCOPY_RESUME, NULL, 0);
}

static void
put_part(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    stream_put_part(writer, STREAM_PART, 1);
}

static void
put_header(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    stream_put_header(writer);
}

static void
put_package(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    stream_put_command(writer, STREAM_COMMAND_PACKAGED, "\0\0\0\1", 4);
}

static void
put_eof(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    stream_put_u8(writer, STREAM_EOF);
}

static void
destination_refuses_a_source_that_lies_and_recovers(void **state)
{
    static const Lie lies[] = {
        {put_unknown_block, "which is not here"},
        {put_block_twice, "which was asked for before"},
        {put_early_resume, "after 1 of 2 RECV_BITMAPs"},
        {put_resume, "after 0 of 2 RECV_BITMAPs"},
        {put_package, "PACKAGED came before POSTCOPY_RESUME"},
        /* Not even a command to begin with: they are turned away. */
        {put_part, NULL},
        {put_header, NULL},
        {put_eof, NULL},
    };
    Scene scene;
    (void)state;
    begin_pause(&scene);
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        uint8_t bytes[2048];
        StreamWriter writer = {.bytes = bytes, .capacity = sizeof bytes};
        if (lies[i].words || lies[i - 1].words)
            assert_true(faultline_recover(scene.move.to->faultline, scene.uri, NULL));
        lies[i].put(&writer, scene.move.to);
        say(peer_connect(scene.path), &writer);
        expect_words(scene.move.to, lies[i].words ? lies[i].words : "PACKAGED");
    }
    end_whole(&scene, true);
}

/* ---- Strangers ---------------------------------------------------------------------------------
 */

static void
expect_refusal(Toy *toy, const char *words, uint64_t *refused)
{
    g_autofree FaultlineInfo *info = g_new0(FaultlineInfo, 1);
    faultline_query(toy->faultline, info);
    for (unsigned i = 0; i < TOY_TIMEOUT_MS && info->refused_connections == *refused; i++) {
        g_usleep(1000);
        faultline_query(toy->faultline, info);
    }
    if (info->refused_connections == *refused || !strstr(info->refusal, words))
        fail_msg("'%s' lacks '%s'", info->refusal, words);
    *refused = info->refused_connections;
    assert_int_equal(info->status, FAULTLINE_STATUS_POSTCOPY_PAUSED);
}

/* Silent ones stand there all the time; each of the others loses its own connection alone. */
static void
destination_turns_strangers_away_and_takes_the_source(void **state)
{
    static const struct {
        const char *bytes, *words;
        size_t length;
    } strangers[] = {
        {"GET / HTTP/1.0\r\n\r\n", "0x47 0x45 0x54 0x20 ('GET ')", 18},
        {"QEVM\0\0\0\3", "0x51 0x45 0x56 0x4d", 8},
        {"\1\0\0\0\1", "0x01 0x00 0x00 0x00", 5},
        {"\0\0\0\0", "0x00 0x00 0x00 0x00", 4},
        {"\26\3\1\2\0\1", "the peer speaks TLS, and this port is plain", 6},
    };
    Scene scene;
    int silent[100];
    uint64_t refused = 0;
    (void)state;
    begin_pause(&scene);
    assert_true(faultline_recover(scene.move.to->faultline, scene.uri, NULL));
    for (unsigned i = 0; i < G_N_ELEMENTS(silent); i++)
        silent[i] = peer_connect(scene.path);
    for (unsigned i = 0; i < G_N_ELEMENTS(strangers); i++) {
        uint8_t bytes[32];
        StreamWriter writer = {.bytes = bytes, .capacity = sizeof bytes};
        memcpy(bytes, strangers[i].bytes, strangers[i].length);
        writer.length = strangers[i].length;
        say(peer_connect(scene.path), &writer);
        expect_refusal(scene.move.to, strangers[i].words, &refused);
    }
    end_whole(&scene, true);
    for (unsigned i = 0; i < G_N_ELEMENTS(silent); i++)
        close(silent[i]);
}

/* ---- A destination that lies -------------------------------------------------------------------
 */

static void
put_bitmap(StreamWriter *writer, const FaultlineBlock *block, uint64_t pages)
{
    stream_put_bitmap_head(writer, block->name, pages);
    for (uint64_t i = 0; i < (pages + 63) / 64; i++)
        stream_put_bitmap_word(writer, 0);
    stream_put_bitmap_end(writer);
}

static uint64_t
pages_of(const FaultlineBlock *block)
{
    return block->length_bytes / FAULTLINE_PAGE_BYTES;
}

static void
put_second_block_first(StreamWriter *writer, const Toy *toy)
{
    put_bitmap(writer, &toy->blocks[1], pages_of(&toy->blocks[1]));
}

static void
put_wrong_size(StreamWriter *writer, const Toy *toy)
{
    put_bitmap(writer, &toy->blocks[0], pages_of(&toy->blocks[0]) + 64);
}

static void
put_bad_mark(StreamWriter *writer, const Toy *toy)
{
    put_bitmap(writer, &toy->blocks[0], pages_of(&toy->blocks[0]));
    writer->bytes[writer->length - 1] ^= 1;
}

static void
put_bitmap_too_many(StreamWriter *writer, const Toy *toy)
{
    for (unsigned i = 0; i < 3; i++)
        put_bitmap(writer, &toy->blocks[i % 2], pages_of(&toy->blocks[i % 2]));
}

static void
put_ack_without_bitmaps(StreamWriter *writer, const Toy *toy)
{
    (void)toy;
    stream_put_return_value(writer, STREAM_RETURN_RESUME_ACK, 1);
}

static void
put_request(StreamWriter *writer, const Toy *toy)
{
    stream_put_request(writer, toy->blocks[0].name, 0, FAULTLINE_PAGE_BYTES);
}

static void
put_half_a_bitmap(StreamWriter *writer, const Toy *toy)
{
    put_bitmap(writer, &toy->blocks[0], pages_of(&toy->blocks[0]));
    writer->length -= 100;
}

static void
source_refuses_a_destination_that_lies_and_recovers(void **state)
{
    static const Lie lies[] = {
        {put_second_block_first, "was next"},
        {put_wrong_size, "size is"},
        {put_bad_mark, "end mark is"},
        {put_bitmap_too_many, "after all of them"},
        {put_ack_without_bitmaps, "nobody asked for that"},
        {put_request, "before it was given the guest"},
        {put_half_a_bitmap, "inside a received bitmap"},
    };
    Scene scene;
    (void)state;
    begin_pause(&scene);
    for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
        g_autofree uint8_t *bytes = g_malloc(1u << 16);
        StreamWriter writer = {.bytes = bytes, .capacity = 1u << 16};
        int listener = peer_listen(scene.path);
        assert_true(faultline_migrate_resume(scene.move.from->faultline, scene.uri, NULL));
        int fd = accept(listener, NULL, NULL);
        assert_true(fd >= 0);
        lies[i].put(&writer, scene.move.from);
        /* Not before it has asked. */
        assert_int_equal(recv(fd, bytes + (1u << 16) - 1, 1, MSG_PEEK), 1);
        if (lies[i].put == put_half_a_bitmap)
            assert_int_equal(shutdown(fd, SHUT_RD), 0);
        assert_int_equal(send(fd, bytes, writer.length, MSG_NOSIGNAL), (ssize_t)writer.length);
        if (lies[i].put == put_half_a_bitmap)
            shutdown(fd, SHUT_WR);
        writer.length = 0;
        if (lies[i].put == put_half_a_bitmap)
            close(fd);
        else
            say(fd, &writer);
        expect_words(scene.move.from, lies[i].words);
        close(listener); /* not before: an urgent channel may be on its way */
        unlink(scene.path);
    }
    end_whole(&scene, false);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destination_refuses_a_source_that_lies_and_recovers),
        cmocka_unit_test(destination_turns_strangers_away_and_takes_the_source),
        cmocka_unit_test(source_refuses_a_destination_that_lies_and_recovers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
