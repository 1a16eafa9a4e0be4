/* SPDX-License-Identifier: MIT */
/*
 * The toy VMM: its memory, vCPUs, callbacks and links. The vCPUs' threads live as long as the toy
 * and park while the guest stands, so that their ids are known before they run.
 */
#include "tests/unit/support/toy.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define PAGE         FAULTLINE_PAGE_BYTES
#define WORDS        (PAGE / sizeof(uint64_t))
#define STATIC_WORD  100u
#define STEPS_A_REST 16u
#define UNWATCHED    __attribute__((no_sanitize("thread"))) /* guest memory is raced for by design */

/* ---- Memory -----------------------------------------------------------------------------------
 */

static volatile uint64_t *
page_words(const Toy *toy, uint64_t page, unsigned *ret_block, uint64_t *ret_page)
{
    uint64_t low = toy->blocks[0].length_bytes / PAGE;
    unsigned block = page >= low;
    uint64_t in_block = block ? page - low : page;
    if (ret_block)
        *ret_block = block;
    if (ret_page)
        *ret_page = in_block;
    return (volatile uint64_t *)((char *)toy->blocks[block].host_address + in_block * PAGE);
}

static uint64_t
static_value(uint64_t page)
{
    return page % 4 == 3 ? 0 : page + 1;
}

static uint64_t
share_pages(const Toy *toy)
{
    return toy->kind.pages / 2 / toy->kind.count_vcpus;
}

static uint64_t
page_of_step(const Toy *toy, unsigned vcpu, uint64_t step)
{
    return step * 769 % share_pages(toy) * toy->kind.count_vcpus + vcpu;
}

static void
map_block(Toy *toy, FaultlineBlock *block, const char *name, uint64_t first, uint64_t pages)
{
    bool is_memfd = toy->kind.memory == TOY_MEMFD;
    *block = (FaultlineBlock){.name = name,
                              .guest_address = first * PAGE,
                              .length_bytes = pages * PAGE,
                              .fd = -1,
                              .page_size_bytes = PAGE,
                              .shared = is_memfd};
    if (is_memfd) {
        block->fd = memfd_create(name, MFD_CLOEXEC);
        assert_true(block->fd >= 0);
        assert_int_equal(ftruncate(block->fd, (off_t)block->length_bytes), 0);
    }
    block->host_address = mmap(NULL, block->length_bytes, PROT_READ | PROT_WRITE,
                               is_memfd ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, block->fd, 0);
    assert_true(block->host_address != MAP_FAILED);
}

void
toy_fill(Toy *toy)
{
    for (uint64_t page = toy->kind.pages / 2; page < toy->kind.pages; page++)
        if (static_value(page))
            page_words(toy, page, NULL, NULL)[STATIC_WORD] = static_value(page);
}

/* ---- vCPUs ------------------------------------------------------------------------------------
 */

static UNWATCHED void
run_step(ToyVcpu *vcpu)
{
    Toy *toy = vcpu->toy;
    uint64_t step = vcpu->step + 1, share = share_pages(toy), in_block;
    uint64_t page = page_of_step(toy, vcpu->index, step), before = step > share ? step - share : 0;
    unsigned block;
    volatile uint64_t *words = page_words(toy, page, &block, &in_block);

    if (words[0] != before || words[WORDS - 1] != before)
        toy->wrong_pages++;
    words[0] = words[WORDS - 1] = step;
    /* After the write, so that a sync in between leaves the bit to the next one. */
    atomic_fetch_or(&toy->dirty[block][in_block / 64], UINT64_C(1) << in_block % 64);
    vcpu->step = step;

    page = toy->kind.pages / 2 + (step * 389 + vcpu->index) % (toy->kind.pages / 2);
    if (page_words(toy, page, NULL, NULL)[STATIC_WORD] != static_value(page))
        toy->wrong_pages++;
}

static bool
park(Toy *toy)
{
    pthread_mutex_lock(&toy->lock);
    toy->count_parked++;
    pthread_cond_broadcast(&toy->changed);
    while (!toy->go && !toy->quit)
        pthread_cond_wait(&toy->changed, &toy->lock);
    toy->count_parked--;
    pthread_mutex_unlock(&toy->lock);
    return !toy->quit;
}

/* Throttled, it rests for longer instead of being held. */
static void
rest(const Toy *toy)
{
    unsigned rest_us = toy->kind.rest_us ? toy->kind.rest_us : 1000;
    g_usleep(rest_us * 100 / (100 - toy->throttle_percent));
}

static void *
vcpu_main(void *data)
{
    ToyVcpu *vcpu = data;
    Toy *toy = vcpu->toy;

    toy->threads[vcpu->index] = gettid();
    while (park(toy)) {
        while (toy->go) {
            run_step(vcpu);
            if (vcpu->step % STEPS_A_REST == 0)
                rest(toy);
        }
    }
    return NULL;
}

bool
toy_is_running(const Toy *toy)
{
    return toy->go;
}

uint64_t
toy_steps(const Toy *toy)
{
    uint64_t steps = 0;
    for (unsigned i = 0; i < toy->kind.count_vcpus; i++)
        steps += toy->vcpus[i].step;
    return steps;
}

