/* SPDX-License-Identifier: MIT */
/*
 * Reading who waits where: kernel messages to UffdFault, one batch a call. The fault thread runs
 * it, and nobody else reads the descriptor. Sleeping on it is the transport's, what a fault means
 * is the engine's.
 */
#include "uffd/memory.h"

#include <errno.h>
#include <unistd.h>

#include "uffd/abi.h"

#define BATCH 16u

unsigned
uffd_read_faults(Uffd *uffd, UffdFault *ret_faults, unsigned capacity)
{
    struct uffd_msg messages[BATCH];
    size_t wanted = MIN(capacity, BATCH) * sizeof(messages[0]);
    ssize_t got;
    unsigned count = 0;

    do {
        got = read(uffd->fd, messages, wanted);
    } while (got < 0 && errno == EINTR);
    for (ssize_t i = 0; i < got / (ssize_t)sizeof(messages[0]); i++) {
        const struct uffd_msg *message = &messages[i];

        if (message->event != UFFD_EVENT_PAGEFAULT) {
            continue;
        }
        ret_faults[count++] = (UffdFault){
            .address = message->arg.pagefault.address & ~(uintptr_t)(TARGET_PAGE_BYTES - 1),
            .thread = message->arg.pagefault.feat.ptid,
            .write = message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WRITE,
            .minor = message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR,
        };
    }
    return count;
}
