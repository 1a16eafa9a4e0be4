/* SPDX-License-Identifier: MIT */
/*
 * The guest that counts, and the peer's end of a connection. See peer.h for the threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/support/peer.h"

/* ---- Callbacks ---------------------------------------------------------------------------------
 */

static bool
pause_guest(void *opaque, GError **error)
{
    PeerGuest *guest = opaque;
    (void)error;
    __atomic_add_fetch(&guest->count_pauses, 1, __ATOMIC_SEQ_CST);
    return true;
}

static void *
read_all(void *opaque)
{
    PeerGuest *guest = opaque;
    uint64_t sum = 0;

    for (int block = (int)guest->count_blocks - 1; block >= 0; block--) {
        const FaultlineBlock *is = &guest->blocks[block];
        for (uint64_t at = is->length_bytes; at; at -= FAULTLINE_PAGE_BYTES)
            sum += ((volatile uint8_t *)is->host_address)[at - FAULTLINE_PAGE_BYTES];
    }
    guest->sum = sum;
    return NULL;
}

static bool
resume_guest(void *opaque, GError **error)
{
    PeerGuest *guest = opaque;
    (void)error;
    __atomic_add_fetch(&guest->count_resumes, 1, __ATOMIC_SEQ_CST);
    if (guest->reads_all && !guest->has_reader)
        guest->has_reader = pthread_create(&guest->reader, NULL, read_all, guest) == 0;
    return true;
}

static bool
start_log(void *opaque, GError **error)
{
    (void)opaque;
    (void)error;
    return true;
}

static bool
sync_log(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    const PeerGuest *guest = opaque;
    (void)block;
    (void)error;
    for (uint64_t i = 0; guest->is_always_dirty && i < count_pages; i++)
        words[i / 64] |= 1ull << (i % 64);
    return true;
}

static void
stop_log(void *opaque)
{
    (void)opaque;
}

static bool
save_state(void *opaque, FaultlineState *state, GError **error)
{
    const PeerGuest *guest = opaque;
    (void)error;
    if (!guest->has_no_device)
        faultline_state_add(state, PEER_DEVICE, 0, 1, PEER_STATE, strlen(PEER_STATE));
    return true;
}

static bool
load_state(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
           size_t length_bytes, GError **error)
{
    PeerGuest *guest = opaque;
    (void)bytes;
    (void)length_bytes;

    if (guest->refuses_state || strcmp(name, PEER_DEVICE) != 0 || instance != 0 || version != 1) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, "no such device in this test");
        return false;
    }
    if (guest->touches_page >= 0) {
        volatile uint8_t *memory = guest->blocks[0].host_address;
        (void)memory[PEER_PAGES(guest->touches_page)];
    }
    __atomic_add_fetch(&guest->count_loads, 1, __ATOMIC_SEQ_CST);
    return true;
}

static const FaultlineGuest callbacks = {
    .version = FAULTLINE_GUEST_VERSION,
    .machine = PEER_MACHINE,
    .state_limit_bytes = PEER_STATE_LIMIT,
    .pause = pause_guest,
    .resume = resume_guest,
    .dirty_log_start = start_log,
    .dirty_log_sync = sync_log,
    .dirty_log_stop = stop_log,
    .save_state = save_state,
    .load_state = load_state,
};

/* ---- The guest ---------------------------------------------------------------------------------
 */

static void
map_block(FaultlineBlock *block, const char *name, uint64_t count_pages, bool shared)
{
    *block = (FaultlineBlock){.name = name,
                              .length_bytes = PEER_PAGES(count_pages),
                              .fd = -1,
                              .page_size_bytes = FAULTLINE_PAGE_BYTES,
                              .shared = shared};
    if (shared) {
        block->fd = memfd_create(name, MFD_CLOEXEC);
        assert_true(block->fd >= 0);
        assert_int_equal(ftruncate(block->fd, (off_t)block->length_bytes), 0);
    }
    block->host_address = mmap(NULL, block->length_bytes, PROT_READ | PROT_WRITE,
                               shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, block->fd, 0);
    assert_ptr_not_equal(block->host_address, MAP_FAILED);
}

PeerGuest *
peer_guest_new(const char *const *capabilities)
{
    static const char *const names[] = {"ram0", "ram1", NULL};
    static const uint64_t counts[] = {PEER_RAM0_PAGES, PEER_RAM1_PAGES};
    return peer_guest_new_sized(PEER_MACHINE, names, counts, capabilities);
}

PeerGuest *
peer_guest_new_sized(const char *machine, const char *const *names, const uint64_t *counts,
                     const char *const *capabilities)
{
    PeerGuest *guest = g_new0(PeerGuest, 1);
    FaultlineGuest own = callbacks;
    g_autoptr(GError) error = NULL;

    guest->touches_page = -1;
    own.machine = machine;
    for (unsigned i = 0; names[i]; i++) {
        assert_true(i < PEER_BLOCKS_MAX);
        map_block(&guest->blocks[i], names[i], counts[i], i % 2 == 0);
        guest->blocks[i].guest_address = (uint64_t)i << 32;
        guest->count_blocks++;
    }
    guest->faultline = faultline_new(&own, guest, guest->blocks, guest->count_blocks, &error);
    if (!guest->faultline)
        fail_msg("faultline_new: %s", error->message);
    for (; capabilities && *capabilities; capabilities++)
        if (!faultline_set_capability(guest->faultline, *capabilities, true, &error))
            fail_msg("%s", error->message);
    return guest;
}

