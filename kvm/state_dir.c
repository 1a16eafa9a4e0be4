/* SPDX-License-Identifier: MIT */
/*
 * The writing side of a state directory. Descriptors are opened once: a directory that vanishes
 * makes the next write fail, instead of going on somewhere else.
 */
#include "kvm/state_dir.h"
#include "kvm/log.h"
#include "kvm/state_file.h"
#include "kvm/state_judge.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <pthread.h>
#include <unistd.h>

#define NAME_BYTES_MAX 200

struct StateDir {
    char *path, *name, *stem; /* stem: the name as part of a file's */
    char *host, *boot, *whole_path;
    int fd;
    int locks[2];         /* by side; -1: not held */
    pthread_mutex_t lock; /* over what follows: the engine may still write while its process ends */
    bool has_ended;       /* nothing is written any more */
    StateRecord *last;    /* what was written last, for the end */
};

static bool
fail_state(GError **error, const char *text)
{
    g_set_error_literal(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE, text);
    return false;
}

static bool
take_lock(StateDir *dir, bool incoming, GError **error)
{
    if (dir->locks[incoming] >= 0)
        return true;
    g_autofree char *file = state_file_name(dir->stem, incoming, STATE_FILE_LOCK);
    int fd = openat(dir->fd, file, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return state_file_fail(error, "open lock", dir->path, file, errno);
    if (!state_file_lock(fd)) {
        int reason = errno;
        close(fd);
        if (reason != EAGAIN && reason != EACCES)
            return state_file_fail(error, "lock", dir->path, file, reason);
        g_autofree char *text = g_strdup_printf(
            "state directory %s: another process that runs is the %s of guest '%s' there; end it, "
            "or give another directory or --name",
            dir->path, state_record_side(incoming), dir->name);
        return fail_state(error, text);
    }
    dir->locks[incoming] = fd;
    return true;
}

static bool
write_record(StateDir *dir, StateRecord *record, GError **error)
{
    g_autofree char *file = state_file_name(dir->stem, record->incoming, STATE_FILE_RECORD);

    record->written_us = g_get_real_time();
    g_autofree char *text = state_record_format(record);
    return state_file_write(dir->fd, dir->path, file, text, error);
}

static StateRecord *
make_record(const StateDir *dir, bool incoming, FaultlineOwner owner)
{
    StateRecord *record = g_new0(StateRecord, 1);

    record->name = g_strdup(dir->name);
    record->incoming = incoming;
    record->owner = owner;
    record->status = g_strdup(faultline_status_name(FAULTLINE_STATUS_NONE));
    record->address = g_strdup("");
    record->host = g_strdup(dir->host);
    record->boot = g_strdup(dir->boot);
    record->directory = g_strdup(dir->whole_path);
    record->pid = getpid();
    record->end = g_strdup("");
    return record;
}

static void
keep(StateDir *dir, StateRecord *record)
{
    state_record_free(dir->last);
    dir->last = record;
}

/* Under lock. Takes *record if it is the last one now. */
static bool
write_and_keep(StateDir *dir, const FaultlineOwnership *ownership, StateRecord **record,
               GError **error)
{
    g_autoptr(GError) reason = NULL;
    bool written =
        take_lock(dir, (*record)->incoming, &reason) && write_record(dir, *record, &reason);
    if (!written && !ownership->may_refuse)
        log_say(LOG_WARNING, "the record of guest '%s' is old now, and it goes on: %s", dir->name,
                reason->message);
    if (written || !ownership->may_refuse)
        keep(dir, g_steal_pointer(record));
    if (!written)
        g_propagate_error(error, g_steal_pointer(&reason));
    return written;
}

bool
state_dir_write(void *opaque, const FaultlineOwnership *ownership, GError **error)
{
    StateDir *dir = opaque;
    g_autoptr(StateRecord) record = make_record(dir, ownership->incoming, ownership->owner);

    g_free(record->status);
    record->status = g_strdup(ownership->status);
    record->migration = ownership->migration;
    record->missing_pages = ownership->missing_pages;
    g_free(record->address);
    record->address = g_strdup(ownership->address ? ownership->address : "");
    pthread_mutex_lock(&dir->lock);
    bool is_good = dir->has_ended || write_and_keep(dir, ownership, &record, error);
    pthread_mutex_unlock(&dir->lock);
    return is_good;
}

bool
state_dir_write_beside(StateDir *dir, const char *suffix, const char *text, GError **error)
{
    g_autofree char *file = g_strdup_printf("%s.%s", dir->stem, suffix);
    return state_file_write(dir->fd, dir->path, file, text, error);
}

void
state_dir_remove_beside(StateDir *dir, const char *suffix)
{
    g_autofree char *file = g_strdup_printf("%s.%s", dir->stem, suffix);
    unlinkat(dir->fd, file, 0);
}

/* Whether the records that are there allow the guest to be started, or received, once more. */
static bool
check_records(const StateDir *dir, bool incoming, GError **error)
{
    g_autoptr(GPtrArray) files = state_dir_read(dir->path, error);
    if (!files)
        return false;
    g_autofree char *why = state_judge_start(files, dir->name, incoming);
    return !why || fail_state(error, why);
}

StateDir *
state_dir_open(const char *path, const char *name, bool incoming, GError **error)
{
    g_autofree char *stem = state_file_stem(name);

    if (!*name || strlen(stem) > NAME_BYTES_MAX) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                    "--name '%s': it names files in the state directory, and must have 1 to %d "
                    "bytes",
                    name, NAME_BYTES_MAX);
        return NULL;
    }
    StateDir *dir = g_new0(StateDir, 1);
    pthread_mutex_init(&dir->lock, NULL);
    dir->path = g_strdup(path);
    dir->whole_path = g_canonicalize_filename(path, NULL);
    dir->name = g_strdup(name);
    dir->stem = g_steal_pointer(&stem);
    dir->host = state_file_host();
    dir->boot = state_file_boot();
    dir->locks[0] = dir->locks[1] = -1;
    dir->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool is_open = dir->fd >= 0;
    if (!is_open)
        state_file_fail(error, "open state directory", path, NULL, errno);
    StateRecord *first =
        make_record(dir, incoming, incoming ? FAULTLINE_OWNER_COMING : FAULTLINE_OWNER_HERE);
    keep(dir, first);
    if (is_open && take_lock(dir, incoming, error) && check_records(dir, incoming, error) &&
        write_record(dir, first, error)) {
        state_dir_remove_beside(dir, STATE_LIST);
        return dir;
    }
    state_dir_free(dir);
    return NULL;
}

void
state_dir_end(StateDir *dir, const char *how)
{
    g_autoptr(GError) error = NULL;

    pthread_mutex_lock(&dir->lock);
    dir->has_ended = true;
    g_free(dir->last->end);
    dir->last->end = g_strdup(how);
    if (!write_record(dir, dir->last, &error))
        log_say(LOG_WARNING, "the record of guest '%s' lacks its end: %s", dir->name,
                error->message);
    pthread_mutex_unlock(&dir->lock);
}

void
state_dir_free(StateDir *dir)
{
    if (!dir)
        return;
    for (unsigned i = 0; i < G_N_ELEMENTS(dir->locks); i++)
        if (dir->locks[i] >= 0)
            close(dir->locks[i]);
    if (dir->fd >= 0)
        close(dir->fd);
    g_clear_pointer(&dir->last, state_record_free);
    pthread_mutex_destroy(&dir->lock);
    g_free(dir->path);
    g_free(dir->whole_path);
    g_free(dir->name);
    g_free(dir->stem);
    g_free(dir->host);
    g_free(dir->boot);
    g_free(dir);
}
