/* SPDX-License-Identifier: MIT */
/*
 * The shared board, and what /proc tells of a process. Any thread.
 */
#include "bench/board.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

void *
bench_shared_memory(size_t bytes, GError **error)
{
    void *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory != MAP_FAILED)
        return memory;
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "make room for %zu bytes of figures: mmap: %s; ask for fewer faults", bytes,
                g_strerror(errno));
    return NULL;
}

static size_t
board_bytes(unsigned count_threads, uint64_t room)
{
    return sizeof(Board) + count_threads * room * sizeof(Touch);
}

Board *
board_new(unsigned count_threads, uint64_t room, GError **error)
{
    Board *board = bench_shared_memory(board_bytes(count_threads, room), error);
    if (!board)
        return NULL;
    board->room = room;
    return board;
}

static size_t
walk_bytes(const Board *board)
{
    return 2 * FAULTLINE_WALK_ROLE_COUNT * board->walk_room * sizeof(FaultlineWalkRecord);
}

bool
board_trace(Board *board, uint64_t room, GError **error)
{
    board->walk_room = room;
    board->walk_records = bench_shared_memory(walk_bytes(board), error);
    return board->walk_records != NULL;
}

FaultlineWalkTrace *
board_walks(Board *board, bool is_source)
{
    SideBoard *own = is_source ? &board->source : &board->destination;
    FaultlineWalkRecord *records = board->walk_records;

    if (!records)
        return NULL;
    if (!is_source)
        records += FAULTLINE_WALK_ROLE_COUNT * board->walk_room;
    for (unsigned i = 0; i < FAULTLINE_WALK_ROLE_COUNT; i++)
        own->walks[i] = (FaultlineWalkTrace){.records = records + i * board->walk_room,
                                             .capacity = board->walk_room};
    /* No first touch of a page of it while a fault is on its way. */
    memset(records, 0, walk_bytes(board) / 2);
    return own->walks;
}

void
board_free(Board *board, unsigned count_threads)
{
    if (board->walk_records)
        munmap(board->walk_records, walk_bytes(board));
    munmap(board, board_bytes(count_threads, board->room));
}

void
board_clear(Board *board)
{
    const Board kept = {
        .walk_records = board->walk_records, .walk_room = board->walk_room, .room = board->room};
    *board = kept;
}

/* The number behind `key` in one of /proc's "key: number" files; 0 if it is not there. */
static uint64_t
read_number(const char *path, const char *key)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return 0;
    const char *at = strstr(text, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void
read_thread(const char *id, ThreadUse *use)
{
    g_autofree char *folder = g_strconcat("/proc/self/task/", id, NULL);
    g_autofree char *comm = g_strconcat(folder, "/comm", NULL);
    g_autofree char *status = g_strconcat(folder, "/status", NULL);
    g_autofree char *schedstat = g_strconcat(folder, "/schedstat", NULL);
    g_autofree char *name = NULL;

    *use = (ThreadUse){.id = atoi(id)};
    if (g_file_get_contents(comm, &name, NULL, NULL))
        g_strlcpy(use->name, g_strchomp(name), sizeof use->name);
    use->switches = read_number(status, "\nvoluntary_ctxt_switches:");
    use->cpu_ns = read_number(schedstat, "");
}

void
thread_uses_read(ThreadUses *uses)
{
    g_autoptr(GDir) folder = g_dir_open("/proc/self/task", 0, NULL);
    const char *id;

    uses->count = 0;
    while (folder && uses->count < BOARD_THREADS_MAX && (id = g_dir_read_name(folder)))
        read_thread(id, &uses->threads[uses->count++]);
}

double
process_cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) * 1e-6;
}

uint64_t
process_anonymous_bytes(void)
{
    return read_number("/proc/self/status", "\nRssAnon:") * 1024;
}
