/* SPDX-License-Identifier: MIT */
/*
 * The monitor's inside, shared by the files of this folder only; the VMM sees the last chapter of
 * faultline.h. Everything here runs on the control thread, and nothing here blocks.
 *
 * The way of one QMP command, in call order:
 *
 *   session.c    bytes -> frame.c cuts out one JSON value -> json-glib -> execute, arguments, id
 *   commands.c   name -> row of the one table of commands
 *   arguments.c  the row's arguments: unknown, missing, wrong type, out of range
 *   the handler  (commands.c, migrate_commands.c, query_migrate.c) sees only checked arguments
 *   events.c     what the command caused goes out as events, then
 *   session.c    the reply as one line
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
};

/* ---- frame.c: where one JSON value ends ------------------------------------------------------ */

#define FRAME_LENGTH_MAX_BYTES (1024u * 1024u)
#define FRAME_DEPTH_MAX        64u
#define FRAME_DIGITS_MAX       18u /* every such number fits an int64 */

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
    unsigned depth, digits;
    bool in_string, escaped, long_number;
    bool skipping; /* to the end of the line, after stray text */
} Frame;

Frame *frame_new(void);
void frame_free(Frame *frame);

/* Takes bytes up to the first result that is not FRAME_MORE; *ret_used says how many. */
FrameResult frame_take(Frame *frame, const char *bytes, size_t length_bytes, size_t *ret_used);

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

/* Members are rows of faultline_parameter_table(), each value in its range. */
bool arguments_check_parameters(JsonObject *object, GError **error);
bool arguments_check_range(const FaultlineParameterRow *row, uint64_t value, GError **error);

/* Members of a checked object; the latter value when absent. */
const char *arguments_string(JsonObject *object, const char *name);
bool arguments_boolean(JsonObject *object, const char *name, bool otherwise);

/* ---- commands.c: the one table --------------------------------------------------------------- */

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
    /* words: arguments after the name, NULL at the end. Appends its output, whole lines. */
    bool (*run_typed)(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
};

/* Ends with a row that has neither name nor typed. */
extern const Command command_table[];

const Command *command_find(const char *name);

/* Checks the arguments and runs the handler. Errors: those of the check and of the handler. */
JsonNode *command_run(FaultlineMonitor *monitor, const Command *command, JsonObject *object,
                      GError **error);

/* The reply of a command that has nothing to say: {}. */
JsonNode *command_done(void);

JsonObject *command_version(void);

/* ---- migrate_commands.c, channels.c, query_migrate.c, info.c, hmp.c -------------------------- */

JsonNode *migrate_run(FaultlineMonitor *monitor, JsonObject *object, GError **error);
JsonNode *migrate_incoming_run(FaultlineMonitor *monitor, JsonObject *object, GError **error);
JsonNode *migrate_start_postcopy_run(FaultlineMonitor *monitor, JsonObject *object, GError **error);
JsonNode *migrate_cancel_run(FaultlineMonitor *monitor, JsonObject *object, GError **error);
JsonNode *migrate_set_capabilities_run(FaultlineMonitor *monitor, JsonObject *object,
                                       GError **error);
JsonNode *migrate_query_capabilities_run(FaultlineMonitor *monitor, JsonObject *object,
                                         GError **error);
JsonNode *migrate_set_parameters_run(FaultlineMonitor *monitor, JsonObject *object, GError **error);
JsonNode *migrate_query_parameters_run(FaultlineMonitor *monitor, JsonObject *object,
                                       GError **error);

/* The URI that `uri` or `channels` of a migrate command names (g_free). Errors: ARGUMENT. */
char *channels_uri(JsonObject *object, GError **error);

/* A URI as QMP's SocketAddress; NULL for one it has no form for. */
JsonObject *channels_socket_address(const char *uri);

/* A snapshot as MigrationInfo. has_blocktime: capability postcopy-blocktime; listening: address or
 * NULL. */
JsonNode *query_migrate_reply(const FaultlineInfo *info, bool has_blocktime, const char *listening);
JsonNode *query_migrate_run(FaultlineMonitor *monitor, JsonObject *object, GError **error);

#define QUERY_LATENCY_COUNTS 24

/* Counts of faults in [2^N, 2^(N+1)) us. A bucket of the histogram (3.2% wide) that lies across a
 * power of two is counted whole on one side. */
void query_latency_distribution(const FaultlineLatency *latency,
                                uint64_t ret_counts[QUERY_LATENCY_COUNTS]);

/* `info migrate`. listening: address or NULL. */
void info_migrate_render(const FaultlineInfo *info, const char *listening, GString *output);

bool hmp_migrate(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_migrate_incoming(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_migrate_set_capability(FaultlineMonitor *monitor, char **words, GString *output,
                                GError **error);
bool hmp_migrate_set_parameter(FaultlineMonitor *monitor, char **words, GString *output,
                               GError **error);
bool hmp_migrate_start_postcopy(FaultlineMonitor *monitor, char **words, GString *output,
                                GError **error);
bool hmp_migrate_cancel(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_stop(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_cont(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_quit(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_help(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_info_migrate(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_info_capabilities(FaultlineMonitor *monitor, char **words, GString *output,
                           GError **error);
bool hmp_info_parameters(FaultlineMonitor *monitor, char **words, GString *output, GError **error);
bool hmp_info_status(FaultlineMonitor *monitor, char **words, GString *output, GError **error);

/* ---- session.c ------------------------------------------------------------------------------- */

/* Sends an event line, if the session has negotiated and still lives. */
void session_send_event(FaultlineSession *session, JsonNode *event);

#endif
