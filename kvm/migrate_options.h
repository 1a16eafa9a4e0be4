/* SPDX-License-Identifier: MIT */
/*
 * The options of `faultline migrate`. Everything refused here is wrong use of the program
 * (FAULTLINE_ERROR_ARGUMENT); what the machines think of a value is left to them. Main thread only.
 */
#ifndef KVM_MIGRATE_OPTIONS_H
#define KVM_MIGRATE_OPTIONS_H

#include "kvm/migrate_policy.h"
#include "kvm/run_options.h"

typedef struct MigrateOptions {
    char *from, *to, *uri;    /* to: may be NULL with dry_run; uri: NULL: tcp, loopback, any port */
    MigrateDowntime downtime; /* guest_bytes is not known yet */
    MigratePolicy policy;
    bool has_bandwidth, has_postcopy_bandwidth;
    uint64_t bytes_per_s, postcopy_bytes_per_s; /* 0: no limit */
    gboolean auto_converge, dry_run, json, keep_source;
    GArray *capabilities, *parameters; /* RunSetting */
} MigrateOptions;

/* argv[0] is "migrate". --help prints and exits. NULL on wrong use. */
MigrateOptions *migrate_options_parse(int argc, char **argv, GError **error);
void migrate_options_free(MigrateOptions *options);

#endif
