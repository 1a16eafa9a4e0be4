/* SPDX-License-Identifier: MIT */
/*
 * The thread guest under the kernel's write tracking: memory is copied pass by pass while the guest
 * writes at full speed, like a precopy would; the copy and the saved state must make a guest that
 * finds nothing wrong. A write that tracking lost would be a stale page.
 */
#include "kvm/thread_share.h"
#include "uffd/uffd.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <sys/mman.h>

#define PAGES  4096u
#define BYTES  (PAGES * (size_t)FAULTLINE_PAGE_BYTES)
#define WORDS  (PAGES / 64)
#define PASSES 20

typedef struct Writer {
    ThreadShare share;
    int stop; /* atomic */
    bool right;
} Writer;

static gpointer
write_on(gpointer data)
{
    Writer *writer = data;

    writer->right = true;
    while (writer->right && !__atomic_load_n(&writer->stop, __ATOMIC_RELAXED))
        writer->right = thread_share_write(&writer->share) && thread_share_check(&writer->share);
    return NULL;
}

static void
map_memory(ThreadMemory *memory)
{
    void *address = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(address != MAP_FAILED);
    *memory = (ThreadMemory){.count_blocks = 1};
    memory->blocks[0] = (FaultlineBlock){.host_address = address, .length_bytes = BYTES, .fd = -1};
}

/* One pass; returns how many pages were dirty. */
static unsigned
copy_dirty(UffdTracker *tracker, const ThreadMemory *from, const ThreadMemory *to)
{
    uint64_t words[WORDS] = {0};
    char *source = from->blocks[0].host_address, *destination = to->blocks[0].host_address;
    unsigned copied = 0;

    assert_true(uffd_tracker_sync(tracker, source, BYTES, words, false, NULL));
    for (size_t page = 0; page < PAGES; page++) {
        if (words[page / 64] >> page % 64 & 1) {
            size_t offset = page * FAULTLINE_PAGE_BYTES;
            memcpy(destination + offset, source + offset, FAULTLINE_PAGE_BYTES);
            copied++;
        }
    }
    return copied;
}

static void
copy_by_tracking_while_it_writes_loses_nothing(void **state)
{
    ThreadMemory source, destination;
    ThreadShare arrived;
    Writer writer = {0};
    g_autoptr(GError) error = NULL;
    unsigned copied = 0;
    (void)state;

    UffdTracker *tracker = uffd_tracker_new(&error);
    if (!tracker && g_error_matches(error, UFFD_ERROR, UFFD_ERROR_UNSUPPORTED)) {
        print_message("skipped: %s\n", error->message);
        skip();
    }
    assert_non_null(tracker);
    map_memory(&source);
    map_memory(&destination);
    thread_share_init(&writer.share, &source, 0, 1, 0, 0);
    thread_share_init(&arrived, &destination, 0, 1, 0, 0);
    assert_true(uffd_tracker_add(tracker, source.blocks[0].host_address, BYTES, NULL));

    GThread *thread = g_thread_new("writer", write_on, &writer);
    for (unsigned pass = 0; pass < PASSES || copied < 2 * PAGES; pass++)
        copied += copy_dirty(tracker, &source, &destination);
    __atomic_store_n(&writer.stop, 1, __ATOMIC_RELAXED);
    g_thread_join(thread);
    assert_true(writer.right);
    copy_dirty(tracker, &source, &destination);

    g_autoptr(GByteArray) bytes = thread_share_save(&writer.share);
    assert_true(thread_share_load(&arrived, THREAD_STATE_VERSION, bytes->data, bytes->len, NULL));
    for (unsigned i = 0; i < PAGES; i++)
        if (!thread_share_check(&arrived))
            fail_msg("%s", arrived.wrong);
    assert_memory_equal(source.blocks[0].host_address, destination.blocks[0].host_address, BYTES);

    uffd_tracker_free(tracker);
    thread_share_clear(&writer.share);
    thread_share_clear(&arrived);
    munmap(source.blocks[0].host_address, BYTES);
    munmap(destination.blocks[0].host_address, BYTES);
}

int
main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copy_by_tracking_while_it_writes_loses_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
