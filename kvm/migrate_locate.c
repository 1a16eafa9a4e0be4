/* SPDX-License-Identifier: MIT */
/*
 * Where the guest is, from what both sides say at rest. The source's word comes first: as long as
 * it says that the guest is its own, the destination never had it. Pure.
 */
#include "kvm/migrate.h"

static bool
is_here(const MigrateLook *look)
{
    return migrate_look_runs(look, "running") || migrate_look_runs(look, "paused");
}

static bool
lacks_pages(const MigrateLook *destination)
{
    return migrate_look_is(destination, "postcopy-paused") || destination->missing_pages > 0 ||
           g_str_has_prefix(destination->status, "postcopy-");
}

/* The source gave it away, or might have. */
static MigrateGuest
locate_beyond(const MigrateLook *source, const MigrateLook *destination)
{
    if (!destination)
        return g_str_has_prefix(source->status, "postcopy-") ? MIGRATE_GUEST_LOST
                                                             : MIGRATE_GUEST_UNKNOWN;
    if (migrate_look_is(destination, "completed") && !destination->missing_pages &&
        is_here(destination))
        return MIGRATE_GUEST_AT_DESTINATION; /* and the source does not know yet */
    if (migrate_look_is(source, "postcopy-paused") ||
        migrate_look_is(destination, "postcopy-paused"))
        return MIGRATE_GUEST_WAITS;
    return is_here(destination) ? MIGRATE_GUEST_AT_DESTINATION : MIGRATE_GUEST_UNKNOWN;
}

MigrateGuest
migrate_locate(const MigrateLook *source, const MigrateLook *destination)
{
    if (source) {
        if (is_here(source) || migrate_look_runs(source, "prelaunch"))
            return MIGRATE_GUEST_AT_SOURCE;
        return locate_beyond(source, destination);
    }
    if (!destination)
        return MIGRATE_GUEST_UNKNOWN;
    if (!is_here(destination) || lacks_pages(destination))
        return MIGRATE_GUEST_LOST;
    return MIGRATE_GUEST_AT_DESTINATION;
}
