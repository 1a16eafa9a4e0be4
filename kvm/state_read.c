/* SPDX-License-Identifier: MIT */
/*
 * The reading side of a state directory: every record in it, and what became of its process. Main
 * thread; changes nothing.
 */
#include "kvm/state_dir.h"
#include "kvm/state_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FILE_BYTES_MAX 65536u /* a record has under 1 KiB */

static void
state_file_free(void *data)
{
    StateFile *file = data;
    g_free(file->path);
    state_record_free(file->record);
    g_clear_error(&file->error);
    g_free(file);
}

/* Not by a library's call, which would read a file of any length, or wait for a pipe. */
static char *
read_text(int fd, const char *path, const char *name, GError **error)
{
    int at = openat(fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (at < 0) {
        state_file_fail(error, "open", path, name, errno);
        return NULL;
    }
    g_autofree char *text = g_malloc0(FILE_BYTES_MAX + 1);
    size_t length = 0;
    ssize_t count;
    while ((count = read(at, text + length, FILE_BYTES_MAX - length)) > 0)
        length += (size_t)count;
    int reason = errno;
    close(at);
    if (count < 0) {
        state_file_fail(error, "read", path, name, reason);
        return NULL;
    }
    if (length < FILE_BYTES_MAX && strlen(text) == length)
        return g_steal_pointer(&text);
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "it is no record of faultline's: %s",
                length < FILE_BYTES_MAX ? "there are zeros in it" : "it is too long");
    return NULL;
}

static StateLife
look_at_life(const StateRecord *record)
{
    g_autofree char *host = state_file_host();
    bool is_locked;

    if (*record->end)
        return STATE_LIFE_ENDED;
    if (!g_str_equal(host, record->host))
        return STATE_LIFE_UNKNOWN;
    g_autofree char *boot = state_file_boot();
    if (!g_str_equal(boot, record->boot))
        return STATE_LIFE_GONE;
    /* A copy tells of its original's process. */
    g_autofree char *stem = state_file_stem(record->name);
    g_autofree char *file = state_file_name(stem, record->incoming, STATE_FILE_LOCK);
    g_autofree char *path = g_build_filename(record->directory, file, NULL);
    if (!state_file_is_locked(path, &is_locked))
        return STATE_LIFE_UNKNOWN;
    return is_locked ? STATE_LIFE_RUNS : STATE_LIFE_GONE;
}

static bool
is_record(const char *name)
{
    return *name != '.' &&
           (g_str_has_suffix(name, ".source.json") || g_str_has_suffix(name, ".destination.json"));
}

static StateFile *
read_file(int fd, const char *path, const char *name)
{
    StateFile *file = g_new0(StateFile, 1);
    g_autofree char *text = read_text(fd, path, name, &file->error);

    file->path = g_build_filename(path, name, NULL);
    if (text)
        file->record = state_record_parse(text, &file->error);
    if (!file->record) {
        g_prefix_error(&file->error, "record %s: ", file->path);
        return file;
    }
    g_autofree char *stem = state_file_stem(file->record->name);
    g_autofree char *expected = state_file_name(stem, file->record->incoming, STATE_FILE_RECORD);
    if (!g_str_equal(expected, name)) {
        g_clear_pointer(&file->record, state_record_free);
        g_set_error(&file->error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "record %s: it is another guest's, or another side's: that one's is %s",
                    file->path, expected);
        return file;
    }
    file->life = look_at_life(file->record);
    g_autofree char *list = g_strdup_printf("%s." STATE_LIST, stem);
    file->has_list = file->record->incoming && faccessat(fd, list, F_OK, 0) == 0;
    return file;
}

static int
compare(const void *a, const void *b)
{
    const StateFile *const *left = a, *const *right = b;
    return strcmp((*left)->path, (*right)->path);
}

GPtrArray *
state_dir_read(const char *path, GError **error)
{
    g_autoptr(GError) reason = NULL;
    g_autoptr(GDir) names = g_dir_open(path, 0, &reason);
    int fd = names ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    const char *name;

    if (fd < 0) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_HOST, "read state directory: %s",
                    reason ? reason->message : g_strerror(errno));
        return NULL;
    }
    GPtrArray *files = g_ptr_array_new_with_free_func(state_file_free);
    while ((name = g_dir_read_name(names)))
        if (is_record(name))
            g_ptr_array_add(files, read_file(fd, path, name));
    close(fd);
    g_ptr_array_sort(files, compare);
    return files;
}
