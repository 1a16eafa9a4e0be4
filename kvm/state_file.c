/* SPDX-License-Identifier: MIT */
/*
 * Names, durable writes and locks. A file is written beside, synced, renamed over the old one, and
 * the directory synced: rename(2) alone orders nothing with a crash of the host.
 */
#include "kvm/state_file.h"
#include "engine/faultline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define BOOT_ID "/proc/sys/kernel/random/boot_id"

/* No name makes a hidden file, or one in another directory. */
char *
state_file_stem(const char *name)
{
    g_autofree char *escaped = g_uri_escape_string(name, NULL, FALSE);
    return *escaped == '.' ? g_strconcat("%2E", escaped + 1, NULL) : g_steal_pointer(&escaped);
}

char *
state_file_name(const char *stem, bool incoming, const char *kind)
{
    return g_strdup_printf("%s.%s.%s", stem, incoming ? "destination" : "source", kind);
}

static const char *
remedy(int reason)
{
    switch (reason) {
    case ENOSPC:
    case EDQUOT:
        return "make room there";
    case EROFS:
    case EACCES:
    case EPERM:
        return "make it writable for this user, or give another --state-dir";
    case ENOENT:
    case ENOTDIR:
    case ESTALE:
        return "make the directory, and keep it while a machine uses it";
    default:
        return "look at the disk, or give another --state-dir";
    }
}

bool
state_file_fail(GError **error, const char *what, const char *path, const char *file, int reason)
{
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "%s %s%s%s: %s; %s", what, path,
                file ? "/" : "", file ? file : "", g_strerror(reason), remedy(reason));
    return false;
}

static bool
write_all(int fd, const char *text)
{
    for (size_t left = strlen(text); left > 0;) {
        ssize_t count = write(fd, text, left);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return false;
        text += count;
        left -= (size_t)count;
    }
    return true;
}

bool
state_file_write(int fd, const char *path, const char *file, const char *text, GError **error)
{
    g_autofree char *beside = g_strdup_printf(".%s.new", file);
    const char *what = "create";

    int to = openat(fd, beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (to < 0)
        return state_file_fail(error, what, path, beside, errno);
    what = "write";
    bool good = write_all(to, text) && fsync(to) == 0;
    int reason = errno;
    if (close(to) != 0 && good) {
        reason = errno;
        good = false;
    }
    if (good && renameat(fd, beside, fd, file) != 0) {
        what = "rename to";
        reason = errno;
        good = false;
    }
    if (!good) {
        unlinkat(fd, beside, 0);
        return state_file_fail(error, what, path, file, reason);
    }
    return fsync(fd) == 0 || state_file_fail(error, "sync", path, NULL, errno);
}

bool
state_file_lock(int fd)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

bool
state_file_is_locked(const char *file, bool *ret_is_locked)
{
    struct flock lock = {.l_type = F_RDLCK, .l_whence = SEEK_SET};
    int at = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (at < 0)
        return false;
    /* Asks only: to take it, for a moment, would keep a machine from starting. */
    bool can_ask = fcntl(at, F_OFD_GETLK, &lock) == 0;
    *ret_is_locked = can_ask && lock.l_type != F_UNLCK;
    close(at);
    return can_ask;
}

char *
state_file_host(void)
{
    return g_strdup(g_get_host_name());
}

char *
state_file_boot(void)
{
    char *text = NULL;
    return g_file_get_contents(BOOT_ID, &text, NULL, NULL) ? g_strchomp(text) : g_strdup("unknown");
}
