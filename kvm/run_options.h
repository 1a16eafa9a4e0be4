/* SPDX-License-Identifier: MIT */
/*
 * The options of `faultline run`: what they are, and the checks that need no machine. Everything
 * refused here is wrong use of the program (FAULTLINE_ERROR_ARGUMENT). Main thread only.
 */
#ifndef KVM_RUN_OPTIONS_H
#define KVM_RUN_OPTIONS_H

#include "kvm/log.h"
#include "kvm/machine.h"
#include "kvm/peer_lost.h"

/* NAME=on|off of a capability, NAME=VALUE of a parameter. */
typedef struct RunSetting {
    char *name;
    uint64_t value;
    char *text; /* of a parameter that is text; else NULL */
} RunSetting;

typedef struct RunOptions {
    MachineOptions machine; /* its texts are owned by this struct */
    const MachineKind *kind;
    char *boot, *serial;
    char **qmp;           /* addresses, monitor_socket.h */
    char *metrics;        /* NULL or an address, metrics.h */
    char **addresses;     /* --incoming, as often as it was given; NULL: never */
    const char *incoming; /* NULL, "defer" or the first URI */
    bool paused;
    bool insecure;
    char *name;
    char *verdict;   /* NULL or a path */
    char *state_dir; /* NULL or a path */
    PeerLostPolicy on_source_lost;
    uint64_t peer_lost_after_s; /* 0: only when told */
    LogLevel log_level;
    RunSetting *capabilities, *parameters;
    unsigned count_capabilities, count_parameters;
    char **objects; /* as faultline_add_object_text() takes them */
} RunOptions;

/* argv[0] is "run". --help prints and exits. NULL on wrong use. */
RunOptions *run_options_parse(int argc, char **argv, GError **error);
void run_options_free(RunOptions *options);

/* An ARGUMENT error, also for other subcommands; always false. */
bool run_options_refuse(GError **error, const char *format, ...) G_GNUC_PRINTF(2, 3);

/* "4096", "64K", "16M", "5G", "1T": digits and at most one suffix, powers of 1024, nothing else. */
bool run_options_parse_size(const char *text, uint64_t *ret_bytes, GError **error);

/* "NAME=on" or "NAME=off"; "NAME=SIZE", or "NAME=TEXT" for a parameter that is text. *ret_setting:
 * free name and text with g_free. */
bool run_options_parse_capability(const char *text, RunSetting *ret_setting, GError **error);
bool run_options_parse_parameter(const char *text, RunSetting *ret_setting, GError **error);

#endif
