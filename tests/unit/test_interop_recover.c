/* SPDX-License-Identifier: MIT */
/*
 * Postcopy that breaks and is recovered, with a running QEMU as it is installed in each role. QEMU
 * has the guest's memory, and so has a guest of ours of the same blocks. QEMU's devices, which have
 * no lengths, are taken out of its package on the way; ours has none. QEMU breaks the connections
 * itself, by migrate_pause. Skips where there is no QEMU. (QEMU 7.2 as a destination with preempt
 * does not read before the second connection comes, and our source, which does as QEMU 8.0 and
 * later, makes that after the first answer.)
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "engine/stream/stream.h"
#include "tests/unit/support/peer.h"
#include "tests/unit/support/qemu.h"

#define RAM          "pc.ram"
#define LOW_BYTES    0x100000u /* below it QEMU maps other things over its memory */
#define FILLED_BYTES 0xc00000u
#define RUN_BYTES    5u /* the command that ends a package */
#define TAIL_BYTES   12u
#define CHANNELS_MAX 2u

static void
require(bool is_good, GError *const *error)
{
    if (!is_good)
        fail_msg("%s", *error ? (*error)->message : "no error set");
}

/* ---- QEMU's package without its devices, on the way --------------------------------------------
 */

typedef struct Thinner {
    int listener;
    const char *inner; /* where what is left goes */
    GByteArray *held;  /* read, and not yet passed on */
    bool is_done;      /* the package is through */
    bool is_bad;
} Thinner;

