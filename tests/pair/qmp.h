/* SPDX-License-Identifier: MIT */
/*
 * A QMP client for tests: one command at a time, each with a deadline, and a record of all events.
 */
#ifndef TESTS_PAIR_QMP_H
#define TESTS_PAIR_QMP_H

#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

typedef struct Qmp Qmp;

/* Waits for the socket at path, the greeting and the answer to qmp_capabilities. */
Qmp *qmp_open(const char *path, int timeout_ms, GError **error);
void qmp_close(Qmp *qmp);

/* arguments: a JSON object as text, or NULL. Returns the "return" member (free with
 * json_node_unref), or NULL and the error's "desc". */
JsonNode *qmp_call(Qmp *qmp, const char *command, const char *arguments, GError **error);

/* All events so far, in order, one blank between: "MIGRATION:active STOP MIGRATION_PASS:2 ...".
 * Reads what has come first. Owned by qmp until the next call. */
const char *qmp_events(Qmp *qmp);

/* When the machine said the first (or last) of the events that read like this ("STOP",
 * "MIGRATION:active"), in us since 1970; 0: not among those that qmp_events has seen. */
int64_t qmp_event_first_us(Qmp *qmp, const char *event);
int64_t qmp_event_last_us(Qmp *qmp, const char *event);

#endif