void
peer_guest_free(PeerGuest *guest)
{
    /* Whoever waits for a page that never comes is let go by the end of the registration. */
    faultline_free(guest->faultline);
    if (guest->has_reader)
        pthread_join(guest->reader, NULL);
    for (unsigned i = 0; i < guest->count_blocks; i++) {
        munmap(guest->blocks[i].host_address, guest->blocks[i].length_bytes);
        if (guest->blocks[i].fd >= 0)
            close(guest->blocks[i].fd);
    }
    g_free(guest);
}

unsigned
peer_count(const unsigned *count)
{
    return __atomic_load_n(count, __ATOMIC_SEQ_CST);
}

static uint8_t
pattern(unsigned block, uint64_t page)
{
    return page % 3 ? (uint8_t)(1 + (page * 7 + block * 101) % 255) : 0;
}

void
peer_guest_fill(PeerGuest *guest)
{
    for (unsigned i = 0; i < guest->count_blocks; i++) {
        uint8_t *memory = guest->blocks[i].host_address;
        for (uint64_t at = 0; at < guest->blocks[i].length_bytes; at += FAULTLINE_PAGE_BYTES)
            if (pattern(i, at / FAULTLINE_PAGE_BYTES))
                memset(memory + at, pattern(i, at / FAULTLINE_PAGE_BYTES), FAULTLINE_PAGE_BYTES);
    }
}

bool
peer_guest_is_filled(const PeerGuest *guest)
{
    for (unsigned i = 0; i < guest->count_blocks; i++) {
        const uint8_t *memory = guest->blocks[i].host_address;
        for (uint64_t at = 0; at < guest->blocks[i].length_bytes; at++)
            if (memory[at] != pattern(i, at / FAULTLINE_PAGE_BYTES))
                return false;
    }
    return true;
}

uint64_t
peer_resident_bytes(void)
{
    g_autofree char *text = NULL;
    unsigned long long all = 0, resident = 0;

    assert_true(g_file_get_contents("/proc/self/statm", &text, NULL, NULL));
    assert_int_equal(sscanf(text, "%llu %llu", &all, &resident), 2);
    return resident * FAULTLINE_PAGE_BYTES;
}

void
peer_incoming(PeerGuest *guest, const char *uri)
{
    g_autoptr(GError) error = NULL;

    if (faultline_incoming(guest->faultline, uri, &error))
        return;
    if (!g_error_matches(error, FAULTLINE_ERROR, FAULTLINE_ERROR_UNSUPPORTED))
        fail_msg("%s", error->message);
    print_message("skipped: %s\n", error->message);
    skip();
}

/* ---- Connections -------------------------------------------------------------------------------
 */

PeerLink *
peer_link_new(int fd)
{
    PeerLink *link = g_new0(PeerLink, 1);

    assert_true(fd >= 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    link->fd = fd;
    link->to_send = g_byte_array_new();
    link->received = g_byte_array_new();
    return link;
}

void
peer_link_free(PeerLink *link)
{
    if (link->fd >= 0)
        close(link->fd);
    g_byte_array_unref(link->to_send);
    g_byte_array_unref(link->received);
    g_free(link);
}

bool
peer_link_is_sent(const PeerLink *link)
{
    return link->is_closed || link->sent == link->to_send->len;
}

static bool
send_some(PeerLink *link)
{
    if (peer_link_is_sent(link))
        return false;
    ssize_t count = send(link->fd, link->to_send->data + link->sent,
                         link->to_send->len - link->sent, MSG_NOSIGNAL);
    if (count > 0)
        link->sent += (size_t)count;
    else if (errno != EAGAIN && errno != EINTR)
        link->is_closed = true;
    return count > 0;
}

static bool
receive_some(PeerLink *link)
{
    static uint8_t bytes[1 << 16];

    if (link->is_deaf || link->is_closed)
        return false;
    ssize_t count = recv(link->fd, bytes, sizeof bytes, 0);
    if (count > 0)
        g_byte_array_append(link->received, bytes, (guint)count);
    else if (count == 0 || (errno != EAGAIN && errno != EINTR))
        link->is_closed = true;
    return count > 0;
}

bool
peer_link_pump(PeerLink *link, int wait_ms)
{
    short wanted = (short)((link->is_deaf ? 0 : POLLIN) | (peer_link_is_sent(link) ? 0 : POLLOUT));
    struct pollfd poll_fd = {.fd = link->is_closed ? -1 : link->fd, .events = wanted};

    poll(&poll_fd, 1, wait_ms);
    bool has_sent = send_some(link);
    return receive_some(link) || has_sent;
}

void
peer_link_half_close(PeerLink *link)
{
    shutdown(link->fd, SHUT_WR);
}

char *
peer_folder_new(void)
{
    g_autoptr(GError) error = NULL;
    char *folder = g_dir_make_tmp("faultline-peer-XXXXXX", &error);
    if (!folder)
        fail_msg("%s", error->message);
    return folder;
}

void
peer_folder_free(char *folder)
{
    g_autoptr(GDir) dir = g_dir_open(folder, 0, NULL);
    const char *name;

    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *path = g_build_filename(folder, name, NULL);
        g_unlink(path);
    }
    g_rmdir(folder);
    g_free(folder);
}

static struct sockaddr_un
address_of(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    g_strlcpy(address.sun_path, path, sizeof address.sun_path);
    return address;
}

int
peer_connect(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

int
peer_listen(const char *path)
{
    struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}
