/* SPDX-License-Identifier: MIT */
/*
 * Writes and reads a verdict file. It is for a reader on the same host at the same time, so nothing
 * is synced to the disk: that could hold up the machine's main loop.
 */
#include "kvm/verdict_file.h"
#include "engine/faultline.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

bool
verdict_file_write(const char *path, const char *verdict, GError **error)
{
    g_autofree char *beside = g_strdup_printf("%s.%ld", path, (long)getpid());
    FILE *file = fopen(beside, "we");
    bool good = file && fprintf(file, "%s\n", verdict) > 0;
    int reason = errno;

    if (file && fclose(file) != 0) {
        reason = errno;
        good = false;
    }
    if (good && rename(beside, path) == 0)
        return true;
    if (good)
        reason = errno;
    unlink(beside);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST,
                "writing the verdict to %s: %s; give another file by --verdict", path,
                g_strerror(reason));
    return false;
}

char *
verdict_file_read(const char *path)
{
    char *line = NULL;

    if (!g_file_get_contents(path, &line, NULL, NULL))
        return NULL;
    return g_strchomp(line);
}