void
toy_expect_progress(Toy *toy)
{
    for (unsigned i = 0; i < toy->kind.count_vcpus; i++) {
        uint64_t before = toy->vcpus[i].step;
        int left_ms = TOY_TIMEOUT_MS;
        while (toy->vcpus[i].step < before + 3 && --left_ms)
            g_usleep(1000);
        if (!left_ms)
            fail_msg("vCPU %u does not go on", i);
    }
}

static UNWATCHED uint64_t
count_wrong(const Toy *toy)
{
    uint64_t share = share_pages(toy), count = 0;

    for (unsigned i = 0; i < toy->kind.count_vcpus; i++) {
        uint64_t last = toy->vcpus[i].step;
        for (uint64_t back = 0; back < share; back++) {
            /* Step numbers a share apart meet the same page; before the first, it holds 0. */
            uint64_t step = last > back ? last - back : 0;
            uint64_t page = page_of_step(toy, i, last + share - back);
            volatile uint64_t *words = page_words(toy, page, NULL, NULL);
            count += words[0] != step || words[WORDS - 1] != step;
        }
    }
    for (uint64_t page = toy->kind.pages / 2; page < toy->kind.pages; page++)
        count += page_words(toy, page, NULL, NULL)[STATIC_WORD] != static_value(page);
    return count;
}

void
toy_check(Toy *toy)
{
    assert_false(toy->go);
    assert_int_equal(toy->wrong_pages, 0);
    assert_int_equal(count_wrong(toy), 0);
}

/* ---- Callbacks --------------------------------------------------------------------------------
 */

static bool
may(Toy *toy, ToyCall call, GError **error)
{
    static const char *const names[TOY_CALLS] = {"pause", "resume", "log", "sync", "save", "load"};
    unsigned count = ++toy->calls[call];

    if (count != toy->fail_at[call])
        return true;
    g_set_error(error, g_quark_from_static_string("toy-error"), 77, "toy: refuses to %s",
                names[call]);
    return false;
}

static bool
toy_pause(void *opaque, GError **error)
{
    Toy *toy = opaque;

    if (!may(toy, TOY_PAUSE, error))
        return false;
    toy->pause_percent = toy->throttle_percent;
    pthread_mutex_lock(&toy->lock);
    toy->go = false;
    while (toy->count_parked < toy->kind.count_vcpus)
        pthread_cond_wait(&toy->changed, &toy->lock);
    pthread_mutex_unlock(&toy->lock);
    return true;
}

static bool
toy_resume(void *opaque, GError **error)
{
    Toy *toy = opaque;

    if (!may(toy, TOY_RESUME, error))
        return false;
    pthread_mutex_lock(&toy->lock);
    toy->go = true;
    pthread_cond_broadcast(&toy->changed);
    pthread_mutex_unlock(&toy->lock);
    return true;
}

static bool
toy_log_start(void *opaque, GError **error)
{
    Toy *toy = opaque;
    if (!may(toy, TOY_LOG_START, error))
        return false;
    g_assert_false(toy->is_logging);
    toy->is_logging = true;
    return true;
}

static bool
toy_log_sync(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    Toy *toy = opaque;
    if (!may(toy, TOY_LOG_SYNC, error))
        return false;
    g_assert_true(toy->is_logging);
    for (uint64_t i = 0; i < (count_pages + 63) / 64; i++)
        words[i] |= atomic_exchange(&toy->dirty[block][i], 0);
    return true;
}

static void
toy_log_stop(void *opaque)
{
    Toy *toy = opaque;
    g_assert_true(toy->is_logging);
    toy->is_logging = false;
}

static bool
toy_save(void *opaque, FaultlineState *state, GError **error)
{
    Toy *toy = opaque;
    if (!may(toy, TOY_SAVE, error))
        return false;
    g_assert_false(toy->go);
    for (unsigned i = 0; i < toy->kind.count_vcpus; i++) {
        uint64_t step = toy->vcpus[i].step;
        faultline_state_add(state, "toy/vcpu", i, 1, &step, sizeof step);
    }
    return true;
}

static bool
toy_load(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
         size_t length_bytes, GError **error)
{
    Toy *toy = opaque;
    uint64_t step;

    if (!may(toy, TOY_LOAD, error))
        return false;
    if (strcmp(name, "toy/vcpu") != 0 || version != 1 || length_bytes != sizeof step ||
        instance >= toy->kind.count_vcpus) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, "toy: no device '%s' %u", name,
                    instance);
        return false;
    }
    memcpy(&step, bytes, sizeof step);
    toy->vcpus[instance].step = step;
    return true;
}

static pid_t
toy_vcpu_thread(void *opaque, unsigned index)
{
    Toy *toy = opaque;
    return index < toy->kind.count_vcpus ? toy->threads[index] : 0;
}

