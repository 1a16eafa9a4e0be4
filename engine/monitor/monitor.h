/* SPDX-License-Identifier: MIT */
/*
 * The monitor's inside, shared by the files of this folder only; the VMM sees the last chapter of
 * faultline.h. Everything here runs on the control thread, and nothing here blocks.
 *
 * The way of one QMP command, in call order:
 *
 *   session.c    bytes -> frame.c cuts out one value -> grammar.c: it is JSON -> json-glib ->
 *                execute, arguments, id
 *   commands.c   name -> row of the one table of commands (command_table.c)
 *   arguments.c  the row's arguments: unknown, missing, wrong type, out of range
 *   the handler  (commands.c, migrate_commands.c, query_migrate.c, rate_commands.c, fds.c) sees
 * only checked arguments events.c     what the command caused goes out as events, then session.c
 * the reply as one line
 *
 * What a client sends costs at most 32 MiB at a time, by the limits of frame.c (tests/fuzz counts).
 *
 * An HMP line (hmp.c) finds its row by its typed name and goes through the same check and handler.
 */
#ifndef MONITOR_H
#define MONITOR_H

#include <json-glib/json-glib.h>

#include "engine/faultline.h"

#define MONITOR_VERSION_MAJOR 0
#define MONITOR_VERSION_MINOR 1
#define MONITOR_VERSION_MICRO 0
#define MONITOR_PACKAGE       "faultline"

struct FaultlineMonitor {
    Faultline *faultline;
    FaultlineMonitorHost host;
    char *name;
    void *opaque;
    GPtrArray *sessions; /* FaultlineSession, not owned: each leaves in faultline_session_free */
    FaultlineSession *current; /* whose command runs; NULL: none, or a line of the VMM's */
    GHashTable *named_fds;     /* of getfd: name -> FdNumber */
    GArray *set_fds;           /* of add-fd: SetFd */
    bool has_ended;            /* the guest, and it was told */
    bool stays_on_error;       /* the last migrate-incoming said exit-on-error: false */
};

/* ---- frame.c: where one JSON value ends ------------------------------------------------------ */

#define FRAME_LENGTH_MAX_BYTES (1024u * 1024u)
#define FRAME_DEPTH_MAX        64u
#define FRAME_VALUES_MAX       4096u /* json-glib makes some 100 bytes of each */
#define FRAME_DIGITS_MAX       18u   /* every such number fits an int64 */

typedef enum {
    FRAME_MORE,    /* all bytes taken, no value is complete */
    FRAME_VALUE,   /* .text is one value: brackets matched, UTF-8, no NUL */
    FRAME_BROKEN,  /* not JSON; .problem says why; the next value may be fine */
    FRAME_HOSTILE, /* past a limit, or binary; .problem says why; end the session */
} FrameResult;

typedef struct Frame {
    GString *text;
    const char *problem;
    uint64_t arrays; /* bit n: the bracket at depth n is '[' */
    unsigned depth, digits, values;
    bool in_string, escaped, long_number;
    bool skipping; /* to the end of the line, after stray text */
} Frame;

Frame *frame_new(void);
void frame_free(Frame *frame);

/* Takes bytes up to the first result that is not FRAME_MORE; *ret_used says how many. */
FrameResult frame_take(Frame *frame, const char *bytes, size_t length_bytes, size_t *ret_used);

/* ---- grammar.c: whether it is JSON ------------------------------------------------------------
 */

/* text: a value as frame.c cuts it out. NULL: it is JSON; else what is wrong with it. */
const char *grammar_find_problem(const char *text);

/* ---- arguments.c: what a handler may rely on ------------------------------------------------- */

typedef enum {
    ARGUMENT_STRING,
    ARGUMENT_BOOLEAN,
    ARGUMENT_INTEGER, /* a JSON integer, not negative */
    ARGUMENT_ARRAY,
    ARGUMENT_OBJECT,
    ARGUMENT_TYPE_COUNT
} ArgumentType;

typedef struct Argument {
    const char *name; /* NULL: end of the list */
    ArgumentType type;
    bool optional;
} Argument;

/* prefix: path of the object in error texts, e.g. "channels[0]."; "" at the top.
 * arguments: NULL means none. Errors: ARGUMENT. */
bool arguments_check(const Argument *arguments, JsonObject *object, const char *prefix,
                     GError **error);

