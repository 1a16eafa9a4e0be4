/* SPDX-License-Identifier: MIT */
/*
 * What the demo prints: a live line while the guest moves, and the figures at the end, all of them
 * read from replies to query-migrate. One thread.
 */
#ifndef KVM_DEMO_REPORT_H
#define KVM_DEMO_REPORT_H

#include <json-glib/json-glib.h>
#include <stdbool.h>
#include <stdint.h>

/* A number of a reply; group NULL: of its top level; -1 when the reply has none. */
int64_t demo_report_number(JsonObject *reply, const char *group, const char *member);

typedef struct DemoProgress {
    bool terminal;
    int64_t printed_us, rate_us, rate_bytes;
    double bytes_per_s;
} DemoProgress;

void demo_progress_begin(DemoProgress *progress);
/* Prints when it is time to, or when last. */
void demo_progress_show(DemoProgress *progress, JsonObject *source, bool last);
/* One line of its own. */
void demo_progress_say(DemoProgress *progress, const char *text);

void demo_report_print(JsonObject *source, JsonObject *destination, const char *verdict);

#endif
