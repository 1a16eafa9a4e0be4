/* SPDX-License-Identifier: MIT */
/*
 * Capabilities and parameters: one table each, read by QMP, HMP, checks and help. Values are
 * atomic: the control thread sets them, the migration's threads read what may change while they
 * run.
 */
#ifndef ENGINE_OPTIONS_H
#define ENGINE_OPTIONS_H

#include "engine/faultline.h"

/* X(name, QMP name, preset, must be equal on both sides, help, side that looks at it). Equal: 0 if
 * it need not be, else the bit of its own, the same in all versions, by which a source tells it
 * (STREAM_PING_AGREE). */
#define CAPABILITY_LIST(X)                                                                         \
    X(EVENTS, "events", false, 0, "send MIGRATION and MIGRATION_PASS events", EACH)                \
    X(POSTCOPY_RAM, "postcopy-ram", false, 0x1, "allow the switch to postcopy", EACH)              \
    X(POSTCOPY_PREEMPT, "postcopy-preempt", false, 0x2,                                            \
      "requested pages on a connection of their own", EACH)                                        \
    X(POSTCOPY_BLOCKTIME, "postcopy-blocktime", false, 0,                                          \
      "destination: account how long faults block vCPUs", DESTINATION)                             \
    X(PAUSE_BEFORE_SWITCHOVER, "pause-before-switchover", false, 0,                                \
      "source: with the guest stopped, wait in pre-switchover for migrate-continue", SOURCE)       \
    X(RELEASE_RAM, "release-ram", false, 0,                                                        \
      "source: free pages as they are sent in postcopy (no recovery then)", SOURCE)                \
    X(LOW_LATENCY, "low-latency", true, 0,                                                         \
      "hold /dev/cpu_dma_latency at 0 during postcopy, where that is permitted", EACH)             \
    X(PAGE_RUNS, "page-runs", true, 0,                                                             \
      "pages one behind the other under one header, if the peer is a faultline that has it on",    \
      EACH)                                                                                        \
    X(URGENT_REQUESTS, "urgent-requests", true, 0,                                                 \
      "with postcopy-preempt: requests on the urgent channel too, if the peer is a faultline "     \
      "that has it on",                                                                            \
      EACH)                                                                                        \
    X(DISCARD_WORDS, "discard-words", true, 0,                                                     \
      "scattered dirty pages are told as a bitmap, if the peer is a faultline that has it on",     \
      EACH)                                                                                        \
    X(AUTO_RECOVER, "auto-recover", true, 0,                                                       \
      "after a break in postcopy the source connects again by itself, and the destination lets "   \
      "it in, if both have it and recovery-token on",                                              \
      EACH)                                                                                        \
    X(RECOVERY_TOKEN, "recovery-token", true, 0,                                                   \
      "with postcopy-ram: each further connection proves that it is of the same migration, if "    \
      "the peer is a faultline that has it on",                                                    \
      EACH)                                                                                        \
    X(PAGE_CHECKSUMS, "page-checksums", false, 0,                                                  \
      "all that is sent carries checksums, if the peer is a faultline that has it on: what the "   \
      "network damages is found and asked for again, and the end is a verdict over all memory",    \
      EACH)                                                                                        \
    X(WARM_MEMORY, "warm-memory", false, 0,                                                        \
      "destination: take huge pages for all of the guest early, while the host has some to spare", \
      DESTINATION)                                                                                 \
    X(AUTO_CONVERGE, "auto-converge", false, 0,                                                    \
      "source: hold vCPUs for a rising part of their time while passes do not converge", SOURCE)   \
    X(RETURN_PATH, "return-path", true, 0,                                                         \
      "source: the destination confirms; without it a failure there loses the guest", SOURCE)

typedef enum {
#define CAPABILITY_ENUM(name, text, preset, both, help, side) CAPABILITY_##name,
    CAPABILITY_LIST(CAPABILITY_ENUM)
#undef CAPABILITY_ENUM
        CAPABILITY_COUNT
} Capability;

/* What one capability needs of another: X(one, needs) */
#define CAPABILITY_NEEDS_LIST(X) X(POSTCOPY_PREEMPT, POSTCOPY_RAM)

/* X(name, QMP name, preset, least, greatest, unit, help, type, side that looks at it, must be equal
 * on both sides) */