/* Members are rows of faultline_parameter_table(), each value of its type and in its range. */
bool arguments_check_parameters(JsonObject *object, GError **error);
/* Value of a checked member, as faultline_set_parameter() takes it. */
uint64_t arguments_parameter(JsonNode *node);
/* Of one of type TEXT; null is "". */
const char *arguments_text_parameter(JsonNode *node);
/* NULL: there is none such. */
const FaultlineParameterRow *arguments_find_parameter(const char *name);
bool arguments_check_range(const FaultlineParameterRow *row, uint64_t value, GError **error);

/* Members of a checked object; the latter value when absent. */
const char *arguments_string(JsonObject *object, const char *name);
bool arguments_boolean(JsonObject *object, const char *name, bool otherwise);

/* ---- command_table.c, commands.c: the one table
 * --------------------------------------------------------------- */

typedef struct Command Command;

struct Command {
    const char *name; /* QMP; NULL: only typed */
    const Argument *arguments;
    bool (*check)(JsonObject *object, GError **error); /* instead of arguments; NULL: those */
    /* A new node, or NULL and an error. */
    JsonNode *(*run)(FaultlineMonitor *monitor, JsonObject *object, GError **error);
    bool out_of_band; /* may come by exec-oob */
    bool negotiation; /* only before the session has negotiated; the session runs it itself */

    const char *typed;          /* HMP, e.g. "info migrate" or "quit|q"; NULL: only QMP */
    const char *typed_synopsis; /* its arguments for help */
    const char *help;
    /* words: arguments after the name, NULL at the end. Appends its output, whole lines. NULL:
     * takes no words and runs the command. */
    bool (*run_typed)(FaultlineMonitor *monitor, const Command *command, char **words,
                      GString *output, GError **error);
};

/* Ends with a row that has neither name nor typed. */
extern const Command command_table[];

const Command *command_find(const char *name);

/* Checks the arguments and runs the handler. Errors: those of the check and of the handler. */
JsonNode *command_run(FaultlineMonitor *monitor, const Command *command, JsonObject *object,
                      GError **error);

/* The reply of a command that has nothing to say: {}. */
JsonNode *command_done(void);

JsonNode *command_reply(JsonObject *object); /* takes it */

JsonObject *command_version(void);

/* query-status's name for where the guest stands. */
const char *command_status(FaultlineMonitor *monitor, bool *ret_is_running);

#define COMMAND_RUN(name)                                                                          \
    JsonNode *name(FaultlineMonitor *monitor, JsonObject *object, GError **error)
COMMAND_RUN(command_query_version_run);
COMMAND_RUN(command_query_commands_run);
COMMAND_RUN(command_query_name_run);
COMMAND_RUN(command_query_memory_run);
COMMAND_RUN(command_query_status_run);
COMMAND_RUN(command_query_cpus_run);
COMMAND_RUN(command_stop_run);
COMMAND_RUN(command_cont_run);
COMMAND_RUN(command_quit_run);
COMMAND_RUN(command_pmemsave_run);
COMMAND_RUN(command_human_monitor_command_run);

/* ---- migrate_commands.c, channels.c, query_migrate.c, info.c, hmp.c -------------------------- */

COMMAND_RUN(migrate_run);
COMMAND_RUN(migrate_incoming_run);
COMMAND_RUN(migrate_start_postcopy_run);
COMMAND_RUN(migrate_cancel_run);
COMMAND_RUN(migrate_pause_run);
COMMAND_RUN(migrate_recover_run);
COMMAND_RUN(migrate_continue_run);
COMMAND_RUN(migrate_set_capabilities_run);
COMMAND_RUN(migrate_query_capabilities_run);
COMMAND_RUN(migrate_set_parameters_run);
COMMAND_RUN(migrate_query_parameters_run);
COMMAND_RUN(object_add_run);
COMMAND_RUN(object_del_run);
/* Any members: which, is looked at when it runs. */
bool object_add_check(JsonObject *object, GError **error);

/* The URI that `uri` or `channels` of a migrate command names (g_free). Errors: ARGUMENT. */
char *channels_uri(JsonObject *object, GError **error);

/* A URI as QMP's SocketAddress; NULL for one it has no form for. */
JsonObject *channels_socket_address(const char *uri);

