/* SPDX-License-Identifier: MIT */
/* See take_back.h. */
#include "kvm/take_back.h"
#include "kvm/state_dir.h"

static const StateFile *
find_destination(const GPtrArray *files, const char *name, const char *directory, GError **error)
{
    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        if (file->record && file->record->incoming && g_str_equal(file->record->name, name))
            return file;
    }
    for (unsigned i = 0; i < files->len; i++) {
        const StateFile *file = g_ptr_array_index(files, i);
        if (!file->record && g_str_has_suffix(file->path, ".destination.json")) {
            g_propagate_error(error, g_error_copy(file->error));
            return NULL;
        }
    }
    g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_ARGUMENT,
                "take back: there is no record of a destination of the guest '%s' in %s; give the "
                "destination's --state-dir, or a directory with a copy of its record",
                name, directory);
    return NULL;
}

bool
take_back(Faultline *faultline, const char *name, const char *directory, bool has_ended,
          GError **error)
{
    g_autoptr(GPtrArray) files = state_dir_read(directory, error);
    const StateFile *file = files ? find_destination(files, name, directory, error) : NULL;

    if (!file)
        return false;
    if (file->life == STATE_LIFE_RUNS && has_ended) {
        g_set_error(error, FAULTLINE_ERROR, FAULTLINE_ERROR_STATE,
                    "take back: the destination's process, %" G_GINT64_FORMAT ", has not ended",
                    file->record->pid);
        return false;
    }
    FaultlineLastWords words = {.owner = file->record->owner,
                                .migration = file->record->migration,
                                .has_ended = has_ended || file->life == STATE_LIFE_GONE ||
                                             file->life == STATE_LIFE_ENDED};
    return faultline_take_back(faultline, &words, error);
}
