/* SPDX-License-Identifier: MIT */
/*
 * Guest physical memory to a file, for pmemsave. The caller's thread, which waits for the file
 * system; only a plain file is written to, as anything else may keep it waiting for ever.
 */
#include "kvm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* The block that holds the address, and how many bytes it has from there on. */
static const uint8_t *
find(const FaultlineBlock *blocks, unsigned count, uint64_t address, uint64_t *ret_length)
{
    for (unsigned i = 0; i < count; i++) {
        uint64_t offset = address - blocks[i].guest_address;
        if (address < blocks[i].guest_address || offset >= blocks[i].length_bytes)
            continue;
        *ret_length = blocks[i].length_bytes - offset;
        return (const uint8_t *)blocks[i].host_address + offset;
    }
    return NULL;
}

static bool
is_in_memory(const FaultlineBlock *blocks, unsigned count, uint64_t address, uint64_t length_bytes)
{
    uint64_t length = 0;

    while (length_bytes && find(blocks, count, address, &length)) {
        length = MIN(length, length_bytes);
        address += length;
        length_bytes -= length;
    }
    return length_bytes == 0;
}

static bool
write_all(int fd, const uint8_t *bytes, uint64_t length_bytes)
{
    while (length_bytes) {
        ssize_t written = write(fd, bytes, length_bytes);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return false;
        bytes += written;
        length_bytes -= (uint64_t)written;
    }
    return true;
}

static bool
fail(const char *path, const char *reason, GError **error)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "pmemsave: writing %s: %s; give the path of a file that can be written", path,
                reason);
    return false;
}

static bool
write_blocks(int fd, const FaultlineBlock *blocks, unsigned count, uint64_t address,
             uint64_t length_bytes)
{
    uint64_t length = 0;

    while (length_bytes) {
        const uint8_t *bytes = find(blocks, count, address, &length);
        length = MIN(length, length_bytes);
        if (!bytes || !write_all(fd, bytes, length))
            return false;
        address += length;
        length_bytes -= length;
    }
    return true;
}

bool
ram_write_file(const FaultlineBlock *blocks, unsigned count, uint64_t address,
               uint64_t length_bytes, const char *path, GError **error)
{
    struct stat status;

    if (!is_in_memory(blocks, count, address, length_bytes)) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "pmemsave: 0x%" G_GINT64_MODIFIER "x and %" G_GUINT64_FORMAT
                    " bytes from there on are not all guest memory",
                    address, length_bytes);
        return false;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0600);
    if (fd < 0)
        return fail(path, g_strerror(errno), error);
    bool is_plain = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
    bool is_written =
        is_plain && ftruncate(fd, 0) == 0 && write_blocks(fd, blocks, count, address, length_bytes);
    int reason = errno;
    if (close(fd) < 0 && is_written) {
        is_written = false;
        reason = errno;
    }
    if (is_written)
        return true;
    return fail(path, is_plain ? g_strerror(reason) : "it is no plain file", error);
}
