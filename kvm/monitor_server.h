/* SPDX-License-Identifier: MIT */
/*
 * QMP sockets of a running machine: listens at unix sockets on the GLib main loop and carries bytes
 * between their clients and the engine's monitor, which knows what they mean.
 *
 * Main thread only, like the monitor itself.
 */
#ifndef KVM_MONITOR_SERVER_H
#define KVM_MONITOR_SERVER_H

#include "engine/faultline.h"

typedef struct MonitorServer MonitorServer;

/* Listens at path, mode 0600. A socket that nobody listens at any more is replaced; anything else
 * at that path is an error (FAULTLINE_ERROR). monitor must outlive the server. */
MonitorServer *monitor_server_new(FaultlineMonitor *monitor, const char *path, GError **error);

/* Sends what clients still get, as far as they take it within a moment; closes; removes the path.
 */
void monitor_server_free(MonitorServer *server);

#endif
