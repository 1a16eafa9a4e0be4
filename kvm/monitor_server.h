/* SPDX-License-Identifier: MIT */
/*
 * QMP sockets of a running machine: listens or connects on the GLib main loop and carries bytes
 * between the clients and the engine's monitor, which knows what they mean.
 *
 * Main thread only, like the monitor itself.
 */
#ifndef KVM_MONITOR_SERVER_H
#define KVM_MONITOR_SERVER_H

#include "engine/faultline.h"

typedef struct MonitorServer MonitorServer;

/* address: as monitor_socket.h says, which also says what is done to a file at its path. One that
 * connects serves that one client, and nobody after it. monitor must outlive the server. Errors:
 * ARGUMENT, HOST. */
MonitorServer *monitor_server_new(FaultlineMonitor *monitor, const char *address, GError **error);

/* Where it listens, with the real port (g_free); NULL unless that is tcp. */
char *monitor_server_name(const MonitorServer *server);

/* Sends what clients still get, as far as they take it within a moment; closes; removes the path.
 */
void monitor_server_free(MonitorServer *server);

#endif