/* A snapshot as MigrationInfo. has_blocktime: capability postcopy-blocktime; listening: address or
 * NULL. */
JsonNode *query_migrate_reply(const FaultlineInfo *info, bool has_blocktime, const char *listening);
COMMAND_RUN(query_migrate_run);

#define QUERY_LATENCY_COUNTS 24

/* Counts of faults in [2^N, 2^(N+1)) us. A bucket of the histogram (3.2% wide) that lies across a
 * power of two is counted whole on one side. */
void query_latency_distribution(const FaultlineLatency *latency,
                                uint64_t ret_counts[QUERY_LATENCY_COUNTS]);

/* `info migrate`. listening: address or NULL. */
void info_migrate_render(const FaultlineInfo *info, const char *listening, GString *output);
/* One line behind it for a vCPU. */
void info_vcpu_render(unsigned index, const FaultlineLatency *latency, GString *output);

#define COMMAND_TYPED(name)                                                                        \
    bool name(FaultlineMonitor *monitor, const Command *command, char **words, GString *output,    \
              GError **error)
COMMAND_TYPED(hmp_migrate);
COMMAND_TYPED(hmp_migrate_incoming);
COMMAND_TYPED(hmp_migrate_recover);
COMMAND_TYPED(hmp_migrate_continue);
COMMAND_TYPED(hmp_migrate_set_capability);
COMMAND_TYPED(hmp_migrate_set_parameter);
COMMAND_TYPED(hmp_object_add);
COMMAND_TYPED(hmp_object_del);
COMMAND_TYPED(hmp_calc_dirty_rate);
COMMAND_TYPED(hmp_pmemsave);
COMMAND_TYPED(hmp_fd_name);
COMMAND_TYPED(hmp_help);
COMMAND_TYPED(hmp_info_version);
COMMAND_TYPED(hmp_info_missing);
COMMAND_TYPED(hmp_take_back);
COMMAND_TYPED(hmp_info_name);
COMMAND_TYPED(hmp_info_cpus);
COMMAND_TYPED(hmp_info_migrate);
COMMAND_TYPED(hmp_info_capabilities);
COMMAND_TYPED(hmp_info_parameters);
COMMAND_TYPED(hmp_info_status);
COMMAND_TYPED(hmp_info_dirty_rate);

/* hmp.c, for hmp_info.c: */
bool hmp_refuse(GError **error, const char *text);

/* ---- rate_commands.c ----------------------------------------------------------------------------
 */

COMMAND_RUN(rate_calc_run);
COMMAND_RUN(rate_query_run);
uint64_t rate_mib_per_s(const FaultlineDirtyRate *rate);

/* ---- map_command.c ----------------------------------------------------------------------------
 */

/* {"blocks": [{"name", "guest-address", "length", "page-size"}, ...]}, all but the name in bytes.
 */
COMMAND_RUN(map_blocks_run);

/* {"cells": [[pages, left, waiting], ...]}, as in FaultlineMapCell; empty when there is no map. */
COMMAND_RUN(map_query_run);
COMMAND_RUN(missing_query_run);
COMMAND_RUN(missing_peer_lost_run);
COMMAND_RUN(missing_take_back_run);

/* ---- fds.c: descriptors that clients hand over ------------------------------------------------
 */

COMMAND_RUN(fds_get_run);
COMMAND_RUN(fds_close_run);
COMMAND_RUN(fds_add_run);
COMMAND_RUN(fds_remove_run);
COMMAND_RUN(fds_query_run);
void fds_init(FaultlineMonitor *monitor);
/* Closes all. */
void fds_clear(FaultlineMonitor *monitor);
/* uri, with the number in place of the name in fd:NAME (g_free). Errors: ARGUMENT. */
char *fds_resolve(FaultlineMonitor *monitor, const char *uri, GError **error);
/* The engine has taken the descriptor of a resolved uri over; nothing for another uri. */
void fds_forget(FaultlineMonitor *monitor, const char *resolved);

/* ---- session.c ------------------------------------------------------------------------------- */

/* Sends an event line, if the session has negotiated and still lives. */
void session_send_event(FaultlineSession *session, JsonNode *event);

/* The oldest descriptor that its client sent and nobody took; -1: none. */
int session_take_fd(FaultlineSession *session);

#endif
