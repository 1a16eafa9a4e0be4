/* SPDX-License-Identifier: MIT */
/*
 * The floor: what this machine takes for the parts of a remote fault without any engine, measured
 * in the same run, on the same CPUs, over the same kind of socket.
 *
 *   round trip   20 bytes to the source, one page back, plain send() and recv() between the same
 *                two processes' places; sleeping, and spinning for a bounded time before it sleeps
 *   by io_uring  the same bytes over the engine's transport, without the engine
 *   local fault  a touch of a page that userfaultfd watches, answered from memory by a thread on
 *                the destination's CPUs, placed the way the engine places it on this backing
 *
 * The floor of a remote fault is the plain round trip and the local fault together, quantile by
 * quantile; a second one takes the round trip by io_uring.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include "bench/move.h"

#define FLOOR_REQUEST_BYTES 20u

typedef struct FloorPlan {
    bool is_unix;
    uint64_t spin_ns;   /* asks for so long before it sleeps; 0: sleeps at once */
    bool holds_latency; /* /dev/cpu_dma_latency at 0 meanwhile */
    const Netns *netns;
    const Placement *placement;
    Backing backing;
    uint64_t count; /* round trips or faults */
    unsigned limit_s;
} FloorPlan;

/* us each; fewer than plan->count where memory is short (huge pages). */
GArray *floor_round_trips(const FloorPlan *plan, GError **error);
GArray *floor_ring_trips(const FloorPlan *plan, GError **error);
GArray *floor_local_faults(const FloorPlan *plan, GError **error);

/* Holds /dev/cpu_dma_latency at 0 until closed; -1: this host does not let us. */
int floor_hold_latency(void);

/* The two ends of floor_ring_trips(), in their processes (floor_ring.c); us: plan->count. */
bool floor_answer_ring(const FloorPlan *plan, int link_fd, GError **error);
bool floor_ask_ring(const FloorPlan *plan, int link_fd, double *us, GError **error);

/* ---- A connection of the kind wanted, for floor and bulk (socket.c). The destination listens.
 * Addresses travel over the link of a forked pair. */
int bench_socket_accept(bool is_unix, const Netns *netns, int link_fd, GError **error);
int bench_socket_connect(bool is_unix, const Netns *netns, int link_fd, GError **error);

/* The two ends of a floor for recovery: plan->count times a connection of its own, 20 bytes there
 * and a page back. us: plan->count, from before the connection to the page. */
bool bench_socket_answer_pages(const FloorPlan *plan, int link_fd, GError **error);
bool bench_socket_ask_pages(const FloorPlan *plan, int link_fd, double *us, GError **error);

#endif
