/* SPDX-License-Identifier: MIT */
/*
 * The placing calls, what the kernel's answers to them mean (here and nowhere else), and the walk
 * that takes a range through one of them to its end. Runs in any placing thread, allocates nothing.
 * Which call a page needs is decided by place_alias.c and place_copy.c.
 * Source: ioctl_userfaultfd(2); fs/userfaultfd.c and mm/userfaultfd.c for partial progress.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <sched.h>
#include <string.h>

#include "uffd/abi.h"

/* Tries without progress. The kernel says EAGAIN while the address space changes, which is short;
 * we ask for no events, so none that nobody reads can keep it so. */
#define TRIES_MAX 1000000u

typedef enum {
    ANSWER_DONE,
    ANSWER_AGAIN,   /* not yet, or only a part: go on from there */
    ANSWER_PRESENT, /* a page is there already */
    ANSWER_HOLE,    /* nothing there that could be mapped */
    ANSWER_RANGE,   /* not one registered mapping */
    ANSWER_GONE,    /* the address space has ended */
    ANSWER_FAILED,
} Answer;

static Answer
answer_of(int error_number)
{
    switch (error_number) {
    case 0:
        return ANSWER_DONE;
    case EAGAIN:
    case EINTR:
        return ANSWER_AGAIN;
    case EEXIST:
        return ANSWER_PRESENT;
    case EFAULT:
        return ANSWER_HOLE;
    case ENOENT:
        return ANSWER_RANGE;
    case ESRCH:
    case EBADF:
        return ANSWER_GONE;
    default:
        return ANSWER_FAILED;
    }
}

/* The count field is an errno below zero when nothing was done. */
static int
finish_call(int result, int64_t count, uint64_t *ret_done)
{
    int error_number = result == 0 ? 0 : errno;

    *ret_done = count > 0 ? (uint64_t)count : 0;
    return error_number;
}

int
uffd_call_copy(int uffd, uintptr_t address, uint64_t length, const void *bytes, uint64_t *ret_done)
{
    struct uffdio_copy copy = {.dst = address, .src = (uintptr_t)bytes, .len = length};
    int result = ioctl(uffd, UFFDIO_COPY, &copy);

    return finish_call(result, copy.copy, ret_done);
}

int
uffd_call_zeropage(int uffd, uintptr_t address, uint64_t length, const void *bytes,
                   uint64_t *ret_done)
{
    struct uffdio_zeropage zeropage = {.range = {.start = address, .len = length}};
    int result = ioctl(uffd, UFFDIO_ZEROPAGE, &zeropage);

    (void)bytes;
    return finish_call(result, zeropage.zeropage, ret_done);
}

int
uffd_call_continue(int uffd, uintptr_t address, uint64_t length, const void *bytes,
                   uint64_t *ret_done)
{
    struct uffdio_continue go_on = {.range = {.start = address, .len = length}};
    int result = ioctl(uffd, UFFDIO_CONTINUE, &go_on);

    (void)bytes;
    return finish_call(result, go_on.mapped, ret_done);
}

void
uffd_wake(UffdMemory *memory, uint64_t offset, uint64_t length)
{
    struct uffdio_range range = {.start = (uintptr_t)memory->guest + offset, .len = length};

    /* Can only fail where nobody can wait. */
    (void)ioctl(memory->uffd, UFFDIO_WAKE, &range);
}

/* Each placing thread has its own, so that none needs a lock to say what went wrong. */
static _Thread_local struct {
    const UffdMemory *memory;
    char text[256];
} last_error;

const char *
uffd_memory_error(const UffdMemory *memory)
{
    return last_error.memory == memory ? last_error.text : "";
}

void
uffd_forget_error(const UffdMemory *memory)
{
    if (last_error.memory == memory) {
        last_error.memory = NULL;
    }
}

static UffdResult
fail(const UffdMemory *memory, uint64_t offset, int error_number)
{
    const char *remedy = "";

    if (error_number == ENOMEM) {
        remedy = ". The host or the memory control group is out of memory (or of huge pages)";
    } else if (error_number == EAGAIN) {
        remedy = ". The address space kept changing; does the program remap guest memory?";
    }
    last_error.memory = memory;
    g_snprintf(last_error.text, sizeof(last_error.text),
               "cannot place the page at offset 0x%" PRIx64 " of the guest memory at %p: %s%s",
               offset, memory->layout.host_address, g_strerror(error_number), remedy);
    return UFFD_FAILED;
}

UffdResult
uffd_result_join(UffdResult one, UffdResult two)
{
    static const int weights[] = {
        [UFFD_ALREADY] = 0, [UFFD_PLACED] = 1, [UFFD_GONE] = 2, [UFFD_FAILED] = 3};

    return weights[one] >= weights[two] ? one : two;
}

/* One page that call could not place. Sets *ret_passed when the page needs nothing more. */
static UffdResult
walk_other(UffdMemory *memory, UffdCall other, Answer answer, uint64_t offset, bool *ret_passed)
{
    *ret_passed = true;
    if (other == NULL) {
        return answer == ANSWER_PRESENT ? UFFD_ALREADY : fail(memory, offset, EFAULT);
    }
    UffdResult result = uffd_walk(memory, other, NULL, offset, memory->layout.page_bytes, NULL);

    /* A hole that got a page since, by a neighbour's 2 MiB: it is there but not mapped yet. */
    *ret_passed = !(answer == ANSWER_HOLE && result == UFFD_ALREADY);
    return result;
}

UffdResult
uffd_walk(UffdMemory *memory, UffdCall call, UffdCall other, uint64_t offset, uint64_t length,
          const void *bytes)
{
    uint64_t page_bytes = memory->layout.page_bytes;
    uint64_t most = length;
    uint64_t done = 0;
    unsigned tries = 0;
    UffdResult result = UFFD_ALREADY;
    bool present = false;

    while (done < length) {
        uint64_t piece = MIN(most, length - done);
        uint64_t progress = 0;
        int error_number = call(memory->uffd, (uintptr_t)memory->guest + offset + done, piece,
                                bytes != NULL ? (const uint8_t *)bytes + done : NULL, &progress);
        Answer answer = answer_of(error_number);

        if (progress > 0) {
            done += progress;
            result = UFFD_PLACED;
            tries = 0;
        } else if (++tries > TRIES_MAX) {
            return fail(memory, offset + done, EAGAIN);
        }
        if (answer == ANSWER_DONE) {
            continue;
        } else if (answer == ANSWER_AGAIN) {
            if (progress == 0) {
                sched_yield();
            }
        } else if (answer == ANSWER_PRESENT || answer == ANSWER_HOLE) {
            bool passed;
            UffdResult page = walk_other(memory, other, answer, offset + done, &passed);

            if (page == UFFD_GONE || page == UFFD_FAILED) {
                return page;
            }
            present |= page == UFFD_ALREADY;
            result = uffd_result_join(result, page);
            done += passed ? page_bytes : 0;
        } else if (answer == ANSWER_RANGE && piece > page_bytes) {
            /* The kernel refuses a range over two mappings, for instance of two NUMA nodes. */
            most = page_bytes;
        } else if (answer == ANSWER_RANGE || answer == ANSWER_GONE) {
            return UFFD_GONE;
        } else {
            return fail(memory, offset + done, error_number);
        }
    }
    if (present) {
        uffd_wake(memory, offset, length);
    }
    return result;
}
