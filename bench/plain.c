/* SPDX-License-Identifier: MIT */
/*
 * The plain transfer: one process sends its memory in frames as large as the engine's, the other
 * receives straight into memory of the same backing, and checks nothing.
 */
#include "bench/plain.h"
#include "bench/clock.h"
#include "bench/floor.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define FRAME_BYTES (256u << 10)

/* Shared by coordinator and both sides. */
typedef struct PlainBoard {
    char errors[2][600];
    PlainFigures figures;
} PlainBoard;

typedef struct Plain {
    const PlainPlan *plan;
    PlainBoard *board;
} Plain;

static bool
fail(const char *what, int fd, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_LINK, "plain transfer: %s: %s", what,
                g_strerror(errno));
    close(fd);
    return false;
}

static bool
send_all(void *context, int link_fd, GError **error)
{
    const Plain *plain = context;
    const FaultlineBlock *block = plain->plan->source_block;
    char byte;
    bench_map_source(block);
    int fd = bench_socket_connect(plain->plan->is_unix, plain->plan->netns, link_fd, error);

    if (fd < 0)
        return false;
    double cpu_s = process_cpu_s();
    for (uint64_t at = 0; at < block->length_bytes;) {
        struct iovec iov = {.iov_base = (char *)block->host_address + at,
                            .iov_len = MIN(FRAME_BYTES, block->length_bytes - at)};
        struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
        ssize_t sent = sendmsg(fd, &message, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return fail("sendmsg", fd, error);
        at += sent > 0 ? (uint64_t)sent : 0;
    }
    /* Its closing says that the last byte has been taken; the work until then is ours as well. */
    if (recv(fd, &byte, 1, 0) != 0)
        return fail("wait for the end", fd, error);
    plain->board->figures.source_cpu_s = process_cpu_s() - cpu_s;
    close(fd);
    return true;
}

static bool
receive_into(const Plain *plain, int fd, const FaultlineBlock *block, GError **error)
{
    PlainFigures *figures = &plain->board->figures;
    double cpu_s = process_cpu_s();
    uint64_t begin_ns = 0;

    for (uint64_t at = 0; at < block->length_bytes;) {
        uint64_t room = MIN(FRAME_BYTES, block->length_bytes - at);
        ssize_t got = recv(fd, (char *)block->host_address + at, room, 0);
        if (got == 0 || (got < 0 && errno != EINTR))
            return fail("recv", fd, error);
        if (!begin_ns)
            begin_ns = bench_now_ns();
        at += got > 0 ? (uint64_t)got : 0;
    }
    figures->seconds = (double)(bench_now_ns() - begin_ns) * 1e-9;
    figures->destination_cpu_s = process_cpu_s() - cpu_s;
    close(fd);
    return true;
}

static bool
receive_all(void *context, int link_fd, GError **error)
{
    const Plain *plain = context;
    const PlainPlan *plan = plain->plan;
    FaultlineBlock block;

    if (!plan->is_allocated)
        bench_warm_host(plan->backing, plan->source_block->length_bytes);
    if (!bench_map(plan->backing, plan->source_block->length_bytes, &block, error))
        return false;
    if (plan->is_allocated)
        memset(block.host_address, 1, block.length_bytes);
    int fd = bench_socket_accept(plan->is_unix, plan->netns, link_fd, error);
    bool received = fd >= 0 && receive_into(plain, fd, &block, error);
    ram_unmap(&block);
    return received;
}

bool
plain_run(const PlainPlan *plan, PlainFigures *ret_figures, GError **error)
{
    PlainBoard *board = bench_shared_memory(sizeof *board, error);
    if (!board)
        return false;
    Plain plain = {.plan = plan, .board = board};
    ForkedChild children[2] = {
        {"plain transfer, source", send_all, &plain, &plan->placement->source, plan->netns, 0,
         board->errors[0]},
        {"plain transfer, destination", receive_all, &plain, &plan->placement->destination,
         plan->netns, 1, board->errors[1]},
    };
    bool done = forked_pair_run(children, plan->limit_s, error);
    *ret_figures = board->figures;
    munmap(board, sizeof *board);
    return done;
}
