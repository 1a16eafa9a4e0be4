/* SPDX-License-Identifier: MIT */
/* The smallest VMM: 16 MiB of memory, one "vCPU" that writes and checks it, one device register.
 * Sees the installed library only. Source and destination live in this process; the guest moves by
 * postcopy over a unix socket. */
#include <faultline.h>
#include <glib/gstdio.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#pragma GCC diagnostic ignored "-Wunused-parameter" /* of callbacks */
#define PAGES UINT64_C(4096)
#define BYTES (PAGES * FAULTLINE_PAGE_BYTES)
typedef struct Toy {
    FaultlineBlock ram;
    _Atomic uint64_t dirty[PAGES / 64];
    GThread *vcpu; /* NULL: paused */
    atomic_bool stop;
    uint64_t step; /* the device state */
} Toy;

static void
require(bool ok, const char *what, const char *why)
{
    if (!ok)
        g_error("%s: %s", what, why); /* does not return */
}

/* Step n stores n at both ends of page n * 769 mod 4096, where step n - 4096 must have left its
 * number: a lost, old or foreign page is noticed the next time round. */
static void *
vcpu(void *opaque)
{
    Toy *toy = opaque;
    while (!atomic_load(&toy->stop)) {
        uint64_t n = ++toy->step, page = n * 769 % PAGES, before = n > PAGES ? n - PAGES : 0;
        uint64_t *words = (uint64_t *)((char *)toy->ram.host_address + page * FAULTLINE_PAGE_BYTES);
        require(words[0] == before && words[511] == before, "guest",
                "a page is not as it was left");
        words[0] = words[511] = n;
        /* After the write, so that a sync in between leaves the bit to the next one. */
        atomic_fetch_or(&toy->dirty[page / 64], UINT64_C(1) << page % 64);
    }
    return NULL;
}

static bool
toy_pause(void *opaque, GError **error)
{
    Toy *toy = opaque;
    atomic_store(&toy->stop, true);
    g_clear_pointer(&toy->vcpu, g_thread_join);
    return true;
}

static bool
toy_resume(void *opaque, GError **error)
{
    Toy *toy = opaque;
    atomic_store(&toy->stop, false);
    return (toy->vcpu = g_thread_try_new("vcpu", vcpu, toy, error)) != NULL;
}

static bool
toy_dirty_start(void *opaque, GError **error)
{
    return true; /* the bitmap is always kept */
}

static void
toy_dirty_stop(void *opaque)
{
}

static bool
toy_dirty_sync(void *opaque, unsigned block, uint64_t *words, uint64_t count_pages, GError **error)
{
    for (uint64_t i = 0; i < count_pages / 64; i++)
        words[i] |= atomic_exchange(&((Toy *)opaque)->dirty[i], 0);
    return true;
}

static bool
toy_save(void *opaque, FaultlineState *state, GError **error)
{
    faultline_state_add(state, "toy/vcpu", 0, 1, &((Toy *)opaque)->step, sizeof(uint64_t));
    return true;
}

static bool
toy_load(void *opaque, const char *name, uint32_t instance, uint32_t version, const void *bytes,
         size_t length_bytes, GError **error)
{
    if (strcmp(name, "toy/vcpu") == 0 && version == 1 && length_bytes == sizeof(uint64_t))
        return memcpy(&((Toy *)opaque)->step, bytes, length_bytes);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_PEER, "toy: no device '%s'", name);
    return false;
}

static const FaultlineGuest toy_guest = {
    .version = FAULTLINE_GUEST_VERSION,
    .machine = "toy-1.0",
    .pause = toy_pause,
    .resume = toy_resume,
    .dirty_log_start = toy_dirty_start,
    .dirty_log_sync = toy_dirty_sync,
    .dirty_log_stop = toy_dirty_stop,
    .save_state = toy_save,
    .load_state = toy_load,
};

static Faultline *
toy_new(Toy *toy)
{
    g_autoptr(GError) error = NULL;
    int fd = memfd_create("toy", MFD_CLOEXEC);
    require(fd >= 0 && ftruncate(fd, BYTES) == 0, "memory", "no memfd");
    toy->ram = (FaultlineBlock){"ram", 0, NULL, BYTES, fd, 0, FAULTLINE_PAGE_BYTES, true};
    toy->ram.host_address = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    require(toy->ram.host_address != MAP_FAILED, "memory", "no mapping");
    Faultline *faultline = faultline_new(&toy_guest, toy, &toy->ram, 1, &error);
    require(faultline && faultline_set_capability(faultline, "postcopy-ram", true, &error),
            "set-up", error ? error->message : "");
    return faultline;
}

int
main(void)
{
    static Toy from, to;
    FaultlineInfo info;
    g_autoptr(GError) error = NULL;
    g_autofree char *directory = g_dir_make_tmp("embed-XXXXXX", NULL);
    g_autofree char *uri = g_strdup_printf("unix:%s/link", directory);
    Faultline *source = toy_new(&from), *destination = toy_new(&to);
    faultline_set_autostart(destination, false);
    bool moves = faultline_cont(source, &error) && faultline_incoming(destination, uri, &error) &&
                 faultline_migrate(source, uri, &error) && faultline_start_postcopy(source, &error);
    require(moves, "migration", error ? error->message : "");
    for (int side = 0; side < 2; side++) {
        faultline_wait(side ? destination : source, 60000);
        faultline_query(side ? destination : source, &info);
        require(info.status == FAULTLINE_STATUS_COMPLETED, "migration", info.error);
    }
    require(memcmp(from.ram.host_address, to.ram.host_address, BYTES) == 0, "memory", "differs");
    require(to.step == from.step, "state", "differs");
    require(!faultline_cont(source, NULL), "source", "agreed to run what it had given up");
    require(faultline_cont(destination, NULL), "destination", "does not run its guest");
    g_usleep(300000);
    require(faultline_stop(destination, NULL) && to.step > from.step, "guest", "does not run on");
    faultline_free(source);
    faultline_free(destination);
    g_print("embed: ok, %" G_GUINT64_FORMAT " steps before and after\n", to.step);
    g_unlink(uri + strlen("unix:"));
    return g_rmdir(directory);
}
