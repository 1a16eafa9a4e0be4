/* SPDX-License-Identifier: MIT */
/*
 * The command line of bench/fault-latency.
 */
#ifndef BENCH_LATENCY_OPTIONS_H
#define BENCH_LATENCY_OPTIONS_H

#include "bench/move.h"

typedef struct LatencyOptions {
    uint64_t memory_bytes, count_faults;
    GArray *pushes, *threads, *patterns,
        *tls; /* of uint64_t: configurations are all combinations */
    uint64_t stride;
    char *trace, *json_path;
    bool is_kvm;         /* the guest; else threads */
    bool with_checksums; /* each configuration also with page-checksums */
    bool traces, writes, preempt, accounts, is_unix, is_warm, uses_netns;
    double think_us;
    Backing backing;
    unsigned count_repeats, limit_s, run_s;
    uint64_t seed;
    Placement placement;
    char *spin, *low_latency; /* "auto", "on", "off"; spin: or us */
    MoveSetting settings[MOVE_SETTINGS_MAX];
    unsigned count_settings;
    /* What became of the two: "on", "off", or "n/a": this library has no such setting. */
    const char *spin_is, *low_latency_is;
    uint64_t spin_us; /* how long the engine spins at most; where it does not, the floor's spin */
} LatencyOptions;

/* false with an error: the command line is wrong or asks for what is not there. */
bool latency_options_parse(LatencyOptions *options, int *argc, char ***argv, GError **error);
void latency_options_clear(LatencyOptions *options);

/* "off", "20M", "full" */
char *push_text(uint64_t push_bytes_per_s);
/* With K, M, G, T of 1024. */
bool bench_parse_bytes(const char *text, uint64_t *ret_bytes);

#endif