static bool
pass(int fd, const uint8_t *bytes, size_t length)
{
    while (length) {
        ssize_t sent = send(fd, bytes, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        bytes += sent;
        length -= (size_t)sent;
    }
    return true;
}

static bool
pass_held(Thinner *thinner, int fd, size_t length)
{
    bool good = pass(fd, thinner->held->data, length);
    g_byte_array_remove_range(thinner->held, 0, (guint)length);
    return good;
}

/* Commands lead to the devices, and RUN is what comes last. */
static bool
pass_thin(Thinner *thinner, int fd, size_t head_bytes, uint32_t package_bytes)
{
    static const uint8_t run[RUN_BYTES] = {STREAM_COMMAND, 0, STREAM_COMMAND_POSTCOPY_RUN, 0, 0};
    const uint8_t *package = thinner->held->data + head_bytes;
    StreamElement element;
    size_t at = 0, length;
    uint8_t head[16];
    StreamWriter writer = {head, 0, sizeof head};

    while (at < package_bytes && package[at] == STREAM_COMMAND &&
           stream_decode_element(package + at, package_bytes - at, &element, &length, NULL) ==
               STREAM_OK)
        at += length;
    thinner->is_bad = at == 0 || package_bytes < at + RUN_BYTES ||
                      memcmp(package + package_bytes - RUN_BYTES, run, RUN_BYTES) != 0;
    uint8_t size[4] = {0, 0, 0, (uint8_t)(at + RUN_BYTES)};
    stream_put_command(&writer, STREAM_COMMAND_PACKAGED, size, sizeof size);
    bool good = !thinner->is_bad && pass(fd, head, writer.length) && pass(fd, package, at) &&
                pass(fd, run, RUN_BYTES);
    g_byte_array_remove_range(thinner->held, 0, (guint)head_bytes + package_bytes);
    thinner->is_done = true;
    return good;
}

static bool
pass_forward(Thinner *thinner, int fd)
{
    static const uint8_t head[] = {STREAM_COMMAND, 0, STREAM_COMMAND_PACKAGED, 0, 4, 0};
    GByteArray *held = thinner->held;
    const uint8_t *found = memmem(held->data, held->len, head, sizeof head);

    if (thinner->is_done)
        return pass_held(thinner, fd, held->len);
    if (!found)
        return held->len <= TAIL_BYTES || pass_held(thinner, fd, held->len - TAIL_BYTES);
    if (found != held->data && !pass_held(thinner, fd, (size_t)(found - held->data)))
        return false;
    if (held->len < sizeof head + 3)
        return true;
    uint32_t package_bytes = (uint32_t)held->data[6] << 16 | held->data[7] << 8 | held->data[8];
    if (held->len < sizeof head + 3 + package_bytes)
        return true;
    return pass_thin(thinner, fd, sizeof head + 3, package_bytes) &&
           pass_held(thinner, fd, held->len);
}

/* The first connection is main. False: one of its ends has closed. */
static bool
pass_some(Thinner *thinner, const struct pollfd *pair, bool is_main)
{
    static uint8_t bytes[1 << 16];
    bool good = true;

    for (unsigned i = 0; good && i < 2; i++) {
        if (!pair[i].revents)
            continue;
        ssize_t got = recv(pair[i].fd, bytes, sizeof bytes, 0);
        if (is_main && i == 0) {
            g_byte_array_append(thinner->held, bytes, (guint)MAX(got, 0));
            good = got > 0 && pass_forward(thinner, pair[1].fd);
        } else {
            good = got > 0 && pass(pair[1 - i].fd, bytes, (size_t)got);
        }
    }
    return good;
}

/* Until one of the ends of a connection closes. */
static void *
thin(void *opaque)
{
    Thinner *thinner = opaque;
    struct pollfd fds[1 + 2 * CHANNELS_MAX] = {{.fd = thinner->listener, .events = POLLIN}};
    nfds_t count = 1;
    bool good = true;

    while (good && poll(fds, count, -1) > 0) {
        for (unsigned i = 1; good && i < count; i += 2)
            good = pass_some(thinner, fds + i, i == 1);
        if (good && fds[0].revents && count < G_N_ELEMENTS(fds)) {
            fds[count++] = (struct pollfd){.fd = accept(fds[0].fd, NULL, NULL), .events = POLLIN};
            fds[count++] = (struct pollfd){.fd = peer_connect(thinner->inner), .events = POLLIN};
        }
    }
    while (count > 1)
        close(fds[--count].fd);
    return NULL;
}

/* ---- A guest of the same blocks ----------------------------------------------------------------
 */

typedef struct Scene {
    Qemu *qemu;
    PeerGuest *guest;
    char *folder;
    char *names[PEER_BLOCKS_MAX + 1];
    FaultlineBlock *ram;
} Scene;

static void
read_blocks(Scene *scene, uint64_t *counts)
{
    g_autofree char *answer = qemu_do(scene->qemu, "info ramblock");
    g_auto(GStrv) lines = g_strsplit(answer, "\n", 0);
    unsigned count = 0;

    for (unsigned i = 1; lines[i]; i++) {
        char name[256];
        unsigned long long used;
        if (sscanf(lines[i], " %255s 4 KiB %*s %llx", name, &used) != 2)
            continue;
        assert_true(count < PEER_BLOCKS_MAX);
        counts[count] = used / FAULTLINE_PAGE_BYTES;
        scene->names[count++] = g_strdup(name);
    }
    assert_true(count > 1);
}

static void
scene_begin(Scene *scene, const char *const *options, bool with_preempt)
{
    const char *const capabilities[] = {"postcopy-ram", with_preempt ? "postcopy-preempt" : NULL,
                                        NULL};
    uint64_t counts[PEER_BLOCKS_MAX];

    *scene = (Scene){.qemu = qemu_start(options)};
    read_blocks(scene, counts);
    scene->guest =
        peer_guest_new_sized(QEMU_MACHINE, (const char *const *)scene->names, counts, capabilities);
    scene->ram = &scene->guest->blocks[0];
    assert_string_equal(scene->ram->name, RAM);
    scene->folder = peer_folder_new();
    for (unsigned i = 0; capabilities[i]; i++)
        qemu_must(scene->qemu, "migrate_set_capability %s on", capabilities[i]);
}

static void
scene_end(Scene *scene)
{
    qemu_end(scene->qemu);
    peer_guest_free(scene->guest);
    for (unsigned i = 0; i < PEER_BLOCKS_MAX; i++)
        g_free(scene->names[i]);
    peer_folder_free(scene->folder);
}

static void
await_status(PeerGuest *guest, FaultlineStatus status)
{
    int64_t end_us = g_get_monotonic_time() + PEER_WAIT_MS * (int64_t)1000;
    FaultlineInfo info;

    for (;;) {
        faultline_query(guest->faultline, &info);
        if (info.status == status)
            return;
        if (g_get_monotonic_time() > end_us)
            fail_msg("status %s, not %s: %s", faultline_status_name(info.status),
                     faultline_status_name(status), info.error);
        g_usleep(2000);
    }
}

static char *
uri_of(const Scene *scene, const char *name)
{
    return g_strdup_printf("unix:%s/%s", scene->folder, name);
}

/* ---- QEMU's source, our destination ------------------------------------------------------------
 */

/* No page of zeros, no two alike. */
static uint8_t *
make_content(void)
{
    uint8_t *content = g_malloc(FILLED_BYTES);
    for (uint32_t i = 0; i < FILLED_BYTES / 4; i++) {
        uint32_t word = (i + 1) * 2654435761u;
        memcpy(content + (size_t)i * 4, &word, sizeof word);
    }
    return content;
}

static void *
touch(void *at)
{
    return GUINT_TO_POINTER((guint) * (volatile uint32_t *)at);
}

static void
migrate_through(Scene *scene, Thinner *thinner)
{
    g_autofree char *outer = g_build_filename(scene->folder, "outer", NULL);
    g_autofree char *inner = g_build_filename(scene->folder, "inner", NULL);
    g_autofree char *uri = uri_of(scene, "inner");

    peer_incoming(scene->guest, uri);
    *thinner = (Thinner){peer_listen(outer), inner, g_byte_array_new(), false, false};
    g_autoptr(GThread) thread = g_thread_new("thin", thin, thinner);
    qemu_must(scene->qemu, "migrate_set_parameter max-bandwidth 256K");
    qemu_must(scene->qemu, "migrate_set_parameter max-postcopy-bandwidth 256K");
    qemu_must(scene->qemu, "migrate -d unix:%s", outer);
    qemu_must(scene->qemu, "migrate_start_postcopy");
    await_status(scene->guest, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    qemu_must(scene->qemu, "migrate_pause");
    await_status(scene->guest, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    qemu_expect_migration(scene->qemu, "postcopy-paused");
    g_thread_join(g_steal_pointer(&thread));
    assert_false(thinner->is_bad);
    close(thinner->listener);
    g_byte_array_unref(thinner->held);
}

static void
destination_recovers_from_a_running_qemu(void **state)
{
    g_autofree uint8_t *content = make_content();
    g_autofree char *path = NULL;
    int fd = g_file_open_tmp("faultline-XXXXXX", &path, NULL);
    Thinner thinner;
    Scene scene;
    const bool with_preempt = *state != NULL;
    GError *error = NULL;

    qemu_need();
    close(fd);
    require(g_file_set_contents(path, (const char *)content, FILLED_BYTES, &error), &error);
    g_autofree char *loader =
        g_strdup_printf("loader,file=%s,addr=0x%x,force-raw=on", path, LOW_BYTES);
    const char *const options[] = {"-device", loader, NULL};
    scene_begin(&scene, options, with_preempt);
    unlink(path);
    migrate_through(&scene, &thinner);
    uint8_t *filled = (uint8_t *)scene.ram->host_address + LOW_BYTES;
    GThread *toucher = g_thread_new("touch", touch, filled + FILLED_BYTES - 4);
    g_autofree char *second = uri_of(&scene, "second");

    require(faultline_recover(scene.guest->faultline, second, &error), &error);
    qemu_must(scene.qemu, "migrate_set_parameter max-postcopy-bandwidth 0");
    qemu_must(scene.qemu, "migrate -d -r %s", second);
    await_status(scene.guest, FAULTLINE_STATUS_COMPLETED);
    qemu_expect_migration(scene.qemu, "completed");
    uint32_t touched = GPOINTER_TO_UINT(g_thread_join(toucher));
    assert_memory_equal(&touched, content + FILLED_BYTES - 4, 4);
    assert_memory_equal(filled, content, FILLED_BYTES);
    FaultlineInfo info;
    faultline_query(scene.guest->faultline, &info);
    assert_int_equal(info.postcopy_requests, 1);
    scene_end(&scene);
}

/* ---- Our source, QEMU's destination ------------------------------------------------------------
 */

/* QEMU reads all of its memory while hardly a page comes unasked. */
static char *
save_memory(Scene *scene)
{
    g_autofree char *path = g_build_filename(scene->folder, "saved", NULL);
    g_autoptr(GError) error = NULL;
    char *bytes;
    gsize length;

    qemu_must(scene->qemu, "pmemsave 0x%x 0x%" G_GINT64_MODIFIER "x \"%s\"", LOW_BYTES,
              scene->ram->length_bytes - LOW_BYTES, path);
    require(g_file_get_contents(path, &bytes, &length, &error), &error);
    assert_int_equal(length, scene->ram->length_bytes - LOW_BYTES);
    return bytes;
}

static void
source_recovers_to_a_running_qemu(void **state)
{
    const char *const options[] = {"-incoming", "defer", NULL};
    const bool with_preempt = *state != NULL;
    GError *error = NULL;
    Scene scene;

    qemu_need();
    scene_begin(&scene, options, with_preempt);
    Faultline *faultline = scene.guest->faultline;
    g_autofree char *first = uri_of(&scene, "first");
    g_autofree char *second = uri_of(&scene, "second");
    scene.guest->has_no_device = true;
    peer_guest_fill(scene.guest);
    require(faultline_set_parameter(faultline, "max-postcopy-bandwidth", 1, &error), &error);
    qemu_must(scene.qemu, "migrate_incoming %s", first);
    require(faultline_migrate(faultline, first, &error), &error);
    require(faultline_start_postcopy(faultline, &error), &error);
    await_status(scene.guest, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    qemu_expect_migration(scene.qemu, "postcopy-active");
    qemu_must(scene.qemu, "migrate_pause");
    await_status(scene.guest, FAULTLINE_STATUS_POSTCOPY_PAUSED);
    qemu_expect_migration(scene.qemu, "postcopy-paused");

    qemu_must(scene.qemu, "migrate_recover %s", second);
    require(faultline_migrate_resume(faultline, second, &error), &error);
    await_status(scene.guest, FAULTLINE_STATUS_POSTCOPY_ACTIVE);
    g_autofree char *saved = save_memory(&scene);
    require(faultline_set_parameter(faultline, "max-postcopy-bandwidth", 0, &error), &error);
    await_status(scene.guest, FAULTLINE_STATUS_COMPLETED);
    qemu_expect_migration(scene.qemu, "completed");
    assert_memory_equal(saved, (uint8_t *)scene.ram->host_address + LOW_BYTES,
                        scene.ram->length_bytes - LOW_BYTES);
    FaultlineInfo info;
    faultline_query(faultline, &info);
    assert_true(info.postcopy_requests > 1000);
    scene_end(&scene);
}

int
main(void)
{
    static bool with_preempt = true;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destination_recovers_from_a_running_qemu),
        cmocka_unit_test(source_recovers_to_a_running_qemu),
        {"destination_recovers_from_a_running_qemu_with_preempt",
         destination_recovers_from_a_running_qemu, NULL, NULL, &with_preempt},
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