static void
toy_throttle(void *opaque, unsigned percent)
{
    Toy *toy = opaque;
    g_assert_cmpuint(percent, <=, 99);
    toy->throttle_percent = percent;
    toy->greatest_percent = MAX(toy->greatest_percent, percent);
    toy->count_throttles++;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

void
toy_renew(Toy *toy)
{
    g_autoptr(GError) error = NULL;
    FaultlineGuest guest = {
        .version = FAULTLINE_GUEST_VERSION,
        .machine = toy->kind.machine ? toy->kind.machine : "toy-1.0",
        .pause = toy_pause,
        .resume = toy_resume,
        .dirty_log_start = toy->kind.is_tracked ? NULL : toy_log_start,
        .dirty_log_sync = toy->kind.is_tracked ? NULL : toy_log_sync,
        .dirty_log_stop = toy->kind.is_tracked ? NULL : toy_log_stop,
        .save_state = toy_save,
        .load_state = toy_load,
        .throttle = toy->kind.has_no_throttle ? NULL : toy_throttle,
        .vcpu_thread = toy_vcpu_thread,
    };

    g_clear_pointer(&toy->faultline, faultline_free);
    toy->faultline = faultline_new(&guest, toy, toy->blocks, 2, &error);
    if (!toy->faultline)
        fail_msg("%s", error->message);
}

Toy *
toy_new(const ToyKind *kind)
{
    Toy *toy = g_new0(Toy, 1);
    uint64_t low = kind->pages * 3 / 8;

    toy->kind = *kind;
    map_block(toy, &toy->blocks[0], "toy-low", 0, low);
    map_block(toy, &toy->blocks[1], "toy-high", low, kind->pages - low);
    for (unsigned i = 0; i < 2; i++)
        toy->dirty[i] = g_new0(_Atomic uint64_t, kind->pages / 64 + 1);
    pthread_mutex_init(&toy->lock, NULL);
    pthread_cond_init(&toy->changed, NULL);
    for (unsigned i = 0; i < kind->count_vcpus; i++) {
        ToyVcpu *vcpu = &toy->vcpus[i];
        vcpu->toy = toy;
        vcpu->index = i;
        assert_int_equal(pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu), 0);
    }
    pthread_mutex_lock(&toy->lock);
    while (toy->count_parked < kind->count_vcpus)
        pthread_cond_wait(&toy->changed, &toy->lock);
    pthread_mutex_unlock(&toy->lock);
    toy_renew(toy);
    return toy;
}

void
toy_free(Toy *toy)
{
    /* First, so that a vCPU that waits for a page runs on. */
    g_clear_pointer(&toy->faultline, faultline_free);
    pthread_mutex_lock(&toy->lock);
    toy->quit = true;
    toy->go = false;
    pthread_cond_broadcast(&toy->changed);
    pthread_mutex_unlock(&toy->lock);
    for (unsigned i = 0; i < toy->kind.count_vcpus; i++)
        pthread_join(toy->vcpus[i].thread, NULL);
    for (unsigned i = 0; i < 2; i++) {
        munmap(toy->blocks[i].host_address, toy->blocks[i].length_bytes);
        if (toy->blocks[i].fd >= 0)
            close(toy->blocks[i].fd);
        g_free(toy->dirty[i]);
    }
    pthread_mutex_destroy(&toy->lock);
    pthread_cond_destroy(&toy->changed);
    g_free(toy);
}

/* ---- Seeing -----------------------------------------------------------------------------------
 */

const char *
toy_error(Toy *toy)
{
    static FaultlineInfo info;
    faultline_query(toy->faultline, &info);
    return info.error;
}

void
toy_expect_end(Toy *toy, FaultlineStatus status)
{
    FaultlineStatus is = faultline_wait(toy->faultline, TOY_TIMEOUT_MS);
    if (is != status)
        fail_msg("%s: status %s, not %s; error '%s'", toy->kind.name, faultline_status_name(is),
                 faultline_status_name(status), toy_error(toy));
}

uint64_t
toy_allocated_bytes(const Toy *toy)
{
    uint64_t bytes = 0;
    for (unsigned i = 0; i < 2; i++) {
        struct stat file;
        assert_int_equal(fstat(toy->blocks[i].fd, &file), 0);
        bytes += (uint64_t)file.st_blocks * 512;
    }
    return bytes;
}

/* ---- Links ------------------------------------------------------------------------------------
 */

void
toy_link_open(ToyLink *link, ToyLinkKind kind)
{
    int ends[2];

    *link = (ToyLink){.kind = kind};
    switch (kind) {
    case TOY_UNIX:
        link->directory = g_dir_make_tmp("toy-XXXXXX", NULL);
        assert_non_null(link->directory);
        link->incoming = g_strdup_printf("unix:%s/link", link->directory);
        link->outgoing = g_strdup(link->incoming);
        break;
    case TOY_FD:
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        link->incoming = g_strdup_printf("fd:%d", ends[0]);
        link->outgoing = g_strdup_printf("fd:%d", ends[1]);
        break;
    case TOY_TCP:
        link->incoming = g_strdup("tcp:127.0.0.1:0");
    }
}

void
toy_link_close(ToyLink *link)
{
    if (link->directory) {
        g_unlink(link->incoming + strlen("unix:"));
        g_rmdir(link->directory);
    }
    g_free(link->directory);
    g_free(link->incoming);
    g_free(link->outgoing);
}