#define PARAMETER_LIST(X)                                                                          \
    X(MAX_BANDWIDTH, "max-bandwidth", 134217728, 0, INT64_MAX, "bytes/s",                          \
      "limit in precopy, 0: none", SIZE, SOURCE, false)                                            \
    X(HEARTBEAT_TIMEOUT, "heartbeat-timeout", 5000, 0, 60000, "ms",                                \
      "a connection on which nothing comes for so long is broken, between faultlines; the "        \
      "source's holds for both, 0 at either: wait for ever",                                       \
      INTEGER, EACH, false)                                                                        \
    X(RECOVER_DEADLINE, "recover-deadline", 0, 0, 86400000, "ms",                                  \
      "auto-recover: how long after a break the source goes on trying, 0: for ever", INTEGER,      \
      SOURCE, false)                                                                               \
    X(RECOVER_RETRY, "recover-retry", 6, 1, 60000, "ms",                                           \
      "auto-recover: longest time between two attempts; the first ones come sooner", INTEGER,      \
      SOURCE, false)                                                                               \
    X(FAREWELL_DEADLINE, "farewell-deadline", 60000, 0, 86400000, "ms",                            \
      "how long a destination that is over stays for a source that may not have heard so, 0: not", \
      INTEGER, DESTINATION, false)                                                                 \
    X(MAX_POSTCOPY_BANDWIDTH, "max-postcopy-bandwidth", 0, 0, INT64_MAX, "bytes/s",                \
      "limit of background pages in postcopy, 0: none", SIZE, SOURCE, false)                       \
    X(DOWNTIME_LIMIT, "downtime-limit", 300, 0, 2000000, "ms",                                     \
      "precopy ends when the rest can be sent in this time", INTEGER, SOURCE, false)               \
    X(SPIN_LIMIT, "spin-limit", 100, 0, 1000, "us",                                                \
      "longest time to wait awake for a requested page or the next request, 0: sleep at once",     \
      INTEGER, EACH, false)                                                                        \
    X(BULK_NICE, "bulk-nice", 20, 0, 20, "nice",                                                   \
      "of the threads that move pages in the background of postcopy, 0: none, 20: by the CPUs",    \
      INTEGER, EACH, false)                                                                        \
    X(NEIGHBOUR_PAGES, "neighbour-pages", 16, 0, 4096, "pages",                                    \
      "most pages to send unasked behind one of a stream, 0: none", INTEGER, SOURCE, false)        \
    X(DAMAGE_LIMIT, "damage-limit", 3, 1, 1000, "times",                                           \
      "page-checksums: a page that comes damaged so often breaks the connection", INTEGER,         \
      DESTINATION, false)                                                                          \
    X(THROTTLE_TRIGGER, "throttle-trigger-threshold", 50, 1, 100, "%",                             \
      "auto-converge: a pass in which more than this part of what was sent is dirtied does not "   \
      "converge; two in a row make a step",                                                        \
      INTEGER, SOURCE, false)                                                                      \
    X(THROTTLE_INITIAL, "cpu-throttle-initial", 20, 1, 99, "%",                                    \
      "auto-converge: part of their time that vCPUs are held by the first step", INTEGER, SOURCE,  \
      false)                                                                                       \
    X(THROTTLE_INCREMENT, "cpu-throttle-increment", 10, 1, 99, "%",                                \
      "auto-converge: what each later step adds", INTEGER, SOURCE, false)                          \
    X(THROTTLE_TAILSLOW, "cpu-throttle-tailslow", 0, 0, 1, "",                                     \
      "auto-converge: later steps add no more than should suffice", BOOLEAN, SOURCE, false)        \
    X(THROTTLE_GREATEST, "max-cpu-throttle", 99, 1, 99, "%",                                       \
      "auto-converge: where the steps end; not below cpu-throttle-initial", INTEGER, SOURCE,       \
      false)                                                                                       \
    X(TLS_CREDS, "tls-creds", 0, 0, 0, "",                                                         \
      "id of a tls-creds-x509 or tls-creds-psk object: all connections are TLS; empty: none is",   \
      TEXT, EACH, false)                                                                           \
    X(TLS_HOSTNAME, "tls-hostname", 0, 0, 0, "",                                                   \
      "name that the destination's certificate must have; empty: the host of a tcp: address",      \
      TEXT, SOURCE, false)                                                                         \
    X(TLS_AUTHZ, "tls-authz", 0, 0, 0, "",                                                         \
      "id of an authz-simple or authz-list object: which certificates may come in; empty: all "    \
      "that the CA signed",                                                                        \
      TEXT, DESTINATION, false)

/* Which parameter must not be above which: X(lower, upper) */
#define PARAMETER_ORDER_LIST(X) X(THROTTLE_INITIAL, THROTTLE_GREATEST)

typedef enum {
#define PARAMETER_ENUM(name, text, preset, least, greatest, unit, help, type, side, both)          \
    PARAMETER_##name,
    PARAMETER_LIST(PARAMETER_ENUM)
#undef PARAMETER_ENUM
        PARAMETER_COUNT
} Parameter;

typedef struct Options {
    bool capabilities[CAPABILITY_COUNT];  /* atomic */
    uint64_t parameters[PARAMETER_COUNT]; /* atomic */
    char *texts[PARAMETER_COUNT];         /* of type TEXT: control thread; NULL: empty */
} Options;

void options_init(Options *options);
void options_clear(Options *options);

/* STREAM_FEATURE_*: those that are not switched off, for the hello and its answer. */
uint32_t options_features(const Options *options);

/* Bits of the capabilities that must be equal on both sides and are on. */
uint32_t options_agreement(const Options *options);

/* PEER: names each capability that is on at one side only, what to do and where the guest is. */
bool options_check_agreement(uint32_t source, uint32_t destination, GError **error);

static inline bool
options_has(const Options *options, Capability capability)
{
    return __atomic_load_n(&options->capabilities[capability], __ATOMIC_RELAXED);
}

static inline uint64_t
options_get(const Options *options, Parameter parameter)
{
    return __atomic_load_n(&options->parameters[parameter], __ATOMIC_RELAXED);
}

#endif
