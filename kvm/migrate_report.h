/* SPDX-License-Identifier: MIT */
/*
 * What `faultline migrate` prints: a line for what each phase did, progress, the outcome. To
 * standard output, as text or as JSON, one object a line. Decides nothing. One thread.
 */
#ifndef KVM_MIGRATE_REPORT_H
#define KVM_MIGRATE_REPORT_H

#include "kvm/migrate_side.h"

typedef struct MigrateReport {
    bool json, terminal;
    const char *phase;
    int64_t printed_us; /* the last progress */
} MigrateReport;

/* How it ended. */
typedef struct MigrateOutcome {
    const char *name;  /* for programs: "completed", "failed", "cancelled", "paused", "lost" */
    const char *guest; /* for programs: "source", "destination", "unknown", "none" */
    const char *text;
    int exit_code;
    const MigrateLook *figures; /* of the source; NULL: there are none */
} MigrateOutcome;

void migrate_report_begin(MigrateReport *report, bool json);
void migrate_report_phase(MigrateReport *report, const char *phase);
void migrate_report_say(MigrateReport *report, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* Prints when it is time to: often at a terminal, else once a second. allowed_ms: of downtime. */
void migrate_report_progress(MigrateReport *report, const MigrateLook *look, uint64_t allowed_ms);

void migrate_report_outcome(MigrateReport *report, const MigrateOutcome *outcome);

/* One object a line with members of the caller's; taken over. With the phase in it. */
void migrate_report_object(MigrateReport *report, JsonObject *object);

#endif
