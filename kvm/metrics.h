/* SPDX-License-Identifier: MIT */
/*
 * The figures of a migration as Prometheus text, and who serves them over HTTP (`faultline run
 * --metrics`). Names, units and labels are in doc/faultline-metrics.7. Main thread only: a request
 * is answered by the main loop, between other things, and nothing waits for a client.
 */
#ifndef KVM_METRICS_H
#define KVM_METRICS_H

#include "engine/faultline.h"
#include "kvm/monitor_socket.h"

/* Appends the text exposition format, version 0.0.4. name: of the guest. */
void metrics_render(const FaultlineInfo *info, const char *name, GString *text);

typedef struct MetricsServer MetricsServer;

/* unix:PATH, or tcp:HOST:PORT with a HOST of the loopback interface. Errors: ARGUMENT. */
bool metrics_address_parse(const char *text, MonitorSocket *ret_socket, GError **error);

/* Listens and serves GET /metrics until it is freed. Errors: ARGUMENT, HOST. */
MetricsServer *metrics_server_new(const Faultline *faultline, const char *guest_name,
                                  const char *address, GError **error);
void metrics_server_free(MetricsServer *server);

/* Where a tcp one listens, with the real port (g_free); NULL for unix. */
char *metrics_server_name(const MetricsServer *server);

#endif
