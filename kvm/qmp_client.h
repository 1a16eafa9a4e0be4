/* SPDX-License-Identifier: MIT */
/*
 * A client of a QMP socket, for the program's own subcommands: connects, negotiates, sends a
 * command and waits for its reply, and hands on the events that come in between. One thread.
 */
#ifndef KVM_QMP_CLIENT_H
#define KVM_QMP_CLIENT_H

#include <gio/gio.h>
#include <json-glib/json-glib.h>
#include <stdbool.h>

typedef struct QmpClient QmpClient;

/* Connects to a unix socket, reads the greeting and leaves negotiation mode. */
QmpClient *qmp_client_open(const char *path, GError **error);

/* The same, and waits for no answer longer than timeout_s (G_IO_ERROR_TIMED_OUT); 0: no limit. */
QmpClient *qmp_client_open_within(const char *path, unsigned timeout_s, GError **error);
void qmp_client_free(QmpClient *client);

/* From here on: how long an answer may take; 0: no limit. */
void qmp_client_set_patience(QmpClient *client, unsigned timeout_s);
G_DEFINE_AUTOPTR_CLEANUP_FUNC(QmpClient, qmp_client_free)

/* event: the whole message, valid during the call. */
void qmp_client_on_event(QmpClient *client, void (*take)(void *opaque, JsonObject *event),
                         void *opaque);

/* Sends a command and waits for what it returns. arguments: taken over, may be NULL. An error of
 * the peer is G_IO_ERROR_FAILED with its description; a closed connection G_IO_ERROR_CLOSED. */
JsonNode *qmp_client_execute(QmpClient *client, const char *command, JsonObject *arguments,
                             GError **error);

#endif
