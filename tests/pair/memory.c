/* SPDX-License-Identifier: MIT */
/* See memory.h. Reading by /proc/PID/mem goes through the guest mapping, so it sees what a vCPU
 * would see. One thread, the test's. */
#include "tests/pair/memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BLOCKS_MAX  16
#define CHUNK_BYTES ((size_t)4 << 20)

typedef struct Block {
    char name[256];
    uint64_t address, length_bytes;
} Block;

static unsigned
read_blocks(Vm *vm, Block *ret_blocks)
{
    g_autofree char *text = NULL;
    unsigned count = 0;

    g_file_get_contents(vm->output, &text, NULL, NULL);
    g_auto(GStrv) lines = g_strsplit(text ? text : "", "\n", -1);
    for (unsigned i = 0; lines[i] && count < BLOCKS_MAX; i++) {
        Block *block = &ret_blocks[count];
        if (sscanf(lines[i], "ram: %255s 0x%" G_GINT64_MODIFIER "x 0x%" G_GINT64_MODIFIER "x",
                   block->name, &block->address, &block->length_bytes) == 3)
            count++;
    }
    if (count == 0)
        scene_fail(vm->scene, "%s printed no line \"ram: NAME 0xADDRESS 0xLENGTH\"", vm->label);
    return count;
}

static int
open_memory(Vm *vm)
{
    g_autofree char *path = g_strdup_printf("/proc/%d/mem", (int)vm->pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        scene_fail(vm->scene, "%s: cannot open %s", vm->label, path);
    return fd;
}

static void
read_chunk(Vm *vm, int fd, uint64_t address, uint8_t *buffer, size_t length)
{
    for (size_t at = 0; at < length;) {
        ssize_t count = pread(fd, buffer + at, length - at, (off_t)(address + at));
        if (count <= 0)
            scene_fail(vm->scene, "%s: cannot read its memory at 0x%" G_GINT64_MODIFIER "x",
                       vm->label, address + at);
        at += (size_t)count;
    }
}

static void
fail_at(Vm *source, const Block *block, uint64_t offset, const uint8_t *here, const uint8_t *there)
{
    size_t i = 0;

    while (here[i] == there[i])
        i++;
    scene_fail(source->scene,
               "block %s differs at offset 0x%" G_GINT64_MODIFIER "x (page %" G_GUINT64_FORMAT
               "): 0x%02x at the source, 0x%02x at the destination",
               block->name, offset + i, (offset + i) / 4096, here[i], there[i]);
}

/* Returns whether any byte of the block is not zero. */
static bool
compare_block(Vm *const vms[2], const int fds[2], const Block *blocks[2], uint8_t *buffers[2])
{
    bool seen = false;

    for (uint64_t offset = 0; offset < blocks[0]->length_bytes; offset += CHUNK_BYTES) {
        size_t length = (size_t)MIN(CHUNK_BYTES, blocks[0]->length_bytes - offset);

        for (int side = 0; side < 2; side++)
            read_chunk(vms[side], fds[side], blocks[side]->address + offset, buffers[side], length);
        if (memcmp(buffers[0], buffers[1], length) != 0)
            fail_at(vms[0], blocks[0], offset, buffers[0], buffers[1]);
        seen = seen || buffers[0][0] || memcmp(buffers[0], buffers[0] + 1, length - 1) != 0;
    }
    return seen;
}

void
memory_require_equal(Vm *source, Vm *destination)
{
    Vm *const vms[2] = {source, destination};
    g_autofree Block *here = g_new0(Block, BLOCKS_MAX);
    g_autofree Block *there = g_new0(Block, BLOCKS_MAX);
    g_autofree uint8_t *buffer = g_malloc(2 * CHUNK_BYTES);
    uint8_t *buffers[2] = {buffer, buffer + CHUNK_BYTES};
    unsigned count = read_blocks(source, here);
    const int fds[2] = {open_memory(source), open_memory(destination)};
    bool seen = false;

    if (read_blocks(destination, there) != count)
        scene_fail(source->scene, "the sides have different counts of blocks");
    for (unsigned i = 0; i < count; i++) {
        const Block *blocks[2] = {&here[i], &there[i]};
        if (strcmp(here[i].name, there[i].name) || here[i].length_bytes != there[i].length_bytes)
            scene_fail(source->scene, "block %u is %s here and %s there, or of another length", i,
                       here[i].name, there[i].name);
        seen = compare_block(vms, fds, blocks, buffers) || seen;
    }
    close(fds[0]);
    close(fds[1]);
    if (!seen)
        scene_fail(source->scene, "all memory is zero: the comparison would show nothing");
}
